//! Tune: agreeing on the connection's limits.

use super::violation::Violation;
use crate::codec::generated::connection::{Tune, TuneOk};
use crate::codec::generated::constants::FRAME_MIN_SIZE;

/// What the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The highest channel number; 0 stands for no limit.
    pub channel_max: u16,
    /// The largest frame in bytes; 0 stands for no limit.
    pub frame_max: u32,
    /// Seconds; 0 turns heartbeats off, whatever the server wants.
    pub heartbeat: u16,
}

/// What holds for the connection. None of the first two is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub channel_max: u16,
    pub frame_max: u32,
    pub heartbeat: u16,
}

/// The largest frame when neither side wants a limit.
const FRAME_MAX: u32 = 128 << 10;

impl Agreed {
    /// Answers the server's tune.
    ///
    /// Channels and frames: the smaller of both sides' limits, where 0 is none. Heartbeat: 0 if the
    /// client says so (`RabbitMQ` takes tune-ok's value as it is), the client's value if the server has
    /// none, else the smaller.
    pub(crate) fn new(offer: Offer, tune: &Tune) -> Result<Self, Violation> {
        if (1..FRAME_MIN_SIZE).contains(&tune.frame_max) {
            return Err(Violation::FrameMax(tune.frame_max));
        }
        Ok(Self {
            channel_max: smaller(offer.channel_max.into(), tune.channel_max.into())
                .and_then(|max| u16::try_from(max).ok())
                .unwrap_or(u16::MAX),
            frame_max: smaller(offer.frame_max, tune.frame_max).unwrap_or(FRAME_MAX),
            heartbeat: match (offer.heartbeat, tune.heartbeat) {
                (0, _) => 0,
                (ours, 0) => ours,
                (ours, theirs) => ours.min(theirs),
            },
        })
    }

    /// The method that tells the server.
    pub(crate) const fn tune_ok(self) -> TuneOk {
        TuneOk { channel_max: self.channel_max, frame_max: self.frame_max, heartbeat: self.heartbeat }
    }
}

/// The smaller of two limits, where 0 is none.
fn smaller(ours: u32, theirs: u32) -> Option<u32> {
    [ours, theirs].into_iter().filter(|limit| *limit > 0).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(ours: (u16, u32, u16), theirs: (u16, u32, u16)) -> Result<(u16, u32, u16), Violation> {
        let offer = Offer { channel_max: ours.0, frame_max: ours.1, heartbeat: ours.2 };
        let tune = Tune { channel_max: theirs.0, frame_max: theirs.1, heartbeat: theirs.2 };
        Agreed::new(offer, &tune).map(|agreed| (agreed.channel_max, agreed.frame_max, agreed.heartbeat))
    }

    #[test]
    fn d1_the_usual_values() {
        assert_eq!(agree((2047, 131_072, 60), (2047, 131_072, 60)), Ok((2047, 131_072, 60)));
        assert_eq!(agree((100, 65_536, 60), (2047, 131_072, 60)), Ok((100, 65_536, 60)));
        assert_eq!(agree((0, 0, 60), (2047, 131_072, 60)), Ok((2047, 131_072, 60)));
    }

    #[test]
    fn d2_a_server_without_limits_gets_the_clients() {
        assert_eq!(agree((2047, 131_072, 60), (0, 0, 0)), Ok((2047, 131_072, 60)));
        assert_eq!(agree((0, 0, 0), (0, 0, 0)), Ok((u16::MAX, FRAME_MAX, 0)));
    }

    #[test]
    fn d3_a_frame_max_below_the_protocols_least_is_refused() {
        for frame_max in [1, 4095] {
            assert_eq!(agree((0, 0, 0), (0, frame_max, 0)), Err(Violation::FrameMax(frame_max)));
        }
        assert_eq!(agree((0, 0, 0), (0, 4096, 0)), Ok((u16::MAX, 4096, 0)));
    }

    #[test]
    fn d11_heartbeat_rule() {
        for (ours, theirs, agreed) in [(0, 60, 0), (0, 0, 0), (30, 0, 30), (30, 60, 30), (60, 30, 30)] {
            assert_eq!(agree((0, 0, ours), (0, 0, theirs)).map(|agreed| agreed.2), Ok(agreed));
        }
    }
}
