use std::time::Duration;

use drover_kv::Limits;

use crate::parking::ParkingLimits;

/// Settings of a coordinator.
#[derive(Debug, Clone)]
pub struct CoordinatorOptions {
    /// Sizes above which requests are refused.
    pub limits: Limits,
    /// Rows of one page of a scan, unless the caller asks for fewer.
    pub scan_rows: u64,
    /// Bytes of one page of a scan, unless the caller asks for fewer.
    pub scan_bytes: u64,
    /// Longest time to live that a value may be given, in milliseconds.
    pub max_ttl_ms: u64,
    /// How long the locks of a transaction live unless its coordinator keeps them alive. When they have expired, anybody may
    /// roll it back.
    pub txn_lock_ttl: Duration,
    /// How many writes may wait for ranges that are held back, and how large they may be together.
    pub parking: ParkingLimits,
}

impl Default for CoordinatorOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            scan_rows: 10_000,
            scan_bytes: 4 << 20,
            max_ttl_ms: 100 * 365 * 24 * 3_600 * 1_000,
            txn_lock_ttl: Duration::from_secs(10),
            parking: ParkingLimits::default(),
        }
    }
}
