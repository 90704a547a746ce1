//! Which step of a job comes next: a pure function of the job and of what source and target have durably done.
//!
//! Whoever drives a job looks, takes the step, and looks again. Every step may be taken twice, so a driver may die at any
//! point, and another one may take the same step at the same time.

use drover_guards::{self as guards, Guard};
use drover_keys::{JobEpoch, ShardId};

use super::{JobEvent, JobPhase, SplitJob};

/// How often a job is begun from the start before it is given up.
const MAX_STARTS: u32 = 5;

/// How far the source is closed, for new writes, for all writes, for reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closed {
    /// Not at all.
    Open,
    /// For new writes.
    New,
    /// For all writes.
    Writes,
    /// For reads too.
    Reads,
}

/// What the source's log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceView {
    /// Nothing, for now: nobody leads it, or it cannot be reached.
    Unreachable,
    /// Nothing of this job.
    Unknown,
    /// What is written is listed.
    Armed {
        /// The course that it knows of.
        epoch: JobEpoch,
        /// How far it is closed.
        closed: Closed,
        /// The course that closed it.
        closed_in: JobEpoch,
        /// Rows listed so far.
        tracked: u64,
    },
    /// The job is over there.
    Retired,
}

/// What the target's log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportView {
    /// Nothing, for now: nobody leads it, or it cannot be reached.
    Unreachable,
    /// Nothing of this job.
    Unknown,
    /// It takes the copy in.
    Open {
        /// Keyspace of the copy.
        shard: ShardId,
        /// All versions are there.
        versions: bool,
        /// All records are there.
        records: bool,
        /// How much of the source's list is there.
        tracked: u64,
    },
    /// The copy is equal.
    Closed {
        /// Keyspace of the copy.
        shard: ShardId,
        /// The course that closed it.
        closed_in: JobEpoch,
    },
    /// The copy differs, and is good for nothing.
    Differs {
        /// Keyspace of the copy.
        shard: ShardId,
    },
    /// The job is over there.
    Retired,
}

/// What is known when the next step is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Linearizably.
    pub source: SourceView,
    /// Linearizably.
    pub target: ImportView,
    /// What a fence now would likely cost is within the budget of the job, and another round of catching up would not make it
    /// noticeably less.
    pub pause_fits: bool,
    /// A transaction has held a lock in the interval for so long that it has to be resolved before the fence.
    pub old_lock: bool,
    /// A lock stands in the interval.
    pub locked: bool,
    /// The fence has stood longer than it may.
    pub overrun: bool,
    /// The job has been failed longer than its copy is kept.
    pub failed_for_long: bool,
    /// A node with a replica of one of the groups concerned can no longer move ranges.
    pub incapable: bool,
}

/// What a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitingFor {
    /// Somebody to resume it.
    Resume,
    /// Somebody to try it again or to call it off.
    Retry,
    /// Writes to slow down: the copy does not catch up.
    Writers,
    /// The source to have a leader.
    Source,
    /// The target to have a leader.
    Target,
    /// Nothing: it is over.
    Nothing,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobStep {
    /// The catalog takes note of it.
    Event(JobEvent),
    /// Target: a shard for the copy.
    PrepareImport,
    /// Source: list what is written, collect nothing.
    Arm,
    /// A portion of the versions.
    CopyVersions,
    /// A portion of the records.
    CopyRecords,
    /// A portion of what was written meanwhile; with `close`, the last one closes the import.
    CopyTracked { close: bool },
    /// The source's own sum.
    Scan,
    /// Transactions that hold locks in the interval come to their end.
    ResolveLocks,
    /// Source, and the catalog at the same time: no new writes.
    Fence,
    /// Source: no new writes.
    FenceSource,
    /// Source: nothing changes any more.
    Seal,
    /// Source: no reads.
    FenceReads,
    /// A timestamp above all that the source has served; then the catalog names the target.
    HandOver,
    /// Source: lift the fences of older courses.
    ClearSource,
    /// Target: take chunks again that an older course has ended.
    ClearTarget,
    /// Target: serve.
    Activate,
    /// Source: clear up.
    Release,
    /// Source: the job is over, all is as before.
    RetireSource,
    /// Target: the job is over, the copy goes.
    RetireTarget,
    /// None for now.
    Wait(WaitingFor),
}

