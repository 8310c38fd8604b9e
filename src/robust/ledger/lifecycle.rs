//! Where a connection or one of its channels stands.
//!
//! ```text
//!                 establish           retire, resume
//!     ┌──────┐ ─────────────> ┌──────┐ ─────────────> ┌──────────┐
//!     │ Down │                │  Up  │ <───────────── │ Retiring │
//!     └──────┘ <───────────── └──────┘                └──────────┘
//!        │ ^        lose         │                       │    │
//!        │ └─────────────────────┼───────────────────────┘    │
//!        │ end                   │ end                    end │
//!        └──────> ┌───────┐ <────┴────────────────────────────┘
//!                 │ Ended │
//!                 └───────┘
//! ```
//!
//! A channel is `Retiring` after a call on it was not answered: what is under way on its single channel is finished, and nothing
//! new begins there. It resumes if the answer comes after all.
//!
//! A connection is `Down` during attempts and during the restore: nobody but the restore may use its link. Each loss begins a
//! new [`Incarnation`]; whatever belongs to an older one is stale.

use crate::error::Error;

/// Which link of a connection, and which opening of a channel on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::robust) struct Incarnation {
    link: u64,
    opening: u64,
}

impl Incarnation {
    const FIRST: Self = Self { link: 1, opening: 1 };

    /// Whether no link was lost so far.
    pub(in crate::robust) fn is_first_link(self) -> bool {
        self.link == 1
    }

    /// Whether both are on the same link.
    pub(in crate::robust) fn is_on(self, link: Self) -> bool {
        self.link == link.link
    }
}

/// What there is at the moment.
#[derive(Debug)]
pub(in crate::robust) enum Phase<T> {
    /// Nothing, and why.
    Down(Error),
    Up(T),
    /// What finishes only what it has begun, and why.
    Retiring(T, Error),
    /// Nothing any more, and why.
    Ended(Error),
}

impl<T> Phase<T> {
    /// What is up, or retiring.
    pub(in crate::robust) fn up(&self) -> Option<&T> {
        match self {
            Self::Up(thing) | Self::Retiring(thing, _) => Some(thing),
            Self::Down(_) | Self::Ended(_) => None,
        }
    }

    fn into_up(self) -> Option<T> {
        match self {
            Self::Up(thing) | Self::Retiring(thing, _) => Some(thing),
            Self::Down(_) | Self::Ended(_) => None,
        }
    }
}

/// The phase of a connection (`T` is its link) or of a channel (`T` is its single channel). It changes by the transitions of the
/// drawing, and by no others.
#[derive(Debug)]
pub(in crate::robust) struct Lifecycle<T> {
    phase: Phase<T>,
    incarnation: Incarnation,
}

impl<T> Lifecycle<T> {
    /// A connection that has had no link yet.
    pub(in crate::robust) fn down(why: Error) -> Self {
        Self { phase: Phase::Down(why), incarnation: Incarnation::FIRST }
    }

    /// A channel that was just opened on this link.
    pub(in crate::robust) fn opened(thing: T, link: Incarnation) -> Self {
        Self { phase: Phase::Up(thing), incarnation: Incarnation { link: link.link, opening: 1 } }
    }

    #[inline]
    pub(in crate::robust) fn phase(&self) -> &Phase<T> {
        &self.phase
    }

