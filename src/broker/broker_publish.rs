//! Publishing: checks, routing, returns, confirms and transactions.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::generated::{basic as wire, confirm, constants, tx};
use crate::codec::{Arguments, FieldValue, Properties, ShortStr};

use super::broker_channel::{Confirms, Content, Mode, Published, Transaction};
use super::broker_connection::Connection;
use super::broker_message::{Held, Message, keys_in};
use super::consume::REPLY_TO;
use super::queue_policy::time;
use super::refusal::{self, Refusal};
use super::settings::{Overflow, type_name};
use super::state::{At, State};

impl State {
    /// `basic.publish`; its content follows.
    pub(super) fn begin_publish(&mut self, at: At, publish: wire::Publish) -> Result<(), Refusal> {
        if publish.immediate {
            return Err(Refusal::not_implemented("immediate=true"));
        }
        self.channel(at)?.content = Some(Content { publish, header: None });
        Ok(())
    }

    /// A publish is whole.
    pub(super) fn publish(
        &mut self,
        at: At,
        publish: wire::Publish,
        mut properties: Properties,
        body: Bytes,
        held: Held,
    ) -> Result<(), Refusal> {
        self.admit(at, &publish, &mut properties)?;
        let message = Message {
            exchange: publish.exchange,
            routing_key: publish.routing_key,
            copies: keys_in(&properties, "CC"),
            blind_copies: keys_in(&properties, "BCC"),
            properties,
            body,
            deliveries: 0,
            dead: false,
            held,
        };
        let published = self.route(at, message, publish.mandatory)?;
        let confirms = matches!(self.channel(at)?.mode, Mode::Confirm(_));
        let nack = self.faults.nack_next(confirms);
        let number = match &mut self.channel(at)?.mode {
            Mode::Tx(transaction) => {
                transaction.published.push(published);
                return Ok(());
            }
            Mode::Plain => None,
            Mode::Confirm(confirms) => {
                confirms.last += 1;
                Some(confirms.last)
            }
        };
        let taken = !nack && self.enqueue(at, published)?;
        if let Some(number) = number {
            self.decide(at, number, taken)?;
        }
        Ok(())
    }

    /// Refuses what may not be published there, or not like this, and gives a request the address for its reply.
    fn admit(&mut self, at: At, publish: &wire::Publish, properties: &mut Properties) -> Result<(), Refusal> {
        let reply_to = self.channel(at)?.reply_to.clone();
        let user = self.connection(at.connection)?.user.clone();
        let vhost = self.vhost(at)?;
        if !publish.exchange.is_empty() && vhost.exchange(&publish.exchange)?.internal {
            return Err(Refusal::access_refused(format_args!(
                "cannot publish to internal {}",
                refusal::exchange(&vhost.name, &publish.exchange)
            )));
        }
        if properties.reply_to.as_ref().is_some_and(|to| to.as_bytes() == REPLY_TO.as_bytes()) {
            let Some(consumer) = reply_to else {
                return Err(Refusal::precondition_failed("fast reply consumer does not exist"));
            };
            properties.reply_to = Some(consumer.address);
        }
        check_expiration(properties)?;
        check_routing_headers(properties)?;
        if let Some(claimed) = properties.user_id.as_ref().filter(|claimed| **claimed != user) {
            return Err(Refusal::precondition_failed(format_args!(
                "user_id property set to '{claimed}' but authenticated user was '{user}'"
            )));
        }
        Ok(())
    }

    /// Where a message goes: that is decided when it comes, also in a transaction.
    fn route(&mut self, at: At, mut message: Message, mandatory: bool) -> Result<Published, Refusal> {
        let queues = self.vhost(at)?.route(&message);
        if let Some(headers) = &mut message.properties.headers {
            headers.remove("BCC");
        }
        Ok(Published { message, queues, mandatory })
    }

