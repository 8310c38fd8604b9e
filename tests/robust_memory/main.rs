//! What an outage costs: a process of its own, whose memory is measured.

#[cfg(test)]
#[path = "../support/broker.rs"]
mod broker;
#[cfg(test)]
#[path = "../support/case.rs"]
mod case;
#[cfg(test)]
#[expect(dead_code, reason = "the link is only lost")]
#[path = "../support/relay.rs"]
mod relay;
#[cfg(test)]
#[expect(dead_code, reason = "the link is only lost")]
#[path = "../robust/tools.rs"]
mod tools;
#[cfg(test)]
#[path = "../support/wire.rs"]
mod wire;

#[cfg(test)]
mod memory;
