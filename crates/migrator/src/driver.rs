//! Drives one job.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::job::{
    Handover, HandoverTerms, JobEvent, JobPhase, JobProgress, JobStep, SplitJob, WaitingFor, next_step,
};
use drover_catalog::{Catalog, MOVES_RANGES};
use drover_fsm::MoveCommand;
use drover_fsm::moving::{Activation, ExportRows, ImportJob, MoveStep, SourceFacts};
use drover_keys::{GroupId, JobId, NodeId};
use drover_kv::{Error, Reason};
use drover_mvcc::{RowKind, RowSum};
use drover_raftgroup::{Group, Leadership};
use drover_transport::RateLimit;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::copy::Round;
use crate::look::Look;
use crate::measure::Measures;
use crate::options::MigratorOptions;

/// How long a look may take, and a step of the logs.
const LOOK: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(5);
/// How long the sum of a range may take.
const SUM: Duration = Duration::from_secs(3_600);
/// Pause after something that did not work, and while something is waited for.
const PAUSE: Duration = Duration::from_millis(100);
/// The same while requests are held back.
const SHORT_PAUSE: Duration = Duration::from_millis(2);
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
        let mut measures = Measures::default();
        let mut catalog = self.group.fsm().catalog();
        loop {
            let pause = match self.advance(&mut measures, &catalog).await {
                Ok(None) => break,
                Ok(Some(Taken::Next)) => continue,
                Ok(Some(Taken::Waits(pause))) => pause,
                Err(error) => {
                    tracing::debug!(job = %self.job, %error, "a step of a job is tried again");
                    self.waits(error.to_string());
                    if measures.fenced_for(Instant::now().into()).is_zero() { PAUSE } else { SHORT_PAUSE }
                }
            };
            catalog.mark_unchanged();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = catalog.changed() => if changed.is_err() { break },
            }
        }
        self.cluster.directory().jobs().remove(self.job);
    }

    /// Looks and takes one step; `None` if the job has ended.
    async fn advance(
        &self,
        measures: &mut Measures,
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
        let writes = matches!(job.phase, JobPhase::Fence | JobPhase::DeltaCopy | JobPhase::Cutover);
        measures.held(writes, writes && look.reads_held(), now.into());
        let observed = look.observed(job, measures, &self.options, now.into());
        let step = next_step(job, &observed);
        tracing::debug!(job = %job.id, epoch = %job.epoch, phase = %job.phase, ?step, "a step of a job");
        self.tell(job, &look, measures, &step);
        let catching_up = measures.catching_up(step == JobStep::Wait(WaitingFor::Writers), now.into());
        if catching_up > self.options.catch_up {
            let why =
                "the copy does not catch up with the writers: allow a longer pause, or slow them down; then retry";
            self.event(job, JobEvent::Fail { why: why.to_owned() }).await?;
            return Ok(Some(Taken::Next));
        }
        let taken: BoxFuture<'_, _> = Box::pin(self.take(job, &look, step, measures, catalog));
        taken.await.map(Some)
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
        Look { source, target, now, incapable: catalog.all_have(MOVES_RANGES, &holders(job, catalog)).is_err() }
    }

    async fn take(
        &self,
        job: &SplitJob,
        look: &Look,
        step: JobStep,
        measures: &mut Measures,
        catalog: &watch::Receiver<Arc<Catalog>>,
    ) -> Result<Taken, Error> {
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
            JobStep::CopyVersions => self.copy(job, look, Some(RowKind::Version), false, measures, catalog).await?,
            JobStep::CopyRecords => self.copy(job, look, Some(RowKind::Record), false, measures, catalog).await?,
            JobStep::CopyTracked { close } => self.copy(job, look, None, close, measures, catalog).await?,
            JobStep::Scan => {
                let armed_at = source(job, look)?.job.armed_at;
                let sum = self.cluster.sum(job.source, job.id, armed_at, Instant::now() + SUM).await?;
                self.event(job, JobEvent::Scanned(sum)).await?;
            }
            JobStep::ResolveLocks => {
                let left = self.cluster.resolve_locks(&job.interval, Instant::now() + LOOK).await?;
                if left > 0 {
                    return Ok(Taken::Waits(SHORT_PAUSE));
                }
            }
            JobStep::Fence => {
                // The log of the source is what counts; the catalog lets coordinators know early.
                let (fenced, told) = tokio::join!(
                    self.step(job, job.source, MoveStep::ApplyWriteFence),
                    self.event(job, JobEvent::Fence)
                );
                measures.held(true, false, Instant::now().into());
                fenced.and(told)?;
            }
            JobStep::FenceSource => self.step(job, job.source, MoveStep::ApplyWriteFence).await?,
            JobStep::Seal => self.step(job, job.source, MoveStep::Seal).await?,
            JobStep::FenceReads => self.timed(measures, self.step(job, job.source, MoveStep::ArmReadFence)).await?,
            JobStep::HandOver => self.hand_over(job, look).await?,
            JobStep::ClearSource => self.step(job, job.source, MoveStep::Clear).await?,
            JobStep::ClearTarget => self.step(job, job.target, MoveStep::Clear).await?,
            JobStep::Activate => self.activate(job).await?,
            JobStep::Release => {
                let version = handover(job)?.version;
                self.step(job, job.source, MoveStep::Release { version }).await?;
            }
            JobStep::RetireSource => self.step(job, job.source, MoveStep::Retire).await?,
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
                let held = !measures.fenced_for(Instant::now().into()).is_zero();
                return Ok(Taken::Waits(if held { SHORT_PAUSE } else { PAUSE }));
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
        measures: &mut Measures,
        catalog: &watch::Receiver<Arc<Catalog>>,
    ) -> Result<(), Error> {
        let source = source(job, look)?;
        let import = look.target.as_ref().and_then(|facts| facts.import.as_ref()).ok_or_else(|| gone(job))?;
        let rows = match kind {
            Some(RowKind::Version) => {
                ExportRows::Copied { kind: RowKind::Version, after: import.versions.cursor.clone() }
            }
            Some(RowKind::Record) => ExportRows::Copied { kind: RowKind::Record, after: import.records.cursor.clone() },
            None => ExportRows::Tracked { from: import.tracked, sealed_at: close.then_some(source.job.sealed_at) },
        };
        let base = job.base.ok_or_else(|| gone(job));
        let close = match close {
            true => Some(base.map(|base| RowSum { hash: base.hash, rows: base.rows })?),
            false => None,
        };
        let limit = Some(job.options.max_bytes_per_second).filter(|rate| *rate > 0);
        let rate = RateLimit::new(limit);
        let armed_at = source.job.armed_at;
        let round = Round { cluster: &self.cluster, options: &self.options, job, armed_at, rows, close, rate: &rate };
        let (mut catalog, course) = (catalog.clone(), (job.id, job.epoch, job.paused));
        let off = async move {
            let (id, epoch, paused) = course;
            let is_off =
                |known: &Arc<Catalog>| known.job(id).is_none_or(|now| (now.epoch, now.paused) != (epoch, paused));
            // Without a catalog there is no replica here, and the driver ends.
            let _ = catalog.wait_for(is_off).await;
        };
        let note = |measures: &Measures, import: &ImportJob| self.note(measures, import);
        let copied: BoxFuture<'_, _> = Box::pin(round.run(measures, off, note));
        copied.await
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

    /// Says how far the job is.
    fn tell(&self, job: &SplitJob, look: &Look, measures: &Measures, step: &JobStep) {
        let import = look.target.as_ref().and_then(|facts| facts.import.as_ref());
        let pauses = measures.last_pauses;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.cluster.directory().jobs().set(JobProgress {
            job: job.id,
            waits_for: waits_for(job, look.projected(measures), step),
            bytes_copied: import.map_or(0, |import| import.bytes),
            bytes_total: import.map_or(0, |import| import.bytes) + look.behind().1,
            bytes_per_second: measures.bytes_per_second(),
            tracked_left: look.behind().0,
            projected_pause_ms: ms(look.projected(measures)),
            eta_ms: None,
            write_pause_ms: pauses.map(|pauses| ms(pauses.write)),
            read_pause_ms: pauses.map(|pauses| ms(pauses.read)),
        });
    }

    /// Says how far the copy is.
    fn note(&self, measures: &Measures, import: &ImportJob) {
        let board = self.cluster.directory().jobs();
        if let Some(known) = board.get(&[self.job]).pop() {
            let bytes_total = known.bytes_total.max(import.bytes);
            let bytes_per_second = measures.bytes_per_second();
            board.set(JobProgress { bytes_copied: import.bytes, bytes_total, bytes_per_second, ..known });
        }
    }

    /// Says what is in the way.
    fn waits(&self, waits_for: String) {
        let board = self.cluster.directory().jobs();
        let known = board.get(&[self.job]).pop();
        board.set(JobProgress { job: self.job, waits_for, ..known.unwrap_or_default() });
    }
}

/// The nodes that hold a replica of a group concerned.
fn holders(job: &SplitJob, catalog: &Catalog) -> BTreeSet<NodeId> {
    let groups = [GroupId::DEFAULT, job.source, job.target];
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

fn waits_for(job: &SplitJob, projected: Duration, step: &JobStep) -> String {
    let what = match step {
        JobStep::Wait(WaitingFor::Resume) => "somebody to resume it",
        JobStep::Wait(WaitingFor::Retry) => "somebody to retry it or to abandon it",
        JobStep::Wait(WaitingFor::Writers) => {
            let (likely, allowed) = (projected.as_millis(), job.options.max_pause_ms);
            return format!(
                "a pause of writes that fits: now it is likely to take {likely} ms, and {allowed} ms are allowed"
            );
        }
        JobStep::Wait(WaitingFor::Source) => "a leader of the source",
        JobStep::Wait(WaitingFor::Target) => "a leader of the target",
        JobStep::ResolveLocks => "transactions that hold locks in the range",
        _ => "",
    };
    what.to_owned()
}
