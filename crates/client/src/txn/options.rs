use std::time::Duration;

/// How often a transaction is run again, and how soon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransactionOptions {
    /// Runs in all. Each reads a newer snapshot.
    pub max_runs: u32,
    /// Longest pause before the second run; doubles with each further one. Pauses are drawn at random up to it.
    pub first_backoff: Duration,
    /// Longest pause.
    pub max_backoff: Duration,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { max_runs: 100, first_backoff: Duration::from_millis(2), max_backoff: Duration::from_millis(200) }
    }
}

impl TransactionOptions {
    /// The pause behind a run, counted from 1. `random` is drawn from `0.0..1.0`.
    pub(super) fn backoff(&self, run: u32, random: f64) -> Duration {
        let doublings = run.saturating_sub(1).min(20);
        self.first_backoff.saturating_mul(1 << doublings).min(self.max_backoff).mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_runs_are_drawn_up_to_a_bound_that_doubles_up_to_the_longest() {
        let ms = Duration::from_millis;
        let options =
            TransactionOptions { first_backoff: ms(2), max_backoff: ms(100), ..TransactionOptions::default() };
        let table = [
            (1, 0.0, 0),
            (1, 0.5, 1),
            (2, 0.5, 2),
            (3, 0.25, 2),
            (6, 0.5, 32),
            (7, 0.5, 50),
            (1_000, 0.5, 50),
            (u32::MAX, 0.0, 0),
        ];
        for (run, random, expect_ms) in table {
            assert_eq!(options.backoff(run, random), ms(expect_ms), "{run}, {random}");
        }
    }
}
