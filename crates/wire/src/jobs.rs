//! Jobs that move ranges, as messages of `drover.v1`.

use drover_catalog::job::{JobPause, JobPhase, JobProgress, SplitJob};
use drover_keys::JobId;

use crate::WireError;
use crate::proto::v1;
use crate::proto::v1::split_job::Phase;

/// A job as a message.
pub fn encode_job(job: &SplitJob) -> v1::SplitJob {
    let failure = job.failure.as_ref().map(|failure| v1::SplitJobFailure {
        why: failure.why.clone(),
        at_unix_ms: failure.at.unix_ms(),
        retry_phase: encode_phase(failure.retry_phase).into(),
    });
    v1::SplitJob {
        job_id: job.id.0,
        epoch: job.epoch.0,
        phase: encode_phase(job.phase).into(),
        paused: job.paused,
        start: job.interval.start().clone(),
        end: job.interval.end().as_key().cloned(),
        from_route: job.from_route.0,
        source_group: job.source.0,
        target_group: job.target.0,
        shard_id: job.shard.0,
        max_pause_ms: job.options.max_pause_ms,
        max_bytes_per_second: job.options.max_bytes_per_second,
        actor: job.actor.clone(),
        created_unix_ms: job.created.unix_ms(),
        changed_unix_ms: job.changed.unix_ms(),
        starts: job.starts,
        fences: job.fences,
        rows: job.base.map(|base| base.rows),
        own_route: job.own_route.map_or(0, |route| route.0),
        handed_over_version: job.handover.map_or(0, |handover| handover.version.0),
        failure,
        pauses: job.pauses.iter().map(encode_pause).collect(),
    }
}

fn encode_pause(pause: &JobPause) -> v1::SplitJobPause {
    v1::SplitJobPause { fence: pause.fence, write_us: pause.write_us, read_us: pause.read_us }
}

/// A phase as a message names it.
pub fn encode_phase(phase: JobPhase) -> Phase {
    match phase {
        JobPhase::Planned => Phase::Planned,
        JobPhase::Backfill => Phase::Backfill,
        JobPhase::Fence => Phase::Fence,
        JobPhase::DeltaCopy => Phase::DeltaCopy,
        JobPhase::Cutover => Phase::Cutover,
        JobPhase::Cleanup => Phase::Cleanup,
        JobPhase::Done => Phase::Done,
        JobPhase::Abandoning => Phase::Abandoning,
        JobPhase::Abandoned => Phase::Abandoned,
        JobPhase::Failed => Phase::Failed,
    }
}

/// A phase from its number.
///
/// # Errors
/// If this build knows no such phase.
pub fn decode_phase(number: i32) -> Result<JobPhase, WireError> {
    let named = Phase::try_from(number).ok();
    let known = JobPhase::ALL.into_iter().find(|phase| Some(encode_phase(*phase)) == named);
    known.ok_or(WireError::Malformed("the phase of a job"))
}

/// How far a job is, as a message.
pub fn encode_job_progress(progress: &JobProgress) -> v1::SplitJobProgress {
    v1::SplitJobProgress {
        job_id: progress.job.0,
        waits_for: progress.waits_for.clone(),
        bytes_copied: progress.bytes_copied,
        bytes_total: progress.bytes_total,
        bytes_per_second: progress.bytes_per_second,
        tracked_left: progress.tracked_left,
        projected_pause_ms: progress.projected_pause_ms,
        eta_ms: progress.eta_ms,
        write_pause_ms: progress.write_pause_ms,
        read_pause_ms: progress.read_pause_ms,
    }
}

/// How far a job is, from its message.
pub fn decode_job_progress(progress: v1::SplitJobProgress) -> JobProgress {
    JobProgress {
        job: JobId(progress.job_id),
        waits_for: progress.waits_for,
        bytes_copied: progress.bytes_copied,
        bytes_total: progress.bytes_total,
        bytes_per_second: progress.bytes_per_second,
        tracked_left: progress.tracked_left,
        projected_pause_ms: progress.projected_pause_ms,
        eta_ms: progress.eta_ms,
        write_pause_ms: progress.write_pause_ms,
        read_pause_ms: progress.read_pause_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_is_read_as_it_was_written_and_no_other_number_is_one() {
        for phase in JobPhase::ALL {
            assert_eq!(decode_phase(encode_phase(phase).into()), Ok(phase));
        }
        for number in [-1, 0, 11] {
            assert_eq!(decode_phase(number), Err(WireError::Malformed("the phase of a job")));
        }
    }
}
