use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use drover_hlc::{Hlc, PhysicalMs, Timestamp, WallClock};
use drover_kv::Error;
use drover_raftgroup::{SharedTimestamps, TimestampSource};
use futures::FutureExt;
use futures::future::BoxFuture;

/// By how many milliseconds [`SystemClock`] differs from the machine's.
static SHIFT_MS: AtomicI64 = AtomicI64::new(0);

/// Shifts what this process takes for the time, to rehearse what clocks that are wrong do to a cluster.
pub fn shift_clock(ms: i64) {
    SHIFT_MS.store(ms, Ordering::Relaxed);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> PhysicalMs {
        // A clock that stands before 1970 counts as zero: the oracle ignores clocks that are behind.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let shifted = unix_ms.saturating_add_signed(SHIFT_MS.load(Ordering::Relaxed));
        PhysicalMs::new(shifted).unwrap_or(PhysicalMs::MAX)
    }
}

/// The hybrid logical clock of a node: at or above every timestamp the node has seen. It shows how far the oracle's
/// time and this machine's lie apart; nothing is decided by it.
pub struct NodeClock {
    hlc: Hlc,
    wall: Arc<dyn WallClock>,
    refused: AtomicU64,
}

impl fmt::Debug for NodeClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeClock").field("hlc", &self.hlc).field("refused", &self.refused).finish_non_exhaustive()
    }
}

impl NodeClock {
    /// A clock that takes no note of timestamps more than `max_ahead_ms` ahead of `wall`, this machine's clock.
    pub fn new(max_ahead_ms: u64, wall: Arc<dyn WallClock>) -> Arc<Self> {
        Arc::new(Self { hlc: Hlc::new(max_ahead_ms), wall, refused: AtomicU64::new(0) })
    }

    /// Takes note of a timestamp.
    pub fn observe(&self, seen: Timestamp) {
        if let Err(error) = self.hlc.observe(seen, self.wall.now())
            && self.refused.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!(%error, "this machine's clock is far behind the oracle's; check its time synchronisation");
        }
    }

    /// Timestamps that were too far ahead.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The highest timestamp seen, and by how many milliseconds this machine's clock is ahead of it: negative if
    /// timestamps run ahead of this clock. Meaningful while the node sees timestamps; `None` before the first.
    pub fn reading(&self) -> Option<(Timestamp, i64)> {
        let last = self.hlc.last();
        let difference = |wall: u64, seen: u64| i64::try_from(i128::from(wall) - i128::from(seen)).unwrap_or(i64::MAX);
        (last > Timestamp::ZERO).then(|| (last, difference(self.wall.now().unix_ms(), last.physical().unix_ms())))
    }
}

/// A source of timestamps whose answers the node's clock takes note of.
pub struct Observed {
    source: SharedTimestamps,
    clock: Arc<NodeClock>,
}

impl Observed {
    /// Lets `clock` see what `source` answers.
    pub fn new(source: SharedTimestamps, clock: Arc<NodeClock>) -> Self {
        Self { source, clock }
    }
}

impl TimestampSource for Observed {
    fn timestamps(&self, count: u32, deadline: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        let (asked, clock) = (self.source.timestamps(count, deadline), Arc::clone(&self.clock));
        asked.inspect(move |answer| answer.iter().for_each(|first| clock.observe(*first))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_node_shows_the_highest_timestamp_and_refuses_the_far_future() {
        let clock = NodeClock::new(60_000, Arc::new(SystemClock));
        assert_eq!(clock.reading(), None);
        let now = SystemClock.now();
        let seen = Timestamp::new(now.saturating_sub_ms(5_000), 3);
        clock.observe(seen);
        clock.observe(Timestamp::new(now.saturating_sub_ms(9_000), 0));
        let (last, behind) = clock.reading().unwrap();
        assert_eq!(last, seen);
        assert!(behind >= 5_000, "{behind}");
        clock.observe(Timestamp::new(now.saturating_add_ms(3_600_000), 0));
        assert_eq!((clock.reading().unwrap().0, clock.refused()), (seen, 1));
    }
}
