//! With aio-pika on the other side.

use std::time::Duration;

use bytes::Bytes;
use lepus::{ExchangeKind, FieldTable, FieldValue, Message, Properties, Timestamp};

use crate::broker::url;
use crate::case::{Case, test};
use crate::program::start;
use crate::python::script;

/// 2024-02-29 12:00:00 UTC
const NOON: Timestamp = Timestamp(1_709_208_000);

/// The user that the broker knows us by: it checks the property `user-id`.
fn user() -> String {
    let user = url().split_once("//").and_then(|(_, rest)| rest.split_once([':', '@']));
    user.map_or("guest", |(user, _)| user).to_string()
}

fn table(pairs: impl IntoIterator<Item = (&'static str, FieldValue)>) -> FieldTable {
    pairs.into_iter().map(|(name, value)| (name.try_into().unwrap(), value)).collect()
}

#[test]
#[ignore = "needs Python with venv, and aio-pika from a package index"]
fn aio_pika_publishes_and_our_consumer_prints() {
    test(async |t| {
        let key = t.name();
        let mut consumer = start("consumer", &["--workers", "2", &key]).ready().await;
        script("publish.py", &[&key, "20"]).end().await.well();
        let mut lines = Vec::new();
        for _ in 0..20 {
            lines.push(consumer.line().await);
        }
        lines.sort_unstable();
        let mut expected: Vec<String> = (1..=20).map(|number| format!(r#"{{"number":{number}}}"#)).collect();
        expected.sort_unstable();
        assert_eq!(lines, expected);
        consumer.signal("INT").await;
        consumer.end().await.well();
    });
}

#[test]
#[ignore = "needs Python with venv, and aio-pika from a package index"]
fn our_publisher_publishes_and_aio_pika_prints() {
    test(async |t| {
        let key = t.name();
        let consumer = script("consume.py", &[&key, "20"]).ready().await;
        start("publisher", &["--key", &key, "--count", "20"]).end().await.well();
        let expected: Vec<String> = (1..=20).map(|number| format!(r#"{{"number":{number}}}"#)).collect();
        assert_eq!(consumer.end().await.well(), expected);
    });
}

/// Publishes to the exchange that the scripts use.
async fn publish(t: &Case, key: &str, message: Message) {
    let channel = t.connect().await.channel().await.unwrap();
    let exchange = channel.declare_exchange("test_exchange", ExchangeKind::Topic).await.unwrap();
    exchange.publish(key, message).mandatory().await.unwrap();
}

#[test]
#[ignore = "needs Python with venv, and aio-pika from a package index"]
fn all_that_we_can_say_aio_pika_understands() {
    test(async |t| {
        let key = t.name();
        let consumer = script("consume.py", &[&key, "1", "--describe"]).ready().await;
        let headers = table([
            ("bool", true.into()),
            ("i8", (-5_i8).into()),
            ("u8", 200_u8.into()),
            ("i16", (-300_i16).into()),
            ("u16", 60_000_u16.into()),
            ("i32", (-70_000).into()),
            ("u32", 4_000_000_000_u32.into()),
            ("i64", (-5_000_000_000_000_i64).into()),
            ("f32", 1.5_f32.into()),
            ("f64", 0.1_f64.into()),
            ("decimal", FieldValue::Decimal { scale: 2, value: 314 }),
            ("text", "grüße".into()),
            ("not text", FieldValue::LongStr(Bytes::from_static(b"\x00\xff"))),
            ("bytes", vec![0, 255].into()),
            ("time", NOON.into()),
            ("list", vec![1.into(), "two".into(), FieldValue::Void].into()),
            ("table", table([("inner", table([("deep", false.into())]).into())]).into()),
            ("empty", FieldTable::new().into()),
            ("void", FieldValue::Void),
        ]);
        let message = Message::new("{}")
            .content_type("application/json")
            .content_encoding("identity")
            .headers(headers)
            .priority(7)
            .correlation_id("c-1")
            .reply_to("answers")
            .expiration(Duration::from_secs(3600))
            .message_id("m-1")
            .timestamp(NOON)
            .kind("greeting")
            .user_id(user())
            .app_id("lepus");
        publish(t, &key, message).await;
        let lines = consumer.end().await.well();
        let user = format!("user_id str {}", user());
        let expected = [
            "content_type str application/json",
            "content_encoding str identity",
            "delivery_mode DeliveryMode 2",
            "priority int 7",
            "correlation_id str c-1",
            "reply_to str answers",
            // it counts in seconds, and converts
            "expiration float 3600.0",
            "message_id str m-1",
            "timestamp datetime 1709208000",
            "type str greeting",
            &user,
            "app_id str lepus",
            // absent; it shows that as an empty text
            "cluster_id str ",
            "headers.bool bool True",
            "headers.i8 int -5",
            "headers.u8 int 200",
            "headers.i16 int -300",
            "headers.u16 int 60000",
            "headers.i32 int -70000",
            "headers.u32 int 4000000000",
            "headers.i64 int -5000000000000",
            "headers.f32 float 1.5",
            "headers.f64 float 0.1",
            "headers.decimal Decimal 3.14",
            "headers.text str grüße",
            "headers.not text bytes 00ff",
            "headers.bytes bytearray 00ff",
            "headers.time datetime 1709208000",
            "headers.list.0 int 1",
            "headers.list.1 str two",
            "headers.list.2 NoneType None",
            "headers.table.inner.deep bool False",
            "headers.empty dict",
            "headers.void NoneType None",
        ];
        // the broker may sort headers
        let sorted = |lines: &[&str]| {
            let mut lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&lines.iter().map(String::as_str).collect::<Vec<_>>()), sorted(&expected));
    });
}

#[test]
#[ignore = "needs Python with venv, and aio-pika from a package index"]
fn all_that_aio_pika_can_say_we_understand() {
    test(async |t| {
        let key = t.name();
        let channel = t.connect().await.channel().await.unwrap();
        let exchange = channel.declare_exchange("test_exchange", ExchangeKind::Topic).await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        queue.bind(&exchange, &key).await.unwrap();
        script("publish.py", &[&key, "1", "--every-type"]).end().await.well();
        let mut got = queue.get().no_ack().await.unwrap().unwrap().properties().unwrap();

        let expected = table([
            ("bool", true.into()),
            // it takes the smallest type that holds the number, and never `B`
            ("i8", (-5_i8).into()),
            ("i16", (-300_i16).into()),
            ("u16", 60_000_u16.into()),
            ("i32", (-70_000).into()),
            ("u32", 4_000_000_000_u32.into()),
            ("i64", (-5_000_000_000_000_i64).into()),
            // it sends every float in four octets
            ("float", 1.5_f32.into()),
            ("decimal", FieldValue::Decimal { scale: 2, value: 314 }),
            ("text", "grüße".into()),
            ("bytes", vec![0, 255].into()),
            ("time", NOON.into()),
            (
                "list",
                vec![1_i8.into(), "two".into(), Vec::<FieldValue>::new().into(), FieldValue::Void].into(),
            ),
            (
                "table",
                table([
                    ("inner", table([("deep", false.into())]).into()),
                    ("empty", FieldTable::new().into()),
                ])
                .into(),
            ),
            ("none", FieldValue::Void),
        ]);
        let headers = got.headers.take().unwrap();
        for (name, value) in expected.iter() {
            match (headers.get(name), value) {
                // the broker may sort what is in a table
                (Some(FieldValue::Table(got)), FieldValue::Table(expected)) => {
                    assert_eq!(got.len(), expected.len());
                    for (name, value) in expected.iter() {
                        assert_eq!(got.get(name), Some(value), "{name}");
                    }
                }
                (got, value) => assert_eq!(got, Some(value), "{name}"),
            }
        }
        assert_eq!(headers.len(), expected.len());

        let text = |text: &str| Some(text.try_into().unwrap());
        let expected = Properties {
            content_type: text("application/json"),
            content_encoding: text("identity"),
            headers: None,
            delivery_mode: Some(2),
            priority: Some(7),
            correlation_id: text("c-1"),
            reply_to: text("answers"),
            expiration: text("3600000"),
            message_id: text("m-1"),
            timestamp: Some(NOON),
            kind: text("greeting"),
            user_id: text(&user()),
            app_id: text("aio-pika"),
            cluster_id: None,
        };
        assert_eq!(got, expected);
    });
}
