use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is going on while clients run, as a number that only grows: 0 is the warm-up, 1 the baseline, 3 the first move, 5 the
/// second, and so on; an even number is the time between, in which nothing counts. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stage(Arc<AtomicU64>);

/// The stage in which clients run without a move.
pub(crate) const BASELINE: u64 = 1;

impl Stage {
    /// Begins what counts next (the baseline, then one move after the other), or ends it.
    pub fn advance(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The moves, counted from 0, that overlap a request which began at one stage and ended at another.
pub(crate) fn moves_between(began: u64, ended: u64) -> impl Iterator<Item = usize> {
    (began.max(BASELINE + 1)..=ended).filter(|stage| stage % 2 == 1).map(|stage| ((stage - 3) / 2) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_overlaps_the_moves_that_were_under_way_at_any_time_of_it() {
        let table: [(u64, u64, &[usize]); 8] = [
            (0, 0, &[]),
            (0, 1, &[]),
            (1, 2, &[]),
            (2, 3, &[0]),
            (3, 3, &[0]),
            (3, 4, &[0]),
            (4, 4, &[]),
            (0, 7, &[0, 1, 2]),
        ];
        for (began, ended, moves) in table {
            assert_eq!(moves_between(began, ended).collect::<Vec<_>>(), moves, "{began} to {ended}");
        }
    }
}
