use std::time::{SystemTime, UNIX_EPOCH};

use drover_hlc::{PhysicalMs, WallClock};

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> PhysicalMs {
        // A clock that stands before 1970 counts as zero: the oracle ignores clocks that are behind.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        PhysicalMs::new(unix_ms).unwrap_or(PhysicalMs::MAX)
    }
}
