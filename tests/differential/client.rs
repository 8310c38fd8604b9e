//! A client on a blocking socket: it sends whatever it is told to, and keeps everything that comes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use lepus::protocol::{Arguments, Decoder, Method, MethodId, channel, connection};
use lepus::{FieldTable, FieldValue, Properties, ShortStr};

/// No answer takes nearly as long.
const HANGS: Duration = Duration::from_secs(20);

/// What a broker has said.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment")]
#[derive(Debug)]
pub(crate) enum Said {
    Method(u16, Method),
    Content(u16, Method, Properties, Vec<u8>),
    /// The socket ended.
    End,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    frame_max: u32,
    /// The channels that are open, as far as this side knows.
    pub(crate) open: BTreeSet<u16>,
    /// `connection.close` has come, or the socket has ended.
    pub(crate) is_over: bool,
}

impl Client {
    /// Connects and logs in, and gives what the server says about itself.
    pub(crate) fn connect(url: &str) -> (Self, FieldTable) {
        let (user, password, address, vhost) = parts(url);
        let address = if address.contains(':') { address.to_owned() } else { format!("{address}:5672") };
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(HANGS)).unwrap();
        let mut client = Self { stream, frame_max: 131_072, open: BTreeSet::new(), is_over: false };
        client.write(b"AMQP\0\0\x09\x01");
        let Said::Method(0, Method::ConnectionStart(start)) = client.next() else { panic!("no start") };
        client.send(0, &start_ok(user, password));
        let Said::Method(0, Method::ConnectionTune(tune)) = client.next() else { panic!("no tune") };
        client.frame_max = tune.frame_max;
        let (channel_max, frame_max) = (tune.channel_max, tune.frame_max);
        client.send(0, &connection::TuneOk { channel_max, frame_max, heartbeat: 0 });
        client.send(0, &connection::Open { virtual_host: short(vhost) });
        let Said::Method(0, Method::ConnectionOpenOk(_)) = client.next() else { panic!("no open-ok") };
        (client, start.server_properties)
    }

    /// Opens a channel that nothing was heard of since it was closed.
    pub(crate) fn open(&mut self, number: u16) {
        self.send(number, &channel::Open);
        let Said::Method(_, Method::ChannelOpenOk(_)) = self.next() else { panic!("no open-ok") };
        self.open.insert(number);
    }

    pub(crate) fn send<M: Arguments>(&mut self, channel: u16, method: &M) {
        let MethodId { class, method: id } = M::ID;
        let mut payload = [class.to_be_bytes(), id.to_be_bytes()].concat();
        method.encode(&mut payload);
        self.write(&frame(1, channel, &payload));
    }

    /// Sends the header and the body that follow a `basic.publish`.
    pub(crate) fn send_content(&mut self, channel: u16, properties: &Properties, body: &[u8]) {
        let mut header = [60_u16.to_be_bytes(), 0_u16.to_be_bytes()].concat();
        header.extend((body.len() as u64).to_be_bytes());
        properties.encode(&mut header);
        let mut bytes = frame(2, channel, &header);
        if !body.is_empty() {
            bytes.extend(frame(3, channel, body));
        }
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        // whether the other side still listens shows when it is read
        drop(self.stream.write_all(bytes));
    }

    /// The next method, with its content; closes are answered.
    pub(crate) fn next(&mut self) -> Said {
        loop {
            let Some((kind, number, payload)) = self.frame() else {
                self.is_over = true;
                return Said::End;
            };
            if kind == 8 {
                continue;
            }
            assert_eq!(kind, 1, "a method must come first");
            let mut input = Decoder::new(&payload, &payload);
            let id = MethodId::new(input.short().unwrap(), input.short().unwrap());
            let method = Method::decode(id, &mut input).unwrap();
            match method {
                Method::BasicDeliver(_) | Method::BasicGetOk(_) | Method::BasicReturn(_) => {
                    let (properties, body) = self.content();
                    return Said::Content(number, method, properties, body);
                }
                Method::ChannelClose(_) => {
                    self.send(number, &channel::CloseOk);
                    self.open.remove(&number);
                }
                Method::ChannelCloseOk(_) => {
                    self.open.remove(&number);
                }
                Method::ConnectionClose(_) => {
                    self.send(0, &connection::CloseOk);
                    self.is_over = true;
                }
                Method::ConnectionCloseOk(_) => self.is_over = true,
                _ => {}
            }
            return Said::Method(number, method);
        }
    }

    fn content(&mut self) -> (Properties, Vec<u8>) {
        let (kind, _, payload) = self.frame().unwrap();
        assert_eq!(kind, 2, "a header must follow");
        let size = u64::from_be_bytes(payload[4..12].try_into().unwrap());
        let properties = Properties::decode(&mut Decoder::new(&payload, &payload[12..])).unwrap();
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            let (kind, _, part) = self.frame().unwrap();
            assert_eq!(kind, 3, "a body must follow");
            body.extend_from_slice(&part);
        }
        (properties, body)
    }

    /// The next frame; `None` at the end.
    fn frame(&mut self) -> Option<(u8, u16, Bytes)> {
        let mut head = [0; 7];
        match self.stream.read_exact(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer"),
            Err(_) => return None,
            Ok(()) => {}
        }
        let [kind, c1, c2, s1, s2, s3, s4] = head;
        let size = u32::from_be_bytes([s1, s2, s3, s4]);
        assert!(size <= self.frame_max, "a frame of {size} bytes");
        let mut payload = vec![0; size as usize + 1];
        self.stream.read_exact(&mut payload).ok()?;
        assert_eq!(payload.pop(), Some(0xCE), "the end of a frame");
        Some((kind, u16::from_be_bytes([c1, c2]), payload.into()))
    }
}

fn start_ok(user: &str, password: &str) -> connection::StartOk {
    let (mut capabilities, mut client_properties) = (FieldTable::new(), FieldTable::new());
    for name in ["consumer_cancel_notify", "basic.nack", "publisher_confirms", "authentication_failure_close"]
    {
        capabilities.insert(name, true).unwrap();
    }
    client_properties.insert("capabilities", FieldValue::Table(capabilities)).unwrap();
    connection::StartOk {
        client_properties,
        mechanism: short("PLAIN"),
        response: Bytes::from(format!("\0{user}\0{password}")),
        locale: short("en_US"),
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

/// User, password, address and virtual host.
fn parts(url: &str) -> (&str, &str, &str, &str) {
    let rest = url.strip_prefix("amqp://").expect("a URL that begins with amqp://");
    let (login, rest) = rest.split_once('@').unwrap_or(("guest:guest", rest));
    let (user, password) = login.split_once(':').expect("user:password");
    let (address, vhost) = rest.split_once('/').unwrap_or((rest, ""));
    (user, password, address, if ["", "%2f", "%2F"].contains(&vhost) { "/" } else { vhost })
}

/// A short string.
pub(crate) fn short(text: &str) -> ShortStr {
    text.try_into().unwrap()
}
