//! Steps of moves: the rows go with the batch, the rest is decided in [`crate::moving`].

use std::ops::ControlFlow;

use drover_guards::{self as guards, Guard};
use drover_keys::{CatalogVersion, Interval, JobEpoch, JobId, ShardId};
use drover_mvcc::RowSum;
use drover_rafttypes::ControlReply;

use super::Prepared;
use crate::ApplyError;
use crate::codec::command::MoveCommand;
use crate::moving::{
    Activation, Chunk, ChunkRefusal, Fence, ImportJob, ImportPhase, MoveRefusal, MoveStep, Released, SourceJob, Stream,
};
use crate::state::OwnedInterval;

/// Why a step ends without an effect.
enum Stop {
    Refused(MoveRefusal),
    Fatal(ApplyError),
}

impl<E: Into<MoveRefusal>> From<E> for Stop {
    fn from(refusal: E) -> Self {
        Stop::Refused(refusal.into())
    }
}

/// Whether a step changed something.
type Changed = Result<bool, Stop>;

fn fatal(error: impl Into<ApplyError>) -> Stop {
    Stop::Fatal(error.into())
}

impl Prepared<'_> {
    /// Applies a step that stands at `index` in the log.
    pub(super) fn move_step(&mut self, index: u64, command: &MoveCommand) -> Result<ControlReply, ApplyError> {
        match self.judge_move(index, command) {
            Ok(true) => Ok(ControlReply::Done),
            Ok(false) => Ok(ControlReply::AlreadyDone),
            Err(Stop::Refused(refusal)) => Ok(ControlReply::Refused(format!("{refusal}; nothing was changed"))),
            Err(Stop::Fatal(error)) => Err(error),
        }
    }

    fn judge_move(&mut self, index: u64, command: &MoveCommand) -> Changed {
        let MoveCommand { job, epoch, step } = command;
        let (job, epoch) = (*job, *epoch);
        if self.state.moves.is_retired(job) && guards::on(Guard::RetiredJobs) {
            return match step {
                MoveStep::Retire => Ok(false),
                _ => Err(MoveRefusal::Retired { job }.into()),
            };
        }
        match step {
            MoveStep::PrepareImport { interval, shard, source } => {
                let import = ImportJob {
                    job,
                    epoch,
                    interval: interval.clone(),
                    shard: *shard,
                    source: *source,
                    armed_at: 0,
                    versions: Stream::default(),
                    records: Stream::default(),
                    tracked: 0,
                    sum: RowSum::default(),
                    bytes: 0,
                    highest: drover_hlc::Timestamp::ZERO,
                    phase: ImportPhase::Open,
                    closed_in: JobEpoch(0),
                };
                self.prepare_import(import)
            }
            MoveStep::ArmMigration { interval, target } => {
                let armed = SourceJob {
                    job,
                    epoch,
                    interval: interval.clone(),
                    shard: ShardId(0),
                    target: *target,
                    armed_at: index,
                    safe_point: drover_hlc::Timestamp::ZERO,
                    tracked_rows: 0,
                    tracked_bytes: 0,
                    change: RowSum::default(),
                    fence: Fence::Open,
                    fenced_in: JobEpoch(0),
                    fenced_at: 0,
                    sealed_at: 0,
                };
                self.arm(armed)
            }
            MoveStep::ImportChunk(chunk) => self.import_chunk(job, epoch, chunk),
            MoveStep::ApplyWriteFence => {
                let mut source = self.source(job, epoch)?;
                let locked = self.is_locked(&source)?;
                let changed = source.fence_writes(index, locked)?;
                Ok(self.keep_source(source, changed))
            }
            MoveStep::Seal => {
                let mut source = self.source(job, epoch)?;
                let locked = self.is_locked(&source)?;
                let changed = source.seal(index, locked)?;
                Ok(self.keep_source(source, changed))
            }
            MoveStep::ArmReadFence => {
                let mut source = self.source(job, epoch)?;
                let changed = source.fence_reads()?;
                Ok(self.keep_source(source, changed))
            }
            MoveStep::Clear => match self.state.moves.import(job).is_some() {
                true => {
                    let mut import = self.import(job, epoch)?;
                    let changed = import.clear();
                    Ok(self.keep_import(import, changed))
                }
                false => {
                    let mut source = self.source(job, epoch)?;
                    let changed = source.clear();
                    Ok(self.keep_source(source, changed))
                }
            },
            MoveStep::Activate(activation) => self.activate(job, epoch, activation),
            MoveStep::Release { version } => self.release(job, epoch, *version),
            MoveStep::Retire => self.retire(job, epoch),
        }
    }

    /// A copy of what is known of a job at its source, as it is in the course of `epoch`. A step changes the copy and keeps it
    /// at its end, so that one which is refused changes nothing, not even the epoch.
    fn source(&self, job: JobId, epoch: JobEpoch) -> Result<SourceJob, Stop> {
        let mut source = self.state.moves.source(job).ok_or(MoveRefusal::NotBegun { job })?.clone();
        source.enter(epoch)?;
        Ok(source)
    }

    /// The same at its target.
    fn import(&self, job: JobId, epoch: JobEpoch) -> Result<ImportJob, Stop> {
        let mut import = self.state.moves.import(job).ok_or(MoveRefusal::NotBegun { job })?.clone();
        import.enter(epoch)?;
        Ok(import)
    }

    fn keep_source(&mut self, source: SourceJob, changed: bool) -> bool {
        let known = self.state.moves.sources.iter_mut().find(|known| known.job == source.job);
        *known.expect("it is the copy of one that is there") = source;
        changed
    }

    fn keep_import(&mut self, import: ImportJob, changed: bool) -> bool {
        let known = self.state.moves.imports.iter_mut().find(|known| known.job == import.job);
        *known.expect("it is the copy of one that is there") = import;
        changed
    }

    fn prepare_import(&mut self, import: ImportJob) -> Changed {
        let ImportJob { job, epoch, .. } = import;
        if let Some(known) = self.state.moves.import(job) {
            let same_range = (&known.interval, known.source) == (&import.interval, import.source);
            return match same_range {
                true if known.shard == import.shard => {
                    let known = self.import(job, epoch)?;
                    Ok(self.keep_import(known, false))
                }
                // The copy is void: a later course begins another one.
                true if epoch > known.epoch => {
                    let void = known.shard;
                    self.check_shard(import.shard)?;
                    self.batch.empty(void, &Interval::all());
                    Ok(self.keep_import(import, true))
                }
                true => self.import(job, epoch).and(Err(MoveRefusal::Differs { job }.into())),
                false => Err(MoveRefusal::Differs { job }.into()),
            };
        }
        let state = &self.state;
        let interval = || import.interval.to_string();
        if !state.bootstrapped {
            return Err(MoveRefusal::NotFounded.into());
        }
        if state.owned.iter().any(|owned| owned.interval.overlaps(&import.interval)) {
            return Err(MoveRefusal::Owned { interval: interval() }.into());
        }
        if let Some(other) = state.moves.arriving(&import.interval).next() {
            return Err(MoveRefusal::Overlap { interval: interval(), other: other.job }.into());
        }
        self.check_shard(import.shard)?;
        self.state.moves.imports.push(import);
        Ok(true)
    }

    fn check_shard(&self, shard: ShardId) -> Result<(), MoveRefusal> {
        let owned = self.state.owned.iter().map(|owned| owned.shard);
        let mut used = owned.chain(self.state.moves.imports.iter().map(|import| import.shard));
        if used.any(|used| used == shard) { Err(MoveRefusal::ShardInUse { shard: shard.0 }) } else { Ok(()) }
    }

    fn arm(&mut self, armed: SourceJob) -> Changed {
        let SourceJob { job, epoch, .. } = armed;
        if let Some(known) = self.state.moves.source(job) {
            return match (&known.interval, known.target) == (&armed.interval, armed.target) {
                true => {
                    let known = self.source(job, epoch)?;
                    Ok(self.keep_source(known, false))
                }
                false => Err(MoveRefusal::Differs { job }.into()),
            };
        }
        let interval = || armed.interval.to_string();
        if let Some(other) = self.state.moves.leaving(&armed.interval).next() {
            return Err(MoveRefusal::Overlap { interval: interval(), other: other.job }.into());
        }
        let Some(place) = self.state.carve(&armed.interval) else {
            return Err(MoveRefusal::NotOwned { interval: interval() }.into());
        };
        let OwnedInterval { shard, safe_point, .. } = self.state.owned[place];
        self.state.moves.sources.push(SourceJob { shard, safe_point, ..armed });
        self.track();
        Ok(true)
    }

    fn import_chunk(&mut self, job: JobId, epoch: JobEpoch, chunk: &Chunk) -> Changed {
        let mut import = self.import(job, epoch)?;
        import.take(chunk)?;
        for row in chunk.rows.rows() {
            let commit_ts = row.check(&import.interval).map_err(|why| ChunkRefusal::BadRow { job, why })?;
            import.highest = import.highest.max(commit_ts.unwrap_or_default());
        }
        for row in chunk.rows.rows() {
            import.sum = import.sum.plus(self.batch.import(import.shard, row).map_err(fatal)?);
            import.bytes += row.bytes() as u64;
        }
        if let Some(expected) = chunk.close {
            import.close(expected);
        }
        self.state.max_commit_ts = self.state.max_commit_ts.max(import.highest);
        Ok(self.keep_import(import, true))
    }

    fn activate(&mut self, job: JobId, epoch: JobEpoch, activation: &Activation) -> Changed {
        let import = self.import(job, epoch)?;
        let closed = import.phase == ImportPhase::Closed && import.closed_in == import.epoch;
        if !closed && guards::on(Guard::ActivateClosed) {
            return Err(MoveRefusal::OutOfOrder { job, phase: import.phase.name(), wanted: "activated" }.into());
        }
        if activation.acquired_version < CatalogVersion::FIRST {
            return Err(MoveRefusal::NoVersion { job }.into());
        }
        let owned = OwnedInterval {
            interval: import.interval.clone(),
            route: activation.route,
            shard: import.shard,
            acquired_version: activation.acquired_version,
            floor_ts: activation.floor_ts.max(import.highest),
            history_start: activation.history_start,
            safe_point: activation.history_start,
            txn_horizon: activation.txn_horizon,
        };
        if self.state.owned.iter().any(|other| other.interval.overlaps(&owned.interval)) {
            return Err(MoveRefusal::Owned { interval: owned.interval.to_string() }.into());
        }
        if guards::on(Guard::RecordHorizonMoves) {
            self.state.record_horizon = self.state.record_horizon.max(activation.record_horizon);
        }
        let place = self.state.owned.partition_point(|other| other.interval.start() < owned.interval.start());
        self.state.owned.insert(place, owned);
        self.state.moves.arrive(&import.interval);
        self.state.moves.retire(job);
        Ok(true)
    }

    fn release(&mut self, job: JobId, epoch: JobEpoch, version: CatalogVersion) -> Changed {
        let source = self.source(job, epoch)?;
        if source.fence != Fence::Read && guards::on(Guard::ReleaseFenced) {
            return Err(MoveRefusal::OutOfOrder { job, phase: source.fence.name(), wanted: "released" }.into());
        }
        self.state.owned.retain(|owned| owned.interval != source.interval);
        self.batch.empty(source.shard, &source.interval);
        self.end_source(&source);
        self.state.moves.release(Released { interval: source.interval, group: source.target, version });
        Ok(true)
    }

    fn retire(&mut self, job: JobId, epoch: JobEpoch) -> Changed {
        if self.state.moves.source(job).is_some() {
            let source = self.source(job, epoch)?;
            self.end_source(&source);
        } else if self.state.moves.import(job).is_some() {
            let import = self.import(job, epoch)?;
            self.batch.empty(import.shard, &Interval::all());
            self.state.moves.retire(job);
        } else {
            self.state.moves.retire(job);
        }
        Ok(true)
    }

    fn end_source(&mut self, source: &SourceJob) {
        self.batch.empty_tracker(source.shard, source.job);
        self.state.moves.retire(source.job);
        self.track();
    }

    fn is_locked(&self, source: &SourceJob) -> Result<bool, Stop> {
        let mut locked = false;
        if self.state.locks > 0 {
            let mut visit = |_, _| {
                locked = true;
                ControlFlow::Break(())
            };
            self.batch.scan_locks(source.shard, &source.interval, &mut visit).map_err(fatal)?;
        }
        Ok(locked)
    }

    /// Lets the batch list what is written into ranges that move away.
    pub(super) fn track(&mut self) {
        if guards::on(Guard::TrackWrites) {
            self.batch.set_tracking(self.state.moves.sources.iter().map(SourceJob::tracking).collect());
        }
    }

    /// Takes over what the batch has listed.
    pub(super) fn note_tracked(&mut self) {
        for source in &mut self.state.moves.sources {
            if let Some(tracking) = self.batch.tracking().iter().find(|tracking| tracking.job == source.job) {
                source.tracked(tracking);
            }
        }
    }
}
