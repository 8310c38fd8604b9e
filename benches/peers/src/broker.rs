//! A broker that does nothing: it performs the handshake, agrees with everything, swallows publishes,
//! confirms them with one ack for each read, and sends deliveries that were encoded beforehand.
//!
//! - `queue.declare` is answered with the number of messages that came on the connection so far, so that
//!   a publisher can check that all of its messages were really written.
//! - A consumer of a queue whose name ends in `-<number>` gets bodies of that many bytes, for ever: without
//!   acks in large writes from a thread of its own, with a prefetch limit as acks free it.
//!
//! One thread for each connection, blocking, no client code. What it can do is shown by the floor.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::Result;
use crate::wire::{
    BODY, CHUNK, FRAME_MAX, Fields, HEADER, METHOD, Scanner, put_content, put_long_str, put_method,
    put_short_str,
};

/// Listens, says where, and serves until the standard input ends; with a fixed port for ever.
pub(crate) fn run(port: Option<u16>) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(0)))?;
    println!("{}", listener.local_addr()?.port());
    if port.is_none() {
        thread::spawn(|| {
            // whoever started this has gone
            drop(io::stdin().read_to_end(&mut Vec::new()));
            std::process::exit(0);
        });
    }
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().stack_size(128 << 10).spawn(move || {
            if let Err(error) = Connection::serve(stream) {
                // clients of a time-boxed measurement do not always say good-bye
                if !matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
                    eprintln!("null broker: {error}");
                }
            }
        })?;
    }
    Ok(())
}

struct Connection {
    writer: Arc<Writer>,
    /// Answers that are written at the end of a batch.
    out: Vec<u8>,
    channels: Vec<Channel>,
    /// Messages of all channels.
    published: u32,
    closed: bool,
}

/// The way out, shared with the threads that send deliveries.
struct Writer {
    stream: Mutex<TcpStream>,
    /// An answer waits: deliveries let it pass, which the mutex alone would not see to.
    answers: AtomicBool,
}

#[derive(Default)]
struct Channel {
    confirms: bool,
    published: u64,
    confirmed: u64,
    /// What is still to come of a message.
    missing: u64,
    prefetch: u16,
    consumer: Option<Consumer>,
}

struct Consumer {
    batch: Batch,
    mode: Mode,
}

enum Mode {
    /// Started once consume-ok is written.
    Unlimited {
        stop: Arc<AtomicBool>,
        started: bool,
    },
    Window {
        limit: u64,
        sent: u64,
        acked: u64,
    },
}

/// The same delivery many times over, encoded once; only the delivery tags change.
#[derive(Clone)]
struct Batch {
    bytes: Vec<u8>,
    stride: usize,
    /// Where the delivery tag stands in each.
    tag_at: usize,
}

impl Connection {
    fn serve(mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let writer =
            Arc::new(Writer { stream: Mutex::new(stream.try_clone()?), answers: AtomicBool::new(false) });
        let mut connection =
            Self { writer, out: Vec::new(), channels: Vec::new(), published: 0, closed: false };
        stream.read_exact(&mut [0; 8])?;
        connection.start();
        let mut scanner = Scanner::new();
        let result = connection.converse(&mut stream, &mut scanner);
        connection.channels.iter_mut().for_each(Channel::stop);
        result
    }

    fn converse(&mut self, stream: &mut TcpStream, scanner: &mut Scanner) -> io::Result<()> {
        self.flush()?;
        while !self.closed && scanner.fill(stream)? {
            while let Some(frame) = scanner.next() {
                match frame.kind {
                    METHOD => self.method(frame.channel, Fields(frame.payload)),
                    HEADER => {
                        let mut fields = Fields(frame.payload);
                        fields.long();
                        let size = fields.longlong();
                        self.content(frame.channel, size, 0);
                    }
                    BODY => self.content(frame.channel, 0, frame.size as u64),
                    _ => {}
                }
            }
            self.finish_batch();
            self.flush()?;
            self.start_blasting();
        }
        Ok(())
    }

    fn channel(&mut self, id: u16) -> &mut Channel {
        let at = usize::from(id);
        if self.channels.len() <= at {
            self.channels.resize_with(at + 1, Channel::default);
        }
        // just made sure of
        match self.channels.get_mut(at) {
            Some(channel) => channel,
            None => std::process::abort(),
        }
    }

