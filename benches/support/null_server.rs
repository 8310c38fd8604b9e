//! A server in memory that does next to nothing: it confirms publishes and throws them away, and sends deliveries for as
//! long as somebody reads them.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use lepus::ConnectOptions;
use lepus::bench::{TAG, deliveries};
use lepus::protocol::{Frame, Method, PROTOCOL_HEADER, basic, channel, confirm, connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Deliveries that are written at once.
const DELIVERIES: u64 = 500;

/// How much fits between the two.
const BUFFER: usize = 256 << 10;

/// Kind, channel and size of a frame.
const HEAD: usize = 7;
const PUBLISH: [u8; 4] = [0, 60, 0, 40];

/// Options to connect to a server of one's own. Its task is on the runtime that connects.
pub(crate) fn options() -> lepus::Result<ConnectOptions> {
    let options = ConnectOptions::new("amqp://guest:guest@null")?;
    Ok(options.connector(|_, _| async {
        let (client, server) = tokio::io::duplex(BUFFER);
        // it ends with the client
        tokio::spawn(async move { Server::default().serve(server).await });
        Ok(client)
    }))
}

#[derive(Default)]
struct Server {
    input: BytesMut,
    output: Vec<u8>,
    published: u64,
    acked: u64,
    consumed: bool,
}

impl Server {
    async fn serve(mut self, mut stream: DuplexStream) -> io::Result<()> {
        stream.read_exact(&mut [0; PROTOCOL_HEADER.len()]).await?;
        let mechanisms = Bytes::from_static(b"PLAIN");
        let locales = Bytes::from_static(b"en_US");
        let start = connection::Start { version_minor: 9, mechanisms, locales, ..Default::default() };
        self.say(0, start)?;
        loop {
            stream.write_all(&self.output).await?;
            self.output.clear();
            if self.consumed {
                return send_deliveries(stream).await;
            }
            if stream.read_buf(&mut self.input).await? == 0 {
                return Ok(());
            }
            self.read_frames()?;
        }
    }

    fn read_frames(&mut self) -> io::Result<()> {
        while let Some([kind, high, low, size @ ..]) = self.input.first_chunk::<HEAD>() {
            let (kind, channel, size) = (*kind, u16::from_be_bytes([*high, *low]), u32::from_be_bytes(*size));
            let size = HEAD + size as usize + 1;
            if self.input.len() < size {
                break;
            }
            if kind == 1 {
                self.read_method(channel)?;
            }
            self.input.advance(size);
        }
        if self.published > self.acked {
            self.acked = self.published;
            self.say(1, basic::Ack { delivery_tag: self.acked, multiple: true })?;
        }
        Ok(())
    }

    fn read_method(&mut self, channel: u16) -> io::Result<()> {
        let Some(id) = self.input.get(HEAD..HEAD + PUBLISH.len()) else { return Ok(()) };
        if id == PUBLISH {
            self.published += 1;
            return Ok(());
        }
        match id {
            [0, 10, 0, 11] => {
                let tune = connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
                self.say(channel, tune)
            }
            [0, 10, 0, 40] => self.say(channel, connection::OpenOk),
            [0, 10, 0, 50] => self.say(channel, connection::CloseOk),
            [0, 20, 0, 10] => self.say(channel, channel::OpenOk),
            [0, 20, 0, 40] => self.say(channel, channel::CloseOk),
            [0, 60, 0, 20] => {
                self.consumed = true;
                let consumer_tag = TAG.try_into().map_err(io::Error::other)?;
                self.say(channel, basic::ConsumeOk { consumer_tag })
            }
            [0, 60, 0, 10] => self.say(channel, basic::QosOk),
            [0, 85, 0, 10] => self.say(channel, confirm::SelectOk),
            _ => Ok(()),
        }
    }

    fn say(&mut self, channel: u16, method: impl Into<Method>) -> io::Result<()> {
        Frame::method(channel, &method.into()).encode(&mut self.output).map_err(io::Error::other)
    }
}

/// Until nobody reads any more.
async fn send_deliveries(mut stream: DuplexStream) -> io::Result<()> {
    let chunk = deliveries(DELIVERIES, 16).map_err(io::Error::other)?;
    loop {
        stream.write_all(&chunk).await?;
    }
}
