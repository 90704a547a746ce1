//! What a driver measures of its job. Pure.

use std::time::Duration;

use drover_catalog::job::JobPause;
use drover_hlc::Timestamp;
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
    written: Average,
    commit_s: Average,
    /// While requests are held back.
    held: Option<Held>,
    /// Since when only the writers are in the way of the fence.
    catching_up: Option<Instant>,
    /// The oldest lock in the range, since when it is seen to stand, and for how long it was.
    lock: Option<(Timestamp, Instant, Duration)>,
    /// How long requests were held back when they last were.
    pub last_pauses: Option<Pauses>,
    /// What the record of the job does not say yet.
    unrecorded: Vec<JobPause>,
}

/// That requests are held back.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Which fence of the job does that, if this driver has seen it from its beginning.
    fence: Option<u32>,
    writes: Instant,
    reads: Option<Instant>,
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

    /// The range was written to at this rate, in bytes a second.
    pub fn written(&mut self, bytes_per_second: u64) {
        self.written.add(bytes_per_second as f64);
    }

    /// A commit has taken that long.
    pub fn committed(&mut self, took: Duration) {
        self.commit_s.add(took.as_secs_f64());
    }

    /// Bytes a second; zero if nothing was copied yet.
    pub fn bytes_per_second(&self) -> u64 {
        self.rate.0.map_or(0, |rate| rate as u64)
    }

    /// Bytes a second that are written into the range; zero if nobody has looked yet.
    pub fn written_per_second(&self) -> u64 {
        self.written.0.map_or(0, |rate| rate as u64)
    }

    /// How long a commit takes; zero if there was none.
    pub fn commit(&self) -> Duration {
        self.commit_s.0.map_or(Duration::ZERO, Duration::from_secs_f64)
    }

    /// The oldest lock in the range for which a fence would wait is this one now.
    pub fn locked(&mut self, oldest: Option<Timestamp>, now: Instant) {
        let since = |lock| self.lock.filter(|(known, ..)| *known == lock).map_or(now, |(_, since, _)| since);
        self.lock = oldest.map(|lock| (lock, since(lock), now - since(lock)));
    }

    /// How long locks in the range are likely to stand: as long again as the oldest one was seen to. Most are gone before they are
    /// seen twice; how old a transaction is says little of how long it will hold its locks.
    pub fn drain(&self) -> Duration {
        self.lock.map_or(Duration::ZERO, |(.., stood)| stood)
    }

    /// The fence of this number is about to be proposed. Proposed again, it is the same one.
    pub fn fence_proposed(&mut self, fence: u32, now: Instant) {
        if self.held.is_none_or(|held| held.fence != Some(fence)) {
            self.held = Some(Held { fence: Some(fence), writes: now, reads: None });
        }
    }

    /// The fence of reads is about to be proposed.
    pub fn read_fence_proposed(&mut self, now: Instant) {
        if let Some(held) = &mut self.held {
            held.reads = held.reads.or(Some(now));
        }
    }

    /// The target serves, or the fence is lifted.
    pub fn released(&mut self, now: Instant) {
        let Some(Held { fence, writes, reads }) = self.held.take() else { return };
        let pauses = Pauses { write: now - writes, read: reads.map_or(Duration::ZERO, |at| now - at) };
        self.last_pauses = Some(pauses);
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (write_us, read_us) = (us(pauses.write), us(pauses.read));
        self.unrecorded.extend(fence.map(|fence| JobPause { fence, write_us, read_us }));
    }

    /// Takes note of whether writes and reads are seen to be held back. Of a fence that was not seen from its beginning it is
    /// counted from then on, and not recorded.
    pub fn seen(&mut self, writes: bool, reads: bool, now: Instant) {
        match (&mut self.held, writes) {
            (Some(_), false) => self.released(now),
            (None, false) => {}
            (None, true) => self.held = Some(Held { fence: None, writes: now, reads: reads.then_some(now) }),
            (Some(held), true) if reads && held.reads.is_none() => {
                // Somebody else did that.
                (held.fence, held.reads) = (None, Some(now));
            }
            (Some(_), true) => {}
        }
    }

    /// What is to be put into the record of the job next.
    pub fn unrecorded(&self) -> Option<JobPause> {
        self.unrecorded.first().copied()
    }

    /// That was done, or cannot be done.
    pub fn recorded(&mut self) {
        self.unrecorded.remove(0);
    }

    /// Whether requests are held back.
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// How long writes have been held back.
    pub fn fenced_for(&self, now: Instant) -> Duration {
        self.held.map_or(Duration::ZERO, |held| now - held.writes)
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
    fn locks_are_expected_to_stand_as_long_as_the_oldest_one_was_seen_to() {
        let (mut measures, began) = (Measures::default(), Instant::now());
        let lock = |n: u64| Some(Timestamp::from_raw(n));
        // Milliseconds, the oldest lock then, how long locks are likely to stand.
        let table =
            [(0, lock(5), 0), (40, lock(5), 40), (90, lock(5), 90), (91, lock(7), 0), (95, None, 0), (99, lock(7), 0)];
        for (at, oldest, expect) in table {
            measures.locked(oldest, began + Duration::from_millis(at));
            assert_eq!(measures.drain(), Duration::from_millis(expect), "{at} ms");
        }
    }

    #[test]
    fn pauses_are_counted_from_the_proposal_of_the_fence_to_its_end() {
        let mut measures = Measures::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        measures.seen(false, false, at(0));
        assert_eq!((measures.fenced_for(at(5)), measures.last_pauses), (Duration::ZERO, None));
        measures.fence_proposed(3, at(10));
        measures.fence_proposed(3, at(15));
        measures.seen(true, false, at(20));
        assert_eq!(measures.fenced_for(at(25)), Duration::from_millis(15));
        measures.read_fence_proposed(at(30));
        measures.seen(true, true, at(40));
        measures.released(at(45));
        let pauses = Pauses { write: Duration::from_millis(35), read: Duration::from_millis(15) };
        assert_eq!((measures.fenced_for(at(50)), measures.last_pauses), (Duration::ZERO, Some(pauses)));
        measures.released(at(50));
        measures.seen(false, false, at(51));
        assert_eq!(measures.unrecorded(), Some(JobPause { fence: 3, write_us: 35_000, read_us: 15_000 }));
        measures.recorded();
        assert_eq!(measures.unrecorded(), None);
        // One that was lifted, as somebody sees.
        measures.fence_proposed(4, at(60));
        measures.seen(false, false, at(61));
        assert_eq!(measures.last_pauses, Some(Pauses { write: Duration::from_millis(1), read: Duration::ZERO }));
        assert_eq!(measures.unrecorded(), Some(JobPause { fence: 4, write_us: 1_000, read_us: 0 }));
    }

    #[test]
    fn a_fence_that_was_not_seen_from_its_beginning_is_not_recorded() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut taken_over = Measures::default();
        taken_over.seen(true, true, at(10));
        taken_over.read_fence_proposed(at(15));
        taken_over.released(at(20));
        let pauses = Pauses { write: Duration::from_millis(10), read: Duration::from_millis(10) };
        assert_eq!((taken_over.last_pauses, taken_over.unrecorded()), (Some(pauses), None));
        // Reads were held back by somebody else, who knows since when.
        let mut half = Measures::default();
        half.fence_proposed(1, at(10));
        half.seen(true, true, at(15));
        half.released(at(20));
        assert_eq!(half.unrecorded(), None);
    }
}
