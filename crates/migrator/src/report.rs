//! What people are told of a job. Pure.

use std::time::Duration;

use drover_catalog::job::{JobPhase, JobProgress, JobStep, SplitJob, WaitingFor};
use drover_fsm::moving::ImportJob;
use tokio::time::Instant;

use crate::look::{Listed, Look, estimate};
use crate::measure::Measures;
use crate::options::MigratorOptions;
use crate::projection::{Obstacle, Outlook, eta, projected_pause};

/// What it is told from, beside what source and target say.
pub(crate) struct Report<'a> {
    pub(crate) job: &'a SplitJob,
    pub(crate) options: &'a MigratorOptions,
    pub(crate) measures: &'a Measures,
    /// What the range takes in the store of the source; zero: that is not known, or it lies in write buffers only.
    pub(crate) size: u64,
    /// How fast the writers of the range may be, in bytes a second, if they are slowed down.
    pub(crate) limit: Option<u64>,
}

impl Report<'_> {
    /// How far the job is before it takes `step`.
    pub(crate) fn before(&self, look: &Look, step: &JobStep, now: Instant) -> JobProgress {
        let import = look.target.as_ref().and_then(|facts| facts.import.as_ref());
        let (tracked_left, behind_bytes) = look.behind();
        let (bytes_copied, bytes_total) = self.sizes(import, behind_bytes);
        let projected = look.projected(self.measures);
        let commits_are_slow = *step == (JobStep::CopyTracked { close: false })
            && look.obstacle(self.job, self.measures) == Some(Obstacle::Commits);
        let eta = match self.job.phase {
            JobPhase::Planned | JobPhase::Backfill if goes_on(step) && !commits_are_slow => {
                self.eta(import, bytes_total - bytes_copied, projected)
            }
            JobPhase::Fence | JobPhase::DeltaCopy | JobPhase::Cutover if self.measures.bytes_per_second() > 0 => {
                Some(projected.saturating_sub(self.measures.fenced_for(now)))
            }
            _ => None,
        };
        let pauses = self.measures.last_pauses;
        JobProgress {
            job: self.job.id,
            waits_for: match commits_are_slow {
                true => self.pause_that_fits(projected),
                false => self.waits_for(projected, step),
            },
            bytes_copied,
            bytes_total,
            bytes_per_second: self.rate(),
            tracked_left,
            projected_pause_ms: ms(projected),
            eta_ms: eta.map(ms),
            write_pause_ms: pauses.map(|pauses| ms(pauses.write)),
            read_pause_ms: pauses.map(|pauses| ms(pauses.read)),
        }
    }

    /// How far it is when a portion more was copied: of what the source had `listed` when it was last seen. `known` is what was
    /// told when the round began.
    pub(crate) fn during(&self, known: JobProgress, import: &ImportJob, listed: Listed) -> JobProgress {
        let (tracked_left, behind_bytes) = listed.behind(import.tracked);
        let (bytes_copied, bytes_total) = self.sizes(Some(import), behind_bytes);
        let projected = projected_pause(&estimate(behind_bytes, self.measures));
        let eta_ms = self.eta(Some(import), bytes_total - bytes_copied, projected).map(ms);
        JobProgress {
            bytes_copied,
            bytes_total,
            bytes_per_second: self.rate(),
            tracked_left,
            projected_pause_ms: ms(projected),
            eta_ms,
            ..known
        }
    }

    /// How fast rows are copied, with all that pacing costs, in bytes a second.
    fn rate(&self) -> u64 {
        match self.job.paused {
            true => 0,
            false => self.options.paced_rate(self.measures.bytes_per_second(), self.job.options.max_bytes_per_second),
        }
    }

    fn pause_that_fits(&self, projected: Duration) -> String {
        let (likely, allowed) = (projected.as_millis(), self.job.options.max_pause_ms);
        format!("a pause of writes that fits: now it is likely to take {likely} ms, and {allowed} ms are allowed")
    }

    /// How many bytes were copied, and of how many.
    fn sizes(&self, import: Option<&ImportJob>, behind_bytes: u64) -> (u64, u64) {
        let copied = import.map_or(0, |import| import.bytes);
        let whole = if import.is_some_and(|import| import.versions.done) { copied } else { copied.max(self.size) };
        (copied, whole.saturating_add(behind_bytes))
    }

    fn eta(&self, import: Option<&ImportJob>, left_bytes: u64, pause: Duration) -> Option<Duration> {
        let is_known = self.size > 0 || import.is_some_and(|import| import.versions.done);
        let outlook = Outlook {
            left_bytes,
            copied_per_second: self.rate(),
            written_per_second: self.measures.written_per_second(),
            pause,
        };
        is_known.then(|| eta(&outlook)).flatten()
    }

    fn waits_for(&self, projected: Duration, step: &JobStep) -> String {
        if let Some(limit) = self.limit {
            return format!(
                "the writers of the range, which its copy does not catch up with: they are slowed down to {limit} bytes a second"
            );
        }
        let what = match step {
            JobStep::Wait(WaitingFor::Resume) => "somebody to resume it",
            JobStep::Wait(WaitingFor::Retry) => "somebody to retry it or to abandon it",
            JobStep::Wait(WaitingFor::Writers) => return self.pause_that_fits(projected),
            JobStep::Wait(WaitingFor::Source) => "a leader of the source",
            JobStep::Wait(WaitingFor::Target) => "a leader of the target",
            JobStep::ResolveLocks => "transactions that hold locks in the range",
            _ => "",
        };
        what.to_owned()
    }
}

