//! What is asked about transactions from outside, and what the leader of a group does about locks without being asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use drover_fsm::RecordPlace;
use drover_hlc::Timestamp;
use drover_keys::{End, GroupId, Interval};
use drover_kv::{
    Attempt, Error, LockInfo, ReadAnswer, ReadOp, Reason, TxnHeartbeat, TxnId, TxnRef, TxnStatus, TxnWrite,
};
use drover_raftgroup::Group;
use drover_seams::blocking;
use drover_wire::{GroupAnswer, GroupOp};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::coordinator::{Coordinator, misfit};
use crate::dispatch::{Attempts, CallError};
use crate::retry::Repeat;
use crate::routing::Patience;
use crate::txn::held::Held;
use crate::txn::resolve::Resolution;

/// A transaction that holds locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedTxn {
    /// One of its locks.
    pub lock: LockInfo,
    /// Keys that it has locked.
    pub keys: Vec<Bytes>,
    /// What its primary's group knows.
    pub status: TxnStatus,
}

/// Tells transactions apart, and their attempts.
type TxnName = (TxnId, Attempt);

/// Where the rounds of [`Coordinator::tend_locks`] go on.
#[derive(Debug, Default)]
pub struct LockSweep {
    locks: Bytes,
    records: Option<RecordPlace>,
}

/// Locks that are looked at together, and at most resolved by one entry.
const LOCKS_PER_READ: u32 = 1_000;

/// Transactions whose locks are resolved at once.
const SIDE_BY_SIDE: usize = 16;

impl Coordinator {
    /// Keeps the locks of a transaction alive whose commit is under way; what is known of it otherwise.
    ///
    /// # Errors
    /// As for writes; it may be sent again.
    pub async fn keep_alive(&self, id: TxnId, primary: Bytes, deadline: Instant) -> Result<TxnStatus, Error> {
        self.limits().check_key(&primary)?;
        let status = self.txn_status(id, &primary, deadline).await?;
        let TxnStatus::Prepared { attempt, start_ts, .. } = status else { return Ok(status) };
        let txn = TxnRef { id, attempt };
        let heartbeat = TxnHeartbeat { txn, primary: primary.clone(), ttl_ms: self.lock_ttl_ms() };
        match self.txn_step(TxnWrite::Heartbeat(heartbeat), deadline).await {
            Ok(drover_kv::Outcome::TxnLocked { expire_at, .. }) => {
                Ok(TxnStatus::Prepared { attempt, start_ts, expire_at })
            }
            Ok(drover_kv::Outcome::TxnCommitted { .. }) => self.txn_status(id, &primary, deadline).await,
            Ok(other) => Err(misfit(&other)),
            Err(error) if error.reason == Reason::TxnAborted => self.txn_status(id, &primary, deadline).await,
            Err(error) => Err(error),
        }
    }

    /// Transactions that hold locks from the route key `from` on, over at most `limit` (at least 1) locks, and where the rest
    /// starts.
    ///
    /// # Errors
    /// Definite.
    pub async fn prepared(
        &self,
        from: Bytes,
        limit: u32,
        deadline: Instant,
    ) -> Result<(Vec<PreparedTxn>, Option<Bytes>), Error> {
        let mut found: BTreeMap<TxnName, PreparedTxn> = BTreeMap::new();
        let (mut rest, mut left) = (Some(from), limit.clamp(1, LOCKS_PER_READ));
        while let Some(start) = rest.clone().filter(|_| left > 0) {
            let (locks, next) = self.locks(start, left, deadline).await?;
            left -= u32::try_from(locks.len()).unwrap_or(left).min(left);
            for lock in locks {
                let name = (lock.txn.id, lock.txn.attempt);
                match found.get_mut(&name) {
                    Some(known) => known.keys.push(lock.key),
                    None => {
                        let status = self.txn_status(lock.txn.id, &lock.primary, deadline).await?;
                        found.insert(name, PreparedTxn { keys: vec![lock.key.clone()], status, lock });
                    }
                }
            }
            rest = next;
        }
        Ok((found.into_values().collect(), rest))
    }

