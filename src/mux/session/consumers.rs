//! Consumers of a channel: starting and cancelling them, by either side.

use super::{Event, Refusal, Session};
use crate::codec::frame::put_method;
use crate::codec::generated::basic;
use crate::codec::{Arguments, ShortStr};
use crate::mux::Waiters;
use crate::mux::channel_state::{Expect, Open, Pending};
use crate::mux::ids::ChannelKey;

impl<X: Waiters> Session<X> {
    /// Sends `basic.consume`.
    pub(crate) fn consume(
        &mut self,
        key: ChannelKey,
        method: &basic::Consume,
        mut pending: Pending<X>,
    ) -> Result<(), Refusal> {
        let tag = &method.consumer_tag;
        pending.expect.tag = (!tag.is_empty()).then(|| tag.clone());
        if !tag.is_empty() && self.open(key)?.consumers.contains_key(tag) {
            return Err(Refusal::TagInUse);
        }
        let consumer = pending.consumer.clone().filter(|_| !tag.is_empty());
        self.call(key, method, pending)?;
        if let Some(consumer) = consumer {
            self.open(key)?.consumers.insert(tag.clone(), consumer);
        }
        Ok(())
    }

    /// Sends `basic.cancel`, unless the consumer is being cancelled already. Its tag can be used again at once: the
    /// cancel is ahead on the wire.
    ///
    /// Gives the waiter back if there is nothing to wait for.
    pub(crate) fn cancel(
        &mut self,
        key: ChannelKey,
        tag: &ShortStr,
        consumer: &X::Consumer,
        waiter: Option<X::Reply>,
    ) -> Result<Option<X::Reply>, Refusal> {
        let open = self.open(key)?;
        if open.consumers.get(tag).is_some_and(|known| X::is_same(known, consumer)) {
            let method = basic::Cancel { consumer_tag: tag.clone(), no_wait: false };
            self.call(key, &method, Pending::cancel(tag.clone(), consumer.clone(), waiter))?;
            self.open(key)?.consumers.remove(tag);
            return Ok(None);
        }
        let under_way = open.pending.iter_mut().find(|pending| {
            pending.expect.reply == basic::CancelOk::ID
                && pending.consumer.as_ref().is_some_and(|other| X::is_same(other, consumer))
        });
        match under_way {
            Some(pending) if pending.waiter.is_none() => {
                pending.waiter = waiter;
                Ok(None)
            }
            _ => Ok(waiter),
        }
    }

    /// Sends `basic.qos`, whose answer nobody waits for, and `basic.consume`; or neither of them.
    pub(crate) fn consume_with(
        &mut self,
        key: ChannelKey,
        qos: &basic::Qos,
        method: &basic::Consume,
        pending: Pending<X>,
    ) -> Result<(), Refusal> {
        let before = self.out.mark(key.id.get());
        let unheard = Pending { expect: Expect::only(basic::QosOk::ID), waiter: None, consumer: None };
        self.call(key, qos, unheard)?;
        let consumed = self.consume(key, method, pending);
        if consumed.is_err() {
            self.out.rewind(key.id.get(), before);
            drop(self.open(key)?.pending.pop_back());
        }
        consumed
    }
}

/// Handles the server's cancel of a consumer.
///
/// Since `RabbitMQ` 4.3 a consumer that was cancelled for its timeout is kept, and goes on taking messages, until the
/// client says that it is gone. `cancel-ok` says so only there: older nodes close the connection for it. Our own
/// `basic.cancel` says it everywhere.
pub(super) fn cancelled<X: Waiters>(
    id: u16,
    open: &mut Open<X>,
    out: &mut Vec<u8>,
    cancel: basic::Cancel,
) -> Event<X> {
    let tag = cancel.consumer_tag;
    if !cancel.no_wait {
        // RabbitMQ never asks for an answer; by the protocol's text a server may
        put_method(out, id, &basic::CancelOk { consumer_tag: tag.clone() });
    }
    // it crosses our own cancel, whose answer is on its way
    if open.cancelling(&tag).is_some() {
        return Event::Nothing;
    }
    let Some(consumer) = open.consumers.remove(&tag) else { return Event::Nothing };
    put_method(out, id, &basic::Cancel { consumer_tag: tag.clone(), no_wait: false });
    open.pending.push_back(Pending::cancel(tag.clone(), consumer.clone(), None));
    Event::Cancelled { id, tag, consumer }
}
