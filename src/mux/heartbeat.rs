//! Heartbeat deadlines. Time is passed in, so nothing here asks a clock.

use std::time::{Duration, Instant};

/// When to send a sign of life and when to give the peer up.
///
/// We send after half the interval without a write (any write counts), and give the peer up after twice
/// the interval without a byte (spec 4.2.7; `RabbitMQ` itself waits between two and three).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    interval: Option<Duration>,
}

impl Heartbeat {
    /// `seconds` as agreed in tune; 0 turns heartbeats off.
    pub(crate) fn new(seconds: u16) -> Self {
        Self { interval: (seconds > 0).then(|| Duration::from_secs(seconds.into())) }
    }

    /// The agreed interval; `None` if there are no heartbeats.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// When to send one if nothing has been written since `last_write`.
    pub(crate) fn send_at(&self, last_write: Instant) -> Option<Instant> {
        self.interval.and_then(|interval| last_write.checked_add(interval / 2))
    }

    /// When the peer counts as dead if nothing has been read since `last_read`.
    pub(crate) fn dead_at(&self, last_read: Instant) -> Option<Instant> {
        self.interval.and_then(|interval| last_read.checked_add(interval * 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_interval_to_send_and_twice_to_give_up() {
        let (now, heartbeat) = (Instant::now(), Heartbeat::new(10));
        assert_eq!(heartbeat.send_at(now), Some(now + Duration::from_secs(5)));
        assert_eq!(heartbeat.dead_at(now), Some(now + Duration::from_secs(20)));
    }

    #[test]
    fn zero_turns_heartbeats_off() {
        let (now, heartbeat) = (Instant::now(), Heartbeat::new(0));
        assert_eq!((heartbeat.send_at(now), heartbeat.dead_at(now)), (None, None));
    }
}
