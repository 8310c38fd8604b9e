//! Carries a line out on one of the brokers.

use lepus::protocol::{Arguments, basic, channel, confirm, connection, exchange, queue, tx};
use lepus::{FieldValue, Properties};

use crate::client::short;
use crate::line::Line;
use crate::side::Side;

/// Sends what the line says, and waits for the answer if there is one.
/// `tag` is the delivery that an ack names.
pub(crate) fn perform(side: &mut Side, line: &Line, tag: u64) {
    match line.verb.as_str() {
        "exchange" | "unexchange" | "bind-x" | "unbind-x" => topology_of_exchanges(side, line),
        "declare" | "delete" | "bind" | "unbind" | "purge" => topology_of_queues(side, line),
        "publish" | "reply" => publish(side, line),
        "ack" | "nack" | "reject" | "recover" | "recover-async" => settle(side, line, tag),
        "get" | "consume" | "cancel" | "qos" => consume(side, line),
        "cut" => {
            side.client(line);
            side.cut(line.peer);
        }
        _ => rest(side, line),
    }
}

/// Sends a method, and waits for its answer unless it has none.
fn call<M: Arguments>(side: &mut Side, line: &Line, method: &M) {
    side.client(line).send(line.channel, method);
    if !line.has("no-wait") {
        side.await_reply(line);
    }
}

fn tell<M: Arguments>(side: &mut Side, line: &Line, method: &M) {
    side.client(line).send(line.channel, method);
}

fn topology_of_exchanges(side: &mut Side, line: &Line) {
    let no_wait = line.has("no-wait");
    let (destination, source, routing_key) = (line.name(0), line.name(1), line.name(2));
    let arguments = line.table("");
    match line.verb.as_str() {
        "exchange" => {
            let declare = exchange::Declare {
                exchange: destination,
                kind: source,
                passive: line.has("passive"),
                durable: line.has("durable"),
                auto_delete: line.has("auto-delete"),
                internal: line.has("internal"),
                no_wait,
                arguments,
            };
            call(side, line, &declare);
        }
        "unexchange" => {
            let if_unused = line.has("if-unused");
            call(side, line, &exchange::Delete { exchange: destination, if_unused, no_wait });
        }
        "bind-x" => {
            call(side, line, &exchange::Bind { destination, source, routing_key, no_wait, arguments });
        }
        _ => call(side, line, &exchange::Unbind { destination, source, routing_key, no_wait, arguments }),
    }
}

fn topology_of_queues(side: &mut Side, line: &Line) {
    let no_wait = line.has("no-wait");
    let (queue, exchange, routing_key) = (line.name(0), line.name(1), line.name(2));
    let arguments = line.table("");
    match line.verb.as_str() {
        "declare" => {
            let declare = queue::Declare {
                queue,
                passive: line.has("passive"),
                durable: line.has("durable"),
                exclusive: line.has("exclusive"),
                auto_delete: line.has("auto-delete"),
                no_wait,
                arguments,
            };
            call(side, line, &declare);
        }
        "delete" => {
            let (if_unused, if_empty) = (line.has("if-unused"), line.has("if-empty"));
            call(side, line, &queue::Delete { queue, if_unused, if_empty, no_wait });
        }
        "bind" => call(side, line, &queue::Bind { queue, exchange, routing_key, no_wait, arguments }),
        "unbind" => call(side, line, &queue::Unbind { queue, exchange, routing_key, arguments }),
        _ => call(side, line, &queue::Purge { queue, no_wait }),
    }
}

fn publish(side: &mut Side, line: &Line) {
    let mut publish = basic::Publish {
        exchange: line.name(0),
        routing_key: line.name(1),
        mandatory: line.has("mandatory"),
        immediate: line.has("immediate"),
    };
    if line.verb == "reply" {
        publish.exchange = short("");
        publish.routing_key = side.reply_to.clone().unwrap_or_else(|| short("nobody"));
    }
    let body = line.option("body").unwrap_or_default();
    let properties = properties(line);
    if let Some((last, open)) = side.confirms.get_mut(&(line.peer, line.channel)) {
        *last += 1;
        open.insert(*last);
    }
    let client = side.client(line);
    client.send(line.channel, &publish);
    client.send_content(line.channel, &properties, body.as_bytes());
}

