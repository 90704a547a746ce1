//! The commit of a transaction.
//!
//! If one group holds all that was written and read, one log entry validates and writes it. Otherwise: *prepare* locks on every
//! group that is written, all at once; then the *commit timestamp*; then the *refresh* of what was read, at that timestamp; then
//! the *decision*, one entry in the primary's group; then the answer; then the locks elsewhere.
//!
//! The order is what makes it correct. A read that was served before the locks stood has a timestamp below the commit
//! timestamp. A write that registers after a refresh has one above it. And once the decision is in the log of the primary's
//! group, everybody who meets a lock finds it there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_fsm::{TxnCrash, UnsettledTxn, txn_fingerprint};
use drover_guards::{self as guards, Guard, Moment, Place, crash_point};
use drover_hlc::Timestamp;
use drover_keys::GroupId;
use drover_kv::{
    Attempt, Certainty, Error, LockInfo, Mutation, Outcome, ReadAnswer, ReadOp, ReadSet, Reason, RefreshRequest,
    RollbackCause, TxnCommit, TxnDecide, TxnHeartbeat, TxnId, TxnPrepare, TxnRef, TxnResolve, TxnRollback, TxnStatus,
    TxnWrite, Verdict, WriteKind, WriteOp,
};
use drover_wire::{CommitRequest, GroupAnswer, GroupOp};
use rand::Rng;

use crate::coordinator::{Coordinator, misfit};
use crate::dispatch::{Attempts, CallError};
use crate::hold::hold_if_asked;
use crate::parking::{Interest, Stay, Woken, is_fenced};
use crate::retry::Repeat;
use crate::routing::Patience;
use crate::txn::held::Held;
use crate::txn::plan::{Plan, divide_keys, divide_reads};
use crate::txn::resolve::Resolution;

/// How long the end of a commit may take when nobody waits for it any more.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// How long it is tried to find out what became of an attempt whose outcome is unknown at its deadline.
const SETTLING: Duration = Duration::from_secs(60);

/// Why an attempt ended.
enum Ended {
    /// The transaction was committed by an earlier attempt, whose answer was lost.
    Committed(Timestamp),
    /// This is the answer.
    Failed(Error),
    /// The map was too old, or a lock stood in the way that is gone by now: another attempt may come through.
    Again,
    /// Writes to one of the ranges are held back. Nothing of this attempt is left that a fence would wait for.
    Fenced,
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Ended::Failed(error)
    }
}

/// One attempt at a transaction.
struct Try<'a> {
    coordinator: &'a Arc<Coordinator>,
    request: &'a CommitRequest,
    txn: TxnRef,
    fingerprint: u64,
    deadline: Instant,
}

impl Coordinator {
    /// Commits a transaction; its commit timestamp. A transaction that writes nothing is committed at its snapshot. To be driven to
    /// its end: what a dropped future leaves behind stands until its locks have expired.
    ///
    /// # Errors
    /// [`Reason::TxnConflict`] if what was read has changed, [`Reason::TxnAborted`] if it was rolled back meanwhile,
    /// [`Reason::TxnTooOld`], [`Reason::TxnReused`]; as for writes otherwise. After one that is unknown the same request may be
    /// sent again under a higher number, or its status asked.
    pub async fn commit(self: &Arc<Self>, request: CommitRequest, deadline: Instant) -> Result<Timestamp, Error> {
        self.limits().check_txn(&request.mutations, &request.reads)?;
        for mutation in &request.mutations {
            self.check_update(&mutation.update)?;
        }
        self.admit(Some(request.start_ts), deadline).await?;
        if request.mutations.is_empty() {
            return Ok(request.start_ts);
        }
        self.commit_to_the_end(&request, deadline).await
    }

