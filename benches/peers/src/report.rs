//! The figures, as a table and as JSON.
#![expect(clippy::cast_precision_loss, reason = "figures to be printed with three digits")]

use std::fmt::Write;

use crate::clients::Client;
use crate::options::Options;
use crate::run::{Measured, Results};
use crate::work::Work;

/// The medians of all rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Messages, or round trips, for each second.
    pub rate: f64,
    /// The slowest and the fastest round.
    pub range: (f64, f64),
    /// Processor nanoseconds for each message.
    pub cpu: f64,
    /// Bytes.
    pub memory: u64,
    pub broker: Option<f64>,
}

impl Figures {
    pub(crate) fn of(rounds: &[Measured]) -> Option<Self> {
        let rates = sorted(rounds, |measured| Some(rate(measured)));
        let cpu = sorted(rounds, |measured| {
            Some(measured.sample.cpu as f64 / measured.sample.messages.max(1) as f64)
        });
        let mut memory: Vec<u64> = rounds.iter().map(|measured| measured.sample.memory).collect();
        memory.sort_unstable();
        Some(Self {
            rate: median(&rates)?,
            range: (*rates.first()?, *rates.last()?),
            cpu: median(&cpu)?,
            memory: *memory.get(memory.len() / 2)?,
            broker: median(&sorted(rounds, |measured| measured.broker)),
        })
    }
}

fn rate(measured: &Measured) -> f64 {
    measured.sample.messages as f64 * 1e9 / measured.sample.nanos.max(1) as f64
}

fn sorted(rounds: &[Measured], figure: impl Fn(&Measured) -> Option<f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = rounds.iter().filter_map(figure).collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

/// One measurement, for the progress.
pub(crate) fn brief(work: Work, measured: &Measured) -> String {
    if work == Work::Idle {
        return format!("{} each", bytes(measured.sample.memory));
    }
    format!("{}/s", number(rate(measured)))
}

/// A table for people.
pub(crate) fn table(options: &Options, results: &Results) -> String {
    let mut out = String::new();
    let broker = options.real.as_ref().map_or("the null broker", |_| "AMQP_URL");
    let (rounds, seconds) = (options.rounds, options.time.as_secs_f64());
    writes(&mut out, format_args!("against {broker}, {rounds} rounds of {seconds} s, medians\n"));
    for work in &options.works {
        let head = if *work == Work::Idle { "opened/s" } else { "messages/s" };
        writes(
            &mut out,
            format_args!(
                "\n{work}: {}\n  {:<11}{head:>12}{:>17}{:>12}{:>11}{:>10}{:>8}\n",
                work.about(),
                "client",
                "slowest-fastest",
                "CPU ns each",
                "memory",
                "lepus is",
                "broker"
            ),
        );
        for client in &options.clients {
            let Some(figures) = of(results, *work, *client) else { continue };
            writes(
                &mut out,
                format_args!(
                    "  {:<11}{:>12}{:>17}{:>12}{:>11}{:>10}{:>8}\n",
                    client.name(),
                    number(figures.rate),
                    format!("{}-{}", number(figures.range.0), number(figures.range.1)),
                    number(figures.cpu),
                    bytes(figures.memory),
                    ratio(results, *work, &figures).map_or("-".into(), |ratio| format!("{}x", number(ratio))),
                    figures.broker.map_or("-".into(), |busy| format!("{:.0}%", busy * 100.0)),
                ),
            );
        }
    }
    out
}

/// How many times faster lepus is; for idle connections, how many times smaller.
fn ratio(results: &Results, work: Work, figures: &Figures) -> Option<f64> {
    let lepus = of(results, work, Client::Lepus)?;
    Some(match work {
        Work::Idle => figures.memory as f64 / lepus.memory.max(1) as f64,
        _ => lepus.rate / figures.rate,
    })
}

pub(crate) fn of(results: &Results, work: Work, client: Client) -> Option<Figures> {
    Figures::of(results.get(&(work, client))?)
}

/// The figures for machines: one object for each work and client.
pub(crate) fn json(options: &Options, results: &Results) -> String {
    let mut lines = Vec::new();
    for (work, client) in results.keys() {
        let Some(figures) = of(results, *work, *client) else { continue };
        let optional = |figure: Option<f64>| figure.map_or("null".into(), |figure| format!("{figure:.4}"));
        lines.push(format!(
            "    {{\"work\": \"{work}\", \"client\": \"{}\", \"rate\": {:.1}, \"slowest\": {:.1}, \
             \"fastest\": {:.1}, \"cpu_ns\": {:.1}, \"memory\": {}, \"lepus_is\": {}, \"broker_busy\": {}}}",
            client.name(),
            figures.rate,
            figures.range.0,
            figures.range.1,
            figures.cpu,
            figures.memory,
            optional(ratio(results, *work, &figures)),
            optional(figures.broker),
        ));
    }
    format!(
        "{{\n  \"broker\": \"{}\",\n  \"rounds\": {},\n  \"seconds\": {},\n  \"results\": [\n{}\n  ]\n}}\n",
        if options.real.is_some() { "real" } else { "null" },
        options.rounds,
        options.time.as_secs_f64(),
        lines.join(",\n")
    )
}

/// With three digits and a unit.
pub(crate) fn number(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e4 => (value / 1e3, " k"),
        value => (value, ""),
    };
    match value {
        value if value >= 99.95 => format!("{value:.0}{unit}"),
        value if value >= 9.995 => format!("{value:.1}{unit}"),
        value => format!("{value:.2}{unit}"),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// Writing to a string cannot fail.
fn writes(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}
