//! The runs: those that are written down first, then random ones.

use std::cell::{Cell, RefCell};
use std::env;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lepus::broker::Broker;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::compare::Brokers;
use crate::{fixed, random};

#[test]
#[ignore = "needs RabbitMQ: AMQP_URL must name one, such as amqp://guest:guest@127.0.0.1/"]
fn the_embedded_broker_says_what_rabbitmq_says() {
    let rabbitmq = env::var("AMQP_URL").expect("AMQP_URL must name a RabbitMQ");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.block_on(Broker::start()).unwrap();
    let brokers = Brokers { embedded: broker.url(), rabbitmq, steps: 0.into() };

    let differences: Vec<_> = fixed::runs().filter_map(|lines| brokers.compare(&lines).err()).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    println!("{} written runs, {} steps", fixed::runs().count(), brokers.steps.load(Ordering::Relaxed));
    if let Ok(seconds) = env::var("LEPUS_DIFFERENTIAL_SECONDS") {
        random_runs(&brokers, Duration::from_secs(seconds.parse().unwrap()));
    }
}

/// Runs until the first difference, which is then made as short as possible, or until the time is over.
fn random_runs(brokers: &Brokers, time: Duration) {
    let config =
        Config { cases: u32::MAX, failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    let started = Instant::now();
    brokers.steps.store(0, Ordering::Relaxed);
    let (runs, difference) = (Cell::new(0), RefCell::new(String::new()));
    let result = TestRunner::new(config).run(&random::lines(), |lines| {
        if started.elapsed() > time && difference.borrow().is_empty() {
            return Err(TestCaseError::fail("the time is over"));
        }
        runs.set(runs.get() + 1);
        brokers.compare(&lines).map_err(|found| {
            difference.replace(found.clone());
            TestCaseError::fail(found)
        })
    });
    println!("{} random runs, {} steps", runs.get(), brokers.steps.load(Ordering::Relaxed));
    let difference = difference.take();
    assert!(difference.is_empty(), "{difference}");
    // it is also no success when the time is over
    drop(result);
}
