//! No client at all: frames that were encoded beforehand, on a blocking socket. What this reaches is what
//! the broker and the system allow.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use crate::Result;
use crate::job::{Address, Job};
use crate::measure::{Meter, Sample};
use crate::wire::{
    CHUNK, END, Fields, METHOD, Scanner, put_long_str, put_method, put_publish, put_short_str,
};
use crate::work::{NOWHERE, PREFETCH, QUEUE, WINDOW, Work};

pub(super) fn run(job: &Job) -> Result<Sample> {
    let mut raw = Raw::connect(&job.uri)?;
    match job.work {
        Work::Publish(_) => publish(job, &mut raw),
        Work::Confirm(_) => confirm(job, &mut raw, WINDOW),
        Work::ConfirmEach => confirm(job, &mut raw, 1),
        Work::Consume(_) | Work::ConsumeAck => consume(job, &mut raw),
        Work::Declare => declare(job, &mut raw),
        Work::Both => both(job, &mut raw),
        Work::Tasks | Work::Channels | Work::ConfirmReal | Work::Idle => {
            Err("there is no floor for this".into())
        }
    }
}

/// A connection with one channel open.
pub(crate) struct Raw {
    stream: TcpStream,
    scanner: Scanner,
}

impl Raw {
    pub(crate) fn connect(uri: &str) -> Result<Self> {
        let Address { host, port, user, password, vhost } = Address::parse(uri)?;
        let stream = TcpStream::connect((host.as_str(), port))?;
        stream.set_nodelay(true)?;
        let mut raw = Self { stream, scanner: Scanner::new() };
        raw.stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        raw.expect(10, 10)?;
        let mut start_ok = vec![0; 4];
        put_short_str(&mut start_ok, b"PLAIN");
        put_long_str(&mut start_ok, format!("\0{user}\0{password}").as_bytes());
        put_short_str(&mut start_ok, b"en_US");
        raw.send(0, 10, 11, &start_ok)?;
        raw.expect(10, 30)?;
        // no heartbeats: a measurement does not last
        raw.send(0, 10, 31, &[0x07, 0xff, 0x00, 0x02, 0x00, 0x00, 0, 0])?;
        let mut open = Vec::new();
        put_short_str(&mut open, vhost.as_bytes());
        open.extend_from_slice(&[0, 0]);
        raw.send(0, 10, 40, &open)?;
        raw.expect(10, 41)?;
        raw.call(20, 10, &[0])?;
        Ok(raw)
    }

    fn send(&mut self, channel: u16, class: u16, id: u16, arguments: &[u8]) -> Result<()> {
        let mut out = Vec::new();
        put_method(&mut out, channel, class, id, arguments);
        Ok(self.stream.write_all(&out)?)
    }

    /// Reads until this method comes, and returns its arguments.
    fn expect(&mut self, class: u16, id: u16) -> Result<Vec<u8>> {
        loop {
            while let Some(frame) = self.scanner.next() {
                let mut fields = Fields(frame.payload);
                let came = (frame.kind == METHOD).then(|| (fields.short(), fields.short()));
                match came {
                    Some(came) if came == (class, id) => return Ok(fields.0.to_vec()),
                    Some((10, 50) | (20, 40)) => {
                        fields.short();
                        return Err(String::from_utf8_lossy(fields.short_str()).into());
                    }
                    _ => {}
                }
            }
            if !self.scanner.fill(&mut self.stream)? {
                return Err("the broker went away".into());
            }
        }
    }

    /// A call on the channel; its reply has the next number.
    fn call(&mut self, class: u16, id: u16, arguments: &[u8]) -> Result<Vec<u8>> {
        self.send(1, class, id, arguments)?;
        self.expect(class, id + 1)
    }

    /// Declares a queue, and returns how many messages it has.
    pub(crate) fn declare(&mut self, queue: &str, flags: u8) -> Result<u32> {
        let reply = self.call(50, 10, &declare_arguments(queue, flags))?;
        let mut fields = Fields(&reply);
        fields.short_str();
        Ok(fields.long())
    }

    /// Deletes a queue.
    pub(crate) fn delete(&mut self, queue: &str) -> Result<()> {
        let mut arguments = vec![0, 0];
        put_short_str(&mut arguments, queue.as_bytes());
        arguments.push(0);
        self.call(50, 40, &arguments).map(drop)
    }

    /// Publishes so many messages to a queue, and waits until they are confirmed.
    pub(crate) fn fill(&mut self, queue: &str, size: usize, count: u64) -> Result<()> {
        self.call(85, 10, &[0])?;
        let mut message = Vec::new();
        put_publish(&mut message, 1, queue, &vec![b'x'; size]);
        let mut acks = Acks::default();
        for number in 1..=count {
            self.stream.write_all(&message)?;
            while acks.settled + WINDOW <= number {
                self.settle(&mut acks)?;
            }
        }
        while acks.settled < count {
            self.settle(&mut acks)?;
        }
        Ok(())
    }

    /// Reads once, and looks for acks.
    fn settle(&mut self, acks: &mut Acks) -> Result<()> {
        if !self.scanner.fill(&mut self.stream)? {
            return Err("the broker went away".into());
        }
        while let Some(frame) = self.scanner.next() {
            let mut fields = Fields(frame.payload);
            if frame.kind == METHOD && (fields.short(), fields.short()) == (60, 80) {
                let tag = fields.longlong();
                acks.settled = if fields.octet() & 1 != 0 { acks.settled.max(tag) } else { acks.settled + 1 };
            }
        }
        Ok(())
    }
}

