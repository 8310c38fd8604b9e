//! Many applications report to one place, over links that fail: nothing is lost, and each one's reports come in
//! order.
//!
//! ```text
//! cargo run --example central -- --apps 20 --messages 500
//! ```

#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../tests/support/relay.rs"]
mod relay;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::{self, ExitCode};
use std::time::Duration;
use std::{env, error};

use lepus::broker::Broker;
use lepus::{Confirm, Connection};
use lepus::{Delivery, ExchangeKind, Message};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::relay::Relay;

const USAGE: &str = "\
Usage: central [--apps N] [--messages N]

Applications, with a connection each, report JSON to a topic exchange and wait for the broker's confirms. One
central consumer takes the reports one by one. Meanwhile everybody's link is cut now and then, and the consumer is
restarted at another address. Prints what became of the reports; the exit status is 1 if one is lost, or an
application's are out of order.

  --apps N        how many applications; 20 unless given
  --messages N    how many reports of each; 500 unless given
  --help          shows this

The broker is the one that AMQP_URL names; without it an embedded one, which ends with the program.";

/// How many reports an application has under way at most.
const UNDER_WAY: usize = 10;

/// How often an application's link is cut, and the consumer's, and which of the latter is a restart instead.
const CUTS_OF_APP: usize = 4;
const CUTS_OF_CENTER: usize = 15;
const RESTART: usize = 5;

