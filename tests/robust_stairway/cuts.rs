//! Where the session is cut.

use std::env;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lepus::Connection;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::broker::url;
use crate::relay::{Direction, Fault, Trigger};
use crate::session::{Outcome, run};

/// How many sessions run at once.
const SESSIONS: usize = 16;

/// A session that takes longer hangs.
const HANGS: Duration = Duration::from_secs(30);

/// Every how many bytes a session is cut: unless it is set, so that about `cuts` of `bytes` are made.
fn stride(bytes: u64, cuts: u64) -> usize {
    let unless_set = (bytes / cuts).max(1);
    let stride = match env::var("LEPUS_STAIRWAY").as_deref() {
        Err(_) => unless_set,
        Ok("all") => 1,
        Ok(number) => number.parse().expect("LEPUS_STAIRWAY is `all` or a number of bytes"),
    };
    usize::try_from(stride).unwrap()
}

/// One run for each list of triggers: the first is for the first connection, and so on.
async fn climb(what: &str, steps: impl IntoIterator<Item = Vec<Trigger>>) {
    let plain = Arc::new(lepus::connect(url()).await.unwrap());
    let (permits, started) = (Arc::new(Semaphore::new(SESSIONS)), Instant::now());
    let mut runs = JoinSet::new();
    for triggers in steps {
        let (plain, permits) = (Arc::clone(&plain), Arc::clone(&permits));
        runs.spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            (one(&plain, &triggers).await, triggers)
        });
    }
    let (mut failures, mut failed, mut all, mut total) = (String::new(), 0, 0, Outcome::default());
    while let Some(run) = runs.join_next().await {
        let (result, triggers) = run.unwrap();
        all += 1;
        match result {
            Ok(outcome) => total.add(&outcome),
            Err(failure) => {
                failed += 1;
                if failed <= 20 {
                    let places =
                        triggers.iter().map(|t| format!("{:?} {:?} {}", t.fault, t.direction, t.offset));
                    writeln!(failures, "{}: {failure}", places.collect::<Vec<_>>().join(", ")).unwrap();
                }
            }
        }
    }
    println!("{what}: {all} sessions in {:.1?}, {failed} failed; {total}", started.elapsed());
    assert_eq!(failed, 0, "{what}: of {all} sessions\n{failures}");
    assert!(total.cuts > 0, "nothing was cut");
}

async fn one(plain: &Connection, triggers: &[Trigger]) -> Result<Outcome, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // all of one length, for the offsets
    let name = format!("{:05}", NEXT.fetch_add(1, Ordering::Relaxed));
    match timeout(HANGS, run(plain, &name, triggers)).await {
        Ok(result) => result,
        Err(_) => Err("it hangs".into()),
    }
}

/// The bytes of a session's connections in one direction, without further cuts.
async fn measure(triggers: &[Trigger], direction: Direction) -> Vec<u64> {
    let plain = lepus::connect(url()).await.unwrap();
    let outcome = one(&plain, triggers).await.unwrap();
    let bytes = outcome.traffic.iter().map(|traffic| match direction {
        Direction::ToBroker => traffic.to_broker,
        Direction::ToClient => traffic.to_client,
    });
    bytes.collect()
}

fn at(direction: Direction, offset: u64, fault: Fault) -> Trigger {
    Trigger { direction, offset, fault }
}

async fn every_offset(what: &str, direction: Direction, fault: Fault, cuts: u64) {
    let bytes = measure(&[], direction).await[0];
    let steps = (0..=bytes).step_by(stride(bytes, cuts)).map(|offset| vec![at(direction, offset, fault)]);
    climb(what, steps).await;
}

/// The session is cut for the first time when so much of it has gone by, in percent, and then again in the
/// recovery.
async fn again(what: &str, percent: u64, direction: Direction, cuts: u64) {
    let first = Direction::ToBroker;
    let first = at(first, measure(&[], first).await[0] * percent / 100, Fault::Cut);
    let bytes = measure(&[first], direction).await[1];
    let steps = (0..=bytes).step_by(stride(bytes, cuts));
    climb(what, steps.map(|offset| vec![first, at(direction, offset, Fault::Cut)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_on_the_way_to_the_broker() {
    every_offset("cut on the way to the broker", Direction::ToBroker, Fault::Cut, 150).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_on_the_way_to_the_client() {
    every_offset("cut on the way to the client", Direction::ToClient, Fault::Cut, 150).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_on_the_way_to_the_broker() {
    every_offset("reset on the way to the broker", Direction::ToBroker, Fault::Reset, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_on_the_way_to_the_client() {
    every_offset("reset on the way to the client", Direction::ToClient, Fault::Reset, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_again_in_the_recovery_on_the_way_to_the_broker() {
    again("cut again on the way to the broker", 75, Direction::ToBroker, 75).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_again_in_the_recovery_on_the_way_to_the_client() {
    again("cut again on the way to the client", 75, Direction::ToClient, 75).await;
}
