//! Steps of transactions: the gates in their order, then the effect.
//!
//! The entry's timestamp is the commit timestamp of a commit in one entry; for every other step it is what time it is.
//! A step that a recorded outcome answers changes nothing.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, Interval, LogicalKey, ShardId};
use drover_kv::{
    Mutation, Outcome, ReadSet, Refusal, RollbackCause, TxnCommit, TxnDecide, TxnFinish, TxnHeartbeat, TxnId,
    TxnPrepare, TxnResolve, TxnRollback, TxnWrite, Verdict,
};
use drover_mvcc::{Batch, RecordKind, StoreError, Stored};

use super::write::{Marks, Stop, stored};
use crate::ApplyError;
use crate::codec::txn::{Lock, TxnMarker, TxnRecord, TxnState};
use crate::fingerprint::txn_fingerprint;
use crate::gate::fence::{self, Class};
use crate::gate::txn::{Standing, Who};
use crate::gate::{composed, floor, owner, txn as gate};
use crate::state::{GroupState, OwnedInterval};

/// Runs a step: owner, then what is recorded, then composed, then the rest by kind.
pub(super) fn run(
    batch: &mut Batch<'_>,
    state: &GroupState,
    step: &TxnWrite,
    observed: Option<CatalogVersion>,
    now: Timestamp,
) -> Result<(Outcome, Marks), Stop> {
    let mut work = Work { batch, state, now, marks: Marks::default() };
    let footprint = Footprint::judge(state, step)?;
    if let Some(answer) = work.recorded(step, &footprint)? {
        return Ok((answer, work.marks));
    }
    footprint.all().try_for_each(|owned| composed::judge(std::slice::from_ref(owned), observed))?;
    let class = if step.ends_a_transaction() { Class::Settling } else { Class::New };
    step.keys().try_for_each(|key| fence::judge(state, &Interval::point(key.clone()), class))?;
    let outcome = match step {
        TxnWrite::Commit(commit) => work.commit(commit, &footprint)?,
        TxnWrite::Prepare(prepare) => work.prepare(prepare, &footprint)?,
        TxnWrite::Decide(decide) => work.decide(decide, &footprint)?,
        TxnWrite::Resolve(resolve) => work.resolve(resolve, &footprint)?,
        TxnWrite::Rollback(rollback) => work.roll_back(rollback, &footprint)?,
        TxnWrite::Heartbeat(heartbeat) => work.heartbeat(heartbeat, footprint.shard())?,
        TxnWrite::Finish(finish) => work.finish(finish, footprint.shard())?,
    };
    Ok((outcome, work.marks))
}

/// The owned intervals that hold what a step touches.
struct Footprint<'a> {
    /// One for each of its keys.
    keys: Vec<&'a OwnedInterval>,
    /// One for each key that was read.
    read_keys: Vec<&'a OwnedInterval>,
    /// Those that hold each interval that was read.
    read_intervals: Vec<&'a [OwnedInterval]>,
}

