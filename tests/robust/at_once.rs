//! An error that closes a channel, and a loss of the link, at the same moment.

use std::collections::BTreeMap;

use lepus::ExchangeKind;

use crate::case::test;
use crate::tools::{Patient, next, within};

/// What a consumer gets until the last message, by how often.
async fn until_last(consumer: &mut lepus::Consumer) -> BTreeMap<String, (u32, u32)> {
    let mut got = BTreeMap::<_, (u32, u32)>::new();
    loop {
        let delivery = next(consumer).await;
        let body = delivery.body_str().unwrap().to_owned();
        let unflagged = !delivery.is_republished() && !delivery.redelivered();
        delivery.ack().unwrap();
        if body == "last" {
            return got;
        }
        let (times, unmarked) = got.entry(body).or_default();
        *times += 1;
        *unmarked += u32::from(unflagged);
    }
}

#[test]
fn a_channel_error_and_a_loss_at_once_double_no_consumer_and_lose_nothing() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let (named, nameless) = (t.name(), channel.declare_queue("").await.unwrap());
        let queue = channel.declare_queue(&named).await.unwrap();
        queue.bind(&exchange, "k.#").await.unwrap();
        nameless.bind(&exchange, "k.#").await.unwrap();
        let (mut first, mut second) = (queue.consume().await.unwrap(), nameless.consume().await.unwrap());
        let reading = tokio::spawn(async move { until_last(&mut first).await });
        // nameless: what is in it goes with each link
        let reading_nameless = tokio::spawn(async move { until_last(&mut second).await });
        let missing = channel.exchange(t.name()).unwrap();
        for round in 0..12_u32 {
            let bad = tokio::spawn({
                let missing = missing.clone();
                async move { missing.publish("k", "bad").await }
            });
            // before, while and after the server answers it
            for _ in 0..round * round {
                tokio::task::yield_now().await;
            }
            patient.relay.cut();
            for number in 0..3 {
                let published = exchange.publish("k.1", format!("{round}.{number}"));
                within("a publish", published).await.unwrap();
            }
            assert_eq!(within("the refusal", bad).await.unwrap().unwrap_err().reply_code(), Some(404));
        }
        within("ready", patient.connection.ready()).await.unwrap();
        // the old consumers go when the broker has noticed the last loss
        within("one consumer", async { while patient.consumers(&named).await != Some(1) {} }).await;
        within("the last", exchange.publish("k.1", "last")).await.unwrap();
        let got = within("the deliveries", reading).await.unwrap();
        assert_eq!(got.len(), 36, "{got:?}");
        // the binding of the nameless queue is there, too
        within("the last of the other", reading_nameless).await.unwrap();
        let twice: Vec<_> = got.iter().filter(|(_, (_, unmarked))| *unmarked > 1).collect();
        assert!(twice.is_empty(), "came twice, unmarked: {twice:?}");
    });
}
