//! Text of the peer, made fit for an error or a log.

use std::fmt::{self, Write};

/// The most bytes that are shown; as many as a short string has at most.
const MOST: usize = 255;

/// Shows bytes that the peer sent as text: at most 255 of them, on one line, with replacement characters where they are not
/// UTF-8 and with control characters escaped. So a peer can neither flood a log nor forge lines in it.
pub(crate) struct PeerText<'a>(pub &'a [u8]);

impl fmt::Display for PeerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..MOST).unwrap_or(self.0);
        for character in String::from_utf8_lossy(shown).chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        if shown.len() < self.0.len() {
            write!(f, "… (cut: {} bytes in all)", self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_is_cut_and_stays_on_one_line() {
        assert_eq!(PeerText(b"a b").to_string(), "a b");
        assert_eq!(PeerText("é\n\x1b[1m".as_bytes()).to_string(), "é\\n\\u{1b}[1m");
        let long = PeerText(&vec![b'x'; 100_000]).to_string();
        assert!(long.len() < 300 && long.ends_with("x… (cut: 100000 bytes in all)"), "{long}");
    }
}
