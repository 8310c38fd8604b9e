//! 100,000 messages, and a consumer that is killed in the middle of them.

use tokio::sync::mpsc;

use crate::case::test;
use crate::program::start;

const COUNT: usize = 100_000;

/// The number in a line such as `{"number":7}`; a line that was cut has none.
fn number(line: &str) -> Option<usize> {
    line.strip_prefix(r#"{"number":"#)?.strip_suffix('}')?.parse().ok()
}

#[test]
fn everything_arrives_although_a_consumer_is_killed() {
    test(async |t| {
        let (key, queue) = (t.name(), t.name());
        let count = COUNT.to_string();
        let options = ["--workers", "4", "--prefetch", "20", "--queue", &queue, &key];
        let mut survivor = start("consumer", &options).ready().await;
        let mut victim = start("consumer", &options).ready().await;
        let publisher = start("publisher", &["--key", &key, "--count", &count]);

        let (by_victim, mut from_victim) = mpsc::unbounded_channel();
        let killed = async {
            for _ in 0..5_000 {
                by_victim.send(victim.line().await).unwrap();
            }
            // in the middle of its work: it holds up to 80 messages that it has not acknowledged
            victim.signal("KILL").await;
            let ended = victim.end().await;
            assert_eq!(ended.code, None, "a signal ended it");
            // the kill may have cut the last line
            let whole = ended.lines.into_iter().filter(|line| number(line).is_some());
            whole.for_each(|line| by_victim.send(line).unwrap());
            drop(by_victim);
        };
        let mut seen = vec![0_u32; COUNT + 1];
        let counted = async {
            let mut missing = COUNT;
            while missing > 0 {
                let line = tokio::select! {
                    line = survivor.line() => line,
                    Some(line) = from_victim.recv() => line,
                };
                let number = number(&line).expect(&line);
                missing -= usize::from(seen[number] == 0);
                seen[number] += 1;
            }
        };
        let ((), (), ended) = tokio::join!(killed, counted, publisher.end());
        assert_eq!(ended.well(), [format!("{COUNT} confirmed")]);
        // printed and not acknowledged before the kill: printed again; nothing else is
        let again = seen.iter().filter(|times| **times > 1).count();
        assert!(again <= 80, "{again} were printed twice");
        survivor.signal("INT").await;
        let rest = survivor.end().await.well();
        assert!(rest.len() <= 80, "{} more lines", rest.len());
        let channel = t.connect().await.channel().await.unwrap();
        assert_eq!(channel.declare_queue(&queue).passive().await.unwrap().message_count(), 0);
    });
}