/// Decides the next step of a job.
pub fn next_step(job: &SplitJob, seen: &Observed) -> JobStep {
    if seen.incapable && can_fail(job) {
        return failed(
            "a node that holds a replica of a group concerned cannot move ranges any more; see to it, then retry",
        );
    }
    match job.phase {
        JobPhase::Planned => planned(job, seen),
        JobPhase::Backfill => backfill(job, seen),
        JobPhase::Fence => fence(job, seen),
        JobPhase::DeltaCopy => delta_copy(job, seen),
        JobPhase::Cutover => cutover(job, seen),
        JobPhase::Cleanup => match seen.source {
            SourceView::Retired => JobStep::Event(JobEvent::Finish),
            SourceView::Armed { .. } | SourceView::Unknown => JobStep::Release,
            SourceView::Unreachable => JobStep::Wait(WaitingFor::Source),
        },
        JobPhase::Abandoning => match (seen.source, seen.target) {
            _ if !guards::on(Guard::AbandonedClearsUp) => JobStep::Event(JobEvent::Abandoned),
            (SourceView::Retired, ImportView::Retired) => JobStep::Event(JobEvent::Abandoned),
            (SourceView::Retired, ImportView::Unreachable) => JobStep::Wait(WaitingFor::Target),
            (SourceView::Retired, _) => JobStep::RetireTarget,
            (SourceView::Unreachable, _) => JobStep::Wait(WaitingFor::Source),
            (_, _) => JobStep::RetireSource,
        },
        JobPhase::Failed => match lift(job, seen) {
            Some(step) => step,
            None if seen.failed_for_long => JobStep::Event(JobEvent::Abandon),
            None if seen.source == SourceView::Unreachable => JobStep::Wait(WaitingFor::Source),
            None => JobStep::Wait(WaitingFor::Retry),
        },
        JobPhase::Done | JobPhase::Abandoned => JobStep::Wait(WaitingFor::Nothing),
    }
}

/// Whether the job is on its way, and there is a way back.
fn can_fail(job: &SplitJob) -> bool {
    use JobPhase::{Backfill, Cutover, DeltaCopy, Fence, Planned};
    matches!(job.phase, Planned | Backfill | Fence | DeltaCopy | Cutover) && !job.is_handed_over()
}

fn failed(why: &str) -> JobStep {
    JobStep::Event(JobEvent::Fail { why: why.to_owned() })
}

/// Lifts what an older course has closed, and lets the source know of this one, so that no late step of an older one closes it.
fn lift(job: &SplitJob, seen: &Observed) -> Option<JobStep> {
    if let SourceView::Armed { epoch, closed, closed_in, .. } = seen.source
        && (epoch < job.epoch || (closed > Closed::Open && closed_in < job.epoch))
    {
        return Some(JobStep::ClearSource);
    }
    match seen.target {
        ImportView::Closed { shard, closed_in } if shard == job.shard && closed_in < job.epoch => {
            Some(JobStep::ClearTarget)
        }
        _ => None,
    }
}

/// Everything once more, but not without end: a copy that differs every time is a defect that nobody should pay for.
fn start_over(job: &SplitJob) -> JobStep {
    match job.starts < MAX_STARTS {
        true => JobStep::Event(JobEvent::StartOver),
        false => failed("the copy differed from the source every time; call the job off and report this"),
    }
}

/// A job that is not over is retired nowhere but by a defect, or by hand.
fn is_gone(seen: &Observed) -> bool {
    seen.source == SourceView::Retired || seen.target == ImportView::Retired
}

