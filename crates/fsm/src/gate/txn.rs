//! What turns a step of a transaction away: an outcome that is recorded, a snapshot that is too old, locks, and changes of
//! what it has read.

use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_kv::{Attempt, Refusal, RollbackCause, TxnRef};
use drover_mvcc::Stored;

use crate::codec::txn::{Lock, TxnMarker, TxnRecord, TxnState};
use crate::state::OwnedInterval;

/// Judges a step of `attempt` by what is recorded of its transaction. A commit timestamp: it is committed already, and that
/// is the answer.
///
/// # Errors
/// [`Refusal::TxnAborted`] if no attempt up to this one commits; [`Refusal::TxnReused`] if a transaction with other
/// mutations was committed under the same id.
pub fn outcome(
    record: Option<&TxnRecord>,
    attempt: Attempt,
    fingerprint: Option<u64>,
) -> Result<Option<Timestamp>, Refusal> {
    match record.map(|record| &record.state) {
        Some(TxnState::Committed { fingerprint: first, .. }) if fingerprint.is_some_and(|this| this != *first) => {
            Err(Refusal::TxnReused)
        }
        Some(TxnState::Committed { commit_ts, .. }) => Ok(Some(*commit_ts)),
        Some(TxnState::RolledBack { through }) if attempt <= *through && guards::on(Guard::TxnAttempts) => {
            Err(Refusal::TxnAborted { through: *through })
        }
        Some(TxnState::RolledBack { .. }) | None => Ok(None),
    }
}

/// Judges a prepare of `attempt` by what the participant remembers. A commit timestamp: it was committed, and its locks
/// are resolved.
///
/// # Errors
/// [`Refusal::TxnAborted`] if this attempt or a higher one was rolled back; [`Refusal::TxnReused`] if a transaction with other
/// mutations was committed under the same id.
pub fn marker(marker: Option<&TxnMarker>, attempt: Attempt, fingerprint: u64) -> Result<Option<Timestamp>, Refusal> {
    match marker {
        Some(TxnMarker { commit_ts: Some(_), fingerprint: Some(first), .. }) if *first != fingerprint => {
            Err(Refusal::TxnReused)
        }
        Some(TxnMarker { commit_ts: Some(commit_ts), .. }) => Ok(Some(*commit_ts)),
        Some(TxnMarker { attempt: through, commit_ts: None, .. }) if attempt <= *through => {
            Err(Refusal::TxnAborted { through: *through })
        }
        Some(TxnMarker { .. }) | None => Ok(None),
    }
}

/// Lets a transaction pass that reads a snapshot which is kept in all of `owned`, and is young enough for nothing recorded
/// of it to have been removed.
///
/// # Errors
/// [`Refusal::TxnTooOld`].
pub fn young_enough<'a>(
    owned: impl IntoIterator<Item = &'a OwnedInterval>,
    start_ts: Timestamp,
) -> Result<(), Refusal> {
    for owned in owned {
        let oldest = owned.history_start.max(owned.safe_point);
        if start_ts < oldest && guards::on(Guard::TxnSnapshotKept) {
            return Err(Refusal::TxnTooOld { start_ts, oldest });
        }
        if start_ts <= owned.txn_horizon && guards::on(Guard::TxnHorizon) {
            return Err(Refusal::TxnTooOld { start_ts, oldest: owned.txn_horizon });
        }
    }
    Ok(())
}

/// How a lock stands to a transaction that wants the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Free,
    /// It is this attempt's own.
    Own,
    /// It is that of a lower attempt, which never commits.
    Superseded,
}

/// Who wants a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// Transaction and attempt.
    pub txn: TxnRef,
    /// Of its mutations.
    pub fingerprint: u64,
    /// No lower attempt commits any more.
    pub supersedes: bool,
}

/// Judges the lock on `key`, if there is one, for `who`.
///
/// # Errors
/// [`Refusal::Locked`] if it is another transaction's, or that of a lower attempt which may commit;
/// [`Refusal::TxnAborted`] if it is that of a higher attempt; [`Refusal::TxnReused`] if it is that of a transaction with other
/// mutations under the same id.
pub fn lock(key: &bytes::Bytes, lock: Option<&Lock>, who: Who) -> Result<Standing, Refusal> {
    let Who { txn, fingerprint, supersedes } = who;
    let locked = |lock: &Lock| Err(Refusal::Locked { lock: Box::new(lock.info(key.clone())) });
    match lock {
        None => Ok(Standing::Free),
        Some(lock) if lock.txn.id != txn.id && !guards::on(Guard::LockGate) => Ok(Standing::Superseded),
        Some(lock) if lock.txn.id != txn.id => locked(lock),
        Some(lock) if lock.fingerprint != fingerprint => Err(Refusal::TxnReused),
        Some(lock) if lock.txn.attempt == txn.attempt || !guards::on(Guard::TxnAttempts) => Ok(Standing::Own),
        Some(lock) if lock.txn.attempt > txn.attempt => Err(Refusal::TxnAborted { through: lock.txn.attempt.before() }),
        Some(_) if supersedes => Ok(Standing::Superseded),
        Some(lock) => locked(lock),
    }
}

