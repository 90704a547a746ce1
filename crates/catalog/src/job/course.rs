//! What may happen to a job, and what it is then.

use drover_guards::{self as guards, Guard};
use drover_keys::{JobEpoch, JobId};

use super::{
    BaseSum, Failure, Handover, HandoverTerms, JOB_PAUSES, JobPause, JobPhase, MAX_WHY_BYTES, SplitJob, Surroundings,
};

/// What happens to a job. Those that change its course raise its epoch: steps of the old course that are still under way
/// are refused by the groups from then on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JobEvent {
    /// The groups are prepared: the copy begins.
    Begin,
    /// The source's scan has come to this.
    Scanned(BaseSum),
    /// The moving interval becomes a route of its own.
    Carve,
    /// Writes are held back from now on.
    Fence,
    /// Nothing changes any more.
    Sealed,
    /// The copy is equal: the range is about to change hands.
    CutOver,
    /// The catalog names the target.
    HandOver(HandoverTerms),
    /// The target serves.
    Activated,
    /// The source has cleared up.
    Finish,
    /// Course: writes are held back no longer; the copy goes on.
    Unfence,
    /// Course: the copy is void; everything from the start, into another shard.
    StartOver,
    /// Course: it cannot go on.
    Fail {
        /// For people.
        why: String,
    },
    /// Course: it goes on after a failure.
    Retry,
    /// Course: it is called off.
    Abandon,
    /// All is as it was before.
    Abandoned,
    /// A fence that is no more has held requests back for so long.
    Held(JobPause),
    /// No further step, until it is resumed.
    Pause,
    /// It goes on.
    Resume,
}

impl JobEvent {
    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            JobEvent::Begin => "begin",
            JobEvent::Scanned(_) => "note its sum",
            JobEvent::Carve => "carve",
            JobEvent::Fence => "fence",
            JobEvent::Sealed => "copy the rest",
            JobEvent::CutOver => "cut over",
            JobEvent::HandOver(_) => "hand over",
            JobEvent::Activated => "clean up",
            JobEvent::Finish => "finish",
            JobEvent::Unfence => "unfence",
            JobEvent::StartOver => "start over",
            JobEvent::Fail { .. } => "fail",
            JobEvent::Retry => "retry",
            JobEvent::Abandon => "abandon",
            JobEvent::Abandoned => "end abandoning",
            JobEvent::Held(_) => "note its pause",
            JobEvent::Pause => "pause",
            JobEvent::Resume => "resume",
        }
    }

    /// Whether people ask for it, not whoever drives the job; they need not know the epoch.
    pub fn is_asked(&self) -> bool {
        matches!(self, JobEvent::Retry | JobEvent::Abandon | JobEvent::Pause | JobEvent::Resume)
    }
}

/// Why nothing happens to a job. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobRefusal {
    /// No job has this number.
    #[error("there is no job {job}; nothing was changed, list the jobs")]
    Unknown { job: JobId },
    /// Its course has changed.
    #[error("job {job} is at epoch {current}, not at {epoch}; nothing was changed, look at the job again")]
    OtherEpoch { job: JobId, epoch: JobEpoch, current: JobEpoch },
    /// Who drives a job says which course it follows.
    #[error("job {job} cannot {event} unless it is said by which epoch; nothing was changed")]
    NoEpoch { job: JobId, event: &'static str },
    /// It is not in a phase for that.
    #[error("job {job} is {phase}: it cannot {event}; nothing was changed{advice}")]
    WrongPhase { job: JobId, phase: JobPhase, event: &'static str, advice: &'static str },
    /// The interval has no route of its own, or it has.
    #[error("job {job} cannot {event}: its interval {why}; nothing was changed")]
    Route { job: JobId, event: &'static str, why: &'static str },
}

