//! Target `client`: a user's operations against a server that sends anything, in memory and in virtual time.
//!
//! The input is a sequence of frames, as for the target `content`. A type that exists is a frame of the server; any other
//! is an operation of the user, a fault, or time that passes. The first octet says whether the server performs a handshake
//! first; without one its bytes are all that the client ever sees.

use std::future::ready;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::client::{Channel, Connection, Consumer};
use crate::codec::frame::{Cutter, PROTOCOL_HEADER, put_frame, put_method};
use crate::codec::generated::connection;
use crate::codec::generated::constants::{FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};
use crate::single::{ConnectOptions, Delivery, Message};

/// What both ends agree on.
const FRAME_MAX: u32 = 8192;

/// Longer than every time-out of the client together.
const LONG: Duration = Duration::from_secs(3600);

/// How many octets of either direction wait in memory.
const PIPE: usize = 16 << 10;

/// Once the server is gone every future ends, within an hour of virtual time, and nothing of the connection stays: neither
/// a task nor, after this has returned, memory. What the client writes is whole frames within `frame_max`.
pub fn client(data: &[u8]) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let mut session = Session::begin();
        let script = data.split_first().map_or(data, |(first, rest)| {
            if first & 1 == 0 {
                session.shake_hands();
            }
            rest
        });
        session.play(script).await;
        session.end().await;
    });
}

/// What an operation of the user brings.
enum Got {
    Connection(Connection),
    Channel(Channel),
    Consumer(Consumer, Option<Delivery>),
    Delivery(Delivery),
    Nothing,
}

struct Session {
    /// The server's writing half; none once it has hung up.
    server: Option<WriteHalf<DuplexStream>>,
    /// Whether the server reads.
    reads: watch::Sender<bool>,
    reader: JoinHandle<()>,
    /// Sent by the server and not taken yet.
    unsent: Vec<u8>,
    operations: JoinSet<Got>,
    connection: Option<Connection>,
    channels: Vec<Channel>,
    consumers: Vec<Consumer>,
    deliveries: Vec<Delivery>,
}

impl Session {
    fn begin() -> Self {
        let (ours, theirs) = duplex(PIPE);
        let (read, server) = split(theirs);
        let (reads, may_read) = watch::channel(true);
        let reader = tokio::spawn(swallow(read, may_read));
        let mut operations = JoinSet::new();
        operations.spawn(async move {
            let Ok(options) = ConnectOptions::new("amqp://guest:guest@localhost/") else {
                return Got::Nothing;
            };
            let options =
                options.frame_max(FRAME_MAX).outgoing_limit(PIPE).incoming_limit(PIPE).message_limit(100_000);
            let ours = Mutex::new(Some(ours));
            // the only one: there is no second attempt
            let options = options.connector(move |_host, _port| {
                let stream = ours.lock().ok().and_then(|mut ours| ours.take());
                ready(stream.ok_or_else(|| io::ErrorKind::NotConnected.into()))
            });
            options.connect().await.map_or(Got::Nothing, Got::Connection)
        });
        Self {
            server: Some(server),
            reads,
            reader,
            unsent: Vec::new(),
            operations,
            connection: None,
            channels: Vec::new(),
            consumers: Vec::new(),
            deliveries: Vec::new(),
        }
    }

    /// All that a server says until the connection is open.
    fn shake_hands(&mut self) {
        let start = connection::Start {
            version_minor: 9,
            mechanisms: "PLAIN".into(),
            ..connection::Start::default()
        };
        put_method(&mut self.unsent, 0, &start);
        let tune = connection::Tune { channel_max: 8, frame_max: FRAME_MAX, heartbeat: 60 };
        put_method(&mut self.unsent, 0, &tune);
        put_method(&mut self.unsent, 0, &connection::OpenOk);
    }

    async fn play(&mut self, mut script: &[u8]) {
        self.settle().await;
        while let Some((mut head, tail)) = script.split_at_checked(5) {
            let (kind, channel, size) = (head.get_u8(), head.get_u16() % 4, usize::from(head.get_u16()));
            let (payload, rest) = tail.split_at(size.min(tail.len()));
            script = rest;
            match kind {
                FRAME_METHOD | FRAME_HEADER | FRAME_BODY | FRAME_HEARTBEAT => {
                    put_frame(&mut self.unsent, kind, channel, |out| out.extend_from_slice(payload));
                }
                0 => self.unsent.extend_from_slice(payload),
                _ => self.step(kind, usize::from(channel), payload),
            }
            if kind == u8::MAX {
                // heartbeats, time-outs of calls
                sleep(Duration::from_secs(size as u64 % 100)).await;
            }
            self.settle().await;
        }
    }

    fn step(&mut self, kind: u8, at: usize, payload: &[u8]) {
        let name = || String::from_utf8_lossy(payload).into_owned();
        if let Some(connection) = self.connection.clone() {
            match kind % 16 {
                0 | 1 => {
                    self.operations.spawn(async move {
                        let channel = connection.channel();
                        let channel =
                            if kind >= 128 { channel.without_confirms().await } else { channel.await };
                        channel.map_or(Got::Nothing, Got::Channel)
                    });
                    return;
                }
                2 => {
                    self.operations.spawn(async move {
                        drop(connection.close().await);
                        Got::Nothing
                    });
                    return;
                }
                3 => self.connection = None,
                _ => {}
            }
        }
        match kind % 16 {
            4 => drop(self.channels.pop()),
            5 => drop(self.consumers.pop()),
            6 => self.operations.abort_all(),
            7 => _ = self.reads.send_replace(at & 1 == 1),
            8 => self.next(),
            9 => {
                if let Some(delivery) = self.deliveries.pop() {
                    drop(if at & 1 == 1 { delivery.ack() } else { delivery.nack(true) });
                }
            }
            _ => {
                if let Some(channel) = self.channels.get(at % self.channels.len().max(1)).cloned() {
                    self.operations.spawn(on_channel(kind, channel, name(), payload.len() * 40));
                }
            }
        }
    }