fn planned(job: &SplitJob, seen: &Observed) -> JobStep {
    if is_gone(seen) {
        return failed("a group says that the job is over; call it off and begin another one");
    }
    if let Some(step) = lift(job, seen) {
        return step;
    }
    if job.paused {
        return JobStep::Wait(WaitingFor::Resume);
    }
    match (seen.target, seen.source) {
        (ImportView::Unreachable, _) => JobStep::Wait(WaitingFor::Target),
        (_, SourceView::Unreachable) => JobStep::Wait(WaitingFor::Source),
        (ImportView::Open { shard, .. }, SourceView::Armed { .. }) if shard == job.shard => {
            JobStep::Event(JobEvent::Begin)
        }
        (ImportView::Open { shard, .. }, _) if shard == job.shard => JobStep::Arm,
        (_, _) => JobStep::PrepareImport,
    }
}

fn backfill(job: &SplitJob, seen: &Observed) -> JobStep {
    if is_gone(seen) || seen.source == SourceView::Unknown {
        return failed("a group no longer knows the job; call it off and begin another one");
    }
    if let Some(step) = lift(job, seen) {
        return step;
    }
    let SourceView::Armed { closed, tracked: listed, .. } = seen.source else {
        return JobStep::Wait(WaitingFor::Source);
    };
    if closed > Closed::Open {
        // Fenced in this course, and the catalog was not told.
        return JobStep::Event(JobEvent::Fence);
    }
    let (versions, records, tracked) = match seen.target {
        ImportView::Open { shard, versions, records, tracked } if shard == job.shard => (versions, records, tracked),
        ImportView::Differs { .. } | ImportView::Open { .. } | ImportView::Closed { .. } | ImportView::Unknown => {
            return start_over(job);
        }
        ImportView::Retired => unreachable!("what is gone has been dealt with"),
        ImportView::Unreachable => return JobStep::Wait(WaitingFor::Target),
    };
    if job.paused {
        return JobStep::Wait(WaitingFor::Resume);
    }
    match (versions, records) {
        (false, _) => return JobStep::CopyVersions,
        (true, false) => return JobStep::CopyRecords,
        (true, true) => {}
    }
    if job.base.is_none() {
        return JobStep::Scan;
    }
    if !seen.pause_fits {
        return if tracked < listed {
            JobStep::CopyTracked { close: false }
        } else {
            JobStep::Wait(WaitingFor::Writers)
        };
    }
    if job.own_route.is_none() {
        return JobStep::Event(JobEvent::Carve);
    }
    if seen.old_lock { JobStep::ResolveLocks } else { JobStep::Fence }
}

fn fence(job: &SplitJob, seen: &Observed) -> JobStep {
    match seen.source {
        SourceView::Unreachable if seen.overrun => JobStep::Event(JobEvent::Unfence),
        SourceView::Unreachable => JobStep::Wait(WaitingFor::Source),
        SourceView::Retired | SourceView::Unknown => {
            failed("the source no longer knows the job; call it off and begin another one")
        }
        SourceView::Armed { closed, closed_in, .. } if closed > Closed::Open && closed_in < job.epoch => {
            JobStep::ClearSource
        }
        SourceView::Armed { closed: Closed::Writes | Closed::Reads, .. } => JobStep::Event(JobEvent::Sealed),
        SourceView::Armed { .. } if seen.overrun => JobStep::Event(JobEvent::Unfence),
        SourceView::Armed { closed: Closed::Open, .. } => JobStep::FenceSource,
        SourceView::Armed { closed: Closed::New, .. } if seen.locked => JobStep::ResolveLocks,
        SourceView::Armed { closed: Closed::New, .. } => JobStep::Seal,
    }
}

