//! Whether now is the time to hold writes back. Pure.

use std::time::Duration;

/// Commits that follow each other while writes are held back: the fence, three phases of the catalog, the rest of the copy, the
/// fence of reads, the activation.
const COMMITS: u32 = 7;
/// How fast a copy is taken to be before it was measured, in bytes a second.
const UNMEASURED_RATE: u64 = 10 << 20;
/// A fence stands at least this long before it is lifted for standing too long.
const LEAST_LIMIT: Duration = Duration::from_millis(1_000);
/// A fence may stand this many times longer than it should, before it is lifted.
const LIMIT_OF_BUDGET: u32 = 5;

/// What is known of what a fence would cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes that are not copied yet.
    pub remaining_bytes: u64,
    /// How fast rows are copied, in bytes a second; zero: that was not measured.
    pub bytes_per_second: u64,
    /// How long a commit takes.
    pub commit: Duration,
    /// How long transactions that hold locks are likely to take until they have ended.
    pub drain: Duration,
}

/// How long writes would be held back.
pub fn projected_pause(estimate: &Estimate) -> Duration {
    copy_time(estimate) + estimate.commit * COMMITS + estimate.drain
}

fn copy_time(estimate: &Estimate) -> Duration {
    let rate = if estimate.bytes_per_second == 0 { UNMEASURED_RATE } else { estimate.bytes_per_second };
    Duration::from_secs_f64(estimate.remaining_bytes as f64 / rate as f64)
}

/// What stands in the way of a pause that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Commits take so long that it would not fit if nothing were behind and no lock stood.
    Commits,
    /// Without the locks that stand it would fit.
    Locks,
    /// What is written into the range and not copied yet.
    Writers,
}

/// What stands in the way of a pause of at most `max`; `None`: it fits.
pub fn obstacle(estimate: &Estimate, max: Duration) -> Option<Obstacle> {
    let unlocked = Estimate { drain: Duration::ZERO, ..*estimate };
    let fits = |estimate: &Estimate| projected_pause(estimate) <= max;
    match () {
        () if fits(estimate) => None,
        () if !fits(&Estimate { remaining_bytes: 0, ..unlocked }) => Some(Obstacle::Commits),
        () if fits(&unlocked) => Some(Obstacle::Locks),
        () => Some(Obstacle::Writers),
    }
}

/// Whether what is left should be copied before writes are held back, although the pause would fit as it is: while it takes longer
/// than a commit, and each round leaves less than three quarters of what the one before it left (`before`; `None`: there was none).
/// So what a range is written while it is copied, which grows with its size, is copied before the fence and not behind it.
pub fn is_worth_a_round(left: &Estimate, before: Option<u64>) -> bool {
    let shrinks = before.is_none_or(|before| u128::from(left.remaining_bytes) * 4 < u128::from(before) * 3);
    shrinks && copy_time(left) > left.commit
}

/// What is known of how long a job will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// Bytes that are not copied yet.
    pub left_bytes: u64,
    /// How fast they are copied, with all that pacing costs, in bytes a second; zero: that was not measured.
    pub copied_per_second: u64,
    /// How fast the range is written to, in bytes a second.
    pub written_per_second: u64,
    /// How long writes will be held back.
    pub pause: Duration,
}

/// How long until the target serves the range; `None` if no rate is known, or if the end is not in sight.
///
/// While what is left is copied, more is written, and while that is copied, more again: the rounds add up to what is left, divided by
/// what the copy gains on the writers.
pub fn eta(outlook: &Outlook) -> Option<Duration> {
    let gained = outlook.copied_per_second.checked_sub(outlook.written_per_second).filter(|gained| *gained > 0)?;
    Duration::try_from_secs_f64(outlook.left_bytes as f64 / gained as f64).ok()?.checked_add(outlook.pause)
}

/// How long a fence may stand before it is lifted.
pub fn fence_limit(max_pause: Duration) -> Duration {
    (max_pause * LIMIT_OF_BUDGET).max(LEAST_LIMIT)
}