    /// Brings a message into the queues that it is routed to; whether all of them took it.
    fn enqueue(&mut self, at: At, published: Published) -> Result<bool, Refusal> {
        let Published { message, mut queues, mandatory } = published;
        let vhost = self.vhost(at)?;
        let name = Arc::clone(&vhost.name);
        // a transaction may have outlived them
        queues.retain(|queue| vhost.queues.contains_key(queue));
        let direct = message.exchange.is_empty().then(|| self.reply_channel(&message.routing_key)).flatten();
        let is_direct = direct.is_some();
        if let Some((to, consumer)) = direct {
            self.reply_directly(to, consumer.tag, &message)?;
        }
        if queues.is_empty() && !is_direct && mandatory {
            let returned = wire::Return {
                reply_code: constants::NO_ROUTE,
                reply_text: ShortStr::try_from("NO_ROUTE").unwrap_or_default(),
                exchange: message.exchange.clone(),
                routing_key: message.routing_key.clone(),
            };
            let connection = self.connection(at.connection)?;
            connection.put_content(at.channel, &returned, &message.properties, &message.body);
        }
        let message = Arc::new(message);
        let mut taken = true;
        for queue in queues {
            taken &= self.push(&(Arc::clone(&name), queue), &message);
        }
        Ok(taken)
    }

    /// Appends a message to a queue; whether it took it.
    pub(super) fn push(&mut self, place: &(Arc<str>, ShortStr), message: &Arc<Message>) -> bool {
        let now = self.now;
        let Some(queue) = self.queue_at(place) else { return true };
        let refused = queue.refuses(message.size());
        let overflow = queue.settings.overflow;
        if !refused {
            let (was_empty, is_classic) = (queue.depth() == 0, !queue.is_quorum());
            queue.push(Arc::clone(message), now);
            // a consumer that waits gets it whatever its time to live and the queue's limits
            if was_empty {
                self.deliver_one(place, is_classic);
            }
            self.pump_soon(place.clone());
        } else if overflow == Overflow::RejectPublishDlx {
            self.bury_message(place, Arc::clone(message), message.deliveries, "maxlen");
        }
        !refused
    }

    /// Hands a reply to who has asked. It is lost where too much waits to be read: nobody holds it meanwhile.
    fn reply_directly(&mut self, to: At, tag: ShortStr, message: &Message) -> Result<(), Refusal> {
        if !self.connection(to.connection)?.has_room() {
            return Ok(());
        }
        let delivery_tag = self.channel(to)?.next_tag();
        let deliver = wire::Deliver {
            consumer_tag: tag,
            delivery_tag,
            redelivered: false,
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
        };
        self.connection(to.connection)?.put_content(to.channel, &deliver, &message.properties, &message.body);
        Ok(())
    }

    /// Notes a confirm, to be sent with others that the same read brings.
    fn decide(&mut self, at: At, number: u64, taken: bool) -> Result<(), Refusal> {
        let connection = self.connection(at.connection)?;
        if let Some(channel) = connection.channels.get_mut(&at.channel)
            && let Mode::Confirm(confirms) = &mut channel.mode
        {
            if confirms.decided.is_empty() {
                connection.confirming.push(at.channel);
            }
            confirms.decided.push((number, taken));
        }
        Ok(())
    }

    /// Sends the confirms that are decided.
    pub(super) fn flush_confirms(&mut self, id: u64) {
        let Ok(connection) = self.connection(id) else { return };
        for number in std::mem::take(&mut connection.confirming) {
            self.flush_confirms_of(At { connection: id, channel: number });
        }
    }

    /// Sends the confirms of one channel.
    pub(super) fn flush_confirms_of(&mut self, at: At) {
        let Self { connections, faults, .. } = self;
        let Some(connection) = connections.get_mut(&at.connection) else { return };
        let Some(channel) = connection.channels.get_mut(&at.channel) else { return };
        let Mode::Confirm(confirms) = &mut channel.mode else { return };
        let mut answers = Vec::new();
        let mut decided = std::mem::take(&mut confirms.decided);
        if faults.holds_confirms(decided.len()) {
            confirms.decided = decided;
            connection.confirming.push(at.channel);
            return;
        }
        if let Some(count) = faults.take_reversed() {
            let in_order = decided.split_off(count.min(decided.len()));
            for (delivery_tag, taken) in std::mem::replace(&mut decided, in_order).into_iter().rev() {
                answers.push((delivery_tag, taken, false));
            }
        }
        decided.sort_unstable();
        // runs of the same answer as one
        for run in decided.chunk_by(|one, next| one.1 == next.1) {
            if let Some((delivery_tag, taken)) = run.last() {
                answers.push((*delivery_tag, *taken, run.len() > 1));
            }
        }
        for (delivery_tag, taken, multiple) in answers {
            let id = if taken { wire::Ack::ID } else { wire::Nack::ID };
            let put = |connection: &mut Connection| {
                put_confirm(connection, at.channel, delivery_tag, taken, multiple);
            };
            // an error: the connection is gone
            drop(self.reply_with(at, id, put));
        }
    }

