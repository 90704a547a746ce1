use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Spreads bytes over time, over all transfers of a node.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_second: Option<u64>,
    /// When what was let through so far is paid for.
    paid: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// `None`: no limit.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.map(|n| n.max(1)), paid: Mutex::new(None) }
    }

    /// Waits until `bytes` more may go.
    pub async fn pass(&self, bytes: usize) {
        if let Some(start) = self.start(Instant::now(), bytes) {
            tokio::time::sleep_until(start).await;
        }
    }

    /// When `bytes` more may go.
    fn start(&self, now: Instant, bytes: usize) -> Option<Instant> {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second? as f64);
        let mut paid = self.paid.lock();
        let start = paid.map_or(now, |paid| paid.max(now));
        *paid = Some(start + cost);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_no_faster_than_the_limit_and_idle_time_is_not_saved_up() {
        let limit = RateLimit::new(Some(1_000));
        let now = Instant::now();
        let at = |ms| Some(now + Duration::from_millis(ms));
        assert_eq!(limit.start(now, 500), at(0));
        assert_eq!(limit.start(now, 500), at(500));
        assert_eq!(limit.start(now, 1), at(1_000));
        let later = now + Duration::from_secs(60);
        assert_eq!(limit.start(later, 500), Some(later));
        assert_eq!(limit.start(later, 500), Some(later + Duration::from_millis(500)));
        assert_eq!(RateLimit::new(None).start(now, usize::MAX), None);
    }
}
