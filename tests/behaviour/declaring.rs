//! Exchanges, queues and bindings: declared, used, refused, deleted.

use std::time::Duration;

use lepus::{Channel, ErrorKind, Exchange, ExchangeKind, Message, Queue, Scope, ShortStr};

use crate::case::test;
use crate::tools::{closed_the_channel, is_missing};

/// The bodies in a queue, in order; all of them were confirmed before.
async fn contents(queue: &Queue) -> Vec<String> {
    let mut contents = Vec::new();
    while let Some(delivery) = queue.get().no_ack().await.unwrap() {
        contents.push(String::from_utf8(delivery.body().to_vec()).unwrap());
    }
    contents
}

async fn queues<const N: usize>(channel: &Channel) -> [Queue; N] {
    let mut queues = Vec::new();
    for _ in 0..N {
        queues.push(channel.declare_queue("").await.unwrap());
    }
    queues.try_into().unwrap()
}

async fn publish_keys(exchange: &Exchange, keys: &[&str]) {
    for key in keys {
        exchange.publish(*key, key.to_string()).await.unwrap();
    }
}

#[test]
fn a_direct_exchange_routes_by_the_key() {
    test(async |t| {
        let channel = t.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Direct).await.unwrap();
        let [a, b] = queues(&channel).await;
        a.bind(&exchange, "a").await.unwrap();
        b.bind(&exchange, "b").await.unwrap();
        b.bind(&exchange, "c").await.unwrap();
        publish_keys(&exchange, &["a", "b", "c", "d"]).await;
        assert_eq!(contents(&a).await, ["a"]);
        assert_eq!(contents(&b).await, ["b", "c"]);
    });
}

#[test]
fn a_fanout_exchange_routes_to_all() {
    test(async |t| {
        let channel = t.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
        let [a, b] = queues(&channel).await;
        a.bind(&exchange, "").await.unwrap();
        b.bind(&exchange, "ignored").await.unwrap();
        publish_keys(&exchange, &["x", "y"]).await;
        assert_eq!(contents(&a).await, ["x", "y"]);
        assert_eq!(contents(&b).await, ["x", "y"]);
    });
}

#[test]
fn a_topic_exchange_routes_by_patterns() {
    test(async |t| {
        let channel = t.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let [star, hash] = queues(&channel).await;
        star.bind(&exchange, "order.*").await.unwrap();
        hash.bind(&exchange, "order.#").await.unwrap();
        publish_keys(&exchange, &["order", "order.new", "order.new.eu", "bill"]).await;
        assert_eq!(contents(&star).await, ["order.new"]);
        assert_eq!(contents(&hash).await, ["order", "order.new", "order.new.eu"]);
    });
}

#[test]
fn a_headers_exchange_routes_by_headers() {
    test(async |t| {
        let channel = t.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Headers).await.unwrap();
        let [all, any] = queues(&channel).await;
        for (queue, how) in [(&all, "all"), (&any, "any")] {
            let bind = queue.bind(&exchange, "").argument("x-match", how);
            bind.argument("colour", "red").argument("size", 3).await.unwrap();
        }
        let messages = [
            Message::new("both").header("colour", "red").header("size", 3),
            Message::new("one").header("colour", "red").header("size", 4),
            Message::new("none").header("colour", "blue"),
        ];
        for message in messages {
            exchange.publish("", message).await.unwrap();
        }
        assert_eq!(contents(&all).await, ["both"]);
        assert_eq!(contents(&any).await, ["both", "one"]);

        let unbind = any.unbind(&exchange, "").argument("x-match", "any");
        unbind.argument("colour", "red").argument("size", 3).await.unwrap();
        exchange.publish("", Message::new("later").header("colour", "red").header("size", 3)).await.unwrap();
        assert_eq!(contents(&all).await, ["later"]);
        assert!(contents(&any).await.is_empty());
    });
}

#[test]
fn any_other_kind_goes_by_its_name() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let kind = ShortStr::try_from("fanout").unwrap();
        let exchange = channel.declare_exchange(t.name(), kind).await.unwrap();
        let [queue] = queues(&channel).await;
        queue.bind(&exchange, "").await.unwrap();
        publish_keys(&exchange, &["x"]).await;
        assert_eq!(contents(&queue).await, ["x"]);

        let kind = ExchangeKind::Other("x-no-such-kind".try_into().unwrap());
        let error = channel.declare_exchange(t.name(), kind).await.unwrap_err();
        match error.reply_code() {
            Some(406) => assert_eq!(error.scope(), Scope::Channel),
            // RabbitMQ before 3.13.3
            Some(503) => {
                assert_eq!(error.scope(), Scope::Connection);
                let product = connection.server_properties().get("product").cloned();
                assert_eq!(product, Some("RabbitMQ".into()));
            }
            _ => panic!("{error}"),
        }
        assert!(error.reply_text().unwrap().contains("x-no-such-kind"), "{error}");
    });
}

