//! What the copy of a moving range reads: rows, tracker and state of one moment.
//!
//! Nobody is served from here: what is copied may be read whatever the fences say, on any replica that has applied what the
//! copy builds on.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use drover_catalog::job::BaseSum;
use drover_hlc::Timestamp;
use drover_keys::JobId;
use drover_kv::{Error, Reason};
use drover_mvcc::{ExportBudget, MetaKey, Portion, RowKind, RowSum, StoreSnapshot, Summing, TrackedPortion};

use crate::codec::state;
use crate::codec::txn::Lock;
use crate::error::ReadError;
use crate::handle::FsmHandle;
use crate::home::StoreHome;
use crate::moving::{Chunk, ChunkRows, ExportRequest, ExportRows, Exported, MoveFacts, SourceFacts, SourceJob};
use crate::state::GroupState;

/// The locks in a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeLocks {
    /// The first of them, in key order: key, and the snapshot that the transaction reads.
    pub first: Vec<(Bytes, Timestamp)>,
    /// The oldest snapshot that any of the transactions reads; `None` if there are none.
    pub oldest: Option<Timestamp>,
}

/// Rows, tracker and state of one moment.
pub struct MoveView {
    /// Dropped before the store it belongs to.
    snapshot: StoreSnapshot,
    state: GroupState,
    _home: Arc<StoreHome>,
}

impl FsmHandle {
    /// The present moment. The state comes out of the same snapshot as the rows: what is published may be a batch behind
    /// them, and what was listed until then would not be what was written.
    ///
    /// # Errors
    /// If the store fails.
    pub fn move_view(&self) -> Result<MoveView, ReadError> {
        let home = self.shared.cell.load().home;
        let snapshot = home.store().snapshot();
        let state = state::decode(snapshot.meta(MetaKey::GroupState)?.as_deref())?;
        Ok(MoveView { snapshot, state, _home: home })
    }
}

impl MoveView {
    /// The state of that moment.
    pub fn state(&self) -> &GroupState {
        &self.state
    }

    /// What the log says of `job`.
    ///
    /// # Errors
    /// If the store fails.
    pub fn facts(&self, job: JobId) -> Result<MoveFacts, ReadError> {
        let moves = &self.state.moves;
        let retired = moves.is_retired(job);
        let source = match moves.source(job) {
            Some(source) => Some(self.source_facts(source)?),
            None => None,
        };
        Ok(MoveFacts { retired, source, import: moves.import(job).cloned() })
    }

    fn source_facts(&self, source: &SourceJob) -> Result<SourceFacts, ReadError> {
        let owned = self.state.owned.iter().find(|owned| owned.interval == source.interval);
        let owned = owned.ok_or_else(|| {
            let message = format!("job {} moves a range away that this group does not own as it is", source.job);
            ReadError::Failed(Error::definite(Reason::Internal, message))
        })?;
        Ok(SourceFacts {
            job: source.clone(),
            oldest_lock: self.locks(source.job, 0)?.oldest,
            history_start: owned.history_start.max(owned.safe_point),
            txn_horizon: owned.txn_horizon,
            record_horizon: self.state.record_horizon,
        })
    }

    /// A portion of what is asked for.
    ///
    /// # Errors
    /// [`Reason::FailedPrecondition`] if the range is not armed here, or otherwise, or not sealed.
    pub fn exported(&self, request: &ExportRequest) -> Result<Exported, ReadError> {
        let ExportRequest { job, armed_at, budget, .. } = *request;
        let change = self.armed(job, armed_at)?.change;
        let (rows, done) = match &request.rows {
            ExportRows::Copied { kind, after } => {
                let Portion { rows, cursor, done } = self.export(job, armed_at, *kind, after, budget)?;
                (ChunkRows::Copied { kind: *kind, from: after.clone(), to: cursor, done, rows }, done)
            }
            ExportRows::Tracked { from, sealed_at } => {
                let TrackedPortion { rows, next, done } =
                    self.export_tracked(job, armed_at, *from, *sealed_at, budget)?;
                (ChunkRows::Tracked { from: *from, to: next, rows }, done)
            }
        };
        Ok(Exported { chunk: Chunk { armed_at, rows, close: None }, done, change })
    }

