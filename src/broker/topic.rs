//! The patterns of topic exchanges.

/// Whether a routing key matches a pattern: `*` stands for one word, `#` for any number of words, and
/// words end at dots.
pub(super) fn matches(pattern: &[u8], key: &[u8]) -> bool {
    let pattern: Vec<_> = pattern.split(|byte| *byte == b'.').collect();
    let key: Vec<_> = words(key);
    // which prefixes of the key the pattern so far can match
    let mut reached = vec![false; key.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    let pattern = if pattern == [b""] { Vec::new() } else { pattern };
    for part in pattern {
        let mut next = vec![false; key.len() + 1];
        if part == b"#" {
            let mut open = false;
            for (next, reached) in next.iter_mut().zip(&reached) {
                open |= *reached;
                *next = open;
            }
        } else {
            for ((next, reached), word) in next.iter_mut().skip(1).zip(&reached).zip(&key) {
                *next = *reached && (part == b"*" || part == *word);
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

/// An empty key has no words.
fn words(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() { Vec::new() } else { key.split(|byte| *byte == b'.').collect() }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn words_stars_and_hashes() {
        for (pattern, key, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("#", "", true),
            ("#", "a.b", true),
            ("*", "", false),
            ("#.z", "a.b.z", true),
            ("#.z", "z", true),
            ("#.*", "", false),
            ("a.#.z", "a.z", true),
            ("a.#.z", "a.b", false),
            ("a.#.#.z", "a.b.c.z", true),
            ("", "", true),
            ("", "a", false),
            ("a..b", "a..b", true),
            ("a.*.b", "a..b", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), key.as_bytes()), expected, "{pattern} {key}");
        }
    }

    #[test]
    fn many_hashes_take_no_exponential_time() {
        let pattern = ["#"; 120].join(".") + ".x";
        let key = ["a"; 120].join(".");
        assert!(!matches(pattern.as_bytes(), key.as_bytes()));
    }
}
