//! A server that plays a script: a test says what it expects and what it sends, one after the other.
//!
//! Frames are cut and written here by hand, independent of the crate's own code, so that a fault in one
//! does not hide the same fault in the other. Every wait ends after a time in which it must have happened,
//! and then says what did not.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use lepus::protocol::{Arguments, Decoder, Method, MethodId, basic, channel, confirm, connection};
use lepus::{Channel, ConnectOptions, Connection, Consumer, Properties, ShortStr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const HEARTBEAT: u8 = 8;

/// In this time everything must have happened.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server proposes unless a test says otherwise.
pub(crate) const TUNE: connection::Tune =
    connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };

/// Waits for `future`, or panics with what was waited for.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Runs what the client does beside what the server does. Boxed, since scripts are long.
pub(crate) fn both<'a, C: 'a, S: 'a>(
    client: impl IntoFuture<Output = C> + 'a,
    server: impl Future<Output = S> + 'a,
) -> Pin<Box<dyn Future<Output = (C, S)> + 'a>> {
    Box::pin(within("client and server to be done", async { tokio::join!(client.into_future(), server) }))
}

/// A short string.
pub(crate) fn short(text: &str) -> ShortStr {
    text.try_into().unwrap()
}

// Frames.

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_head(kind, channel, u32::try_from(payload.len()).unwrap());
    bytes.extend_from_slice(payload);
    bytes.push(0xCE);
    bytes
}

/// The first seven bytes of a frame.
pub(crate) fn frame_head(kind: u8, channel: u16, size: u32) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&channel.to_be_bytes());
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes
}

fn method_payload<M: Arguments>(method: &M) -> Vec<u8> {
    let MethodId { class, method: id } = M::ID;
    let mut payload = [class.to_be_bytes(), id.to_be_bytes()].concat();
    method.encode(&mut payload);
    payload
}

/// A method frame.
pub(crate) fn method<M: Arguments>(channel: u16, method: &M) -> Vec<u8> {
    frame(METHOD, channel, &method_payload(method))
}

/// A header frame with the flags and properties as they are given.
pub(crate) fn raw_header(channel: u16, class: u16, weight: u16, size: u64, properties: &[u8]) -> Vec<u8> {
    let mut payload = [class.to_be_bytes(), weight.to_be_bytes()].concat();
    payload.extend_from_slice(&size.to_be_bytes());
    payload.extend_from_slice(properties);
    frame(HEADER, channel, &payload)
}

/// The header frame of a message without properties.
pub(crate) fn header(channel: u16, size: u64) -> Vec<u8> {
    raw_header(channel, 60, 0, size, &[0, 0])
}

/// A body frame.
pub(crate) fn body(channel: u16, bytes: &[u8]) -> Vec<u8> {
    frame(BODY, channel, bytes)
}

/// A `basic.deliver` method.
pub(crate) fn deliver(channel: u16, tag: &str, delivery_tag: u64) -> Vec<u8> {
    let deliver = basic::Deliver {
        consumer_tag: short(tag),
        delivery_tag,
        redelivered: false,
        exchange: short("x"),
        routing_key: short("k"),
    };
    method(channel, &deliver)
}

/// Header and, unless it is empty, one body frame.
pub(crate) fn content(channel: u16, bytes: &[u8]) -> Vec<u8> {
    let mut frames = header(channel, bytes.len() as u64);
    if !bytes.is_empty() {
        frames.extend(body(channel, bytes));
    }
    frames
}

/// A whole delivery.
pub(crate) fn delivery(channel: u16, tag: &str, delivery_tag: u64, bytes: &[u8]) -> Vec<u8> {
    [deliver(channel, tag, delivery_tag), content(channel, bytes)].concat()
}

/// A message that comes back to its publisher: method and header with just these properties, and body.
pub(crate) fn returned(channel: u16, routing_key: &str, properties: &Properties, bytes: &[u8]) -> Vec<u8> {
    let method_frame = method(
        channel,
        &basic::Return {
            reply_code: 312,
            reply_text: short("NO_ROUTE"),
            exchange: ShortStr::empty(),
            routing_key: short(routing_key),
        },
    );
    let mut encoded = Vec::new();
    properties.encode(&mut encoded);
    let mut frames = [method_frame, raw_header(channel, 60, 0, bytes.len() as u64, &encoded)].concat();
    if !bytes.is_empty() {
        frames.extend(body(channel, bytes));
    }
    frames
}

/// A message that the client published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub method: basic::Publish,
    pub properties: Properties,
    pub body: Vec<u8>,
    /// The payload sizes of its body frames.
    pub pieces: Vec<usize>,
}

// The server.

/// Where the client connects to.
pub(crate) struct Listener(TcpListener);

impl Listener {
    pub(crate) async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        let port = self.port();
        ConnectOptions::new(&format!("amqp://guest:guest@127.0.0.1:{port}/")).unwrap()
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = within("the client to connect", self.0.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream, dribbles: false }
    }
}