    /// As [`Coordinator::resolve_held`], for `lock` and others near it that belong to the same attempt.
    pub(crate) async fn resolve_around(&self, lock: &LockInfo, deadline: Instant) -> Result<Resolution, Error> {
        let mut keys = vec![lock.key.clone()];
        let route_start = self.routes().current().route_of(&lock.key).interval.start().clone();
        // Behind it, as a scan meets them; if there are none, from the start, as one in reverse does.
        for start in [lock.key.clone(), route_start] {
            let (near, _) = self.locks(start, LOCKS_PER_READ, deadline).await?;
            let same = near.into_iter().filter(|other| other.txn == lock.txn && other.key != lock.key);
            keys.extend(same.map(|other| other.key));
            if keys.len() > 1 {
                break;
            }
        }
        self.resolve_held(Held { lock: lock.clone(), keys }, false, deadline).await
    }

    /// Locks of the route that holds `start`, from there on, and where the next ones may be.
    async fn locks(
        &self,
        start: Bytes,
        limit: u32,
        deadline: Instant,
    ) -> Result<(Vec<LockInfo>, Option<Bytes>), Error> {
        let (mut patience, mut attempts) = (Patience::default(), Attempts::default());
        loop {
            let routes = self.routes().current();
            let (route, version) = (routes.route_of(&start).clone(), routes.version());
            drop(routes);
            let interval = Interval::new(start.clone(), route.interval.end().clone())
                .map_err(|error| Error::definite(Reason::Internal, error.to_string()))?;
            let op = GroupOp::Read { op: ReadOp::Locks { interval, limit }, observed_version: Some(version) };
            match self.dispatcher().call_routed(route.group, op, Repeat::Read, &mut attempts, deadline).await {
                Ok(GroupAnswer::Read(ReadAnswer::Locks { locks, resume })) => {
                    let next = match route.interval.end() {
                        End::Key(end) => Some(end.clone()),
                        End::Unbounded => None,
                    };
                    return Ok((locks, resume.or(next)));
                }
                Ok(other) => return Err(misfit(&other)),
                Err(CallError::Failed(error) | CallError::Blocked(error)) => return Err(error),
                Err(CallError::Misrouted(_) | CallError::Fenced(_)) => {
                    self.newer_routes(version, &mut patience, &attempts, deadline).await?
                }
            }
        }
    }

    /// Resolves the locks in a range whose transactions have ended, or have had their time. How many are left: their holders may
    /// still be at work.
    ///
    /// # Errors
    /// If a group concerned cannot be reached in time; what was done stays done.
    pub async fn resolve_range(&self, interval: &Interval, deadline: Instant) -> Result<usize, Error> {
        let (mut from, mut left) = (Some(interval.start().clone()), 0);
        while let Some(start) = from {
            let (locks, next) = self.locks(start, LOCKS_PER_READ, deadline).await?;
            let within = Held::by_attempt(locks.into_iter().filter(|lock| interval.contains(&lock.key)));
            let resolved = stream::iter(within).map(|held| async move {
                let locks = held.keys.len();
                let resolution = self.resolve_held(held, false, deadline).await?;
                Ok::<_, Error>(if let Resolution::Pending(_) = resolution { locks } else { 0 })
            });
            left += resolved.buffer_unordered(SIDE_BY_SIDE).try_fold(0, |sum, n| async move { Ok(sum + n) }).await?;
            from = next.filter(|next| interval.contains(next));
        }
        Ok(left)
    }

