//! The single channel of the model.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::super::Wire;
use crate::error::{Error, ErrorKind, Result};

/// A channel whose server is the model.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeWire(Rc<RefCell<Server>>);

#[derive(Debug, Default)]
struct Server {
    published: u64,
    settled: BTreeSet<u64>,
    abandoned: BTreeSet<u64>,
    failures: BTreeMap<u64, Error>,
    waiting: BTreeMap<u64, Waker>,
    ended: bool,
}

impl FakeWire {
    pub(super) fn publish(&self) -> u64 {
        let mut server = self.0.borrow_mut();
        server.published += 1;
        server.published
    }

    pub(super) fn settle(&self, number: u64, acked: bool) {
        let mut server = self.0.borrow_mut();
        if server.settled.insert(number) && !acked && !server.abandoned.contains(&number) {
            server.failures.insert(number, Error::new(ErrorKind::Nacked, "no"));
        }
        if let Some(waker) = server.waiting.remove(&number) {
            waker.wake();
        }
    }

    /// The channel ends, and its waiting tasks are woken.
    pub(super) fn end(&self) {
        let mut server = self.0.borrow_mut();
        server.ended = true;
        std::mem::take(&mut server.waiting).into_values().for_each(Waker::wake);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.borrow().ended
    }

    /// The numbers that are not settled.
    pub(super) fn open(&self) -> Vec<u64> {
        let server = self.0.borrow();
        (1..=server.published).filter(|number| !server.settled.contains(number)).collect()
    }
}

impl Wire for FakeWire {
    type Stray = ();

    fn settled_below(&self) -> u64 {
        let server = self.0.borrow();
        (1..=server.published).find(|number| !server.settled.contains(number)).unwrap_or(server.published + 1)
    }

    fn is_settled(&self, number: u64) -> bool {
        self.0.borrow().settled.contains(&number)
    }

    fn acked_below(&self) -> u64 {
        let first = self.0.borrow().failures.keys().next().copied();
        self.settled_below().min(first.unwrap_or(u64::MAX))
    }

    fn take_failures(&self) -> Vec<(u64, Error)> {
        std::mem::take(&mut self.0.borrow_mut().failures).into_iter().collect()
    }

    fn ask(&self, number: u64, waker: &Waker) -> Option<Poll<Result<()>>> {
        let mut server = self.0.borrow_mut();
        if server.ended {
            return None;
        }
        if !server.settled.contains(&number) {
            server.waiting.insert(number, waker.clone());
            return Some(Poll::Pending);
        }
        Some(Poll::Ready(server.failures.remove(&number).map_or(Ok(()), Err)))
    }

    fn abandon(&self, number: u64) -> Option<()> {
        let mut server = self.0.borrow_mut();
        server.abandoned.insert(number);
        server.waiting.remove(&number);
        server.failures.remove(&number).map(drop)
    }
}