    /// The range of `job`, if this replica has applied the entry that armed it, which stands at `armed_at`.
    fn armed(&self, job: JobId, armed_at: u64) -> Result<&SourceJob, ReadError> {
        let source = self.state.moves.source(job).filter(|source| source.armed_at == armed_at);
        source.ok_or_else(|| {
            let message =
                format!("this replica does not know of job {job} as armed at log index {armed_at}, or no longer");
            ReadError::Failed(Error::definite(Reason::FailedPrecondition, message))
        })
    }

    /// A portion of the rows of one kind, behind the row `after`.
    ///
    /// # Errors
    /// [`Reason::FailedPrecondition`] if the range is not armed here, or otherwise.
    pub fn export(
        &self,
        job: JobId,
        armed_at: u64,
        kind: RowKind,
        after: &[u8],
        budget: ExportBudget,
    ) -> Result<Portion, ReadError> {
        let SourceJob { shard, interval, safe_point, .. } = self.armed(job, armed_at)?;
        Ok(self.snapshot.export(kind, *shard, interval, *safe_point, after, budget)?)
    }

    /// A portion of what was written since the range was armed, from entry `from` of the tracker on. With `sealed_at` only if
    /// nothing has changed since that log index, by the seal that stands there: a replica that lags may know of an older one.
    ///
    /// # Errors
    /// [`Reason::FailedPrecondition`] if the range is not armed here, or otherwise, or not sealed.
    pub fn export_tracked(
        &self,
        job: JobId,
        armed_at: u64,
        from: u64,
        sealed_at: Option<u64>,
        budget: ExportBudget,
    ) -> Result<TrackedPortion, ReadError> {
        let source = self.armed(job, armed_at)?;
        if let Some(at) = sealed_at.filter(|at| !source.is_sealed_at(*at)) {
            let message =
                format!("this replica does not know of the seal of job {job} at log index {at}, or no longer");
            return Err(ReadError::Failed(Error::definite(Reason::FailedPrecondition, message)));
        }
        Ok(self.snapshot.export_tracked(source.shard, job, from, budget)?)
    }

    /// Begins to add the range up, as of its arming: see [`MoveView::base_sum`].
    ///
    /// # Errors
    /// [`Reason::FailedPrecondition`] if the range is not armed here, or otherwise.
    pub fn summing(&self, job: JobId, armed_at: u64) -> Result<Summing, ReadError> {
        let SourceJob { shard, interval, safe_point, .. } = self.armed(job, armed_at)?;
        Ok(Summing::new(*shard, interval, *safe_point))
    }

    /// Looks at `bytes` more of the range for its sum, which was begun in this view; the sum, if that was all.
    ///
    /// # Errors
    /// As for [`MoveView::summing`].
    pub fn base_sum(
        &self,
        job: JobId,
        armed_at: u64,
        summing: &mut Summing,
        bytes: usize,
    ) -> Result<Option<BaseSum>, ReadError> {
        let change = self.armed(job, armed_at)?.change;
        let base = |sum: RowSum| {
            let RowSum { hash, rows } = sum.minus(change);
            BaseSum { armed_at, hash, rows }
        };
        Ok(self.snapshot.sum_on(summing, bytes)?.map(base))
    }

    /// The locks in the range of `job`, at most `limit` of them by name.
    ///
    /// # Errors
    /// If the store fails.
    pub fn locks(&self, job: JobId, limit: usize) -> Result<RangeLocks, ReadError> {
        let Some(source) = self.state.moves.source(job).filter(|_| self.state.locks > 0) else {
            return Ok(RangeLocks::default());
        };
        let (mut locks, mut judged) = (RangeLocks::default(), Ok(()));
        self.snapshot.scan_locks(source.shard, &source.interval, &mut |key, lock| match Lock::decode(lock) {
            Ok(lock) => {
                if locks.first.len() < limit {
                    locks.first.push((key, lock.start_ts));
                }
                locks.oldest = locks.oldest.into_iter().chain([lock.start_ts]).min();
                ControlFlow::Continue(())
            }
            Err(error) => {
                judged = Err(ReadError::from(error));
                ControlFlow::Break(())
            }
        })?;
        judged.map(|()| locks)
    }
}
