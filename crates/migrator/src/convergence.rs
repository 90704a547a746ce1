//! Whether a copy gains on the writers of its range, and how much they are slowed down if it does not. Pure.

use std::time::Duration;

/// Writers are not slowed down below this, if the node's settings do not say otherwise, in bytes a second.
pub const SLOWEST_WRITERS: u64 = 64 << 10;

/// What has happened while a part of the source's list was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundOutcome {
    /// Bytes that were written into the range meanwhile.
    pub written_bytes: u64,
    /// Bytes of the list that were copied.
    pub copied_bytes: u64,
    /// How long that took, with all that pacing costs.
    pub took: Duration,
}

/// A round that is over sooner says little about rates.
const TELLING: Duration = Duration::from_millis(500);

impl RoundOutcome {
    /// Whether the round was long enough to judge the writers by it.
    pub fn tells(&self) -> bool {
        self.took >= TELLING
    }

    /// Whether the copy gains on the writers, by a quarter of what it copies at least.
    pub fn converges(&self) -> bool {
        u128::from(self.written_bytes) * 4 <= u128::from(self.copied_bytes) * 3
    }

    /// Bytes a second that were copied.
    fn copied_per_second(&self) -> u64 {
        per_second(self.copied_bytes, self.took)
    }

    /// Bytes a second that were written.
    pub fn written_per_second(&self) -> u64 {
        per_second(self.written_bytes, self.took)
    }
}

fn per_second(bytes: u64, took: Duration) -> u64 {
    (bytes as f64 / took.as_secs_f64().max(1e-6)) as u64
}

/// How fast the writers of the range may be after a round, in bytes a second, if they may be `limit` fast so far; `None`: as fast
/// as they are. `slowest`: not below this; zero: they are never slowed down.
///
/// Half of what was copied leaves the other half for what is behind, so each round that keeps to it halves the rest. If one does not
/// keep to it (rows weigh more than what is counted, or more writers wait than a leader holds back), half of the limit is tried.
/// A limit stays until the range is fenced: whoever lifted it for a round that fits would have what was gained written again.
pub fn writers_limit(limit: Option<u64>, round: &RoundOutcome, slowest: u64) -> Option<u64> {
    if slowest == 0 || round.converges() {
        return limit.filter(|_| slowest > 0);
    }
    let half = round.copied_per_second() / 2;
    Some(limit.map_or(half, |limit| half.min(limit / 2)).max(slowest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(written_bytes: u64, copied_bytes: u64, seconds: u64) -> RoundOutcome {
        RoundOutcome { written_bytes, copied_bytes, took: Duration::from_secs(seconds) }
    }

    #[test]
    fn writers_are_slowed_down_to_half_of_the_copy_and_further_while_it_does_not_gain() {
        const MIB: u64 = 1 << 20;
        let table = [
            ("nobody writes", None, round(0, 10 * MIB, 2), None),
            ("nothing happened", None, round(0, 0, 0), None),
            ("it gains", None, round(6 * MIB, 8 * MIB, 2), None),
            ("it gains too little", None, round(7 * MIB, 8 * MIB, 2), Some(2 * MIB)),
            ("it falls behind", None, round(80 * MIB, 8 * MIB, 2), Some(2 * MIB)),
            ("it gains now", Some(2 * MIB), round(4 * MIB, 8 * MIB, 2), Some(2 * MIB)),
            ("it does not", Some(2 * MIB), round(8 * MIB, 8 * MIB, 2), Some(MIB)),
            ("the copy itself is slower", Some(2 * MIB), round(8 * MIB, MIB, 2), Some(MIB / 4)),
            ("the copy itself is faster", Some(2 * MIB), round(80 * MIB, 80 * MIB, 2), Some(MIB)),
            ("nothing is copied", None, round(MIB, 0, 2), Some(SLOWEST_WRITERS)),
            ("at the end of it", Some(SLOWEST_WRITERS), round(MIB, MIB, 8), Some(SLOWEST_WRITERS)),
        ];
        for (case, limit, round, expect) in table {
            assert_eq!(writers_limit(limit, &round, SLOWEST_WRITERS), expect, "{case}");
            assert_eq!(writers_limit(limit, &round, 0), None, "{case}, and they are never slowed down");
        }
    }

    #[test]
    fn a_round_that_is_over_soon_tells_nothing() {
        let round = |took_ms| RoundOutcome { took: Duration::from_millis(took_ms), ..round(1, 1, 0) };
        assert_eq!([0, 499, 500, 2_000].map(|took_ms| round(took_ms).tells()), [false, false, true, true]);
    }

    #[test]
    fn a_copy_whose_writers_keep_to_the_limit_catches_up() {
        // Bytes a second, and bytes.
        let (copy, mut behind, mut limit) = (1 << 20, 1u64 << 20, None);
        for _ in 0..20 {
            let took = Duration::from_secs_f64(behind as f64 / copy as f64);
            let written_bytes = (limit.unwrap_or(4 << 20) as f64 * took.as_secs_f64()) as u64;
            limit = writers_limit(limit, &RoundOutcome { written_bytes, copied_bytes: behind, took }, 1_000);
            behind = written_bytes;
        }
        assert_eq!(limit, Some(copy / 2));
        assert!(behind < 100, "{behind} bytes are behind");
    }
}
