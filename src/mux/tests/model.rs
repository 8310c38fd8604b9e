//! Confirms against the simplest thing that does the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::codec::{Properties, ShortStr};
use crate::mux::confirm_ring::{Confirms, Outcome};
use crate::mux::incoming_return::{Fingerprint, Returned};

/// What users and the server do. Numbers are taken modulo how many there are, and a few more.
#[derive(Clone, Debug)]
enum Step {
    Publish { body: u8, mandatory: bool },
    Settle { number: u64, multiple: bool, acked: bool },
    Return { body: u8 },
    Wait(u64),
    Drop(u64),
    Ask(u64),
    Drain(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0_u64..64;
    prop_oneof![
        4 => (0_u8..3, any::<bool>()).prop_map(|(body, mandatory)| Step::Publish { body, mandatory }),
        4 => (number.clone(), prop::bool::weighted(0.3), any::<bool>())
            .prop_map(|(number, multiple, acked)| Step::Settle { number, multiple, acked }),
        2 => (0_u8..3).prop_map(|body| Step::Return { body }),
        2 => number.clone().prop_map(Step::Wait),
        1 => number.clone().prop_map(Step::Drop),
        2 => number.clone().prop_map(Step::Ask),
        1 => number.prop_map(Step::Drain),
    ]
}

/// A message, and all that can be known of it.
#[derive(Debug)]
struct Message {
    body: u8,
    mandatory: bool,
    settled: bool,
    /// What will be told instead of an ack, until it has been.
    failure: Option<Outcome>,
    waiter: Option<u32>,
    dropped: bool,
}

/// Every message for ever, by its number.
#[derive(Debug, Default)]
struct Model {
    messages: BTreeMap<u64, Message>,
    drains: Vec<(u64, u32)>,
    /// Failures that no confirm tells, in the order in which they became known.
    unheard: Vec<Outcome>,
}

fn returned(body: u8) -> Box<Returned> {
    Box::new(Returned {
        code: 312,
        text: ShortStr::default(),
        exchange: ShortStr::default(),
        routing_key: ShortStr::default(),
        properties: Bytes::from_static(&[0, 0]),
        body: Bytes::copy_from_slice(&[body]),
    })
}

impl Model {
    fn last(&self) -> u64 {
        self.messages.len() as u64
    }

    fn all_settled_up_to(&self, number: u64) -> bool {
        number <= self.last() && self.messages.range(..=number).all(|(_, message)| message.settled)
    }

    fn publish(&mut self, body: u8, mandatory: bool) -> u64 {
        let number = self.last() + 1;
        let message =
            Message { body, mandatory, settled: false, failure: None, waiter: None, dropped: false };
        self.messages.insert(number, message);
        number
    }

    fn settle(&mut self, number: u64, multiple: bool, acked: bool) -> Vec<u32> {
        let last = self.last();
        let number = if number == 0 && multiple { last } else { number };
        let mut woken = Vec::new();
        for (_, message) in self.messages.iter_mut().filter(|(each, message)| {
            let meant = if multiple { **each <= number } else { **each == number };
            meant && number <= last && !message.settled
        }) {
            message.settled = true;
            if !acked {
                message.failure = Some(Outcome::Nacked);
            }
            woken.extend(message.waiter.take());
            if message.dropped {
                self.unheard.extend(message.failure.take());
            }
        }
        let done: Vec<_> =
            self.drains.iter().copied().filter(|(until, _)| self.all_settled_up_to(*until)).collect();
        self.drains.retain(|drain| !done.contains(drain));
        woken.extend(done.into_iter().map(|(_, waiter)| waiter));
        woken
    }

    /// Whether the message is to be given to the channel.
    fn returned(&mut self, body: u8) -> bool {
        let meant = self.messages.values_mut().find(|it| it.mandatory && !it.settled && it.body == body);
        let Some(message) = meant else { return true };
        // it does not come back twice
        message.mandatory = false;
        if message.dropped {
            self.unheard.push(Outcome::Returned(returned(body)));
        } else {
            message.failure = Some(Outcome::Returned(returned(body)));
        }
        message.dropped
    }

