//! What the crate promises, against the embedded broker, or the one that `AMQP_URL` names.

#[cfg(test)]
#[path = "../support/broker.rs"]
mod broker;

#[cfg(test)]
#[path = "../support/case.rs"]
mod case;

#[cfg(test)]
mod acks;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod channels;
#[cfg(test)]
mod closing;
#[cfg(test)]
mod confirms;
#[cfg(test)]
mod connecting;
#[cfg(test)]
mod consuming;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod declaring;
#[cfg(test)]
mod handler;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod prefetch;
#[cfg(test)]
mod queues;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod returns;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod transactions;
#[cfg(test)]
mod vocabulary;
