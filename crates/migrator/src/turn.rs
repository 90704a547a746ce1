//! Whose turn it is, if many ranges are to be moved at once. Pure.

use drover_catalog::job::{JobPhase, SplitJob};

/// Whether `job`, which has not begun, may begin beside all that there are, if `at_once` may be copied at once. Those that were
/// started first come first. One that nobody wants to go on takes no turn, and so does one that only clears up.
pub fn may_begin<'a>(job: &SplitJob, all: impl IntoIterator<Item = &'a SplitJob>, at_once: usize) -> bool {
    let before = |other: &&SplitJob| match other.phase {
        _ if other.id == job.id || other.paused => false,
        JobPhase::Planned => other.id < job.id,
        JobPhase::Backfill | JobPhase::Fence | JobPhase::DeltaCopy | JobPhase::Cutover => true,
        JobPhase::Cleanup | JobPhase::Done | JobPhase::Abandoning | JobPhase::Abandoned | JobPhase::Failed => false,
    };
    all.into_iter().filter(before).count() < at_once
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_job::job;

    #[test]
    fn jobs_begin_in_the_order_in_which_they_were_started_while_there_is_room() {
        use JobPhase::{Abandoning, Backfill, Cleanup, Cutover, Done, Failed, Planned};
        let of = |id, phase| job(id, phase);
        let paused = |id, phase| SplitJob { paused: true, ..job(id, phase) };
        // The others, how many may be copied at once, whether job 5 may begin.
        let table = [
            (vec![], 1, true),
            (vec![of(4, Planned)], 1, false),
            (vec![of(6, Planned)], 1, true),
            (vec![of(4, Planned)], 2, true),
            (vec![of(6, Backfill)], 1, false),
            (vec![of(2, Backfill), of(3, Cutover), of(4, Planned)], 3, false),
            (vec![of(2, Backfill), of(3, Cutover), of(4, Planned)], 4, true),
            (vec![paused(2, Backfill), paused(3, Planned)], 1, true),
            (vec![of(1, Done), of(2, Cleanup), of(3, Failed), of(4, Abandoning)], 1, true),
        ];
        for (n, (others, at_once, expect)) in table.into_iter().enumerate() {
            let this = job(5, Planned);
            assert_eq!(may_begin(&this, others.iter().chain([&this]), at_once), expect, "case {n}");
        }
    }
}
