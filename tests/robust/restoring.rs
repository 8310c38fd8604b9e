//! What was declared is there again.

use lepus::robust::Outage;
use lepus::{ErrorKind, ExchangeKind, Message, ShortStr};

use crate::case::test;
use crate::through::{Through, soon};

#[test]
fn a_program_goes_on_after_a_cut() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        queue.bind(&exchange, "user.*").await.unwrap();
        let mut deliveries = queue.consume().prefetch(10).await.unwrap();
        for round in 0..3 {
            exchange.publish("user.created", format!("{round}")).await.unwrap();
            let delivery = soon(deliveries.next()).await.unwrap().unwrap();
            assert_eq!(delivery.body_str(), Some(format!("{round}").as_str()));
            delivery.ack().unwrap();
            assert!(robust.cut().await.is_empty());
        }
        assert_eq!(robust.connection.counters().reconnects, 3);
        robust.connection.close().await.unwrap();
    });
}

#[test]
fn a_server_named_queue_gets_its_new_name_everywhere() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Direct).await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        let other = channel.queue(queue.name()).unwrap();
        queue.bind(&exchange, "a").await.unwrap();
        let first = queue.name().clone();
        robust.relay.cut();
        let (old, new) = robust
            .event(|event| match event {
                lepus::robust::Event::Renamed { old, new } => Some((old, new)),
                _ => None,
            })
            .await;
        assert!(robust.restored().await.is_empty());
        assert_eq!((&old, &new), (&first, queue.name()));
        assert_eq!(other.name(), &new);
        assert_ne!(old, new);
        robust.cut().await;
        assert_ne!(queue.name(), &new);
        // by a handle of the old name, and by the name itself
        exchange.publish("a", "1").await.unwrap();
        assert_eq!(soon(other.get()).await.unwrap().unwrap().body_str(), Some("1"));
        let by_name = channel.queue(old).unwrap();
        by_name.unbind(&exchange, "a").await.unwrap();
        queue.purge().await.unwrap();
        exchange.publish("a", "2").await.unwrap();
        assert!(queue.get().await.unwrap().is_none());
        robust.cut().await;
        exchange.publish("a", "3").await.unwrap();
        assert!(queue.get().await.unwrap().is_none(), "the unbound binding came back");
    });
}

#[test]
fn bindings_differ_by_all_their_parts() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let headers = channel.declare_exchange(t.name(), ExchangeKind::Headers).await.unwrap();
        let fanout = channel.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
        let source = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        fanout.bind(&source, "a").await.unwrap();
        fanout.bind(&source, "b").await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        queue.bind(&fanout, "").await.unwrap();
        for color in ["red", "green"] {
            queue.bind(&headers, "").argument("x-match", "all").argument("color", color).await.unwrap();
        }
        for _ in 0..2 {
            robust.cut().await;
            for key in ["a", "b", "c"] {
                source.publish(key, key).await.unwrap();
            }
            for color in ["red", "green", "blue"] {
                headers.publish("", Message::new(color).header("color", color)).await.unwrap();
            }
            for expected in ["a", "b", "red", "green"] {
                let delivery = queue.get().await.unwrap().unwrap();
                assert_eq!(delivery.body_str(), Some(expected));
                delivery.ack().unwrap();
            }
            assert!(queue.get().await.unwrap().is_none());
        }
    });
}

#[test]
fn what_was_deleted_does_not_come_back() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
        let queue = channel.declare_queue(t.name()).exclusive().transient().await.unwrap();
        let kept = channel.declare_queue(t.name()).exclusive().transient().await.unwrap();
        let gone = channel.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
        queue.bind(&exchange, "").await.unwrap();
        queue.delete().await.unwrap();
        gone.delete().await.unwrap();
        assert!(robust.cut().await.is_empty());
        let plain = t.connect().await;
        let asked = plain.channel().await.unwrap().declare_queue(queue.name()).passive().await;
        assert_eq!(asked.unwrap_err().reply_code(), Some(404));
        let asked = plain.channel().await.unwrap();
        let asked = asked.declare_exchange(gone.name(), ExchangeKind::Fanout).passive().await;
        assert_eq!(asked.unwrap_err().reply_code(), Some(404));
        let asked = plain.channel().await.unwrap().declare_queue(kept.name()).passive().await;
        assert_eq!(asked.unwrap_err().reply_code(), Some(405), "it is exclusive, so it is there");
    });
}

