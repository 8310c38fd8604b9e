//! Which seeds are run, and what is said of those that fail.

use std::cell::Cell;
use std::env;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use crate::world::{self, Outcome};

/// How many seeds are run unless the environment says otherwise.
const SEEDS: u64 = 200;

/// How many lines of a failing seed's trace are shown.
const LAST_LINES: usize = 60;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

thread_local! {
    /// Something has panicked in this thread, such as a task of the crate, which tokio would keep to itself.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            usual(info);
        }));
    });
}

/// Runs a seed in a runtime of its own.
fn run(seed: u64, prints: bool) -> Outcome {
    watch_for_panics();
    PANICKED.set(false);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut outcome = runtime.block_on(world::run(seed, prints));
    drop(runtime);
    if PANICKED.get() {
        outcome.wrong.push("something panicked".into());
    }
    outcome
}

/// Describes a seed that has failed, and how to see it again.
fn report(seed: u64, outcome: &Outcome) {
    let lines = outcome.trace.lines();
    for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
        println!("{line}");
    }
    println!("seed {seed}:");
    for wrong in &outcome.wrong {
        println!("    {wrong}");
    }
    println!("LEPUS_SIMULATION_SEED={seed} cargo test --test simulation -- --nocapture seeds");
}

/// What many runs have shown.
#[derive(Debug, Default)]
struct Sums {
    seeds: u64,
    failed: Vec<u64>,
    virtual_time: Duration,
    counts: [usize; 4],
    reconnects: u64,
}

impl Sums {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        if !outcome.wrong.is_empty() {
            report(seed, outcome);
            self.failed.push(seed);
        }
        self.seeds += 1;
        self.virtual_time += outcome.virtual_time;
        self.reconnects += outcome.reconnects;
        self.counts.iter_mut().zip(outcome.counts).for_each(|(sum, count)| *sum += count);
    }
}

#[test]
fn seeds_keep_what_the_model_says() {
    if let Some(seed) = number("LEPUS_SIMULATION_SEED") {
        let outcome = run(seed, true);
        println!("{:?} of virtual time, {:?} messages", outcome.virtual_time, outcome.counts);
        assert!(outcome.wrong.is_empty(), "{:#?}", outcome.wrong);
        return;
    }
    let first = number("LEPUS_SIMULATION_FIRST").unwrap_or(1);
    let time = number("LEPUS_SIMULATION_SECONDS").map(Duration::from_secs);
    let stops = number("LEPUS_SIMULATION_STOP").is_some();
    let (began, next, sums) = (Instant::now(), AtomicU64::new(0), Mutex::new(Sums::default()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let count = next.fetch_add(1, Ordering::Relaxed);
                    if time.map_or(count >= SEEDS, |time| began.elapsed() >= time) {
                        return;
                    }
                    let outcome = run(first + count, false);
                    let mut sums = sums.lock().unwrap();
                    sums.add(first + count, &outcome);
                    if stops && !sums.failed.is_empty() {
                        return;
                    }
                }
            });
        }
    });
    let Sums { seeds, mut failed, virtual_time, counts, reconnects } = sums.into_inner().unwrap();
    failed.sort_unstable();
    let real = began.elapsed();
    let [sent, confirmed, received, twice] = counts;
    println!(
        "{seeds} seeds in {real:.1?}, {:.1} hours of virtual time: {sent} messages sent, {confirmed} confirmed, \
         {received} received, {twice} more than once; {reconnects} reconnects",
        virtual_time.as_secs_f64() / 3600.0
    );
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

#[test]
fn a_seed_gives_the_same_trace_each_time() {
    for seed in 1..=10 {
        let (one, two) = (run(seed, false).trace, run(seed, false).trace);
        let (ours, others) = (one.chunks(), two.chunks());
        if let Some(at) = ours.iter().zip(&others).position(|(one, two)| one != two) {
            let around = at.saturating_sub(10)..at + 2;
            panic!("seed {seed}: {:#?}\nand {:#?}", ours.get(around.clone()), others.get(around));
        }
        assert_eq!(one.lines(), two.lines(), "seed {seed}");
        assert_eq!(one.chunks().len(), two.chunks().len(), "seed {seed}");
    }
}
