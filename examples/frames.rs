//! Prints AMQP sessions as readable frames: its own, a capture's, or one that passes through it.
//!
//! ```text
//! cargo run --example frames
//! cargo run --example frames -- capture.bin
//! cargo run --example frames -- --listen 5673 --broker 127.0.0.1:5672
//! ```

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::{env, error, fmt, fs};

use bytes::{Buf, BytesMut};
use lepus::broker::Broker;
use lepus::protocol::{ContentHeader, Frame, FrameCutter, Method, PROTOCOL_HEADER, Payload};
use lepus::{Message, Properties};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const USAGE: &str = "\
Usage: frames
       frames FILE
       frames --listen PORT [--broker HOST:PORT]

Prints each frame of AMQP sessions on a line: who sent it, its channel, and what it holds. Of bodies and secrets only the
size is shown.

Without arguments it makes a small session with an embedded broker and prints that.

  FILE                  a capture: the bytes of one direction, as they were sent; - is the standard input
  --listen PORT         passes what comes to this port of 127.0.0.1 on to a broker, and prints both directions
  --broker HOST:PORT    the broker to pass it on to; 127.0.0.1:5672 unless given
  --help                shows this";

type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

/// What to print.
#[derive(Debug)]
enum Source {
    Own,
    Capture(String),
    Proxy { port: u16, broker: String },
}

#[tokio::main]
async fn main() -> ExitCode {
    let source = match parse(env::args().skip(1)) {
        Ok(Some(source)) => source,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("frames: {mistake}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match source {
        Source::Own => own_session().await,
        Source::Capture(file) => capture(&file),
        Source::Proxy { port, broker } => proxy(port, &broker).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frames: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A client publishes a message and gets it back, through a proxy.
async fn own_session() -> Result<()> {
    let broker = Broker::start().await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("amqp://guest:guest@{}/", listener.local_addr()?);
    let address = broker.address().ok_or("the broker has no port")?.to_string();
    let passed = tokio::spawn(async move {
        let (client, _) = listener.accept().await?;
        pass(client, &address).await
    });

    let connection = lepus::connect(&url).await?;
    let channel = connection.channel().await?;
    let queue = channel.declare_queue("").await?;
    let message = Message::new("hello").content_type("text/plain");
    channel.default_exchange().publish(queue.name(), message).await?;
    if let Some(delivery) = queue.get().await? {
        delivery.ack()?;
    }
    connection.close().await?;
    passed.await?
}

/// Prints the frames of one direction that was recorded.
fn capture(file: &str) -> Result<()> {
    let mut bytes = Vec::new();
    match file {
        "-" => io::stdin().read_to_end(&mut bytes)?,
        file => fs::File::open(file)?.read_to_end(&mut bytes)?,
    };
    let mut direction = Direction::new("sent");
    direction.print(&bytes)?;
    if direction.input.is_empty() { Ok(()) } else { Err("the capture ends within a frame".into()) }
}

/// Passes connections on to a broker for ever.
async fn proxy(port: u16, broker: &str) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept().await?;
        let broker = broker.to_owned();
        tokio::spawn(async move {
            if let Err(error) = pass(client, &broker).await {
                eprintln!("frames: {error}");
            }
        });
    }
}

/// Passes one connection on, both ways.
async fn pass(client: TcpStream, broker: &str) -> Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = TcpStream::connect(broker).await?.into_split();
    tokio::try_join!(
        one_way(Direction::new("client"), from_client, to_broker),
        one_way(Direction::new("server"), from_broker, to_client),
    )?;
    Ok(())
}

/// Prints before it passes on, so that the answer is never printed first.
async fn one_way(mut direction: Direction, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<()> {
    let mut read = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut read).await?;
        if count == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        let bytes = read.get(..count).unwrap_or_default();
        direction.print(bytes)?;
        to.write_all(bytes).await?;
    }
}

/// One direction of a connection.
struct Direction {
    sender: &'static str,
    input: BytesMut,
    cutter: FrameCutter,
    /// Whether the protocol header, if there is one, has gone by.
    begun: bool,
}

impl Direction {
    fn new(sender: &'static str) -> Self {
        Self { sender, input: BytesMut::new(), cutter: FrameCutter::before_tune(), begun: false }
    }

