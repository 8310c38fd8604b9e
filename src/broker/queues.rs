//! The methods of class `queue`.

use crate::codec::generated::queue as wire;
use crate::codec::{FieldTable, FieldValue, ShortStr};

use super::broker_exchange::{BindingKey, Destination};
use super::broker_queue::Queue;
use super::consume::REPLY_TO;
use super::equivalence::{queue_arguments, same_arguments, same_flag};
use super::exchanges::{not_default, not_reserved, one_line};
use super::queue_policy::names_an_exchange;
use super::refusal::{self, Refusal};
use super::settings::{Flags, QueueKind, Settings};
use super::state::{At, State};

impl State {
    pub(super) fn declare_queue(&mut self, at: At, mut declare: wire::Declare) -> Result<(), Refusal> {
        declare.queue = one_line(declare.queue);
        if declare.queue.as_bytes().starts_with(REPLY_TO.as_bytes()) {
            return self.declare_reply_queue(at, declare.queue, declare.no_wait);
        }
        if declare.passive {
            return self.answer_declared(at, declare.queue, declare.no_wait);
        }
        // an exclusive queue goes with its connection, and so is never durable
        declare.durable &= !declare.exclusive;
        let (id, invented, now) = (self.next_id(), self.invent("amq.gen-"), self.now);
        let name = if declare.queue.is_empty() {
            check_type(&declare.arguments)?;
            if is_quorum(&declare.arguments) {
                return Err(Refusal::precondition_failed(format_args!(
                    "Cannot declare a server-named queue for type {}",
                    QueueKind::Quorum.module()
                )));
            }
            invented
        } else {
            not_reserved("queue", &declare.queue)?;
            std::mem::take(&mut declare.queue)
        };
        let vhost = self.vhost(at)?;
        let thing = refusal::queue(&vhost.name, &name);
        if let Some(queue) = vhost.queues.get_mut(&name) {
            if queue.owner.is_some_and(|owner| owner != at.connection)
                || queue.owner.is_some() != declare.exclusive
            {
                return Err(Refusal::locked(&vhost.name, &name));
            }
            same_flag("durable", &thing, declare.durable, queue.durable)?;
            same_flag("auto_delete", &thing, declare.auto_delete, queue.auto_delete)?;
            let names = queue_arguments(queue.settings.kind);
            same_arguments(names, &thing, &declare.arguments, &queue.arguments)?;
        } else {
            names_an_exchange("x-dead-letter-exchange", &thing, &declare.arguments)?;
            let flags = Flags {
                durable: declare.durable,
                exclusive: declare.exclusive,
                auto_delete: declare.auto_delete,
            };
            let settings = Settings::parse(&vhost.name, &name, flags, &declare.arguments)?;
            let mut queue = Queue::new(id, declare.arguments, settings, now);
            queue.durable = declare.durable;
            queue.auto_delete = declare.auto_delete;
            queue.owner = declare.exclusive.then_some(at.connection);
            vhost.queues.insert(name.clone(), queue);
            let place = self.place(at, &name)?;
            self.pump_soon(place);
        }
        self.answer_declared(at, name, declare.no_wait)
    }

    /// The queues of direct replies are there, or not, whatever a declaration says.
    fn declare_reply_queue(&mut self, at: At, queue: ShortStr, no_wait: bool) -> Result<(), Refusal> {
        let found = queue.as_bytes() == REPLY_TO.as_bytes() || self.reply_channel(&queue).is_some();
        if !found {
            return Err(Refusal::no_queue(&self.vhost(at)?.name, &queue));
        }
        let answer = wire::DeclareOk { queue, message_count: 0, consumer_count: 1 };
        self.reply_unless(no_wait, at, &answer)
    }

    fn answer_declared(&mut self, at: At, name: ShortStr, no_wait: bool) -> Result<(), Refusal> {
        let now = self.now;
        let queue = self.vhost(at)?.queue(at.connection, &name)?;
        queue.last_used = now;
        let (id, is_quorum) = (queue.id, queue.is_quorum());
        // of single active consumers a quorum queue counts the active one
        let counted = if is_quorum && queue.settings.single_active { 1 } else { usize::MAX };
        let (messages, consumers) = (queue.depth(), queue.consumers().len().min(counted));
        // in a quorum queue, who has a message counts as a consumer until it is settled
        let consumers = if is_quorum { consumers + self.unsettled(id) } else { consumers };
        let answer = wire::DeclareOk {
            queue: name.clone(),
            message_count: count(messages),
            consumer_count: count(consumers),
        };
        self.channel(at)?.last_queue = Some(name);
        self.reply_unless(no_wait, at, &answer)
    }

