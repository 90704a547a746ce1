use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::ledger::Fate;

/// One is added to some counters by one transaction, which leaves a mark as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// Names its mark; unique.
    pub mark: String,
    /// The counters.
    pub counters: Vec<String>,
    /// What became of it, in the end.
    pub fate: Fate,
}

/// Checks that every counter holds as much as additions to it came through, and that their marks and no others are there.
///
/// # Errors
/// Counters that hold something else, marks that are missing or should not be there, and additions that were not settled.
pub fn counted_once(
    additions: &[Addition],
    counters: &BTreeMap<String, u64>,
    marks: &BTreeSet<String>,
) -> Result<(), Findings> {
    let mut found = Vec::new();
    let mut expected: BTreeMap<&str, u64> = counters.keys().map(|counter| (counter.as_str(), 0)).collect();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for addition in additions {
        known.insert(&addition.mark);
        let is_there = marks.contains(&addition.mark);
        match (addition.fate, is_there) {
            (Fate::Unknown, _) => found.push(format!("what became of {} was not settled", addition.mark)),
            (Fate::Acknowledged, false) => found.push(format!("{} came through and left no mark", addition.mark)),
            (Fate::Refused, true) => found.push(format!("{} did not come through and left a mark", addition.mark)),
            (Fate::Acknowledged, true) | (Fate::Refused, false) => {}
        }
        if addition.fate == Fate::Acknowledged {
            addition.counters.iter().for_each(|counter| *expected.entry(counter).or_default() += 1);
        }
    }
    for (counter, expected) in expected {
        let held = counters.get(counter).copied().unwrap_or(0);
        if held != expected {
            found.push(format!("counter {counter} holds {held}; {expected} additions came through"));
        }
    }
    found.extend(marks.iter().filter(|mark| !known.contains(mark.as_str())).map(|mark| format!("nobody left {mark}")));
    Findings::none_of(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_holds_what_came_through_once_each() {
        use Fate::{Acknowledged, Refused, Unknown};
        let addition = |mark: &str, fate| Addition { mark: mark.into(), counters: vec!["c".into(), "d".into()], fate };
        let three = [addition("1", Acknowledged), addition("2", Refused), addition("3", Acknowledged)];
        let open = [addition("1", Acknowledged), addition("2", Unknown)];
        let table = [
            ("as it was", &three[..], [2, 2], &["1", "3"][..], true),
            ("one is lost", &three, [1, 2], &["1", "3"], false),
            ("one was counted twice", &three, [2, 3], &["1", "3"], false),
            ("a mark is lost", &three, [2, 2], &["1"], false),
            ("a refused one left a mark", &three, [2, 2], &["1", "2", "3"], false),
            ("a mark of nobody's", &three, [2, 2], &["1", "3", "4"], false),
            ("one is not settled", &open, [1, 1], &["1"], false),
        ];
        for (case, additions, [c, d], marks, fine) in table {
            let counters = BTreeMap::from([("c".to_owned(), c), ("d".to_owned(), d)]);
            let marks = marks.iter().map(|mark| (*mark).to_owned()).collect();
            assert_eq!(counted_once(additions, &counters, &marks).is_ok(), fine, "{case}");
        }
        // A counter that nobody found holds nothing.
        assert!(counted_once(&three[..1], &BTreeMap::new(), &BTreeSet::from(["1".to_owned()])).is_err());
    }
}