    async fn commit_to_the_end(
        self: &Arc<Self>,
        request: &CommitRequest,
        deadline: Instant,
    ) -> Result<Timestamp, Error> {
        let fingerprint = txn_fingerprint(request.start_ts, &request.mutations);
        // Room for the attempts of this coordinator, which follow each other.
        let mut attempt = Attempt { number: request.number, coordinator: rand::rng().random::<u64>() >> 1 };
        // What became of the attempts before, this coordinator does not know.
        let mut attempts = Attempts::after(request.number > 1);
        let (mut patience, mut first) = (Patience::default(), true);
        let (mut stay, mut woken) = (Stay::default(), Woken::News);
        loop {
            let routes = self.routes().current();
            let plan = Plan::new(&routes, &request.mutations, &request.reads);
            let txn = TxnRef { id: request.id, attempt };
            let this = Try { coordinator: self, request, txn, fingerprint, deadline };
            let held = woken == Woken::News && this.keys_written().any(|key| is_fenced(routes.route_of(key)));
            let ended = match plan.single() {
                // It holds no lock yet.
                _ if held => {
                    attempts.held();
                    Err(Ended::Fenced)
                }
                Some(_) => this.in_one_group(&plan, &mut attempts).await,
                None => this.in_several_groups(&plan, first && request.number <= 1, attempts.is_unknown()).await,
            };
            match ended {
                Ok(commit_ts) => {
                    self.note_issued(commit_ts);
                    return Ok(commit_ts);
                }
                Err(Ended::Committed(commit_ts)) => return Ok(commit_ts),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Again) => {
                    if let Err(error) = self.newer_routes(plan.version, &mut patience, &attempts, deadline).await {
                        return Err(if error.is_unknown() { this.unknown(error, &plan) } else { error });
                    }
                }
                Err(Ended::Fenced) => {
                    let interest = Interest::new(this.keys_written(), &routes);
                    match self.park(interest, this.bytes_written(), &mut stay, &attempts, deadline).await {
                        Ok(why) => woken = why,
                        Err(error) => return Err(if error.is_unknown() { this.unknown(error, &plan) } else { error }),
                    }
                    if held {
                        continue;
                    }
                }
            }
            attempt.coordinator += 1;
            first = false;
        }
    }

    /// Gives a transaction up, all attempts of it, unless it is committed: what became of it.
    ///
    /// # Errors
    /// As for writes; it may be sent again.
    pub async fn abort(
        &self,
        id: TxnId,
        primary: Bytes,
        start_ts: Timestamp,
        deadline: Instant,
    ) -> Result<TxnStatus, Error> {
        self.limits().check_key(&primary)?;
        self.admit(Some(start_ts), deadline).await?;
        let txn = TxnRef { id, attempt: Attempt::MAX };
        let rollback = TxnRollback { txn, start_ts, primary: primary.clone(), cause: RollbackCause::Asked };
        match self.txn_step(TxnWrite::Rollback(rollback), deadline).await? {
            Outcome::TxnRolledBack => Ok(TxnStatus::RolledBack { through: Attempt::MAX }),
            Outcome::TxnCommitted { .. } => self.txn_status(id, &primary, deadline).await,
            other => Err(misfit(&other)),
        }
    }
}

