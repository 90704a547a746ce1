//! What becomes of a lock that stands in the way. Readers, writers, the background resolver and the operator all come here.

use std::time::Instant;

use drover_fsm::TxnCrash;
use drover_guards::Moment;
use drover_hlc::Timestamp;
use drover_kv::{
    Error, LockInfo, Outcome, ReadAnswer, ReadOp, Reason, RollbackCause, TxnFinish, TxnResolve, TxnRollback, TxnStatus,
    TxnWrite, Verdict,
};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::coordinator::{Coordinator, misfit};
use crate::retry::Repeat;
use crate::txn::held::Held;
use crate::txn::plan::{divide_keys, divide_keys_by_route};

/// What can be done about a lock, given what its primary's group knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockStep {
    /// Its fate is known.
    Resolve(Verdict),
    /// It may be rolled back from this timestamp on.
    RollBackAfter(Timestamp),
}

/// What to do about `lock`.
pub fn judge(lock: &LockInfo, status: &TxnStatus) -> LockStep {
    let ours = lock.txn.attempt;
    match status {
        TxnStatus::Committed { attempt, commit_ts, .. } if *attempt == ours => {
            LockStep::Resolve(Verdict::Committed { commit_ts: *commit_ts })
        }
        // Another attempt has written the key, or will, by a lock of its own.
        TxnStatus::Committed { .. } => LockStep::Resolve(Verdict::RolledBack),
        TxnStatus::RolledBack { through } if ours <= *through => LockStep::Resolve(Verdict::RolledBack),
        // A higher attempt holds the primary: this one can no longer prepare or decide there.
        TxnStatus::Prepared { attempt, .. } if ours < *attempt => LockStep::Resolve(Verdict::RolledBack),
        TxnStatus::Prepared { expire_at, .. } => LockStep::RollBackAfter(*expire_at),
        TxnStatus::RolledBack { .. } | TxnStatus::Nothing => LockStep::RollBackAfter(lock.expire_at),
    }
}

/// What became of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It is out of the way.
    Resolved(Verdict),
    /// Its holder may still be at work, until this timestamp at least.
    Pending(Timestamp),
}