/// A report that does not come in this time is lost.
const LOST: Duration = Duration::from_secs(30);

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
            eprintln!("central: {mistake}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options).await {
        Ok(tally) => {
            println!("{tally}");
            if tally.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("central: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<Tally> {
    let (url, _broker) = broker().await?;
    let name = format!("lepus.central.{}", process::id());
    let received = watch::Sender::new(Received::default());
    let (orders, obeyed) = mpsc::channel(1);
    let (started, mut consumes) = watch::channel(false);
    let mut center = tokio::spawn(center(url.clone(), name.clone(), received.clone(), obeyed, started));
    // reports that reach no queue would be dropped
    if consumes.wait_for(|consumes| *consumes).await.is_err() {
        return Err((&mut center).await?.err().unwrap_or_else(|| "the consumer has ended".into()));
    }

    let mut apps = JoinSet::new();
    for app in 0..options.apps {
        apps.spawn(report(url.clone(), name.clone(), app, options.messages));
    }
    let total = options.apps * options.messages;
    let saboteur = tokio::spawn(sabotage(orders.clone(), received.subscribe(), total));
    let bar = tokio::spawn(show(received.subscribe(), total));

    let mut tally = Tally { sent: total, ..Tally::default() };
    while let Some(reported) = apps.join_next().await {
        let (confirmed, reconnects) = reported??;
        tally.confirmed += confirmed;
        tally.reconnects += reconnects;
    }
    let mut arrived = received.subscribe();
    // what is missing when nothing comes any more is counted below
    while arrived.borrow_and_update().reports < tally.confirmed {
        if !matches!(timeout(LOST, arrived.changed()).await, Ok(Ok(()))) {
            break;
        }
    }
    saboteur.await?;
    orders.send(Order::Stop).await?;
    tally.reconnects += center.await??;
    bar.await??;
    clean(&url, &name).await?;
    let received = received.borrow();
    tally.received = received.reports;
    tally.duplicates = received.duplicates;
    tally.disordered = received.disordered;
    Ok(tally)
}

/// The broker's URL, and the broker itself if it is an embedded one, which runs until it is dropped.
async fn broker() -> Result<(String, Option<Broker>)> {
    if let Ok(url) = env::var("AMQP_URL") {
        return Ok((url, None));
    }
    let broker = Broker::start().await?;
    eprintln!("AMQP_URL is not set: an embedded broker serves at {}", broker.url());
    Ok((broker.url(), Some(broker)))
}

/// One application: reports, and waits until everything is confirmed. Returns how much that was, and how often its link
/// was replaced.
async fn report(url: String, exchange: String, app: usize, messages: usize) -> Result<(usize, u64)> {
    let link = Relay::to_broker(&url).await?;
    let connection = lepus::connect_robust(&link.url(&url)).await?;
    let channel = connection.channel().await?;
    let exchange = channel.declare_exchange(exchange, ExchangeKind::Topic).auto_delete().await?;
    let key = format!("app.{app}");
    let between_cuts = (messages / CUTS_OF_APP).max(1);
    let (mut under_way, mut confirmed) = (VecDeque::<Confirm>::new(), 0);
    for number in 1..=messages {
        let report =
            Message::new(format!(r#"{{"app":{app},"number":{number}}}"#)).content_type("application/json");
        under_way.push_back(exchange.enqueue(&key, report).mandatory().await?);
        // somewhere else for each application
        if (number + 7 * app).is_multiple_of(between_cuts) {
            link.cut();
        }
        while under_way.len() > if number == messages { 0 } else { UNDER_WAY } {
            let Some(confirm) = under_way.pop_front() else { break };
            confirm.await?;
            confirmed += 1;
        }
    }
    let reconnects = connection.counters().reconnects;
    connection.close().await?;
    Ok((confirmed, reconnects))
}

/// What is done to the central consumer.
#[derive(Clone, Copy, Debug)]
enum Order {
    Cut,
    Restart,
    Stop,
}

/// The central consumer. Returns how often its link was replaced.
async fn center(
    url: String,
    name: String,
    received: watch::Sender<Received>,
    mut orders: mpsc::Receiver<Order>,
    started: watch::Sender<bool>,
) -> Result<u64> {
    let mut reconnects = 0;
    loop {
        // another port each time
        let link = Relay::to_broker(&url).await?;
        let connection = lepus::connect_robust(&link.url(&url)).await?;
        let order = consume(&connection, &link, &name, &received, &mut orders, &started).await?;
        reconnects += connection.counters().reconnects;
        connection.close().await?;
        if matches!(order, Order::Stop) {
            return Ok(reconnects);
        }
    }
}

/// Takes reports, one by one, until the consumer is to be restarted or to stop.
async fn consume(
    connection: &Connection,
    link: &Relay,
    name: &str,
    received: &watch::Sender<Received>,
    orders: &mut mpsc::Receiver<Order>,
    started: &watch::Sender<bool>,
) -> Result<Order> {
    let channel = connection.channel().await?;
    let exchange = channel.declare_exchange(name, ExchangeKind::Topic).auto_delete().await?;
    // A new consumer gets nothing before the broker has taken back what the lost one held: else it would get later
    // reports first. And should this program be killed, nothing stays behind.
    let queue = channel.declare_queue(name).single_active_consumer().expires(Duration::from_secs(60)).await?;
    queue.bind(&exchange, "app.*").await?;
    let mut deliveries = queue.consume().prefetch(1).await?;
    started.send_replace(true);
    loop {
        let delivery = tokio::select! {
            delivery = deliveries.next() => delivery.ok_or("the consumer's stream has ended")??,
            order = orders.recv() => match order {
                Some(Order::Cut) => {
                    link.cut();
                    continue;
                }
                Some(order) => return Ok(order),
                None => return Ok(Order::Stop),
            },
        };
        let (app, number) = read(&delivery).ok_or("a report that nobody has written")?;
        received.send_modify(|received| received.add(app, number));
        // delivered before a cut, it comes once more
        delivery.ack()?;
    }
}

/// The application and the number of a report.
fn read(delivery: &Delivery) -> Option<(usize, usize)> {
    let fields = delivery.body_str()?.strip_prefix(r#"{"app":"#)?.strip_suffix('}')?;
    let (app, number) = fields.split_once(r#","number":"#)?;
    Some((app.parse().ok()?, number.parse().ok()?))
}

/// What has come so far.
#[derive(Clone, Debug, Default)]
struct Received {
    /// The last number of each application.
    last: HashMap<usize, usize>,
    reports: usize,
    duplicates: usize,
    disordered: usize,
}

impl Received {
    fn add(&mut self, app: usize, number: usize) {
        let last = self.last.entry(app).or_default();
        if number <= *last {
            self.duplicates += 1;
            return;
        }
        // one was left out
        self.disordered += usize::from(number != *last + 1);
        *last = number;
        self.reports += 1;
    }
}

/// Cuts the consumer's link and restarts it, evenly over the run.
async fn sabotage(orders: mpsc::Sender<Order>, mut received: watch::Receiver<Received>, total: usize) {
    for cut in 1..=CUTS_OF_CENTER {
        let due = total * cut / (CUTS_OF_CENTER + 1);
        let came = received.wait_for(|received| received.reports >= due);
        if !matches!(timeout(LOST, came).await, Ok(Ok(_))) {
            return;
        }
        let order = if cut % RESTART == 0 { Order::Restart } else { Order::Cut };
        if orders.send(order).await.is_err() {
            return;
        }
    }
}

/// Shows how far it is.
async fn show(mut received: watch::Receiver<Received>, total: usize) -> io::Result<()> {
    const WIDTH: usize = 40;
    if !io::stderr().is_terminal() {
        return Ok(());
    }
    let mut shown = None;
    loop {
        let reports = received.borrow_and_update().reports;
        let (done, percent) = (reports * WIDTH / total, reports * 100 / total);
        if shown != Some(percent) {
            shown = Some(percent);
            write!(io::stderr(), "\r[{:<WIDTH$}] {percent:3} %", "#".repeat(done))?;
        }
        if reports >= total || received.changed().await.is_err() {
            return writeln!(io::stderr());
        }
    }
}

/// Removes queue and exchange.
async fn clean(url: &str, name: &str) -> Result<()> {
    let connection = lepus::connect(url).await?;
    let channel = connection.channel().await?;
    channel.queue(name)?.delete().await?;
    channel.exchange(name)?.delete().await?;
    Ok(connection.close().await?)
}

/// What became of all reports.
#[derive(Debug, Default)]
struct Tally {
    sent: usize,
    confirmed: usize,
    received: usize,
    duplicates: usize,
    disordered: usize,
    reconnects: u64,
}

impl Tally {
    fn lost(&self) -> usize {
        self.confirmed.saturating_sub(self.received)
    }

    fn is_well(&self) -> bool {
        self.lost() == 0 && self.disordered == 0 && self.confirmed == self.sent
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, confirmed, received, duplicates, disordered, reconnects } = self;
        let lost = self.lost();
        writeln!(f, "sent         {sent:7}\nconfirmed    {confirmed:7}\nreceived     {received:7}")?;
        writeln!(f, "duplicates   {duplicates:7}\nlost         {lost:7}\nout of order {disordered:7}")?;
        write!(f, "reconnects   {reconnects:7}")
    }
}

struct Options {
    apps: usize,
    messages: usize,
}

impl Options {
    /// `None`: the user asks for help.
    fn parse(mut arguments: impl Iterator<Item = String>) -> std::result::Result<Option<Self>, String> {
        let mut options = Self { apps: 20, messages: 500 };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--apps" => options.apps = number(&value()?)?,
                "--messages" => options.messages = number(&value()?)?,
                unknown => return Err(format!("unknown option {unknown}")),
            }
        }
        Ok(Some(options))
    }
}

fn number(text: &str) -> std::result::Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or(format!("not a number from 1 to 1000000: {text}"))
}
