//! Publishing across a loss.

use std::time::Duration;

use lepus::robust::Outage;
use lepus::{ErrorKind, Message};

use crate::case::test;
use crate::relay::{Direction, Fault, Trigger};
use crate::through::{Through, soon};

#[test]
fn what_was_not_confirmed_is_published_again_in_its_order_and_marked() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let exchange = channel.default_exchange();
        exchange.publish(queue.name(), "0").await.unwrap();
        // nothing comes back any more, and nothing goes out
        robust.relay.stall();
        let mut confirms = Vec::new();
        for number in 1..=50 {
            let message = Message::new(format!("{number}")).message_id(format!("{number}"));
            confirms.push(exchange.enqueue(queue.name(), message).await.unwrap());
        }
        robust.cut().await;
        let newer = exchange.publish(queue.name(), "51").await;
        newer.unwrap();
        for confirm in confirms {
            soon(confirm).await.unwrap();
        }
        channel.wait_for_confirms().await.unwrap();
        assert_eq!(robust.connection.counters().republished, 50);
        for number in 0..=51 {
            let delivery = queue.get().await.unwrap().unwrap();
            assert_eq!(delivery.body_str(), Some(format!("{number}").as_str()));
            assert_eq!(delivery.is_republished(), (1..=50).contains(&number));
            if delivery.is_republished() {
                assert_eq!(delivery.properties().unwrap().message_id.unwrap(), format!("{number}").as_str());
            }
            delivery.ack().unwrap();
        }
        assert!(queue.get().await.unwrap().is_none());
    });
}

#[test]
fn what_was_confirmed_is_not_published_again() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        for number in 0..100 {
            channel.default_exchange().publish(queue.name(), format!("{number}")).await.unwrap();
        }
        robust.cut().await;
        assert_eq!(robust.connection.counters().republished, 0);
        assert_eq!(channel.declare_queue(queue.name()).passive().await.unwrap().message_count(), 100);
    });
}

#[test]
fn a_message_lost_with_two_links_is_confirmed_on_the_third() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        robust.relay.stall();
        let exchange = channel.default_exchange();
        let first = exchange.enqueue(queue.name(), "1").await.unwrap();
        let mut polled = Box::pin(exchange.enqueue(queue.name(), "2").await.unwrap());
        let dropped = exchange.enqueue(queue.name(), "3").await.unwrap();
        drop(dropped);
        assert!(futures_poll(&mut polled).await);
        robust.relay.next(Trigger { direction: Direction::ToBroker, offset: 600, fault: Fault::Cut });
        robust.cut().await;
        soon(first).await.unwrap();
        soon(polled).await.unwrap();
        channel.wait_for_confirms().await.unwrap();
        assert!(robust.relay.counts().connections() >= 3);
        assert!(channel.declare_queue(queue.name()).passive().await.unwrap().message_count() >= 3);
    });
}

/// Polls once; true if it is pending.
async fn futures_poll(future: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
    })
    .await
}

#[test]
fn without_republishing_the_loss_is_told() {
    test(async |t| {
        let mut robust = Through::with(|options| options.republish(false)).await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        robust.relay.stall();
        let confirm = channel.default_exchange().enqueue(queue.name(), "1").await.unwrap();
        robust.cut().await;
        assert_eq!(soon(confirm).await.unwrap_err().kind(), ErrorKind::ConnectionLost);
        channel.default_exchange().publish(queue.name(), "2").await.unwrap();
        assert_eq!(queue.get().await.unwrap().unwrap().body_str(), Some("2"));
    });
}

#[test]
fn in_an_outage_publishers_wait_fail_or_wait_for_a_while() {
    test(async |t| {
        let name = t.name();
        let during = async |outage| {
            let mut robust = Through::with(|options| options.on_outage(outage)).await;
            let channel = robust.connection.channel().await.unwrap();
            channel.declare_queue(&name).await.unwrap();
            robust.relay.refuse().await.unwrap();
            robust.relay.cut();
            robust.lost().await;
            (robust, channel.default_exchange())
        };
        let (_robust, exchange) = during(Outage::Fail).await;
        assert_eq!(exchange.publish(&name, "no").await.unwrap_err().kind(), ErrorKind::NotSent);
        // as said for one message
        let patient = exchange.publish(&name, "no").deadline(Duration::from_millis(20)).await;
        assert_eq!(patient.unwrap_err().kind(), ErrorKind::NotSent);

        let (_robust, exchange) = during(Outage::WaitFor(Duration::from_millis(20))).await;
        assert_eq!(exchange.publish(&name, "no").await.unwrap_err().kind(), ErrorKind::NotSent);

        let (robust, exchange) = during(Outage::Wait).await;
        let waiting = tokio::spawn({
            let (exchange, name) = (exchange.clone(), name.clone());
            async move { exchange.publish(&name, "yes").await }
        });
        let short = exchange.enqueue(&name, "no").deadline(Duration::from_millis(20)).await;
        assert_eq!(short.map(drop).unwrap_err().kind(), ErrorKind::NotSent);
        robust.relay.accept().await.unwrap();
        soon(waiting).await.unwrap().unwrap();
        let plain = t.connect().await;
        let queue = plain.channel().await.unwrap().queue(&name).unwrap();
        assert_eq!(queue.get().await.unwrap().unwrap().body_str(), Some("yes"));
        assert!(queue.get().await.unwrap().is_none());
    });
}

