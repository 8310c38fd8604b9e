//! A single channel as the ledger sees it.

use std::task::{Poll, Waker};

use crate::error::{Error, Result};
use crate::robust::ledger::publishes::{self, Wire};
use crate::single::{SingleChannel, Stray};

/// The unconfirmed messages of a robust channel.
pub(super) type Publishes = publishes::Publishes<SingleChannel>;
/// Those of them that were given up.
pub(super) type GivenUp = publishes::GivenUp<SingleChannel>;

impl Wire for SingleChannel {
    type Stray = Stray;

    fn settled_below(&self) -> u64 {
        self.settled_below()
    }

    fn is_settled(&self, number: u64) -> bool {
        self.is_settled(number)
    }

    fn acked_below(&self) -> u64 {
        self.acked_below()
    }

    fn take_failures(&self) -> Vec<(u64, Error)> {
        self.take_failures().collect()
    }

    fn ask(&self, number: u64, waker: &Waker) -> Option<Poll<Result<()>>> {
        self.ask(number, waker)
    }

    fn abandon(&self, number: u64) -> Option<Stray> {
        self.abandon(number)
    }
}

impl GivenUp {
    /// Wakes who waits, and hands on what came back. Not under a lock.
    pub(super) fn tell(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        self.strays.into_iter().for_each(Stray::tell);
    }
}
