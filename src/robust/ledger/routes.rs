//! Where kept messages go: one record for all that follow each other and go the same way.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::codec::ShortStr;
use crate::single::Outbound;

/// By ascending sequence of the first message that goes there.
#[derive(Debug, Default)]
pub(super) struct Routes(VecDeque<(u64, Route)>);

#[derive(Clone, Debug)]
pub(in crate::robust) struct Route {
    pub exchange: ShortStr,
    pub routing_key: Bytes,
    pub mandatory: bool,
}

impl Routes {
    /// The next message goes there.
    pub(super) fn push(&mut self, sequence: u64, outbound: &Outbound<'_>) {
        if self.0.back().is_none_or(|(_, last)| !last.is_of(outbound)) {
            let routing_key = Bytes::copy_from_slice(outbound.routing_key.as_bytes());
            let route =
                Route { exchange: outbound.exchange.clone(), routing_key, mandatory: outbound.mandatory };
            self.0.push_back((sequence, route));
        }
    }

    /// Where a message goes that is kept.
    pub(super) fn get_mut(&mut self, sequence: u64) -> Option<&mut Route> {
        let after = self.0.partition_point(|(first, _)| *first <= sequence);
        self.0.get_mut(after.checked_sub(1)?).map(|(_, route)| route)
    }

    /// The same, to look at.
    pub(super) fn get(&self, sequence: u64) -> Option<&Route> {
        let after = self.0.partition_point(|(first, _)| *first <= sequence);
        self.0.get(after.checked_sub(1)?).map(|(_, route)| route)
    }

    /// Forgets what only messages before this one needed; the last stays, for the next message.
    pub(super) fn forget_before(&mut self, sequence: u64) {
        while self.0.get(1).is_some_and(|(first, _)| *first <= sequence) {
            self.0.pop_front();
        }
    }
}

impl Route {
    fn is_of(&self, outbound: &Outbound<'_>) -> bool {
        is_same(&self.routing_key, outbound.routing_key.as_bytes())
            && is_same(self.exchange.as_bytes(), outbound.exchange.as_bytes())
            && self.mandatory == outbound.mandatory
    }

    /// To the default exchange the key is a queue's name, and that may have changed.
    pub(super) fn rename(&mut self, rename: impl Fn(&ShortStr) -> Option<ShortStr>) {
        if !self.exchange.is_empty() {
            return;
        }
        let Ok(name) = ShortStr::try_from(self.routing_key.clone()) else { return };
        if let Some(name) = rename(&name) {
            self.routing_key = name.into_bytes();
        }
    }
}

/// Whether two names are the same. Empty ones are not looked at: where they would begin no memory need be, and glibc's
/// `memcmp` with AVX-512 then costs a hundred cycles.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

#[cfg(test)]
mod tests {
    use super::*;
    fn push(routes: &mut Routes, sequence: u64, routing_key: &str, mandatory: bool) {
        let (exchange, routing_key) = (&ShortStr::empty(), routing_key.into());
        let outbound = Outbound { exchange, routing_key, mandatory, awaited: false };
        routes.push(sequence, &outbound);
    }

    #[test]
    fn each_message_finds_its_route() {
        let mut routes = Routes::default();
        for (sequence, key, mandatory) in
            [(1, "a", false), (2, "a", false), (3, "b", false), (4, "b", true), (5, "", true), (6, "", true)]
        {
            push(&mut routes, sequence, key, mandatory);
        }
        assert_eq!(routes.0.len(), 4);
        routes.forget_before(3);
        assert_eq!(routes.0.len(), 3);
        let mut found = |sequence| {
            let route = routes.get_mut(sequence)?;
            Some((route.routing_key.clone(), route.mandatory))
        };
        assert_eq!(found(2), None);
        assert_eq!(found(3), Some((Bytes::from_static(b"b"), false)));
        assert_eq!(found(4), Some((Bytes::from_static(b"b"), true)));
        assert_eq!(found(6), Some((Bytes::new(), true)));
        routes.forget_before(100);
        assert_eq!(routes.0.len(), 1);
    }
}
