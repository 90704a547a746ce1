//! What a step of a move makes of a group: the state that results, and what happens to the rows. The one function for it, in the
//! product and in the model of the move; where the rows are is the business of [`MovedRows`].

use drover_guards::{self as guards, Guard};
use drover_keys::{CatalogVersion, Interval, JobEpoch, JobId, ShardId};
use drover_mvcc::{RawRow, RowSum, Tracking};

use super::{
    Activation, Chunk, ChunkRefusal, Fence, ImportJob, ImportPhase, MoveRefusal, MoveStep, Released, SourceJob,
};
use crate::codec::command::MoveCommand;
use crate::state::{GroupState, OwnedInterval};

/// The rows of a group, as far as steps of moves touch them.
pub trait MovedRows {
    /// The rows cannot be reached: the replica stops.
    type Error;

    /// Takes away all rows and locks of an interval of a shard.
    fn empty(&mut self, shard: ShardId, interval: &Interval);

    /// Takes away a job's list.
    fn empty_tracker(&mut self, shard: ShardId, job: JobId);

    /// Writes a row as it came; what that adds to the sum of the rows. One that `is_new` is not there yet, and need not be
    /// looked for.
    ///
    /// # Errors
    /// If the rows cannot be reached.
    fn import(&mut self, shard: ShardId, row: &RawRow, is_new: bool) -> Result<RowSum, Self::Error>;

    /// Whether a transaction holds a lock in an interval of a shard.
    ///
    /// # Errors
    /// If the rows cannot be reached.
    fn is_locked(&self, shard: ShardId, interval: &Interval) -> Result<bool, Self::Error>;

    /// From now on lists what is written into these.
    fn set_tracking(&mut self, ranges: Vec<Tracking>);
}

/// Why a step ends without an effect.
#[derive(Debug)]
pub enum Stop<E> {
    /// This is the answer. Nothing was changed.
    Refused(MoveRefusal),
    /// The replica stops.
    Fatal(E),
}

impl<E> From<MoveRefusal> for Stop<E> {
    fn from(refusal: MoveRefusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl<E> From<ChunkRefusal> for Stop<E> {
    fn from(refusal: ChunkRefusal) -> Self {
        Stop::Refused(refusal.into())
    }
}

/// Whether a step changed something.
type Changed<E> = Result<bool, Stop<E>>;

/// Applies a step that stands at `index` in the log. Whether it changed more than the epoch.
///
/// # Errors
/// Why nothing was changed, or that the rows cannot be reached.
pub fn apply_step<R: MovedRows>(
    state: &mut GroupState,
    rows: &mut R,
    index: u64,
    command: &MoveCommand,
) -> Result<bool, Stop<R::Error>> {
    Work { state, rows }.judge(index, command)
}

/// The ranges of which everything is listed that is written into them.
pub fn tracked_ranges(state: &GroupState) -> Vec<Tracking> {
    match guards::on(Guard::TrackWrites) {
        true => state.moves.sources.iter().map(SourceJob::tracking).collect(),
        false => Vec::new(),
    }
}

/// Takes over what has been listed.
pub fn note_tracked(state: &mut GroupState, tracked: &[Tracking]) {
    for source in &mut state.moves.sources {
        if let Some(tracking) = tracked.iter().find(|tracking| tracking.job == source.job) {
            source.tracked(tracking);
        }
    }
}

struct Work<'a, R> {
    state: &'a mut GroupState,
    rows: &'a mut R,
}

impl<R: MovedRows> Work<'_, R> {
    fn judge(&mut self, index: u64, command: &MoveCommand) -> Changed<R::Error> {
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
                self.prepare_import(ImportJob::begun(job, epoch, interval.clone(), *shard, *source))
            }
            MoveStep::ArmMigration { interval, target } => {
                self.arm(SourceJob::armed(job, epoch, interval.clone(), *target, index))
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
    fn source(&self, job: JobId, epoch: JobEpoch) -> Result<SourceJob, Stop<R::Error>> {
        let mut source = self.state.moves.source(job).ok_or(MoveRefusal::NotBegun { job })?.clone();
        source.enter(epoch)?;
        Ok(source)
    }

    /// The same at its target.
    fn import(&self, job: JobId, epoch: JobEpoch) -> Result<ImportJob, Stop<R::Error>> {
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

    fn prepare_import(&mut self, import: ImportJob) -> Changed<R::Error> {
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
                    self.rows.empty(void, &Interval::all());
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
        let is_used = used.any(|used| used == shard) && guards::on(Guard::FreshShard);
        if is_used { Err(MoveRefusal::ShardInUse { shard: shard.0 }) } else { Ok(()) }
    }

    fn arm(&mut self, armed: SourceJob) -> Changed<R::Error> {
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

    fn import_chunk(&mut self, job: JobId, epoch: JobEpoch, chunk: &Chunk) -> Changed<R::Error> {
        let mut import = self.import(job, epoch)?;
        let mut frontier = import.frontier(&chunk.rows);
        import.take(chunk)?;
        for row in chunk.rows.rows() {
            let commit_ts = row.check(&import.interval).map_err(|why| ChunkRefusal::BadRow { job, why })?;
            import.highest = import.highest.max(commit_ts.unwrap_or_default());
        }
        for row in chunk.rows.rows() {
            let is_new = frontier.as_mut().is_some_and(|frontier| frontier.advance(row));
            import.sum = import.sum.plus(self.rows.import(import.shard, row, is_new).map_err(Stop::Fatal)?);
            import.bytes += row.bytes() as u64;
        }
        if let Some(expected) = chunk.close {
            import.close(expected);
        }
        self.state.max_commit_ts = self.state.max_commit_ts.max(import.highest);
        Ok(self.keep_import(import, true))
    }

    fn activate(&mut self, job: JobId, epoch: JobEpoch, activation: &Activation) -> Changed<R::Error> {
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

    fn release(&mut self, job: JobId, epoch: JobEpoch, version: CatalogVersion) -> Changed<R::Error> {
        let source = self.source(job, epoch)?;
        if source.fence != Fence::Read && guards::on(Guard::ReleaseFenced) {
            return Err(MoveRefusal::OutOfOrder { job, phase: source.fence.name(), wanted: "released" }.into());
        }
        self.state.owned.retain(|owned| owned.interval != source.interval);
        self.rows.empty(source.shard, &source.interval);
        self.end_source(&source);
        self.state.moves.release(Released { interval: source.interval, group: source.target, version });
        Ok(true)
    }

    fn retire(&mut self, job: JobId, epoch: JobEpoch) -> Changed<R::Error> {
        if self.state.moves.source(job).is_some() {
            let source = self.source(job, epoch)?;
            self.end_source(&source);
        } else if self.state.moves.import(job).is_some() {
            let import = self.import(job, epoch)?;
            self.rows.empty(import.shard, &Interval::all());
            self.state.moves.retire(job);
        } else {
            self.state.moves.retire(job);
        }
        Ok(true)
    }

    fn end_source(&mut self, source: &SourceJob) {
        self.rows.empty_tracker(source.shard, source.job);
        self.state.moves.retire(source.job);
        self.track();
    }

    fn is_locked(&self, source: &SourceJob) -> Result<bool, Stop<R::Error>> {
        match self.state.locks {
            0 => Ok(false),
            _ => self.rows.is_locked(source.shard, &source.interval).map_err(Stop::Fatal),
        }
    }

    fn track(&mut self) {
        self.rows.set_tracking(tracked_ranges(self.state));
    }
}
