//! A consumer that is killed in the middle of its work loses nothing.

use std::env;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::broker::url;
use crate::case::test;
use crate::tools::{fill, next, numbers, take, text};

/// Names the queue for the process that is killed.
const QUEUE: &str = "LEPUS_TEST_CRASH_QUEUE";
const ACKED: &str = "acked and holding";

/// The other process: takes ten, acknowledges the first four, and holds the rest until it is killed.
#[test]
#[ignore = "the process that the test below kills"]
fn victim() {
    let Ok(queue) = env::var(QUEUE) else { return };
    test(async |t| {
        let channel = t.channel().await;
        let mut consumer = channel.queue(&queue).unwrap().consume().prefetch(10).await.unwrap();
        let mut held = take(&mut consumer, 10).await;
        for delivery in held.drain(..4) {
            delivery.ack().unwrap();
        }
        // answered after the acks have arrived
        channel.qos(1).await.unwrap();
        println!("{ACKED}");
        std::future::pending::<()>().await;
    });
}

#[test]
fn what_a_killed_process_held_is_delivered_again() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, numbers(1, 20)).await;
        let mut victim = Command::new(env::current_exe().unwrap())
            .args(["crash::victim", "--exact", "--ignored", "--nocapture"])
            .env(QUEUE, queue.name().as_str().unwrap())
            .env("AMQP_URL", url())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        while !lines.next_line().await.unwrap().expect("it printed no line").contains(ACKED) {}
        // SIGKILL
        victim.kill().await.unwrap();

        let mut consumer = queue.consume().await.unwrap();
        let mut seen: Vec<(u32, bool)> = Vec::new();
        while seen.len() < 16 {
            let delivery = next(&mut consumer).await;
            seen.push((text(&delivery).parse().unwrap(), delivery.redelivered()));
            delivery.ack().unwrap();
        }
        seen.sort_unstable();
        assert!(seen.iter().map(|(number, _)| *number).eq(5..=20), "{seen:?}");
        for (number, redelivered) in seen {
            assert!(redelivered || number > 10, "{number} was out before");
        }
    });
}
