//! The one door for reads: proof of leadership, then the pending registry, then one snapshot of gates and data.
//!
//! A read of the latest value of one key needs no timestamp while nothing stands in its way. A read that had to wait,
//! that concerns several keys, or that meets a version with an expiry goes on as a snapshot read: at a fresh timestamp,
//! from the start, with a new proof. The proof comes after the timestamp was issued, so whoever leads after the proof
//! gives its writes younger timestamps; and what registers after the timestamp was issued is younger too, so a read
//! waits once, for the writes that were pending when it arrived.

use std::time::Instant;

use bytes::Bytes;
use drover_fsm::{At, ReadError, ReadOutcome};
use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_keys::CatalogVersion;
use drover_keys::Interval;
use drover_kv::{Error, ReadAnswer, ReadOp, ReadSet, Reason, Versioned};
use drover_seams::blocking;

use crate::arrival;
use crate::group::Group;
use crate::leadership::Leadership;
use crate::pending::PendingWrite;

/// So many keys are read where the caller runs, as a single one is. To give the thread up to others first, and get one back, costs
/// more than to read them.
const AT_ONCE: usize = 16;

/// Looks at the store for some keys and intervals, which may take a while unless there are few keys and no interval.
pub(crate) fn look<T>(keys: usize, intervals: usize, look: impl FnOnce() -> T) -> T {
    match (keys, intervals) {
        (..=AT_ONCE, 0) => look(),
        _ => blocking::here(look),
    }
}

