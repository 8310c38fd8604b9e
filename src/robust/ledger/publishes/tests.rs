//! Random sequences of steps against the model. The fuzz target `ledger` runs the same model.

use std::time::Instant;

use proptest::prelude::*;

use super::model::{Cause, Restore, Run, Step};

fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![
        3 => Just(Cause::Network),
        1 => Just(Cause::Forced),
        2 => (0..3_u8, any::<bool>()).prop_map(|(exchange, whole)| Cause::Exchange(exchange, whole)),
        1 => (0..4_usize).prop_map(Cause::Length),
        4 => Just(Cause::Unnamed),
    ]
}

fn restore() -> impl Strategy<Value = Restore> {
    (0..40_usize, 0..8_usize, 0..20_usize, any::<bool>(), 0..3_u8)
        .prop_map(|(most, bad, unfit, prompt, trial)| Restore { most, bad, unfit, prompt, trial })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![0..6_usize, 0..6_000_usize];
    let step = prop_oneof![
        12 => (length, any::<u8>(), 0..8_u8)
            .prop_map(|(length, kind, time)| Step::Publish { length, kind, deadline: time.saturating_sub(4) }),
        8 => (any::<usize>(), prop::bool::weighted(0.8), prop::bool::weighted(0.2))
            .prop_map(|(which, acked, multiple)| Step::Settle { which, acked, multiple }),
        1 => any::<usize>().prop_map(|which| Step::Abandon { which }),
        1 => any::<usize>().prop_map(|which| Step::Withdraw { which }),
        4 => any::<usize>().prop_map(|which| Step::Ask { which }),
        2 => any::<bool>().prop_map(|all| Step::Prune { all }),
        1 => (0..3_u8).prop_map(|time| Step::Pass { time }),
        1 => Just(Step::Rename),
        1 => Just(Step::End),
        4 => cause().prop_map(Step::Lose),
        6 => restore().prop_map(Step::Restore),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn the_ledger_agrees_with_a_model(steps in steps(), closes in any::<bool>()) {
        let mut run = Run::new(Instant::now());
        for step in steps {
            run.step(step);
        }
        if closes { run.close() } else { run.end() }
    }
}