    /// The last consumer waits for a delivery.
    fn next(&mut self) {
        if let Some(mut consumer) = self.consumers.pop() {
            self.operations.spawn(async move {
                match consumer.next().await {
                    Some(Ok(delivery)) => Got::Consumer(consumer, Some(delivery)),
                    Some(Err(_)) => Got::Consumer(consumer, None),
                    None => Got::Nothing,
                }
            });
        }
    }

    /// Sends what the client takes, and lets everybody go on; keeps what operations have brought.
    async fn settle(&mut self) {
        for _ in 0..4 {
            if let Some(server) = &mut self.server
                && !self.unsent.is_empty()
            {
                // what does not fit now, does later; an error is that the client has hung up
                let mut write = std::pin::pin!(server.write(&self.unsent));
                let written = std::future::poll_fn(|context| match write.as_mut().poll(context) {
                    std::task::Poll::Ready(written) => std::task::Poll::Ready(written.ok()),
                    std::task::Poll::Pending => std::task::Poll::Ready(Some(0)),
                });
                match written.await {
                    Some(count) => drop(self.unsent.drain(..count)),
                    None => self.unsent.clear(),
                }
            }
            yield_now().await;
        }
        while let Some(ended) = self.operations.try_join_next() {
            self.keep(ended);
        }
    }

    fn keep(&mut self, ended: Result<Got, tokio::task::JoinError>) {
        match ended {
            Ok(Got::Connection(connection)) => self.connection = Some(connection),
            Ok(Got::Channel(channel)) => self.channels.push(channel),
            Ok(Got::Consumer(consumer, delivery)) => {
                self.consumers.push(consumer);
                self.deliveries.extend(delivery);
            }
            Ok(Got::Delivery(delivery)) => self.deliveries.push(delivery),
            Ok(Got::Nothing) => {}
            Err(error) => assert!(error.is_cancelled(), "an operation panicked: {error}"),
        }
    }

    /// The server hangs up.
    async fn end(mut self) {
        self.reads.send_replace(true);
        if let Some(mut server) = self.server.take() {
            drop(server.shutdown().await);
        }
        let all = async {
            while let Some(ended) = self.operations.join_next().await {
                self.keep(ended);
            }
        };
        assert!(timeout(LONG, all).await.is_ok(), "a future does not end");
        let Self { reader, reads, connection, channels, consumers, deliveries, .. } = self;
        drop((reads, connection, channels, consumers, deliveries));
        assert!(
            timeout(LONG, reader).await.is_ok_and(|ended| ended.is_ok()),
            "what the client wrote is wrong, or has no end"
        );
        let gone = async {
            while Handle::current().metrics().num_alive_tasks() > 0 {
                sleep(Duration::from_secs(1)).await;
            }
        };
        assert!(timeout(LONG, gone).await.is_ok(), "a task does not end");
    }
}

async fn on_channel(kind: u8, channel: Channel, name: String, size: usize) -> Got {
    let exchange = channel.default_exchange();
    match kind % 16 {
        10 => drop(exchange.publish(name, Message::new(vec![b'b'; size])).mandatory().await),
        11 => {
            if let Ok(confirm) = exchange.enqueue(name, Message::new(vec![b'b'; size])).await {
                drop(confirm.await);
            }
        }
        12 => {
            if let Ok(queue) = channel.queue(name)
                && let Ok(consumer) = queue.consume().prefetch(u16::from(kind) / 16).await
            {
                return Got::Consumer(consumer, None);
            }
        }
        13 => {
            if let Ok(queue) = channel.queue(name)
                && let Ok(Some(delivery)) = queue.get().await
            {
                return Got::Delivery(delivery);
            }
        }
        14 => drop(channel.declare_queue(name).await),
        _ if kind >= 128 => drop(channel.close().await),
        _ => drop(channel.wait_for_confirms().await),
    }
    Got::Nothing
}

/// The server's reading half: what the client writes must be whole frames within the limit.
async fn swallow(mut read: ReadHalf<DuplexStream>, mut may_read: watch::Receiver<bool>) {
    let (mut input, mut greeted) = (BytesMut::new(), false);
    let cutter = Cutter::agreed(FRAME_MAX);
    loop {
        // the sender is gone: the session is over
        if may_read.wait_for(|may| *may).await.is_err() {
            return;
        }
        if matches!(read.read_buf(&mut input).await, Ok(0) | Err(_)) {
            return;
        }
        if !greeted && input.len() >= PROTOCOL_HEADER.len() {
            assert!(input.starts_with(&PROTOCOL_HEADER));
            input.advance(PROTOCOL_HEADER.len());
            greeted = true;
        }
        if !greeted {
            continue;
        }
        loop {
            let cut = cutter.cut_one(&mut input);
            assert_eq!(cut.fault, None, "a frame that no server takes");
            if cut.frames.frames().next().is_none() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_script_gets_as_far_as_a_delivery() {
        let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/client/consume_and_ack");
        let seed = fs::read(seed).unwrap();
        // without the last step, which acknowledges
        let script = &seed[1..seed.len() - 5];
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut session = Session::begin();
            session.shake_hands();
            session.play(script).await;
            assert!(session.connection.is_some());
            assert_eq!((session.channels.len(), session.consumers.len()), (1, 1));
            assert_eq!(session.deliveries.first().map(Delivery::body), Some(&b"hello"[..]));
            session.end().await;
        });
    }
}