#[test]
fn exchanges_bind_to_exchanges() {
    test(async |t| {
        let channel = t.channel().await;
        let source = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let destination = channel.declare_exchange(t.name(), ExchangeKind::Fanout).internal().await.unwrap();
        let [queue] = queues(&channel).await;
        queue.bind(&destination, "").await.unwrap();
        destination.bind(&source, "log.#").await.unwrap();
        publish_keys(&source, &["log.1", "other"]).await;
        assert_eq!(contents(&queue).await, ["log.1"]);

        destination.unbind(&source, "log.#").await.unwrap();
        publish_keys(&source, &["log.2"]).await;
        assert!(contents(&queue).await.is_empty());
    });
}

#[test]
fn an_internal_exchange_takes_nothing_from_publishers() {
    test(async |t| {
        let channel = t.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Fanout).internal().await.unwrap();
        closed_the_channel(exchange.publish("", "x").await, 403, "internal");
        assert!(!channel.is_open());
    });
}

#[test]
fn an_alternate_exchange_gets_what_no_binding_takes() {
    test(async |t| {
        let channel = t.channel().await;
        let rest = channel.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
        let name = rest.name().as_str().unwrap();
        let declare = channel.declare_exchange(t.name(), ExchangeKind::Direct).alternate_exchange(name);
        let exchange = declare.await.unwrap();
        let [queue] = queues(&channel).await;
        queue.bind(&rest, "").await.unwrap();
        exchange.publish("unbound", "x").mandatory().await.unwrap();
        assert_eq!(contents(&queue).await, ["x"]);
    });
}

#[test]
fn a_queue_without_a_name_gets_one_and_belongs_to_the_connection() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        assert!(queue.name().as_str().unwrap().starts_with("amq.gen-"), "{}", queue.name());
        let other = t.channel().await;
        let error = closed_the_channel(other.declare_queue(queue.name()).passive().await, 405, "exclusive");
        assert!(error.to_string().contains("RESOURCE_LOCKED"), "{error}");
        assert!(!other.is_open());
    });
}

#[test]
fn a_queue_can_be_declared_again_with_the_same_settings_only() {
    test(async |t| {
        let (channel, name) = (t.channel().await, t.name());
        let declare = || channel.declare_queue(&name).max_length(10);
        declare().await.unwrap();
        channel.default_exchange().publish(&name, "x").await.unwrap();
        let again = declare().await.unwrap();
        assert_eq!((again.message_count(), again.consumer_count()), (1, 0));
        let error =
            closed_the_channel(declare().max_length(11).await, 406, "inequivalent arg 'x-max-length'");
        assert!(error.method().is_some(), "the server names the method");
        assert!(error.to_string().contains("queue.declare"), "{error}");
    });
}

#[test]
fn an_exchange_can_be_declared_again_with_the_same_settings_only() {
    test(async |t| {
        let (channel, name) = (t.channel().await, t.name());
        channel.declare_exchange(&name, ExchangeKind::Topic).await.unwrap();
        channel.declare_exchange(&name, ExchangeKind::Topic).await.unwrap();
        // asked passively, the kind does not count
        channel.declare_exchange(&name, ExchangeKind::Direct).passive().await.unwrap();
        let direct = channel.declare_exchange(&name, ExchangeKind::Direct).await;
        closed_the_channel(direct, 406, "inequivalent arg 'type'");
    });
}

#[test]
fn what_is_missing_is_not_found() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        closed_the_channel(channel.declare_queue(t.name()).passive().await, 404, "no queue");
        let channel = connection.channel().await.unwrap();
        let asked = channel.declare_exchange(t.name(), ExchangeKind::Topic).passive().await;
        closed_the_channel(asked, 404, "no exchange");
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        let missing = channel.exchange(t.name()).unwrap();
        closed_the_channel(queue.bind(&missing, "key").await, 404, "no exchange");
        let channel = connection.channel().await.unwrap();
        closed_the_channel(channel.queue(t.name()).unwrap().consume().await, 404, "no queue");
        let channel = connection.channel().await.unwrap();
        closed_the_channel(channel.queue(t.name()).unwrap().get().await, 404, "no queue");
        assert!(connection.is_open());
    });
}