fn properties(line: &Line) -> Properties {
    let octet = |name| line.option(name).and_then(|text| text.as_str()?.parse().ok());
    let mut headers = line.table("h.");
    for name in ["CC", "BCC"] {
        if let Some(keys) = line.list(name) {
            headers.insert(name, keys).unwrap();
        }
    }
    // what is not an array
    if let Some(key) = line.option("CC-as-text") {
        headers.insert("CC", FieldValue::from(&key)).unwrap();
    }
    Properties {
        headers: (!headers.is_empty()).then_some(headers),
        delivery_mode: octet("delivery-mode"),
        priority: octet("priority"),
        correlation_id: line.option("correlation-id"),
        reply_to: line.option("reply-to"),
        expiration: line.option("expiration"),
        message_id: line.option("message-id"),
        user_id: line.option("user-id"),
        content_type: line.option("content-type"),
        ..Properties::default()
    }
}

fn settle(side: &mut Side, line: &Line, tag: u64) {
    let (multiple, requeue) = (line.has("multiple"), line.has("requeue"));
    match line.verb.as_str() {
        "ack" => tell(side, line, &basic::Ack { delivery_tag: tag, multiple }),
        "nack" => tell(side, line, &basic::Nack { delivery_tag: tag, multiple, requeue }),
        "reject" => tell(side, line, &basic::Reject { delivery_tag: tag, requeue }),
        "recover" => call(side, line, &basic::Recover { requeue }),
        _ => tell(side, line, &basic::RecoverAsync { requeue }),
    }
    if line.verb.starts_with("recover") {
        side.unacked.remove(&(line.peer, line.channel));
    }
}

fn consume(side: &mut Side, line: &Line) {
    let (no_ack, no_wait) = (line.has("no-ack"), line.has("no-wait"));
    match line.verb.as_str() {
        "get" => call(side, line, &basic::Get { queue: line.name(0), no_ack }),
        "consume" => {
            // its first delivery may come before this step is over
            side.client(line);
            let key = (line.peer, line.channel, line.name(1));
            if no_ack {
                side.no_ack.insert(key);
            } else {
                side.no_ack.remove(&key);
            }
            let consume = basic::Consume {
                queue: line.name(0),
                consumer_tag: line.name(1),
                no_local: line.has("no-local"),
                no_ack,
                exclusive: line.has("exclusive"),
                no_wait,
                arguments: line.table(""),
            };
            call(side, line, &consume);
        }
        "cancel" => call(side, line, &basic::Cancel { consumer_tag: line.name(0), no_wait }),
        _ => {
            let prefetch_count = u16::try_from(line.number(0)).unwrap();
            let prefetch_size = u32::from(line.has("size"));
            call(side, line, &basic::Qos { prefetch_size, prefetch_count, global: line.has("global") });
        }
    }
}

fn rest(side: &mut Side, line: &Line) {
    let at = (line.peer, line.channel);
    match line.verb.as_str() {
        "confirm.select" => {
            call(side, line, &confirm::Select { no_wait: line.has("no-wait") });
            // a channel with transactions is closed by it
            if side.is_open(line) {
                side.confirms.entry(at).or_default();
            }
        }
        "tx.select" => call(side, line, &tx::Select),
        "tx.commit" => call(side, line, &tx::Commit),
        "tx.rollback" => call(side, line, &tx::Rollback),
        "close" => {
            let close = channel::Close { reply_code: 200, ..channel::Close::default() };
            call(side, line, &close);
        }
        "open" => call(side, line, &channel::Open),
        "flow" => call(side, line, &channel::Flow { active: line.has("active") }),
        "close-connection" => {
            side.client(line).send(0, &connection::Close { reply_code: 200, ..connection::Close::default() });
            side.await_end(line.peer);
        }
        verb => panic!("no such verb: {verb}"),
    }
}