/// How many publishes are settled, as long as single acks come in order.
#[derive(Default)]
struct Acks {
    settled: u64,
}

/// Flags of `queue.declare`.
pub(crate) const DURABLE: u8 = 2;
const EXCLUSIVE: u8 = 4;

fn declare_arguments(queue: &str, flags: u8) -> Vec<u8> {
    let mut arguments = vec![0, 0];
    put_short_str(&mut arguments, queue.as_bytes());
    arguments.push(flags);
    arguments.extend_from_slice(&[0; 4]);
    arguments
}

/// As many publishes as fit into one large write, and their number.
fn publishes(job: &Job, key: &str, most: u64) -> (Vec<u8>, u64) {
    let mut one = Vec::new();
    put_publish(&mut one, 1, key, &vec![b'x'; job.work.size()]);
    let count = (CHUNK / one.len()).clamp(1, usize::try_from(most).unwrap_or(1));
    (one.repeat(count), count as u64)
}

fn publish(job: &Job, raw: &mut Raw) -> Result<Sample> {
    let (bytes, count) = publishes(job, NOWHERE, u64::MAX);
    let mut published = 0;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        raw.stream.write_all(&bytes)?;
        published += count;
    }
    let counted = raw.declare(QUEUE, EXCLUSIVE)?;
    job.checked(meter.stop(published), published, counted)
}

fn confirm(job: &Job, raw: &mut Raw, window: u64) -> Result<Sample> {
    raw.call(85, 10, &[0])?;
    // half a window at once, so that both sides have something to do
    let (bytes, count) = publishes(job, NOWHERE, window.div_ceil(2));
    let mut acks = Acks::default();
    let mut published = 0;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        while published + count > acks.settled + window {
            raw.settle(&mut acks)?;
        }
        raw.stream.write_all(&bytes)?;
        published += count;
    }
    while acks.settled < published {
        raw.settle(&mut acks)?;
    }
    let sample = meter.stop(published);
    job.checked(sample, published, raw.declare(QUEUE, EXCLUSIVE)?)
}

fn start_consumer(raw: &mut Raw, queue: &str, flags: u8) -> Result<()> {
    let mut arguments = vec![0, 0];
    put_short_str(&mut arguments, queue.as_bytes());
    put_short_str(&mut arguments, b"peers");
    arguments.push(flags);
    arguments.extend_from_slice(&[0; 4]);
    raw.call(60, 20, &arguments).map(drop)
}

/// Counts deliveries, and appends an ack for each if `acks` is given.
fn take(raw: &mut Raw, acks: Option<&mut Vec<u8>>) -> u64 {
    let mut tags = acks;
    let mut count = 0;
    while let Some(frame) = raw.scanner.next() {
        let mut fields = Fields(frame.payload);
        if frame.kind == METHOD && (fields.short(), fields.short()) == (60, 60) {
            count += 1;
            if let Some(out) = tags.as_mut() {
                fields.short_str();
                out.extend_from_slice(&[1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80]);
                out.extend_from_slice(&fields.bytes::<8>());
                out.extend_from_slice(&[0, END]);
            }
        }
    }
    count
}

fn consume(job: &Job, raw: &mut Raw) -> Result<Sample> {
    let acks = job.work == Work::ConsumeAck;
    if acks {
        let [high, low] = PREFETCH.to_be_bytes();
        raw.call(60, 10, &[0, 0, 0, 0, high, low, 0])?;
    }
    start_consumer(raw, &job.queue(), if acks { 0 } else { 2 })?;
    let mut out = Vec::new();
    let mut count = take(raw, acks.then_some(&mut out));
    let before = count;
    let meter = Meter::start(job.time);
    while meter.goes_on() && count < job.most() {
        raw.stream.write_all(&out)?;
        out.clear();
        if !raw.scanner.fill(&mut raw.stream)? {
            return Err("the broker went away".into());
        }
        count += take(raw, acks.then_some(&mut out));
    }
    Ok(meter.stop(count - before))
}

fn declare(job: &Job, raw: &mut Raw) -> Result<Sample> {
    let mut question = Vec::new();
    put_method(&mut question, 1, 50, 10, &declare_arguments(QUEUE, EXCLUSIVE));
    let mut count = 0;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        raw.stream.write_all(&question)?;
        raw.expect(50, 11)?;
        count += 1;
    }
    Ok(meter.stop(count))
}

fn both(job: &Job, raw: &mut Raw) -> Result<Sample> {
    start_consumer(raw, &job.queue(), 2)?;
    let (bytes, count) = publishes(job, &job.queue(), u64::MAX);
    let mut writer = raw.stream.try_clone()?;
    let meter = Meter::start(job.time);
    let publishing = thread::spawn(move || -> std::io::Result<u64> {
        let mut published = 0;
        while meter.goes_on() {
            writer.write_all(&bytes)?;
            published += count;
        }
        Ok(published)
    });
    let mut consumed = take(raw, None);
    while meter.goes_on() {
        if !raw.scanner.fill(&mut raw.stream)? {
            return Err("the broker went away".into());
        }
        consumed += take(raw, None);
    }
    let published = publishing.join().map_err(|_| "the publishing thread panicked")??;
    let counted = raw.declare(QUEUE, EXCLUSIVE)?;
    job.checked(meter.stop(published + consumed), published, counted)
}
