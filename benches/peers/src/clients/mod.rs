//! The clients. Each runs in a process of its own, and is used as its own documentation shows.

mod amqprs;
pub(crate) mod floor;
mod lapin;
mod lepus;
pub(crate) mod rabbitmq_c;

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use crate::Result;
use crate::job::Job;
use crate::measure::Sample;
use crate::work::Work;

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    /// No client at all: frames that were encoded beforehand.
    Floor,
    /// lepus on a multi-thread runtime.
    Lepus,
    /// lepus in the main future of `#[tokio::main]`, which no worker runs: what comes for it crosses threads.
    LepusMain,
    /// lepus on a current-thread runtime.
    LepusCurrentThread,
    /// lepus with a connection that outlives losses.
    LepusRobust,
    Amqprs,
    Lapin,
    /// librabbitmq.
    RabbitmqC,
}

/// All clients by their names.
pub(crate) const ALL: [(Client, &str); 8] = [
    (Client::Floor, "floor"),
    (Client::Lepus, "lepus"),
    (Client::LepusMain, "lepus-main"),
    (Client::LepusCurrentThread, "lepus-ct"),
    (Client::LepusRobust, "lepus-robust"),
    (Client::Amqprs, "amqprs"),
    (Client::Lapin, "lapin"),
    (Client::RabbitmqC, "rabbitmq-c"),
];

impl Client {
    pub(crate) fn name(self) -> &'static str {
        ALL.iter().find(|(client, _)| *client == self).map_or("?", |(_, name)| name)
    }

    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = ALL.iter().find(|(_, known)| *known == name);
        found.map(|(client, _)| *client).ok_or_else(|| format!("no client is called {name:?}").into())
    }

    /// Whether the work makes sense for it, and the client's module does it: without a client there are no tasks and no idle connections,
    /// and a connection of librabbitmq serves one thread.
    pub(crate) fn does(self, work: Work) -> bool {
        match self {
            Self::Lepus | Self::LepusMain | Self::LepusCurrentThread | Self::LepusRobust => true,
            _ if work == Work::ConfirmReal => false,
            Self::Floor => !matches!(work, Work::Tasks | Work::Channels | Work::Idle),
            Self::RabbitmqC => !matches!(work, Work::Tasks | Work::Channels | Work::Both),
            _ => true,
        }
    }

    /// Does the work in this process: in a task, as a service does, unless the client's name says otherwise.
    pub(crate) fn run(self, job: &Job) -> Result<Sample> {
        let own = job.clone();
        match self {
            Self::Floor => floor::run(job),
            Self::Lepus => in_task(async move { lepus::run(&own, false).await }),
            Self::LepusMain => multi_thread()?.block_on(lepus::run(job, false)),
            Self::LepusCurrentThread => {
                Builder::new_current_thread().enable_all().build()?.block_on(lepus::run(job, false))
            }
            Self::LepusRobust => in_task(async move { lepus::run(&own, true).await }),
            Self::Amqprs => in_task(async move { amqprs::run(&own).await }),
            Self::Lapin => in_task(async move { lapin::run(&own).await }),
            Self::RabbitmqC => Err("librabbitmq has a program of its own".into()),
        }
    }
}

fn in_task(work: impl Future<Output = Result<Sample>> + Send + 'static) -> Result<Sample> {
    multi_thread()?.block_on(async { tokio::spawn(work).await? })
}

/// As `#[tokio::main]` on a machine with two cores.
fn multi_thread() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The memory of each of [`IDLE`](crate::work::IDLE) connections, which `open` opens. One that is opened
/// before pays for what is needed once.
async fn idle<C, F: Future<Output = Result<C>>>(open: impl Fn() -> F) -> Result<Sample> {
    use crate::measure::{Meter, resident};
    use crate::work::IDLE;

    let _first = open().await?;
    let settle = std::time::Duration::from_millis(300);
    tokio::time::sleep(settle).await;
    let before = resident()?;
    let meter = Meter::start(settle);
    let mut connections = Vec::new();
    for _ in 0..IDLE {
        connections.push(open().await?);
    }
    let sample = meter.stop(IDLE);
    tokio::time::sleep(settle).await;
    let memory = resident()?.saturating_sub(before) / IDLE;
    drop(connections);
    Ok(Sample { memory, ..sample })
}