    fn outcome(&mut self, number: u64) -> Option<Outcome> {
        // nothing was given the number 0; like all that is below what waits, it counts as settled
        let Some(message) = self.messages.get_mut(&number) else {
            return (number == 0).then_some(Outcome::Acked);
        };
        message.settled.then(|| message.failure.take().unwrap_or(Outcome::Acked))
    }

    /// A confirm is dropped once, and nobody asks or waits after that.
    fn is_dropped(&self, number: u64) -> bool {
        self.messages.get(&number).is_some_and(|message| message.dropped)
    }

    /// Whether the message, which came back before, is to be given to the channel.
    fn drop_confirm(&mut self, number: u64) -> bool {
        let Some(message) = self.messages.get_mut(&number) else { return false };
        message.waiter = None;
        message.dropped = true;
        let failure = message.failure.take();
        let given_back = matches!(failure, Some(Outcome::Returned(_)));
        self.unheard.extend(failure);
        given_back
    }

    fn drained(&self, number: u64, heard: u64) -> Option<(Outcome, u64)> {
        let first = self.unheard.get(usize::try_from(heard).unwrap()).cloned();
        let count = u64::try_from(self.unheard.len()).unwrap();
        self.all_settled_up_to(number).then(|| (first.unwrap_or(Outcome::Acked), count))
    }
}

fn fingerprint(body: u8) -> Fingerprint {
    Fingerprint::new(b"", b"", Some(&Properties::default()), &[body])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn confirms_do_what_the_model_does(steps in vec(step(), 1..80)) {
        let (mut confirms, mut model) = (Confirms::<u32>::new(), Model::default());
        // two who wait, each of whom hears of each failure
        let mut heard = [0; 2];
        for (waiter, step) in (0..).zip(steps) {
            let some = |number: u64| number % (model.last() + 3);
            let mut woken = Vec::new();
            match step {
                Step::Publish { body, mandatory } => {
                    let number = confirms.publish(mandatory.then(|| fingerprint(body)));
                    prop_assert_eq!(number, model.publish(body, mandatory));
                }
                Step::Settle { number, multiple, acked } => {
                    let number = some(number);
                    confirms.settle(number, multiple, acked, &mut woken);
                    let mut expected = model.settle(number, multiple, acked);
                    woken.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(woken, expected);
                }
                Step::Return { body } => {
                    let given_back = confirms.returned(returned(body)).is_some();
                    prop_assert_eq!(given_back, model.returned(body));
                }
                Step::Wait(number) => {
                    // whoever waits has a confirm that was not dropped, and has seen that it is not settled
                    let number = some(number);
                    if let Some(message) = model.messages.get_mut(&number).filter(|it| !it.settled && !it.dropped) {
                        confirms.wait(number, waiter);
                        message.waiter = Some(waiter);
                    }
                }
                Step::Drop(number) => {
                    let number = some(number);
                    if !model.is_dropped(number) {
                        let given_back = confirms.abandon(number).is_some();
                        prop_assert_eq!(given_back, model.drop_confirm(number));
                    }
                }
                Step::Ask(number) => {
                    let number = some(number);
                    if !model.is_dropped(number) {
                        prop_assert_eq!(confirms.outcome(number), model.outcome(number));
                    }
                }
                Step::Drain(number) => {
                    let number = some(number);
                    let heard = &mut heard[waiter as usize % 2];
                    let drained = confirms.drained(number, *heard);
                    prop_assert_eq!(&drained, &model.drained(number, *heard));
                    if let Some((_, count)) = drained {
                        *heard = count;
                    } else {
                        let ticket = confirms.wait_drained(number, None, waiter);
                        if waiter % 3 == 0 {
                            // dropped: it is as if nobody had asked
                            confirms.forget_drained(number, ticket);
                        } else {
                            model.drains.push((number, waiter));
                        }
                    }
                }
            }
            let unsettled_from = model.messages.values().position(|message| !message.settled);
            let in_flight = unsettled_from.map_or(0, |from| model.messages.len() - from);
            prop_assert_eq!(confirms.in_flight(), in_flight);
        }
        let (mut waiting, mut expected) = (Vec::new(), Vec::new());
        confirms.take_waiters(&mut waiting);
        expected.extend(model.messages.values().filter_map(|message| message.waiter));
        expected.extend(model.drains.iter().map(|(_, waiter)| *waiter));
        waiting.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(waiting, expected);
    }
}