impl<'a> Footprint<'a> {
    fn judge(state: &'a GroupState, step: &TxnWrite) -> Result<Self, Refusal> {
        let key = |key: &Bytes| owner::judge(state, &Interval::point(key.clone())).map(|owned| &owned[0]);
        static NOTHING: ReadSet = ReadSet { keys: Vec::new(), intervals: Vec::new() };
        let reads = step.reads().unwrap_or(&NOTHING);
        // What was given up, or is about to be, cannot be validated here: others write to it.
        let read = |read: &Interval| match guards::on(Guard::ReadsInFootprint) {
            true => owner::judge(state, read),
            false => state.owner_of(read).ok_or(Refusal::RouteMoved { hint: None }),
        };
        let read_key = |key: &Bytes| read(&Interval::point(key.clone())).map(|owned| &owned[0]);
        Ok(Self {
            keys: step.keys().map(key).collect::<Result<_, _>>()?,
            read_keys: reads.keys.iter().map(read_key).collect::<Result<_, _>>()?,
            read_intervals: reads.intervals.iter().map(read).collect::<Result<_, _>>()?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &'a OwnedInterval> {
        let intervals = self.read_intervals.iter().copied().flatten();
        self.keys.iter().chain(&self.read_keys).copied().chain(intervals)
    }

    /// Of the first key: records and markers lie there.
    fn shard(&self) -> ShardId {
        self.keys[0].shard
    }
}

struct Work<'a, 's> {
    batch: &'a mut Batch<'s>,
    state: &'a GroupState,
    now: Timestamp,
    marks: Marks,
}

impl Work<'_, '_> {
    /// The answer to a step whose outcome is recorded.
    fn recorded(&self, step: &TxnWrite, footprint: &Footprint<'_>) -> Result<Option<Outcome>, Stop> {
        let shard = footprint.shard();
        let committed = match step {
            TxnWrite::Commit(commit) => {
                let fingerprint = txn_fingerprint(commit.start_ts, &commit.mutations);
                let record = self.record(shard, step.first_key(), commit.txn.id)?;
                gate::outcome(record.as_ref(), commit.txn.attempt, Some(fingerprint))?
            }
            TxnWrite::Prepare(prepare) => {
                let (id, attempt) = (prepare.txn.id, prepare.txn.attempt);
                let record = match prepare.mutations[0].key == prepare.primary {
                    true => self.record(shard, &prepare.primary, id)?,
                    false => None,
                };
                match gate::outcome(record.as_ref(), attempt, Some(prepare.fingerprint))? {
                    None => {
                        let marker = self.marker(shard, step.first_key(), id)?;
                        gate::marker(marker.as_ref(), attempt, prepare.fingerprint)?
                    }
                    committed => committed,
                }
            }
            TxnWrite::Decide(TxnDecide { txn, fingerprint, .. }) => {
                let record = self.record(shard, step.first_key(), txn.id)?;
                gate::outcome(record.as_ref(), txn.attempt, Some(*fingerprint))?
            }
            TxnWrite::Heartbeat(TxnHeartbeat { txn, primary, .. }) => {
                gate::outcome(self.record(shard, primary, txn.id)?.as_ref(), txn.attempt, None)?
            }
            TxnWrite::Rollback(TxnRollback { txn, primary, .. }) => {
                match gate::outcome(self.record(shard, primary, txn.id)?.as_ref(), txn.attempt, None) {
                    Err(Refusal::TxnAborted { .. }) => return Ok(Some(Outcome::TxnRolledBack)),
                    judged => judged?,
                }
            }
            TxnWrite::Resolve(_) | TxnWrite::Finish(_) => None,
        };
        Ok(committed.map(|commit_ts| Outcome::TxnCommitted { commit_ts }))
    }

    fn commit(&mut self, commit: &TxnCommit, footprint: &Footprint<'_>) -> Result<Outcome, Stop> {
        let TxnCommit { txn, start_ts, mutations, reads } = commit;
        gate::young_enough(footprint.all(), *start_ts)?;
        for (mutation, owned) in mutations.iter().zip(&footprint.keys) {
            let newest = match floor::needs_newest(self.state, self.now) {
                true => self.newest(owned, &mutation.key)?.map(|(at, _)| at),
                false => None,
            };
            floor::judge(self.state, std::slice::from_ref(*owned), newest, self.now)?;
        }
        let mut superseded = Vec::new();
        let fingerprint = txn_fingerprint(*start_ts, mutations);
        let who = Who { txn: *txn, fingerprint, supersedes: true };
        for (mutation, owned) in mutations.iter().zip(&footprint.keys) {
            let lock = self.lock(owned.shard, &mutation.key)?;
            // The record that this step writes is what keeps lower attempts from committing.
            match gate::lock(&mutation.key, lock.as_ref(), who)? {
                Standing::Free => {}
                Standing::Own | Standing::Superseded => superseded.push((owned.shard, mutation.key.clone())),
            }
        }
        self.unchanged(who, *start_ts, reads, footprint)?;
        for (shard, key) in superseded {
            self.unlock(shard, key)?;
        }
        for (mutation, owned) in mutations.iter().zip(&footprint.keys) {
            let version = stored(&mutation.update, self.now);
            self.batch.put_version(owned.shard, &LogicalKey::plain(mutation.key.clone()), self.now, &version)?;
        }
        let state = TxnState::Committed { attempt: txn.attempt, commit_ts: self.now, fingerprint, remote: Vec::new() };
        self.put_record(footprint.shard(), &mutations[0].key, txn.id, TxnRecord { start_ts: *start_ts, state })?;
        self.marks.wrote = Some(self.now);
        self.marks.read = (!reads.is_empty()).then_some(self.now);
        Ok(Outcome::TxnCommitted { commit_ts: self.now })
    }

    /// Refuses if what was read at `start_ts` is another by now, or may become so through a foreign lock.
    fn unchanged(&self, who: Who, start_ts: Timestamp, reads: &ReadSet, footprint: &Footprint<'_>) -> Result<(), Stop> {
        if !guards::on(Guard::TxnReadsValidated) {
            return Ok(());
        }
        for (key, owned) in reads.keys.iter().zip(&footprint.read_keys) {
            gate::lock(key, self.lock(owned.shard, key)?.as_ref(), who)?;
            let newest = self.newest(owned, key)?;
            if let Some(changed_at) = gate::changed(newest.as_ref(), start_ts, self.now) {
                return Err(Refusal::Conflict { key: key.clone(), changed_at }.into());
            }
        }
        for (read, owned) in reads.intervals.iter().zip(&footprint.read_intervals) {
            for owned in *owned {
                let part = read.intersection(&owned.interval).expect("the owner gate returns what overlaps");
                self.interval_unchanged(who, start_ts, owned.shard, &part)?;
            }
        }
        Ok(())
    }

    fn interval_unchanged(&self, who: Who, start_ts: Timestamp, shard: ShardId, part: &Interval) -> Result<(), Stop> {
        if self.state.locks > 0 {
            let mut judged = Ok(());
            self.batch.scan_locks(shard, part, &mut |key, lock| {
                judged = Lock::decode(lock)
                    .map_err(Stop::from)
                    .and_then(|lock| Ok(gate::lock(&key, Some(&lock), who).map(|_| ())?));
                if judged.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            judged?;
        }
        let (now, mut conflict) = (self.now, None);
        self.batch.scan_visible(shard, part, Timestamp::MAX, &mut |key, at, version| {
            conflict = gate::changed(Some(&(at, version)), start_ts, now).map(|changed_at| (key, changed_at));
            if conflict.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        match conflict {
            Some((key, changed_at)) => Err(Refusal::Conflict { key, changed_at }.into()),
            None => Ok(()),
        }
    }

    fn prepare(&mut self, prepare: &TxnPrepare, footprint: &Footprint<'_>) -> Result<Outcome, Stop> {
        let TxnPrepare { txn, start_ts, primary, supersedes, mutations, .. } = prepare;
        gate::young_enough(footprint.all(), *start_ts)?;
        let (expire_at, fingerprint) = (later(self.now, prepare.ttl_ms), prepare.fingerprint);
        let who = Who { txn: *txn, fingerprint, supersedes: *supersedes };
        let mut to_lock = Vec::with_capacity(mutations.len());
        let mut changes_at: Option<Timestamp> = None;
        for (mutation, owned) in mutations.iter().zip(&footprint.keys) {
            let lock = self.lock(owned.shard, &mutation.key)?;
            let standing = gate::lock(&mutation.key, lock.as_ref(), who)?;
            let newest = self.newest(owned, &mutation.key)?;
            if let Some((changed_at, _)) = newest.as_ref().filter(|(at, _)| at > start_ts) {
                return Err(Refusal::Conflict { key: mutation.key.clone(), changed_at: *changed_at }.into());
            }
            let expiry = newest.and_then(|(_, version)| gate::expiry_after(&version, *start_ts));
            changes_at = changes_at.into_iter().chain(expiry).min();
            match standing {
                Standing::Own => {}
                Standing::Free | Standing::Superseded => to_lock.push((mutation, owned.shard)),
            }
        }
        let has_primary = mutations[0].key == *primary;
        if *supersedes && has_primary {
            let through = txn.attempt.before();
            let record = TxnRecord { start_ts: *start_ts, state: TxnState::RolledBack { through } };
            self.put_record(footprint.shard(), primary, txn.id, record)?;
        }
        for (Mutation { key, update }, shard) in to_lock {
            let lock = Lock {
                txn: *txn,
                primary: primary.clone(),
                start_ts: *start_ts,
                expire_at,
                fingerprint,
                update: update.clone(),
            };
            let key = LogicalKey::plain(key.clone());
            self.marks.locks += i64::from(self.batch.lock(shard, &key)?.is_none());
            self.batch.put_lock(shard, &key, lock.encode());
        }
        Ok(Outcome::TxnLocked { expire_at, changes_at })
    }

    fn decide(&mut self, decide: &TxnDecide, footprint: &Footprint<'_>) -> Result<Outcome, Stop> {
        let TxnDecide { txn, start_ts, commit_ts, fingerprint, keys, remote } = decide;
        gate::young_enough(footprint.all(), *start_ts)?;
        let mut own = Vec::with_capacity(keys.len());
        for (key, owned) in keys.iter().zip(&footprint.keys) {
            match self.lock(owned.shard, key)? {
                Some(lock) if lock.txn == *txn => own.push((*owned, key.clone(), lock)),
                // Rolled back by its coordinator, or replaced by a higher attempt.
                Some(_) | None => return Err(Refusal::TxnAborted { through: txn.attempt }.into()),
            }
        }
        for (owned, key, lock) in own {
            self.settle(owned, key, &lock, *commit_ts)?;
        }
        let state = TxnState::Committed {
            attempt: txn.attempt,
            commit_ts: *commit_ts,
            fingerprint: *fingerprint,
            remote: remote.clone(),
        };
        self.put_record(footprint.shard(), &keys[0], txn.id, TxnRecord { start_ts: *start_ts, state })?;
        Ok(Outcome::TxnCommitted { commit_ts: *commit_ts })
    }

    fn resolve(&mut self, resolve: &TxnResolve, footprint: &Footprint<'_>) -> Result<Outcome, Stop> {
        let TxnResolve { txn, start_ts, verdict, keys } = resolve;
        let mut fingerprint = None;
        for (key, owned) in keys.iter().zip(&footprint.keys) {
            let lock = self.lock(owned.shard, key)?;
            let Some(lock) = lock.filter(|lock| lock.txn == *txn || is_any_attempt(lock, txn.id)) else { continue };
            fingerprint = Some(lock.fingerprint);
            match verdict {
                Verdict::Committed { commit_ts } => self.settle(owned, key.clone(), &lock, *commit_ts)?,
                Verdict::RolledBack => self.unlock(owned.shard, key.clone())?,
            }
        }
        let (guard, commit_ts) = match verdict {
            Verdict::Committed { commit_ts } => (Guard::TxnSuccessMarker, Some(*commit_ts)),
            Verdict::RolledBack => (Guard::TxnRollbackMarker, None),
        };
        if guards::on(guard) {
            let marker = TxnMarker { start_ts: *start_ts, attempt: txn.attempt, commit_ts, fingerprint };
            self.put_marker(footprint.shard(), &keys[0], txn.id, marker)?;
        }
        Ok(Outcome::TxnResolved)
    }

    fn roll_back(&mut self, rollback: &TxnRollback, footprint: &Footprint<'_>) -> Result<Outcome, Stop> {
        let (TxnRollback { txn, start_ts, primary, cause }, shard) = (rollback, footprint.shard());
        let lock = self.lock(shard, primary)?;
        let lock = lock.filter(|lock| lock.txn.id == txn.id && lock.txn.attempt <= txn.attempt);
        gate::may_roll_back(*cause, lock.as_ref().map(|lock| lock.expire_at), self.now)?;
        if lock.is_none() {
            match (gate::young_enough(footprint.all(), *start_ts), cause) {
                (Ok(()), _) => {}
                // It may have been committed, and forgotten since.
                (Err(too_old), RollbackCause::Asked) => return Err(too_old.into()),
                // Whoever has met a lock knows that it was not; and nothing can be prepared here any more that a record
                // would have to keep out.
                (Err(_), RollbackCause::Expired { .. }) => return Ok(Outcome::TxnRolledBack),
            }
        }
        let start_ts = lock.as_ref().map_or(*start_ts, |lock| lock.start_ts);
        if lock.is_some() {
            self.unlock(shard, primary.clone())?;
        }
        if guards::on(Guard::TxnRollbackRecord) {
            let state = TxnState::RolledBack { through: txn.attempt };
            self.put_record(shard, primary, txn.id, TxnRecord { start_ts, state })?;
        }
        Ok(Outcome::TxnRolledBack)
    }

    fn heartbeat(&mut self, heartbeat: &TxnHeartbeat, shard: ShardId) -> Result<Outcome, Stop> {
        let TxnHeartbeat { txn, primary, ttl_ms } = heartbeat;
        match self.lock(shard, primary)? {
            Some(lock) if lock.txn == *txn => {
                let expire_at = lock.expire_at.max(later(self.now, *ttl_ms));
                let lock = Lock { expire_at, ..lock };
                self.batch.put_lock(shard, &LogicalKey::plain(primary.clone()), lock.encode());
                Ok(Outcome::TxnLocked { expire_at, changes_at: None })
            }
            Some(_) | None => Err(Refusal::TxnAborted { through: txn.attempt }.into()),
        }
    }

    fn finish(&mut self, finish: &TxnFinish, shard: ShardId) -> Result<Outcome, Stop> {
        let TxnFinish { txn, primary } = finish;
        if let Some(TxnRecord { start_ts, state: TxnState::Committed { attempt, commit_ts, fingerprint, .. } }) =
            self.record(shard, primary, txn.id)?
            && (attempt == txn.attempt || !guards::on(Guard::TxnFinishOfTheAttempt))
        {
            let state = TxnState::Committed { attempt, commit_ts, fingerprint, remote: Vec::new() };
            self.put_record(shard, primary, txn.id, TxnRecord { start_ts, state })?;
        }
        Ok(Outcome::TxnResolved)
    }

    /// Makes a lock a version. No floor refuses that: it was decided before.
    fn settle(&mut self, owned: &OwnedInterval, key: Bytes, lock: &Lock, commit_ts: Timestamp) -> Result<(), Stop> {
        if !guards::on(Guard::SettlingIsExempt) {
            floor::judge(self.state, std::slice::from_ref(owned), None, commit_ts)?;
        }
        let shard = owned.shard;
        let version = stored(&lock.update, commit_ts);
        self.batch.put_version(shard, &LogicalKey::plain(key.clone()), commit_ts, &version)?;
        self.marks.wrote = self.marks.wrote.max(Some(commit_ts));
        self.unlock(shard, key)
    }

    fn unlock(&mut self, shard: ShardId, key: Bytes) -> Result<(), Stop> {
        let key = LogicalKey::plain(key);
        self.marks.locks -= i64::from(self.batch.lock(shard, &key)?.is_some());
        self.batch.delete_lock(shard, &key);
        Ok(())
    }

    fn lock(&self, shard: ShardId, key: &Bytes) -> Result<Option<Lock>, Stop> {
        // Own steps of the batch are counted when they are done: within one step the count is that from before it.
        if self.state.locks == 0 {
            return Ok(None);
        }
        Ok(self.batch.lock(shard, &LogicalKey::plain(key.clone()))?.map(Lock::decode).transpose()?)
    }

    fn newest(&self, owned: &OwnedInterval, key: &Bytes) -> Result<Option<(Timestamp, Stored)>, Stop> {
        Ok(self.batch.newest(owned.shard, &LogicalKey::plain(key.clone()))?)
    }

    fn record(&self, shard: ShardId, primary: &Bytes, id: TxnId) -> Result<Option<TxnRecord>, ApplyError> {
        self.batch.record(shard, primary, RecordKind::TxnOutcome, &id.0)?.map(TxnRecord::decode).transpose()
    }

    fn put_record(&mut self, shard: ShardId, primary: &Bytes, id: TxnId, record: TxnRecord) -> Result<(), StoreError> {
        self.batch.put_record(shard, primary, RecordKind::TxnOutcome, &id.0, record.encode())
    }

    fn marker(&self, shard: ShardId, key: &Bytes, id: TxnId) -> Result<Option<TxnMarker>, ApplyError> {
        self.batch.record(shard, key, RecordKind::TxnMarker, &id.0)?.map(TxnMarker::decode).transpose()
    }

    /// Success is kept for good, and of two rollbacks the higher.
    fn put_marker(&mut self, shard: ShardId, key: &Bytes, id: TxnId, marker: TxnMarker) -> Result<(), ApplyError> {
        let kept = self.marker(shard, key, id)?;
        let stays = kept.is_some_and(|kept| {
            kept.commit_ts.is_some() || (marker.commit_ts.is_none() && kept.attempt >= marker.attempt)
        });
        if !stays {
            self.batch.put_record(shard, key, RecordKind::TxnMarker, &id.0, marker.encode())?;
        }
        Ok(())
    }
}

/// Without the guard a resolution takes the locks of every attempt for its own.
fn is_any_attempt(lock: &Lock, id: TxnId) -> bool {
    lock.txn.id == id && !guards::on(Guard::TxnAttempts)
}

/// `ttl_ms` milliseconds after `now`.
fn later(now: Timestamp, ttl_ms: u64) -> Timestamp {
    Timestamp::new(now.physical().saturating_add_ms(ttl_ms), now.logical())
}