    /// A part of a message came.
    fn content(&mut self, id: u16, announced: u64, came: u64) {
        let channel = self.channel(id);
        channel.missing = (channel.missing + announced).saturating_sub(came);
        if channel.missing == 0 {
            channel.published += 1;
            self.published = self.published.wrapping_add(1);
        }
    }

    fn reply(&mut self, channel: u16, class: u16, id: u16, arguments: &[u8]) {
        put_method(&mut self.out, channel, class, id, arguments);
    }

    fn start(&mut self) {
        let mut capabilities = Vec::new();
        for name in ["publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked"] {
            put_short_str(&mut capabilities, name.as_bytes());
            capabilities.extend_from_slice(b"t\x01");
        }
        let mut properties = Vec::new();
        put_short_str(&mut properties, b"capabilities");
        properties.push(b'F');
        put_long_str(&mut properties, &capabilities);
        for (name, value) in [("product", "null broker"), ("version", "4.0.0"), ("platform", "none")] {
            put_short_str(&mut properties, name.as_bytes());
            properties.push(b'S');
            put_long_str(&mut properties, value.as_bytes());
        }
        let mut arguments = vec![0, 9];
        put_long_str(&mut arguments, &properties);
        put_long_str(&mut arguments, b"PLAIN AMQPLAIN");
        put_long_str(&mut arguments, b"en_US");
        self.reply(0, 10, 10, &arguments);
    }

    fn method(&mut self, id: u16, mut fields: Fields<'_>) {
        match (fields.short(), fields.short()) {
            // start-ok: tune
            (10, 11) => self.reply(0, 10, 30, &[0x07, 0xff, 0x00, 0x02, 0x00, 0x00, 0x00, 60]),
            (10, 40) => self.reply(0, 10, 41, &[0]),
            (10, 50) => {
                self.channels.iter_mut().for_each(Channel::stop);
                self.reply(0, 10, 51, &[]);
                self.closed = true;
            }
            (20, 10) => {
                *self.channel(id) = Channel::default();
                self.reply(id, 20, 11, &[0; 4]);
            }
            (20, 40) => {
                self.channel(id).stop();
                self.reply(id, 20, 41, &[]);
            }
            (40, 10) => self.reply(id, 40, 11, &[]),
            (40, 20) => self.reply(id, 40, 21, &[]),
            (50, 10) => self.declare(id, fields),
            (50, 20) => self.reply(id, 50, 21, &[]),
            (50, 30) => self.reply(id, 50, 31, &[0; 4]),
            (50, 40) => self.reply(id, 50, 41, &[0; 4]),
            (60, 10) => {
                fields.long();
                self.channel(id).prefetch = fields.short();
                self.reply(id, 60, 11, &[]);
            }
            (60, 20) => self.consume(id, fields),
            (60, 30) => {
                self.channel(id).stop();
                let mut tag = Vec::new();
                put_short_str(&mut tag, fields.short_str());
                self.reply(id, 60, 31, &tag);
            }
            (60, 80 | 90 | 120) => {
                let (tag, multiple) = (fields.longlong(), fields.octet() & 1 != 0);
                self.channel(id).acked(tag, multiple);
            }
            (85, 10) => {
                self.channel(id).confirms = true;
                self.reply(id, 85, 11, &[]);
            }
            // publish: its content counts; tune-ok, close-ok and flow-ok want no answer
            (60, 40) | (10, 31 | 51) | (20, 21 | 41) => {}
            (class, method) => eprintln!("null broker: no answer to method {class}.{method}"),
        }
    }

    fn declare(&mut self, id: u16, mut fields: Fields<'_>) {
        fields.short();
        let name = match fields.short_str() {
            [] => b"amq.gen-peers",
            name => name,
        };
        let mut arguments = Vec::new();
        put_short_str(&mut arguments, name);
        arguments.extend_from_slice(&self.published.to_be_bytes());
        arguments.extend_from_slice(&[0; 4]);
        self.reply(id, 50, 11, &arguments);
    }

    fn consume(&mut self, id: u16, mut fields: Fields<'_>) {
        fields.short();
        let queue = fields.short_str();
        let tag = match fields.short_str() {
            [] => b"amq.ctag-peers",
            tag => tag,
        };
        let no_ack = fields.octet() & 2 != 0;
        let mut arguments = Vec::new();
        put_short_str(&mut arguments, tag);
        self.reply(id, 60, 21, &arguments);
        let channel = self.channel(id);
        let size = queue
            .rsplit(|octet| *octet == b'-')
            .next()
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        if let Some(size) = size {
            let mode = match channel.prefetch {
                limit if !no_ack && limit > 0 => Mode::Window { limit: limit.into(), sent: 0, acked: 0 },
                _ => Mode::Unlimited { stop: Arc::default(), started: false },
            };
            channel.consumer = Some(Consumer { batch: Batch::new(id, tag, queue, size), mode });
        }
    }

