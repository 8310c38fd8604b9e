//! A whole system in one thread, on a paused clock, from one seed: clients, the network, and the embedded broker.
//!
//! Users publish, consume and declare through robust connections. Meanwhile the network delays, loses and cuts, hosts refuse or are
//! silent, and the broker restarts, blocks, refuses logins and forgets, all at times and in ways that the seed decides. Then everything heals, and a model
//! says what must hold:
//!
//! - Nothing that was confirmed is lost, unless the broker loses all its data: the consumer gets it.
//! - A publisher's messages first arrive in their order, but for those that are marked as redelivered. Those that are published
//!   again keep it, too, unless their consumer began anew meanwhile: an earlier copy may have been lost with it. Messages that
//!   have a deadline may be left behind.
//! - No message arrives twice without such a mark.
//! - What a user declared and bound is at the broker, and what he deleted and unbound is not, after a last loss. Of what a call
//!   timed out on, or was not waited for, he knows nothing, nor of its bindings.
//!   Nor of what he deletes while the broker does not read: it reads what was sent on a lost link later.
//! - What the broker removes by itself stays away once its consumer has gone: an auto-delete queue, and auto-delete exchanges that
//!   are bound to each other. As long as the consumer is there, they are.
//! - A server-named queue and a consumer that the server has cancelled work after the last loss.
//! - `drain` ends within its limit. If it says `Ok`, everything is settled.
//! - Without confirms nothing is published again. Messages are lost only with their link: what was handed over before a message
//!   that has arrived on the same link has arrived, too. Their order is that of their link.
//! - A publish with a deadline is confirmed, or its message never arrives (`NotSent`), or it may arrive (`Unconfirmed`).
//! - Messages that are not confirmed take no more memory than their limit.
//! - Nobody waits for ever: all that is under way ends soon after everything has healed, in virtual time, and after the close
//!   neither a connection nor a task is left.
//! - Nobody sees an error that the faults do not explain, and nothing panics.
//!
//! The same seed gives the same trace: all that users see and do, all faults, and every chunk of bytes in the network, each
//! with its time. Where two events of one instant have no order of their own, tokio's scheduler decides, which a paused clock
//! and a single thread make repeatable.
//!
//! ```text
//! cargo test --test simulation                                # 200 seeds
//! LEPUS_SIMULATION_SECONDS=60 cargo test --test simulation    # as many as fit into a minute; LEPUS_SIMULATION_FIRST=1000 from there
//! LEPUS_SIMULATION_STOP=1 cargo test --test simulation        # ends with the first seed that fails
//! LEPUS_SIMULATION_SEED=123 cargo test --test simulation -- --nocapture seeds   # one, with its trace
//! ```

#[cfg(test)]
mod careless;
#[cfg(test)]
mod consumers;
#[cfg(test)]
mod dice;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod handlers;
#[cfg(test)]
mod leaver;
#[cfg(test)]
mod model;
#[cfg(test)]
mod network;
#[cfg(test)]
mod passing;
#[cfg(test)]
mod patience;
#[cfg(test)]
mod publishers;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod topology;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod without_confirms;
#[cfg(test)]
mod world;
