//! Long outages, on a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lepus::broker::{Broker, Keep};
use lepus::{ConnectOptions, ErrorKind};
use tokio::time::{Instant, sleep};

const MINUTE: Duration = Duration::from_secs(60);

async fn without_port() -> Broker {
    Broker::options().without_port().start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn attempts_become_rare_in_a_long_outage() {
    let broker = without_port().await;
    let (connector, attempts) = (broker.connector(), Arc::new(AtomicUsize::new(0)));
    let options = ConnectOptions::new(&broker.url()).unwrap().connector({
        let attempts = Arc::clone(&attempts);
        move |host, port| {
            attempts.fetch_add(1, Ordering::Relaxed);
            connector(host, port)
        }
    });
    let connection = options.robust().connect().await.unwrap();
    let made = || attempts.swap(0, Ordering::Relaxed);
    broker.stop().await;
    sleep(MINUTE / 2).await;
    let first = made();
    sleep(MINUTE * 9).await;
    made();
    sleep(MINUTE).await;
    let last = made();
    assert!(first > 50 && last < 30, "{first} in the first half minute, {last} in the tenth minute");
    broker.restart(Keep::Durable).await.unwrap();
    let restarted = Instant::now();
    connection.ready().await.unwrap();
    assert!(restarted.elapsed() <= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_believed_after_a_quarter_of_an_hour() {
    let broker = without_port().await;
    let options = ConnectOptions::new(&broker.url()).unwrap().connector(broker.connector()).robust();
    let patient = options.connect().await.unwrap();
    let hasty = options.clone().refused_limit(MINUTE).connect().await.unwrap();
    for (minutes, survives) in [(14, true), (16, false)] {
        let refused = Instant::now();
        broker.refuse_logins(true);
        broker.cut();
        if survives {
            // an LDAP server that is down
            let error = hasty.closed().await;
            assert_eq!((error.kind(), refused.elapsed().as_secs() / 60), (ErrorKind::Auth, 1));
        }
        sleep((MINUTE * minutes).saturating_sub(refused.elapsed())).await;
        broker.refuse_logins(false);
        let outcome = patient.ready().await;
        assert_eq!(outcome.is_ok(), survives, "{outcome:?}");
    }
    // the first time, at once
    broker.refuse_logins(true);
    let began = Instant::now();
    let error = options.retry_first_connect().connect().await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed().as_secs()), (ErrorKind::Auth, 0));
}
