use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_keys::Interval;
use drover_testkit::ledger::Fate;

/// Watches when writes to some keys are acknowledged.
#[derive(Debug)]
pub struct OutageWatch {
    intervals: Vec<Interval>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: Option<Instant>,
    killed: Option<Instant>,
    longest: Duration,
}

impl OutageWatch {
    /// Watches the keys in these intervals.
    pub fn new(intervals: Vec<Interval>) -> Self {
        Self { intervals, inner: Mutex::default() }
    }

    /// A write has ended.
    pub fn ended(&self, key: &Bytes, fate: Fate) {
        if fate != Fate::Acknowledged || !self.intervals.iter().any(|interval| interval.contains(key)) {
            return;
        }
        let mut inner = self.lock();
        let now = Instant::now();
        if let (Some(last), Some(_)) = (inner.last, inner.killed) {
            inner.longest = inner.longest.max(now - last);
        }
        inner.last = Some(now);
    }

    /// The leader is killed now.
    pub fn killed(&self) {
        self.lock().killed = Some(Instant::now());
    }

    /// The longest time after the kill in which no write was acknowledged; `None` if none was acknowledged after it.
    pub fn longest(&self) -> Option<Duration> {
        let inner = self.lock();
        inner.killed.zip(inner.last).filter(|(killed, last)| last > killed).map(|_| inner.longest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
