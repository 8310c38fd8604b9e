//! The same work for lepus, its peers, and no client at all: `cargo run --release -p lepus-peers`.
//!
//! Each client runs in a process of its own, one at a time, against a null broker (a process of its own,
//! too) or, with `AMQP_URL`, against a real one. See `--help`.

mod broker;
mod clients;
mod job;
mod measure;
mod options;
mod plot;
mod report;
mod run;
mod wire;
mod work;

use std::process::ExitCode;

use self::clients::Client;
use self::job::Job;
use self::options::Options;

/// Anything that goes wrong ends the program, or this measurement; a text is enough.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lepus-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    match arguments {
        [first, rest @ ..] if first == "broker" => {
            broker::run(rest.first().map(|port| port.parse()).transpose()?)
        }
        [first, name, rest @ ..] if first == "client" => {
            let sample = Client::named(name)?.run(&Job::parse(rest)?)?;
            println!("{}", sample.line());
            // what the client still wants to do in the background does not count
            std::process::exit(0);
        }
        _ => {
            if let Some(options) = Options::parse(arguments)? {
                run::run(&options)
            } else {
                print!("{}", options::HELP);
                Ok(())
            }
        }
    }
}
