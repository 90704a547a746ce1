//! Refuses what this group does not own now, in part or in whole.

use drover_guards::{self as guards, Guard};
use drover_keys::Interval;
use drover_kv::Refusal;

use crate::state::{GroupState, OwnedInterval};

/// The owned intervals that hold the whole footprint, ascending and adjacent.
///
/// # Errors
/// [`Refusal::RouteMoved`] if any part of the footprint is not owned.
pub fn judge<'a>(state: &'a GroupState, footprint: &Interval) -> Result<&'a [OwnedInterval], Refusal> {
    match state.owner_of(footprint) {
        Some(owned) => Ok(owned),
        None if guards::on(Guard::OwnerGate) => Err(Refusal::RouteMoved { hint: None }),
        None => Ok(&state.owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::{interval, owned, state};

    #[test]
    fn every_part_of_a_footprint_must_be_owned() {
        let gapless = || state(vec![owned("b", "f", 1), owned("f", "k", 2), owned("p", "", 3)]);
        let table = [
            ("a point inside", interval("c", "c\0"), Some(1)),
            ("the first key", interval("b", "b\0"), Some(1)),
            ("the first key of the second interval", interval("f", "f\0"), Some(1)),
            ("the end is not inside", interval("k", "k\0"), None),
            ("below everything", interval("a", "a\0"), None),
            ("in the gap", interval("m", "n"), None),
            ("across two adjacent intervals", interval("c", "g"), Some(2)),
            ("exactly two adjacent intervals", interval("b", "k"), Some(2)),
            ("starts left of the boundary", interval("a", "c"), None),
            ("ends one key right of the boundary", interval("c", "k\0"), None),
            ("across the gap", interval("c", "q"), None),
            ("unbounded inside an unbounded interval", interval("q", ""), Some(1)),
            ("unbounded where the last bound is a key", interval("c", ""), None),
            ("the smallest key is not the unbounded end", interval("", "a"), None),
        ];
        for (case, footprint, expect) in table {
            let state = gapless();
            let got = judge(&state, &footprint).map(<[_]>::len);
            assert_eq!(got, expect.ok_or(Refusal::RouteMoved { hint: None }), "{case}");
        }
    }

    #[test]
    fn a_group_without_a_grant_owns_nothing() {
        assert!(judge(&GroupState::default(), &interval("a", "b")).is_err());
        assert!(judge(&GroupState::default(), &Interval::all()).is_err());
    }
}
