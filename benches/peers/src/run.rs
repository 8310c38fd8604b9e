//! Runs brokers and clients, each in a process of its own, in turn.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::floor::{DURABLE, Raw};
use crate::clients::{Client, rabbitmq_c};
use crate::job::Job;
use crate::measure::Sample;
use crate::options::Options;
use crate::work::Work;
use crate::{Result, plot, report};

/// How much longer than its time a measurement may take, for what it needs before and after.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came out of one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub sample: Sample,
    /// How busy the null broker was meanwhile: 1 is a whole core.
    pub broker: Option<f64>,
}

/// All rounds of every work and client.
pub(crate) type Results = BTreeMap<(Work, Client), Vec<Measured>>;

struct Bench<'a> {
    options: &'a Options,
    this: PathBuf,
    rabbitmq_c: Option<PathBuf>,
    broker: Broker,
}

/// The broker to measure against.
enum Broker {
    Null { process: Child, uri: String },
    Real { uri: String },
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let this = env::current_exe()?;
    let rabbitmq_c = if options.clients.contains(&Client::RabbitmqC) {
        rabbitmq_c::build(&this).inspect_err(|error| eprintln!("without rabbitmq-c: {error}")).ok()
    } else {
        None
    };
    let broker = match &options.real {
        Some(uri) => Broker::Real { uri: uri.clone() },
        None => Broker::start(&this)?,
    };
    let mut bench = Bench { options, this, rabbitmq_c, broker };
    let results = bench.all();
    bench.broker.stop();
    print!("{}", report::table(options, &results));
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(options, &results))?;
    }
    if let Some(path) = &options.plot {
        std::fs::write(path, plot::svg(options, &results))?;
    }
    let failed = bench.plan().len() * options.rounds - results.values().map(Vec::len).sum::<usize>();
    if failed > 0 { Err(format!("{failed} measurements failed").into()) } else { Ok(()) }
}

impl Bench<'_> {
    fn all(&mut self) -> Results {
        let plan = self.plan();
        let mut results = Results::new();
        let total = plan.len() * self.options.rounds;
        let mut number = 0;
        for round in 1..=self.options.rounds {
            for (work, client) in &plan {
                number += 1;
                let rounds = self.options.rounds;
                eprint!("[{number:3}/{total}] round {round}/{rounds} {work:12} {:10} ", client.name());
                match self.measure(*work, *client) {
                    Ok(measured) => {
                        eprintln!("{}", report::brief(*work, &measured));
                        results.entry((*work, *client)).or_default().push(measured);
                    }
                    Err(error) => eprintln!("failed: {error}"),
                }
            }
        }
        results
    }

    fn plan(&self) -> Vec<(Work, Client)> {
        let mut plan = Vec::new();
        for work in &self.options.works {
            for client in &self.options.clients {
                let there = *client != Client::RabbitmqC || self.rabbitmq_c.is_some();
                if there && client.does(*work) {
                    plan.push((*work, *client));
                }
            }
        }
        plan
    }

    fn measure(&mut self, work: Work, client: Client) -> Result<Measured> {
        let mut job = Job {
            work,
            uri: self.broker.uri().to_owned(),
            time: self.options.time,
            null: matches!(self.broker, Broker::Null { .. }),
            waiting: 0,
        };
        if !job.null {
            job.waiting = prepare(&job)?;
        }
        let before = self.broker.cpu();
        let result = self.client(&job, client);
        let after = self.broker.cpu();
        if !job.null {
            clean_up(&job)?;
        }
        let sample = result?;
        let busy = before.zip(after).map(|(before, after)| {
            (after.saturating_sub(before)).as_secs_f64() / Duration::from_nanos(sample.nanos).as_secs_f64()
        });
        Ok(Measured { sample, broker: busy })
    }

    /// Runs a client, and reads what it says.
    fn client(&self, job: &Job, client: Client) -> Result<Sample> {
        let mut command = if let (Some(program), Client::RabbitmqC) = (&self.rabbitmq_c, client) {
            let mut command = Command::new(program);
            command.args(rabbitmq_c::arguments(job)?);
            command
        } else {
            let mut command = Command::new(&self.this);
            command.arg("client").arg(client.name()).args(job.arguments());
            command
        };
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let deadline = Instant::now() + self.options.time + PATIENCE;
        let status = loop {
            if let Some(status) = process.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                process.kill()?;
                process.wait()?;
                return Err("it did not finish in time".into());
            }
            thread::sleep(Duration::from_millis(5));
        };
        let mut output = String::new();
        process.stdout.take().ok_or("no output")?.read_to_string(&mut output)?;
        let sample = output.lines().find_map(Sample::parse);
        sample.ok_or_else(|| format!("{} with {status}", client.name()).into())
    }
}

impl Broker {
    fn start(this: &Path) -> Result<Self> {
        let mut process =
            Command::new(this).arg("broker").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut port = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut port)?;
        let uri = format!("amqp://guest:guest@127.0.0.1:{}/", port.trim());
        Ok(Self::Null { process, uri })
    }

    fn uri(&self) -> &str {
        match self {
            Self::Null { uri, .. } | Self::Real { uri } => uri,
        }
    }

    /// The processor time that the null broker has used so far; Linux tells it in hundredths of a second.
    fn cpu(&self) -> Option<Duration> {
        let Self::Null { process, .. } = self else { return None };
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).ok()?;
        // behind the name, which may hold anything: state is field 3, user time 14, system time 15
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        Some(Duration::from_millis((ticks()? + ticks()?) * 10))
    }

    fn stop(&mut self) {
        if let Self::Null { process, .. } = self {
            // it ends when its input does; this is to be sure
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// Makes the queues that a work needs on a real broker, and returns how many messages wait there.
fn prepare(job: &Job) -> Result<u64> {
    let queue = job.queue();
    if job.work == Work::Both {
        Raw::connect(&job.uri)?.declare(&queue, DURABLE)?;
    }
    if !job.work.needs_messages() {
        return Ok(0);
    }
    // as many as RabbitMQ delivers in the time; if it has delivered all, the measurement ends earlier
    let bytes = 256 << 20;
    let per_second = (bytes / job.work.size().max(1)).min(60_000) as u64;
    let count = per_second * job.time.as_secs().max(1);
    let mut raw = Raw::connect(&job.uri)?;
    raw.declare(&queue, DURABLE)?;
    raw.fill(&queue, job.work.size(), count)?;
    Ok(count)
}

fn clean_up(job: &Job) -> Result<()> {
    if job.work == Work::Both || job.work.needs_messages() {
        Raw::connect(&job.uri)?.delete(&job.queue())?;
    }
    Ok(())
}
