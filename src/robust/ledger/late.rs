//! Requests whose answers are late: their callers have been told that there was none in time.
//!
//! The answer says that the server has acted at some time in between. So it counts only if nothing else was recorded of the same
//! exchanges and queues since: a queue that was deleted meanwhile would come back after a loss.

use std::collections::BTreeMap;

use super::policy::{Subject, subjects};
use crate::protocol::Method;

/// The requests that are waited for.
#[derive(Debug, Default)]
pub(in crate::robust) struct Late {
    requests: BTreeMap<u64, Method>,
    next: u64,
}

impl Late {
    /// Waits for the answer to this request. Returns a ticket for it.
    pub(in crate::robust) fn add(&mut self, request: Method) -> u64 {
        self.next += 1;
        self.requests.insert(self.next, request);
        self.next
    }

    /// Another request was answered: what is late of the same exchanges and queues does not count any more.
    pub(in crate::robust) fn overtaken_by(&mut self, request: &Method) {
        if self.requests.is_empty() {
            return;
        }
        let changed: Vec<Subject<'_>> = subjects(request).collect();
        self.requests.retain(|_, late| !subjects(late).any(|subject| changed.contains(&subject)));
    }

    /// The answer has come, or nobody waits for it any more. The request, if it counts.
    pub(in crate::robust) fn take(&mut self, ticket: u64) -> Option<Method> {
        self.requests.remove(&ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ShortStr;
    use crate::protocol::{basic, exchange, queue};

    fn short(name: &str) -> ShortStr {
        ShortStr::try_from(name).unwrap()
    }

    fn declare(name: &str) -> Method {
        queue::Declare { queue: short(name), ..Default::default() }.into()
    }

    fn bind(name: &str, to: &str) -> Method {
        queue::Bind { queue: short(name), exchange: short(to), ..Default::default() }.into()
    }

    #[test]
    fn a_late_answer_counts_unless_something_else_was_recorded_of_its_subject() {
        let delete = queue::Delete { queue: short("a"), ..Default::default() };
        let exchange = exchange::Delete { exchange: short("a"), ..Default::default() };
        for (late, other, counts) in [
            (declare("a"), declare("b"), true),
            (declare("a"), delete.clone().into(), false),
            (declare("a"), bind("a", "x"), false),
            (bind("a", "x"), bind("b", "x"), false),
            (bind("a", "x"), declare("x"), true),
            (bind("b", "a"), delete.into(), true),
            (bind("b", "a"), exchange.into(), false),
            (declare("a"), basic::Qos::default().into(), true),
        ] {
            let mut waiting = Late::default();
            let ticket = waiting.add(late.clone());
            waiting.overtaken_by(&other);
            assert_eq!(waiting.take(ticket).is_some(), counts, "{late:?} behind {other:?}");
            assert!(waiting.take(ticket).is_none());
        }
    }
}
