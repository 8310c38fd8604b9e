//! Targets `frame` and `frame_splits`: bytes to frames.

use bytes::BytesMut;

use crate::codec::frame::{Cut, Cutter, OVERHEAD};

/// Splitting the input in two gives the same frames, the same fault and the same rest as no split. Where to split is
/// up to the input's last octets.
pub fn frame(data: &[u8]) {
    let at = data.iter().rev().take(2).fold(data.len(), |at, octet| at << 8 | usize::from(*octet));
    let (one, two) = data.split_at(at % (data.len() + 1));
    for cutter in cutters() {
        Whole::of(cutter, data).is_the_same_in([one, two]);
    }
}

/// Like [`frame`], with every frame arriving octet by octet, and in pieces of each size up to 16.
///
/// Some hundred times slower than [`frame`].
pub fn frame_splits(data: &[u8]) {
    for cutter in cutters() {
        let whole = Whole::of(cutter, data);
        for size in 1..=16 {
            whole.is_the_same_in(data.chunks(size));
        }
    }
}

/// Before tune, and with the smallest `frame_max`.
fn cutters() -> [Cutter; 2] {
    [Cutter::provisional(), Cutter::agreed(4096)]
}

/// What a cutter makes of some input that arrives all at once.
struct Whole {
    cutter: Cutter,
    cut: Cut,
    rest: BytesMut,
}

impl Whole {
    fn of(cutter: Cutter, data: &[u8]) -> Self {
        let mut rest = BytesMut::from(data);
        let cut = cutter.cut(&mut rest);
        let taken: usize = cut.frames.frames().map(|frame| frame.payload.len() + OVERHEAD).sum();
        assert_eq!(taken + rest.len(), data.len(), "octets were lost or made up");
        Self { cutter, cut, rest }
    }

    /// Frames are compared as they come, so that the comparison allocates nothing.
    fn is_the_same_in<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        let mut expected = self.cut.frames.frames();
        let (mut fault, mut input) = (None, BytesMut::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            if fault.is_some() {
                continue;
            }
            let cut = self.cutter.cut(&mut input);
            for frame in cut.frames.frames() {
                let same = expected.next().is_some_and(|expected| {
                    frame.kind == expected.kind
                        && frame.channel == expected.channel
                        && frame.payload == expected.payload
                });
                assert!(same, "another frame than without a split: {frame:?}");
            }
            fault = cut.fault;
        }
        assert!(expected.next().is_none(), "a frame is missing");
        assert_eq!((fault, &*input), (self.cut.fault, &*self.rest));
    }
}
