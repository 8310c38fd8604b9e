//! What a channel keeps of a consumer, and what a refusal says about it.
//!
//! ```text
//!     ┌────────┐ ──pause──> ┌────────┐
//!     │ Wanted │            │ Paused │
//!     └────────┘ <─resume── └────────┘
//!          │ end                 │ end
//!          └────> ┌───────┐ <────┘
//!                 │ Ended │
//!                 └───────┘
//! ```
//!
//! A wanted consumer is started on each new link. Whether it runs there is not recorded: the single connection knows.

use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind};
use crate::protocol::constants;
use crate::single::{ConsumeSpec, StreamPosition, is_told};

/// How often in a row the server may refuse a consumer for a reason that does not go away by itself, until its stream ends.
const REFUSALS: u32 = 10;

/// What the user wants of a consumer.
#[derive(Debug, Default)]
enum Wish {
    #[default]
    Wanted,
    Paused,
    Ended(Ending),
}

/// The last item of a stream.
#[derive(Debug)]
enum Ending {
    None,
    Error(Error),
    /// It was taken.
    Taken,
}

/// What the channel keeps of a consumer beside its [`ConsumeSpec`].
#[derive(Debug, Default)]
pub(in crate::robust) struct ConsumerRecord {
    wish: Wish,
    /// Where it was changed.
    prefetch: Option<u16>,
    /// Behind the last message of a stream that was handed out: there it goes on.
    position: StreamPosition,
    /// How often in a row the server has refused it for good.
    refusals: u32,
}

impl ConsumerRecord {
    /// Whether it is to be started on a new link.
    pub(in crate::robust) fn is_wanted(&self) -> bool {
        matches!(self.wish, Wish::Wanted)
    }

    pub(in crate::robust) fn is_paused(&self) -> bool {
        matches!(self.wish, Wish::Paused)
    }

    pub(in crate::robust) fn has_ended(&self) -> bool {
        matches!(self.wish, Wish::Ended(_))
    }

    /// `Wanted` -> `Paused`.
    pub(in crate::robust) fn pause(&mut self) {
        if self.is_wanted() {
            self.wish = Wish::Paused;
        }
    }

    /// `Paused` -> `Wanted`. False: it was not paused.
    pub(in crate::robust) fn resume(&mut self) -> bool {
        let was_paused = self.is_paused();
        if was_paused {
            self.wish = Wish::Wanted;
        }
        was_paused
    }

    /// Anything -> `Ended`: the stream ends behind the deliveries that have arrived, with an error if there is one. Only the
    /// first call counts.
    pub(in crate::robust) fn end(&mut self, error: Option<Error>) {
        if !self.has_ended() {
            self.wish = Wish::Ended(error.map_or(Ending::None, Ending::Error));
        }
    }

    /// The stream's end, if it has ended: `Some(Some(error))` once, where it ends with an error.
    #[expect(clippy::option_option, reason = "the item of a stream, which is not there, or is the last")]
    pub(in crate::robust) fn take_end(&mut self) -> Option<Option<Error>> {
        let Wish::Ended(ending) = &mut self.wish else { return None };
        match std::mem::replace(ending, Ending::Taken) {
            Ending::Error(error) => Some(Some(error)),
            Ending::None | Ending::Taken => Some(None),
        }
    }

    /// The prefetch of its next start.
    pub(in crate::robust) fn set_prefetch(&mut self, prefetch: u16) {
        self.prefetch = Some(prefetch);
    }

    /// A message was handed out by a source that stands there.
    #[inline]
    pub(in crate::robust) fn handed_out(&mut self, position: StreamPosition) {
        self.position.follow(position);
    }

    /// What it is to be started with now; `queue`: what its queue is called now.
    pub(in crate::robust) fn spec(&self, spec: &ConsumeSpec, queue: Option<&ShortStr>) -> ConsumeSpec {
        let mut spec = spec.clone();
        spec.prefetch = self.prefetch.or(spec.prefetch);
        self.position.apply(&mut spec);
        if let Some(queue) = queue {
            spec.method.queue = queue.clone();
        }
        spec
    }

    /// The server has refused to start it. False: it is not to be tried again, since the server will go on to refuse it.
    pub(in crate::robust) fn refused(&mut self, spec: &ConsumeSpec, error: &Error) -> bool {
        match error.reply_code() {
            // one that is declared later begins anew
            Some(constants::NOT_FOUND)
                if error.reply_text().is_some_and(|text| text.contains("no queue")) =>
            {
                self.position = StreamPosition::Unknown;
            }
            // its messages had come from a stream, and were published to a queue, which does not take the argument
            Some(constants::PRECONDITION_FAILED) if !is_told(spec) => {
                self.position = StreamPosition::NoStream;
            }
            _ => {}
        }
        self.refusals = if is_final(error) { self.refusals + 1 } else { 0 };
        self.refusals < REFUSALS
    }

    /// It runs, or is about to be tried anew: refusals so far do not count any more.
    pub(in crate::robust) fn forgive(&mut self) {
        self.refusals = 0;
    }
}