#[test]
fn line_breaks_are_no_part_of_a_name_that_is_declared() {
    test(async |t| {
        let channel = t.channel().await;
        let name = t.name();
        let queue = channel.declare_queue(format!("{name}\r\n")).exclusive().await.unwrap();
        assert_eq!(queue.name(), name.as_str());
        channel.declare_queue(format!("\n{name}")).passive().await.unwrap();
        closed_the_channel(channel.queue(format!("{name}\n")).unwrap().get().await, 404, "no queue");
    });
}

#[test]
fn names_of_the_broker_are_refused() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        closed_the_channel(channel.declare_queue("amq.mine").await, 403, "amq.");
        let channel = connection.channel().await.unwrap();
        let exchange = channel.declare_exchange("amq.mine", ExchangeKind::Topic).await;
        closed_the_channel(exchange, 403, "amq.");
        let channel = connection.channel().await.unwrap();
        channel.declare_exchange("amq.topic", ExchangeKind::Topic).passive().await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        closed_the_channel(queue.bind(&channel.default_exchange(), "x").await, 403, "default exchange");
    });
}

#[test]
fn deleting_can_depend_on_use_and_contents() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
        queue.bind(&exchange, "").await.unwrap();
        exchange.publish("", "x").await.unwrap();

        closed_the_channel(queue.delete().if_empty().await, 406, "not empty");
        let channel = connection.channel().await.unwrap();
        let queue = channel.queue(queue.name()).unwrap();
        let consumer = queue.consume().await.unwrap();
        closed_the_channel(queue.delete().if_unused().await, 406, "in use");
        drop(consumer);
        let channel = connection.channel().await.unwrap();
        let exchange = channel.exchange(exchange.name()).unwrap();
        closed_the_channel(exchange.delete().if_unused().await, 406, "in use");

        let channel = connection.channel().await.unwrap();
        let (queue, exchange) =
            (channel.queue(queue.name()).unwrap(), channel.exchange(exchange.name()).unwrap());
        assert_eq!(queue.delete().await.unwrap(), 1);
        exchange.delete().if_unused().await.unwrap();
        assert!(is_missing(channel.declare_queue(queue.name()).passive().await));
    });
}

#[test]
fn deleting_and_unbinding_what_is_not_there_succeeds() {
    test(async |t| {
        let channel = t.channel().await;
        assert_eq!(channel.queue(t.name()).unwrap().delete().await.unwrap(), 0);
        channel.exchange(t.name()).unwrap().delete().await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        queue.unbind(&channel.exchange("amq.direct").unwrap(), "never bound").await.unwrap();
        assert!(channel.is_open());
    });
}

#[test]
fn auto_delete_goes_with_the_last_user() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).exclusive().auto_delete().await.unwrap();
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Fanout).auto_delete().await.unwrap();
        queue.bind(&exchange, "").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        consumer.cancel().await.unwrap();
        // the queue took its binding along, and that the exchange
        while !is_missing(connection.channel().await.unwrap().declare_queue(queue.name()).passive().await) {}
        while !is_missing(
            connection
                .channel()
                .await
                .unwrap()
                .declare_exchange(exchange.name(), ExchangeKind::Fanout)
                .passive()
                .await,
        ) {}
    });
}

#[test]
fn a_queue_that_nobody_uses_expires() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).expires(Duration::from_millis(50)).await.unwrap();
        // to ask for it is use, so it needs a longer time between
        while !is_missing(connection.channel().await.unwrap().declare_queue(queue.name()).passive().await) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn what_breaks_a_limit_is_refused_here_and_nothing_is_sent() {
    test(async |t| {
        let channel = t.channel().await;
        let long = "x".repeat(256);
        let queue = channel.declare_queue("").await.unwrap();
        let exchange = channel.exchange("amq.direct").unwrap();
        let errors = [
            channel.declare_queue(&long).await.unwrap_err(),
            channel.declare_exchange(&long, ExchangeKind::Direct).await.unwrap_err(),
            channel.queue(&long).unwrap_err(),
            queue.bind(&exchange, &long).await.unwrap_err(),
            queue.bind(&exchange, "").argument(&long, 1).await.unwrap_err(),
            queue.consume().tag(&long).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.scope()), (ErrorKind::Argument, Scope::Call), "{error}");
        }
        assert!(channel.is_open());
        // 255 bytes are fine
        queue.bind(&exchange, &long[1..]).await.unwrap();
    });
}
