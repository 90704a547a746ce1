//! When a job gets another driver after one that ended badly. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_keys::JobId;
use tokio::time::Instant;

/// Pause after the first time, doubled with each further one.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A driver that has run for so long has got over what its predecessor met.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Jobs whose drivers ended badly.
#[derive(Debug, Default)]
pub struct Respawn(BTreeMap<JobId, Failures>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    times: u32,
    /// When the next driver may begin.
    again: Instant,
}

impl Respawn {
    /// Takes note that the driver of a job ended badly: how often that has happened, and how long it is waited now.
    pub fn ended_badly(&mut self, job: JobId, now: Instant) -> (u32, Duration) {
        let known = self.0.get(&job).filter(|known| now < known.again + FORGOTTEN);
        let times = known.map_or(1, |known| known.times.saturating_add(1));
        let pause = FIRST.saturating_mul(2u32.saturating_pow(times - 1)).min(LONGEST);
        self.0.insert(job, Failures { times, again: now + pause });
        (times, pause)
    }

    /// Whether a job may have a driver now.
    pub fn may_begin(&self, job: JobId, now: Instant) -> bool {
        self.0.get(&job).is_none_or(|known| known.again <= now)
    }

    /// When the next of the jobs that wait may have one.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|known| known.again).filter(|again| *again > now).min()
    }

    /// Forgets a job that has ended.
    pub fn forget(&mut self, job: JobId) {
        self.0.remove(&job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_waits_longer_each_time_its_driver_ends_badly_up_to_a_minute() {
        let (mut respawn, mut now) = (Respawn::default(), Instant::now());
        let ms = Duration::from_millis;
        assert!(respawn.may_begin(JobId(1), now));
        for (times, pause) in [(1, 100), (2, 200), (3, 400), (4, 800)] {
            assert_eq!(respawn.ended_badly(JobId(1), now), (times, ms(pause)));
            assert!(!respawn.may_begin(JobId(1), now) && respawn.may_begin(JobId(2), now));
            assert_eq!(respawn.next(now), Some(now + ms(pause)));
            now += ms(pause);
            assert!(respawn.may_begin(JobId(1), now));
            assert_eq!(respawn.next(now), None, "it may begin at once");
        }
        for _ in 0..100 {
            now += respawn.ended_badly(JobId(1), now).1;
        }
        assert_eq!(respawn.ended_badly(JobId(1), now).1, LONGEST);
        // One that ran for long begins anew, and so does one that ended.
        now += LONGEST + FORGOTTEN;
        assert_eq!(respawn.ended_badly(JobId(1), now), (1, FIRST));
        respawn.forget(JobId(1));
        assert!(respawn.may_begin(JobId(1), now));
    }
}
