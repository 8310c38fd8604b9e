//! What only shows when the server does just the right thing at just the right time.

use std::task::Poll;
use std::time::Duration;

use lepus::protocol::{basic, channel, confirm, connection, queue};
use lepus::robust::{Event, Options};
use lepus::{Channel, Connection, ErrorKind, FieldTable, FieldValue, Properties, StreamOffset};
use tokio::time::sleep;

use crate::case::test;
use crate::peer::{
    Frame, Listener, Peer, TUNE, body, both, content, deliver, raw_header, returned, short, within,
};

/// A robust connection, and where it comes back to.
async fn connected(options: impl FnOnce(Options) -> Options) -> (Listener, Peer, Connection) {
    let listener = Listener::bind().await;
    let options = options(listener.options().robust());
    let (connection, server) = both(options.connect(), again(&listener)).await;
    (listener, server, connection.unwrap())
}

/// The next link.
async fn again(listener: &Listener) -> Peer {
    let mut server = listener.accept().await;
    server.handshake(TUNE).await;
    server
}

async fn open(server: &mut Peer, connection: &Connection, number: u16) -> Channel {
    both(connection.channel(), server.open_channel(number)).await.0.unwrap()
}

/// A restore opens channels side by side.
async fn reopen_both(server: &mut Peer) {
    for channel in [1, 2] {
        server.expect(channel, channel::Open).await;
        server.send(channel, channel::OpenOk).await;
    }
    for channel in [1, 2] {
        server.expect(channel, confirm::Select { no_wait: false }).await;
        server.send(channel, confirm::SelectOk).await;
    }
}

async fn consumer(server: &mut Peer, channel: &Channel, number: u16) -> lepus::Consumer {
    let queue = channel.queue("q").unwrap();
    both(queue.consume().tag("c"), server.start_consumer(number, "c")).await.0.unwrap()
}

async fn start_without_acks(server: &mut Peer) {
    server.receive::<basic::Consume>(1).await;
    server.send(1, basic::ConsumeOk { consumer_tag: short("c") }).await;
}

const ACK: basic::Ack = basic::Ack { delivery_tag: 1, multiple: false };

/// A close by the server that blames this method.
fn close(code: u16, class_id: u16, method_id: u16) -> channel::Close {
    channel::Close { reply_code: code, reply_text: short("no"), class_id, method_id }
}

async fn deliver_one(server: &mut Peer, number: u16, body: &[u8]) {
    server.write(&[deliver(number, "c", 1), content(number, body)].concat()).await;
}

async fn next(consumer: &mut lepus::Consumer) -> String {
    let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
    delivery.body_str().unwrap().to_owned()
}

#[test]
fn what_is_confirmed_during_a_restore_that_fails_is_told() {
    test(async |_| {
        let (listener, mut server, connection) = connected(|options| options).await;
        let first = open(&mut server, &connection, 1).await;
        let second = open(&mut server, &connection, 2).await;
        let confirm = first.default_exchange().enqueue("k", "1").await.unwrap();
        server.receive_publish(1).await;
        let waiting = tokio::spawn(confirm);
        // more than a socket takes, so that the restore waits
        let body = vec![0; 1 << 20];
        for _ in 0..24 {
            let exchange = second.default_exchange();
            drop(both(exchange.enqueue("k", body.clone()), server.receive_publish(2)).await.0.unwrap());
        }
        drop(server);
        let mut server = again(&listener).await;
        reopen_both(&mut server).await;
        server.receive_publish(1).await;
        server.send(1, ACK).await;
        sleep(Duration::from_millis(100)).await;
        assert!(!connection.is_ready());
        drop(server);
        let mut server = again(&listener).await;
        reopen_both(&mut server).await;
        let reading = tokio::spawn(async move { while server.frame().await.is_some() {} });
        within("the confirm", waiting).await.unwrap().unwrap();
        reading.abort();
    });
}

#[test]
fn consumers_come_back_while_the_server_takes_no_publishes() {
    test(async |_| {
        let (listener, mut server, connection) = connected(|options| options).await;
        let publishing = open(&mut server, &connection, 1).await;
        let consuming = open(&mut server, &connection, 2).await;
        let mut consumer = consumer(&mut server, &consuming, 2).await;
        let confirm = publishing.default_exchange().enqueue("k", "1").await.unwrap();
        server.receive_publish(1).await;
        drop(server);
        let mut server = again(&listener).await;
        server.send(0, connection::Blocked { reason: short("low on memory") }).await;
        reopen_both(&mut server).await;
        server.start_consumer(2, "c").await;
        deliver_one(&mut server, 2, b"x").await;
        assert_eq!(next(&mut consumer).await, "x");
        server.send(0, connection::Unblocked).await;
        server.receive_publish(1).await;
        server.send(1, ACK).await;
        within("the confirm", confirm).await.unwrap();
    });
}

