//! What a leader looks up before it proposes: bounds of a range delete, records that may be removed.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, End, Interval, LogicalKey};
use drover_kv::{Mutation, TxnCommit, TxnId, TxnRef, WriteKind};
use drover_mvcc::{RecordKind, RecordPlace, RecordRow};

use super::Admitted;
use crate::ApplyError;
use crate::codec::command::{RecordName, TxnRecordName};
use crate::codec::record::OutcomeRecord;
use crate::codec::txn::{Lock, TxnMarker, TxnRecord, TxnState};
use crate::error::ReadError;
use crate::gate::conditions::{self, live};
use crate::gate::fence::{self, Class};
use crate::gate::owner;
use crate::handle::FsmHandle;

/// A part of a range delete that is small enough for one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounded {
    /// The part.
    pub interval: Interval,
    /// Where the rest starts; `None` if this is all.
    pub resume: Option<Bytes>,
}

/// Some of the idempotency records that may be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpiredRecords {
    /// Their names, in key order.
    pub names: Vec<RecordName>,
    /// Where to go on; `None` if all records were looked at.
    pub resume: Option<RecordPlace>,
}

/// A committed transaction whose locks elsewhere may not all be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsettledTxn {
    /// Who.
    pub txn: TxnRef,
    /// The snapshot that it read.
    pub start_ts: Timestamp,
    /// The timestamp of all that it wrote.
    pub commit_ts: Timestamp,
    /// Under which it is recorded.
    pub primary: Bytes,
    /// Keys whose locks may not be resolved.
    pub remote: Vec<Bytes>,
}

/// Some of what is recorded of transactions and may be removed, and what has to be done before more may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpiredTxnRecords {
    /// What may be removed, in key order.
    pub names: Vec<TxnRecordName>,
    /// What is in the way of others.
    pub unsettled: Vec<UnsettledTxn>,
    /// Where to go on; `None` if all records were looked at.
    pub resume: Option<RecordPlace>,
}

impl FsmHandle {
    /// Cuts a range delete short, in front of the key that would be the one after `max_keys` live ones or
    /// `max_scanned` looked at, as of the newest versions and, for expiry, of `at`. Both bounds are at least 1.
    ///
    /// # Errors
    /// As [`FsmHandle::get`].
    pub fn bound_delete_range(
        &self,
        interval: &Interval,
        at: Timestamp,
        max_keys: u64,
        max_scanned: u64,
        observed: Option<CatalogVersion>,
    ) -> Result<Bounded, ReadError> {
        let view = self.view();
        let admitted = Admitted::judge(&view, interval, observed, None)?;
        let (mut keys, mut scanned, mut resume) = (0, 0, None);
        for (owned, part) in admitted.parts() {
            view.snapshot.scan(owned.shard, &part, Timestamp::MAX, false, &mut |key, commit_ts, version| {
                let is_live = live(Some((commit_ts, version)), at).is_some();
                if scanned >= max_scanned.max(1) || (is_live && keys >= max_keys.max(1)) {
                    resume = Some(key);
                    return ControlFlow::Break(());
                }
                scanned += 1;
                keys += u64::from(is_live);
                ControlFlow::Continue(())
            })?;
            if resume.is_some() {
                break;
            }
        }
        let interval = match &resume {
            // The key lies above the start: at least one row was looked at before it.
            Some(key) => Interval::new(interval.start().clone(), End::Key(key.clone()))
                .expect("the bound lies above a key of the interval"),
            None => interval.clone(),
        };
        Ok(Bounded { interval, resume })
    }

    /// Refuses a new write to a range that is write-fenced. Says nothing about a moment later; apply judges for good.
    ///
    /// # Errors
    /// What the gates of owner and fence say.
    pub fn unfenced(&self, kind: &WriteKind) -> Result<(), ReadError> {
        let state = self.state();
        if state.moves.sources.is_empty() {
            return Ok(());
        }
        let judge = |footprint: &Interval| {
            owner::judge(&state, footprint)?;
            fence::judge(&state, footprint, Class::New)
        };
        match kind {
            WriteKind::Txn(step) if step.ends_a_transaction() => Ok(()),
            WriteKind::Txn(step) => step.keys().try_for_each(|key| judge(&Interval::point(key.clone()))),
            kind => judge(&kind.footprint()),
        }
        .map_err(ReadError::from)
    }

    /// Refuses a write to a key that a lock stands on. Says nothing about a moment later; apply judges for good.
    ///
    /// # Errors
    /// As [`FsmHandle::get`].
    pub fn key_unlocked(&self, key: &Bytes, observed: Option<CatalogVersion>) -> Result<(), ReadError> {
        if self.state().locks == 0 {
            return Ok(());
        }
        let view = self.view();
        let interval = Interval::point(key.clone());
        let admitted = Admitted::judge(&view, &interval, observed, None)?;
        admitted.key_unlocked(&LogicalKey::plain(key.clone()), None)
    }

    /// As [`FsmHandle::key_unlocked`], for a write to every key of `interval`.
    ///
    /// # Errors
    /// As [`FsmHandle::get`].
    pub fn interval_unlocked(&self, interval: &Interval, observed: Option<CatalogVersion>) -> Result<(), ReadError> {
        if self.state().locks == 0 {
            return Ok(());
        }
        let view = self.view();
        let admitted = Admitted::judge(&view, interval, observed, None)?;
        admitted.each_lock(&mut |key, lock| Ok(conditions::unlocked(Some(lock.info(key)))?))
    }

