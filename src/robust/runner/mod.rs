//! The part of the robust layer that awaits: connects, restores, sends, and tells the ledger what came of it.
//!
//! | file | what it does |
//! |---|---|
//! | `supervisor` | the task of a connection: watches the link, replaces it, opens channels again |
//! | `reconnect` | the time without a link: attempts, pauses, login, restore |
//! | `restore_topology` | carries out `ledger/plan` on a scratch channel |
//! | `restore_channels` | opens all channels side by side, then publishes again |
//! | `restore_channel` | one channel: opens it, publishes again, releases it to its users |
//! | `restore_consumers` | carries out `ledger/starting` on a new single channel |
//! | `retry_topology`, `retry_consumer` | try again, on a link that lives, what the broker has refused |
//! | `unanswered_calls` | replaces a channel on which the server does not answer |
//! | `robust_state` | what the handles of a connection and its supervisor share |
//! | `current_channel` | the single channel behind a robust one: waits for it, and sorts out what it leaves |
//! | `robust_call` | one call at a time on each channel, made again after a loss |
//! | `robust_publish`, `robust_confirm`, `robust_returns` | publishing |
//! | `robust_connection`, `robust_channel`, `robust_consumer`, `robust_drain` | what the public handles call |
//! | `ledger_wire` | a single channel as the ledger sees it |
//! | `side_by_side` | many futures in one task |

mod current_channel;
mod ledger_wire;
mod reconnect;
mod restore_channel;
mod restore_channels;
mod restore_consumers;
mod restore_topology;
mod retry_consumer;
mod retry_topology;
mod robust_call;
mod robust_channel;
mod robust_confirm;
mod robust_connection;
mod robust_consumer;
mod robust_drain;
mod robust_publish;
mod robust_returns;
mod robust_state;
mod side_by_side;
mod supervisor;
mod unanswered_calls;

pub(crate) use self::robust_channel::RobustChannel;
pub(crate) use self::robust_confirm::RobustConfirm;
pub(crate) use self::robust_connection::RobustConnection;
pub(crate) use self::robust_consumer::RobustConsumer;
pub(crate) use self::robust_returns::RobustReturns;
pub(super) use self::supervisor::connect;
