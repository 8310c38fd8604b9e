//! Which methods change what is recorded, and which may be sent twice.

use std::any::Any;

use super::topology::Topology;
use crate::codec::ShortStr;
use crate::protocol::{Method, Request, exchange, queue};

/// Records what the server has agreed to. `reply` is `None` for a request without one.
///
/// Whoever declares it again wants an answer, so `no_wait` is not recorded.
pub(super) fn record(topology: &mut Topology, request: Method, reply: Option<&dyn Any>) {
    match request {
        Method::ExchangeDeclare(mut declare) if !declare.passive => {
            declare.no_wait = false;
            topology.declare_exchange(declare);
        }
        Method::QueueDeclare(mut declare) if !declare.passive => {
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

/// Whether a request whose answer was lost may be sent again: whatever became of the first, the result is the same.
pub(super) fn is_idempotent(request: &Method) -> bool {
    matches!(
        request,
        Method::ExchangeDeclare(_)
            | Method::ExchangeDelete(_)
            | Method::ExchangeBind(_)
            | Method::ExchangeUnbind(_)
            | Method::QueueDeclare(_)
            | Method::QueueDelete(_)
            | Method::QueueBind(_)
            | Method::QueueUnbind(_)
            | Method::QueuePurge(_)
            | Method::BasicQos(_)
            | Method::BasicRecover(_)
    )
}

/// The request with the names that queues have now. `last` is the queue that was declared last on the channel: an
/// empty name means that one.
pub(super) fn translate<M: Request>(topology: &Topology, last: &ShortStr, request: &M) -> M {
    let mut method: Method = request.clone().into();
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
