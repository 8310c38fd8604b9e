//! What a configuration file can have (feature `serde`).

use lepus::robust;
use lepus::{
    ConnectOptions, DeadLetterStrategy, ExchangeKind, FieldTable, FieldValue, Overflow, QueueType, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{from_str, json, to_value};

#[derive(Deserialize)]
struct Service {
    broker: ConnectOptions,
    fallback: robust::Options,
    exchange: ExchangeKind,
    queue_type: QueueType,
    arguments: FieldTable,
}

#[test]
fn a_services_configuration_is_read() {
    let service: Service = from_str(
        r#"{
            "broker": "amqp://app:hush@broker.example/prod?heartbeat=10",
            "fallback": "amqp://a.example,b.example",
            "exchange": "topic",
            "queue_type": "quorum",
            "arguments": { "x-max-length": 1000, "x-overflow": "reject-publish" }
        }"#,
    )
    .unwrap();
    assert_eq!(service.broker.to_string(), "amqp://app@broker.example:5672/prod?heartbeat=10");
    assert_eq!(service.fallback.get_hosts().count(), 2);
    assert_eq!((service.exchange, service.queue_type), (ExchangeKind::Topic, QueueType::Quorum));
    assert_eq!(service.arguments.get("x-max-length"), Some(&FieldValue::I64(1000)));
    assert_eq!(service.arguments.get("x-overflow").unwrap().as_str(), Some("reject-publish"));
}

#[test]
fn a_bad_uri_is_an_error_without_the_uri() {
    for text in [r#""amqp://app:hush@h:x/""#, r#""hush""#, r#""amqp://app:hush@h?heatbeat=1""#] {
        let error = from_str::<ConnectOptions>(text).unwrap_err().to_string();
        assert!(error.contains("bad AMQP URI") && !error.contains("hush"), "{error}");
    }
    let error = from_str::<ConnectOptions>("5").unwrap_err().to_string();
    assert!(error.contains("expected an AMQP URI"), "{error}");
}

#[track_caller]
fn is_word<T>(value: &T, word: &str)
where
    T: Serialize + for<'de> Deserialize<'de> + PartialEq + std::fmt::Debug,
{
    assert_eq!(to_value(value).unwrap(), json!(word));
    assert_eq!(&T::deserialize(json!(word)).unwrap(), value);
}

#[test]
fn words_are_those_of_the_server() {
    is_word(&QueueType::Stream, "stream");
    is_word(&Overflow::DropHead, "drop-head");
    is_word(&DeadLetterStrategy::AtLeastOnce, "at-least-once");
    is_word(&ExchangeKind::Fanout, "fanout");
    is_word(&ExchangeKind::Other("x-random".try_into().unwrap()), "x-random");
    let error = QueueType::deserialize(json!("lazy")).unwrap_err().to_string();
    assert_eq!(error, "unknown word, expected one of: classic quorum stream");
    assert!(ExchangeKind::deserialize(json!("x".repeat(256))).is_err());
}

#[test]
fn field_values_are_what_the_format_has() {
    let json = json!({
        "truth": true, "number": -7, "fraction": 0.5, "text": "é", "nothing": null, "list": [1, [], "a"], "table": { "a": {} },
    });
    let table = FieldTable::deserialize(&json).unwrap();
    assert_eq!(table.get("number"), Some(&FieldValue::I64(-7)));
    assert_eq!(table.get("fraction"), Some(&FieldValue::F64(0.5)));
    assert_eq!(table.get("nothing"), Some(&FieldValue::Void));
    assert_eq!(table.get("list").unwrap().as_array().unwrap()[2], FieldValue::from("a"));
    assert_eq!(to_value(&table).unwrap(), json);
    assert!(FieldValue::deserialize(json!(u64::MAX)).is_err());
    assert!(FieldTable::deserialize(json!([1])).is_err());
    assert!(FieldTable::deserialize(json!({ "n".repeat(256): 1 })).is_err());

    let decimal = FieldValue::Decimal { scale: 2, value: 275 };
    for (value, shown) in [
        (FieldValue::U32(7), json!(7)),
        (Timestamp(5).into(), json!(5)),
        (decimal, json!(2.75)),
        (vec![0_u8, 255].into(), json!([0, 255])),
    ] {
        assert_eq!(to_value(&value).unwrap(), shown);
    }
    assert_eq!(Timestamp::deserialize(json!(5)).unwrap(), Timestamp(5));
}
