//! What a peer can do wrong, and the reply code of each: the one place that maps faults to codes.

use thiserror::Error;

use crate::codec::frame::FrameError;
use crate::codec::generated::basic;
use crate::codec::generated::constants::{
    CHANNEL_ERROR, COMMAND_INVALID, FRAME_ERROR, NOT_ALLOWED, PRECONDITION_FAILED, RESOURCE_ERROR,
    SYNTAX_ERROR, UNEXPECTED_FRAME,
};
use crate::codec::{Arguments, DecodeError, MethodId};

/// A breach of the protocol by the server. It ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{}{error}", culprit(*method, *error))]
    Decode { method: MethodId, error: DecodeError },
    #[error("a content header could not be read: {0}")]
    Header(DecodeError),
    #[error("a frame on channel {0}, which was never opened")]
    ChannelNotOpen(u16),
    #[error("{method} on channel {channel}, where the protocol does not allow it")]
    WrongChannel { channel: u16, method: MethodId },
    #[error("{method} on channel {channel}, which nobody asked for")]
    Unexpected { channel: u16, method: MethodId },
    #[error("a consumer tag on channel {channel} that another consumer of the channel has")]
    TagTwice { channel: u16 },
    #[error("a content header on channel {0} without a method before it")]
    StrayHeader(u16),
    #[error("a body frame on channel {0} without a content header before it")]
    StrayBody(u16),
    #[error("{method} on channel {channel} in the middle of a content")]
    Interrupted { channel: u16, method: MethodId },
    #[error("a content header of class {0}, not basic")]
    HeaderClass(u16),
    #[error("a body of more bytes than the {announced} announced")]
    BodyTooLong { announced: u64 },
    #[error("a body of {announced} bytes, the limit is {limit}")]
    MessageTooLarge { announced: u64, limit: u64 },
    #[error("more than {limit} bytes of unfinished messages, on all channels together")]
    Unfinished { limit: u64 },
    #[error("more deliveries than its prefetch of {prefetch} for a consumer on channel {channel}")]
    Overrun { channel: u16, prefetch: u16 },
    #[error("the server does not read: {bytes} bytes of acks, and of answers that it asked for, wait")]
    Unread { bytes: usize },
    #[error("the server wants a frame_max of {0} bytes, the protocol's least is 4096")]
    FrameMax(u32),
}

impl Violation {
    /// The code that tells the server.
    pub(crate) const fn reply_code(&self) -> u16 {
        match self {
            // a get-ok that nobody asked for is a content where none belongs
            Self::Frame(FrameError::HeartbeatChannel(_))
            | Self::Unexpected { method: basic::GetOk::ID, .. } => UNEXPECTED_FRAME,
            Self::Frame(_) | Self::Header(_) | Self::MessageTooLarge { .. } | Self::BodyTooLong { .. } => {
                FRAME_ERROR
            }
            Self::Decode { error: DecodeError::UnknownMethod(_), .. }
            | Self::WrongChannel { .. }
            | Self::Unexpected { .. } => COMMAND_INVALID,
            Self::Decode { .. } => SYNTAX_ERROR,
            Self::ChannelNotOpen(_) => CHANNEL_ERROR,
            Self::StrayHeader(_) | Self::StrayBody(_) | Self::Interrupted { .. } | Self::HeaderClass(_) => {
                UNEXPECTED_FRAME
            }
            // as a server answers a client that uses a tag twice
            Self::FrameMax(_) | Self::TagTwice { .. } => NOT_ALLOWED,
            Self::Unread { .. } | Self::Unfinished { .. } => RESOURCE_ERROR,
            Self::Overrun { .. } => PRECONDITION_FAILED,
        }
    }

    /// The method that is to blame, if there is one.
    pub(crate) const fn method(&self) -> MethodId {
        match self {
            Self::Decode { method, .. }
            | Self::WrongChannel { method, .. }
            | Self::Unexpected { method, .. }
            | Self::Interrupted { method, .. } => *method,
            Self::TagTwice { .. } => basic::ConsumeOk::ID,
            Self::Overrun { .. } => basic::Deliver::ID,
            _ => MethodId::NONE,
        }
    }
}

/// Which method could not be decoded, if that is known and the error does not say it.
fn culprit(method: MethodId, error: DecodeError) -> String {
    match error {
        DecodeError::UnknownMethod(_) => String::new(),
        _ if method == MethodId::NONE => "a method: ".into(),
        _ => format!("{method}: "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_method_is_named_once() {
        let id = MethodId::new(10, 99);
        for method in [id, MethodId::NONE] {
            let violation = Violation::Decode { method, error: DecodeError::UnknownMethod(id) };
            assert_eq!(violation.to_string(), "unknown method 10,99 (class, method)");
        }
        let violation = Violation::Decode { method: basic::GetOk::ID, error: DecodeError::Truncated };
        assert_eq!(violation.to_string(), "basic.get-ok: a value ends beyond its frame or table");
    }
}