/// A channel is opened on whatever number the client takes.
async fn open_next(server: &mut Peer) -> u16 {
    let Frame { channel: number, payload, .. } = server.next().await;
    assert_eq!(payload[..4], [0, 20, 0, 10], "channel.open");
    server.send(number, channel::OpenOk).await;
    server.expect(number, confirm::Select { no_wait: false }).await;
    server.send(number, confirm::SelectOk).await;
    number
}

/// Opens a scratch channel, and answers its passive declare.
async fn probe(server: &mut Peer, number: u16) {
    server.expect(number, channel::Open).await;
    server.send(number, channel::OpenOk).await;
    assert!(server.receive::<queue::Declare>(number).await.passive);
    let ok = queue::DeclareOk { queue: short("q"), message_count: 0, consumer_count: 0 };
    server.send(number, ok).await;
    server.receive::<channel::Close>(number).await;
    server.send(number, channel::CloseOk).await;
}

/// Cancels the consumer `c` on channel 1.
async fn cancel(server: &mut Peer) {
    server.send(1, basic::Cancel { consumer_tag: short("c"), no_wait: true }).await;
    server.expect(1, basic::Cancel { consumer_tag: short("c"), no_wait: false }).await;
    server.send(1, basic::CancelOk { consumer_tag: short("c") }).await;
}

#[test]
fn a_revived_consumer_comes_back_when_its_channel_is_closed() {
    test(async |_| {
        let (_listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let mut consumer = consumer(&mut server, &channel, 1).await;
        let consuming = tokio::spawn(async move { next(&mut consumer).await });
        cancel(&mut server).await;
        probe(&mut server, 2).await;
        server.start_consumer(1, "c").await;
        // as when an ack took too long
        server.send(1, close(406, 0, 0)).await;
        server.expect(1, channel::CloseOk).await;
        let number = open_next(&mut server).await;
        server.start_consumer(number, "c").await;
        deliver_one(&mut server, number, b"x").await;
        assert_eq!(within("the consumer", consuming).await.unwrap(), "x");
    });
}

#[test]
fn a_consumer_that_is_refused_again_and_again_ends_with_the_error() {
    test(async |_| {
        let (_listener, mut server, connection) = connected(|options| options).await;
        let mut events = connection.events();
        let channel = open(&mut server, &connection, 1).await;
        let mut consumer = consumer(&mut server, &channel, 1).await;
        let ended = tokio::spawn(async move { consumer.next().await });
        cancel(&mut server).await;
        probe(&mut server, 2).await;
        // on its own channel, and when that is opened again
        server.receive_consume(1).await;
        server.send(1, close(403, 60, 20)).await;
        server.expect(1, channel::CloseOk).await;
        let number = open_next(&mut server).await;
        server.receive_consume(number).await;
        server.send(number, close(403, 60, 20)).await;
        server.expect(number, channel::CloseOk).await;
        open_next(&mut server).await;
        // from then on its channel stays open
        for _ in 0..10 {
            let Frame { channel: scratch, .. } = server.next().await;
            server.send(scratch, channel::OpenOk).await;
            server.receive_consume(scratch).await;
            server.send(scratch, close(403, 60, 20)).await;
            server.expect(scratch, channel::CloseOk).await;
        }
        let error = within("the end", ended).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.reply_code(), Some(403));
        within("the event", async {
            loop {
                if let Some(Event::ConsumerGaveUp { queue, tag, error }) = events.next().await {
                    assert_eq!((queue, tag, error.reply_code()), (short("q"), short("c"), Some(403)));
                    return;
                }
            }
        })
        .await;
        assert!(channel.is_open());
    });
}