/// Whether the job comes to its end by itself.
fn goes_on(step: &JobStep) -> bool {
    !matches!(step, JobStep::Wait(WaitingFor::Resume | WaitingFor::Retry | WaitingFor::Writers | WaitingFor::Nothing))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use drover_fsm::moving::{MoveFacts, Stream};
    use drover_keys::{GroupId, Interval, JobEpoch, JobId, ShardId};

    use super::*;
    use crate::test_job::job;

    const MIB: u64 = 1 << 20;

    fn import(bytes: u64, versions: bool, records: bool) -> ImportJob {
        let begun = ImportJob::begun(JobId(5), JobEpoch(1), Interval::all(), ShardId(9), GroupId(2));
        let stream = |done| Stream { done, ..Stream::default() };
        ImportJob { bytes, versions: stream(versions), records: stream(records), ..begun }
    }

    fn seen(import: ImportJob) -> Look {
        Look { target: Some(MoveFacts { import: Some(import), ..MoveFacts::default() }), ..Look::default() }
    }

    /// What is told of a job whose copy takes 10 MiB a second, for half of the time.
    fn told(phase: JobPhase, size: u64, look: &Look, step: &JobStep) -> JobProgress {
        let mut measures = Measures::default();
        measures.copied(10 * MIB, Duration::from_secs(1));
        let (job, options) = (job(5, phase), MigratorOptions::default());
        Report { job: &job, options: &options, measures: &measures, size, limit: None }.before(
            look,
            step,
            Instant::now(),
        )
    }

    #[test]
    fn the_time_that_is_left_is_told_once_size_and_rate_are_known_and_the_job_goes_on() {
        use JobPhase::{Backfill, Cleanup, Failed, Planned};
        let (copies, waits) = (JobStep::CopyVersions, JobStep::Wait(WaitingFor::Resume));
        let table = [
            ("nothing is copied yet", told(Planned, 0, &Look::default(), &JobStep::PrepareImport), None),
            ("half is copied", told(Backfill, 20 * MIB, &seen(import(10 * MIB, false, false)), &copies), Some(2_000)),
            ("more than was thought", told(Backfill, MIB, &seen(import(10 * MIB, false, false)), &copies), Some(0)),
            ("nobody knows how much", told(Backfill, 0, &seen(import(10 * MIB, false, false)), &copies), None),
            ("all is there", told(Backfill, 0, &seen(import(10 * MIB, true, true)), &JobStep::Scan), Some(0)),
            ("it is paused", told(Backfill, 20 * MIB, &seen(import(10 * MIB, false, false)), &waits), None),
            ("it has failed", told(Failed, 20 * MIB, &seen(import(10 * MIB, false, false)), &waits), None),
            ("it clears up", told(Cleanup, 20 * MIB, &Look::default(), &JobStep::Release), None),
        ];
        for (case, progress, eta_ms) in table {
            assert_eq!(progress.eta_ms, eta_ms, "{case}");
        }
    }

    #[test]
    fn what_is_left_shrinks_with_each_portion() {
        let mut measures = Measures::default();
        measures.copied(10 * MIB, Duration::from_secs(1));
        let (job, options) = (job(5, JobPhase::Backfill), MigratorOptions::default());
        let report = Report { job: &job, options: &options, measures: &measures, size: 40 * MIB, limit: None };
        let known = JobProgress { waits_for: "what was told stays".to_owned(), ..JobProgress::default() };
        // 5 MiB in five rows were listed, of which the copy has none, then two; then there are eight.
        let during = |copied: u64, tracked: u64, listed: u64| {
            let import = ImportJob { tracked, ..import(copied * MIB, copied >= 40, copied >= 41) };
            let told = report.during(known.clone(), &import, Listed { rows: listed, bytes: listed * MIB });
            assert_eq!(told.waits_for, known.waits_for);
            let pause_s = told.projected_pause_ms as f64 / 1_000.0;
            (told.bytes_copied / MIB, told.bytes_total / MIB, told.tracked_left, pause_s, told.eta_ms)
        };
        assert_eq!(during(10, 0, 5), (10, 45, 5, 0.5, Some(7_500)));
        assert_eq!(during(40, 0, 5), (40, 45, 5, 0.5, Some(1_500)));
        assert_eq!(during(43, 2, 5), (43, 46, 3, 0.3, Some(900)), "of the list");
        assert_eq!(during(43, 2, 8), (43, 49, 6, 0.6, Some(1_800)), "more was written meanwhile");
        assert_eq!(during(49, 8, 8), (49, 49, 0, 0.0, Some(0)));
    }

    #[test]
    fn the_rate_is_the_one_that_the_copy_comes_along_with() {
        // What is allowed, whether the job is paused, what is told in MiB a second: the copy takes 10 for half of the time, or for all of it.
        for (allowed, paused, expect) in [(0, false, 10), (20, false, 5), (2, false, 2), (0, true, 0), (2, true, 0)] {
            let mut measures = Measures::default();
            measures.copied(10 * MIB, Duration::from_secs(1));
            let mut job = SplitJob { paused, ..job(5, JobPhase::Backfill) };
            job.options.max_bytes_per_second = allowed * MIB;
            let options = MigratorOptions::default();
            let report = Report { job: &job, options: &options, measures: &measures, size: 20 * MIB, limit: None };
            let before = report.before(&Look::default(), &JobStep::CopyVersions, Instant::now());
            let during = report.during(before.clone(), &import(MIB, false, false), Listed::default());
            let told = (before.bytes_per_second.div_ceil(MIB), during.bytes_per_second.div_ceil(MIB));
            assert_eq!(told, (expect, expect), "{allowed}, {paused}");
        }
    }

    #[test]
    fn a_job_whose_commits_take_too_long_for_its_pause_says_so_and_no_time() {
        let (mut measures, options) = (Measures::default(), MigratorOptions::default());
        measures.copied(10 * MIB, Duration::from_secs(1));
        measures.committed(Duration::from_millis(10));
        let look = seen(import(10 * MIB, true, true));
        // Milliseconds that are allowed, whether the pause fits: seven commits and what is behind.
        for (max_pause_ms, fits) in [(69, false), (1_000, true)] {
            let mut job = job(5, JobPhase::Backfill);
            job.options.max_pause_ms = max_pause_ms;
            let report = Report { job: &job, options: &options, measures: &measures, size: 0, limit: None };
            let told = report.before(&look, &JobStep::CopyTracked { close: false }, Instant::now());
            assert_eq!((told.waits_for.is_empty(), told.eta_ms.is_some()), (fits, fits), "{told:?}");
        }
    }

    #[test]
    fn a_job_says_that_writers_are_slowed_down_and_to_what() {
        let (job, options, measures) = (job(5, JobPhase::Backfill), MigratorOptions::default(), Measures::default());
        let limit = Some(70_000);
        let report = Report { job: &job, options: &options, measures: &measures, size: 0, limit };
        let told = report.before(&Look::default(), &JobStep::CopyTracked { close: false }, Instant::now());
        assert!(told.waits_for.ends_with("they are slowed down to 70000 bytes a second"), "{}", told.waits_for);
    }
}