/// When a key that was read at `start_ts` has changed since, as of `commit_ts`: its newest version by then, `newest`, is
/// younger, or it has expired in between.
pub fn changed(newest: Option<&(Timestamp, Stored)>, start_ts: Timestamp, commit_ts: Timestamp) -> Option<Timestamp> {
    match newest? {
        (at, _) if *at > start_ts => Some(*at),
        (_, version) => expiry_after(version, start_ts).filter(|expire_at| *expire_at <= commit_ts),
    }
}

/// When a value that a read at `start_ts` sees expires, if it does.
pub fn expiry_after(version: &Stored, start_ts: Timestamp) -> Option<Timestamp> {
    match version {
        Stored::Put { expire_at, .. } if guards::on(Guard::TxnExpiryCounts) => expire_at.filter(|at| *at > start_ts),
        Stored::Put { .. } | Stored::Tombstone => None,
    }
}

/// Whether a rollback for this reason may go on at `now`, the entry's timestamp. `lock`: when the lock on the primary expires,
/// if the attempt or a lower one holds it.
///
/// # Errors
/// [`Refusal::NotExpired`].
pub fn may_roll_back(cause: RollbackCause, lock: Option<Timestamp>, now: Timestamp) -> Result<(), Refusal> {
    let RollbackCause::Expired { seen } = cause else { return Ok(()) };
    let expire_at = lock.unwrap_or(seen);
    if expire_at <= now || !guards::on(Guard::TxnLockLives) { Ok(()) } else { Err(Refusal::NotExpired { expire_at }) }
}

#[cfg(test)]
mod tests {
    use drover_kv::{TxnId, Update};

    use super::*;
    use crate::state::tests::{owned, ts};

    fn attempt(number: u32) -> Attempt {
        Attempt { number, coordinator: 0 }
    }

    fn txn(id: u8, number: u32) -> TxnRef {
        TxnRef { id: TxnId([id; 16]), attempt: attempt(number) }
    }

    #[test]
    fn a_recorded_outcome_is_the_answer_to_every_attempt_it_covers() {
        let record = |state| Some(TxnRecord { start_ts: ts(1), state });
        let committed = || {
            record(TxnState::Committed { attempt: attempt(2), commit_ts: ts(9), fingerprint: 7, remote: Vec::new() })
        };
        let rolled_back = || record(TxnState::RolledBack { through: attempt(2) });
        let aborted = Err(Refusal::TxnAborted { through: attempt(2) });
        let table = [
            ("nothing recorded", None, 1, Some(7), Ok(None)),
            ("the attempt that committed", committed(), 2, Some(7), Ok(Some(ts(9)))),
            ("a lower one", committed(), 1, Some(7), Ok(Some(ts(9)))),
            ("a later one", committed(), 3, Some(7), Ok(Some(ts(9)))),
            ("one that names no mutations", committed(), 3, None, Ok(Some(ts(9)))),
            ("other mutations", committed(), 3, Some(8), Err(Refusal::TxnReused)),
            ("rolled back", rolled_back(), 2, Some(7), aborted.clone()),
            ("a lower one rolled back", rolled_back(), 1, None, aborted),
            ("a later one goes on", rolled_back(), 3, Some(7), Ok(None)),
        ];
        for (case, record, number, fingerprint, expect) in table {
            assert_eq!(outcome(record.as_ref(), attempt(number), fingerprint), expect, "{case}");
        }
    }

    #[test]
    fn a_prepare_that_comes_late_is_answered_by_the_marker() {
        let kept = |commit_ts| {
            let fingerprint = Some(7);
            Some(TxnMarker { start_ts: ts(1), attempt: attempt(2), commit_ts, fingerprint })
        };
        let table = [
            ("nothing remembered", None, 2, Ok(None)),
            ("committed", kept(Some(ts(9))), 2, Ok(Some(ts(9)))),
            ("committed, a later attempt", kept(Some(ts(9))), 3, Ok(Some(ts(9)))),
            ("rolled back", kept(None), 2, Err(Refusal::TxnAborted { through: attempt(2) })),
            ("a lower one", kept(None), 1, Err(Refusal::TxnAborted { through: attempt(2) })),
            ("a later one goes on", kept(None), 3, Ok(None)),
        ];
        for (case, kept, number, expect) in table {
            assert_eq!(marker(kept.as_ref(), attempt(number), 7), expect, "{case}");
        }
        let other = marker(kept(Some(ts(9))).as_ref(), attempt(2), 8);
        assert_eq!(other, Err(Refusal::TxnReused), "the same id for something else");
        let unnamed = kept(Some(ts(9))).map(|kept| TxnMarker { fingerprint: None, ..kept });
        assert_eq!(marker(unnamed.as_ref(), attempt(2), 8), Ok(Some(ts(9))), "nobody knows for what");
    }

