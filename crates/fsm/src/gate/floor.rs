//! Refuses commit timestamps that are not above all that has been served.

use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_kv::Refusal;

use crate::state::{GroupState, OwnedInterval};

/// Whether the newest version of the footprint's keys has to be looked up. At a timestamp above every version of the
/// group there is nothing to find.
pub fn needs_newest(state: &GroupState, commit_ts: Timestamp) -> bool {
    commit_ts <= state.max_commit_ts
}

/// Lets a commit timestamp pass that is above `read_floor`, above floor and safe point of each of `owned`, and above
/// `newest`, the newest version of the keys (`None`: there is none, or none can be in the way).
///
/// The answer does not depend on garbage collection: a version that may be gone lies at or below the safe point, and
/// the safe point alone then refuses, with a floor at least as high.
///
/// # Errors
/// [`Refusal::TimestampTooLow`] with the highest of them.
pub fn judge(
    state: &GroupState,
    owned: &[OwnedInterval],
    newest: Option<Timestamp>,
    commit_ts: Timestamp,
) -> Result<(), Refusal> {
    let floors = [
        (Guard::FloorOfOwnership, owned.iter().map(|o| o.floor_ts).max()),
        (Guard::FloorOfSafePoint, owned.iter().map(|o| o.safe_point).max()),
        (Guard::FloorOfReads, Some(state.read_floor)),
        (Guard::FloorOfNewestVersion, newest),
    ];
    let floor = floors.into_iter().filter(|(guard, _)| guards::on(*guard)).filter_map(|(_, floor)| floor).max();
    let floor = floor.unwrap_or_default();
    if commit_ts > floor { Ok(()) } else { Err(Refusal::TimestampTooLow { floor }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::{owned, state, ts};

    #[test]
    fn a_commit_must_lie_strictly_above_every_floor() {
        // floor_ts, safe_point, read_floor, newest, commit, expected floor of a refusal
        let table = [
            ("nothing in the way", 0, 0, 0, None, 1, None),
            ("zero is never a commit timestamp", 0, 0, 0, None, 0, Some(0)),
            ("at the floor of the ownership", 5, 0, 0, None, 5, Some(5)),
            ("above the floor of the ownership", 5, 0, 0, None, 6, None),
            ("at the safe point", 0, 5, 0, None, 5, Some(5)),
            ("above the safe point", 0, 5, 0, None, 6, None),
            ("at the read floor", 0, 0, 5, None, 5, Some(5)),
            ("above the read floor", 0, 0, 5, None, 6, None),
            ("at the newest version", 0, 0, 0, Some(5), 5, Some(5)),
            ("above the newest version", 0, 0, 0, Some(5), 6, None),
            ("the highest is reported", 3, 4, 9, Some(7), 2, Some(9)),
            ("a version that GC may drop changes nothing", 0, 9, 0, Some(7), 2, Some(9)),
            ("and neither does its absence", 0, 9, 0, None, 2, Some(9)),
        ];
        for (case, floor_ts, safe_point, read_floor, newest, commit, refused) in table {
            let owned = OwnedInterval { floor_ts: ts(floor_ts), safe_point: ts(safe_point), ..owned("a", "b", 1) };
            let state = GroupState { read_floor: ts(read_floor), ..state(vec![owned.clone()]) };
            let expect = refused.map_or(Ok(()), |floor| Err(Refusal::TimestampTooLow { floor: ts(floor) }));
            assert_eq!(judge(&state, &[owned], newest.map(ts), ts(commit)), expect, "{case}");
        }
    }

    #[test]
    fn one_high_floor_of_a_wide_footprint_is_enough() {
        let high = OwnedInterval { floor_ts: ts(8), ..owned("b", "c", 1) };
        let wide = [owned("a", "b", 1), high];
        assert!(judge(&state(wide.to_vec()), &wide, None, ts(8)).is_err());
        assert!(judge(&state(wide.to_vec()), &wide, None, ts(9)).is_ok());
    }

    #[test]
    fn versions_are_looked_up_only_at_or_below_the_highest_commit() {
        let state = GroupState { max_commit_ts: ts(5), ..state(vec![]) };
        assert!(needs_newest(&state, ts(5)));
        assert!(!needs_newest(&state, ts(6)));
    }
}
