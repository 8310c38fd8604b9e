//! What a test sees of the broker.

use lepus::broker::Broker;
use lepus::{ConnectOptions, ExchangeKind, FieldValue, Message};

use crate::tools::{open, test};

#[test]
fn queues_tell_how_they_were_declared_and_what_is_in_them() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        let queue = channel.declare_queue("jobs").transient().auto_delete().max_length(10).await.unwrap();
        let exchange = channel.default_exchange();
        for body in ["a", "bc", "def"] {
            exchange.publish("jobs", body).await.unwrap();
        }
        let first = queue.get().await.unwrap().unwrap();
        let found = broker.queue("jobs").unwrap();
        assert_eq!((found.vhost.as_str(), found.name.as_str()), ("/", "jobs"));
        assert_eq!((found.durable, found.exclusive, found.auto_delete), (false, false, true));
        assert_eq!(found.arguments.get("x-max-length"), Some(&FieldValue::I64(10)));
        assert_eq!((found.ready, found.ready_bytes, found.unacked, found.consumers), (2, 5, 1, 0));
        assert_eq!(broker.bodies("jobs"), ["bc", "def"]);
        assert_eq!(broker.queues(), [found]);
        first.ack().unwrap();
        broker.until(|broker| broker.queue("jobs").is_some_and(|queue| queue.unacked == 0)).await;
        assert_eq!(broker.queue("others"), None);
        assert!(broker.bodies("others").is_empty());
    });
}

#[test]
fn exchanges_and_bindings_are_listed() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        let declare = channel.declare_exchange("events", ExchangeKind::Headers);
        let events = declare.internal().await.unwrap();
        let source = channel.declare_exchange("source", ExchangeKind::Fanout).auto_delete().await.unwrap();
        let queue = channel.declare_queue("jobs").await.unwrap();
        events.bind(&source, "").await.unwrap();
        queue.bind(&events, "key").argument("x-match", "any").await.unwrap();

        let exchanges = broker.exchanges();
        let of = |name: &str| exchanges.iter().find(|exchange| exchange.name == name).unwrap();
        assert_eq!(of("events").kind, "headers");
        assert!(of("events").durable && of("events").internal && !of("events").auto_delete);
        assert_eq!((of("source").kind, of("source").auto_delete), ("fanout", true));
        assert_eq!(of("amq.topic").kind, "topic");
        let bindings = broker.bindings();
        let [to_queue, to_exchange] = bindings.as_slice() else { panic!("{bindings:?}") };
        assert_eq!((to_queue.source.as_str(), to_queue.destination.as_str()), ("events", "jobs"));
        assert_eq!((to_queue.routing_key.as_str(), to_queue.to_exchange), ("key", false));
        assert!(to_queue.arguments.get("x-match").is_some());
        assert_eq!((to_exchange.source.as_str(), to_exchange.destination.as_str()), ("source", "events"));
        assert!(to_exchange.to_exchange);
    });
}

#[test]
fn consumers_and_connections_are_listed() {
    test(async |broker| {
        assert!(broker.connections().is_empty() && broker.consumers().is_empty());
        let options = ConnectOptions::new(&broker.url()).unwrap().connection_name("reports");
        let connection = options.connect().await.unwrap();
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue("jobs").await.unwrap();
        let mut one = queue.consume().prefetch(3).tag("one").await.unwrap();
        channel.default_exchange().publish("jobs", Message::new("work")).await.unwrap();
        let delivery = one.next().await.unwrap().unwrap();

        let connections = broker.connections();
        let [found] = connections.as_slice() else { panic!("{connections:?}") };
        assert_eq!((found.user.as_str(), found.vhost.as_str(), found.channels), ("guest", "/", 1));
        assert!(found.peer.unwrap().ip().is_loopback() && !found.blocked);
        assert!(found.client_properties.get("connection_name").is_some());
        let consumers = broker.consumers();
        let [consumer] = consumers.as_slice() else { panic!("{consumers:?}") };
        assert_eq!(
            (consumer.connection, consumer.channel),
            (found.id, u16::try_from(channel.number()).unwrap())
        );
        assert_eq!((consumer.tag.as_str(), consumer.queue.as_str()), ("one", "jobs"));
        assert_eq!((consumer.prefetch, consumer.unacked, consumer.no_ack), (3, 1, false));

        delivery.ack().unwrap();
        connection.close().await.unwrap();
        broker.until(|broker| broker.connections().is_empty()).await;
        assert!(broker.consumers().is_empty());
    });
}

#[test]
fn memory_is_what_bodies_take() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        channel.declare_queue("one").await.unwrap();
        channel.declare_queue("two").await.unwrap();
        let both = channel.declare_exchange("both", ExchangeKind::Fanout).await.unwrap();
        channel.queue("one").unwrap().bind(&both, "").await.unwrap();
        channel.queue("two").unwrap().bind(&both, "").await.unwrap();
        both.publish("", vec![0; 1000]).await.unwrap();
        assert_eq!(broker.memory(), 1000, "one body, in two queues");
        channel.queue("one").unwrap().purge().await.unwrap();
        assert_eq!(broker.memory(), 1000);
        channel.queue("two").unwrap().purge().await.unwrap();
        assert_eq!(broker.memory(), 0);
    });
}

#[test]
fn messages_are_seen_with_all_they_carry() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        let exchange = channel.declare_exchange("events", ExchangeKind::Topic).await.unwrap();
        let queue = channel.declare_queue("jobs").await.unwrap();
        queue.bind(&exchange, "#").await.unwrap();
        let message = Message::new("{}").correlation_id("7").header("retries", 3);
        exchange.publish("user.created", message).await.unwrap();
        let seen = broker.messages("jobs");
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].exchange.as_str(), seen[0].routing_key.as_str()), ("events", "user.created"));
        assert_eq!(seen[0].properties.correlation_id.as_ref().unwrap().as_str(), Some("7"));
        assert_eq!(seen[0].properties.delivery_mode, Some(2));
        assert_eq!(
            seen[0].properties.headers.as_ref().unwrap().get("retries").unwrap().as_integer(),
            Some(3)
        );
        assert_eq!((&seen[0].body[..], seen[0].redelivered), (&b"{}"[..], false));
    });
}

#[test]
fn debug_shows_no_body_and_no_password() {
    test(async |_| {
        let options = Broker::options().user("guest", "guest").user("app", "hush-password");
        let options_shown = format!("{options:?}");
        let broker = options.start().await.unwrap();
        let (_connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        channel.default_exchange().publish("jobs", "hush-body").await.unwrap();
        let message = format!("{:?}", broker.messages("jobs"));
        assert!(message.contains("routing_key: \"jobs\"") && message.contains("body: 9 bytes"), "{message}");
        let all =
            format!("{message} {options_shown} {broker:?} {:?} {:?}", broker.in_vhost("/"), broker.queues());
        assert!(!all.contains("hush") && !all.contains("104, 117"), "{all}");
    });
}