    #[test]
    fn a_transaction_must_be_above_the_horizon_and_its_snapshot_kept() {
        let interval = |history_start, safe_point, txn_horizon| OwnedInterval {
            history_start: ts(history_start),
            safe_point: ts(safe_point),
            txn_horizon: ts(txn_horizon),
            ..owned("a", "b", 1)
        };
        let table = [
            ("young", interval(0, 0, 0), 1, None),
            ("at the start of history", interval(5, 0, 0), 5, None),
            ("below it", interval(5, 0, 0), 4, Some(5)),
            ("at the safe point", interval(0, 5, 0), 5, None),
            ("below it", interval(0, 5, 0), 4, Some(5)),
            ("at the horizon", interval(0, 0, 5), 5, Some(5)),
            ("above it", interval(0, 0, 5), 6, None),
        ];
        for (case, owned, start, oldest) in table {
            let start_ts = ts(start);
            let expect = oldest.map_or(Ok(()), |oldest| Err(Refusal::TxnTooOld { start_ts, oldest: ts(oldest) }));
            assert_eq!(young_enough([&owned], start_ts), expect, "{case}");
        }
        let two = [interval(0, 0, 0), interval(0, 0, 5)];
        assert!(young_enough(&two, ts(5)).is_err(), "one of several is enough");
    }

    #[test]
    fn a_lock_stands_in_the_way_of_others_and_of_lower_attempts() {
        let held = |id, number| Lock {
            txn: txn(id, number),
            primary: "p".into(),
            start_ts: ts(1),
            expire_at: ts(2),
            fingerprint: 5,
            update: Update::Delete,
        };
        let key: bytes::Bytes = "k".into();
        let locked = |lock: &Lock| Err(Refusal::Locked { lock: Box::new(lock.info(key.clone())) });
        let (other, lower, own, higher) = (held(8, 1), held(7, 1), held(7, 2), held(7, 3));
        let aborted = Err(Refusal::TxnAborted { through: attempt(3).before() });
        let table = [
            ("free", None, false, Ok(Standing::Free)),
            ("another's", Some(&other), false, locked(&other)),
            ("another's, whatever is superseded", Some(&other), true, locked(&other)),
            ("its own", Some(&own), false, Ok(Standing::Own)),
            ("a lower attempt's that may commit", Some(&lower), false, locked(&lower)),
            ("a lower attempt's that may not", Some(&lower), true, Ok(Standing::Superseded)),
            ("a higher attempt's", Some(&higher), true, aborted),
        ];
        for (case, held, supersedes, expect) in table {
            let who = Who { txn: txn(7, 2), fingerprint: 5, supersedes };
            assert_eq!(lock(&key, held, who), expect, "{case}");
        }
        let other = Who { txn: txn(7, 2), fingerprint: 6, supersedes: true };
        assert_eq!(lock(&key, Some(&lower), other), Err(Refusal::TxnReused), "the same id for something else");
    }

    #[test]
    fn h47_a_younger_version_and_an_expiry_in_between_are_changes() {
        let put = |at, expire_at: Option<u64>| {
            Some((ts(at), Stored::Put { value: "v".into(), expire_at: expire_at.map(ts) }))
        };
        // Read at 5, committed at 9.
        let table = [
            ("nothing", None, None),
            ("as it was", put(5, None), None),
            ("written", put(6, None), Some(6)),
            ("deleted", Some((ts(6), Stored::Tombstone)), Some(6)),
            ("deleted before", Some((ts(5), Stored::Tombstone)), None),
            ("expired before", put(3, Some(5)), None),
            ("expired in between", put(3, Some(6)), Some(6)),
            ("expired at the commit", put(3, Some(9)), Some(9)),
            ("expires later", put(3, Some(10)), None),
            ("written, and expired", put(6, Some(7)), Some(6)),
        ];
        for (case, newest, expect) in table {
            assert_eq!(changed(newest.as_ref(), ts(5), ts(9)), expect.map(ts), "{case}");
        }
    }

    #[test]
    fn only_an_expired_lock_is_rolled_back_unasked() {
        let seen = |at| RollbackCause::Expired { seen: ts(at) };
        let refused = |at| Err(Refusal::NotExpired { expire_at: ts(at) });
        // Now: 9.
        let table = [
            ("asked", RollbackCause::Asked, Some(99), Ok(())),
            ("the primary's has expired", seen(3), Some(9), Ok(())),
            ("the primary's lives on", seen(3), Some(10), refused(10)),
            ("there is none, and the other has expired", seen(9), None, Ok(())),
            ("there is none, and the other lives on", seen(10), None, refused(10)),
        ];
        for (case, cause, lock, expect) in table {
            assert_eq!(may_roll_back(cause, lock.map(ts), ts(9)), expect, "{case}");
        }
    }
}