#[test]
fn what_cannot_be_restored_is_told_and_the_rest_goes_on() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let name = t.name();
        let spoilt = channel.declare_queue(&name).await.unwrap();
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
        let good = channel.declare_queue(t.name()).exclusive().await.unwrap();
        good.bind(&exchange, "").await.unwrap();
        let mut deliveries = good.consume().await.unwrap();
        let mut waiting = spoilt.consume().await.unwrap();
        // while it is away, somebody makes another queue of it
        robust.relay.refuse().await.unwrap();
        robust.relay.cut();
        robust.lost().await;
        let plain = t.connect().await;
        let other = plain.channel().await.unwrap();
        other.queue(&name).unwrap().delete().await.unwrap();
        other.declare_queue(&name).max_length(7).await.unwrap();
        robust.relay.accept().await.unwrap();
        let unrestored = robust.restored().await;
        assert_eq!(unrestored.len(), 1, "{unrestored:?}");
        assert_eq!(unrestored[0].error.reply_code(), Some(406));
        assert!(unrestored[0].entity.to_string().contains(&name));
        exchange.publish("", "1").await.unwrap();
        soon(deliveries.next()).await.unwrap().unwrap().ack().unwrap();
        // its consumer is there, for the queue is, although not as it was declared
        channel.default_exchange().publish(&name, "2").await.unwrap();
        soon(waiting.next()).await.unwrap().unwrap().ack().unwrap();
    });
}

#[test]
fn many_bindings_come_back() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Direct).await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        for number in 0..500 {
            queue.bind(&exchange, format!("{number}")).await.unwrap();
        }
        assert!(robust.cut().await.is_empty());
        for number in [0, 250, 499] {
            exchange.publish(format!("{number}"), "").mandatory().await.unwrap();
        }
        let error = exchange.publish("500", "").mandatory().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Returned);
    });
}

#[test]
fn a_loss_in_the_middle_of_the_restore_starts_it_over() {
    test(async |t| {
        use crate::relay::{Direction, Fault, Trigger};
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Direct).await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        for number in 0..20 {
            queue.bind(&exchange, format!("{number}")).await.unwrap();
        }
        let mut deliveries = queue.consume().await.unwrap();
        // the handshake takes less than 600 bytes
        for offset in [600, 1200, 1500, 2500] {
            let (direction, fault) = (Direction::ToBroker, Fault::Cut);
            robust.relay.next(Trigger { direction, offset, fault });
        }
        robust.relay.cut();
        assert!(robust.restored().await.is_empty());
        for number in 0..20 {
            exchange.publish(format!("{number}"), "x").await.unwrap();
            soon(deliveries.next()).await.unwrap().unwrap().ack().unwrap();
        }
    });
}

#[test]
fn an_auto_delete_exchange_that_goes_with_the_old_bindings_comes_back() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Direct).auto_delete().await.unwrap();
        let mut queues = Vec::new();
        for number in 0..30 {
            let queue = channel.declare_queue("").await.unwrap();
            for key in 0..10 {
                queue.bind(&exchange, format!("{number}.{key}")).await.unwrap();
            }
            queues.push(queue);
        }
        // the broker needs a while to remove the old queues, and with their last binding goes the exchange
        for _ in 0..5 {
            assert!(robust.cut().await.is_empty());
            for (number, queue) in queues.iter().enumerate() {
                exchange.publish(format!("{number}.9"), "x").mandatory().await.unwrap();
                queue.get().await.unwrap().unwrap().ack().unwrap();
            }
        }
    });
}

#[test]
fn whoever_sees_it_ready_sees_all_of_it_ready() {
    test(async |_| {
        let mut robust = Through::with(|options| options.on_outage(Outage::Fail)).await;
        let mut channels = Vec::new();
        for _ in 0..50 {
            channels.push(robust.connection.channel().await.unwrap());
        }
        let exchange = channels.last().unwrap().default_exchange();
        for reconnects in 1..=10 {
            robust.relay.cut();
            robust.lost().await;
            let (connection, exchange) = (robust.connection.clone(), exchange.clone());
            let looking = tokio::task::spawn_blocking(move || {
                // at the first moment
                while !connection.is_ready() {
                    std::thread::yield_now();
                }
                assert_eq!(connection.counters().reconnects, reconnects);
                let sent = tokio::runtime::Handle::current()
                    .block_on(exchange.enqueue("nowhere", "x").into_future());
                drop(sent.expect("a channel is not ready"));
            });
            soon(looking).await.unwrap();
        }
    });
}

#[test]
fn what_was_declared_without_waiting_comes_back() {
    test(async |t| {
        use lepus::protocol::{exchange, queue};

        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let (source, destination) = (t.name(), queue.name());
        let declare = exchange::Declare {
            exchange: ShortStr::try_from(source.as_str()).unwrap(),
            kind: ShortStr::try_from("fanout").unwrap(),
            no_wait: true,
            ..Default::default()
        };
        let bind = queue::Bind {
            queue: destination.clone(),
            exchange: declare.exchange.clone(),
            no_wait: true,
            ..Default::default()
        };
        channel.call_no_wait(&declare).unwrap();
        channel.call_no_wait(&bind).unwrap();
        assert!(robust.cut().await.is_empty());
        let exchange = channel.exchange(source).unwrap();
        soon(exchange.publish("", "1").mandatory()).await.unwrap();
    });
}
