//! Drives one job.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::job::{
    Handover, HandoverTerms, JobEvent, JobPhase, JobProgress, JobStep, SplitJob, WaitingFor, next_step,
};
use drover_catalog::{Catalog, MOVES_RANGES};
use drover_fsm::MoveCommand;
use drover_fsm::moving::{Activation, ImportJob, MoveStep, SourceFacts};
use drover_keys::{GroupId, JobId, NodeId};
use drover_kv::{Error, Reason};
use drover_mvcc::{RowKind, RowSum};
use drover_raftgroup::{Group, Leadership};
use drover_transport::RateLimit;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::brake::{Brake, Slowdown};
use crate::cluster::{Cluster, Prefer};
use crate::convergence::writers_limit;
use crate::copy::{Came, Rest, Round, RoundEnd, rows_behind};
use crate::look::{Listed, Lists, Look};
use crate::measure::Measures;
use crate::options::MigratorOptions;
use crate::portion::PortionSize;
use crate::projection::Obstacle;
use crate::report::Report;
use crate::turn::may_begin;

/// How long a look may take, and a step of the logs.
const LOOK: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(5);
/// How long the sum of a range may take.
const SUM: Duration = Duration::from_secs(3_600);
/// Pause after something that did not work, and while something is waited for.
const PAUSE: Duration = Duration::from_millis(100);
/// The same while requests are held back.
const SHORT_PAUSE: Duration = Duration::from_millis(2);
/// How long rows of the source's list are copied before it is looked whether that gains on the writers.
const ROUND: Duration = Duration::from_secs(2);
/// How often it is looked, during a round of a copy, what the source has listed meanwhile.
const FOLLOW: Duration = Duration::from_secs(1);
/// How often a commit is measured where commits alone are in the way.
const PROBE: Duration = Duration::from_secs(1);
/// How long it is waited for people before it is looked again. The catalog's changes are noticed at once.
const IDLE: Duration = Duration::from_secs(5);

/// Drives one job while this node leads the default group.
pub(crate) struct Driver {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) options: MigratorOptions,
    /// The replica of the default group here.
    pub(crate) group: Arc<Group>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) job: JobId,
}

/// What a driver remembers of its job: whoever drives it next does without.
#[derive(Default)]
struct Memory {
    measures: Measures,
    /// How fast rows may be copied.
    rate: Option<RateLimit>,
    /// What the source and the target had when the last round of catching up began.
    round: Option<(Lists, Instant)>,
    /// Bytes of the source's list that were not copied when the last round of catching up began.
    left_before: Option<u64>,
    /// The replica that was read in the last round lags behind the leader.
    replica_lags: bool,
    /// What pacing owes from the last portion.
    rest: Rest,
    /// How large portions are, once something was copied.
    portion: Option<PortionSize>,
    /// When a commit was last measured because commits are what is in the way.
    probed: Option<Instant>,
    /// The copy did not gain on the writers in the last round.
    falls_behind: bool,
    /// How fast the writers may be, in bytes a second.
    limit: Option<u64>,
    /// What the range takes in the store of the source, once that was asked.
    size: Option<u64>,
}

impl Memory {
    fn report<'a>(&'a self, job: &'a SplitJob, options: &'a MigratorOptions) -> Report<'a> {
        Report { job, options, measures: &self.measures, size: self.size.unwrap_or(0), limit: self.limit }
    }
}

/// What a step has come to.
enum Taken {
    /// The next one can be taken.
    Next,
    /// Something is waited for.
    Waits(Duration),
}

impl Driver {
    /// Runs until the job has ended. To be dropped when the leadership is over.
    pub(crate) async fn run(self) {
        let brake = Brake::default();
        tokio::select! {
            () = self.steps(&brake) => self.cluster.directory().jobs().remove(self.job),
            () = brake.hold(&self.cluster, self.job) => {}
        }
    }

