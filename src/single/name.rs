//! Names of queues, which the server may make up anew.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::codec::ShortStr;

/// The name of a queue, as its handles see it: of a queue that is renamed they all see the new name.
///
/// A list that only grows at its end: who holds a part of it can borrow from all that comes later.
#[derive(Clone)]
pub(crate) struct Name {
    name: ShortStr,
    /// `None`: it never changes.
    next: Option<Arc<OnceLock<Name>>>,
}

impl Name {
    /// A name that stays.
    pub(crate) fn new(name: ShortStr) -> Self {
        Self { name, next: None }
    }

    /// A name that can be [replaced](Self::replace).
    pub(crate) fn replaceable(name: ShortStr) -> Self {
        Self { name, next: Some(Arc::default()) }
    }

    /// The name as of now.
    pub(crate) fn get(&self) -> &ShortStr {
        let mut last = self;
        while let Some(next) = last.next.as_ref().and_then(|next| next.get()) {
            last = next;
        }
        &last.name
    }

    /// Everybody who holds this name gets the new one, which is returned. For the newest part of the list.
    pub(crate) fn replace(&self, name: ShortStr) -> Self {
        let new = Self::replaceable(name);
        match &self.next {
            Some(next) => next.get_or_init(|| new).clone(),
            None => new,
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.get(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &str) -> ShortStr {
        ShortStr::try_from(name).unwrap()
    }

    #[test]
    fn whoever_holds_a_name_sees_the_newest() {
        let first = Name::replaceable(short("a"));
        let handle = first.clone();
        let second = first.replace(short("b"));
        let third = second.replace(short("c"));
        for name in [&first, &handle, &second, &third] {
            assert_eq!(name.get(), &short("c"));
        }
    }

    #[test]
    fn a_name_that_stays_stays() {
        let name = Name::new(short("a"));
        assert_eq!(name.replace(short("b")).get(), &short("b"));
        assert_eq!(name.get(), &short("a"));
    }
}