/// What is done on a scratch channel before a consumer is started on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::robust) struct Probe {
    /// Declares the queue again, if that was recorded.
    pub declare: bool,
    /// Starts the consumer there, too. It may be given a message, which goes back, so this is only for those that were
    /// refused although their queue was there.
    pub trial: bool,
}

impl Probe {
    /// For a consumer that the server cancelled: whoever deleted its queue did not want it declared again here.
    pub(in crate::robust) const CANCELLED: Self = Self { declare: false, trial: false };

    /// For a consumer that was refused with this error during a restore.
    pub(in crate::robust) fn refused(error: &Error) -> Self {
        Self { declare: true, trial: error.reply_code() != Some(constants::NOT_FOUND) }
    }

    /// The queue could not be declared again.
    pub(in crate::robust) fn not_declared(&mut self, error: &Error) {
        // it is there, and another one
        self.declare = error.reply_code() != Some(constants::PRECONDITION_FAILED);
    }

    /// The server did not tell whether the queue is there.
    pub(in crate::robust) fn not_asked(&mut self, error: &Error) {
        // whoever may not ask for the queue may consume from it all the same
        self.trial = !is_absence(error);
    }
}

/// Whether the queue is missing, or is another connection's.
fn is_absence(error: &Error) -> bool {
    matches!(error.reply_code(), Some(constants::NOT_FOUND | constants::RESOURCE_LOCKED))
}

/// Whether the server refuses the consumer for a reason that does not go away by itself.
fn is_final(error: &Error) -> bool {
    let is_in_use = || error.reply_text().is_some_and(|text| text.contains("exclusive use"));
    error.kind() == ErrorKind::ChannelClosed && !is_absence(error) && !is_in_use()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::FieldValue;
    use crate::protocol::{Arguments, basic};

    fn spec() -> ConsumeSpec {
        ConsumeSpec { prefetch: Some(10), method: basic::Consume::default() }
    }

    fn refusal(code: u16, text: &str) -> Error {
        Error::new(ErrorKind::ChannelClosed, "").with_reply(code, text.to_owned(), basic::Consume::ID)
    }

    #[test]
    fn a_paused_consumer_is_not_started_and_an_ended_one_never() {
        let mut record = ConsumerRecord::default();
        assert!(record.is_wanted() && !record.resume());
        record.pause();
        assert!(!record.is_wanted() && record.resume() && record.is_wanted());
        record.end(None);
        record.pause();
        assert!(!record.resume() && !record.is_wanted() && record.has_ended());
    }

    #[test]
    fn a_stream_ends_once_and_its_first_end_counts() {
        let mut record = ConsumerRecord::default();
        assert!(record.take_end().is_none());
        record.end(Some(refusal(403, "first")));
        record.end(None);
        let first = record.take_end().unwrap();
        assert_eq!(first.unwrap().reply_text(), Some("first"));
        assert!(record.take_end().unwrap().is_none());
    }

    #[test]
    fn it_goes_on_where_its_stream_stands_with_its_last_prefetch_and_queue() {
        let mut record = ConsumerRecord::default();
        record.set_prefetch(20);
        record.handed_out(StreamPosition::Stream(Some(7)));
        let renamed = "new".try_into().unwrap();
        let started = record.spec(&spec(), Some(&renamed));
        assert_eq!((started.prefetch, &started.method.queue), (Some(20), &renamed));
        assert_eq!(started.method.arguments.get("x-stream-offset"), Some(&FieldValue::I64(7)));
        // the stream was deleted
        assert!(record.refused(&spec(), &refusal(404, "NOT_FOUND - no queue 'new' in vhost '/'")));
        assert!(record.spec(&spec(), None).method.arguments.is_empty());
    }

    #[test]
    fn only_a_refusal_that_does_not_go_away_ends_a_consumer() {
        let mut record = ConsumerRecord::default();
        let forbidden = refusal(403, "ACCESS_REFUSED");
        for passing in [
            refusal(404, "no queue"),
            refusal(405, "locked"),
            refusal(403, "queue 'q' in vhost '/' in exclusive use"),
        ] {
            assert!((1..REFUSALS).all(|_| record.refused(&spec(), &forbidden)));
            assert!((0..20).all(|_| record.refused(&spec(), &passing)), "{passing}");
        }
        assert!((1..REFUSALS).all(|_| record.refused(&spec(), &forbidden)));
        record.forgive();
        assert!((1..REFUSALS).all(|_| record.refused(&spec(), &forbidden)));
        assert!(!record.refused(&spec(), &forbidden));
    }

    #[test]
    fn a_probe_asks_for_no_more_than_the_last_refusal_requires() {
        assert_eq!(Probe::refused(&refusal(404, "")), Probe { declare: true, trial: false });
        let mut probe = Probe::refused(&refusal(403, ""));
        assert_eq!(probe, Probe { declare: true, trial: true });
        probe.not_declared(&refusal(406, "inequivalent"));
        assert!(!probe.declare);
        probe.not_asked(&refusal(404, "no queue"));
        assert!(!probe.trial);
    }
}