    /// Settles a transaction that holds locks: what became of it. `force`: rolls it back although its time is not over.
    ///
    /// # Errors
    /// [`Reason::FailedPrecondition`] if it holds no lock, or if its time is not over; otherwise as for writes.
    pub async fn resolve_txn(&self, id: TxnId, force: bool, deadline: Instant) -> Result<TxnStatus, Error> {
        let (mut from, mut last) = (Some(Bytes::new()), None);
        while let Some(start) = from {
            let (locks, next) = self.locks(start, LOCKS_PER_READ, deadline).await?;
            for held in Held::by_attempt(locks.into_iter().filter(|lock| lock.txn.id == id)) {
                let lock = held.lock.clone();
                if let Resolution::Pending(until) = self.resolve_held(held, force, deadline).await? {
                    let message = format!(
                        "transaction {id} may still be at work until {until}; nothing was changed; wait, or force it"
                    );
                    return Err(Error::definite(Reason::FailedPrecondition, message));
                }
                last = Some(lock);
            }
            from = next;
        }
        match last {
            Some(lock) => self.txn_status(id, &lock.primary, deadline).await,
            None => {
                let message = format!("transaction {id} holds no lock; nothing was changed");
                Err(Error::definite(Reason::FailedPrecondition, message))
            }
        }
    }

    /// Looks after the locks of a group that is led here: resolves those whose time is over, and sees to committed
    /// transactions whose locks elsewhere were left behind. `sweep` is where the last round stopped looking. Transactions are
    /// seen to side by side; one that cannot be resolved holds no other up.
    ///
    /// # Errors
    /// If there is no timestamp, or the last thing that was in the way; the rest is left to the next round.
    pub async fn tend_locks(
        self: &Arc<Self>,
        group: &Group,
        sweep: &mut LockSweep,
        deadline: Instant,
    ) -> Result<(), Error> {
        let now = self.fresh(deadline).await?;
        let mut ended = Ok(());
        loop {
            let expired = Held::by_attempt(self.expired_locks(group, &mut sweep.locks, now));
            let mut resolved = stream::iter(expired)
                .map(|held| self.resolve_held(held, false, deadline))
                .buffer_unordered(SIDE_BY_SIDE);
            while let Some(resolved) = resolved.next().await {
                if let Err(error) = resolved {
                    ended = Err(error);
                }
            }
            if sweep.locks.is_empty() || Instant::now() >= deadline {
                break;
            }
        }
        let old = Timestamp::new(now.physical().saturating_sub_ms(self.lock_ttl_ms()), 0);
        let look = || group.fsm().expired_txn_records(sweep.records.as_ref(), old, u64::from(LOCKS_PER_READ));
        let found = match blocking::here(look) {
            Ok(found) => found,
            // The replica itself reports what is wrong with it.
            Err(_) => return ended,
        };
        for committed in &found.unsettled {
            if let Err(error) = self.finish_txn(committed, deadline).await {
                ended = Err(error);
            }
        }
        sweep.records = found.resume;
        ended
    }

    /// Locks of a group whose time is over at `now`, of the next ones from the route key `from` on.
    fn expired_locks(&self, group: &Group, from: &mut Bytes, now: Timestamp) -> Vec<LockInfo> {
        let state = group.fsm().state();
        let mut expired = Vec::new();
        let from_here = std::mem::take(from);
        if state.locks == 0 {
            return expired;
        }
        let rest = Interval::new(from_here, End::Unbounded).unwrap_or_else(|_| Interval::all());
        for owned in &state.owned {
            let Some(part) = owned.interval.intersection(&rest) else { continue };
            let version = Some(self.routes().current().version());
            let look = || group.fsm().locks(&part, LOCKS_PER_READ, version);
            let (locks, resume) = match blocking::here(look) {
                Ok(found) => found,
                Err(error) => {
                    tracing::info!(group = %group.id(), ?error, "the locks of a part of the group could not be looked at");
                    continue;
                }
            };
            expired.extend(locks.into_iter().filter(|lock| lock.expire_at <= now));
            if let Some(next) = resume {
                *from = next;
                break;
            }
        }
        expired
    }

    /// The groups that are led by this node.
    pub fn led_here(&self) -> Vec<(GroupId, Arc<Group>)> {
        let directory = self.dispatcher().directory();
        let running = directory.groups().into_iter().filter_map(|id| Some((id, directory.running(id)?)));
        running.filter(|(_, group)| group.is_leader()).collect()
    }
}
