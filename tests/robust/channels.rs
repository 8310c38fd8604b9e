//! Channels that the server closes.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use lepus::robust::Event;
use lepus::{ErrorKind, ExchangeKind};

use crate::case::test;
use crate::through::{Through, soon};

#[test]
fn a_closed_channel_is_opened_again_and_the_error_reaches_its_cause() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        let error = channel.declare_queue(t.name()).passive().await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(404)));
        robust.event(|event| matches!(event, Event::ChannelRestored { .. }).then_some(())).await;
        channel.default_exchange().publish(queue.name(), "1").await.unwrap();
        soon(deliveries.next()).await.unwrap().unwrap().ack().unwrap();
        assert!(channel.is_open());
        assert_eq!(robust.connection.counters().reconnects, 0);
    });
}

#[test]
fn a_message_to_an_exchange_that_is_missing_fails_alone() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let missing = channel.exchange(t.name()).unwrap();
        let mut good = Vec::new();
        let mut bad = Vec::new();
        for number in 0..20 {
            good.push(channel.default_exchange().enqueue(queue.name(), format!("{number}")).await.unwrap());
            bad.push(missing.enqueue("", "").await.unwrap());
        }
        for confirm in good {
            soon(confirm).await.unwrap();
        }
        for confirm in bad {
            assert_eq!(soon(confirm).await.unwrap_err().reply_code(), Some(404));
        }
        let mut delivered = Vec::new();
        let mut deliveries = queue.consume().await.unwrap();
        while delivered.last() != Some(&19) {
            let delivery = soon(deliveries.next()).await.unwrap().unwrap();
            let number: u32 = delivery.body_str().unwrap().parse().unwrap();
            if !delivered.contains(&number) {
                delivered.push(number);
            }
            delivery.ack().unwrap();
        }
        assert_eq!(delivered, (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_binding_outlives_the_channel_that_made_it() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let other = robust.connection.channel().await.unwrap();
        let exchange = other.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
        let queue = channel.declare_queue(t.name()).exclusive().await.unwrap();
        let made = other.queue(queue.name()).unwrap();
        made.bind(&exchange, "").await.unwrap();
        other.close().await.unwrap();
        robust.cut().await;
        let exchange = channel.exchange(exchange.name()).unwrap();
        exchange.publish("", "1").await.unwrap();
        assert_eq!(queue.get().await.unwrap().unwrap().body_str(), Some("1"));
        assert_eq!(other.declare_queue(t.name()).await.unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn dropped_handles_close_the_channel_and_the_connection() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).exclusive().await.unwrap();
        let name = queue.name().clone();
        drop((queue, channel));
        let relay = robust.relay;
        let mut events = robust.events;
        drop(robust.connection);
        while soon(events.next()).await.is_some() {}
        soon(relay.until(|counts| counts.ended == 1)).await.unwrap();
        let plain = t.connect().await;
        let asked = plain.channel().await.unwrap().declare_queue(name).passive().await;
        assert_eq!(asked.unwrap_err().reply_code(), Some(404));
    });
}

#[test]
fn transactions_are_refused() {
    test(async |_| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let error = channel.call(lepus::protocol::tx::Select).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    });
}

#[test]
fn a_close_also_ends_a_consumer_that_was_revived() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut deliveries = queue.consume().no_ack().await.unwrap();
        let plain = t.connect().await.channel().await.unwrap();
        // the server cancels it, and it comes back
        plain.queue(queue.name()).unwrap().delete().await.unwrap();
        let declared = plain.declare_queue(queue.name()).await.unwrap();
        let back = async {
            plain.default_exchange().publish(queue.name(), "1").await.unwrap();
            drop(deliveries.next().await.unwrap().unwrap());
        };
        soon(back).await;
        soon(channel.close()).await.unwrap();
        assert!(soon(deliveries.next()).await.is_none());
        let consumers = async {
            while plain.declare_queue(declared.name()).passive().await.unwrap().consumer_count() > 0 {}
        };
        soon(consumers).await;
    });
}