    pub(super) fn select_confirms(&mut self, at: At, select: &confirm::Select) -> Result<(), Refusal> {
        let mode = &mut self.channel(at)?.mode;
        match mode {
            Mode::Tx(_) => return Err(Refusal::precondition_failed("cannot switch from tx to confirm mode")),
            Mode::Plain => *mode = Mode::Confirm(Confirms::default()),
            Mode::Confirm(_) => {}
        }
        self.reply_unless(select.no_wait, at, &confirm::SelectOk)
    }

    pub(super) fn select_tx(&mut self, at: At) -> Result<(), Refusal> {
        let mode = &mut self.channel(at)?.mode;
        match mode {
            Mode::Confirm(_) => {
                return Err(Refusal::precondition_failed("cannot switch from confirm to tx mode"));
            }
            Mode::Plain => *mode = Mode::Tx(Transaction::default()),
            Mode::Tx(_) => {}
        }
        self.reply(at, &tx::SelectOk)
    }

    fn end_transaction(&mut self, at: At) -> Result<Transaction, Refusal> {
        match &mut self.channel(at)?.mode {
            Mode::Tx(transaction) => Ok(std::mem::take(transaction)),
            _ => Err(Refusal::precondition_failed("channel is not transactional")),
        }
    }

    pub(super) fn commit(&mut self, at: At) -> Result<(), Refusal> {
        let Transaction { published, settled } = self.end_transaction(at)?;
        let mut taken = true;
        for message in published {
            taken &= self.enqueue(at, message)?;
        }
        for (delivery, how) in settled {
            self.settle_all(at, vec![delivery], how)?;
        }
        if !taken {
            return Err(Refusal::precondition_failed("partial tx completion"));
        }
        self.reply(at, &tx::CommitOk)
    }

    /// Publishes are forgotten; acknowledged deliveries are unacknowledged again.
    pub(super) fn rollback(&mut self, at: At) -> Result<(), Refusal> {
        let Transaction { settled, .. } = self.end_transaction(at)?;
        let again = settled.into_iter().map(|(delivery, _)| (delivery.tag, delivery));
        self.channel(at)?.unacked.extend(again);
        self.reply(at, &tx::RollbackOk)
    }
}

fn put_confirm(connection: &mut Connection, channel: u16, delivery_tag: u64, taken: bool, multiple: bool) {
    if taken {
        connection.put(channel, &wire::Ack { delivery_tag, multiple });
    } else {
        connection.put(channel, &wire::Nack { delivery_tag, multiple, requeue: false });
    }
}

/// A message's time to live must be a number of milliseconds.
fn check_expiration(properties: &Properties) -> Result<(), Refusal> {
    let Some(text) = &properties.expiration else { return Ok(()) };
    let written = text.as_str().unwrap_or_default();
    let after_sign = written.strip_prefix(['+', '-']).unwrap_or(written);
    let digits = after_sign.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = written.split_at(written.len() - after_sign.len() + digits);
    let checked = match number.parse::<i64>() {
        Err(_) => Err("no_integer".to_owned()),
        Ok(_) if !rest.is_empty() => Err(format!("{{leftover_string,\"{rest}\"}}")),
        Ok(number) => time(number),
    };
    let refuse = |reason| Refusal::precondition_failed(format_args!("invalid expiration '{text}': {reason}"));
    checked.map_err(refuse)
}

/// The headers that name more routing keys must be lists.
fn check_routing_headers(properties: &Properties) -> Result<(), Refusal> {
    let Some(headers) = &properties.headers else { return Ok(()) };
    for name in ["CC", "BCC"] {
        match headers.get(name) {
            None | Some(FieldValue::Array(_)) => {}
            Some(other) => {
                return Err(Refusal::precondition_failed(format_args!(
                    "invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}",
                    type_name(other)
                )));
            }
        }
    }
    Ok(())
}
