use std::sync::atomic::{AtomicU64, Ordering};

use crate::{PhysicalMs, Timestamp};

/// A source of physical time. The only implementation that reads the machine's clock lives where processes are put
/// together.
pub trait WallClock: Send + Sync + 'static {
    /// Now, in Unix milliseconds. May jump either way.
    fn now(&self) -> PhysicalMs;
}

/// A clock that stands where it is put. For tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: PhysicalMs) -> Self {
        Self(AtomicU64::new(now.unix_ms()))
    }

    /// Moves the clock, in either direction.
    pub fn set(&self, now: PhysicalMs) {
        self.0.store(now.unix_ms(), Ordering::SeqCst);
    }
}

impl WallClock for ManualClock {
    fn now(&self) -> PhysicalMs {
        PhysicalMs::default().saturating_add_ms(self.0.load(Ordering::SeqCst))
    }
}

/// Why a remote timestamp was not observed. The clock is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HlcError {
    /// It lies further ahead of the local clock than the configured bound.
    #[error("timestamp {remote} is {ahead_ms} ms ahead of this node's clock, more than the allowed {max_ahead_ms} ms")]
    TooFarAhead { remote: Timestamp, ahead_ms: u64, max_ahead_ms: u64 },
}

/// A hybrid logical clock: at or above everything it has returned or observed.
#[derive(Debug)]
pub struct Hlc {
    last: AtomicU64,
    max_ahead_ms: u64,
}

impl Hlc {
    /// A clock that refuses to observe timestamps more than `max_ahead_ms` ahead of physical time.
    pub fn new(max_ahead_ms: u64) -> Self {
        Self { last: AtomicU64::new(0), max_ahead_ms }
    }

    /// A timestamp above everything returned or observed so far, and not below `wall`.
    pub fn tick(&self, wall: PhysicalMs) -> Timestamp {
        let floor = Timestamp::new(wall, 0).raw();
        let before = self
            .last
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(last.saturating_add(1).max(floor)))
            .expect("the closure always returns a value");
        Timestamp::from_raw(before.saturating_add(1).max(floor))
    }

    /// Takes note of a timestamp that was seen.
    ///
    /// # Errors
    /// If it lies too far ahead of `wall`.
    pub fn observe(&self, remote: Timestamp, wall: PhysicalMs) -> Result<(), HlcError> {
        let ahead_ms = remote.physical().unix_ms().saturating_sub(wall.unix_ms());
        if ahead_ms > self.max_ahead_ms {
            return Err(HlcError::TooFarAhead { remote, ahead_ms, max_ahead_ms: self.max_ahead_ms });
        }
        self.last.fetch_max(remote.raw(), Ordering::SeqCst);
        Ok(())
    }

    /// The highest timestamp returned or observed so far.
    pub fn last(&self) -> Timestamp {
        Timestamp::from_raw(self.last.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> PhysicalMs {
        PhysicalMs::new(n).unwrap()
    }

    #[test]
    fn a_timestamp_from_the_far_future_is_refused_and_forgotten() {
        let clock = Hlc::new(500);
        clock.tick(ms(1_000));
        let before = clock.last();
        assert!(clock.observe(Timestamp::new(ms(1_501), 0), ms(1_000)).is_err());
        assert_eq!(clock.last(), before);
        clock.observe(Timestamp::new(ms(1_500), 0), ms(1_000)).unwrap();
        assert_eq!(clock.last(), Timestamp::new(ms(1_500), 0));
    }

    proptest! {
        #[test]
        fn ticks_rise_whatever_the_wall_clock_does(walls in proptest::collection::vec(0u64..1_000, 1..50)) {
            let clock = Hlc::new(u64::MAX);
            let mut last = Timestamp::ZERO;
            for wall in walls {
                let now = clock.tick(ms(wall));
                prop_assert!(now > last && now >= Timestamp::new(ms(wall), 0));
                last = now;
            }
        }
    }
}
