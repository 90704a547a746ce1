use std::time::Duration;

use crate::convergence::SLOWEST_WRITERS;

/// Settings of a migrator.
#[derive(Debug, Clone)]
pub struct MigratorOptions {
    /// Most bytes of rows in one portion of a copy, and so in one entry of the target's log.
    pub chunk_bytes: usize,
    /// Bytes of rows that a replica of the source looks at for one portion.
    pub scanned_bytes: usize,
    /// How much of its time a copy may work, in percent; for the rest it pauses. One that may be as fast as it goes does not.
    pub share_percent: u32,
    /// How many ranges are copied at once. Others wait for their turn.
    pub jobs_at_once: usize,
    /// Writers that outrun a copy are slowed down to no less than this, in bytes a second; zero: they are not slowed down.
    pub slowest_writers: u64,
    /// A transaction that reads an older snapshot than this is resolved before writes are held back.
    pub old_lock: Duration,
    /// How long a job that has failed keeps its copy, for another attempt.
    pub failed_copy_kept: Duration,
    /// How long a copy may try to catch up with the writers before the job fails.
    pub catch_up: Duration,
}

impl Default for MigratorOptions {
    fn default() -> Self {
        Self {
            chunk_bytes: 1 << 20,
            scanned_bytes: 8 << 20,
            share_percent: 50,
            jobs_at_once: 4,
            slowest_writers: SLOWEST_WRITERS,
            old_lock: Duration::from_secs(1),
            failed_copy_kept: Duration::from_secs(3_600),
            catch_up: Duration::from_secs(600),
        }
    }
}

impl MigratorOptions {
    /// How much of its time a copy works that is allowed `max` bytes a second, in percent; zero: it may be as fast as it goes.
    fn share(&self, max: u64) -> u32 {
        if max == 0 { 100 } else { self.share_percent.clamp(1, 100) }
    }

    /// How long a copy pauses after it has worked for so long, if `max` bytes a second are allowed; zero: any.
    pub(crate) fn rest(&self, worked: Duration, max: u64) -> Duration {
        let share = self.share(max);
        worked * (100 - share) / share
    }

    /// How fast a copy comes along that has this rate while it works, in bytes a second, if `max` is allowed; zero: any.
    pub(crate) fn paced_rate(&self, bytes_per_second: u64, max: u64) -> u64 {
        let paced = bytes_per_second / 100 * u64::from(self.share(max));
        if max == 0 { paced } else { paced.min(max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_rests_for_what_its_share_leaves() {
        // Share in percent, worked, then the rest; the rate while it works, what is allowed, and what comes along.
        let table = [
            (100, 40, 0, 1_000, 2_000, 1_000),
            (50, 40, 40, 1_000, 2_000, 500),
            (50, 40, 40, 1_000, 300, 300),
            (25, 40, 120, 1_000, 300, 250),
            (1, 1, 99, 1_000, 2_000, 10),
            (0, 1, 99, 1_000, 2_000, 10),
            (25, 40, 0, 1_000, 0, 1_000),
        ];
        for (share_percent, worked, rest, rate, max, paced) in table {
            let options = MigratorOptions { share_percent, ..MigratorOptions::default() };
            let ms = Duration::from_millis;
            assert_eq!(
                (options.rest(ms(worked), max), options.paced_rate(rate, max)),
                (ms(rest), paced),
                "{share_percent}"
            );
        }
    }
}
