//! Refuses what this group does not own now, in part or in whole, and what it is giving up.

use drover_guards::{self as guards, Guard};
use drover_keys::Interval;
use drover_kv::{Refusal, RouteHint};

use crate::moving::Fence;
use crate::state::{GroupState, OwnedInterval};

/// The owned intervals that hold the whole footprint, ascending and adjacent.
///
/// # Errors
/// [`Refusal::CutoverPending`] if part of the footprint is changing hands; [`Refusal::RouteMoved`] if any part of it is not
/// owned.
pub fn judge<'a>(state: &'a GroupState, footprint: &Interval) -> Result<&'a [OwnedInterval], Refusal> {
    let closed = |fence: Fence| fence == Fence::Read && guards::on(Guard::ReadFence);
    if state.moves.leaving(footprint).any(|source| closed(source.fence)) {
        return Err(Refusal::CutoverPending);
    }
    match state.owner_of(footprint) {
        Some(owned) => Ok(owned),
        None if !guards::on(Guard::OwnerGate) => Ok(&state.owned),
        None if state.moves.arriving(footprint).next().is_some() => Err(Refusal::CutoverPending),
        None => {
            let hint = state.moves.gone(footprint).map(|gone| RouteHint { group: gone.group, version: gone.version });
            Err(Refusal::RouteMoved { hint })
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::{CatalogVersion, GroupId};

    use super::*;
    use crate::moving::tests_support::{import, source};
    use crate::moving::{Moves, Released, SourceJob};
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

    #[test]
    fn what_is_given_up_or_not_here_yet_is_refused_and_what_is_gone_has_a_hint() {
        let leaving = |fence| Moves { sources: vec![SourceJob { fence, ..source(1) }], ..Moves::default() };
        let arriving = || Moves { imports: vec![import(1)], ..Moves::default() };
        let gone = Released { interval: interval("c", "f"), group: GroupId(4), version: CatalogVersion(9) };
        let hint = Some(RouteHint { group: GroupId(4), version: CatalogVersion(9) });
        let (all, around) = (|| vec![owned("a", "", 1)], || vec![owned("a", "c", 1), owned("f", "", 1)]);
        // All of them are about c..f.
        let pending = || Some(Refusal::CutoverPending);
        let table = [
            ("before the read fence", all(), leaving(Fence::Sealed), None),
            ("behind it", all(), leaving(Fence::Read), pending()),
            ("copied here", around(), arriving(), pending()),
            ("gone", around(), Moves { released: vec![gone], ..Moves::default() }, Some(Refusal::RouteMoved { hint })),
            ("never here", around(), Moves::default(), Some(Refusal::RouteMoved { hint: None })),
        ];
        for (case, owned, moves, expect) in table {
            let state = GroupState { moves, ..state(owned) };
            for footprint in [interval("d", "d\0"), interval("b", "d"), interval("e", "g"), interval("a", "")] {
                assert_eq!(judge(&state, &footprint).err(), expect, "{case}: {footprint}");
            }
            assert!(judge(&state, &interval("a", "c")).is_ok() && judge(&state, &interval("f", "")).is_ok(), "{case}");
        }
    }
}
