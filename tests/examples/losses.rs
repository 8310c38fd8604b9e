//! Consumer and publisher while their links are cut.

use std::collections::BTreeSet;

use crate::broker::url;
use crate::case::test;
use crate::program::{Program, example};
use crate::relay::Relay;

const COUNT: usize = 5_000;

#[test]
fn consumer_and_publisher_go_on_when_their_links_are_cut() {
    test(async |t| {
        let relay = Relay::to_broker(url()).await.unwrap();
        let through = relay.url(url());
        let (key, queue) = (t.name(), t.name());
        let consumer = Program::start_at(&through, example("consumer").args(["--queue", &queue, &key]));
        let mut consumer = consumer.ready().await;
        let count = COUNT.to_string();
        let publisher =
            Program::start_at(&through, example("publisher").args(["--key", &key, "--count", &count]));
        let mut seen = BTreeSet::new();
        let consuming = async {
            while seen.len() < COUNT {
                seen.insert(consumer.line().await);
                if seen.len() % 1000 == 500 {
                    relay.cut();
                }
            }
        };
        let ((), ended) = tokio::join!(consuming, publisher.end());
        assert_eq!(ended.well(), [format!("{COUNT} confirmed")]);
        assert!(relay.counts().faults >= 5, "{:?}", relay.counts());
        consumer.signal("INT").await;
        consumer.end().await.well();
    });
}
