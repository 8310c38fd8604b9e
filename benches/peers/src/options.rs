//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::Result;
use crate::clients::{self, Client};
use crate::work::{self, Work};

pub(crate) const HELP: &str = "\
cargo run --release -p lepus-peers -- [options]

Measures lepus, its peers, and no client at all (`floor`) on the same works, each in a process of its own,
in turn, against a null broker; or against the broker that the variable AMQP_URL names.

  --works a,b      only these: publish-16 publish-1k publish-64k publish-1m confirm-16 confirm-1k
                   confirm-each consume-16 consume-1k consume-64k consume-ack declare tasks-8
                   channels-8 both-16 idle-200
  --clients x,y    only these: floor lepus lepus-main lepus-ct lepus-robust amqprs lapin rabbitmq-c
                   (in a task of a runtime with two workers; lepus-main: in the main future, which is
                   on a thread of its own; lepus-ct: on a current-thread runtime; lepus-robust: with
                   a connection that outlives losses)
  --rounds N       how often everything is measured, the median counts; 3
  --seconds S      how long each measurement takes; 1
  --quick          one round of 0.1 s: to see that all of it still works
  --json FILE      writes the figures
  --plot FILE.svg  draws the rates
  broker [PORT]    runs the null broker alone
";

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub works: Vec<Work>,
    pub clients: Vec<Client>,
    pub rounds: usize,
    pub time: Duration,
    pub json: Option<PathBuf>,
    pub plot: Option<PathBuf>,
    /// The URI of a real broker.
    pub real: Option<String>,
}

impl Options {
    /// `None`: help is asked for.
    pub(crate) fn parse(arguments: &[String]) -> Result<Option<Self>> {
        let mut options = Self {
            works: work::ALL.iter().map(|(work, ..)| *work).collect(),
            clients: clients::ALL.iter().map(|(client, _)| *client).collect(),
            rounds: 3,
            time: Duration::from_secs(1),
            json: None,
            plot: None,
            real: std::env::var("AMQP_URL").ok().filter(|uri| !uri.is_empty()),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
            match argument.as_str() {
                "--works" => options.works = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--clients" => {
                    options.clients = value()?.split(',').map(Client::named).collect::<Result<_>>()?;
                }
                "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
                "--seconds" => options.time = Duration::try_from_secs_f64(value()?.parse()?)?,
                "--quick" => (options.rounds, options.time) = (1, Duration::from_millis(100)),
                "--json" => options.json = Some(value()?.into()),
                "--plot" => options.plot = Some(value()?.into()),
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("unknown option {other}; see --help").into()),
            }
        }
        Ok(Some(options))
    }
}