/// Bytes that `rows` of what was listed are likely to have.
pub fn likely_bytes(rows: u64, listed_rows: u64, listed_bytes: u64) -> u64 {
    let bytes = u128::from(rows) * u128::from(listed_bytes);
    u64::try_from(bytes.checked_div(u128::from(listed_rows)).unwrap_or(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_pause_is_the_rest_of_the_copy_some_commits_and_the_drain() {
        let estimate = |remaining_bytes, bytes_per_second, commit, drain| Estimate {
            remaining_bytes,
            bytes_per_second,
            commit: ms(commit),
            drain: ms(drain),
        };
        let table = [
            (estimate(0, 0, 0, 0), 0),
            (estimate(10 << 20, 0, 0, 0), 1_000),
            (estimate(5 << 20, 50 << 20, 0, 0), 100),
            (estimate(0, 50 << 20, 3, 0), 21),
            (estimate(0, 50 << 20, 0, 40), 40),
            (estimate(5 << 20, 50 << 20, 3, 40), 161),
        ];
        for (estimate, expect) in table {
            assert_eq!(projected_pause(&estimate), ms(expect), "{estimate:?}");
        }
    }

    #[test]
    fn what_is_in_the_way_of_a_pause_is_told_apart() {
        use Obstacle::{Commits, Locks, Writers};
        // Milliseconds of seven commits, of the drain, and of the rest of the copy; what is in the way of 100 ms.
        let table = [
            (0, 0, 0, None),
            (70, 10, 20, None),
            (70, 31, 0, Some(Locks)),
            (70, 11, 20, Some(Locks)),
            (70, 0, 40, Some(Writers)),
            (70, 900, 40, Some(Writers)),
            (140, 0, 0, Some(Commits)),
            (140, 900, 900, Some(Commits)),
        ];
        for (commits, drain, rest, expect) in table {
            let (remaining_bytes, bytes_per_second) = (rest * 1_000, 1_000_000);
            let estimate = Estimate { remaining_bytes, bytes_per_second, commit: ms(commits / 7), drain: ms(drain) };
            assert_eq!(obstacle(&estimate, ms(100)), expect, "{commits}, {drain}, {rest}");
        }
    }

    #[test]
    fn what_is_left_is_copied_before_the_fence_while_that_makes_the_pause_shorter() {
        // Bytes that are left, what was left before the last round, whether there is another one. A commit takes 2 ms, and
        // 100 bytes are copied in a millisecond.
        let table = [
            (0, None, false),
            (200, None, false),
            (201, None, true),
            (1_000_000, None, true),
            (1_000_000, Some(1_500_000), true),
            (749, Some(1_000), true),
            (750, Some(1_000), false),
            (1_000, Some(1_000), false),
            (2_000, Some(1_000), false),
            (300, Some(0), false),
            (100, Some(1_000), false),
            (u64::MAX, Some(u64::MAX), false),
        ];
        for (remaining_bytes, before, expect) in table {
            let left = Estimate { remaining_bytes, bytes_per_second: 100_000, commit: ms(2), drain: ms(0) };
            assert_eq!(is_worth_a_round(&left, before), expect, "{remaining_bytes} after {before:?}");
        }
    }

    #[test]
    fn the_end_is_as_far_as_what_is_left_takes_at_what_the_copy_gains_on_the_writers() {
        let outlook = |left_bytes, copied_per_second, written_per_second, pause| Outlook {
            left_bytes,
            copied_per_second,
            written_per_second,
            pause: ms(pause),
        };
        let table = [
            (outlook(0, 0, 0, 40), None),
            (outlook(5_000, 0, 0, 40), None),
            (outlook(0, 100, 0, 40), Some(40)),
            (outlook(5_000, 1_000, 0, 0), Some(5_000)),
            (outlook(5_000, 1_000, 500, 40), Some(10_040)),
            (outlook(5_000, 1_000, 1_000, 40), None),
            (outlook(5_000, 1_000, 2_000, 40), None),
        ];
        for (outlook, expect) in table {
            assert_eq!(eta(&outlook), expect.map(ms), "{outlook:?}");
        }
        assert_eq!(eta(&outlook(u64::MAX, 1, 0, 0)), None, "longer than can be told");
    }

    #[test]
    fn a_fence_may_stand_a_while_longer_than_it_should() {
        assert_eq!(fence_limit(ms(10)), ms(1_000));
        assert_eq!(fence_limit(ms(100)), ms(1_000));
        assert_eq!(fence_limit(ms(1_000)), ms(5_000));
    }

    #[test]
    fn what_is_left_of_a_list_is_as_large_as_the_rest_of_it() {
        assert_eq!(likely_bytes(5, 10, 1_000), 500);
        assert_eq!(likely_bytes(0, 10, 1_000), 0);
        assert_eq!(likely_bytes(0, 0, 0), 0, "nothing was listed");
        assert_eq!(likely_bytes(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }
}
