//! Twenty applications and one that takes their reports.

use std::collections::HashMap;

use crate::case::test;
use crate::program::start;

#[test]
fn nothing_is_lost_although_every_link_is_cut() {
    test(async |_| {
        let lines = start("central", &["--apps", "10", "--messages", "100"]).end().await.well();
        let tally: HashMap<&str, u64> = lines
            .iter()
            .map(|line| {
                let (what, number) = line.rsplit_once(' ').unwrap();
                (what.trim(), number.parse().unwrap())
            })
            .collect();
        for (what, number) in [("sent", 1000), ("confirmed", 1000), ("received", 1000), ("lost", 0)] {
            assert_eq!(tally[what], number, "{what}");
        }
        assert_eq!(tally["out of order"], 0);
        assert!(tally["reconnects"] > 30, "{lines:?}");
    });
}