/// One connection, from the server's side.
pub(crate) struct Peer {
    stream: TcpStream,
    /// Whether it writes one byte at a time.
    dribbles: bool,
}

impl Peer {
    /// From now on it writes one byte at a time, and lets the client run in between.
    pub(crate) fn dribble(&mut self) {
        self.dribbles = true;
    }

    // Sending.

    /// Sends bytes as they are, as a rule several frames at once.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        if !self.dribbles {
            return self.stream.write_all(bytes).await.unwrap();
        }
        for byte in bytes.chunks(1) {
            self.stream.write_all(byte).await.unwrap();
            // the runtime asks for news of its sockets before it comes back here
            tokio::task::yield_now().await;
        }
    }

    /// Sends as much of these bytes as the connection takes now, and tells how much that was.
    pub(crate) async fn write_some(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes).await
    }

    /// Sends a method.
    pub(crate) async fn send<M: Arguments>(&mut self, channel: u16, arguments: M) {
        self.write(&method(channel, &arguments)).await;
    }

    /// Ends the connection in its direction; what the client sends can still be read.
    pub(crate) async fn end(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Ends the connection at once, in both directions, with a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    // Receiving.

    /// The next frame, heartbeats included; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        within("a frame", async {
            let mut head = [0; 7];
            match self.stream.read_exact(&mut head).await {
                Ok(_) => {}
                // a socket that is closed before all was read from it resets the connection
                Err(_) => return None,
            }
            let [kind, c1, c2, s1, s2, s3, s4] = head;
            let mut payload = vec![0; u32::from_be_bytes([s1, s2, s3, s4]) as usize];
            self.stream.read_exact(&mut payload).await.expect("the client ends in the middle of a frame");
            assert_eq!(self.stream.read_u8().await.unwrap(), 0xCE, "the end of a frame");
            Some(Frame { kind, channel: u16::from_be_bytes([c1, c2]), payload })
        })
        .await
    }

    /// The next frame that is no heartbeat.
    pub(crate) async fn next(&mut self) -> Frame {
        loop {
            let frame = self.frame().await.expect("a frame; the client ended the connection");
            if frame.kind != HEARTBEAT {
                return frame;
            }
        }
    }

    /// The next frame must be this kind of method, on this channel.
    pub(crate) async fn receive<M: Arguments>(&mut self, channel: u16) -> M {
        let Frame { kind, channel: on, payload } = self.next().await;
        let payload = Bytes::from(payload);
        assert_eq!(
            kind,
            METHOD,
            "waited for {}, got a frame of another kind: {payload:?}",
            Method::name(M::ID)
        );
        let mut input = Decoder::new(&payload, &payload);
        let id = MethodId::new(input.short().unwrap(), input.short().unwrap());
        assert_eq!(
            (on, Method::name(id)),
            (channel, Method::name(M::ID)),
            "another method than expected: {:?}",
            Method::decode(id, &mut input)
        );
        M::decode(&mut input).unwrap()
    }

    /// The next frame must be exactly this method.
    pub(crate) async fn expect<M: Arguments + PartialEq + Debug>(&mut self, channel: u16, arguments: M) {
        assert_eq!(self.receive::<M>(channel).await, arguments);
    }

    /// The next frames must be one published message, whole and contiguous.
    pub(crate) async fn receive_publish(&mut self, channel: u16) -> Published {
        let method = self.receive::<basic::Publish>(channel).await;
        let Frame { kind, channel: on, payload } = self.next().await;
        assert_eq!((kind, on), (HEADER, channel), "a header must follow basic.publish");
        assert_eq!(payload[..4], [0, 60, 0, 0], "class and weight");
        let size = u64::from_be_bytes(payload[4..12].try_into().unwrap());
        let payload = Bytes::from(payload);
        let properties = Properties::decode(&mut Decoder::new(&payload, &payload[12..])).unwrap();
        let (mut body, mut pieces) = (Vec::new(), Vec::new());
        while (body.len() as u64) < size {
            let Frame { kind, channel: on, payload } = self.next().await;
            assert_eq!((kind, on), (BODY, channel), "{} of {size} bytes had come", body.len());
            pieces.push(payload.len());
            body.extend(payload);
        }
        assert_eq!(body.len() as u64, size, "the header announced another size");
        Published { method, properties, body, pieces }
    }

    /// The client must end the connection now, without another frame.
    pub(crate) async fn expect_end(&mut self) {
        let frame = self.frame().await;
        assert_eq!(frame, None, "the client should have ended the connection");
    }

    /// The client must give the connection up: a close with this code, and the end.
    pub(crate) async fn expect_refusal(&mut self, code: u16) -> connection::Close {
        let close = self.receive::<connection::Close>(0).await;
        assert_eq!(close.reply_code, code, "{}", close.reply_text);
        self.expect_end().await;
        close
    }

    // Longer passages.

    /// Reads the eight bytes that a client begins with.
    pub(crate) async fn greet(&mut self) {
        let mut header = [0; 8];
        within("the protocol header", self.stream.read_exact(&mut header)).await.unwrap();
        assert_eq!(&header, b"AMQP\0\0\x09\x01");
    }

    /// The handshake up to start-ok.
    pub(crate) async fn login(&mut self) -> connection::StartOk {
        self.greet().await;
        self.send(0, start("PLAIN AMQPLAIN")).await;
        self.receive(0).await
    }

    /// The whole handshake.
    pub(crate) async fn handshake(&mut self, tune: connection::Tune) -> connection::TuneOk {
        self.login().await;
        self.send(0, tune).await;
        let tune_ok = self.receive(0).await;
        self.expect(0, connection::Open { virtual_host: short("/") }).await;
        self.send(0, connection::OpenOk).await;
        tune_ok
    }

    /// Answers `Connection::channel` on this channel number.
    pub(crate) async fn open_channel(&mut self, channel: u16) {
        self.expect(channel, channel::Open).await;
        self.send(channel, channel::OpenOk).await;
        self.expect(channel, confirm::Select { no_wait: false }).await;
        self.send(channel, confirm::SelectOk).await;
    }

    /// Answers a `Consume` with this tag.
    pub(crate) async fn start_consumer(&mut self, channel: u16, tag: &str) -> basic::Consume {
        let consume = self.receive_consume(channel).await;
        self.send(channel, basic::ConsumeOk { consumer_tag: short(tag) }).await;
        consume
    }

    /// Receives a `Consume` with acks, and answers all but the consume itself.
    pub(crate) async fn receive_consume(&mut self, channel: u16) -> basic::Consume {
        self.receive::<basic::Qos>(channel).await;
        let consume = self.receive::<basic::Consume>(channel).await;
        self.send(channel, basic::QosOk).await;
        consume
    }
}