#[test]
fn what_an_idle_channel_had_confirmed_keeps_nobody_waiting() {
    test(async |_| {
        let (_listener, mut server, connection) =
            connected(|options| options.unconfirmed_limit(20_000)).await;
        let idle = open(&mut server, &connection, 1).await;
        let busy = open(&mut server, &connection, 2).await;
        let confirm = idle.default_exchange().enqueue("k", vec![0; 15_000]).await.unwrap();
        server.receive_publish(1).await;
        server.send(1, ACK).await;
        within("the confirm", confirm).await.unwrap();
        let exchange = busy.default_exchange();
        for number in 1..=3 {
            let sent = exchange.enqueue("k", vec![0; 4_000]).deadline(Duration::from_secs(1)).await;
            drop(sent.unwrap_or_else(|error| panic!("message {number} had to wait: {error}")));
        }
    });
}

#[test]
fn returns_that_begin_during_a_restore_hear_of_everything_after_it() {
    test(async |_| {
        let (listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let exchange = channel.default_exchange();
        let confirm = exchange.enqueue("k", "1").await.unwrap();
        server.receive_publish(1).await;
        drop(server);
        let mut server = again(&listener).await;
        server.send(0, connection::Blocked { reason: short("low on memory") }).await;
        server.open_channel(1).await;
        sleep(Duration::from_millis(100)).await;
        let mut returns = channel.returns();
        server.send(0, connection::Unblocked).await;
        server.receive_publish(1).await;
        server.send(1, ACK).await;
        within("the confirm", confirm).await.unwrap();
        drop(exchange.enqueue("k", "2").mandatory().await.unwrap());
        server.receive_publish(1).await;
        server.write(&returned(1, "k", &Properties::default(), b"2")).await;
        server.send(1, basic::Ack { delivery_tag: 2, multiple: false }).await;
        assert_eq!(within("the message", returns.next()).await.unwrap().body(), "2");
    });
}

#[test]
fn what_was_returned_before_a_loss_can_be_taken_after_it() {
    test(async |_| {
        let (listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let mut returns = channel.returns();
        drop(channel.default_exchange().enqueue("k", "1").mandatory().await.unwrap());
        server.receive_publish(1).await;
        server.write(&returned(1, "k", &Properties::default(), b"1")).await;
        server.send(1, ACK).await;
        let told = within("the failure", channel.wait_for_confirms()).await.unwrap_err();
        assert_eq!(told.kind(), ErrorKind::Returned);
        drop(server);
        let mut server = again(&listener).await;
        both(connection.ready(), server.open_channel(1)).await.0.unwrap();
        assert_eq!(within("the message", returns.next()).await.unwrap().body(), "1");
    });
}

#[test]
fn a_consumer_whose_resume_was_dropped_and_failed_is_paused() {
    test(async |_| {
        let (_listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let mut consumer = consumer(&mut server, &channel, 1).await;
        let cancelled = async {
            let cancel = server.receive::<basic::Cancel>(1).await;
            server.send(1, basic::CancelOk { consumer_tag: cancel.consumer_tag }).await;
        };
        both(consumer.pause(), cancelled).await.0.unwrap();
        {
            let mut resumed = std::pin::pin!(consumer.resume());
            std::future::poll_fn(|context| {
                assert!(resumed.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        server.receive_consume(1).await;
        server.send(1, close(404, 60, 20)).await;
        server.expect(1, channel::CloseOk).await;
        let reopened = server.receive::<channel::Open>(2);
        let _ = reopened.await;
        sleep(Duration::from_millis(50)).await;
        assert!(consumer.is_paused());
    });
}

#[test]
fn what_came_and_needs_no_ack_outlives_every_loss() {
    test(async |_| {
        let (listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let queue = channel.queue("q").unwrap();
        let started = start_without_acks(&mut server);
        let mut consumer = both(queue.consume().tag("c").no_ack(), started).await.0.unwrap();
        for body in [b"1", b"2", b"3"] {
            deliver_one(&mut server, 1, body).await;
            drop(server);
            server = again(&listener).await;
            server.open_channel(1).await;
            start_without_acks(&mut server).await;
        }
        for body in ["1", "2", "3"] {
            assert_eq!(next(&mut consumer).await, body);
        }
    });
}

#[test]
fn a_consumer_that_closes_the_whole_connection_is_left_out() {
    test(async |_| {
        let (listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let mut consumer = consumer(&mut server, &channel, 1).await;
        let mut events = connection.events();
        drop(server);
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        let consume = server.receive_consume(1).await;
        let (class_id, method_id) = (60, 20);
        let (reply_code, reply_text) = (540, short("NOT_IMPLEMENTED"));
        server.send(0, connection::Close { reply_code, reply_text, class_id, method_id }).await;
        server.expect(0, connection::CloseOk).await;
        drop(server);
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        let unrestored = within("the restore", async {
            loop {
                if let Some(Event::Restored { unrestored, .. }) = events.next().await {
                    return unrestored;
                }
            }
        })
        .await;
        assert_eq!(unrestored.len(), 1);
        assert_eq!(unrestored[0].error.reply_code(), Some(540));
        // it is not tried again on this link: the next method is another one
        let exchange = channel.default_exchange();
        let confirm = exchange.enqueue("k", "1").await.unwrap();
        server.receive_publish(1).await;
        server.send(1, ACK).await;
        within("the confirm", confirm).await.unwrap();
        // but after the next loss
        drop(server);
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        assert_eq!(server.start_consumer(1, "c").await, consume);
        deliver_one(&mut server, 1, b"x").await;
        assert_eq!(next(&mut consumer).await, "x");
    });
}

#[test]
fn a_refused_message_to_the_default_exchange_is_given_up() {
    test(async |_| {
        let (_listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let confirm = channel.default_exchange().enqueue("k", "1").await.unwrap();
        server.receive_publish(1).await;
        let reply_text =
            short("ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused");
        server.send(1, channel::Close { reply_text, ..close(403, 60, 40) }).await;
        server.receive::<channel::CloseOk>(1).await;
        let reopened = server.open_channel(2);
        let (refused, ()) = both(confirm, reopened).await;
        assert_eq!(refused.unwrap_err().reply_code(), Some(403));
        // nothing is published again before it
        let next = channel.default_exchange().enqueue("k", "2").await.unwrap();
        assert_eq!(server.receive_publish(2).await.body, b"2");
        server.send(2, ACK).await;
        within("the confirm", next).await.unwrap();
    });
}

#[test]
fn a_returned_message_whose_ack_was_lost_is_not_published_again() {
    test(async |_| {
        let (listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let exchange = channel.default_exchange();
        let confirm = exchange.enqueue("k", "1").mandatory().await.unwrap();
        server.receive_publish(1).await;
        server.write(&returned(1, "k", &Properties::default(), b"1")).await;
        server.end().await;
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        assert_eq!(within("the return", confirm).await.unwrap_err().kind(), ErrorKind::Returned);
        let next = exchange.enqueue("k", "2").await.unwrap();
        assert_eq!(server.receive_publish(1).await.body, b"2");
        server.send(1, ACK).await;
        within("the confirm", next).await.unwrap();
    });
}

#[test]
fn a_queue_that_is_never_declared_is_told_and_the_rest_goes_on() {
    test(async |_| {
        let listener = Listener::bind().await;
        let options = listener.options().rpc_timeout(Duration::from_secs(2)).robust();
        let (connection, mut server) = both(options.connect(), again(&listener)).await;
        let connection = connection.unwrap();
        let mut events = connection.events();
        let channel = open(&mut server, &connection, 1).await;
        let declared = both(channel.declare_queue("q"), async {
            server.receive::<queue::Declare>(1).await;
            let ok = queue::DeclareOk { queue: short("q"), message_count: 0, consumer_count: 0 };
            server.send(1, ok).await;
        });
        drop(declared.await.0.unwrap());
        drop(server);
        // twice it is not answered
        for _ in 0..2 {
            let mut server = again(&listener).await;
            server.receive::<channel::Open>(1).await;
            server.send(1, channel::OpenOk).await;
            server.receive::<queue::Declare>(1).await;
            while server.frame().await.is_some() {}
        }
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        let restored = within("the restore", async {
            loop {
                if let Some(Event::Restored { unrestored, .. }) = events.next().await {
                    return unrestored;
                }
            }
        });
        let unrestored = restored.await;
        assert_eq!(unrestored[0].entity.to_string(), "queue 'q'");
        assert_eq!(unrestored[0].error.kind(), ErrorKind::Timeout);
    });
}

#[test]
fn both_limits_of_a_channel_are_set_again() {
    test(async |_| {
        let (listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let limits = [
            basic::Qos { prefetch_count: 5, ..basic::Qos::default() },
            basic::Qos { prefetch_count: 7, global: true, ..basic::Qos::default() },
        ];
        for limit in &limits {
            let (set, ()) = both(channel.call(limit.clone()), async {
                server.expect(1, limit.clone()).await;
                server.send(1, basic::QosOk).await;
            })
            .await;
            set.unwrap();
        }
        drop(server);
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        for limit in limits {
            server.expect(1, limit).await;
            server.send(1, basic::QosOk).await;
        }
        within("ready", connection.ready()).await.unwrap();
    });
}

/// `RabbitMQ` reads nothing from a publisher while an alarm is on.
#[test]
fn a_drain_ends_within_its_limit_while_the_server_blocks_and_says_what_is_not_confirmed() {
    test(async |_| {
        let (_listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let exchange = channel.default_exchange();
        for _ in 0..2 {
            drop(exchange.enqueue("k", "m").await.unwrap());
            server.receive_publish(1).await;
        }
        server.send(0, connection::Blocked { reason: short("low on memory") }).await;
        within("the news", async {
            while connection.blocked().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let begun = std::time::Instant::now();
        let error = within("the drain", connection.drain(Duration::from_millis(300))).await.unwrap_err();
        // a close may take 5 s by itself
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let text = error.to_string();
        assert!(text.contains("2 publishes are not confirmed"), "{text}");
        assert!(text.contains("low on memory"), "{text}");
    });
}

#[test]
fn a_consumer_of_a_stream_goes_on_behind_the_last_offset_that_was_handed_out() {
    test(async |_| {
        let (listener, mut server, connection) = connected(|options| options).await;
        let channel = open(&mut server, &connection, 1).await;
        let queue = channel.queue("q").unwrap();
        let told = queue.consume().tag("c").stream_offset(StreamOffset::First);
        let mut consumer = both(told, server.start_consumer(1, "c")).await.0.unwrap();
        let offset = |consume: &basic::Consume| consume.arguments.get("x-stream-offset").cloned();
        let starts = [("first".into(), 41), (FieldValue::I64(42), 77), (FieldValue::I64(78), 78)];
        for (again, number) in starts {
            drop(server);
            server = again_with(&listener).await;
            let consume = server.start_consumer(1, "c").await;
            assert_eq!(offset(&consume), Some(again));
            // the second one is not handed out before the loss
            for (tag, number) in [(1, number), (2, number + 1)] {
                let mut headers = FieldTable::new();
                headers.insert("x-stream-offset", number).unwrap();
                let properties = Properties { headers: Some(headers), ..Properties::default() };
                let mut encoded = Vec::new();
                properties.encode(&mut encoded);
                let frames = [deliver(1, "c", tag), raw_header(1, 60, 0, 1, &encoded), body(1, b"x")];
                server.write(&frames.concat()).await;
            }
            assert_eq!(next(&mut consumer).await, "x");
        }
    });
}

/// The next link, with channel 1.
async fn again_with(listener: &Listener) -> Peer {
    let mut server = again(listener).await;
    server.open_channel(1).await;
    server
}

#[test]
fn a_refused_secret_is_told_and_not_used() {
    test(async |_| {
        let (listener, mut server, connection) = connected(|options| options).await;
        let answered = [("first", None), ("bad", Some(530)), ("lost", Some(0))];
        for (number, (secret, refusal)) in answered.into_iter().enumerate() {
            let (updated, ()) = both(connection.update_secret(secret, "expires"), async {
                server.receive::<connection::UpdateSecret>(0).await;
                match refusal {
                    None => server.send(0, connection::UpdateSecretOk).await,
                    Some(530) => {
                        let reply_text = short("New secret was refused by one of the backends");
                        let close = connection::Close { reply_code: 530, reply_text, ..Default::default() };
                        server.send(0, close).await;
                        server.receive::<connection::CloseOk>(0).await;
                    }
                    Some(_) => {}
                }
                if number > 0 {
                    server.end().await;
                }
            })
            .await;
            assert_eq!(updated.err().and_then(|error| error.reply_code()), refusal.filter(|code| *code > 0));
            if number > 0 {
                server = listener.accept().await;
                let login = server.login().await;
                let used = if number == 1 { "first" } else { "lost" };
                assert!(login.response.ends_with(used.as_bytes()), "{:?}", login.response);
                server.send(0, TUNE).await;
                server.receive::<connection::TuneOk>(0).await;
                server.receive::<connection::Open>(0).await;
                server.send(0, connection::OpenOk).await;
                within("the link", connection.ready()).await.unwrap();
            }
        }
    });
}