    /// Prints the frames that these bytes complete.
    fn print(&mut self, bytes: &[u8]) -> Result<()> {
        self.input.extend_from_slice(bytes);
        let mut out = io::stdout().lock();
        if !self.begun {
            let Some(first) = self.input.first_chunk::<{ PROTOCOL_HEADER.len() }>() else { return Ok(()) };
            if let [b'A', b'M', b'Q', b'P', _, major, minor, revision] = first {
                writeln!(out, "{} AMQP {major}-{minor}-{revision}", self.sender)?;
                self.input.advance(PROTOCOL_HEADER.len());
            }
            self.begun = true;
        }
        while let Some(frame) = self.cutter.cut(&mut self.input)? {
            let payload = frame.decode();
            // tune-ok is what holds, but one direction alone shows only what its side says
            if let Ok(Payload::Method(method)) = &payload
                && let Some(frame_max) = frame_max(method)
            {
                self.cutter = FrameCutter::new(frame_max);
            }
            writeln!(out, "{} {}", self.sender, Line(&frame, payload))?;
        }
        Ok(())
    }
}

fn frame_max(method: &Method) -> Option<u32> {
    match method {
        Method::ConnectionTune(tune) => Some(tune.frame_max),
        Method::ConnectionTuneOk(tune) => Some(tune.frame_max),
        _ => None,
    }
}

/// A frame as text.
struct Line<'a>(&'a Frame, std::result::Result<Payload, lepus::protocol::DecodeError>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(frame, payload) = self;
        write!(f, "{} ", frame.channel)?;
        match payload {
            Ok(Payload::Method(method)) => write_method(f, method),
            Ok(Payload::Header(header)) => write_header(f, header),
            Ok(Payload::Body(piece)) => write!(f, "body {} bytes", piece.len()),
            Ok(Payload::Heartbeat) => f.write_str("heartbeat"),
            Err(error) => write!(f, "{:?} of {} bytes: {error}", frame.kind, frame.payload.len()),
        }
    }
}

fn write_method(f: &mut fmt::Formatter<'_>, method: &Method) -> fmt::Result {
    f.write_str(Method::name(method.id()))?;
    match method {
        Method::ConnectionStartOk(start) => {
            write!(f, " {{ mechanism: {:?}, response: {} bytes }}", start.mechanism, start.response.len())
        }
        Method::ConnectionSecureOk(secure) => write!(f, " {{ response: {} bytes }}", secure.response.len()),
        Method::ConnectionUpdateSecret(update) => {
            write!(f, " {{ new_secret: {} bytes }}", update.new_secret.len())
        }
        method => {
            // QueueDeclare(Declare { .. }): the name is there already
            let text = format!("{method:?}");
            let arguments = text.find('{').and_then(|at| text.get(at..text.len() - 1));
            arguments.map_or(Ok(()), |arguments| write!(f, " {arguments}"))
        }
    }
}

fn write_header(f: &mut fmt::Formatter<'_>, header: &ContentHeader) -> fmt::Result {
    let Properties {
        content_type,
        content_encoding,
        headers,
        delivery_mode,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp,
        kind,
        user_id,
        app_id,
        cluster_id,
    } = &header.properties;
    write!(f, "header of {} bytes", header.body_size)?;
    let names = [
        ("content_type", content_type),
        ("content_encoding", content_encoding),
        ("correlation_id", correlation_id),
        ("reply_to", reply_to),
        ("expiration", expiration),
        ("message_id", message_id),
        ("type", kind),
        ("user_id", user_id),
        ("app_id", app_id),
        ("cluster_id", cluster_id),
    ];
    for (name, value) in names {
        value.iter().try_for_each(|value| write!(f, ", {name}: {value:?}"))?;
    }
    headers.iter().try_for_each(|value| write!(f, ", headers: {value:?}"))?;
    delivery_mode.iter().try_for_each(|value| write!(f, ", delivery_mode: {value}"))?;
    priority.iter().try_for_each(|value| write!(f, ", priority: {value}"))?;
    timestamp.iter().try_for_each(|value| write!(f, ", timestamp: {}", value.0))
}

/// What to do. `None`: the user asks for help.
fn parse(mut arguments: impl Iterator<Item = String>) -> std::result::Result<Option<Source>, String> {
    let (mut port, mut broker, mut file) = (None, None, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--listen" => {
                let text = value()?;
                port = Some(text.parse().map_err(|_| format!("not a port: {text}"))?);
            }
            "--broker" => broker = Some(value()?),
            option if option.starts_with("--") => return Err(format!("unknown option {option}")),
            _ if file.is_none() => file = Some(argument),
            _ => return Err("only one file".into()),
        }
    }
    match (port, broker, file) {
        (None, None, None) => Ok(Some(Source::Own)),
        (None, None, Some(file)) => Ok(Some(Source::Capture(file))),
        (Some(port), broker, None) => {
            Ok(Some(Source::Proxy { port, broker: broker.unwrap_or_else(|| "127.0.0.1:5672".into()) }))
        }
        _ => Err("a file, or --listen with or without --broker".into()),
    }
}
