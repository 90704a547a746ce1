use std::collections::BTreeMap;

use drover_catalog::job::JobProgress;
use drover_keys::JobId;
use parking_lot::RwLock;

/// How far the jobs are that are driven on this node. Filled by whoever drives them, on the leader of the default group.
#[derive(Debug, Default)]
pub struct JobBoard {
    jobs: RwLock<BTreeMap<JobId, JobProgress>>,
}

impl JobBoard {
    /// Says how far a job is.
    pub fn set(&self, progress: JobProgress) {
        self.jobs.write().insert(progress.job, progress);
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
}
