//! Reads on behalf of transactions: whether what was read is unchanged, what became of one, which locks there are.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_keys::{CatalogVersion, Interval, LogicalKey};
use drover_kv::{LockInfo, RefreshRequest, Refusal, TxnId, TxnStatus};
use drover_mvcc::RecordKind;

use super::Admitted;
use crate::cell::View;
use crate::codec::txn::{Lock, TxnRecord, TxnState};
use crate::error::ReadError;
use crate::gate::{conditions, txn as gate};
use crate::handle::FsmHandle;
use crate::read::validation::{Looked, ValidationLimits, first_change};

impl FsmHandle {
    /// Finds out whether what a transaction read at `start_ts` would read the same at `commit_ts`: no version, no expiry and no
    /// lock of another transaction came in between.
    ///
    /// # Errors
    /// As [`FsmHandle::get`]; [`Refusal::Conflict`] if something has changed, [`Refusal::TxnTooOld`] if that can no longer be
    /// told, [`drover_kv::Reason::BatchTooLarge`] if the ranges hold more than `limits` allow.
    pub fn refresh(
        &self,
        request: &RefreshRequest,
        limits: ValidationLimits,
        observed: Option<CatalogVersion>,
    ) -> Result<(), ReadError> {
        let view = self.view();
        // Of keys there are no more than a transaction may read; ranges are what may hold too much.
        let no_limits = ValidationLimits { max_rows: u64::MAX, max_keys: u64::MAX };
        let (mut keys, mut ranges) = (Looked::new(no_limits), Looked::new(limits));
        for key in &request.reads.keys {
            self.refresh_interval(&view, request, &Interval::point(key.clone()), &mut keys, observed)?;
        }
        for interval in &request.reads.intervals {
            self.refresh_interval(&view, request, interval, &mut ranges, observed)?;
        }
        Ok(())
    }

    /// What is known of a transaction whose primary is `primary`.
    ///
    /// # Errors
    /// As [`FsmHandle::get`], locks excepted.
    pub fn txn_status(
        &self,
        id: TxnId,
        primary: &Bytes,
        observed: Option<CatalogVersion>,
    ) -> Result<TxnStatus, ReadError> {
        let view = self.view();
        let interval = Interval::point(primary.clone());
        let shard = Admitted::judge(&view, &interval, observed, None)?.owned[0].shard;
        let record = view.snapshot.record(shard, primary, RecordKind::TxnOutcome, &id.0)?;
        let record = record.map(TxnRecord::decode).transpose()?.map(|record| record.state);
        if let Some(TxnState::Committed { attempt, commit_ts, remote, .. }) = record {
            return Ok(TxnStatus::Committed { attempt, commit_ts, remote });
        }
        let lock = view.snapshot.lock(shard, &LogicalKey::plain(primary.clone()))?.map(Lock::decode).transpose()?;
        Ok(match (lock.filter(|lock| lock.txn.id == id), record) {
            (Some(lock), _) => {
                TxnStatus::Prepared { attempt: lock.txn.attempt, start_ts: lock.start_ts, expire_at: lock.expire_at }
            }
            (None, Some(TxnState::RolledBack { through })) => TxnStatus::RolledBack { through },
            (None, _) => TxnStatus::Nothing,
        })
    }

    /// The locks in an interval in key order, at most `limit` (at least 1), and where the rest starts.
    ///
    /// # Errors
    /// As [`FsmHandle::get`], locks excepted.
    pub fn locks(
        &self,
        interval: &Interval,
        limit: u32,
        observed: Option<CatalogVersion>,
    ) -> Result<(Vec<LockInfo>, Option<Bytes>), ReadError> {
        let view = self.view();
        let admitted = Admitted::judge(&view, interval, observed, None)?;
        let (mut locks, mut resume) = (Vec::new(), None);
        for (owned, part) in admitted.parts() {
            let mut damaged = Ok(());
            view.snapshot.scan_locks(owned.shard, &part, &mut |key, lock| {
                if locks.len() >= limit.max(1) as usize {
                    resume = Some(key);
                    return ControlFlow::Break(());
                }
                match Lock::decode(lock) {
                    Ok(lock) => locks.push(lock.info(key)),
                    Err(error) => damaged = Err(error),
                }
                if damaged.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            damaged?;
            if resume.is_some() {
                break;
            }
        }
        Ok((locks, resume))
    }

    fn refresh_interval(
        &self,
        view: &View,
        request: &RefreshRequest,
        interval: &Interval,
        looked: &mut Looked,
        observed: Option<CatalogVersion>,
    ) -> Result<(), ReadError> {
        let RefreshRequest { id, start_ts, commit_ts, .. } = request;
        let admitted = Admitted::judge(view, interval, observed, None)?;
        gate::young_enough(admitted.owned, *start_ts)?;
        admitted.each_lock(&mut |key, lock| match lock.txn.id != *id && lock.start_ts < *commit_ts {
            true => conditions::unlocked(Some(lock.info(key))).map_err(ReadError::from),
            false => Ok(()),
        })?;
        if let Some((key, changed_at)) = first_change(&admitted, *start_ts, (*commit_ts, *commit_ts), looked)? {
            return Err(Refusal::Conflict { key, changed_at }.into());
        }
        // Collected meanwhile, or below the safe point by now: what was not found may have been there.
        self.still_kept(interval, *start_ts)
    }
}
