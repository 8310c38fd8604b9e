//! Time, processor time and memory of this process.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::Result;

/// What one client did in one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub messages: u64,
    pub nanos: u64,
    /// User and system time of the whole process, in nanoseconds.
    pub cpu: u64,
    /// The most memory that it ever had, in bytes; for idle connections what each of them takes.
    pub memory: u64,
}

impl Sample {
    /// As one line, for whoever started this process.
    pub(crate) fn line(&self) -> String {
        format!("sample {} {} {} {}", self.messages, self.nanos, self.cpu, self.memory)
    }

    /// Reads [`line`](Self::line).
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("sample ")?.split_whitespace().map(str::parse);
        let mut number = || words.next()?.ok();
        Some(Self { messages: number()?, nanos: number()?, cpu: number()?, memory: number()? })
    }
}

/// Measures from its making on.
#[derive(Clone, Copy)]
pub(crate) struct Meter {
    start: Instant,
    cpu: u64,
    time: Duration,
}

impl Meter {
    /// Begins, for a work that is to take about `time`.
    pub(crate) fn start(time: Duration) -> Self {
        let cpu = cpu();
        Self { start: Instant::now(), cpu, time }
    }

    /// Whether there is time for more.
    pub(crate) fn goes_on(&self) -> bool {
        self.start.elapsed() < self.time
    }

    /// How much time there is for more.
    pub(crate) fn left(&self) -> Duration {
        self.time.saturating_sub(self.start.elapsed())
    }

    /// What was done since the start.
    pub(crate) fn stop(&self, messages: u64) -> Sample {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Sample { messages, nanos, cpu: cpu() - self.cpu, memory: status("VmHWM:").unwrap_or(0) }
    }
}

fn cpu() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0 };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(micros).unwrap_or(0) * 1000
}

/// The memory that this process has now, in bytes.
pub(crate) fn resident() -> Result<u64> {
    status("VmRSS:").ok_or_else(|| "the system does not tell the memory of a process".into())
}

/// A figure of `/proc/self/status`. `ru_maxrss` would not do: a child starts with what its parent had.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}