/// What becomes of `job`; `None` if it is so already. Routes are not this function's business.
///
/// # Errors
/// [`JobRefusal::OtherEpoch`] if somebody who drives it follows an older course; [`JobRefusal::WrongPhase`].
pub(crate) fn apply(
    job: &SplitJob,
    epoch: Option<JobEpoch>,
    event: &JobEvent,
    around: &Surroundings,
) -> Result<Option<SplitJob>, JobRefusal> {
    use JobPhase::{Abandoned, Abandoning, Backfill, Cleanup, Cutover, DeltaCopy, Done, Failed, Fence, Planned};

    if let Some(epoch) = epoch.filter(|epoch| *epoch != job.epoch && guards::on(Guard::JobEpochs)) {
        return Err(JobRefusal::OtherEpoch { job: job.id, epoch, current: job.epoch });
    }
    if epoch.is_none() && !event.is_asked() {
        return Err(JobRefusal::NoEpoch { job: job.id, event: event.name() });
    }
    let mut next = job.clone();
    next.changed = around.now;
    let raise = |next: &mut SplitJob| next.epoch = JobEpoch(job.epoch.0 + 1);
    let void = |next: &mut SplitJob| {
        (next.shard, next.base, next.phase) = (around.next_shard, None, Planned);
        next.starts += 1;
    };
    let wrong = |advice| Err(JobRefusal::WrongPhase { job: job.id, phase: job.phase, event: event.name(), advice });
    // The way back ends where the catalog names the target.
    let can_turn_back = !job.is_handed_over() || !guards::on(Guard::ForwardAfterHandover);
    match (event, job.phase) {
        (JobEvent::Begin, Planned) => next.phase = Backfill,
        (JobEvent::Scanned(base), Backfill) if next.base != Some(*base) => next.base = Some(*base),
        (JobEvent::Scanned(_), Backfill) => return Ok(None),
        (JobEvent::Carve, Backfill) if job.own_route.is_none() => next.own_route = Some(around.own_route),
        (JobEvent::Carve, Backfill) => return Ok(None),
        (JobEvent::Fence, Backfill) if job.own_route.is_none() => {
            let why = "is not a route of its own yet";
            return Err(JobRefusal::Route { job: job.id, event: event.name(), why });
        }
        (JobEvent::Fence, Backfill) => {
            next.phase = Fence;
            next.fences += 1;
        }
        (JobEvent::Sealed, Fence) => next.phase = DeltaCopy,
        (JobEvent::CutOver, DeltaCopy) => next.phase = Cutover,
        (JobEvent::HandOver(terms), Cutover) if job.handover.is_none() => {
            next.handover = Some(Handover { version: around.next_version, terms: *terms });
        }
        (JobEvent::HandOver(_), Cutover | Cleanup) => return Ok(None),
        (JobEvent::Activated, Cutover) if job.is_handed_over() => next.phase = Cleanup,
        (JobEvent::Finish, Cleanup) => next.phase = Done,
        (JobEvent::Unfence, Fence | DeltaCopy | Cutover) if can_turn_back => {
            raise(&mut next);
            next.phase = Backfill;
        }
        (JobEvent::StartOver, Backfill | Fence | DeltaCopy | Cutover) if can_turn_back => {
            raise(&mut next);
            void(&mut next);
        }
        (JobEvent::Fail { why }, Planned | Backfill | Fence | DeltaCopy | Cutover) if can_turn_back => {
            raise(&mut next);
            next.phase = Failed;
            let retry_phase = if job.phase == Planned { Planned } else { Backfill };
            next.failure = Some(Failure { why: shortened(why), at: around.now, retry_phase });
        }
        (JobEvent::Retry, Failed) => {
            raise(&mut next);
            match &job.failure {
                Some(Failure { retry_phase: Backfill, .. }) => next.phase = Backfill,
                Some(_) | None => void(&mut next),
            }
        }
        (JobEvent::Retry, _) => return wrong(", only a job that has failed can be tried again"),
        (JobEvent::Abandon, Abandoning | Abandoned) => return Ok(None),
        (JobEvent::Abandon, Planned | Backfill | Fence | DeltaCopy | Cutover | Failed) if can_turn_back => {
            raise(&mut next);
            next.phase = Abandoning;
        }
        (JobEvent::Abandon, _) => return wrong(", the range was handed over and the job goes forward"),
        (JobEvent::Abandoned, Abandoning) => next.phase = Abandoned,
        (JobEvent::Held(pause), Planned | Backfill | Cleanup | Abandoning | Failed)
            if (1..=job.fences).contains(&pause.fence) =>
        {
            if job.pauses.last().is_some_and(|known| known.fence >= pause.fence) {
                return Ok(None);
            }
            next.pauses.push(*pause);
            if next.pauses.len() > JOB_PAUSES {
                next.pauses.remove(0);
            }
        }
        (JobEvent::Pause, phase) if !phase.has_ended() && phase != Abandoning => {
            if job.paused {
                return Ok(None);
            }
            next.paused = true;
        }
        (JobEvent::Resume, phase) if !phase.has_ended() => {
            if !job.paused {
                return Ok(None);
            }
            next.paused = false;
        }
        // What was done before is no error when it is asked for again.
        (JobEvent::Begin, Backfill)
        | (JobEvent::Fence, Fence)
        | (JobEvent::Sealed, DeltaCopy)
        | (JobEvent::CutOver, Cutover)
        | (JobEvent::Activated, Cleanup)
        | (JobEvent::Finish, Done)
        | (JobEvent::Abandoned, Abandoned)
        | (JobEvent::Fail { .. }, Failed) => return Ok(None),
        _ => return wrong(""),
    }
    Ok(Some(next))
}

