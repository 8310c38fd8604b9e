//! What the two programs do by themselves.

use crate::case::test;
use crate::program::{Program, example, start};

fn numbered(count: u32) -> Vec<String> {
    (1..=count).map(|number| format!(r#"{{"number":{number}}}"#)).collect()
}

#[test]
fn what_the_publisher_publishes_the_consumer_prints() {
    test(async |t| {
        let key = t.name();
        let mut consumer = start("consumer", &[&key]).ready().await;
        let publisher = start("publisher", &["--key", &key, "--count", "3"]);
        assert_eq!(publisher.end().await.well(), ["3 confirmed"]);
        for line in numbered(3) {
            assert_eq!(consumer.line().await, line);
        }
        let one = start("publisher", &["--key", &key, "{\n \"id\": 1\n}"]);
        assert_eq!(one.end().await.well(), ["1 confirmed"]);
        assert_eq!(consumer.line().await, r#"{  "id": 1 }"#, "one line for each");
        consumer.signal("INT").await;
        assert!(consumer.end().await.well().is_empty());
    });
}

#[test]
fn the_consumer_binds_all_keys_and_stops_on_sigterm() {
    test(async |t| {
        let (one, two) = (t.name(), t.name());
        let mut consumer =
            start("consumer", &["--workers", "2", "--prefetch", "5", &one, &two]).ready().await;
        let mut lines = Vec::new();
        for (key, json) in [(&one, "1"), (&two, "2")] {
            start("publisher", &["--key", key, json]).end().await.well();
            lines.push(consumer.line().await);
        }
        assert_eq!(lines, ["1", "2"]);
        consumer.signal("TERM").await;
        consumer.end().await.well();
    });
}

#[test]
fn a_shared_queue_stays_and_keeps_what_nobody_took() {
    test(async |t| {
        let (key, queue) = (t.name(), t.name());
        let consumer = start("consumer", &["--queue", &queue, &key]).ready().await;
        consumer.signal("INT").await;
        consumer.end().await.well();
        start("publisher", &["--key", &key, "--count", "2"]).end().await.well();
        let mut consumer = start("consumer", &["--queue", &queue, &key]).ready().await;
        for line in numbered(2) {
            assert_eq!(consumer.line().await, line);
        }
        consumer.signal("INT").await;
        consumer.end().await.well();
        // with everything acknowledged nothing is left
        let channel = t.connect().await.channel().await.unwrap();
        assert_eq!(channel.declare_queue(&queue).passive().await.unwrap().message_count(), 0);
    });
}

#[test]
fn help_is_help() {
    test(async |_| {
        for program in ["central", "consumer", "frames", "publisher"] {
            let lines = start(program, &["--help"]).end().await.well();
            assert!(lines[0].starts_with(&format!("Usage: {program}")), "{lines:?}");
        }
    });
}

#[test]
fn wrong_arguments_get_the_usage_and_code_2() {
    test(async |_| {
        let wrong: [(&str, &[&str]); 14] = [
            ("central", &["--apps"]),
            ("central", &["--messages", "0"]),
            ("central", &["more"]),
            ("consumer", &["--workers"]),
            ("consumer", &["--workers", "0"]),
            ("consumer", &["--prefetch", "many"]),
            ("consumer", &["--no-such-option"]),
            ("frames", &["--listen", "amqp"]),
            ("frames", &["--broker", "127.0.0.1:1"]),
            ("frames", &["one", "two"]),
            ("publisher", &["--count", "-1"]),
            ("publisher", &["--key"]),
            ("publisher", &["1", "2"]),
            ("publisher", &["--no-such-option"]),
        ];
        for (program, arguments) in wrong {
            let ended = start(program, arguments).end().await;
            assert_eq!(ended.code, Some(2), "{program} {arguments:?}");
            assert!(ended.errors.contains("Usage: "), "{}", ended.errors);
            assert!(ended.lines.is_empty());
        }
    });
}

#[test]
fn without_a_broker_they_say_so_and_exit_with_1() {
    test(async |_| {
        for program in ["central", "consumer", "publisher"] {
            // nothing listens on port 1
            let ended = Program::start_at("amqp://127.0.0.1:1/", &mut example(program)).end().await;
            assert_eq!(ended.code, Some(1));
            assert!(ended.errors.starts_with(&format!("{program}: ")), "{}", ended.errors);
            assert!(ended.lines.is_empty());
        }
    });
}

#[test]
fn the_consumer_goes_on_when_its_queue_is_deleted_and_made_anew() {
    test(async |t| {
        let (key, queue) = (t.name(), t.name());
        let mut consumer = start("consumer", &["--queue", &queue, &key]).ready().await;
        let channel = t.connect().await.channel().await.unwrap();
        channel.queue(&queue).unwrap().delete().await.unwrap();
        channel.declare_queue(&queue).await.unwrap();
        channel.default_exchange().publish(&queue, "after").await.unwrap();
        assert_eq!(consumer.line().await, "after");
        consumer.signal("INT").await;
        consumer.end().await.well();
    });
}

#[test]
fn without_a_broker_the_consumer_starts_one_and_says_where() {
    test(async |_| {
        let mut consumer = Program::start_alone(example("consumer").arg("key"));
        let told = consumer.complaint("AMQP_URL=amqp").await;
        let (url, command) = told.split_once(' ').unwrap();
        assert_eq!(command, "cargo run --example publisher");
        let mut consumer = consumer.ready().await;
        let mut publisher = example("publisher");
        publisher.args(["--key", "key", "--count", "2"]);
        let publisher = Program::start_at(&format!("amqp{url}"), &mut publisher);
        assert_eq!(publisher.end().await.well(), ["2 confirmed"]);
        for line in numbered(2) {
            assert_eq!(consumer.line().await, line);
        }
        consumer.signal("INT").await;
        consumer.end().await;
    });
}

#[test]
fn frames_prints_a_session_of_its_own() {
    test(async |_| {
        let lines = start("frames", &[]).end().await.well();
        let position = |text: &str| {
            let found = lines.iter().position(|line| line.contains(text));
            found.unwrap_or_else(|| panic!("no {text:?} in {lines:#?}"))
        };
        let order = [
            "client AMQP 0-9-1",
            "server 0 connection.start {",
            "client 0 connection.start-ok { mechanism: \"PLAIN\", response: 12 bytes }",
            "client 1 basic.publish {",
            "client 1 header of 5 bytes, content_type: \"text/plain\", delivery_mode: 2",
            "client 1 body 5 bytes",
            "server 1 basic.get-ok {",
            "server 0 connection.close-ok",
        ];
        assert!(order.map(position).is_sorted(), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("guest") && line.contains("response")));
    });
}

#[test]
fn frames_prints_a_capture_up_to_what_is_no_frame() {
    test(async |_| {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/frame/");
        let whole = start("frames", &[&format!("{seeds}message")]).end().await.well();
        assert_eq!(whole.len(), 3, "{whole:?}");
        let cut = start("frames", &[&format!("{seeds}message_cut_in_the_body")]).end().await;
        assert_eq!((cut.code, cut.errors.trim()), (Some(1), "frames: the capture ends within a frame"));
        let broken = start("frames", &[&format!("{seeds}a5_wrong_end")]).end().await;
        assert_eq!(broken.code, Some(1));
        assert!(broken.errors.contains("0xce"), "{}", broken.errors);
    });
}
