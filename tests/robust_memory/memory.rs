//! What an outage costs, and that it ends at its bound.

use std::fs;
use std::time::Duration;

use tokio::time::timeout;

use crate::case::test;
use crate::tools::{Patient, within};

const LIMIT: usize = 8 << 20;
const BODY: usize = 16 << 10;
/// Twenty times the limit, if nobody waited.
const MESSAGES: usize = 200;
const PUBLISHERS: usize = 50;

/// The memory of this process that is resident, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn publishers_that_never_stop_wait_in_an_outage() {
    test(async |t| {
        let mut patient =
            Patient::with(t, |options| options, |robust| robust.clone().unconfirmed_limit(LIMIT)).await;
        let channel = patient.channel().await;
        // to no queue: the broker, which may be in this process, keeps nothing
        let nowhere = t.name();
        // what is there has been seen before the measuring begins
        channel.default_exchange().publish(&nowhere, vec![0; BODY]).await.unwrap();
        patient.lose().await;
        let before = resident();
        let mut publishers = tokio::task::JoinSet::new();
        for _ in 0..PUBLISHERS {
            let (exchange, nowhere) = (channel.default_exchange(), nowhere.clone());
            publishers.spawn(async move {
                for _ in 0..MESSAGES {
                    drop(exchange.enqueue(&nowhere, vec![0; BODY]).await.unwrap());
                }
            });
        }
        // all of them wait: none is done, however long the outage lasts
        assert!(timeout(Duration::from_secs(2), publishers.join_next()).await.is_err());
        let grown = resident().saturating_sub(before);
        // each publisher holds the message that it waits with
        let bound = 2 * LIMIT + PUBLISHERS * BODY + (8 << 20);
        println!(
            "{} KiB more in the outage; {} KiB were to be published",
            grown / 1024,
            PUBLISHERS * MESSAGES * BODY / 1024
        );
        assert!(grown < bound, "{grown} bytes more, with a limit of {LIMIT}");
        assert!(patient.recover().await.is_empty());
        within("the publishers", async { while publishers.join_next().await.is_some() {} }).await;
        within("the confirms", channel.wait_for_confirms()).await.unwrap();
        let grown = resident().saturating_sub(before);
        println!("{} KiB more when all of it was published", grown / 1024);
        assert!(grown < bound + LIMIT, "{grown} bytes more after it");
    });
}
