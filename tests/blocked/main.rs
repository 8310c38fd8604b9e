//! What happens while the broker blocks publishers.
//!
//! The test raises the memory alarm, which stops every publisher of the broker: so it does that to a node
//! of its own, unless `LEPUS_RABBITMQCTL` names the command that controls the broker under test, such as
//! `rabbitmqctl` or `rabbitmqctl -n rabbit@localhost`.

#[cfg(test)]
#[path = "../support/broker.rs"]
mod broker;

#[cfg(test)]
mod alarm;
