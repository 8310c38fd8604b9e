//! What is done with each method: is it recorded, may it be sent twice, does it name a queue that may have been renamed.

use std::any::Any;

use super::topology::Topology;
use crate::codec::ShortStr;
use crate::protocol::{Method, Request, exchange, queue};

/// Records what the server has agreed to. `reply` is `None` for a request without one.
///
/// Whoever declares it again wants an answer, so `no_wait` is not recorded.
pub(in crate::robust) fn record(topology: &mut Topology, request: Method, reply: Option<&dyn Any>) {
    if !policy(&request).recorded {
        return;
    }
    match request {
        Method::ExchangeDeclare(mut declare) => {
            declare.no_wait = false;
            topology.declare_exchange(declare);
        }
        Method::QueueDeclare(mut declare) => {
            declare.no_wait = false;
            let told = reply.and_then(|reply| reply.downcast_ref::<queue::DeclareOk>());
            let name = told.map_or_else(|| declare.queue.clone(), |ok| ok.queue.detach());
            topology.declare_queue(declare, name);
        }
        Method::ExchangeBind(bind) => topology.bind_exchange(exchange::Bind { no_wait: false, ..bind }),
        Method::QueueBind(bind) => topology.bind_queue(queue::Bind { no_wait: false, ..bind }),
        Method::ExchangeUnbind(unbind) => topology.unbind_exchange(&unbind),
        Method::QueueUnbind(unbind) => topology.unbind_queue(&unbind),
        Method::ExchangeDelete(delete) => topology.delete_exchange(&delete.exchange),
        Method::QueueDelete(delete) => topology.delete_queue(&delete.queue),
        _ => {}
    }
}

/// An exchange or a queue that a method is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    Exchange(&'a ShortStr),
    Queue(&'a ShortStr),
}

/// What a method changes, if it is [recorded](record).
pub(super) fn subjects(method: &Method) -> impl Iterator<Item = Subject<'_>> {
    use Subject::{Exchange, Queue};
    let (one, other) = match method {
        Method::ExchangeDeclare(declare) => (Some(Exchange(&declare.exchange)), None),
        Method::ExchangeDelete(delete) => (Some(Exchange(&delete.exchange)), None),
        Method::ExchangeBind(bind) => (Some(Exchange(&bind.destination)), Some(Exchange(&bind.source))),
        Method::ExchangeUnbind(unbind) => {
            (Some(Exchange(&unbind.destination)), Some(Exchange(&unbind.source)))
        }
        Method::QueueDeclare(declare) => (Some(Queue(&declare.queue)), None),
        Method::QueueDelete(delete) => (Some(Queue(&delete.queue)), None),
        Method::QueueBind(bind) => (Some(Queue(&bind.queue)), Some(Exchange(&bind.exchange))),
        Method::QueueUnbind(unbind) => (Some(Queue(&unbind.queue)), Some(Exchange(&unbind.exchange))),
        // not recorded
        _ => (None, None),
    };
    let is_recorded = policy(method).recorded;
    one.into_iter().chain(other).filter(move |_| is_recorded)
}

/// What the robust layer does with a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::robust) struct Policy {
    /// Whether [`record`] changes the topology by it.
    pub recorded: bool,
    /// Whether it may be sent again when its answer was lost: whatever became of the first, the result is the same.
    pub repeated: bool,
    /// Whether it names a queue that exists, and may have another name by now.
    pub renamed: bool,
}

/// Changes the topology, to the same if it is sent twice.
const RECORDED: Policy = Policy { recorded: true, repeated: true, renamed: false };
/// The same of a queue that exists.
const OF_QUEUE: Policy = Policy { renamed: true, ..RECORDED };
/// Changes nothing that is recorded; may be sent twice.
const HARMLESS: Policy = Policy { recorded: false, repeated: true, renamed: false };
/// Is sent once, or not by users.
const ONCE: Policy = Policy { recorded: false, repeated: false, renamed: false };

