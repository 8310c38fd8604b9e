//! What the attempts of one outage learn about requests that the server does not survive or answer.

use std::collections::HashMap;

use super::entity::Entity;
use crate::error::{Error, ErrorKind};
use crate::protocol::MethodId;

/// What earlier attempts of the same outage have learnt.
#[derive(Debug, Default)]
pub(in crate::robust) struct Lessons {
    /// Something closed the whole connection, or was not answered: one request after the other, to see which it is.
    one_by_one: bool,
    /// Requests are under way on several channels at the same time.
    several: bool,
    /// What was not answered last.
    unanswered: Option<Entity>,
    /// What closed the connection, or was not answered again.
    poison: HashMap<Entity, Error>,
}

impl Lessons {
    /// Why this is not to be tried: it closed the whole connection before, or was not answered.
    pub(in crate::robust) fn against(&self, entity: &Entity) -> Option<Error> {
        self.poison.get(entity).cloned()
    }

    /// Whether each request waits for the answer to the one before it.
    pub(in crate::robust) fn one_by_one(&self) -> bool {
        self.one_by_one
    }

    /// From now on requests are under way on several channels at the same time, or not any more. While they are, a
    /// close of the connection cannot be blamed on one of them.
    pub(in crate::robust) fn set_several(&mut self, several: bool) {
        self.several = several;
    }

    /// The link was lost while this request was under way, perhaps because of it; or it was not answered, which is to
    /// blame the second time in a row, since a link that has fallen silent answers nothing.
    pub(in crate::robust) fn learn(&mut self, entity: Entity, request: MethodId, error: &Error) {
        let closed = error.kind() == ErrorKind::ConnectionClosed && error.method() == Some(request);
        let unanswered = error.kind() == ErrorKind::Timeout;
        if closed && self.several {
            self.one_by_one = true;
            return;
        }
        self.one_by_one |= unanswered;
        if closed || (unanswered && self.unanswered.as_ref() == Some(&entity)) {
            self.poison.insert(entity, error.clone());
        } else if unanswered {
            self.unanswered = Some(entity);
        }
    }

    /// As [`learn`](Self::learn), of several requests.
    pub(in crate::robust) fn learn_of_many(&mut self, error: &Error) {
        let closed = error.kind() == ErrorKind::ConnectionClosed && error.method().is_some();
        self.one_by_one |= closed || error.kind() == ErrorKind::Timeout;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Arguments, basic};

    const CONSUME: MethodId = <basic::Consume as Arguments>::ID;

    fn consumer(tag: &str) -> Entity {
        let name = |name: &str| name.try_into().unwrap_or_default();
        Entity::Consumer { queue: name("q"), tag: name(tag) }
    }

    #[test]
    fn a_close_is_blamed_on_a_request_that_was_alone() {
        let mut lessons = Lessons::default();
        let closed = Error::new(ErrorKind::ConnectionClosed, "").with_reply(541, String::new(), CONSUME);
        lessons.set_several(true);
        lessons.learn(consumer("a"), CONSUME, &closed);
        assert!(lessons.one_by_one() && lessons.against(&consumer("a")).is_none());
        lessons.set_several(false);
        lessons.learn(consumer("b"), CONSUME, &closed);
        assert!(lessons.against(&consumer("a")).is_none() && lessons.against(&consumer("b")).is_some());
    }
}
