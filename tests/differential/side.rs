//! One of the two brokers, with the connections that a run has to it.

use std::collections::{BTreeMap, BTreeSet};

use lepus::protocol::{Method, channel, exchange, queue};
use lepus::{FieldValue, ShortStr};

use crate::client::{Client, Said, short};
use crate::heard::{Heard, properties, reply};
use crate::line::Line;

/// The queues and exchanges that lines speak of.
pub(crate) const QUEUES: [&str; 4] = ["q1", "q2", "q3", "q4"];
pub(crate) const EXCHANGES: [&str; 3] = ["x1", "x2", "x3"];

/// A delivery that waits for its ack.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) tag: u64,
    /// What it was, the same on both brokers; their tags need not be.
    pub(crate) what: String,
}

/// A broker and what goes on there.
#[derive(Debug)]
pub(crate) struct Side {
    url: String,
    prefix: String,
    /// What the server calls itself.
    pub(crate) version: String,
    control: Client,
    peers: BTreeMap<char, Client>,
    /// By connection and channel.
    pub(crate) unacked: BTreeMap<(char, u16), Vec<Delivered>>,
    /// Consumers without acks.
    pub(crate) no_ack: BTreeSet<(char, u16, ShortStr)>,
    /// For channels with confirms: the last number, and those without an answer.
    pub(crate) confirms: BTreeMap<(char, u16), (u64, BTreeSet<u64>)>,
    /// Where the last message that came wants its reply.
    pub(crate) reply_to: Option<ShortStr>,
    /// What has come and was not asked for yet.
    heard: Heard,
}

impl Side {
    pub(crate) fn new(url: &str, prefix: &str) -> Self {
        let (control, server) = Client::connect(url);
        let version = server.get("version").and_then(FieldValue::as_str).unwrap_or_default().to_owned();
        Self {
            url: url.to_owned(),
            prefix: prefix.to_owned(),
            version,
            control,
            peers: BTreeMap::new(),
            unacked: BTreeMap::new(),
            no_ack: BTreeSet::new(),
            confirms: BTreeMap::new(),
            reply_to: None,
            heard: Heard::default(),
        }
    }

    /// The connection of a line, with its channel open.
    pub(crate) fn client(&mut self, line: &Line) -> &mut Client {
        if self.peers.get(&line.peer).is_none_or(|client| client.is_over) {
            self.forget(line.peer);
            self.peers.insert(line.peer, Client::connect(&self.url).0);
        }
        let client = self.peers.get_mut(&line.peer).unwrap();
        if !client.open.contains(&line.channel) {
            client.open(line.channel);
        }
        client
    }

    /// Whether the channel of a line is still open.
    pub(crate) fn is_open(&self, line: &Line) -> bool {
        self.peers
            .get(&line.peer)
            .is_some_and(|client| !client.is_over && client.open.contains(&line.channel))
    }

    /// Cuts a connection without a word.
    pub(crate) fn cut(&mut self, peer: char) {
        self.peers.remove(&peer);
        self.forget(peer);
    }

    fn forget(&mut self, peer: char) {
        for channel in 1..=2 {
            self.forget_channel((peer, channel));
        }
    }

    fn forget_channel(&mut self, at: (char, u16)) {
        self.unacked.remove(&at);
        self.confirms.remove(&at);
        self.no_ack.retain(|(peer, channel, _)| (*peer, *channel) != at);
    }

    /// Reads until the channel of a line has answered, or is no more.
    pub(crate) fn await_reply(&mut self, line: &Line) {
        loop {
            let Some(client) = self.peers.get_mut(&line.peer).filter(|client| !client.is_over) else {
                return;
            };
            let said = client.next();
            let answers = match &said {
                Said::Method(0, _) => false,
                Said::Method(number, method) => {
                    let unasked =
                        matches!(method, Method::BasicAck(_) | Method::BasicNack(_) | Method::BasicCancel(_));
                    *number == line.channel && !unasked
                }
                Said::Content(number, method, ..) => {
                    *number == line.channel && matches!(method, Method::BasicGetOk(_))
                }
                Said::End => true,
            };
            self.hear(line.peer, said);
            if answers {
                return;
            }
        }
    }

