//! Chaos: producers and consumers work while the network and the broker fail at random.
//!
//! `LEPUS_CHAOS_SECONDS` says for how long; `LEPUS_CHAOS_SEED` repeats the order of the faults.

#[cfg(test)]
#[path = "../support/control.rs"]
mod control;
#[cfg(test)]
#[path = "../support/node.rs"]
mod node;
#[cfg(test)]
#[expect(dead_code, reason = "nothing is planned for an exact byte")]
#[path = "../support/relay.rs"]
mod relay;

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod dice;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod victim;
