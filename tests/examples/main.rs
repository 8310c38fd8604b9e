//! The example programs as processes, alone and together with aio-pika.

#[cfg(test)]
#[path = "../support/broker.rs"]
mod broker;

#[cfg(test)]
#[path = "../support/case.rs"]
mod case;

#[cfg(test)]
mod interop;
#[cfg(test)]
mod program;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod python;
#[cfg(test)]
mod volume;
