//! A process whose lines a test reads.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::broker::url;

/// A running program; it is killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: BufReader<ChildStderr>,
}

/// How a program ended.
pub(crate) struct Ended {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// What it printed that no test has read.
    pub(crate) lines: Vec<String>,
    /// What it wrote to standard error.
    pub(crate) errors: String,
}

/// One of the crate's examples, which cargo builds next to the tests.
pub(crate) fn example(name: &str) -> Command {
    let tests = env::current_exe().unwrap();
    let built = tests.parent().and_then(Path::parent).unwrap();
    let program: PathBuf = built.join("examples").join(name);
    assert!(program.is_file(), "{} is missing: run `cargo build --examples` first", program.display());
    Command::new(program)
}

/// Starts an example against the broker of the tests.
pub(crate) fn start(name: &str, arguments: &[&str]) -> Program {
    Program::start(example(name).args(arguments))
}

impl Program {
    /// Starts a program against the broker of the tests.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_at(url(), command)
    }

    /// Starts a program against another broker.
    pub(crate) fn start_at(url: &str, command: &mut Command) -> Self {
        Self::spawn(command.env("AMQP_URL", url))
    }

    /// Starts a program that is told of no broker.
    pub(crate) fn start_alone(command: &mut Command) -> Self {
        Self::spawn(command.env_remove("AMQP_URL"))
    }

    fn spawn(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = BufReader::new(child.stderr.take().unwrap());
        Self { child, lines, errors }
    }

    /// The next line that it prints.
    pub(crate) async fn line(&mut self) -> String {
        if let Some(line) = self.lines.next_line().await.unwrap() {
            return line;
        }
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).await.unwrap();
        panic!("it ended: {errors}")
    }

    /// Reads what it complains of until a line begins like this, and returns the rest of that line.
    pub(crate) async fn complaint(&mut self, begins: &str) -> String {
        let mut line = String::new();
        while self.errors.read_line(&mut line).await.unwrap() > 0 {
            if let Some(rest) = line.trim().strip_prefix(begins) {
                return rest.to_owned();
            }
            line.clear();
        }
        panic!("it ended without {begins:?}")
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(mut self) -> Self {
        assert_eq!(self.line().await, "ready");
        self
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it has ended").to_string();
        let kill = ["-c", r#"kill -s "$0" "$1""#, signal, &id];
        assert!(Command::new("sh").args(kill).status().await.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self) -> Ended {
        let mut lines = Vec::new();
        let mut errors = String::new();
        let read_lines = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                lines.push(line);
            }
        };
        let (status, (), read) =
            tokio::join!(self.child.wait(), read_lines, self.errors.read_to_string(&mut errors));
        read.unwrap();
        Ended { code: status.unwrap().code(), lines, errors }
    }
}

impl Ended {
    /// It succeeded and complained of nothing.
    #[track_caller]
    pub(crate) fn well(self) -> Vec<String> {
        assert_eq!((self.code, self.errors.as_str()), (Some(0), ""));
        self.lines
    }
}
