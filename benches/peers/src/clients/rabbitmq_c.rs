//! librabbitmq: a small C program, compiled when the library's header is there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::job::{Address, Job};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/c/peer.c");

/// Compiles the program beside this one. An error means that librabbitmq cannot join in.
pub(crate) fn build(beside: &Path) -> Result<PathBuf> {
    let program = beside.with_file_name("lepus-peers-rabbitmq-c");
    // the package may be known to pkg-config, or just be where the compiler looks
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "librabbitmq"]).output();
    let flags = match flags {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout)?,
        _ => "-lrabbitmq".into(),
    };
    let compiled = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-o"])
        .arg(&program)
        .arg(SOURCE)
        .args(flags.split_whitespace())
        .output()?;
    if compiled.status.success() {
        Ok(program)
    } else {
        let text = String::from_utf8_lossy(&compiled.stderr);
        Err(text.lines().next().unwrap_or("cc failed").to_owned().into())
    }
}

/// The program's arguments.
pub(crate) fn arguments(job: &Job) -> Result<Vec<String>> {
    let Address { host, port, user, password, vhost } = Address::parse(&job.uri)?;
    let work = job.work.to_string();
    let kind = work.split_once('-').map_or(work.as_str(), |(kind, _)| kind);
    let kind = if matches!(work.as_str(), "confirm-each" | "consume-ack") { work.as_str() } else { kind };
    Ok(vec![
        host,
        port.to_string(),
        user,
        password,
        vhost,
        kind.to_owned(),
        job.work.size().to_string(),
        job.work.queue(),
        job.time.as_millis().to_string(),
        job.work.stride().to_string(),
        if job.null { u64::MAX } else { job.waiting }.to_string(),
        u8::from(job.null).to_string(),
    ])
}