impl Try<'_> {
    /// Validates and writes everything in one entry.
    async fn in_one_group(&self, plan: &Plan, attempts: &mut Attempts) -> Result<Timestamp, Ended> {
        let commit = TxnCommit {
            txn: self.txn,
            start_ts: self.request.start_ts,
            mutations: self.request.mutations.clone(),
            reads: self.request.reads.clone(),
        };
        let step = TxnWrite::Commit(commit);
        let crash = TxnCrash::of(&step);
        let op = self.write(plan, step);
        let mut patience = Patience::default();
        loop {
            crash.at(Moment::Unsent);
            let dispatcher = self.coordinator.dispatcher();
            let call = dispatcher.call_routed(plan.primary, op.clone(), Repeat::Recognised, attempts, self.deadline);
            match call.await {
                Ok(GroupAnswer::Written(Outcome::TxnCommitted { commit_ts })) => {
                    crash.at(Moment::Answered);
                    return Ok(commit_ts);
                }
                Ok(other) => return Err(misfit(&other).into()),
                Err(CallError::Misrouted(_)) => return Err(Ended::Again),
                Err(CallError::Fenced(_)) => return Err(Ended::Fenced),
                // It holds no lock itself, so it may wait.
                Err(CallError::Blocked(error)) => {
                    let unblocked = self.coordinator.unblock(&error, &mut patience, attempts, self.deadline);
                    if let Err(error) = unblocked.await {
                        return self.end(error, attempts.is_unknown(), plan).await;
                    }
                }
                Err(CallError::Failed(error)) => return self.end(error, attempts.is_unknown(), plan).await,
            }
        }
    }

    /// Ends with `error`. If this attempt or an earlier one may be on its way, that is made certain first: what was not applied
    /// yet never will be.
    async fn end(&self, error: Error, unknown: bool, plan: &Plan) -> Result<Timestamp, Ended> {
        if !unknown {
            return Err(error.into());
        }
        // What was committed under this id is another transaction, and stays.
        if error.reason == Reason::TxnReused {
            return Err(Error { certainty: Certainty::Definite, ..error }.into());
        }
        // What is too old may have been forgotten: nobody can tell any more.
        if error.reason == Reason::TxnTooOld {
            return Err(Error { certainty: Certainty::Unknown, ..error }.into());
        }
        match self.coordinator.txn_step(self.rollback(), self.deadline).await {
            Ok(Outcome::TxnCommitted { commit_ts }) => Ok(commit_ts),
            Ok(Outcome::TxnRolledBack) => Err(Error { certainty: Certainty::Definite, ..error }.into()),
            Ok(_) | Err(_) => Err(self.unknown(error, plan).into()),
        }
    }

    /// What the client is told when nobody knows what became of this attempt. It is made certain without anybody waiting for
    /// it, so that the status tells the outcome later.
    fn unknown(&self, error: Error, plan: &Plan) -> Error {
        self.settle_in_the_background(plan);
        let (id, primary) = (self.txn.id, drover_keys::escape(self.primary()));
        let why = match error.reason {
            Reason::TimeoutIndefinite => "the deadline passed before the answer came, and it may have been committed",
            _ => &error.message,
        };
        let message = format!("{why}; the status of transaction {id} under the key {primary} tells later");
        Error { certainty: Certainty::Unknown, message, ..error }
    }

    /// `unknown`: an entry of an earlier attempt may be on its way.
    async fn in_several_groups(&self, plan: &Plan, at_once: bool, unknown: bool) -> Result<Timestamp, Ended> {
        let undecided = async {
            let mut commit_ts = None;
            if !guards::on(Guard::TxnTimestampAfterPrepares) {
                commit_ts = Some(self.coordinator.fresh(self.deadline).await?);
            }
            let changes_at = self.prepare_all(plan, at_once).await?;
            crash_point(Place::TxnPrepared);
            hold_if_asked(Place::TxnPrepared).await;
            if !guards::on(Guard::TxnRefreshAtCommitTimestamp) {
                self.refresh(self.coordinator.fresh(self.deadline).await?, changes_at).await?;
            }
            let commit_ts = match commit_ts {
                Some(commit_ts) => commit_ts,
                None => self.coordinator.fresh(self.deadline).await?,
            };
            crash_point(Place::TxnTimestamped);
            if guards::on(Guard::TxnRefresh) && guards::on(Guard::TxnRefreshAtCommitTimestamp) {
                self.refresh(commit_ts, changes_at).await?;
            }
            crash_point(Place::TxnRefreshed);
            Ok::<_, Ended>(commit_ts)
        };
        let commit_ts = tokio::select! {
            commit_ts = undecided => commit_ts,
            never = self.heartbeats() => match never {},
        };
        let commit_ts = match commit_ts {
            Ok(commit_ts) => commit_ts,
            Err(ended) => {
                // Nobody but this attempt could send its decision, and it never will.
                self.roll_back_in_the_background(plan);
                return match ended {
                    Ended::Failed(error) => self.end(error, unknown, plan).await,
                    Ended::Committed(_) | Ended::Again | Ended::Fenced => Err(ended),
                };
            }
        };
        if !guards::on(Guard::TxnAnswerAfterDecision) {
            let (coordinator, request, txn) = (Arc::clone(self.coordinator), self.request.clone(), self.txn);
            let (fingerprint, deadline) = (self.fingerprint, self.deadline);
            tokio::spawn(async move {
                let this = Try { coordinator: &coordinator, request: &request, txn, fingerprint, deadline };
                drop(this.decide(commit_ts).await);
            });
            return Ok(commit_ts);
        }
        let decided = tokio::select! {
            decided = self.decide(commit_ts) => decided,
            never = self.heartbeats() => match never {},
        };
        match decided {
            Ok((decided_at, remote)) if decided_at == commit_ts => {
                self.resolve_in_the_background(commit_ts, remote);
                Ok(commit_ts)
            }
            // Another attempt was committed, and sees to its own locks.
            Ok((decided_at, _)) => {
                self.roll_back_in_the_background(plan);
                Ok(decided_at)
            }
            Err(error) if error.is_unknown() => Err(self.unknown(error, plan).into()),
            // Somebody has rolled back its lock there, or the range would not be sealed. It begins again.
            Err(error) if error.reason == Reason::RouteFenced => {
                self.roll_back_in_the_background(plan);
                Err(Ended::Fenced)
            }
            Err(error) => {
                self.roll_back_in_the_background(plan);
                self.end(error, unknown, plan).await
            }
        }
    }

    /// Locks everything that is written. Unless it is the first try ever, the primary comes first: from then on no lower
    /// attempt commits, and their locks may be replaced. When the first of the values under the locks expires, if one does.
    async fn prepare_all(&self, plan: &Plan, at_once: bool) -> Result<Option<Timestamp>, Ended> {
        let mut writers: Vec<GroupId> = plan.writers().map(|(group, _)| group).collect();
        let mut ended = Ok(None);
        let alone = writers.len() == 1;
        if !at_once {
            ended = Ok(self.prepare(plan, writers.remove(0), true, true).await?);
        }
        let prepared = writers.into_iter().map(|group| self.prepare(plan, group, !at_once, alone));
        // All of them: what is still under way would come after the rollback.
        for one in futures::future::join_all(prepared).await {
            ended = match (ended, one) {
                (Err(Ended::Committed(at)), _) | (_, Err(Ended::Committed(at))) => Err(Ended::Committed(at)),
                (Err(Ended::Failed(error)), _) | (_, Err(Ended::Failed(error))) => Err(Ended::Failed(error)),
                (Err(Ended::Fenced), _) | (_, Err(Ended::Fenced)) => Err(Ended::Fenced),
                (Err(Ended::Again), _) | (_, Err(Ended::Again)) => Err(Ended::Again),
                (Ok(a), Ok(b)) => Ok(a.into_iter().chain(b).min()),
            };
        }
        ended
    }

    /// Locks what is written in one group. `alone`: no other lock of this attempt can stand meanwhile, so it may wait for a fence.
    async fn prepare(
        &self,
        plan: &Plan,
        group: GroupId,
        supersedes: bool,
        alone: bool,
    ) -> Result<Option<Timestamp>, Ended> {
        let prepare = TxnPrepare {
            txn: self.txn,
            start_ts: self.request.start_ts,
            primary: self.primary().clone(),
            fingerprint: self.fingerprint,
            ttl_ms: self.coordinator.lock_ttl_ms(),
            supersedes,
            mutations: plan.parts[&group].mutations.clone(),
        };
        let step = TxnWrite::Prepare(prepare);
        let crash = TxnCrash::of(&step);
        crash.at(Moment::Unsent);
        let op = self.write(plan, step);
        let mut attempts = Attempts::default();
        let repeat = if alone { Repeat::Recognised } else { Repeat::Holder };
        let mut stay = Stay::default();
        let answer = loop {
            let routes = self.coordinator.routes().current();
            let dispatcher = self.coordinator.dispatcher();
            match dispatcher.call_routed(group, op.clone(), repeat, &mut attempts, self.deadline).await {
                Err(CallError::Fenced(_)) => {
                    let interest = Interest::new(self.keys_written(), &routes);
                    let parked =
                        self.coordinator.park(interest, self.bytes_written(), &mut stay, &attempts, self.deadline);
                    if let Err(error) = parked.await {
                        break Err(CallError::Failed(error));
                    }
                }
                answer => break answer,
            }
        };
        match answer {
            Ok(GroupAnswer::Written(Outcome::TxnLocked { changes_at, .. })) => {
                crash.at(Moment::Answered);
                Ok(changes_at)
            }
            // Only the record of the primary tells whether that was this transaction; it is asked first the next time.
            Ok(GroupAnswer::Written(Outcome::TxnCommitted { .. })) if group != plan.primary => Err(Ended::Again),
            Ok(GroupAnswer::Written(Outcome::TxnCommitted { commit_ts })) => Err(Ended::Committed(commit_ts)),
            Ok(other) => Err(misfit(&other).into()),
            Err(CallError::Misrouted(_)) => Err(Ended::Again),
            Err(CallError::Blocked(error)) => Err(self.blocked(error).await),
            // It holds locks elsewhere: it gives them up, and begins again.
            Err(CallError::Failed(error) | CallError::Fenced(error)) if error.reason == Reason::RouteFenced => {
                Err(Ended::Fenced)
            }
            // Whatever became of the prepare: without a decision it is nothing.
            Err(CallError::Failed(error)) if error.reason == Reason::TimeoutIndefinite => {
                let message = "the deadline passed before the transaction was decided; nothing was changed";
                Err(Error::definite(Reason::Timeout, message).into())
            }
            Err(CallError::Failed(error) | CallError::Fenced(error)) => {
                Err(Error { certainty: Certainty::Definite, ..error }.into())
            }
        }
    }

    /// A lock stands in the way of one who holds locks: it does not wait. If the lock is left over from somebody who is gone,
    /// another attempt may come through.
    async fn blocked(&self, error: Error) -> Ended {
        let Some(lock) = &error.lock else { return error.into() };
        match self.coordinator.resolve_held(Held::one(LockInfo::clone(lock)), false, self.deadline).await {
            Ok(Resolution::Resolved(_)) => Ended::Again,
            Ok(Resolution::Pending(_)) | Err(_) => {
                let message = format!(
                    "transaction {} is about to write {}; nothing was changed; run the transaction again",
                    lock.txn.id,
                    drover_keys::escape(&lock.key)
                );
                Error::definite(Reason::TxnConflict, message).into()
            }
        }
    }

    /// Finds out whether all that was read is at `commit_ts` as it was at the start. Of what this attempt has locked, which is
    /// as it was by the prepares, only if something expires, at `changes_at`.
    async fn refresh(&self, commit_ts: Timestamp, changes_at: Option<Timestamp>) -> Result<(), Ended> {
        let (mut patience, mut attempts) = (Patience::default(), Attempts::default());
        let locked = self.request.mutations.iter().map(|mutation| &mutation.key).collect();
        let mut open = to_refresh(&self.request.reads, &locked, changes_at, commit_ts);
        while !open.is_empty() {
            let routes = self.coordinator.routes().current();
            let version = routes.version();
            let parts = divide_reads(&routes, &open);
            drop(routes);
            let calls = parts.into_iter().map(|(group, reads)| async move {
                let request = RefreshRequest {
                    id: self.request.id,
                    start_ts: self.request.start_ts,
                    commit_ts,
                    reads: reads.clone(),
                };
                let op = GroupOp::Read { op: ReadOp::Refresh(request), observed_version: Some(version) };
                let mut tried = Attempts::default();
                let dispatcher = self.coordinator.dispatcher();
                let answer = dispatcher.call_routed(group, op, Repeat::Read, &mut tried, self.deadline).await;
                (reads, tried, answer)
            });
            open = ReadSet::default();
            let (mut misrouted, mut blocked) = (false, None);
            for (reads, tried, answer) in futures::future::join_all(calls).await {
                match answer {
                    Ok(GroupAnswer::Read(ReadAnswer::Refreshed)) => continue,
                    Ok(other) => return Err(misfit(&other).into()),
                    Err(CallError::Failed(error)) => return Err(error.into()),
                    Err(CallError::Misrouted(_) | CallError::Fenced(_)) => misrouted = true,
                    Err(CallError::Blocked(error)) => blocked = Some(error),
                }
                attempts = tried;
                open.keys.extend(reads.keys);
                open.intervals.extend(reads.intervals);
            }
            if let Some(error) = blocked {
                self.may_wait_for(&error)?;
                self.coordinator.unblock(&error, &mut patience, &attempts, self.deadline).await?;
            } else if misrouted {
                self.coordinator.newer_routes(version, &mut patience, &attempts, self.deadline).await?;
            }
        }
        Ok(())
    }

    /// Of two transactions that stand in each other's way, the one that began first waits, and the other ends.
    fn may_wait_for(&self, error: &Error) -> Result<(), Ended> {
        let Some(lock) = &error.lock else { return Err(error.clone().into()) };
        let (ours, theirs) = ((self.request.start_ts, self.request.id), (lock.start_ts, lock.txn.id));
        if ours < theirs {
            return Ok(());
        }
        let message = format!(
            "transaction {}, which began earlier, is about to write {}, which this one has read; nothing was changed; run \
             the transaction again",
            lock.txn.id,
            drover_keys::escape(&lock.key)
        );
        Err(Error::definite(Reason::TxnConflict, message).into())
    }

    /// Writes the decision; the commit timestamp and the keys whose locks are left to be resolved.
    async fn decide(&self, commit_ts: Timestamp) -> Result<(Timestamp, Vec<Bytes>), Error> {
        let (mut patience, mut attempts) = (Patience::default(), Attempts::default());
        loop {
            let routes = self.coordinator.routes().current();
            let (version, group) = (routes.version(), routes.route_of(self.primary()).group);
            let mut parts = divide_keys(&routes, &self.keys());
            drop(routes);
            let keys = parts.remove(&group).unwrap_or_default();
            let remote: Vec<Bytes> = parts.into_values().flatten().collect();
            let decide = TxnDecide {
                txn: self.txn,
                start_ts: self.request.start_ts,
                commit_ts,
                fingerprint: self.fingerprint,
                keys,
                remote: remote.clone(),
            };
            let step = TxnWrite::Decide(decide);
            let crash = TxnCrash::of(&step);
            crash.at(Moment::Unsent);
            let kind = WriteKind::Txn(Box::new(step));
            let op = GroupOp::Write(WriteOp { kind, observed_version: Some(version), idempotency: None });
            let dispatcher = self.coordinator.dispatcher();
            match dispatcher.call_routed(group, op, Repeat::Recognised, &mut attempts, self.deadline).await {
                Ok(GroupAnswer::Written(Outcome::TxnCommitted { commit_ts })) => {
                    crash.at(Moment::Answered);
                    return Ok((commit_ts, remote));
                }
                Ok(other) => return Err(misfit(&other)),
                Err(CallError::Failed(error) | CallError::Blocked(error)) => return Err(error),
                // It may hold locks, and begins again. If it may have been decided, somebody has to find out.
                Err(CallError::Fenced(error)) if !attempts.is_unknown() => return Err(error),
                Err(CallError::Misrouted(_) | CallError::Fenced(_)) => {
                    self.coordinator.newer_routes(version, &mut patience, &attempts, self.deadline).await?;
                }
            }
        }
    }

    /// Keeps the lock on the primary alive.
    async fn heartbeats(&self) -> std::convert::Infallible {
        let ttl_ms = self.coordinator.lock_ttl_ms();
        loop {
            tokio::time::sleep(Duration::from_millis(ttl_ms / 3)).await;
            let heartbeat = TxnHeartbeat { txn: self.txn, primary: self.primary().clone(), ttl_ms };
            let deadline = self.deadline.min(Instant::now() + Duration::from_millis(ttl_ms / 3));
            if let Err(error) = self.coordinator.txn_step(TxnWrite::Heartbeat(heartbeat), deadline).await {
                tracing::info!(txn = %self.txn, %error, "the locks of a transaction were not kept alive");
            }
        }
    }

    fn resolve_in_the_background(&self, commit_ts: Timestamp, remote: Vec<Bytes>) {
        if remote.is_empty() {
            return;
        }
        let coordinator = Arc::clone(self.coordinator);
        let (txn, start_ts, primary) = (self.txn, self.request.start_ts, self.primary().clone());
        tokio::spawn(async move {
            let committed = UnsettledTxn { txn, start_ts, commit_ts, primary, remote };
            if let Err(error) = coordinator.finish_txn(&committed, Instant::now() + AFTERWARDS).await {
                tracing::debug!(%txn, %error, "locks of a committed transaction are left to others");
            }
        });
    }

    /// Makes this attempt fail, unless it is committed; then its locks are resolved accordingly.
    fn settle_in_the_background(&self, plan: &Plan) {
        let coordinator = Arc::clone(self.coordinator);
        let (txn, start_ts, primary) = (self.txn, self.request.start_ts, self.primary().clone());
        let (rollback, steps) = (self.rollback(), self.undo(plan));
        tokio::spawn(async move {
            let deadline = Instant::now() + SETTLING;
            let Some(_room) = coordinator.room_to_settle(deadline).await else {
                tracing::info!(%txn, "too many transactions are unsettled to find out what became of one: it is left to others");
                return;
            };
            let settled = async {
                match coordinator.txn_step(rollback, deadline).await? {
                    Outcome::TxnRolledBack => {
                        let resolved = steps.into_iter().map(|step| coordinator.resolve_keys(step, deadline));
                        futures::future::try_join_all(resolved).await.map(|_| ())
                    }
                    _ => match coordinator.txn_status(txn.id, &primary, deadline).await? {
                        TxnStatus::Committed { attempt, commit_ts, remote } if attempt == txn.attempt => {
                            let committed = UnsettledTxn { txn, start_ts, commit_ts, primary, remote };
                            coordinator.finish_txn(&committed, deadline).await
                        }
                        _ => Ok(()),
                    },
                }
            };
            if let Err(error) = settled.await {
                tracing::info!(%txn, %error, "nobody knows yet what became of a transaction");
            }
        });
    }

    /// What removes the locks of this attempt. In one group it has none.
    fn undo(&self, plan: &Plan) -> Vec<TxnResolve> {
        let (txn, start_ts, verdict) = (self.txn, self.request.start_ts, Verdict::RolledBack);
        let writers = plan.writers().filter(|_| plan.single().is_none());
        writers.map(|(_, part)| TxnResolve { txn, start_ts, verdict, keys: part.keys() }).collect()
    }

    fn roll_back_in_the_background(&self, plan: &Plan) {
        let (coordinator, txn) = (Arc::clone(self.coordinator), self.txn);
        let (record, steps) = (self.rollback(), self.undo(plan));
        tokio::spawn(async move {
            let deadline = Instant::now() + AFTERWARDS;
            let resolved = steps.into_iter().map(|step| coordinator.resolve_keys(step, deadline));
            let (recorded, resolved) =
                tokio::join!(coordinator.txn_step(record, deadline), futures::future::try_join_all(resolved));
            if let Err(error) = recorded.map(|_| ()).and(resolved.map(|_| ())) {
                tracing::debug!(%txn, %error, "locks of a transaction that was rolled back are left to others");
            }
        });
    }

    fn rollback(&self) -> TxnWrite {
        TxnWrite::Rollback(TxnRollback {
            txn: self.txn,
            start_ts: self.request.start_ts,
            primary: self.primary().clone(),
            cause: RollbackCause::Asked,
        })
    }

    fn write(&self, plan: &Plan, step: TxnWrite) -> GroupOp {
        let kind = WriteKind::Txn(Box::new(step));
        GroupOp::Write(WriteOp { kind, observed_version: Some(plan.version), idempotency: None })
    }

    fn primary(&self) -> &Bytes {
        &self.request.mutations[0].key
    }

    fn keys_written(&self) -> impl Iterator<Item = &[u8]> {
        self.request.mutations.iter().map(|mutation| mutation.key.as_ref())
    }

    fn bytes_written(&self) -> usize {
        self.request.mutations.iter().map(Mutation::payload_bytes).sum()
    }

    fn keys(&self) -> Vec<Bytes> {
        self.request.mutations.iter().map(|mutation| mutation.key.clone()).collect()
    }
}

