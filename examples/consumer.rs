//! Prints the JSON messages that arrive on the exchange `test_exchange`, one on each line.
//!
//! ```text
//! cargo run --example consumer -- --workers 4 --prefetch 20 routine1_json
//! ```

use std::io::{self, Write};
use std::process::ExitCode;
use std::{env, error};

use lepus::Consumer;
use lepus::broker::Broker;
use lepus::{Delivery, ExchangeKind};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

const USAGE: &str = "\
Usage: consumer [--workers N] [--prefetch N] [--queue NAME] [ROUTING-KEY …]

Prints the messages that are published to the exchange `test_exchange` with one of the routing keys
(routine1_json and routine2_json unless given), each on its own line, after a line `ready`.
Stops in order on SIGINT (Ctrl-C) and SIGTERM. When the connection is lost it goes on with the next one.

  --workers N     how many consumers share the queue; 1 unless given
  --prefetch N    how many unacknowledged messages each of them may have; 100 unless given
  --queue NAME    a durable queue, which stays; unless given, one that goes with this program
  --help          shows this

The broker is the one that AMQP_URL names; without it an embedded one, which ends with the program, and
whose URL is printed for `publisher`.";

type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("consumer: {mistake}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("consumer: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (url, _broker) = broker().await?;

    let connection = lepus::connect_robust(&url).await?;
    let channel = connection.channel().await?;
    let exchange = channel.declare_exchange("test_exchange", ExchangeKind::Topic).await?;
    let queue = channel.declare_queue(options.queue).await?;
    for routing_key in options.routing_keys {
        queue.bind(&exchange, routing_key).await?;
    }
    let mut consumers = Vec::new();
    for _ in 0..options.workers {
        consumers.push(queue.consume().prefetch(options.prefetch).await?);
    }
    println!("ready");

    let (stop, stopped) = watch::channel(());
    let mut workers = JoinSet::new();
    for deliveries in consumers {
        workers.spawn(work(deliveries, stopped.clone()));
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        // only an error ends a worker that was not told to stop
        Some(ended) = workers.join_next() => ended??,
    }
    drop(stop);
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    connection.close().await?;
    Ok(())
}

/// The broker's URL, and the broker itself if it is an embedded one, which runs until it is dropped.
async fn broker() -> Result<(String, Option<Broker>)> {
    if let Ok(url) = env::var("AMQP_URL") {
        return Ok((url, None));
    }
    let broker = Broker::start().await?;
    eprintln!("AMQP_URL is not set: an embedded broker serves here; publish to it with\n");
    eprintln!("    AMQP_URL={} cargo run --example publisher\n", broker.url());
    Ok((broker.url(), Some(broker)))
}

/// Works on one delivery after the other. What it has not begun when it stops goes back to the queue.
async fn work(mut deliveries: Consumer, mut stopped: watch::Receiver<()>) -> Result<()> {
    loop {
        let delivery = tokio::select! {
            biased;
            _ = stopped.changed() => return Ok(()),
            delivery = deliveries.next() => delivery,
        };
        let Some(delivery) = delivery else { return Ok(()) };
        let delivery = delivery?;
        print(&delivery)?;
        // delivered before the connection was lost, it comes once more
        delivery.ack()?;
    }
}

/// Prints a body on one line: between the values of a JSON text a space is as good as a line break.
fn print(delivery: &Delivery) -> io::Result<()> {
    let line = String::from_utf8_lossy(delivery.body()).replace(['\r', '\n'], " ");
    // the lock keeps the workers' lines apart
    writeln!(io::stdout().lock(), "{line}")
}

struct Options {
    workers: u16,
    prefetch: u16,
    /// Empty: the broker makes a name up.
    queue: String,
    routing_keys: Vec<String>,
}

impl Options {
    /// `None`: the user asks for help.
    fn parse(mut arguments: impl Iterator<Item = String>) -> std::result::Result<Option<Self>, String> {
        let mut options = Self { workers: 1, prefetch: 100, queue: String::new(), routing_keys: Vec::new() };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--workers" => options.workers = number(&value()?)?,
                "--prefetch" => options.prefetch = number(&value()?)?,
                "--queue" => options.queue = value()?,
                unknown if unknown.starts_with('-') => return Err(format!("unknown option {unknown}")),
                _ => options.routing_keys.push(argument),
            }
        }
        if options.routing_keys.is_empty() {
            options.routing_keys = vec!["routine1_json".into(), "routine2_json".into()];
        }
        Ok(Some(options))
    }
}

fn number(text: &str) -> std::result::Result<u16, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or(format!("not a number from 1 to 65535: {text}"))
}
