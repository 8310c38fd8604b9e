//! Limits of frames, channels, messages, memory and time.

use std::time::Duration;

use lepus::broker::Broker;
use lepus::{ConnectOptions, ErrorKind, ExchangeKind, Message};
use tokio::time::timeout;

use crate::tools::{open, test};

#[test]
fn what_is_offered_is_what_was_set() {
    test(async |_| {
        let options = Broker::options().frame_max(8192).channel_max(2).heartbeat(Duration::from_secs(7));
        let broker = options.start().await.unwrap();
        let connection = lepus::connect(&broker.url()).await.unwrap();
        assert_eq!((connection.frame_max(), connection.channel_max()), (8192, 2));
        assert_eq!(connection.heartbeat(), Duration::from_secs(7));
        let one = connection.channel().await.unwrap();
        let _two = connection.channel().await.unwrap();
        assert_eq!(connection.channel().await.unwrap_err().kind(), ErrorKind::NoFreeChannel);
        one.declare_queue("jobs").await.unwrap();
        one.default_exchange().publish("jobs", vec![1; 100_000]).await.unwrap();
        assert_eq!(broker.queue("jobs").unwrap().ready_bytes, 100_000);
    });
}

#[test]
fn a_message_may_be_as_large_as_was_set_and_no_larger() {
    test(async |_| {
        let broker = Broker::options().message_max(1000).start().await.unwrap();
        let (connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        channel.default_exchange().publish("jobs", vec![0; 1000]).await.unwrap();
        let error = channel.default_exchange().publish("jobs", vec![0; 1001]).await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(406)));
        assert!(connection.is_open());
    });
}

#[test]
fn beyond_the_memory_limit_publishers_wait() {
    test(async |_| {
        const LIMIT: usize = 1 << 20;
        let broker = Broker::options().memory_limit(LIMIT as u64).start().await.unwrap();
        let (connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        let exchange = channel.default_exchange();
        let mut blocked = connection.watch_blocked();
        exchange.publish("jobs", vec![0; LIMIT + 1]).await.unwrap();
        assert_eq!(broker.memory(), LIMIT as u64 + 1);
        let mut publish = Box::pin(exchange.publish("jobs", vec![0; LIMIT + 1]));
        assert!(timeout(Duration::from_millis(50), &mut publish).await.is_err(), "it must wait");
        assert!(blocked.changed().await.is_some());
        assert_eq!(broker.memory(), LIMIT as u64 + 1);

        // a connection that only consumes is not blocked
        let (_second, other) = open(&broker).await;
        assert_eq!(other.queue("jobs").unwrap().purge().await.unwrap(), 1);
        publish.await.unwrap();
        assert_eq!(other.queue("jobs").unwrap().purge().await.unwrap(), 1);
        broker.until(|broker| broker.memory() == 0).await;
    });
}

#[test]
fn a_silent_client_is_cut_after_two_heartbeats() {
    test(async |_| {
        let broker = Broker::options().heartbeat(Duration::from_secs(1)).start().await.unwrap();
        let options = ConnectOptions::new(&broker.url()).unwrap();
        // it lives on its own heartbeats
        let alive = options.connect().await.unwrap();
        let mut dead = lepus_less::log_in(broker.address().unwrap()).await;
        broker.until(|broker| broker.connections().len() == 2).await;
        broker.until(|broker| broker.connections().len() == 1).await;
        lepus_less::until_its_end(&mut dead).await;
        assert!(alive.is_open());
    });
}

#[test]
fn a_chain_of_exchanges_that_go_together_may_be_long() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        let declare = |number: u32| {
            channel.declare_exchange(number.to_string(), ExchangeKind::Fanout).auto_delete().into_future()
        };
        let mut before = declare(0).await.unwrap();
        for number in 1..2000 {
            let next = declare(number).await.unwrap();
            next.bind(&before, "").await.unwrap();
            before = next;
        }
        // the last one takes them all along
        before.delete().await.unwrap();
        assert!(broker.exchanges().iter().all(|exchange| exchange.name.starts_with("amq.")));
    });
}