    /// Confirms what came, and fills the windows of consumers.
    fn finish_batch(&mut self) {
        let Self { channels, out, .. } = self;
        for (id, channel) in (0_u16..).zip(channels.iter_mut()) {
            if channel.confirms && channel.confirmed < channel.published {
                channel.confirmed = channel.published;
                let mut arguments = [0; 9];
                arguments[..8].copy_from_slice(&channel.published.to_be_bytes());
                arguments[8] = u8::from(true);
                put_method(out, id, 60, 80, &arguments);
            }
            if let Some(Consumer { batch, mode: Mode::Window { limit, sent, acked } }) = &mut channel.consumer
            {
                while *sent < *acked + *limit {
                    let most = (*acked + *limit - *sent).min(batch.count());
                    out.extend_from_slice(batch.number(*sent + 1, most));
                    *sent += most;
                }
            }
        }
    }

    fn start_blasting(&mut self) {
        for channel in &mut self.channels {
            if let Some(Consumer { batch, mode: Mode::Unlimited { stop, started } }) = &mut channel.consumer
                && !std::mem::replace(started, true)
            {
                let (writer, stop, batch) = (Arc::clone(&self.writer), Arc::clone(stop), batch.clone());
                // it ends when it is stopped, or the connection is gone
                thread::spawn(move || blast(&writer, &stop, batch));
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.writer.answers.store(true, Ordering::SeqCst);
            let mut stream = self.writer.lock();
            self.writer.answers.store(false, Ordering::SeqCst);
            stream.write_all(&self.out)?;
            drop(stream);
            self.out.clear();
        }
        Ok(())
    }
}

impl Channel {
    fn acked(&mut self, tag: u64, multiple: bool) {
        if let Some(Consumer { mode: Mode::Window { acked, .. }, .. }) = &mut self.consumer {
            // clients acknowledge in order
            *acked = if multiple { tag.max(*acked) } else { *acked + 1 };
        }
    }

    fn stop(&mut self) {
        if let Some(Consumer { mode: Mode::Unlimited { stop, .. }, .. }) = self.consumer.take() {
            stop.store(true, Ordering::SeqCst);
        }
    }
}

impl Batch {
    fn new(channel: u16, tag: &[u8], queue: &[u8], size: usize) -> Self {
        let mut arguments = Vec::new();
        put_short_str(&mut arguments, tag);
        let tag_at = 7 + 4 + arguments.len();
        arguments.extend_from_slice(&[0; 9]);
        put_short_str(&mut arguments, b"");
        put_short_str(&mut arguments, queue);
        let mut one = Vec::with_capacity(size + FRAME_MAX);
        put_method(&mut one, channel, 60, 60, &arguments);
        put_content(&mut one, channel, &vec![b'x'; size]);
        Self { bytes: one.repeat((CHUNK / one.len()).max(1)), stride: one.len(), tag_at }
    }

    fn count(&self) -> u64 {
        (self.bytes.len() / self.stride) as u64
    }

    /// `count` deliveries, the first of them with this tag.
    fn number(&mut self, first: u64, count: u64) -> &[u8] {
        let length = usize::try_from(count).unwrap_or(0) * self.stride;
        let deliveries = self.bytes.get_mut(..length).unwrap_or_default();
        for (delivery, tag) in deliveries.chunks_exact_mut(self.stride).zip(first..) {
            if let Some(place) = delivery.get_mut(self.tag_at..self.tag_at + 8) {
                place.copy_from_slice(&tag.to_be_bytes());
            }
        }
        deliveries
    }
}

impl Writer {
    fn lock(&self) -> MutexGuard<'_, TcpStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn blast(writer: &Writer, stop: &AtomicBool, mut batch: Batch) {
    let (mut next, count) = (1, batch.count());
    loop {
        let deliveries = batch.number(next, count);
        next += count;
        while writer.answers.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        let mut stream = writer.lock();
        // looked at under the lock: nothing may follow the answer to a cancel
        if stop.load(Ordering::SeqCst) || stream.write_all(deliveries).is_err() {
            return;
        }
    }
}
