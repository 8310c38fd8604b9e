//! The first bytes of a server, which tell whether it speaks the protocol at all.

/// What the first bytes mean, where they are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// A protocol header: the server wants another version, as `[id, major, minor, revision]`.
    Version([u8; 4]),
    /// A TLS record.
    Tls,
    /// An HTTP response.
    Http,
}

/// Looks at what has arrived so far. `None`: it may be a frame, or too little has come to tell.
pub(crate) fn mismatch(first: &[u8]) -> Option<Mismatch> {
    match first {
        [b'A', b'M', b'Q', b'P', id, major, minor, revision, ..] => {
            Some(Mismatch::Version([*id, *major, *minor, *revision]))
        }
        // an alert, or a handshake, of any version of TLS or SSL 3
        [0x15 | 0x16, 3, ..] => Some(Mismatch::Tls),
        [b'H', b'T', b'T', b'P', b'/', ..] => Some(Mismatch::Http),
        _ => None,
    }
}

/// Whether more bytes are needed to tell a mismatch from a frame.
pub(crate) fn undecided(first: &[u8]) -> bool {
    let starts = |long: &[u8]| first.len() < long.len() && long.starts_with(first);
    first.is_empty()
        || starts(b"HTTP/")
        || starts(b"AMQP")
        || (first.starts_with(b"AMQP") && first.len() < 8)
        || starts(&[0x15, 3])
        || starts(&[0x16, 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a13_a_protocol_header_is_told_from_a_frame() {
        assert_eq!(mismatch(b"AMQP\x00\x00\x09\x01"), Some(Mismatch::Version([0, 0, 9, 1])));
        assert_eq!(mismatch(b"AMQP\x03\x01\x00\x00"), Some(Mismatch::Version([3, 1, 0, 0])));
        assert!(undecided(b"AMQP\x03\x01\x00"));
        assert!(undecided(b"A"));
    }

    #[test]
    fn a14_tls_and_http_are_recognised() {
        assert_eq!(mismatch(&[0x15, 3, 3, 0, 2]), Some(Mismatch::Tls));
        assert_eq!(mismatch(b"HTTP/1.1 400 Bad Request"), Some(Mismatch::Http));
        assert!(undecided(b"HTT"));
    }

    #[test]
    fn a_method_frame_is_none_of_them() {
        let start = [1, 0, 0, 0, 0, 1, 0];
        assert_eq!(mismatch(&start), None);
        assert!(!undecided(&start[..1]));
    }
}