/// What has to be looked at again at `commit_ts` of what was read. Keys that are locked are as they were: the prepares saw
/// nothing younger, and nobody else writes them since. Only time may change them, first at `changes_at`.
fn to_refresh(
    reads: &ReadSet,
    locked: &BTreeSet<&Bytes>,
    changes_at: Option<Timestamp>,
    commit_ts: Timestamp,
) -> ReadSet {
    let nothing_expires = changes_at.is_none_or(|changes_at| commit_ts < changes_at);
    let is_sure = |key: &&Bytes| nothing_expires && locked.contains(key);
    let keys = reads.keys.iter().filter(|key| !is_sure(key)).cloned().collect();
    ReadSet { keys, intervals: reads.intervals.clone() }
}

#[cfg(test)]
mod tests {
    use drover_keys::Interval;

    use super::*;

    #[test]
    fn what_is_locked_is_looked_at_again_only_if_it_may_have_expired() {
        let (a, b): (Bytes, Bytes) = ("a".into(), "b".into());
        let reads = ReadSet { keys: vec![a.clone(), b.clone()], intervals: vec![Interval::all()] };
        let at = Timestamp::from_raw;
        // The commit timestamp is 5.
        let table = [
            ("nothing is locked", vec![], None, vec![&a, &b]),
            ("one is", vec![&a], None, vec![&b]),
            ("both are", vec![&a, &b], None, vec![]),
            ("one expires later", vec![&a, &b], Some(6), vec![]),
            ("one expires at the commit", vec![&a, &b], Some(5), vec![&a, &b]),
            ("one has expired before", vec![&a, &b], Some(4), vec![&a, &b]),
        ];
        for (case, locked, changes_at, expect) in table {
            let locked = locked.into_iter().collect();
            let rest = to_refresh(&reads, &locked, changes_at.map(at), at(5));
            assert_eq!(rest.keys.iter().collect::<Vec<_>>(), expect, "{case}");
            assert_eq!(rest.intervals, reads.intervals, "{case}: intervals may hold more than what is locked");
        }
    }
}
