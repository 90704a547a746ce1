//! What a driver measures of its job. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Weight of the newest of a series of measurements.
const NEWEST: f64 = 0.3;

/// A figure that follows what is measured.
#[derive(Debug, Clone, Copy, Default)]
struct Average(Option<f64>);

impl Average {
    fn add(&mut self, measured: f64) {
        self.0 = Some(self.0.map_or(measured, |known| known + (measured - known) * NEWEST));
    }
}

/// What a driver measures.
#[derive(Debug, Clone, Default)]
pub struct Measures {
    rate: Average,
    commit_s: Average,
    /// Since when writes are held back.
    fenced: Option<Instant>,
    /// Since when reads are held back.
    read_fenced: Option<Instant>,
    /// Since when only the writers are in the way of the fence.
    catching_up: Option<Instant>,
    /// How long writes and reads were held back when they last were.
    pub last_pauses: Option<Pauses>,
}

/// How long requests were held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// Writes.
    pub write: Duration,
    /// Reads; zero if they were not.
    pub read: Duration,
}

impl Measures {
    /// So many bytes were copied in that time, without what pacing cost.
    pub fn copied(&mut self, bytes: u64, took: Duration) {
        if bytes > 0 && !took.is_zero() {
            self.rate.add(bytes as f64 / took.as_secs_f64());
        }
    }

    /// A commit has taken that long.
    pub fn committed(&mut self, took: Duration) {
        self.commit_s.add(took.as_secs_f64());
    }

    /// Bytes a second; zero if nothing was copied yet.
    pub fn bytes_per_second(&self) -> u64 {
        self.rate.0.map_or(0, |rate| rate as u64)
    }

    /// How long a commit takes; zero if there was none.
    pub fn commit(&self) -> Duration {
        self.commit_s.0.map_or(Duration::ZERO, Duration::from_secs_f64)
    }

    /// Takes note of whether writes and reads are held back. Whoever takes a fence over counts it from then on.
    pub fn held(&mut self, writes: bool, reads: bool, now: Instant) {
        if let (Some(fenced), false) = (self.fenced, writes) {
            let read = self.read_fenced.map_or(Duration::ZERO, |at| now - at);
            self.last_pauses = Some(Pauses { write: now - fenced, read });
        }
        self.fenced = writes.then(|| self.fenced.unwrap_or(now));
        self.read_fenced = reads.then(|| self.read_fenced.unwrap_or(now));
    }

    /// How long writes have been held back.
    pub fn fenced_for(&self, now: Instant) -> Duration {
        self.fenced.map_or(Duration::ZERO, |at| now - at)
    }

    /// Takes note of whether only the writers are in the way; for how long they have been.
    pub fn catching_up(&mut self, is: bool, now: Instant) -> Duration {
        self.catching_up = is.then(|| self.catching_up.unwrap_or(now));
        self.catching_up.map_or(Duration::ZERO, |at| now - at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_what_is_measured_and_nothing_comes_of_nothing() {
        let mut measures = Measures::default();
        assert_eq!((measures.bytes_per_second(), measures.commit()), (0, Duration::ZERO));
        measures.copied(0, Duration::from_secs(1));
        measures.copied(5, Duration::ZERO);
        assert_eq!(measures.bytes_per_second(), 0);
        measures.copied(1_000, Duration::from_secs(1));
        assert_eq!(measures.bytes_per_second(), 1_000);
        measures.copied(2_000, Duration::from_secs(1));
        assert_eq!(measures.bytes_per_second(), 1_300);
        measures.committed(Duration::from_millis(10));
        assert_eq!(measures.commit(), Duration::from_millis(10));
    }

    #[test]
    fn pauses_are_counted_from_the_fence_to_its_end() {
        let mut measures = Measures::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        measures.held(false, false, at(0));
        assert_eq!((measures.fenced_for(at(5)), measures.last_pauses), (Duration::ZERO, None));
        measures.held(true, false, at(10));
        measures.held(true, false, at(20));
        assert_eq!(measures.fenced_for(at(25)), Duration::from_millis(15));
        measures.held(true, true, at(30));
        measures.held(false, false, at(45));
        let pauses = Pauses { write: Duration::from_millis(35), read: Duration::from_millis(15) };
        assert_eq!((measures.fenced_for(at(50)), measures.last_pauses), (Duration::ZERO, Some(pauses)));
        measures.held(true, false, at(60));
        measures.held(false, false, at(61));
        assert_eq!(measures.last_pauses, Some(Pauses { write: Duration::from_millis(1), read: Duration::ZERO }));
    }
}