    pub(in crate::robust) fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down(_))
    }

    pub(in crate::robust) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// The one that is up, or the next one.
    pub(in crate::robust) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// `Down` -> `Up`, on this link. An error gives back what is not needed: there is one already, or none any more.
    pub(in crate::robust) fn establish(&mut self, thing: T, link: Incarnation) -> Result<Incarnation, T> {
        if !self.is_down() {
            return Err(thing);
        }
        self.incarnation.link = link.link;
        self.phase = Phase::Up(thing);
        Ok(self.incarnation)
    }

    /// Nothing new is to begin: `Up` -> `Retiring`. False: it is not up.
    pub(in crate::robust) fn retire(&mut self, why: &Error) -> bool {
        let Phase::Up(_) = self.phase else { return false };
        // `Down` for as long as it takes to wrap it up again
        let phase = std::mem::replace(&mut self.phase, Phase::Down(why.clone()));
        self.phase = match phase {
            Phase::Up(thing) => Phase::Retiring(thing, why.clone()),
            other => other,
        };
        true
    }

    /// The reason is gone: `Retiring` -> `Up`.
    pub(in crate::robust) fn resume(&mut self) {
        if let Phase::Retiring(_, why) = &self.phase {
            let phase = Phase::Down(why.clone());
            if let Phase::Retiring(thing, _) = std::mem::replace(&mut self.phase, phase) {
                self.phase = Phase::Up(thing);
            }
        }
    }

    /// A link was lost: `Up` -> `Down`.
    pub(in crate::robust) fn lose_link(&mut self, why: &Error) -> Option<T> {
        let lost = self.lose(why)?;
        self.incarnation.link += 1;
        Some(lost)
    }

    /// A channel was lost: `Up` or `Retiring` -> `Down`.
    pub(in crate::robust) fn lose(&mut self, why: &Error) -> Option<T> {
        self.phase.up()?;
        self.incarnation.opening += 1;
        std::mem::replace(&mut self.phase, Phase::Down(why.clone())).into_up()
    }

    /// Anything -> `Ended`; the first reason counts. Returns what was up.
    pub(in crate::robust) fn end(&mut self, why: &Error) -> Option<T> {
        if self.has_ended() {
            return None;
        }
        self.incarnation.opening += 1;
        std::mem::replace(&mut self.phase, Phase::Ended(why.clone())).into_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn error(text: &str) -> Error {
        Error::new(ErrorKind::ConnectionLost, text.to_owned())
    }

    #[test]
    fn a_connection_gets_one_link_after_the_other() {
        let mut connection = Lifecycle::down(error("none yet"));
        let first = connection.incarnation();
        assert!(first.is_first_link() && connection.is_down());
        assert_eq!(connection.establish('a', first), Ok(first));
        assert_eq!(connection.establish('b', first), Err('b'), "there is one");
        assert_eq!(connection.lose_link(&error("lost")), Some('a'));
        assert_eq!(connection.lose_link(&error("again")), None, "it is lost already");
        let second = connection.incarnation();
        assert!(!second.is_first_link() && !second.is_on(first));
    }

    #[test]
    fn a_channel_that_is_opened_again_on_its_link_stays_on_it() {
        let link = Lifecycle::<char>::down(error("none yet")).incarnation();
        let mut channel = Lifecycle::opened('a', link);
        let first = channel.incarnation();
        assert_eq!(channel.lose(&error("closed")), Some('a'));
        let second = channel.establish('b', link).unwrap();
        assert!(second != first && second.is_on(first));
    }

    #[test]
    fn what_retires_is_there_until_it_is_lost() {
        let mut channel = Lifecycle::opened('a', Incarnation::FIRST);
        let open = channel.incarnation();
        assert!(channel.retire(&error("not answered")));
        assert!(!channel.retire(&error("again")), "it does already");
        assert_eq!((channel.phase().up(), channel.incarnation()), (Some(&'a'), open));
        assert!(matches!(channel.phase(), Phase::Retiring('a', why) if why.to_string() == "not answered"));
        assert_eq!(channel.establish('b', Incarnation::FIRST), Err('b'), "there is one");
        channel.resume();
        assert!(matches!(channel.phase(), Phase::Up('a')) && channel.incarnation() == open);
        assert!(channel.retire(&error("not answered")));
        assert_eq!(channel.lose(&error("closed")), Some('a'));
        channel.resume();
        assert!(channel.is_down());
        assert!(!channel.retire(&error("late")), "it is down");
        assert!(channel.establish('b', Incarnation::FIRST).is_ok());
        assert!(channel.retire(&error("again")));
        assert_eq!(channel.end(&error("over")), Some('b'));
    }

    #[test]
    fn the_end_is_final_and_its_first_reason_counts() {
        let mut channel = Lifecycle::opened('a', Incarnation::FIRST);
        let open = channel.incarnation();
        assert_eq!(channel.end(&error("first")), Some('a'));
        assert_eq!(channel.end(&error("second")), None);
        assert_eq!(channel.establish('b', Incarnation::FIRST), Err('b'));
        assert_eq!(channel.lose(&error("third")), None);
        assert_ne!(channel.incarnation(), open);
        assert!(matches!(channel.phase(), Phase::Ended(error) if error.to_string() == "first"));
    }
}
