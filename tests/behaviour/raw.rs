//! Raw calls: methods of the protocol that have no form of their own.

use lepus::protocol::{access, basic, channel, confirm, exchange, queue};
use lepus::{ErrorKind, Scope};

use crate::case::test;
use crate::tools::{closed_the_channel, fill, is_missing, numbers};

#[test]
fn any_request_can_be_called() {
    test(async |t| {
        let channel = t.channel().await;
        let name = t.name();
        let declare = queue::Declare {
            queue: name.as_str().try_into().unwrap(),
            exclusive: true,
            ..queue::Declare::default()
        };
        let declared = channel.call(declare.clone()).await.unwrap();
        assert_eq!((declared.queue, declared.message_count), (name.as_str().try_into().unwrap(), 0));
        let queue = channel.queue(&name).unwrap();
        fill(&queue, &channel, numbers(1, 3)).await;
        let purge = queue::Purge { queue: declare.queue, no_wait: false };
        assert_eq!(channel.call(purge).await.unwrap().message_count, 3);
        assert!(channel.call(channel::Flow { active: true }).await.unwrap().active);
        // without meaning since AMQP 0-9, and answered all the same
        channel
            .call(access::Request { realm: "/data".try_into().unwrap(), ..Default::default() })
            .await
            .unwrap();
        channel.call(confirm::Select { no_wait: false }).await.unwrap();
    });
}

#[test]
fn a_request_without_an_answer_is_done_all_the_same() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).exclusive().await.unwrap();
        fill(&queue, &channel, numbers(1, 3)).await;
        channel.call_no_wait(&queue::Purge { queue: queue.name().clone(), no_wait: true }).unwrap();
        assert!(queue.get().await.unwrap().is_none());
        let bind = queue::Bind {
            queue: queue.name().clone(),
            exchange: "amq.topic".try_into().unwrap(),
            routing_key: "raw.key".try_into().unwrap(),
            no_wait: true,
            ..queue::Bind::default()
        };
        channel.call_no_wait(&bind).unwrap();
        channel.exchange("amq.topic").unwrap().publish("raw.key", "x").mandatory().await.unwrap();
        let delete = queue::Delete { queue: queue.name().clone(), no_wait: true, ..Default::default() };
        channel.call_no_wait(&delete).unwrap();
        assert!(is_missing(channel.declare_queue(queue.name()).passive().await));
    });
}

#[test]
fn an_error_of_a_request_without_an_answer_ends_the_channel() {
    test(async |t| {
        let channel = t.channel().await;
        let declare = exchange::Declare {
            exchange: t.name().try_into().unwrap(),
            kind: "direct".try_into().unwrap(),
            passive: true,
            no_wait: true,
            ..exchange::Declare::default()
        };
        channel.call_no_wait(&declare).unwrap();
        closed_the_channel(Err::<(), _>(channel.closed().await), 404, "no exchange");
    });
}

#[test]
fn what_needs_bookkeeping_is_refused() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let errors = [
            channel
                .call(basic::Consume { queue: queue.name().clone(), ..Default::default() })
                .await
                .map(drop),
            channel.call(channel::Open).await.map(drop),
            channel.call(channel::Close::default()).await.map(drop),
            channel.call(queue::Purge { queue: queue.name().clone(), no_wait: true }).await.map(drop),
            channel.call_no_wait(&queue::Purge { queue: queue.name().clone(), no_wait: false }),
            channel.call_no_wait(&queue::Declare { no_wait: true, ..Default::default() }),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert_eq!((error.kind(), error.scope()), (ErrorKind::Unsupported, Scope::Call), "{error}");
        }
        queue.purge().await.unwrap();
    });
}