    async fn steps(&self, brake: &Brake) {
        let mut memory = Memory::default();
        let mut catalog = self.group.fsm().catalog();
        loop {
            let pause = match self.advance(&mut memory, brake, &catalog).await {
                Ok(None) => return,
                Ok(Some(Taken::Next)) => continue,
                Ok(Some(Taken::Waits(pause))) => pause,
                Err(error) => {
                    tracing::debug!(job = %self.job, %error, "a step of a job is tried again");
                    // A round that was broken off tells nothing of the writers.
                    memory.round = None;
                    self.waits(error.to_string());
                    if memory.measures.holds() { SHORT_PAUSE } else { PAUSE }
                }
            };
            catalog.mark_unchanged();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = catalog.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Looks and takes one step; `None` if the job has ended.
    async fn advance(
        &self,
        memory: &mut Memory,
        brake: &Brake,
        catalog: &watch::Receiver<Arc<Catalog>>,
    ) -> Result<Option<Taken>, Error> {
        // Boxed: what it borrows is too deep for the type of a task.
        let proven: BoxFuture<'_, _> = Box::pin(self.group.prove_leadership(&self.leadership, Instant::now() + LOOK));
        proven.await?;
        let known = Arc::clone(&catalog.borrow());
        let job = match known.job(self.job) {
            Some(job) if !job.phase.has_ended() => &**job,
            Some(_) | None => return Ok(None),
        };
        let look: BoxFuture<'_, Look> = Box::pin(self.look(job, &known));
        let look = look.await;
        let now = Instant::now();
        if let Some(held) = look.writes_held(job) {
            memory.measures.seen(held, held && look.reads_held(), now.into());
        }
        memory.measures.locked(look.lock_to_wait_for(&self.options), now.into());
        if self.record_pause(job, &mut memory.measures).await? {
            return Ok(Some(Taken::Next));
        }
        if job.phase != JobPhase::Backfill {
            memory.left_before = None;
        }
        let observed = look.observed(job, &memory.measures, memory.left_before, &self.options, now.into());
        let step = match next_step(job, &observed) {
            JobStep::PrepareImport | JobStep::Arm
                if !may_begin(job, known.jobs().map(|job| &**job), self.options.jobs_at_once) =>
            {
                self.waits(format!("its turn: no more than {} ranges are copied at once", self.options.jobs_at_once));
                return Ok(Some(Taken::Waits(IDLE)));
            }
            step => step,
        };
        tracing::debug!(job = %job.id, epoch = %job.epoch, phase = %job.phase, ?step, "a step of a job");
        self.judge_writers(job, &look, memory, brake, now);
        self.cluster.directory().jobs().set(memory.report(job, &self.options).before(&look, &step, now.into()));
        let obstacle = look.obstacle(job, &memory.measures);
        let commits_are_slow = step == (JobStep::CopyTracked { close: false }) && obstacle == Some(Obstacle::Commits);
        let stuck = step == JobStep::Wait(WaitingFor::Writers)
            || (memory.falls_behind && !observed.pause_fits)
            || commits_are_slow;
        let catching_up = memory.measures.catching_up(stuck && !job.paused, now.into());
        if catching_up > self.options.catch_up {
            let why = look.why_stuck(job, &memory.measures, obstacle);
            self.event(job, JobEvent::Fail { why }).await?;
            return Ok(Some(Taken::Next));
        }
        if commits_are_slow && memory.probed.is_none_or(|at| now.saturating_duration_since(at) >= PROBE) {
            // With writers at work there is always something to copy, and so no other step that would measure one.
            memory.probed = Some(now);
            self.timed(&mut memory.measures, self.step(job, job.source, MoveStep::Clear)).await?;
        }
        if step == (JobStep::CopyTracked { close: false }) {
            memory.left_before = Some(look.behind().1);
            memory.round = look.lists().map(|lists| (lists, now));
        }
        let taken: BoxFuture<'_, _> = Box::pin(self.take(job, &look, step, memory, catalog));
        taken.await.map(Some)
    }

    /// Puts what a fence has cost into the record of the job, once it is no more; whether there was anything to be put there.
    async fn record_pause(&self, job: &SplitJob, measures: &mut Measures) -> Result<bool, Error> {
        use JobPhase::{Abandoning, Backfill, Cleanup, Failed, Planned};
        let fence_is_over =
            matches!(job.phase, Planned | Backfill | Cleanup | Abandoning | Failed) && !measures.holds();
        let Some(pause) = measures.unrecorded().filter(|_| fence_is_over) else { return Ok(false) };
        match self.event(job, JobEvent::Held(pause)).await {
            // A fence that was proposed and never stood is not known to the catalog.
            Err(error) if error.reason == Reason::FailedPrecondition && !error.is_unknown() => {
                tracing::debug!(job = %job.id, %error, "a pause is not recorded");
            }
            told => told?,
        }
        measures.recorded();
        Ok(true)
    }

    /// Has the writers of the range slowed down if the copy does not gain on them, until the range is fenced.
    fn judge_writers(&self, job: &SplitJob, look: &Look, memory: &mut Memory, brake: &Brake, now: Instant) {
        if job.phase != JobPhase::Backfill || job.paused || job.base.is_none() {
            (memory.limit, memory.round, memory.falls_behind) = (None, None, false);
        }
        if let (Some((before, began)), Some(lists)) = (memory.round.take(), look.lists()) {
            let round = lists.since(&before, now.saturating_duration_since(began));
            memory.measures.written(round.written_per_second());
            if round.tells() {
                memory.falls_behind = !round.converges();
            }
            if look.obstacle(job, &memory.measures) == Some(Obstacle::Commits) {
                memory.limit = None;
            } else if round.tells() {
                let limit = writers_limit(memory.limit, &round, self.options.slowest_writers);
                if let Some(limit) = limit.filter(|_| limit != memory.limit) {
                    tracing::info!(
                        job = %job.id,
                        written_bytes_per_second = round.written_per_second(),
                        limit_bytes_per_second = limit,
                        "the copy does not catch up with the writers of the range; they are slowed down"
                    );
                }
                memory.limit = limit;
            }
        }
        brake.set(memory.limit.map(|bytes_per_second| Slowdown {
            source: job.source,
            epoch: job.epoch,
            bytes_per_second,
        }));
    }

    async fn look(&self, job: &SplitJob, catalog: &Catalog) -> Look {
        let deadline = Instant::now() + LOOK;
        let (source, target) = tokio::join!(
            self.cluster.observe(job.source, job.id, deadline),
            self.cluster.observe(job.target, job.id, deadline)
        );
        let source = source.inspect_err(|error| tracing::debug!(job = %job.id, %error, "the source says nothing")).ok();
        let target = target.inspect_err(|error| tracing::debug!(job = %job.id, %error, "the target says nothing")).ok();
        let locked = source.as_ref().and_then(|facts| facts.source.as_ref()?.oldest_lock).is_some();
        let now = match locked || job.phase == JobPhase::Failed {
            true => self.cluster.fresh(deadline).await.ok(),
            false => None,
        };
        Look { source, target, now, incapable: !are_capable(job, catalog) }
    }

    async fn take(
        &self,
        job: &SplitJob,
        look: &Look,
        step: JobStep,
        memory: &mut Memory,
        catalog: &watch::Receiver<Arc<Catalog>>,
    ) -> Result<Taken, Error> {
        let measures = &mut memory.measures;
        match step {
            JobStep::Event(event) => self.timed(measures, self.event(job, event)).await?,
            JobStep::PrepareImport => {
                let (interval, shard, source) = (job.interval.clone(), job.shard, job.source);
                self.step(job, job.target, MoveStep::PrepareImport { interval, shard, source }).await?;
            }
            JobStep::Arm => {
                let (interval, target) = (job.interval.clone(), job.target);
                self.step(job, job.source, MoveStep::ArmMigration { interval, target }).await?;
            }
            JobStep::CopyVersions => {
                if memory.size.is_none() {
                    // Only for what people are told: without it they are told less.
                    memory.size = self.cluster.size(job.source, &job.interval, Instant::now() + LOOK).await.ok();
                }
                self.copy(job, look, Some(RowKind::Version), false, memory, catalog).await?;
            }
            JobStep::CopyRecords => self.copy(job, look, Some(RowKind::Record), false, memory, catalog).await?,
            JobStep::CopyTracked { close } => self.copy(job, look, None, close, memory, catalog).await?,
            JobStep::Scan => {
                let armed_at = source(job, look)?.job.armed_at;
                let summed: BoxFuture<'_, _> =
                    Box::pin(self.cluster.sum(job.source, job.id, armed_at, Instant::now() + SUM));
                let sum = tokio::select! {
                    biased;
                    sum = summed => sum?,
                    () = off_course(job, catalog.clone()) => return Ok(Taken::Next),
                };
                self.event(job, JobEvent::Scanned(sum)).await?;
            }
            JobStep::ResolveLocks => {
                let left = self.cluster.resolve_locks(&job.interval, Instant::now() + LOOK).await?;
                if left > 0 {
                    return Ok(Taken::Waits(SHORT_PAUSE));
                }
            }
            JobStep::Fence => {
                measures.fence_proposed(job.fences + 1, Instant::now().into());
                // The log of the source is what counts; the catalog lets coordinators know early.
                let (fenced, told) = tokio::join!(
                    self.step(job, job.source, MoveStep::ApplyWriteFence),
                    self.event(job, JobEvent::Fence)
                );
                fenced.and(told)?;
            }
            JobStep::FenceSource => self.step(job, job.source, MoveStep::ApplyWriteFence).await?,
            JobStep::Seal => self.step(job, job.source, MoveStep::Seal).await?,
            JobStep::FenceReads => {
                measures.read_fence_proposed(Instant::now().into());
                self.timed(measures, self.step(job, job.source, MoveStep::ArmReadFence)).await?;
            }
            JobStep::HandOver => self.hand_over(job, look).await?,
            JobStep::ClearSource => {
                self.step(job, job.source, MoveStep::Clear).await?;
                measures.released(Instant::now().into());
            }
            JobStep::ClearTarget => self.step(job, job.target, MoveStep::Clear).await?,
            JobStep::Activate => {
                self.activate(job).await?;
                measures.released(Instant::now().into());
            }
            JobStep::Release => {
                let version = handover(job)?.version;
                self.step(job, job.source, MoveStep::Release { version }).await?;
            }
            JobStep::RetireSource => {
                self.step(job, job.source, MoveStep::Retire).await?;
                measures.released(Instant::now().into());
            }
            JobStep::RetireTarget => self.step(job, job.target, MoveStep::Retire).await?,
            JobStep::Wait(WaitingFor::Resume | WaitingFor::Retry | WaitingFor::Nothing) => {
                return Ok(Taken::Waits(IDLE));
            }
            JobStep::Wait(WaitingFor::Writers) => {
                // What was measured may be of the past: a step that changes nothing tells how long a commit takes by now.
                self.timed(measures, self.step(job, job.source, MoveStep::Clear)).await?;
                return Ok(Taken::Waits(PAUSE));
            }
            JobStep::Wait(WaitingFor::Source | WaitingFor::Target) => {
                return Ok(Taken::Waits(if measures.holds() { SHORT_PAUSE } else { PAUSE }));
            }
        }
        Ok(Taken::Next)
    }

    /// Copies rows of one kind, or of the source's list, until none is left or the job changes its course.
    async fn copy(
        &self,
        job: &SplitJob,
        look: &Look,
        kind: Option<RowKind>,
        close: bool,
        memory: &mut Memory,
        catalog: &watch::Receiver<Arc<Catalog>>,
    ) -> Result<(), Error> {
        let source = source(job, look)?;
        let import = look.target.as_ref().and_then(|facts| facts.import.as_ref()).ok_or_else(|| gone(job))?;
        let rows = rows_behind(import, kind, close.then_some(source.job.sealed_at));
        let base = job.base.ok_or_else(|| gone(job));
        let close = match close {
            true => Some(base.map(|base| RowSum { hash: base.hash, rows: base.rows })?),
            false => None,
        };
        let size = memory.size.unwrap_or(0);
        // Where nothing may change any more, the leader knows first; and where a follower lags, it knows more.
        let prefer = if close.is_some() || memory.replica_lags { Prefer::Leader } else { Prefer::Followers };
        let Memory { measures, rate, limit: writers, rest, portion, .. } = memory;
        let portion = portion.get_or_insert_with(|| PortionSize::new(self.options.chunk_bytes));
        let limit = Some(job.options.max_bytes_per_second).filter(|rate| *rate > 0);
        let rate: &RateLimit = rate.get_or_insert_with(|| RateLimit::new(limit));
        let end = match kind {
            None if close.is_none() => {
                RoundEnd { tracked: Some(source.job.tracked_rows), at: Some(Instant::now() + ROUND) }
            }
            Some(_) | None => RoundEnd::default(),
        };
        let armed_at = source.job.armed_at;
        let (cluster, options) = (&self.cluster, &self.options);
        let round = Round { cluster, options, job, armed_at, rows, close, rate, end, prefer };
        let off = off_course(job, catalog.clone());
        let (listed, board) = (Mutex::new(Listed::of(&source.job)), self.cluster.directory().jobs());
        let note = |measures: &Measures, import: &ImportJob| {
            let report = Report { job, options: &self.options, measures, size, limit: *writers };
            if let Some(known) = board.get(&[self.job]).pop() {
                board.set(report.during(known, import, *listed.lock()));
            }
        };
        let copied: BoxFuture<'_, _> = Box::pin(round.run(measures, rest, portion, off, note));
        let followed: BoxFuture<'_, Infallible> = Box::pin(self.follow(job, &listed));
        let came = tokio::select! {
            biased;
            copied = copied => copied?,
            never = followed => match never {},
        };
        memory.replica_lags = came == Came::ToWhereTheReplicaIs;
        if memory.replica_lags {
            // That it stood still is not the writers' doing.
            memory.round = None;
        }
        Ok(())
    }

    /// Keeps up with what the source lists: a round of a copy may take hours, and writers do not rest meanwhile.
    async fn follow(&self, job: &SplitJob, listed: &Mutex<Listed>) -> Infallible {
        loop {
            tokio::time::sleep(FOLLOW).await;
            let facts = self.cluster.observe(job.source, job.id, Instant::now() + LOOK).await;
            if let Some(source) = facts.ok().and_then(|facts| facts.source) {
                *listed.lock() = Listed::of(&source.job);
            }
        }
    }

    /// Names the target in the catalog, above everything that the source has served: it serves nothing any more.
    async fn hand_over(&self, job: &SplitJob, look: &Look) -> Result<(), Error> {
        let SourceFacts { history_start, txn_horizon, record_horizon, .. } = *source(job, look)?;
        let highest = look.target.as_ref().and_then(|facts| Some(facts.import.as_ref()?.highest));
        let fresh = self.cluster.fresh(Instant::now() + STEP).await?;
        let floor_ts = fresh.max(highest.ok_or_else(|| gone(job))?);
        self.event(job, JobEvent::HandOver(HandoverTerms { floor_ts, history_start, txn_horizon, record_horizon }))
            .await
    }

    async fn activate(&self, job: &SplitJob) -> Result<(), Error> {
        let Handover { version, terms } = *handover(job)?;
        let activation = Activation {
            route: job.own_route.ok_or_else(|| gone(job))?,
            acquired_version: version,
            floor_ts: terms.floor_ts,
            history_start: terms.history_start,
            txn_horizon: terms.txn_horizon,
            record_horizon: terms.record_horizon,
        };
        self.step(job, job.target, MoveStep::Activate(activation)).await
    }

    async fn step(&self, job: &SplitJob, group: GroupId, step: MoveStep) -> Result<(), Error> {
        let command = MoveCommand { job: job.id, epoch: job.epoch, step };
        self.cluster.step(group, &command, Instant::now() + STEP).await.map(drop)
    }

    async fn event(&self, job: &SplitJob, event: JobEvent) -> Result<(), Error> {
        self.cluster.event(job.id, job.epoch, event, Instant::now() + STEP).await
    }

    async fn timed(
        &self,
        measures: &mut Measures,
        commit: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let began = Instant::now();
        commit.await?;
        measures.committed(began.elapsed());
        Ok(())
    }

    /// Says what is in the way.
    fn waits(&self, waits_for: String) {
        let board = self.cluster.directory().jobs();
        let known = board.get(&[self.job]).pop();
        board.set(JobProgress { job: self.job, waits_for, ..known.unwrap_or_default() });
    }
}

/// Waits until the job takes another course than it is known to take, or cannot go on.
async fn off_course(job: &SplitJob, mut catalog: watch::Receiver<Arc<Catalog>>) {
    let is_off = |known: &Arc<Catalog>| {
        known.job(job.id).is_none_or(|now| (now.epoch, now.paused) != (job.epoch, job.paused))
            || !are_capable(job, known)
    };
    // Without a catalog there is no replica here, and the driver ends.
    let _ = catalog.wait_for(is_off).await;
}

/// Whether all nodes that hold a replica of a group concerned can move ranges.
fn are_capable(job: &SplitJob, catalog: &Catalog) -> bool {
    catalog.all_have(MOVES_RANGES, &holders(job, catalog)).is_ok()
}

/// The nodes that hold a replica of a group concerned.
fn holders(job: &SplitJob, catalog: &Catalog) -> BTreeSet<NodeId> {
    let groups = job.groups();
    let replicas = groups.iter().filter_map(|group| catalog.group(*group)).flat_map(|group| group.replicas.keys());
    replicas.copied().collect()
}

fn source<'a>(job: &SplitJob, look: &'a Look) -> Result<&'a SourceFacts, Error> {
    look.source.as_ref().and_then(|facts| facts.source.as_ref()).ok_or_else(|| gone(job))
}

fn handover(job: &SplitJob) -> Result<&Handover, Error> {
    job.handover.as_ref().ok_or_else(|| gone(job))
}

/// What a step rests on was there when the step was decided; whoever sees this looks again.
fn gone(job: &SplitJob) -> Error {
    Error::definite(Reason::FailedPrecondition, format!("job {} has changed; nothing was changed", job.id))
}