fn delta_copy(job: &SplitJob, seen: &Observed) -> JobStep {
    match seen.target {
        ImportView::Unreachable if seen.overrun => JobStep::Event(JobEvent::Unfence),
        ImportView::Unreachable => JobStep::Wait(WaitingFor::Target),
        ImportView::Closed { shard, closed_in } if shard == job.shard && closed_in == job.epoch => {
            JobStep::Event(JobEvent::CutOver)
        }
        ImportView::Closed { shard, .. } if shard == job.shard => JobStep::ClearTarget,
        ImportView::Open { shard, .. } if shard == job.shard && !seen.overrun => JobStep::CopyTracked { close: true },
        ImportView::Open { shard, .. } if shard == job.shard => JobStep::Event(JobEvent::Unfence),
        ImportView::Open { .. } | ImportView::Closed { .. } | ImportView::Differs { .. } => start_over(job),
        ImportView::Unknown | ImportView::Retired => {
            failed("the target no longer knows the job; call it off and begin another one")
        }
    }
}

fn cutover(job: &SplitJob, seen: &Observed) -> JobStep {
    if job.is_handed_over() {
        return match seen.target {
            ImportView::Retired => JobStep::Event(JobEvent::Activated),
            _ => JobStep::Activate,
        };
    }
    match seen.source {
        _ if seen.overrun => JobStep::Event(JobEvent::Unfence),
        SourceView::Armed { closed: Closed::Reads, .. } => JobStep::HandOver,
        SourceView::Armed { closed: Closed::Writes, .. } => JobStep::FenceReads,
        SourceView::Armed { .. } => JobStep::Event(JobEvent::Unfence),
        SourceView::Unreachable => JobStep::Wait(WaitingFor::Source),
        SourceView::Retired | SourceView::Unknown => {
            failed("the source no longer knows the job; call it off and begin another one")
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::RouteId;

    use super::super::BaseSum;
    use super::super::course::tests::{handover, job};
    use super::*;

    const E: JobEpoch = JobEpoch(3);
    const OLD: JobEpoch = JobEpoch(2);
    const SHARD: ShardId = ShardId(9);

    fn seen(source: SourceView, target: ImportView) -> Observed {
        Observed {
            source,
            target,
            pause_fits: true,
            old_lock: false,
            locked: false,
            overrun: false,
            failed_for_long: false,
            incapable: false,
        }
    }

    fn armed(closed: Closed, closed_in: JobEpoch) -> SourceView {
        SourceView::Armed { epoch: E, closed, closed_in, tracked: 10 }
    }

    fn open(versions: bool, records: bool, tracked: u64) -> ImportView {
        ImportView::Open { shard: SHARD, versions, records, tracked }
    }

    fn closed(closed_in: JobEpoch) -> ImportView {
        ImportView::Closed { shard: SHARD, closed_in }
    }

    fn other_shard() -> ImportView {
        ImportView::Open { shard: ShardId(8), versions: true, records: true, tracked: 10 }
    }

    fn is_failure(step: &JobStep) -> bool {
        matches!(step, JobStep::Event(JobEvent::Fail { .. }))
    }

    /// A copy that lacks nothing but the fence.
    fn ready() -> SplitJob {
        let base = Some(BaseSum { armed_at: 1, hash: 2, rows: 3 });
        SplitJob { base, own_route: Some(RouteId(8)), ..job(JobPhase::Backfill) }
    }

    #[test]
    fn a_planned_job_is_prepared_at_the_target_then_armed_at_the_source_then_begun() {
        use SourceView::{Retired, Unknown};
        let planned = job(JobPhase::Planned);
        let step = |source, target| next_step(&planned, &seen(source, target));
        let free = armed(Closed::Open, JobEpoch(0));
        assert_eq!(step(Unknown, ImportView::Unknown), JobStep::PrepareImport);
        assert_eq!(step(Unknown, open(false, false, 0)), JobStep::Arm);
        assert_eq!(step(free, open(false, false, 0)), JobStep::Event(JobEvent::Begin));
        // After a start over: the fence of the course before, and the copy that it left.
        assert_eq!(step(armed(Closed::Writes, OLD), other_shard()), JobStep::ClearSource);
        assert_eq!(step(free, other_shard()), JobStep::PrepareImport);
        assert_eq!(step(free, ImportView::Differs { shard: ShardId(8) }), JobStep::PrepareImport);
        let behind = SourceView::Armed { epoch: OLD, closed: Closed::Open, closed_in: JobEpoch(0), tracked: 0 };
        assert_eq!(
            step(behind, other_shard()),
            JobStep::ClearSource,
            "it learns of the new course before anything else"
        );
        assert!(is_failure(&step(Retired, open(false, false, 0))) && is_failure(&step(free, ImportView::Retired)));
        let paused = SplitJob { paused: true, ..planned };
        let waits = next_step(&paused, &seen(Unknown, ImportView::Unknown));
        assert_eq!(waits, JobStep::Wait(WaitingFor::Resume));
    }

    #[test]
    fn a_copy_is_made_summed_caught_up_with_and_then_fenced() {
        let free = armed(Closed::Open, JobEpoch(0));
        let new = job(JobPhase::Backfill);
        let step = |job: &SplitJob, target| next_step(job, &seen(free, target));
        assert_eq!(step(&new, open(false, false, 0)), JobStep::CopyVersions);
        assert_eq!(step(&new, open(true, false, 0)), JobStep::CopyRecords);
        assert_eq!(step(&new, open(true, true, 0)), JobStep::Scan);
        let summed = SplitJob { own_route: None, ..ready() };
        assert_eq!(step(&summed, open(true, true, 0)), JobStep::Event(JobEvent::Carve));
        assert_eq!(step(&ready(), open(true, true, 0)), JobStep::Fence);
        let slow = |tracked| Observed { pause_fits: false, ..seen(free, open(true, true, tracked)) };
        assert_eq!(next_step(&ready(), &slow(9)), JobStep::CopyTracked { close: false });
        assert_eq!(next_step(&ready(), &slow(10)), JobStep::Wait(WaitingFor::Writers));
        let locked = Observed { old_lock: true, ..seen(free, open(true, true, 10)) };
        assert_eq!(next_step(&ready(), &locked), JobStep::ResolveLocks);
        let paused = SplitJob { paused: true, ..ready() };
        assert_eq!(step(&paused, open(true, true, 10)), JobStep::Wait(WaitingFor::Resume));
        // What an older course has closed is opened first, and what this one has fenced is noted.
        let both = seen(armed(Closed::New, OLD), closed(OLD));
        assert_eq!(next_step(&ready(), &both), JobStep::ClearSource);
        assert_eq!(step(&ready(), closed(OLD)), JobStep::ClearTarget);
        let fenced = seen(armed(Closed::New, E), open(true, true, 9));
        assert_eq!(next_step(&ready(), &fenced), JobStep::Event(JobEvent::Fence));
        for void in [ImportView::Differs { shard: SHARD }, other_shard(), ImportView::Unknown] {
            assert_eq!(step(&ready(), void), JobStep::Event(JobEvent::StartOver));
            assert!(is_failure(&step(&SplitJob { starts: MAX_STARTS, ..ready() }, void)), "not without end");
        }
        assert!(is_failure(&next_step(&ready(), &seen(SourceView::Retired, open(true, true, 9)))));
    }

    #[test]
    fn a_fence_drains_and_is_sealed_or_lifted_when_it_takes_too_long() {
        let fence = job(JobPhase::Fence);
        let step = |source| next_step(&fence, &seen(source, open(true, true, 9)));
        assert_eq!(step(armed(Closed::Open, JobEpoch(0))), JobStep::FenceSource);
        assert_eq!(step(armed(Closed::New, E)), JobStep::Seal);
        assert_eq!(step(armed(Closed::Writes, E)), JobStep::Event(JobEvent::Sealed));
        assert_eq!(step(armed(Closed::New, OLD)), JobStep::ClearSource);
        let waiting = Observed { locked: true, ..seen(armed(Closed::New, E), open(true, true, 9)) };
        assert_eq!(next_step(&fence, &waiting), JobStep::ResolveLocks);
        let late = Observed { overrun: true, ..waiting };
        assert_eq!(next_step(&fence, &late), JobStep::Event(JobEvent::Unfence));
        // Somebody has paused it: it goes on, since writers wait.
        let paused = SplitJob { paused: true, ..fence };
        assert_eq!(next_step(&paused, &waiting), JobStep::ResolveLocks);
    }

    #[test]
    fn the_rest_is_copied_and_closed_and_the_range_changes_hands() {
        let sealed = armed(Closed::Writes, E);
        let delta = job(JobPhase::DeltaCopy);
        let step = |target| next_step(&delta, &seen(sealed, target));
        assert_eq!(step(open(true, true, 10)), JobStep::CopyTracked { close: true });
        assert_eq!(step(closed(E)), JobStep::Event(JobEvent::CutOver));
        assert_eq!(step(closed(OLD)), JobStep::ClearTarget);
        assert_eq!(step(ImportView::Differs { shard: SHARD }), JobStep::Event(JobEvent::StartOver));
        let late = Observed { overrun: true, ..seen(sealed, open(true, true, 9)) };
        assert_eq!(next_step(&delta, &late), JobStep::Event(JobEvent::Unfence));

        let cutover = job(JobPhase::Cutover);
        let step = |source| next_step(&cutover, &seen(source, closed(E)));
        assert_eq!(step(sealed), JobStep::FenceReads);
        assert_eq!(step(armed(Closed::Reads, E)), JobStep::HandOver);
        let late = Observed { overrun: true, ..seen(armed(Closed::Reads, E), closed(E)) };
        assert_eq!(next_step(&cutover, &late), JobStep::Event(JobEvent::Unfence));
        // From here on there is only forward, however long it takes.
        let handed = SplitJob { handover: Some(handover()), ..cutover };
        assert_eq!(next_step(&handed, &late), JobStep::Activate);
        let served = seen(armed(Closed::Reads, E), ImportView::Retired);
        assert_eq!(next_step(&handed, &served), JobStep::Event(JobEvent::Activated));
        let cleanup = job(JobPhase::Cleanup);
        assert_eq!(next_step(&cleanup, &served), JobStep::Release);
        let gone = seen(SourceView::Retired, ImportView::Retired);
        assert_eq!(next_step(&cleanup, &gone), JobStep::Event(JobEvent::Finish));
    }

    #[test]
    fn a_job_that_is_given_up_frees_the_source_first_and_one_that_failed_waits_without_fences() {
        let abandoning = job(JobPhase::Abandoning);
        let step = |source, target| next_step(&abandoning, &seen(source, target));
        assert_eq!(step(armed(Closed::Writes, E), closed(E)), JobStep::RetireSource);
        assert_eq!(step(SourceView::Unknown, ImportView::Unknown), JobStep::RetireSource);
        assert_eq!(step(SourceView::Retired, closed(E)), JobStep::RetireTarget);
        assert_eq!(step(SourceView::Retired, ImportView::Retired), JobStep::Event(JobEvent::Abandoned));

        let failed = job(JobPhase::Failed);
        let step = |source, target| next_step(&failed, &seen(source, target));
        assert_eq!(step(armed(Closed::New, OLD), closed(OLD)), JobStep::ClearSource);
        assert_eq!(step(armed(Closed::Open, OLD), closed(OLD)), JobStep::ClearTarget);
        let quiet = seen(armed(Closed::Open, OLD), open(true, true, 3));
        assert_eq!(next_step(&failed, &quiet), JobStep::Wait(WaitingFor::Retry));
        let long = Observed { failed_for_long: true, ..quiet };
        assert_eq!(next_step(&failed, &long), JobStep::Event(JobEvent::Abandon));
        for over in [JobPhase::Done, JobPhase::Abandoned] {
            assert_eq!(next_step(&job(over), &quiet), JobStep::Wait(WaitingFor::Nothing));
        }
    }

    #[test]
    fn what_cannot_be_reached_is_waited_for_but_a_fence_does_not_stand_for_it() {
        let free = armed(Closed::Open, JobEpoch(0));
        let (sealed, reads) = (armed(Closed::Writes, E), armed(Closed::Reads, E));
        let (no_source, no_target) = (SourceView::Unreachable, ImportView::Unreachable);
        let (wait_source, wait_target) = (JobStep::Wait(WaitingFor::Source), JobStep::Wait(WaitingFor::Target));
        let unfence = JobStep::Event(JobEvent::Unfence);
        let handed = SplitJob { handover: Some(handover()), ..job(JobPhase::Cutover) };
        // The job, its source, its target, whether its fence has stood for too long, what comes next.
        let table = [
            (job(JobPhase::Planned), no_source, open(false, false, 0), false, &wait_source),
            (job(JobPhase::Planned), free, no_target, false, &wait_target),
            (ready(), no_source, open(true, true, 0), false, &wait_source),
            (ready(), free, no_target, false, &wait_target),
            (job(JobPhase::Fence), no_source, open(true, true, 0), false, &wait_source),
            (job(JobPhase::Fence), no_source, open(true, true, 0), true, &unfence),
            (job(JobPhase::Fence), sealed, no_target, false, &JobStep::Event(JobEvent::Sealed)),
            (job(JobPhase::DeltaCopy), sealed, no_target, false, &wait_target),
            (job(JobPhase::DeltaCopy), sealed, no_target, true, &unfence),
            (job(JobPhase::Cutover), no_source, closed(E), false, &wait_source),
            (job(JobPhase::Cutover), no_source, closed(E), true, &unfence),
            (job(JobPhase::Cutover), reads, no_target, true, &unfence),
            (handed, reads, no_target, true, &JobStep::Activate),
            (job(JobPhase::Cleanup), no_source, ImportView::Retired, false, &wait_source),
            (job(JobPhase::Abandoning), no_source, closed(E), false, &wait_source),
            (job(JobPhase::Abandoning), free, no_target, false, &JobStep::RetireSource),
            (job(JobPhase::Abandoning), SourceView::Retired, no_target, false, &wait_target),
            (job(JobPhase::Failed), no_source, closed(E), false, &wait_source),
        ];
        for (n, (job, source, target, overrun, expect)) in table.into_iter().enumerate() {
            assert_eq!(next_step(&job, &Observed { overrun, ..seen(source, target) }), *expect, "case {n}");
        }
    }

    #[test]
    fn a_job_fails_when_a_node_loses_the_capability_unless_there_is_only_forward() {
        let unable = |source| Observed { incapable: true, ..seen(source, closed(E)) };
        for phase in [JobPhase::Planned, JobPhase::Backfill, JobPhase::Fence, JobPhase::DeltaCopy, JobPhase::Cutover] {
            assert!(is_failure(&next_step(&job(phase), &unable(armed(Closed::Reads, E)))), "{phase}");
        }
        let handed = SplitJob { handover: Some(handover()), ..job(JobPhase::Cutover) };
        assert_eq!(next_step(&handed, &unable(armed(Closed::Reads, E))), JobStep::Activate);
        assert_eq!(next_step(&job(JobPhase::Cleanup), &unable(armed(Closed::Reads, E))), JobStep::Release);
        let abandoning = next_step(&job(JobPhase::Abandoning), &unable(armed(Closed::Reads, E)));
        assert_eq!(abandoning, JobStep::RetireSource);
        let lifts = next_step(&job(JobPhase::Failed), &unable(armed(Closed::Reads, OLD)));
        assert_eq!(lifts, JobStep::ClearSource);
    }
}
