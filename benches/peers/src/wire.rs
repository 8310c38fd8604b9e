//! Frames written and scanned by hand: for the null broker and the floor, which must cost next to
//! nothing, and share no code with the client that is measured.

use std::io::{self, Read};

pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const END: u8 = 0xce;
pub(crate) const FRAME_MAX: usize = 131_072;

/// Bytes that are read or written at once.
pub(crate) const CHUNK: usize = 128 << 10;

/// Appends a frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&length(payload.len()).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(END);
}

/// Appends a method frame.
pub(crate) fn put_method(out: &mut Vec<u8>, channel: u16, class: u16, id: u16, arguments: &[u8]) {
    let mut payload = Vec::with_capacity(4 + arguments.len());
    payload.extend_from_slice(&class.to_be_bytes());
    payload.extend_from_slice(&id.to_be_bytes());
    payload.extend_from_slice(arguments);
    put_frame(out, METHOD, channel, &payload);
}

/// Appends a content header with `delivery-mode` 2, and the body in as many frames as it needs.
pub(crate) fn put_content(out: &mut Vec<u8>, channel: u16, body: &[u8]) {
    let mut header = vec![0, 60, 0, 0];
    header.extend_from_slice(&(body.len() as u64).to_be_bytes());
    header.extend_from_slice(&[0x10, 0x00, 2]);
    put_frame(out, HEADER, channel, &header);
    for piece in body.chunks(FRAME_MAX - 8) {
        put_frame(out, BODY, channel, piece);
    }
}

/// Appends a publish to the default exchange.
pub(crate) fn put_publish(out: &mut Vec<u8>, channel: u16, key: &str, body: &[u8]) {
    let mut arguments = vec![0, 0, 0];
    put_short_str(&mut arguments, key.as_bytes());
    arguments.push(0);
    put_method(out, channel, 60, 40, &arguments);
    put_content(out, channel, body);
}

/// Appends a length octet and the text.
pub(crate) fn put_short_str(out: &mut Vec<u8>, text: &[u8]) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text);
}

/// Appends four length octets and the bytes.
pub(crate) fn put_long_str(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&length(bytes.len()).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Takes arguments of a method apart. What is not there reads as nothing.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let Some((bytes, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *bytes
    }

    pub(crate) fn octet(&mut self) -> u8 {
        u8::from_be_bytes(self.bytes())
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes())
    }

    pub(crate) fn long(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes())
    }

    pub(crate) fn longlong(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes())
    }

    pub(crate) fn short_str(&mut self) -> &'a [u8] {
        let length = usize::from(self.octet());
        let Some((text, rest)) = self.0.split_at_checked(length) else { return &[] };
        self.0 = rest;
        text
    }
}

/// A frame; of a body only its size, since nobody looks at it.
pub(crate) struct Frame<'a> {
    pub kind: u8,
    pub channel: u16,
    pub size: usize,
    pub payload: &'a [u8],
}

/// Reads large chunks and finds the frames in them. Bodies are skipped, not gathered.
pub(crate) struct Scanner {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// What is still to come of a body frame.
    skip: usize,
    body: (u16, usize),
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; CHUNK], start: 0, end: 0, skip: 0, body: (0, 0) }
    }

    /// Reads once. False: the peer has ended.
    pub(crate) fn fill(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let count = stream.read(self.buffer.get_mut(self.end..).unwrap_or_default())?;
        self.end += count;
        Ok(count > 0)
    }

    /// The next whole frame of what was read.
    pub(crate) fn next(&mut self) -> Option<Frame<'_>> {
        loop {
            if self.skip > 0 {
                let here = self.skip.min(self.end - self.start);
                self.start += here;
                self.skip -= here;
                if self.skip > 0 {
                    return None;
                }
                let (channel, size) = self.body;
                return Some(Frame { kind: BODY, channel, size, payload: &[] });
            }
            let [kind, c0, c1, s0, s1, s2, s3] =
                *self.buffer.get(self.start..self.end)?.first_chunk::<7>()?;
            let channel = u16::from_be_bytes([c0, c1]);
            let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
            if kind == BODY {
                self.start += 7;
                self.skip = size + 1;
                self.body = (channel, size);
                continue;
            }
            let from = self.start + 7;
            if from + size + 1 > self.end {
                return None;
            }
            self.start = from + size + 1;
            return Some(Frame { kind, channel, size, payload: self.buffer.get(from..from + size)? });
        }
    }
}
