use std::time::Duration;

use hdrhistogram::Histogram;

use crate::rows::Flaws;
use crate::stage::{BASELINE, moves_between};

/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 600_000_000;

/// How long requests of one kind took, in microseconds.
#[derive(Debug, Clone)]
pub struct Latencies {
    /// Those that began and ended without a move.
    pub baseline: Histogram<u64>,
    /// Those that overlap a move.
    pub moving: Histogram<u64>,
    /// For each move the longest of those that overlap it; none if there is none.
    longest_us: Vec<Option<u64>>,
}

impl Default for Latencies {
    fn default() -> Self {
        let empty = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("these bounds are valid");
        Self { baseline: empty.clone(), moving: empty, longest_us: Vec::new() }
    }
}

impl Latencies {
    /// Takes down a request and the stages at which it began and ended.
    pub(crate) fn record(&mut self, began: u64, ended: u64, latency: Duration) {
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US).max(1);
        if (began, ended) == (BASELINE, BASELINE) {
            self.baseline.saturating_record(latency_us);
        }
        let mut overlaps = false;
        for n in moves_between(began, ended) {
            overlaps = true;
            self.longer(n, Some(latency_us));
        }
        if overlaps {
            self.moving.saturating_record(latency_us);
        }
    }

    fn longer(&mut self, n: usize, latency_us: Option<u64>) {
        if self.longest_us.len() <= n {
            self.longest_us.resize(n + 1, None);
        }
        self.longest_us[n] = self.longest_us[n].max(latency_us);
    }

    /// The pause of a move, counted from 0: the longest latency of a request that overlaps it, in microseconds.
    pub fn pause_us(&self, n: usize) -> Option<u64> {
        self.longest_us.get(n).copied().flatten()
    }

    /// The pauses of all moves that a request overlaps, the shortest first.
    pub fn pauses_us(&self) -> Vec<u64> {
        let mut pauses: Vec<u64> = self.longest_us.iter().flatten().copied().collect();
        pauses.sort_unstable();
        pauses
    }

    fn add(&mut self, other: &Latencies) {
        self.baseline.add(&other.baseline).expect("both have the same bounds");
        self.moving.add(&other.moving).expect("both have the same bounds");
        for (n, longest) in other.longest_us.iter().enumerate() {
            self.longer(n, *longest);
        }
    }
}

/// The value of sorted ones below or at which this share of them lies; none of none.
pub fn at_rank(sorted: &[u64], share: f64) -> Option<u64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// What clients saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// How long writes took.
    pub writes: Latencies,
    /// How long reads took.
    pub reads: Latencies,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Requests that ended with an error.
    pub errors: u64,
    /// The first of those errors that was met.
    pub first_error: Option<String>,
    /// What readers found that cannot be.
    pub flaws: Flaws,
}

impl Seen {
    pub(crate) fn failed(&mut self, what: &str) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| what.to_owned());
    }

    pub(crate) fn add(&mut self, other: &Seen) {
        self.writes.add(&other.writes);
        self.reads.add(&other.reads);
        self.acknowledged += other.acknowledged;
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        self.flaws.add(&other.flaws);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_pause_of_a_move_is_the_longest_request_of_any_client_that_overlaps_it() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        one.record(0, 0, ms(900));
        one.record(1, 1, ms(1));
        one.record(2, 3, ms(20));
        one.record(3, 3, ms(30));
        one.record(4, 4, ms(800));
        other.record(3, 4, ms(10));
        other.record(7, 7, ms(5));
        one.add(&other);
        assert_eq!([0, 1, 2, 3].map(|n| one.pause_us(n)), [Some(30_000), None, Some(5_000), None]);
        assert_eq!(one.pauses_us(), [5_000, 30_000]);
        assert_eq!((one.baseline.len(), one.moving.len()), (1, 4));
    }

    #[test]
    fn a_request_that_spans_two_moves_is_a_pause_of_both_and_counts_once() {
        let mut latencies = Latencies::default();
        latencies.record(3, 5, ms(40));
        assert_eq!(latencies.pauses_us(), [40_000, 40_000]);
        assert_eq!(latencies.moving.len(), 1);
    }

    #[test]
    fn ranks_are_of_what_there_is() {
        let sorted: Vec<u64> = (1..=50).collect();
        assert_eq!([0.0, 0.5, 0.98, 0.99, 1.0].map(|share| at_rank(&sorted, share)), [1, 25, 49, 50, 50].map(Some));
        assert_eq!((at_rank(&[7], 0.5), at_rank(&[], 0.5)), (Some(7), None));
    }
}
