//! Runs the embedded broker on its own, for clients of any language.
//!
//! ```text
//! cargo run --example broker -- --port 5679
//! ```

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::{env, error};

use lepus::broker::Broker;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
Usage: broker [--port N]

Runs the embedded broker on 127.0.0.1 and prints its URL. Stops on SIGINT (Ctrl-C) and SIGTERM; nothing is kept.

  --port N        where it listens; a free port unless given
  --help          shows this";

type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let port = match parse(env::args().skip(1)) {
        Ok(Some(port)) => port,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("broker: {mistake}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(port).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("broker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(port: u16) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let broker = Broker::options().address(address).start().await?;
    writeln!(io::stdout(), "{}", broker.url())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// The port, 0 for a free one. `None`: the user asks for help.
fn parse(mut arguments: impl Iterator<Item = String>) -> std::result::Result<Option<u16>, String> {
    let mut port = 0;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--port" => {
                let text = arguments.next().ok_or("--port needs a value")?;
                port = text.parse().map_err(|_| format!("not a port: {text}"))?;
            }
            unknown => return Err(format!("unknown option {unknown}")),
        }
    }
    Ok(Some(port))
}
