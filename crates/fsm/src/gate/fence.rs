//! Refuses writes into a range that is about to change hands.

use drover_guards::{self as guards, Guard};
use drover_keys::Interval;
use drover_kv::Refusal;

use crate::moving::Fence;
use crate::state::GroupState;

/// When to look again: a fence stands for some ten milliseconds.
const RETRY_AFTER_MS: u64 = 10;

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A write or a prepare.
    New,
    /// The end of a transaction that has prepared, or the word that it has none: how a fence drains.
    Settling,
}

/// Lets a write of `class` pass that no fence in the way of `footprint` holds back.
///
/// # Errors
/// [`Refusal::RouteFenced`].
pub fn judge(state: &GroupState, footprint: &Interval, class: Class) -> Result<(), Refusal> {
    let held_from = match class {
        Class::New => Fence::Written,
        Class::Settling => Fence::Sealed,
    };
    let holds = |fence: Fence| fence >= held_from && guards::on(Guard::WriteFenceGate);
    match state.moves.leaving(footprint).any(|source| holds(source.fence)) {
        true => Err(Refusal::RouteFenced { retry_after_ms: RETRY_AFTER_MS }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moving::{Moves, SourceJob, tests_support::source};
    use crate::state::tests::{interval, owned, state};

    #[test]
    fn a_fence_holds_back_new_writes_and_a_sealed_range_all() {
        let refused = Err(Refusal::RouteFenced { retry_after_ms: RETRY_AFTER_MS });
        // How far c..f is closed; then a new write and the end of a transaction.
        let table = [
            (Fence::Open, true, true),
            (Fence::Written, false, true),
            (Fence::Sealed, false, false),
            (Fence::Read, false, false),
        ];
        for (fence, new, settling) in table {
            let sources = vec![SourceJob { fence, ..source(1) }];
            let state = GroupState { moves: Moves { sources, ..Moves::default() }, ..state(vec![owned("a", "", 1)]) };
            for (start, end, inside) in [("a", "c", false), ("b", "c\0", true), ("d", "e", true), ("f", "", false)] {
                let footprint = interval(start, end);
                let expect = |passes: bool| if passes || !inside { Ok(()) } else { refused.clone() };
                assert_eq!(judge(&state, &footprint, Class::New), expect(new), "{fence:?} {footprint}");
                assert_eq!(judge(&state, &footprint, Class::Settling), expect(settling), "{fence:?} {footprint}");
            }
        }
    }
}