/// The beginning of a text, cut between characters.
fn shortened(text: &str) -> String {
    let mut end = text.len().min(MAX_WHY_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use drover_hlc::{PhysicalMs, Timestamp};
    use drover_keys::{CatalogVersion, End, GroupId, Interval, RouteId, ShardId};

    use super::super::{JobOptions, NewJob};
    use super::*;

    pub(crate) fn job(phase: JobPhase) -> SplitJob {
        let handover = matches!(phase, JobPhase::Cleanup | JobPhase::Done).then(handover);
        let at = PhysicalMs::new(1).unwrap();
        let failure = Failure { why: "no disk".to_owned(), at, retry_phase: JobPhase::Backfill };
        let begun = SplitJob::begun(NewJob {
            id: JobId(5),
            interval: Interval::new("c", End::Key("f".into())).unwrap(),
            from_route: RouteId(1),
            source: GroupId(2),
            target: GroupId(3),
            shard: ShardId(9),
            options: JobOptions::default(),
            actor: "a".to_owned(),
            now: at,
        });
        let own_route = (phase > JobPhase::Backfill).then_some(RouteId(8));
        let failure = (phase == JobPhase::Failed).then_some(failure);
        SplitJob { epoch: JobEpoch(3), phase, fences: 1, own_route, handover, failure, ..begun }
    }

    pub(crate) fn handover() -> Handover {
        Handover { version: CatalogVersion(7), terms: terms() }
    }

    fn terms() -> HandoverTerms {
        let at = Timestamp::from_raw;
        HandoverTerms { floor_ts: at(50), history_start: at(10), txn_horizon: at(11), record_horizon: at(12) }
    }

    fn around() -> Surroundings {
        Surroundings {
            now: PhysicalMs::new(9).unwrap(),
            next_version: CatalogVersion(7),
            own_route: RouteId(8),
            next_shard: ShardId(10),
        }
    }

    fn pause(fence: u32) -> JobPause {
        JobPause { fence, write_us: 41_000, read_us: 9_000 }
    }

    pub(crate) fn all_events() -> Vec<JobEvent> {
        vec![
            JobEvent::Begin,
            JobEvent::Scanned(BaseSum { armed_at: 1, hash: 2, rows: 3 }),
            JobEvent::Carve,
            JobEvent::Fence,
            JobEvent::Sealed,
            JobEvent::CutOver,
            JobEvent::HandOver(terms()),
            JobEvent::Activated,
            JobEvent::Finish,
            JobEvent::Unfence,
            JobEvent::StartOver,
            JobEvent::Fail { why: "x".to_owned() },
            JobEvent::Retry,
            JobEvent::Abandon,
            JobEvent::Abandoned,
            JobEvent::Held(pause(1)),
            JobEvent::Pause,
            JobEvent::Resume,
        ]
    }

    /// What each event makes of each phase: a phase; `=`: it is so already; `-`: it is refused. A `^` says that the epoch rises.
    const TABLE: &str = "
                    planned     backfill    fence       delta-copy  cutover     handed-over cleanup done  abandoning abandoned failed
    begin           backfill    =           -           -           -           -           -       -     -          -         -
    scanned         -           backfill    -           -           -           -           -       -     -          -         -
    carve           -           =           -           -           -           -           -       -     -          -         -
    fence           -           fence       =           -           -           -           -       -     -          -         -
    sealed          -           -           delta-copy  =           -           -           -       -     -          -         -
    cut-over        -           -           -           cutover     =           =           -       -     -          -         -
    hand-over       -           -           -           -           cutover     =           =       -     -          -         -
    activated       -           -           -           -           -           cleanup     =       -     -          -         -
    finish          -           -           -           -           -           -           done    =     -          -         -
    unfence         -           -           ^backfill   ^backfill   ^backfill   -           -       -     -          -         -
    start-over      -           ^planned    ^planned    ^planned    ^planned    -           -       -     -          -         -
    fail            ^failed     ^failed     ^failed     ^failed     ^failed     -           -       -     -          -         =
    retry           -           -           -           -           -           -           -       -     -          -         ^backfill
    abandon         ^abandoning ^abandoning ^abandoning ^abandoning ^abandoning -           -       -     =          =         ^abandoning
    abandoned       -           -           -           -           -           -           -       -     abandoned  =         -
    held            planned     backfill    -           -           -           -           cleanup -     abandoning -         failed
    pause           planned     backfill    fence       delta-copy  cutover     cutover     cleanup -     -          -         failed
    resume          =           =           =           =           =           =           =       -     =          -         =
    ";

    #[test]
    fn every_event_meets_every_phase() {
        let mut lines = TABLE.lines().filter(|line| !line.trim().is_empty());
        let phases: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((phases.len(), rows.len()), (JobPhase::ALL.len() + 1, all_events().len()));
        for (row, event) in rows.iter().zip(all_events()) {
            for (phase, expect) in phases.iter().zip(&row[1..]) {
                let before = match *phase {
                    "handed-over" => SplitJob { handover: Some(handover()), ..job(JobPhase::Cutover) },
                    name => job(*JobPhase::ALL.iter().find(|phase| phase.name() == name).unwrap()),
                };
                let before = SplitJob { own_route: Some(RouteId(8)), ..before };
                before.validate().unwrap();
                let got = match apply(&before, Some(before.epoch), &event, &around()) {
                    Ok(None) => "=".to_owned(),
                    Ok(Some(after)) => {
                        after.validate().unwrap();
                        let raised = after.epoch == JobEpoch(before.epoch.0 + 1);
                        assert!(raised || after.epoch == before.epoch);
                        format!("{}{}", if raised { "^" } else { "" }, after.phase)
                    }
                    Err(JobRefusal::WrongPhase { .. }) => "-".to_owned(),
                    Err(error) => panic!("{phase} {}: {error}", row[0]),
                };
                assert_eq!(got, *expect, "{} in {phase}", row[0]);
            }
        }
    }

    #[test]
    fn h18_once_the_target_is_named_a_job_goes_forward_whoever_asks() {
        let before = job(JobPhase::Cutover);
        let tell = |job: &SplitJob, event: &JobEvent| apply(job, Some(job.epoch), event, &around());
        let named = tell(&before, &JobEvent::HandOver(terms())).unwrap().unwrap();
        // The answer was lost: who drives the job says it again, and others take it for failed.
        assert_eq!(tell(&named, &JobEvent::HandOver(terms())), Ok(None));
        let fail = JobEvent::Fail { why: "no answer".to_owned() };
        for back in [JobEvent::Unfence, JobEvent::StartOver, fail, JobEvent::Abandon] {
            assert!(tell(&before, &back).is_ok(), "before that there is a way back: {back:?}");
            assert!(matches!(tell(&named, &back), Err(JobRefusal::WrongPhase { .. })), "{back:?}");
        }
        assert_eq!(tell(&named, &JobEvent::Activated).unwrap().unwrap().phase, JobPhase::Cleanup);
    }

    #[test]
    fn who_follows_an_older_course_changes_nothing() {
        let before = job(JobPhase::Backfill);
        for (epoch, accepted) in [(2, false), (3, true), (4, false)] {
            let got = apply(&before, Some(JobEpoch(epoch)), &JobEvent::Abandon, &around());
            assert_eq!(got.is_ok(), accepted, "{epoch}");
        }
        for event in all_events() {
            let unnamed = matches!(apply(&before, None, &event, &around()), Err(JobRefusal::NoEpoch { .. }));
            assert_eq!(unnamed, !event.is_asked(), "{event:?}");
        }
    }

    #[test]
    fn a_fence_needs_a_route_of_its_own_and_a_void_copy_another_shard() {
        let before = SplitJob { own_route: None, ..job(JobPhase::Backfill) };
        assert!(matches!(
            apply(&before, Some(before.epoch), &JobEvent::Fence, &around()),
            Err(JobRefusal::Route { .. })
        ));
        let carved = apply(&before, Some(before.epoch), &JobEvent::Carve, &around()).unwrap().unwrap();
        assert_eq!(carved.own_route, Some(RouteId(8)));
        let base = Some(BaseSum { armed_at: 1, hash: 2, rows: 3 });
        let before = SplitJob { base, ..job(JobPhase::DeltaCopy) };
        let over = apply(&before, Some(before.epoch), &JobEvent::StartOver, &around()).unwrap().unwrap();
        assert_eq!((over.shard, over.base, over.starts), (ShardId(10), None, 2));
        let failed =
            apply(&job(JobPhase::Planned), Some(JobEpoch(3)), &JobEvent::Fail { why: "x".to_owned() }, &around());
        let failed = failed.unwrap().unwrap();
        let again = apply(&failed, None, &JobEvent::Retry, &around()).unwrap().unwrap();
        assert_eq!((again.phase, again.shard), (JobPhase::Planned, ShardId(10)));
    }

    #[test]
    fn pauses_are_kept_once_for_each_fence_and_the_latest_of_them() {
        let held = |job: &SplitJob, fence| apply(job, Some(job.epoch), &JobEvent::Held(pause(fence)), &around());
        let mut known = SplitJob { fences: 20, ..job(JobPhase::Backfill) };
        for fence in 1..=20 {
            known = held(&known, fence).unwrap().unwrap();
            assert_eq!(held(&known, fence), Ok(None), "said again");
            known.validate().unwrap();
        }
        let fences: Vec<u32> = known.pauses.iter().map(|pause| pause.fence).collect();
        assert_eq!(fences, (5..=20).collect::<Vec<u32>>());
        for none in [0, 21] {
            assert!(matches!(held(&known, none), Err(JobRefusal::WrongPhase { .. })), "there was no fence {none}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let text = format!("{}ü", "x".repeat(MAX_WHY_BYTES - 1));
        assert_eq!(shortened(&text).len(), MAX_WHY_BYTES - 1);
        assert_eq!(shortened("short"), "short");
    }
}
