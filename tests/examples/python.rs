//! aio-pika, in a virtual environment that is made once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::broker::url;
use crate::program::Program;

const PACKAGES: [&str; 2] = ["aio-pika==10.2.1", "pamqp==4.0.1"];

/// Starts a script of `tests/examples` against the broker of the tests.
pub(crate) fn script(name: &str, arguments: &[&str]) -> Program {
    script_at(url(), name, arguments)
}

/// Starts a script against another broker.
pub(crate) fn script_at(url: &str, name: &str, arguments: &[&str]) -> Program {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples").join(name);
    Program::start_at(url, tokio::process::Command::new(interpreter()).arg(script).args(arguments))
}

/// The interpreter that finds aio-pika.
fn interpreter() -> &'static Path {
    static INTERPRETER: OnceLock<PathBuf> = OnceLock::new();
    INTERPRETER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGES.join("_").replace('=', "-"));
        let interpreter = folder.join("bin/python");
        // written last: without it the environment is not complete
        let complete = folder.join("complete");
        if !complete.is_file() {
            drop(fs::remove_dir_all(&folder));
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder), "apt-get install python3-venv");
            let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
            run(Command::new(&interpreter).args(pip).args(PACKAGES), "a way to a Python package index");
            fs::write(complete, "").unwrap();
        }
        interpreter
    })
}

fn run(command: &mut Command, needs: &str) {
    let text = format!("{command:?}");
    match command.output() {
        Ok(done) if done.status.success() => {}
        Ok(done) => panic!(
            "the tests with aio-pika need: {needs}. `{text}` failed:\n{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        ),
        Err(error) => {
            panic!("the tests with aio-pika need Python 3.11 or later and {needs}. `{text}`: {error}")
        }
    }
}