#[test]
fn what_goes_with_a_closed_channel_comes_back_with_it() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Fanout).auto_delete().await.unwrap();
        let named = channel.declare_queue(t.name()).auto_delete().await.unwrap();
        let nameless = channel.declare_queue("").auto_delete().await.unwrap();
        let mut consumers = Vec::new();
        for queue in [&named, &nameless] {
            queue.bind(&exchange, "").await.unwrap();
            consumers.push(queue.consume().await.unwrap());
        }
        // the channel goes, with it the consumers, with them the queues, and with these the exchange
        channel.declare_queue(t.name()).passive().await.unwrap_err();
        robust.event(|event| matches!(event, Event::ChannelRestored { .. }).then_some(())).await;
        for consumer in &mut consumers {
            let delivered = async {
                // until the broker is done with what the closed channel leaves
                loop {
                    drop(exchange.publish("", "1").await);
                    let next = tokio::time::timeout(Duration::from_millis(100), consumer.next());
                    if let Ok(delivery) = next.await {
                        return delivery.unwrap().unwrap().ack().unwrap();
                    }
                }
            };
            soon(delivered).await;
        }
        assert_eq!(robust.connection.counters().reconnects, 0);
    });
}

/// What another channel is about to remove would otherwise be declared again, and stay.
#[test]
fn a_closed_channel_without_consumers_declares_nothing_again() {
    test(async |t| {
        let mut robust = Through::new().await;
        let (channel, other) =
            (robust.connection.channel().await.unwrap(), robust.connection.channel().await.unwrap());
        let name = t.name();
        channel.declare_exchange(&*name, ExchangeKind::Fanout).auto_delete().await.unwrap();
        let operator = t.connect().await.channel().await.unwrap();
        operator.exchange(&*name).unwrap().delete().await.unwrap();
        other.declare_queue(t.name()).passive().await.unwrap_err();
        robust.event(|event| matches!(event, Event::ChannelRestored { .. }).then_some(())).await;
        let asked = operator.declare_exchange(&*name, ExchangeKind::Fanout).auto_delete().passive().await;
        assert_eq!(asked.unwrap_err().reply_code(), Some(404));
    });
}

#[test]
fn a_paused_consumer_of_a_nameless_auto_delete_queue_resumes() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue("").auto_delete().await.unwrap();
        let before = queue.name().clone();
        let mut deliveries = queue.consume().await.unwrap();
        deliveries.pause().await.unwrap();
        let plain = t.connect().await;
        let gone =
            async { while plain.channel().await.unwrap().declare_queue(&before).passive().await.is_ok() {} };
        soon(gone).await;
        soon(deliveries.resume()).await.unwrap();
        assert_ne!(*queue.name(), before);
        channel.default_exchange().publish(queue.name(), "1").await.unwrap();
        soon(deliveries.next()).await.unwrap().unwrap().ack().unwrap();
    });
}

#[test]
fn a_channel_outlives_the_runtime_that_it_was_opened_on() {
    test(async |t| {
        let mut robust = Through::new().await;
        let (connection, name) = (robust.connection.clone(), t.name());
        let short_lived = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let channel = connection.channel().await.unwrap();
                let queue = channel.declare_queue(&name).await.unwrap();
                let consumer = queue.consume().await.unwrap();
                (queue, consumer, channel)
            })
        });
        let (queue, mut consumer, channel) = short_lived.join().unwrap();
        channel.declare_queue(t.name()).passive().await.unwrap_err();
        robust.event(|event| matches!(event, Event::ChannelRestored { .. }).then_some(())).await;
        soon(channel.default_exchange().publish(queue.name(), "1")).await.unwrap();
        soon(consumer.next()).await.unwrap().unwrap().ack().unwrap();
    });
}

/// What a call does on the broker is recorded, also if the runtime of its caller ends meanwhile.
#[test]
fn a_call_outlives_the_runtime_of_its_caller() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let name = t.name();
        let (elsewhere, wanted) = (channel.clone(), name.clone());
        let polled_once = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut declared = elsewhere.declare_queue(&wanted).into_future();
                poll_fn(|context| Poll::Ready(declared.as_mut().poll(context).is_ready())).await
            })
        });
        assert!(!polled_once.join().unwrap());
        let declared = async {
            loop {
                match t.connect().await.channel().await.unwrap().declare_queue(&name).passive().await {
                    Ok(_) => return,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ChannelClosed),
                }
            }
        };
        soon(declared).await;
        // its answer has come
        channel.qos(1).await.unwrap();
        t.connect().await.channel().await.unwrap().queue(&name).unwrap().delete().await.unwrap();
        robust.cut().await;
        let asked = t.connect().await.channel().await.unwrap().declare_queue(&name).passive().await;
        assert!(asked.is_ok(), "it was declared again");
    });
}
