//! What the broker answers to a mistake: a code and a text, and what is closed by it.

use std::fmt::Display;

use crate::codec::ShortStr;
use crate::codec::generated::constants::{
    ACCESS_REFUSED, CHANNEL_ERROR, COMMAND_INVALID, FRAME_ERROR, INTERNAL_ERROR, NOT_ALLOWED, NOT_FOUND,
    NOT_IMPLEMENTED, PRECONDITION_FAILED, RESOURCE_LOCKED, SYNTAX_ERROR, UNEXPECTED_FRAME,
};

/// What a refusal closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closes {
    Channel,
    Connection,
}

/// Why a method is not carried out, in the form of `RabbitMQ`'s reply texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: u16,
    pub text: String,
    pub closes: Closes,
}

impl Refusal {
    fn channel(code: u16, name: &str, text: impl Display) -> Self {
        Self { code, text: format!("{name} - {text}"), closes: Closes::Channel }
    }

    fn connection(code: u16, name: &str, text: impl Display) -> Self {
        Self { code, text: format!("{name} - {text}"), closes: Closes::Connection }
    }

    pub(super) fn access_refused(text: impl Display) -> Self {
        Self::channel(ACCESS_REFUSED, "ACCESS_REFUSED", text)
    }

    /// 403 before the connection is open.
    pub(super) fn login_refused(text: impl Display) -> Self {
        Self::connection(ACCESS_REFUSED, "ACCESS_REFUSED", text)
    }

    pub(super) fn not_found(text: impl Display) -> Self {
        Self::channel(NOT_FOUND, "NOT_FOUND", text)
    }

    pub(super) fn resource_locked(text: impl Display) -> Self {
        Self::channel(RESOURCE_LOCKED, "RESOURCE_LOCKED", text)
    }

    pub(super) fn precondition_failed(text: impl Display) -> Self {
        Self::channel(PRECONDITION_FAILED, "PRECONDITION_FAILED", text)
    }

    pub(super) fn frame_error(text: impl Display) -> Self {
        Self::connection(FRAME_ERROR, "FRAME_ERROR", text)
    }

    pub(super) fn syntax_error(text: impl Display) -> Self {
        Self::connection(SYNTAX_ERROR, "SYNTAX_ERROR", text)
    }

    pub(super) fn command_invalid(text: impl Display) -> Self {
        Self::connection(COMMAND_INVALID, "COMMAND_INVALID", text)
    }

    pub(super) fn channel_error(text: impl Display) -> Self {
        Self::connection(CHANNEL_ERROR, "CHANNEL_ERROR", text)
    }

    pub(super) fn unexpected_frame(text: impl Display) -> Self {
        Self::connection(UNEXPECTED_FRAME, "UNEXPECTED_FRAME", text)
    }

    pub(super) fn not_allowed(text: impl Display) -> Self {
        Self::connection(NOT_ALLOWED, "NOT_ALLOWED", text)
    }

    pub(super) fn not_implemented(text: impl Display) -> Self {
        Self::connection(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", text)
    }

    /// 541: the broker has lost track of something.
    pub(super) fn internal(text: impl Display) -> Self {
        Self::connection(INTERNAL_ERROR, "INTERNAL_ERROR", text)
    }

    pub(super) fn no_queue(vhost: &str, name: &ShortStr) -> Self {
        Self::not_found(format_args!("no {}", queue(vhost, name)))
    }

    pub(super) fn no_exchange(vhost: &str, name: &ShortStr) -> Self {
        Self::not_found(format_args!("no {}", exchange(vhost, name)))
    }

    /// The queue belongs to another connection.
    pub(super) fn locked(vhost: &str, name: &ShortStr) -> Self {
        Self::resource_locked(format_args!(
            "cannot obtain exclusive access to locked {}. It could be originally declared on another \
             connection or the exclusive property value does not match that of the original declaration.",
            queue(vhost, name)
        ))
    }

    /// The text as it fits into a short string.
    pub(super) fn reply_text(&self) -> ShortStr {
        let mut end = self.text.len().min(ShortStr::MAX);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        self.text.get(..end).and_then(|text| ShortStr::try_from(text).ok()).unwrap_or_default()
    }
}

/// A queue as reply texts name it.
pub(super) fn queue(vhost: &str, name: &ShortStr) -> String {
    format!("queue '{name}' in vhost '{vhost}'")
}

/// An exchange as reply texts name it.
pub(super) fn exchange(vhost: &str, name: &ShortStr) -> String {
    format!("exchange '{name}' in vhost '{vhost}'")
}
