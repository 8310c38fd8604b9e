//! aio-pika's own patterns while its connection is cut.

use crate::broker::url;
use crate::case::test;
use crate::python::script_at;
use crate::relay::Relay;

#[test]
#[ignore = "needs Python with venv, and aio-pika from a package index"]
fn aio_pikas_rpc_and_workers_go_on_when_their_connection_is_cut() {
    test(async |t| {
        let relay = Relay::to_broker(url()).await.unwrap();
        let (method, queue) = (t.name(), t.name());
        let mut patterns =
            script_at(&relay.url(url()), "patterns.py", &[&method, &queue, "50"]).ready().await;
        for number in 1..=50 {
            assert_eq!(patterns.line().await, format!("{} {number}", 2 * number));
            if number % 20 == 10 {
                relay.cut();
            }
        }
        assert!(relay.counts().connections() >= 3, "{:?}", relay.counts());
        patterns.end().await.well();
    });
}
