//! Formats generated code with `rustfmt`.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::repository;

/// The code of the generated `file`, formatted as the rest of the repository.
pub(crate) fn format(file: &str, code: &str) -> Result<String, Error> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(repository().join("rustfmt.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::NoRustfmt)?;
    // rustfmt reads all of its input before it writes, so this cannot block on a full pipe.
    let written = rustfmt.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(code.as_bytes()));
    let output = rustfmt.wait_with_output().map_err(Error::NoRustfmt)?;
    let refused = |output| Error::Rustfmt { file: file.to_owned(), output };
    if !output.status.success() {
        return Err(refused(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    written.map_err(Error::NoRustfmt)?;
    String::from_utf8(output.stdout).map_err(|error| refused(error.to_string()))
}