    /// An empty name means the queue that was declared last on the channel.
    pub(super) fn named(&mut self, at: At, name: &ShortStr) -> Result<ShortStr, Refusal> {
        if !name.is_empty() {
            return Ok(name.clone());
        }
        let last = self.channel(at)?.last_queue.clone();
        last.ok_or_else(|| Refusal::not_found("no previously declared queue"))
    }

    pub(super) fn bind_queue(&mut self, at: At, mut bind: wire::Bind) -> Result<(), Refusal> {
        bind.queue = one_line(bind.queue);
        bind.exchange = one_line(bind.exchange);
        let name = self.named(at, &bind.queue)?;
        let routing_key = key_or_name(&bind.queue, bind.routing_key, &name);
        not_default(&bind.exchange)?;
        let vhost = self.vhost(at)?;
        vhost.exchange(&bind.exchange)?;
        vhost.queue(at.connection, &name)?;
        let key = BindingKey::new(routing_key, Destination::Queue(name), &bind.arguments);
        vhost.bind(&bind.exchange, key, bind.arguments)?;
        self.reply_unless(bind.no_wait, at, &wire::BindOk)
    }

    pub(super) fn unbind_queue(&mut self, at: At, mut unbind: wire::Unbind) -> Result<(), Refusal> {
        unbind.queue = one_line(unbind.queue);
        unbind.exchange = one_line(unbind.exchange);
        let name = self.named(at, &unbind.queue)?;
        not_default(&unbind.exchange)?;
        if self.vhost(at)?.queues.contains_key(&name) {
            self.vhost(at)?.queue(at.connection, &name)?;
        }
        let routing_key = key_or_name(&unbind.queue, unbind.routing_key, &name);
        self.unbind(at, &unbind.exchange, routing_key, Destination::Queue(name), &unbind.arguments)?;
        self.reply(at, &wire::UnbindOk)
    }

    pub(super) fn purge_queue(&mut self, at: At, purge: &wire::Purge) -> Result<(), Refusal> {
        let name = self.named(at, &purge.queue)?;
        let message_count = count(self.vhost(at)?.queue(at.connection, &name)?.purge());
        self.reply_unless(purge.no_wait, at, &wire::PurgeOk { message_count })
    }

    /// A queue that is not there is deleted already.
    pub(super) fn delete_queue_by(&mut self, at: At, delete: wire::Delete) -> Result<(), Refusal> {
        let name = self.named(at, &one_line(delete.queue))?;
        let vhost = self.vhost(at)?;
        if !vhost.queues.contains_key(&name) {
            return self.reply_unless(delete.no_wait, at, &wire::DeleteOk { message_count: 0 });
        }
        let queue = vhost.queue(at.connection, &name)?;
        let (used, filled) = (!queue.consumers().is_empty(), queue.depth() > 0);
        let is_quorum = queue.is_quorum();
        let thing = refusal::queue(&vhost.name, &name);
        for (asked, flag) in [(delete.if_unused, "if-unused"), (delete.if_empty, "if-empty")] {
            if is_quorum && asked {
                return Err(Refusal::not_implemented(format_args!(
                    "cannot delete {thing}. queue.delete operations with {flag} flag set are not supported by \
                     quorum queues"
                )));
            }
        }
        if delete.if_unused && used {
            return Err(Refusal::precondition_failed(format_args!("{thing} in use")));
        }
        if delete.if_empty && filled {
            return Err(Refusal::precondition_failed(format_args!("{thing} not empty")));
        }
        let place = self.place(at, &name)?;
        let message_count = count(self.delete_queue(&place));
        self.reply_unless(delete.no_wait, at, &wire::DeleteOk { message_count })
    }
}

/// Where neither queue nor key is named, the key is the name of the queue that was declared last.
fn key_or_name(queue: &ShortStr, routing_key: ShortStr, name: &ShortStr) -> ShortStr {
    if queue.is_empty() && routing_key.is_empty() { name.clone() } else { routing_key }
}

/// A queue's type is looked at before the name for it is made up, and then refused in other words.
fn check_type(arguments: &FieldTable) -> Result<(), Refusal> {
    match arguments.get("x-queue-type").and_then(FieldValue::as_str) {
        None | Some("classic" | "quorum" | "stream") => Ok(()),
        Some(other) => Err(Refusal::precondition_failed(format_args!("unknown queue type '{other}'"))),
    }
}

fn is_quorum(arguments: &FieldTable) -> bool {
    arguments.get("x-queue-type").and_then(FieldValue::as_str) == Some("quorum")
}

/// A count as it goes on the wire.
pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
