//! The example programs as processes, alone and together with aio-pika.

#[cfg(test)]
#[path = "../support/broker.rs"]
mod broker;

#[cfg(test)]
#[path = "../support/case.rs"]
mod case;

#[cfg(test)]
mod central;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod losses;
#[cfg(test)]
mod patterns;
#[cfg(test)]
mod program;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod python;
#[cfg(test)]
#[expect(dead_code, reason = "links are only cut")]
#[path = "../support/relay.rs"]
mod relay;
#[cfg(test)]
mod volume;
