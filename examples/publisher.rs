//! Publishes JSON messages to the exchange `test_exchange`, and waits until the broker has confirmed them.
//!
//! ```text
//! cargo run --example publisher -- --key routine1_json '{"id":1}'
//! ```

use std::env;
use std::process::ExitCode;

use lepus::{ExchangeKind, Message};

const USAGE: &str = "\
Usage: publisher [--key KEY] [--count N] [JSON]

Publishes persistent JSON messages to the exchange `test_exchange`, waits until the broker has
confirmed all of them, and tells how many. What was not confirmed when the connection is lost is published again.

  --key KEY      the routing key; routine1_json unless given
  --count N      how many messages; 1 unless given
  JSON           the body of each; {\"number\":1}, {\"number\":2}, … unless given
  --help         shows this

The broker is the one that AMQP_URL names, such as the one that `consumer` starts, or
amqp://guest:guest@127.0.0.1/.";

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("publisher: {mistake}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options).await {
        Ok(()) => {
            println!("{} confirmed", options.count);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("publisher: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> lepus::Result<()> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1/".into());
    let connection = lepus::connect_robust(&url).await?;
    let channel = connection.channel().await?;
    let exchange = channel.declare_exchange("test_exchange", ExchangeKind::Topic).await?;
    for number in 1..=options.count {
        let body = options.json.clone().unwrap_or_else(|| format!(r#"{{"number":{number}}}"#));
        let message = Message::new(body).content_type("application/json");
        // many are under way at once; what became of them is asked below, for all together
        drop(exchange.enqueue(&options.key, message).await?);
    }
    channel.wait_for_confirms().await?;
    connection.close().await
}

struct Options {
    key: String,
    count: u64,
    json: Option<String>,
}

impl Options {
    /// `None`: the user asks for help.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self { key: "routine1_json".into(), count: 1, json: None };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--key" => options.key = value()?,
                "--count" => {
                    let count = value()?;
                    options.count = count.parse().map_err(|_| format!("not a number: {count}"))?;
                }
                unknown if unknown.starts_with("--") => return Err(format!("unknown option {unknown}")),
                _ if options.json.is_some() => return Err(format!("one JSON is enough: {argument}")),
                _ => options.json = Some(argument),
            }
        }
        Ok(Some(options))
    }
}
