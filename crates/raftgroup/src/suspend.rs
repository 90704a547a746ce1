//! Notices that the machine was suspended. Raft's lease is measured on a clock that stands still meanwhile, so a leader
//! that was suspended would trust a lease that the voters have long forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Difference between two readings that is taken for a suspension. Reading two clocks takes far less.
const TOLERANCE: Duration = Duration::from_millis(5);

/// Pure part: what is known of suspensions so far.
#[derive(Debug)]
struct Observation {
    /// Largest lead of the suspend-counting clock over the monotonic clock.
    lead: Duration,
    /// Until when no lease may be used.
    distrust_until: Option<Instant>,
}

impl Observation {
    /// Takes note of one reading. Returns whether it shows a new suspension.
    fn note(&mut self, lead: Duration, now: Instant, lease: Duration) -> bool {
        let suspended = lead > self.lead + TOLERANCE;
        if lead > self.lead {
            self.lead = lead;
        }
        if suspended {
            self.distrust_until = Some(now + lease);
        }
        suspended
    }

    fn trusts_lease(&self, now: Instant) -> bool {
        self.distrust_until.is_none_or(|until| now >= until)
    }
}

/// By how much a clock that counts suspended time is ahead of the monotonic one. Only differences of it mean anything.
pub type ClockLead = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The lead of this machine's clocks.
pub fn clock_lead() -> ClockLead {
    Arc::new(lead)
}

/// Tells whether a lease measured on the monotonic clock can be trusted.
pub struct SuspendWatch {
    seen: Mutex<Observation>,
    lease: Duration,
    lead: ClockLead,
}

impl SuspendWatch {
    /// A watch that distrusts leases for `lease` after a suspension.
    pub fn new(lease: Duration, lead: ClockLead) -> Self {
        Self { seen: Mutex::new(Observation { lead: lead(), distrust_until: None }), lease, lead }
    }

    /// Whether no suspension happened within the last lease; also, whether one was noticed just now.
    pub fn check(&self) -> (bool, bool) {
        let (lead, now) = ((self.lead)(), Instant::now());
        let mut seen = self.seen.lock();
        let noticed = seen.note(lead, now, self.lease);
        (seen.trusts_lease(now), noticed)
    }
}

fn lead() -> Duration {
    // In this order a pause between the two readings makes the lead too small, which the next reading mends; the other
    // way round it would be too large for good, and hide a suspension.
    let boottime = duration(clock_gettime(ClockId::Boottime));
    let monotonic = duration(clock_gettime(ClockId::Monotonic));
    boottime.saturating_sub(monotonic)
}

fn duration(time: Timespec) -> Duration {
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_distrusted_for_its_whole_length_after_a_suspension() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut seen = Observation { lead: ms(100), distrust_until: None };
        let lease = ms(600);
        assert!(!seen.note(ms(101), start, lease), "jitter of reading two clocks is no suspension");
        assert!(seen.trusts_lease(start));
        assert!(seen.note(ms(30_000), start, lease));
        assert!(!seen.trusts_lease(start + ms(599)));
        assert!(seen.trusts_lease(start + ms(600)));
        assert!(!seen.note(ms(30_001), start + ms(700), lease), "one suspension counts once");
        assert!(seen.trusts_lease(start + ms(700)));
    }

    #[test]
    fn a_machine_that_was_not_suspended_trusts_its_lease() {
        let watch = SuspendWatch::new(Duration::from_secs(1), clock_lead());
        assert_eq!(watch.check(), (true, false));
    }
}