#[test]
fn the_bound_on_unconfirmed_messages_makes_publishers_wait() {
    test(async |t| {
        let mut robust = Through::with(|options| options.unconfirmed_limit(100_000)).await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        robust.relay.stall();
        let exchange = channel.default_exchange();
        let mut accepted = 0;
        let body = vec![b'x'; 10_000];
        let limit = Duration::from_millis(20);
        while let Ok(confirm) =
            tokio::time::timeout(limit, exchange.enqueue(queue.name(), body.clone())).await
        {
            drop(confirm.unwrap());
            accepted += 1;
        }
        assert!((5..=9).contains(&accepted), "{accepted}");
        robust.cut().await;
        for _ in 0..100 {
            soon(exchange.publish(queue.name(), body.clone())).await.unwrap();
        }
        assert_eq!(
            channel.declare_queue(queue.name()).passive().await.unwrap().message_count(),
            100 + accepted
        );
    });
}

#[test]
fn returned_and_nacked_messages_are_told_and_not_published_again() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let full = channel
            .declare_queue(t.name())
            .max_length(1)
            .overflow(lepus::Overflow::RejectPublish)
            .await
            .unwrap();
        let exchange = channel.default_exchange();
        exchange.publish(full.name(), "1").await.unwrap();
        let nacked = exchange.publish(full.name(), "2").await.unwrap_err();
        assert_eq!(nacked.kind(), ErrorKind::Nacked);
        let missing = t.name();
        let returned = exchange.publish(&missing, "3").mandatory().await.unwrap_err();
        assert_eq!(returned.returned().unwrap().body(), "3");
        let mut returns = channel.returns();
        robust.cut().await;
        assert_eq!(robust.connection.counters().republished, 0);
        drop(exchange.enqueue(&missing, "4").mandatory().await.unwrap());
        assert_eq!(soon(returns.next()).await.unwrap().body(), "4");
        assert_eq!(channel.wait_for_confirms().await.unwrap_err().kind(), ErrorKind::Returned);
    });
}

#[test]
fn a_channel_without_confirms_goes_on() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().without_confirms().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        robust.cut().await;
        channel.default_exchange().publish(queue.name(), "1").await.unwrap();
        channel.wait_for_confirms().await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        assert_eq!(soon(deliveries.next()).await.unwrap().unwrap().body_str(), Some("1"));
    });
}

#[test]
fn without_republishing_a_loss_that_no_confirm_tells_is_told_by_the_wait_for_all() {
    test(async |t| {
        let mut robust = Through::with(|options| options.republish(false)).await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        channel.default_exchange().publish(queue.name(), "0").await.unwrap();
        robust.cut().await;
        // nothing was under way
        soon(channel.wait_for_confirms()).await.unwrap();
        robust.relay.stall();
        drop(channel.default_exchange().enqueue(queue.name(), "1").await.unwrap());
        robust.cut().await;
        let error = soon(channel.wait_for_confirms()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionLost);
        soon(channel.wait_for_confirms()).await.unwrap();
    });
}

#[test]
fn a_message_that_waits_in_an_outage_follows_its_queue_to_the_new_name() {
    test(async |_| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        let old = queue.name().clone();
        robust.relay.refuse().await.unwrap();
        robust.relay.cut();
        robust.lost().await;
        let exchange = channel.default_exchange();
        let mut publishing = Box::pin(exchange.publish(&old, "1").mandatory());
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut publishing).await.is_err(), "it waits");
        robust.relay.accept().await.unwrap();
        robust.restored().await;
        assert_ne!(*queue.name(), old);
        soon(publishing).await.unwrap();
        assert_eq!(soon(deliveries.next()).await.unwrap().unwrap().body_str(), Some("1"));
    });
}