#[test]
fn dead_letters_that_multiply_let_others_have_their_turn() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        let dead = channel.declare_exchange("dead", ExchangeKind::Fanout).await.unwrap();
        for number in 0..7 {
            let declare = channel.declare_queue(number.to_string()).dead_letter_to("dead");
            declare.message_ttl(Duration::ZERO).await.unwrap().bind(&dead, "").await.unwrap();
        }
        let (_other, idle) = open(&broker).await;
        dead.publish("", "x").await.unwrap();
        idle.declare_queue("free").await.unwrap();
        broker.until(|broker| broker.memory() == 0).await;
    });
}

#[test]
fn direct_replies_to_who_does_not_read_are_lost() {
    test(async |broker| {
        let options = ConnectOptions::new(&broker.url()).unwrap().incoming_limit(1 << 16);
        let asking = options.connect().await.unwrap();
        let channel = asking.channel().await.unwrap();
        let _unread = channel.queue("amq.rabbitmq.reply-to").unwrap().consume().no_ack().await.unwrap();
        let (_connection, answering) = open(&broker).await;
        let requests = answering.declare_queue("requests").await.unwrap();
        let request = Message::new("ask").reply_to("amq.rabbitmq.reply-to");
        channel.default_exchange().publish("requests", request).await.unwrap();
        let request = requests.get().await.unwrap().unwrap();
        let address = request.properties().unwrap().reply_to.unwrap();
        for _ in 0..100 {
            answering.default_exchange().publish(&address, vec![0; 1 << 20]).await.unwrap();
        }
        assert!(broker.memory() <= 3, "only the request");
    });
}

/// A client that says nothing once it has logged in.
mod lepus_less {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    pub(super) async fn log_in(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let frame = |payload: &[u8]| {
            let mut bytes = vec![1, 0, 0];
            bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(payload);
            bytes.push(0xCE);
            bytes
        };
        let mut start_ok = vec![0, 10, 0, 11, 0, 0, 0, 0, 5];
        start_ok.extend_from_slice(b"PLAIN\0\0\0\x0c\0guest\0guest\x05en_US");
        let tune_ok = [0, 10, 0, 31, 7, 255, 0, 2, 0, 0, 0, 1];
        let open = [0, 10, 0, 40, 1, b'/', 0, 0];
        stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        for method in [start_ok.as_slice(), &tune_ok, &open] {
            stream.write_all(&frame(method)).await.unwrap();
        }
        stream
    }

    pub(super) async fn until_its_end(stream: &mut TcpStream) {
        let mut all = Vec::new();
        // cut: an end or a reset
        drop(stream.read_to_end(&mut all).await);
        // the last thing before it, but for heartbeats, is open-ok
        let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xCE];
        while let Some(rest) = all.strip_suffix(&heartbeat) {
            all.truncate(rest.len());
        }
        assert!(all.ends_with(&[0, 10, 0, 41, 0, 0xCE]), "{all:?}");
    }
}

#[test]
fn a_stream_is_refused_clearly() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        let error = channel.declare_queue("log").argument("x-queue-type", "stream").await.unwrap_err();
        assert!(error.reply_text().unwrap().contains("stream"), "{error}");
        assert!(broker.queue("log").is_none());
    });
}

#[test]
fn a_quorum_queue_limits_deliveries_unless_told_otherwise() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        for (unlimited, expected) in [(false, 21), (true, 30)] {
            let declare = channel.declare_queue(format!("unlimited {unlimited}")).quorum();
            let queue = if unlimited { declare.unlimited_deliveries().await } else { declare.await }.unwrap();
            channel.default_exchange().publish(queue.name(), "x").await.unwrap();
            let mut deliveries = 0;
            while deliveries < 30
                && let Some(delivery) = queue.get().await.unwrap()
            {
                deliveries += 1;
                delivery.reject(true).unwrap();
            }
            assert_eq!(deliveries, expected);
        }
    });
}
