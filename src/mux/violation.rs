//! What a peer can do wrong, and the reply code of each: the one place that maps faults to codes.

use thiserror::Error;

use crate::codec::frame::FrameError;
use crate::codec::generated::basic;
use crate::codec::generated::constants::{
    CHANNEL_ERROR, COMMAND_INVALID, FRAME_ERROR, NOT_ALLOWED, RESOURCE_ERROR, SYNTAX_ERROR, UNEXPECTED_FRAME,
};
use crate::codec::{Arguments, DecodeError, Method, MethodId};

/// A breach of the protocol by the server. It ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{}: {error}", Method::name(*method))]
    Decode { method: MethodId, error: DecodeError },
    #[error("a content header could not be read: {0}")]
    Header(DecodeError),
    #[error("a frame on channel {0}, which was never opened")]
    ChannelNotOpen(u16),
    #[error("{} on channel {channel}, where the protocol does not allow it", Method::name(*method))]
    WrongChannel { channel: u16, method: MethodId },
    #[error("{} on channel {channel}, which nobody asked for", Method::name(*method))]
    Unexpected { channel: u16, method: MethodId },
    #[error("a consumer tag on channel {channel} that another consumer of the channel has")]
    TagTwice { channel: u16 },
    #[error("a content header on channel {0} without a method before it")]
    StrayHeader(u16),
    #[error("a body frame on channel {0} without a content header before it")]
    StrayBody(u16),
    #[error("{} on channel {channel} in the middle of a content", Method::name(*method))]
    Interrupted { channel: u16, method: MethodId },
    #[error("a content header of class {0}, not basic")]
    HeaderClass(u16),
    #[error("a body of more bytes than the {announced} announced")]
    BodyTooLong { announced: u64 },
    #[error("a body of {announced} bytes, the limit is {limit}")]
    MessageTooLarge { announced: u64, limit: u64 },
    #[error("the server does not read the answers that it asks for: {answers} of them wait")]
    Unread { answers: u32 },
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
            Self::Unread { .. } => RESOURCE_ERROR,
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
            _ => MethodId::NONE,
        }
    }
}
