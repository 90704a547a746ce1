use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_catalog::job::JobProgress;
use drover_keys::JobId;
use parking_lot::RwLock;

/// How far the jobs are that are driven on this node. Filled by whoever drives them, on the leader of the default group.
#[derive(Debug, Default)]
pub struct JobBoard {
    jobs: RwLock<BTreeMap<JobId, JobProgress>>,
    /// How often a driver ended badly.
    failed_drivers: AtomicU64,
}

impl JobBoard {
    /// Says how far a job is.
    pub fn set(&self, progress: JobProgress) {
        self.jobs.write().insert(progress.job, progress);
    }

    /// The driver of a job has ended badly, for the `times`th time; another one begins after `pause`.
    pub fn driver_failed(&self, job: JobId, times: u32, pause: Duration) {
        self.failed_drivers.fetch_add(1, Ordering::Relaxed);
        let mut jobs = self.jobs.write();
        let known = jobs.entry(job).or_insert_with(|| JobProgress { job, ..JobProgress::default() });
        known.waits_for =
            format!("another driver, in {} ms: {times} have ended badly, the log says why", pause.as_millis());
    }

    /// How often the driver of any job ended badly, since the process started.
    pub fn failed_drivers(&self) -> u64 {
        self.failed_drivers.load(Ordering::Relaxed)
    }

    /// Nothing is known of a job any more: it has ended, or is driven elsewhere.
    pub fn remove(&self, job: JobId) {
        self.jobs.write().remove(&job);
    }

    /// How far those of these jobs are of which something is known.
    pub fn get(&self, jobs: &[JobId]) -> Vec<JobProgress> {
        let known = self.jobs.read();
        jobs.iter().filter_map(|job| known.get(job).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_tells_the_last_that_was_said_of_a_job_until_it_is_removed() {
        let board = JobBoard::default();
        let progress = |job, bytes_copied| JobProgress { job: JobId(job), bytes_copied, ..JobProgress::default() };
        board.set(progress(1, 5));
        board.set(progress(2, 6));
        board.set(progress(1, 7));
        assert_eq!(board.get(&[JobId(2), JobId(9), JobId(1)]), [progress(2, 6), progress(1, 7)]);
        board.remove(JobId(1));
        board.remove(JobId(9));
        assert_eq!(board.get(&[JobId(1), JobId(2)]), [progress(2, 6)]);
    }

    #[test]
    fn a_driver_that_ended_badly_is_counted_and_its_job_says_so() {
        let board = JobBoard::default();
        board.set(JobProgress { job: JobId(1), bytes_copied: 5, ..JobProgress::default() });
        for job in [1, 2] {
            board.driver_failed(JobId(job), 3, Duration::from_millis(400));
        }
        let waits_for = "another driver, in 400 ms: 3 have ended badly, the log says why".to_owned();
        let progress = |job, bytes_copied| JobProgress {
            job: JobId(job),
            bytes_copied,
            waits_for: waits_for.clone(),
            ..JobProgress::default()
        };
        assert_eq!(board.get(&[JobId(1), JobId(2)]), [progress(1, 5), progress(2, 0)]);
        assert_eq!(board.failed_drivers(), 2);
    }
}