/// A start method that offers these mechanisms.
pub(crate) fn start(mechanisms: &'static str) -> connection::Start {
    connection::Start {
        version_major: 0,
        version_minor: 9,
        mechanisms: Bytes::from_static(mechanisms.as_bytes()),
        locales: Bytes::from_static(b"en_US"),
        ..connection::Start::default()
    }
}

// Both sides.

/// A connection, with the usual values.
pub(crate) async fn connected() -> (Peer, Connection) {
    connected_with(TUNE, |options| options).await
}

/// A connection, with what the server proposes and the client is told.
pub(crate) async fn connected_with(
    tune: connection::Tune,
    change: impl FnOnce(ConnectOptions) -> ConnectOptions,
) -> (Peer, Connection) {
    let listener = Listener::bind().await;
    let options = change(listener.options());
    let server = async {
        let mut server = listener.accept().await;
        server.handshake(tune).await;
        server
    };
    let (connection, server) = both(options.connect(), server).await;
    (server, connection.unwrap())
}

/// Opens a channel with confirms.
pub(crate) async fn open(server: &mut Peer, connection: &Connection, number: u16) -> Channel {
    let (channel, ()) = both(connection.channel(), server.open_channel(number)).await;
    channel.unwrap()
}

/// A connection with channel 1 open.
pub(crate) async fn with_channel() -> (Peer, Connection, Channel) {
    let (mut server, connection) = connected().await;
    let channel = open(&mut server, &connection, 1).await;
    (server, connection, channel)
}

/// Starts a consumer with acks.
pub(crate) async fn consumer(server: &mut Peer, channel: &Channel, tag: &str) -> Consumer {
    let queue = channel.queue("q").unwrap();
    let (consumer, _) =
        both(queue.consume().tag(tag), server.start_consumer(channel.number().try_into().unwrap(), tag))
            .await;
    consumer.unwrap()
}

/// Starts a consumer without acks.
pub(crate) async fn consumer_without_acks(server: &mut Peer, channel: &Channel, tag: &str) -> Consumer {
    let queue = channel.queue("q").unwrap();
    let (consumer, ()) = both(queue.consume().tag(tag).no_ack(), async {
        server.receive::<basic::Consume>(u16::try_from(channel.number()).unwrap()).await;
        server
            .send(u16::try_from(channel.number()).unwrap(), basic::ConsumeOk { consumer_tag: short(tag) })
            .await;
    })
    .await;
    consumer.unwrap()
}

/// A connection with channel 1 open and consumer `c` on it.
pub(crate) async fn with_consumer() -> (Peer, Connection, Channel, Consumer) {
    let (mut server, connection, channel) = with_channel().await;
    let consumer = consumer(&mut server, &channel, "c").await;
    (server, connection, channel, consumer)
}

/// The client sent nothing but what the script has read so far: the next frame is one that is provoked
/// here. And it goes on working.
pub(crate) async fn nothing_else(server: &mut Peer, channel: &Channel) {
    let qos = basic::Qos { prefetch_size: 0, prefetch_count: 77, global: false };
    let id = u16::try_from(channel.number()).unwrap();
    let server = async {
        server.expect(id, qos).await;
        server.send(id, basic::QosOk).await;
    };
    both(channel.qos(77), server).await.0.unwrap();
}
