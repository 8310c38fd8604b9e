//! Where a consumer of a stream stands, so that it goes on there when it is started again.

use super::outbound::ConsumeSpec;
use crate::mux::incoming_delivery::{Delivery, STREAM_OFFSET};

/// How far a consumer has got in its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StreamPosition {
    /// The first delivery tells whether it consumes from a stream.
    #[default]
    Unknown,
    /// It does not, so no delivery is looked at.
    NoStream,
    /// It consumes from a stream, and this is the offset of the message that comes next, once one was handed out.
    Stream(Option<i64>),
}

impl StreamPosition {
    /// Before the first delivery.
    pub(crate) fn at_start(spec: &ConsumeSpec) -> Self {
        if is_told(spec) { Self::Stream(None) } else { Self::Unknown }
    }

    /// A message is handed out.
    #[inline]
    pub(crate) fn pass(&mut self, delivery: &Delivery) {
        if *self != Self::NoStream {
            self.read(delivery);
        }
    }

    #[cold]
    fn read(&mut self, delivery: &Delivery) {
        match (&self, delivery.stream_offset()) {
            (_, Some(offset)) => *self = Self::Stream(offset.checked_add(1)),
            (Self::Unknown, None) => *self = Self::NoStream,
            // a message whose headers cannot be read
            (_, None) => {}
        }
    }

    /// Takes over what another consumer, which has followed this one, knows better.
    #[inline]
    pub(crate) fn follow(&mut self, other: Self) {
        if let (Self::Unknown | Self::Stream(_), Self::Stream(Some(_))) = (&self, other) {
            *self = other;
        }
    }

    /// Has a consumer start here; where nothing was handed out yet, it starts where it was told to.
    pub(crate) fn apply(self, spec: &mut ConsumeSpec) {
        if let Self::Stream(Some(offset)) = self {
            // cannot fail: the name is short, and every `i64` fits
            drop(spec.method.arguments.insert(STREAM_OFFSET, offset));
        }
    }
}

/// Whether a consumer was told where in a stream to begin.
pub(crate) fn is_told(spec: &ConsumeSpec) -> bool {
    spec.method.arguments.get(STREAM_OFFSET).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::FieldValue;
    use crate::codec::generated::basic;

    fn spec() -> ConsumeSpec {
        ConsumeSpec { prefetch: None, method: basic::Consume::default() }
    }

    #[test]
    fn only_an_offset_that_was_handed_out_changes_the_start() {
        let mut told = spec();
        told.method.arguments.insert(STREAM_OFFSET, "first").unwrap();
        let mut position = StreamPosition::at_start(&told);
        position.apply(&mut told);
        assert_eq!(told.method.arguments.get(STREAM_OFFSET), Some(&"first".into()));
        position.follow(StreamPosition::Unknown);
        position.follow(StreamPosition::Stream(Some(7)));
        position.follow(StreamPosition::Stream(None));
        position.apply(&mut told);
        assert_eq!(told.method.arguments.get(STREAM_OFFSET), Some(&FieldValue::I64(7)));
        assert_eq!(told.method.arguments.len(), 1);
    }

    #[test]
    fn a_consumer_of_no_stream_starts_as_before() {
        let mut spec = spec();
        assert_eq!(StreamPosition::at_start(&spec), StreamPosition::Unknown);
        for position in [StreamPosition::Unknown, StreamPosition::NoStream] {
            position.apply(&mut spec);
            assert!(spec.method.arguments.is_empty());
        }
    }
}
