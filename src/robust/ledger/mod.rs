//! What a robust connection knows and decides: plain data, without I/O, clock, tasks or locks.
//!
//! The rest of the robust layer awaits, and asks here what to do. Everything in this folder can be tested, fuzzed and
//! simulated without a socket; `tests/layers` checks that it stays so.
//!
//! | file | what it knows |
//! |---|---|
//! | `lifecycle` | whether a connection or channel is down, up, retiring or ended, and which incarnation of it that is |
//! | `topology` | what was declared, bound and consumed, under which names |
//! | `policy` | for each method: is it recorded, may it be repeated, which queue's name does it use |
//! | `entity` | what a restore brings back, by name |
//! | `consumers` | what a consumer is to be started with, and what a refusal says about it |
//! | `starting` | in which order the consumers of a channel are started, and which are left out |
//! | `extent` | how much a restore declares again |
//! | `plan` | which request a restore sends next, and what follows from its outcome |
//! | `lessons` | which request the server did not survive or answer |
//! | `late` | requests that their callers were told were not answered in time |
//! | `publishes` | unconfirmed messages of one channel, and which of them is published next after a loss |
//! | `kept` | those messages, as bytes |
//! | `numbers` | their numbers on the channel of the moment |
//! | `routes` | where they go |
//! | `blame` | which message the server means when it closes a channel or connection |

pub(super) mod blame;
pub(super) mod consumers;
pub(super) mod entity;
pub(super) mod extent;
pub(super) mod kept;
pub(super) mod late;
pub(super) mod lessons;
pub(super) mod lifecycle;
pub(super) mod numbers;
pub(super) mod plan;
pub(super) mod policy;
pub(super) mod publishes;
pub(super) mod routes;
pub(super) mod starting;
pub(super) mod topology;