impl Coordinator {
    /// Finds out what became of the holder of `held`, rolls it back if its time is over, and resolves its locks accordingly, those
    /// of each route by one entry. `ask`: rolls it back whether its time is over or not.
    ///
    /// # Errors
    /// If the groups concerned cannot be reached in time; whatever was done can be done again.
    pub fn resolve_held(&self, held: Held, ask: bool, deadline: Instant) -> BoxFuture<'_, Result<Resolution, Error>> {
        async move {
            let Held { lock, keys } = &held;
            loop {
                let verdict = match judge(lock, &self.txn_status(lock.txn.id, &lock.primary, deadline).await?) {
                    LockStep::Resolve(verdict) => verdict,
                    LockStep::RollBackAfter(at) if !ask && self.fresh(deadline).await? < at => {
                        return Ok(Resolution::Pending(at));
                    }
                    LockStep::RollBackAfter(_) => {
                        let cause = match ask {
                            true => RollbackCause::Asked,
                            false => RollbackCause::Expired { seen: lock.expire_at },
                        };
                        let (txn, start_ts, primary) = (lock.txn, lock.start_ts, lock.primary.clone());
                        let rollback = TxnRollback { txn, start_ts, primary, cause };
                        match self.txn_step(TxnWrite::Rollback(rollback), deadline).await {
                            Ok(Outcome::TxnRolledBack) => Verdict::RolledBack,
                            // By which attempt is told by the status.
                            Ok(Outcome::TxnCommitted { .. }) => continue,
                            Ok(other) => return Err(misfit(&other)),
                            // Its coordinator has just kept it alive.
                            Err(error) if error.reason == Reason::FailedPrecondition => {
                                return Ok(Resolution::Pending(lock.expire_at));
                            }
                            Err(error) => return Err(error),
                        }
                    }
                };
                let (txn, start_ts) = (lock.txn, lock.start_ts);
                let mut ended = Ok(Resolution::Resolved(verdict));
                // A route that is on its way elsewhere holds the others up no longer than its own locks.
                for keys in divide_keys_by_route(&self.routes().current(), keys) {
                    let resolve = TxnResolve { txn, start_ts, verdict, keys };
                    if let Err(error) = self.resolve_keys(resolve, deadline).await {
                        ended = Err(error);
                    }
                }
                return ended;
            }
        }
        .boxed()
    }

    /// What is known of a transaction where its primary is.
    ///
    /// # Errors
    /// Definite.
    pub async fn txn_status(
        &self,
        id: drover_kv::TxnId,
        primary: &bytes::Bytes,
        deadline: Instant,
    ) -> Result<TxnStatus, Error> {
        match self.read(primary, ReadOp::TxnStatus { id, primary: primary.clone() }, deadline).await? {
            ReadAnswer::TxnStatus(status) => Ok(status),
            other => Err(misfit(&other)),
        }
    }

    /// Resolves the locks of a committed transaction on `remote` keys, and notes that it is done.
    ///
    /// # Errors
    /// If a group concerned cannot be reached in time; then it is done again later.
    pub async fn finish_txn(&self, committed: &drover_fsm::UnsettledTxn, deadline: Instant) -> Result<(), Error> {
        let verdict = Verdict::Committed { commit_ts: committed.commit_ts };
        let parts = divide_keys(&self.routes().current(), &committed.remote);
        let resolved = parts.into_values().map(|keys| async move {
            let resolve = TxnResolve { txn: committed.txn, start_ts: committed.start_ts, verdict, keys };
            self.resolve_keys(resolve, deadline).await
        });
        futures::future::try_join_all(resolved).await?;
        let finish = TxnFinish { txn: committed.txn, primary: committed.primary.clone() };
        self.txn_step(TxnWrite::Finish(finish), deadline).await.map(|_| ())
    }

    /// Resolves keys that one group held when they were divided; one by one if they are no longer together.
    pub(super) async fn resolve_keys(&self, resolve: TxnResolve, deadline: Instant) -> Result<(), Error> {
        let together = divide_keys(&self.routes().current(), &resolve.keys).len() == 1;
        if together {
            return self.txn_step(TxnWrite::Resolve(resolve), deadline).await.map(|_| ());
        }
        for key in &resolve.keys {
            let one = TxnResolve { keys: vec![key.clone()], ..resolve.clone() };
            self.txn_step(TxnWrite::Resolve(one), deadline).await?;
        }
        Ok(())
    }

    /// Runs a step that its first key routes. All steps that come here may be sent again.
    pub(super) async fn txn_step(&self, step: TxnWrite, deadline: Instant) -> Result<Outcome, Error> {
        let crash = TxnCrash::of(&step);
        crash.at(Moment::Unsent);
        let kind = drover_kv::WriteKind::Txn(Box::new(step));
        let outcome = self.routed_write(kind, None, Repeat::Recognised, deadline).await?;
        crash.at(Moment::Answered);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use drover_kv::{Attempt, TxnId, TxnRef};

    use super::*;

    fn ts(raw: u64) -> Timestamp {
        Timestamp::from_raw(raw)
    }

    fn attempt(number: u32) -> Attempt {
        Attempt { number, coordinator: 0 }
    }

    #[test]
    fn the_primary_decides_what_becomes_of_a_lock() {
        let lock = LockInfo {
            key: "k".into(),
            txn: TxnRef { id: TxnId([1; 16]), attempt: attempt(2) },
            primary: "p".into(),
            start_ts: ts(5),
            expire_at: ts(20),
        };
        let committed =
            |number| TxnStatus::Committed { attempt: attempt(number), commit_ts: ts(9), remote: Vec::new() };
        let prepared = |number| TxnStatus::Prepared { attempt: attempt(number), start_ts: ts(5), expire_at: ts(30) };
        let rolled_back = |number| TxnStatus::RolledBack { through: attempt(number) };
        let undo = LockStep::Resolve(Verdict::RolledBack);
        let table = [
            ("committed by this attempt", committed(2), LockStep::Resolve(Verdict::Committed { commit_ts: ts(9) })),
            ("committed by a lower one", committed(1), undo),
            ("committed by a higher one", committed(3), undo),
            ("rolled back", rolled_back(2), undo),
            ("rolled back, and later ones too", rolled_back(3), undo),
            ("only lower ones rolled back", rolled_back(1), LockStep::RollBackAfter(ts(20))),
            ("prepared", prepared(2), LockStep::RollBackAfter(ts(30))),
            ("a lower one holds the primary", prepared(1), LockStep::RollBackAfter(ts(30))),
            ("a higher one holds the primary", prepared(3), undo),
            ("the primary knows nothing", TxnStatus::Nothing, LockStep::RollBackAfter(ts(20))),
        ];
        for (case, status, expect) in table {
            assert_eq!(judge(&lock, &status), expect, "{case}");
        }
    }
}
