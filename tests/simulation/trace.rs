//! What happened, and when.

use std::fmt::Arguments;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) type Chunk = (Duration, u64, u8, usize, u64);

/// All that happens in a run, line by line.
#[derive(Debug)]
pub(crate) struct Trace {
    began: Instant,
    prints: bool,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    kept: Vec<String>,
    chunks: Vec<Chunk>,
}

impl Trace {
    pub(crate) fn new(prints: bool) -> Self {
        let lines = Lines { kept: Vec::new(), chunks: Vec::new() };
        Self { began: Instant::now(), prints, lines: Mutex::new(lines) }
    }

    pub(crate) fn log(&self, who: &str, what: Arguments<'_>) {
        let line = format!("{:10.3} {who}: {what}", self.began.elapsed().as_secs_f64());
        if self.prints {
            println!("{line}");
        }
        self.lines.lock().unwrap().kept.push(line);
    }

    /// Bytes pass, which count for whether two runs are the same.
    pub(crate) fn passed(&self, link: u64, direction: u8, bytes: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let chunk = (self.began.elapsed(), link, direction, bytes.len(), hasher.finish());
        self.lines.lock().unwrap().chunks.push(chunk);
    }

    /// Every chunk of bytes that the network has passed on: when, on which link, in which direction, how many, and their hash.
    pub(crate) fn chunks(&self) -> Vec<Chunk> {
        self.lines.lock().unwrap().chunks.clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().kept.clone()
    }
}

/// Adds a line to a trace: `log!(trace, who, "text {}", argument)`.
macro_rules! log {
    ($trace:expr, $who:expr, $($what:tt)*) => { $trace.log($who.as_ref(), format_args!($($what)*)) };
}
pub(crate) use log;