/// The policy of each method. A new method does not compile before it is decided here.
pub(in crate::robust) fn policy(method: &Method) -> Policy {
    match method {
        Method::ExchangeDeclare(declare) => Policy { recorded: !declare.passive, ..RECORDED },
        // a passive one asks for a queue by its name
        Method::QueueDeclare(declare) => {
            Policy { recorded: !declare.passive, renamed: declare.passive, ..RECORDED }
        }
        Method::ExchangeDelete(_) | Method::ExchangeBind(_) | Method::ExchangeUnbind(_) => RECORDED,
        Method::QueueDelete(_) | Method::QueueBind(_) | Method::QueueUnbind(_) => OF_QUEUE,
        Method::QueuePurge(_) => Policy { renamed: true, ..HARMLESS },
        Method::BasicQos(_) | Method::BasicRecover(_) => HARMLESS,
        // the consumer's own part of the ledger records those
        Method::BasicConsume(_)
        | Method::BasicCancel(_)
        // a message that was taken without acks is gone
        | Method::BasicGet(_)
        | Method::BasicPublish(_)
        | Method::BasicAck(_)
        | Method::BasicNack(_)
        | Method::BasicReject(_)
        | Method::BasicRecoverAsync(_)
        | Method::AccessRequest(_)
        | Method::ChannelFlow(_)
        | Method::ConfirmSelect(_)
        | Method::TxSelect(_)
        | Method::TxCommit(_)
        | Method::TxRollback(_)
        // the single connection's own
        | Method::ConnectionStart(_)
        | Method::ConnectionStartOk(_)
        | Method::ConnectionSecure(_)
        | Method::ConnectionSecureOk(_)
        | Method::ConnectionTune(_)
        | Method::ConnectionTuneOk(_)
        | Method::ConnectionOpen(_)
        | Method::ConnectionOpenOk(_)
        | Method::ConnectionClose(_)
        | Method::ConnectionCloseOk(_)
        | Method::ConnectionBlocked(_)
        | Method::ConnectionUnblocked(_)
        | Method::ConnectionUpdateSecret(_)
        | Method::ConnectionUpdateSecretOk(_)
        | Method::ChannelOpen(_)
        | Method::ChannelOpenOk(_)
        | Method::ChannelClose(_)
        | Method::ChannelCloseOk(_)
        // what the server sends
        | Method::AccessRequestOk(_)
        | Method::ChannelFlowOk(_)
        | Method::ExchangeDeclareOk(_)
        | Method::ExchangeDeleteOk(_)
        | Method::ExchangeBindOk(_)
        | Method::ExchangeUnbindOk(_)
        | Method::QueueDeclareOk(_)
        | Method::QueueDeleteOk(_)
        | Method::QueueBindOk(_)
        | Method::QueueUnbindOk(_)
        | Method::QueuePurgeOk(_)
        | Method::BasicQosOk(_)
        | Method::BasicConsumeOk(_)
        | Method::BasicCancelOk(_)
        | Method::BasicReturn(_)
        | Method::BasicDeliver(_)
        | Method::BasicGetOk(_)
        | Method::BasicGetEmpty(_)
        | Method::BasicRecoverOk(_)
        | Method::ConfirmSelectOk(_)
        | Method::TxSelectOk(_)
        | Method::TxCommitOk(_)
        | Method::TxRollbackOk(_) => ONCE,
    }
}

/// The request with the names that queues have now. `last` is the queue that was declared last on the channel: an
/// empty name means that one.
pub(in crate::robust) fn translate<M: Request>(topology: &Topology, last: &ShortStr, request: &M) -> M {
    let mut method: Method = request.clone().into();
    if !policy(&method).renamed {
        return request.clone();
    }
    let Some(queue) = queue_name(&mut method) else { return request.clone() };
    let current = if queue.is_empty() { topology.current(last) } else { topology.current(queue) };
    if *queue == *current {
        return request.clone();
    }
    *queue = current.clone();
    into_request(method).unwrap_or_else(|| request.clone())
}

/// The queue that a method is about, where that exists already.
fn queue_name(method: &mut Method) -> Option<&mut ShortStr> {
    match method {
        Method::QueueBind(queue::Bind { queue, .. })
        | Method::QueueUnbind(queue::Unbind { queue, .. })
        | Method::QueueDelete(queue::Delete { queue, .. })
        | Method::QueuePurge(queue::Purge { queue, .. })
        | Method::QueueDeclare(queue::Declare { queue, passive: true, .. }) => Some(queue),
        _ => None,
    }
}

/// Back to the type that it was made from.
fn into_request<M: Request>(method: Method) -> Option<M> {
    let boxed: Box<dyn Any> = match method {
        Method::QueueBind(method) => Box::new(method),
        Method::QueueUnbind(method) => Box::new(method),
        Method::QueueDelete(method) => Box::new(method),
        Method::QueuePurge(method) => Box::new(method),
        Method::QueueDeclare(method) => Box::new(method),
        _ => return None,
    };
    boxed.downcast().ok().map(|method| *method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::basic;

    #[test]
    fn what_is_renamed_has_a_queue_name_and_goes_back_to_its_type() {
        let mut topology = Topology::default();
        let name = |name: &str| ShortStr::try_from(name).unwrap();
        topology.declare_queue(queue::Declare::default(), name("old"));
        topology.rename(&name("old"), &name("new"));
        let last = ShortStr::empty();
        let purge = queue::Purge { queue: name("old"), no_wait: false };
        assert_eq!(translate(&topology, &last, &purge).queue, "new");
        let delete = queue::Delete { queue: name("old"), ..Default::default() };
        assert_eq!(translate(&topology, &last, &delete).queue, "new");
        let bind = queue::Bind { queue: name("old"), ..Default::default() };
        assert_eq!(translate(&topology, &last, &bind).queue, "new");
        let unbind = queue::Unbind { queue: name("old"), ..Default::default() };
        assert_eq!(translate(&topology, &last, &unbind).queue, "new");
        let passive = queue::Declare { queue: name("old"), passive: true, ..Default::default() };
        assert_eq!(translate(&topology, &last, &passive).queue, "new");
        let declare = queue::Declare { queue: name("old"), ..Default::default() };
        assert_eq!(translate(&topology, &last, &declare).queue, "old");
    }

    #[test]
    fn an_empty_name_is_the_queue_that_was_declared_last() {
        let last = ShortStr::try_from("last").unwrap();
        let purge = queue::Purge::default();
        assert_eq!(translate(&Topology::default(), &last, &purge).queue, "last");
    }

    #[test]
    fn a_get_without_acks_is_not_sent_twice() {
        assert!(!policy(&basic::Get::default().into()).repeated);
        assert!(policy(&basic::Qos::default().into()).repeated);
    }
}