    /// Reads until a connection is over.
    pub(crate) fn await_end(&mut self, peer: char) {
        while let Some(client) = self.peers.get_mut(&peer).filter(|client| !client.is_over) {
            let said = client.next();
            self.hear(peer, said);
        }
        self.forget(peer);
    }

    /// Everything that has come since the last [`take`](Self::take), and how the queues are.
    pub(crate) fn look(&mut self) -> Heard {
        for peer in ['a', 'b'] {
            self.round_trip(peer);
        }
        let mut heard = self.heard.clone();
        for name in QUEUES {
            let state = self.depth(name);
            heard.note("queues", state);
        }
        for tags in heard.0.iter_mut().filter(|(name, _)| name.ends_with(" cancels")) {
            tags.1.sort();
        }
        heard
    }

    /// The step is over: what is heard from now on belongs to the next one.
    pub(crate) fn take(&mut self) {
        self.heard = Heard::default();
    }

    /// What was sent to a connection before now has come when this returns.
    fn round_trip(&mut self, peer: char) {
        let Some(client) = self.peers.get_mut(&peer).filter(|client| !client.is_over) else { return };
        let mut awaited = client.open.clone();
        for number in &awaited {
            client.send(*number, &channel::Flow { active: true });
        }
        while !awaited.is_empty() {
            let Some(client) = self.peers.get_mut(&peer).filter(|client| !client.is_over) else { return };
            let said = client.next();
            match &said {
                Said::Method(number, Method::ChannelFlowOk(_)) => {
                    awaited.remove(number);
                    continue;
                }
                Said::Method(number, Method::ChannelClose(_)) => {
                    awaited.remove(number);
                }
                _ => {}
            }
            self.hear(peer, said);
        }
    }

    fn depth(&mut self, name: &str) -> String {
        if self.control.open.is_empty() {
            self.control.open(1);
        }
        let queue = short(&format!("{}{name}", self.prefix));
        self.control.send(1, &queue::Declare { queue, passive: true, ..queue::Declare::default() });
        match self.control.next() {
            Said::Method(_, Method::QueueDeclareOk(ok)) => {
                format!("{name} {} ready {} consumers", ok.message_count, ok.consumer_count)
            }
            Said::Method(_, Method::ChannelClose(close)) => format!("{name} {}", close.reply_code),
            other => panic!("{other:?}"),
        }
    }

    fn hear(&mut self, peer: char, said: Said) {
        match said {
            Said::End => self.heard.note(format!("{peer}"), "the end".into()),
            Said::Method(0, Method::ConnectionClose(close)) => {
                let text = self.plain(&reply(&Method::ConnectionClose(close)));
                self.heard.note(format!("{peer}"), text);
                self.forget(peer);
            }
            Said::Method(0, method) => self.heard.note(format!("{peer}"), reply(&method)),
            Said::Method(number, method) => self.hear_method(peer, number, &method),
            Said::Content(number, method, with, body) => {
                let body = String::from_utf8(body).unwrap();
                if with.reply_to.is_some() {
                    self.reply_to.clone_from(&with.reply_to);
                }
                let text = format!("'{body}'{}", properties(&with));
                self.hear_content(peer, number, &method, &text);
            }
        }
    }

    fn hear_method(&mut self, peer: char, number: u16, method: &Method) {
        let at = (peer, number);
        match method {
            Method::BasicAck(ack) => self.hear_confirm(at, ack.delivery_tag, ack.multiple, "ack"),
            Method::BasicNack(nack) => self.hear_confirm(at, nack.delivery_tag, nack.multiple, "nack"),
            Method::BasicCancel(cancel) => {
                let tag = cancel.consumer_tag.to_string();
                let tag = if tag.starts_with("amq.ctag-") { "amq.ctag-…".into() } else { tag };
                self.heard.note(format!("{peer}{number} cancels"), tag);
            }
            method => {
                if matches!(method, Method::ChannelClose(_) | Method::ChannelCloseOk(_)) {
                    self.forget_channel(at);
                }
                let text = self.plain(&reply(method));
                self.heard.note(format!("{peer}{number}"), text);
            }
        }
    }

