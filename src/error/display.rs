//! How errors are shown.

use std::error::Error as StdError;
use std::fmt;

use super::{Error, Inner, Reply};
use crate::codec::generated::constants::reply_name;
use crate::codec::peer_text::PeerText;
use crate::codec::{MethodId, ShortStr};
use crate::mux::incoming_return::Returned;

impl fmt::Display for Error {
    /// On one line, without the source's text; with `{:#}` that follows, and so on down the chain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { text, reply, returned, others, earlier, .. } = &*self.0;
        if *earlier {
            f.write_str("closed earlier: ")?;
        }
        f.write_str(text)?;
        if let Some(returned) = returned {
            let Returned { exchange, routing_key, .. } = &**returned;
            write!(f, " ({}, routing key \"{}\")", ExchangeName(exchange), PeerText(routing_key.as_bytes()))?;
        }
        if let Some(reply) = reply {
            write!(f, ": {reply}")?;
        }
        for other in others {
            write!(f, "; before that: {other}")?;
        }
        if f.alternate() {
            for source in sources(self) {
                write!(f, ": {source}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, text, method } = self;
        write!(f, "{code} ")?;
        // RabbitMQ puts the code's name in front of its text; other servers may not
        match reply_name(*code) {
            Some(name) if !text.starts_with(name) => write!(f, "{name} {}", PeerText(text.as_bytes()))?,
            _ => PeerText(text.as_bytes()).fmt(f)?,
        }
        if *method != MethodId::NONE {
            write!(f, " (in answer to {method})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    /// What `fn main() -> lepus::Result<()>` prints: the text, then the sources. `{:#?}` shows the fields.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self.fields(f);
        }
        write!(f, "{self}")?;
        let mut heading = "\n\nCaused by:";
        for source in sources(self) {
            write!(f, "{heading}\n    {source}")?;
            heading = "";
        }
        Ok(())
    }
}

impl Error {
    fn fields(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, origin, scope, source, .. } = &*self.0;
        let mut debug = f.debug_struct("Error");
        debug.field("kind", kind).field("origin", origin).field("scope", scope);
        debug.field("text", &self.to_string());
        if let Some(code) = self.reply_code() {
            debug.field("reply_code", &code);
        }
        if let Some(source) = source {
            debug.field("source", source);
        }
        debug.finish_non_exhaustive()
    }
}

/// The errors below this one, from the nearest to the first cause.
fn sources(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    fn below<'a>(error: &&'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
        (**error).source()
    }
    std::iter::successors(error.source(), below)
}

/// An exchange as errors name it.
pub(crate) struct ExchangeName<'a>(pub &'a ShortStr);

impl fmt::Display for ExchangeName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("the default exchange")
        } else {
            write!(f, "exchange \"{}\"", PeerText(self.0.as_bytes()))
        }
    }
}
