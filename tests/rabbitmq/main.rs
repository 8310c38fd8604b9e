//! What only a real RabbitMQ can show: streams, its memory alarm, and how long it waits for acks.
//!
//! ```text
//! cargo test --test rabbitmq -- --ignored
//! ```
//!
//! One test raises the memory alarm, which stops every publisher of the broker: so it does that to a node
//! of its own, unless `LEPUS_RABBITMQCTL` names the command that controls the broker under test, such as
//! `rabbitmqctl` or `rabbitmqctl -n rabbit@localhost`.

#[cfg(test)]
#[path = "../support/rabbitmq.rs"]
mod broker;
#[cfg(test)]
#[path = "../support/case.rs"]
mod case;
#[cfg(test)]
#[path = "../support/node.rs"]
mod node;
#[cfg(test)]
#[expect(dead_code, reason = "nothing but cuts is needed here")]
#[path = "../support/relay.rs"]
mod relay;
#[cfg(test)]
#[expect(dead_code, reason = "streams need few of them")]
#[path = "../behaviour/tools.rs"]
mod tools;

#[cfg(test)]
mod acks;
#[cfg(test)]
mod alarm;
#[cfg(test)]
mod delivery_limit;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod v4_3;