    fn hear_content(&mut self, peer: char, number: u16, method: &Method, content: &str) {
        let at = (peer, number);
        let (stream, text, tag) = match method {
            Method::BasicReturn(back) => {
                let text =
                    format!("{} {} {} {}", back.reply_code, back.reply_text, back.exchange, back.routing_key);
                (format!("{peer}{number} returns"), text, None)
            }
            Method::BasicGetOk(got) => {
                let text = format!(
                    "got{} {} {} {}",
                    redelivered(got.redelivered),
                    got.message_count,
                    got.exchange,
                    got.routing_key
                );
                (format!("{peer}{number}"), text, Some((got.delivery_tag, "get".to_owned())))
            }
            Method::BasicDeliver(deliver) => {
                let tag = deliver.consumer_tag.to_string();
                let tag = if tag.starts_with("amq.ctag-") { "amq.ctag-…".into() } else { tag };
                let text = format!(
                    "delivered{} {} {}",
                    redelivered(deliver.redelivered),
                    deliver.exchange,
                    deliver.routing_key
                );
                let is_open = !self.no_ack.contains(&(peer, number, deliver.consumer_tag.clone()));
                let stream = format!("{peer}{number} consumer {tag}");
                (stream, text, is_open.then_some((deliver.delivery_tag, tag)))
            }
            other => panic!("{other:?}"),
        };
        if let Some((tag, source)) = tag {
            // bodies tell messages apart, and have no spaces
            let body = content.split(' ').next().unwrap_or_default();
            let what = format!("{source} {body}");
            self.unacked.entry(at).or_default().push(Delivered { tag, what });
        }
        let text = self.plain(&format!("{text} {content}"));
        self.heard.note(stream, text);
    }

    fn hear_confirm(&mut self, at: (char, u16), tag: u64, multiple: bool, answer: &str) {
        let Some((_, open)) = self.confirms.get_mut(&at) else { return };
        let named: Vec<_> =
            open.iter().copied().filter(|number| *number == tag || multiple && *number < tag).collect();
        for number in named {
            open.remove(&number);
            self.heard.note(format!("{}{} confirms", at.0, at.1), format!("{answer} {number}"));
        }
    }

    /// Without the run's prefix.
    fn plain(&self, text: &str) -> String {
        let text = text.replace(&self.prefix, "");
        without_invented(&without_invented(&text, "amq.gen-"), "amq.rabbitmq.reply-to.")
    }

    /// Removes what the run has left.
    pub(crate) fn clean(mut self) {
        self.peers.clear();
        for (names, is_queue) in [(&QUEUES[..], true), (&EXCHANGES[..], false)] {
            for name in names {
                loop {
                    if self.control.open.is_empty() {
                        self.control.open(1);
                    }
                    let name = short(&format!("{}{name}", self.prefix));
                    if is_queue {
                        self.control.send(1, &queue::Delete { queue: name, ..queue::Delete::default() });
                    } else {
                        self.control
                            .send(1, &exchange::Delete { exchange: name, ..exchange::Delete::default() });
                    }
                    // exclusive queues go soon after their connection, and are locked until then
                    if !matches!(self.control.next(), Said::Method(_, Method::ChannelClose(_))) {
                        break;
                    }
                }
            }
        }
    }
}

fn redelivered(is: bool) -> &'static str {
    if is { " again" } else { "" }
}

/// Without the part of a name that the server has made up.
fn without_invented(text: &str, start: &str) -> String {
    let Some((before, name)) = text.split_once(start) else { return text.to_owned() };
    let after = name.find(|letter: char| !letter.is_alphanumeric() && !"-_=/+.".contains(letter));
    format!("{before}{start}…{}", after.map_or("", |at| &name[at..]))
}