/// What a read looks at.
enum Scope<'a> {
    Key(&'a Bytes),
    Keys(&'a [Bytes]),
    Interval(&'a Interval),
    Reads(&'a ReadSet),
    /// Nothing that a write makes visible: proof of leadership is enough.
    Nothing,
}

impl Group {
    /// Serves one read from this replica if it leads.
    ///
    /// # Errors
    /// All definite: a read has no effect.
    pub async fn read(
        &self,
        op: ReadOp,
        observed: Option<CatalogVersion>,
        deadline: Instant,
    ) -> Result<ReadAnswer, Error> {
        if !self.takes_in() {
            return self.read_now(op, observed, deadline).await;
        }
        let touched = arrival::read(&op);
        self.once_arrived(&touched, observed, deadline, || self.read_now(op.clone(), observed, deadline)).await
    }

    async fn read_now(
        &self,
        op: ReadOp,
        observed: Option<CatalogVersion>,
        deadline: Instant,
    ) -> Result<ReadAnswer, Error> {
        match op {
            ReadOp::Get { key, read_ts } => self.get(&key, read_ts, observed, deadline).await,
            ReadOp::LatestCommitTs { key } => {
                self.enter(&Scope::Key(&key), None, deadline).await?;
                Ok(ReadAnswer::LatestCommitTs(
                    self.fsm.latest_commit_ts(&key, observed).map_err(|error| self.judge(error))?,
                ))
            }
            ReadOp::BatchGet { keys, read_ts } => {
                self.enter(&Scope::Keys(&keys), Some(read_ts), deadline).await?;
                let limits = &self.options.limits;
                let versions = look(keys.len(), 0, || self.fsm.batch_get(&keys, read_ts, observed, limits));
                Ok(ReadAnswer::BatchGet { versions: versions.map_err(|error| self.judge(error))? })
            }
            ReadOp::Scan(request) => {
                self.enter(&Scope::Interval(&request.interval), Some(request.read_ts), deadline).await?;
                let page = blocking::here(|| self.fsm.scan(&request, observed));
                Ok(ReadAnswer::Scan(page.map_err(|error| self.judge(error))?))
            }
            ReadOp::Refresh(request) => {
                self.enter(&Scope::Reads(&request.reads), Some(request.commit_ts), deadline).await?;
                let (keys, intervals) = (request.reads.keys.len(), request.reads.intervals.len());
                let refresh = || self.fsm.refresh(&request, self.options.validation, observed);
                let unchanged = look(keys, intervals, refresh);
                unchanged.map_err(|error| self.judge(error))?;
                Ok(ReadAnswer::Refreshed)
            }
            ReadOp::TxnStatus { id, primary } => {
                self.enter(&Scope::Nothing, None, deadline).await?;
                let status = self.fsm.txn_status(id, &primary, observed);
                Ok(ReadAnswer::TxnStatus(status.map_err(|error| self.judge(error))?))
            }
            ReadOp::Locks { interval, limit } => {
                self.enter(&Scope::Nothing, None, deadline).await?;
                let found = blocking::here(|| self.fsm.locks(&interval, limit, observed));
                let (locks, resume) = found.map_err(|error| self.judge(error))?;
                Ok(ReadAnswer::Locks { locks, resume })
            }
        }
    }

    async fn get(
        &self,
        key: &Bytes,
        read_ts: Option<Timestamp>,
        observed: Option<CatalogVersion>,
        deadline: Instant,
    ) -> Result<ReadAnswer, Error> {
        if let Some(at) = read_ts {
            return self.get_at(key, at, observed, deadline).await;
        }
        let waited = self.enter(&Scope::Key(key), None, deadline).await?;
        if !(waited && guards::on(Guard::FreshAfterWait))
            && let ReadOutcome::Version(version) =
                self.fsm.get(key, At::Latest, observed).map_err(|error| self.judge(error))?
        {
            return Ok(ReadAnswer::Get { version, read_ts: None });
        }
        let at = self.timestamps.timestamps(1, deadline).await?;
        self.get_at(key, at, observed, deadline).await
    }

    async fn get_at(
        &self,
        key: &Bytes,
        at: Timestamp,
        observed: Option<CatalogVersion>,
        deadline: Instant,
    ) -> Result<ReadAnswer, Error> {
        self.enter(&Scope::Key(key), Some(at), deadline).await?;
        let version = self.snapshot_get(key, at, observed)?;
        Ok(ReadAnswer::Get { version, read_ts: Some(at) })
    }

    fn snapshot_get(
        &self,
        key: &Bytes,
        at: Timestamp,
        observed: Option<CatalogVersion>,
    ) -> Result<Option<Versioned>, Error> {
        match self.fsm.get(key, At::Ts(at), observed).map_err(|error| self.judge(error))? {
            ReadOutcome::Version(version) => Ok(version),
            ReadOutcome::NeedTimestamp => {
                Err(Error::definite(Reason::Internal, "a snapshot read asked for a timestamp; nothing happened"))
            }
        }
    }

    /// What the state machine's side of the door says, as a caller is told. A store that cannot be read is reported, so
    /// that the replica is stopped.
    pub(crate) fn judge(&self, error: ReadError) -> Error {
        match error {
            ReadError::Refused(refusal) => drover_wire::refusal_to_error(&refusal),
            ReadError::Failed(error) => {
                if error.reason == Reason::ReplicaStopped {
                    self.fsm.report_failure(&error.message);
                }
                error
            }
        }
    }

    /// Passes the door: proves leadership and waits for the writes that were pending on arrival and may be visible at
    /// `at` (`None`: latest). If it had to wait, it proves leadership again, and says so.
    async fn enter(&self, scope: &Scope<'_>, at: Option<Timestamp>, deadline: Instant) -> Result<bool, Error> {
        let leadership = self.leadership()?;
        self.prove_leadership(&leadership, deadline).await?;
        let blocking = blocking(&leadership, scope, at);
        if blocking.is_empty() || !guards::on(Guard::ReadsWait) {
            return Ok(false);
        }
        self.stats.read_waited();
        for write in &blocking {
            leadership.wait(deadline, write.settled(at)).await?;
        }
        self.prove_leadership(&leadership, deadline).await?;
        Ok(true)
    }
}

fn blocking(leadership: &Leadership, scope: &Scope<'_>, at: Option<Timestamp>) -> Vec<PendingWrite> {
    match scope {
        Scope::Key(key) => leadership.pending.blocking_key(key, at),
        Scope::Keys(keys) => keys.iter().flat_map(|key| leadership.pending.blocking_key(key, at)).collect(),
        Scope::Interval(interval) => leadership.pending.blocking(interval, at),
        Scope::Reads(reads) => {
            let keys = reads.keys.iter().flat_map(|key| leadership.pending.blocking_key(key, at));
            keys.chain(reads.intervals.iter().flat_map(|read| leadership.pending.blocking(read, at))).collect()
        }
        Scope::Nothing => Vec::new(),
    }
}
