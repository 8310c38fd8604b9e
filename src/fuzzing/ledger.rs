//! Target `ledger`: what happens to a robust connection, against models of what it records.
//!
//! The first octet chooses between the unconfirmed messages of a channel and the topology. Each octet after it is a step,
//! followed by the step's arguments.

use std::time::Instant;

use crate::robust::publishes_model::{self as publishes, Cause, Restore};
use crate::robust::topology_model as topology;

/// Longer inputs find nothing that shorter ones do not, and the checks after each step look at every message.
const STEPS: usize = 256;

/// After each step the ledger has what the model says. In the end everything is settled and told, and nothing is kept.
pub fn ledger(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut input = Input(rest);
    if first & 1 == 0 {
        let mut run = publishes::Run::new(Instant::now());
        for _ in 0..STEPS {
            let Some(step) = input.publishes_step() else { break };
            run.step(step);
        }
        if first & 2 == 0 { run.end() } else { run.close() }
    } else {
        let mut run = topology::Run::default();
        for _ in 0..STEPS {
            let Some(step) = input.topology_step() else { break };
            run.step(step);
        }
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn below(&mut self, bound: u8) -> Option<u8> {
        self.octet()?.checked_rem(bound)
    }

    fn index(&mut self) -> Option<usize> {
        self.octet().map(usize::from)
    }

    fn flag(&mut self) -> Option<bool> {
        self.octet().map(|octet| octet & 1 != 0)
    }

    fn publishes_step(&mut self) -> Option<publishes::Step> {
        use publishes::Step;
        Some(match self.below(16)? {
            0..4 => {
                // beyond what is copied, now and then
                let length = match self.index()? {
                    short @ 0..250 => short % 8,
                    long => (long - 249) * 1_000,
                };
                let (kind, time) = (self.octet()?, self.below(8)?);
                Step::Publish { length, kind, deadline: time.saturating_sub(4) }
            }
            4..6 => Step::Settle { which: self.index()?, acked: true, multiple: self.below(4)? == 0 },
            6 => Step::Settle { which: self.index()?, acked: false, multiple: self.below(4)? == 0 },
            7 => Step::Abandon { which: self.index()? },
            8 => Step::Withdraw { which: self.index()? },
            9 => Step::Ask { which: self.index()? },
            10 => Step::Prune { all: self.flag()? },
            11 => match self.below(8)? {
                0 => Step::Rename,
                1 => Step::End,
                time => Step::Pass { time: time - 2 },
            },
            12 | 13 => Step::Lose(self.cause()?),
            _ => Step::Restore(self.restore()?),
        })
    }

    fn cause(&mut self) -> Option<Cause> {
        Some(match self.below(8)? {
            0 | 1 => Cause::Network,
            2 => Cause::Forced,
            3 => Cause::Exchange(self.octet()?, true),
            4 => Cause::Exchange(self.octet()?, false),
            5 => Cause::Length(self.index()?),
            _ => Cause::Unnamed,
        })
    }

    fn restore(&mut self) -> Option<Restore> {
        // mostly all of it
        let most = self.index()?;
        let most = if most < 32 { most } else { usize::MAX };
        let (bad, unfit) = (self.index()?, self.index()?);
        Some(Restore { most, bad, unfit, prompt: self.flag()?, trial: self.below(3)? })
    }

    fn topology_step(&mut self) -> Option<topology::Step> {
        use topology::Step;
        Some(match self.below(13)? {
            0 => Step::DeclareExchange(self.below(4)?, self.flag()?),
            1 => Step::DeclareQueue(self.below(4)?, self.flag()?),
            2 => Step::DeclareUnnamed(self.flag()?),
            3 => Step::BindQueue(self.below(16)?, self.below(4)?, self.below(2)?, self.below(2)?),
            4 => Step::UnbindQueue(self.below(16)?, self.below(4)?, self.below(2)?, self.below(2)?),
            5 => Step::BindExchange(self.below(4)?, self.below(4)?, self.below(2)?),
            6 => Step::UnbindExchange(self.below(4)?, self.below(4)?, self.below(2)?),
            7 => Step::DeleteExchange(self.below(4)?),
            8 => Step::DeleteQueue(self.below(16)?),
            9 => Step::Consume(self.below(6)?, self.below(16)?),
            10 => Step::Cancel(self.below(6)?),
            11 => Step::CloseChannel(self.below(2)?),
            _ => Step::Rename(self.octet()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_sequence_of_steps_agrees_with_the_models(data in prop::collection::vec(any::<u8>(), 0..400)) {
            super::ledger(&data);
        }
    }
}