    /// As [`FsmHandle::key_unlocked`], for the keys that a transaction writes in one entry; its own locks do not count. One whose
    /// outcome is recorded gets that, whatever is locked by now.
    ///
    /// # Errors
    /// As [`FsmHandle::get`].
    pub fn commit_unlocked(&self, commit: &TxnCommit, observed: Option<CatalogVersion>) -> Result<(), ReadError> {
        if self.state().locks == 0 {
            return Ok(());
        }
        let view = self.view();
        for (at, Mutation { key, .. }) in commit.mutations.iter().enumerate() {
            let shard = Admitted::judge(&view, &Interval::point(key.clone()), observed, None)?.owned[0].shard;
            if at == 0 && view.snapshot.record(shard, key, RecordKind::TxnOutcome, &commit.txn.id.0)?.is_some() {
                return Ok(());
            }
            let lock = view.snapshot.lock(shard, &LogicalKey::plain(key.clone()))?.map(Lock::decode).transpose()?;
            let foreign = lock.filter(|lock| lock.txn.id != commit.txn.id);
            conditions::unlocked(foreign.map(|lock| lock.info(key.clone())))?;
        }
        Ok(())
    }

    /// Looks at up to `max_scanned` (at least 1) records from `from` on, the first one without it, and names those of idempotency
    /// keys whose `not_after` is at or below `horizon`.
    ///
    /// # Errors
    /// If the store fails or a record cannot be read.
    pub fn expired_records(
        &self,
        from: Option<&RecordPlace>,
        horizon: Timestamp,
        max_scanned: u64,
    ) -> Result<ExpiredRecords, ReadError> {
        let mut names = Vec::new();
        let resume = self.each_record(from, max_scanned, &mut |row, pinned| {
            if row.kind == RecordKind::Idempotency && !pinned && OutcomeRecord::decode(row.value)?.not_after <= horizon
            {
                names.push(RecordName { route_key: row.route_key, idempotency_key: row.name });
            }
            Ok(())
        })?;
        Ok(ExpiredRecords { names, resume })
    }

    /// As [`FsmHandle::expired_records`], for what is recorded of transactions that read snapshots at or below `horizon`.
    ///
    /// # Errors
    /// If the store fails or a record cannot be read.
    pub fn expired_txn_records(
        &self,
        from: Option<&RecordPlace>,
        horizon: Timestamp,
        max_scanned: u64,
    ) -> Result<ExpiredTxnRecords, ReadError> {
        let mut found = ExpiredTxnRecords::default();
        let resume = self.each_record(from, max_scanned, &mut |row, pinned| {
            let id = || -> Result<TxnId, ApplyError> {
                let bytes = row.name.as_ref().try_into();
                bytes.map(TxnId).map_err(|_| ApplyError::Corrupt {
                    what: "name of a transaction record",
                    why: format!("it has {} bytes", row.name.len()),
                })
            };
            let marker = row.kind == RecordKind::TxnMarker;
            match row.kind {
                RecordKind::Idempotency => {}
                RecordKind::TxnMarker => {
                    if !pinned && TxnMarker::decode(row.value.clone())?.start_ts <= horizon {
                        found.names.push(TxnRecordName { id: id()?, route_key: row.route_key, marker });
                    }
                }
                RecordKind::TxnOutcome => match TxnRecord::decode(row.value.clone())? {
                    record if record.start_ts > horizon => {}
                    TxnRecord { start_ts, state: TxnState::Committed { attempt, commit_ts, remote, .. } }
                        if !remote.is_empty() =>
                    {
                        let txn = TxnRef { id: id()?, attempt };
                        found.unsettled.push(UnsettledTxn { txn, start_ts, commit_ts, primary: row.route_key, remote });
                    }
                    _ if pinned => {}
                    _ => found.names.push(TxnRecordName { id: id()?, route_key: row.route_key, marker }),
                },
            }
            Ok(())
        })?;
        Ok(ExpiredTxnRecords { resume, ..found })
    }

    /// Shows up to `max_scanned` (at least 1) records from `from` on, or from the first; where to go on, if there are more. However
    /// many lie under one route key, it shows no more than that. With each, whether its range moves away: nothing is removed
    /// there.
    fn each_record(
        &self,
        from: Option<&RecordPlace>,
        max_scanned: u64,
        visit: &mut dyn FnMut(RecordRow, bool) -> Result<(), ApplyError>,
    ) -> Result<Option<RecordPlace>, ReadError> {
        let view = self.view();
        let rest = match from {
            Some(from) => Interval::new(from.route_key.clone(), End::Unbounded).expect("nothing lies above unbounded"),
            None => Interval::all(),
        };
        let (mut resume, mut damaged, mut scanned) = (None, Ok(()), 0);
        for owned in &view.state.owned {
            let Some(part) = owned.interval.intersection(&rest) else { continue };
            let pinned = view.state.moves.is_pinned(&owned.interval);
            let from = from.filter(|from| part.contains(&from.route_key));
            view.snapshot.scan_records(owned.shard, &part, from, &mut |row| {
                if scanned >= max_scanned.max(1) {
                    resume = Some(row.place());
                    return ControlFlow::Break(());
                }
                scanned += 1;
                damaged = visit(row, pinned);
                if damaged.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            damaged.map_err(ReadError::from)?;
            damaged = Ok(());
            if resume.is_some() {
                break;
            }
        }
        Ok(resume)
    }
}
