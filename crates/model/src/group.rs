//! A group: its replicated state and its rows, which change by log entries alone. What an entry does is decided by the functions
//! of the product; a gate that objects changes nothing.

use bytes::Bytes;
use drover_fsm::codec::txn::{Lock, TxnMarker};
use drover_fsm::gate::fence::{self, Class};
use drover_fsm::gate::txn::{Standing, Who};
use drover_fsm::gate::{composed, conditions, floor, idempotency, owner, txn};
use drover_fsm::moving::{MoveRefusal, MoveStep, Stop, apply_step, note_tracked, tracked_ranges};
use drover_fsm::{
    GroupState, MoveCommand, OwnedInterval, ReadError, admit, advance_safe_point, gc_rules, may_become_visible,
};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId, Interval, JobId, ShardId};
use drover_kv::{Attempt, Idempotency, Refusal, TxnId, TxnRef, Update};
use drover_mvcc::Stored;

use crate::catalog::{ModelCatalog, key};
use crate::reach::{Reach, keys};
use crate::rows::Rows;

/// The only transaction of the model.
const TXN: TxnId = TxnId([1; 16]);
/// Of its mutations.
const FINGERPRINT: u64 = 7;

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    /// As the product keeps it.
    pub state: GroupState,
    /// As the product keeps them.
    pub rows: Rows,
    /// Counts the entries whose place in the log is ever asked for, not the others: what matters is which is which.
    index: u64,
}

/// An attempt of the transaction.
pub fn attempt(number: u8) -> TxnRef {
    TxnRef { id: TXN, attempt: Attempt { number: u32::from(number), coordinator: 1 } }
}

fn point() -> Interval {
    Interval::point(key())
}

/// Where a key lies among what the owner gate lets through. Without that gate the group uses what it has.
fn home(owned: &[OwnedInterval], key: &Bytes) -> (ShardId, Bytes) {
    let of = owned.iter().find(|owned| owned.interval.contains(key)).unwrap_or(&owned[0]);
    (of.shard, key.clone())
}

impl Group {
    /// A group that was given what the catalog names it for.
    pub fn new(catalog: &ModelCatalog, id: GroupId) -> Self {
        let owned = catalog.routes().filter(|route| route.group == id).map(|route| OwnedInterval {
            interval: route.interval.clone(),
            route: route.id,
            shard: route.shard,
            acquired_version: CatalogVersion::FIRST,
            floor_ts: Timestamp::ZERO,
            history_start: Timestamp::ZERO,
            safe_point: Timestamp::ZERO,
            txn_horizon: Timestamp::ZERO,
        });
        let state = GroupState { bootstrapped: true, owned: owned.collect(), ..GroupState::default() };
        Self { state, rows: Rows::default(), index: 0 }
    }

    /// An entry with a step of a move.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn move_step(&mut self, command: &MoveCommand) -> Result<(), MoveRefusal> {
        let numbered =
            matches!(command.step, MoveStep::ArmMigration { .. } | MoveStep::ApplyWriteFence | MoveStep::Seal);
        let index = self.index + 1;
        match apply_step(&mut self.state, &mut self.rows, index, command) {
            Ok(changed) => {
                self.index += u64::from(changed && numbered);
                self.track();
                Ok(())
            }
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(Stop::Fatal(never)) => match never {},
        }
    }

    fn track(&mut self) {
        note_tracked(&mut self.state, self.rows.tracking());
        drover_fsm::moving::MovedRows::set_tracking(&mut self.rows, tracked_ranges(&self.state));
    }

    /// The gates that every write passes before those which depend on what it writes.
    fn route_gates(
        &self,
        footprint: &Interval,
        observed: Option<CatalogVersion>,
        class: Class,
    ) -> Result<&[OwnedInterval], Refusal> {
        let owned = owner::judge(&self.state, footprint)?;
        composed::judge(owned, observed)?;
        fence::judge(&self.state, footprint, class)?;
        Ok(owned)
    }

    fn wrote(&mut self, shard: ShardId, key: &Bytes, at: Timestamp, value: &Stored) {
        self.rows.put_version(shard, key, at, value);
        self.state.max_commit_ts = self.state.max_commit_ts.max(at);
        self.track();
    }

    /// An entry that writes all that it reaches.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn write(
        &mut self,
        reach: Reach,
        observed: Option<CatalogVersion>,
        at: Timestamp,
        value: &Stored,
    ) -> Result<(), Refusal> {
        let owned = self.route_gates(&reach.footprint(), observed, Class::New)?;
        let homes: Vec<(ShardId, Bytes)> = reach.places().iter().map(|place| home(owned, &keys()[*place])).collect();
        let newest = match floor::needs_newest(&self.state, at) {
            true => homes.iter().filter_map(|(shard, key)| self.newest(*shard, key)).max(),
            false => None,
        };
        floor::judge(&self.state, owned, newest, at)?;
        for (shard, key) in &homes {
            conditions::unlocked(self.rows.lock(*shard, key).map(|lock| lock.info(key.clone())))?;
        }
        homes.iter().for_each(|(shard, key)| self.wrote(*shard, key, at, value));
        Ok(())
    }

    /// When the newest version of a key was written.
    pub fn newest(&self, shard: ShardId, key: &Bytes) -> Option<Timestamp> {
        self.rows.visible(shard, key, Timestamp::MAX).map(|(at, _)| at)
    }

    /// An entry that prepares an attempt of the transaction, which reads the snapshot at `start_ts`.
    pub fn prepare(
        &mut self,
        observed: Option<CatalogVersion>,
        number: u8,
        start_ts: Timestamp,
        value: &Stored,
    ) -> Result<(), Refusal> {
        let this = attempt(number);
        let (shard, _) = home(owner::judge(&self.state, &point())?, &key());
        let marker = self.rows.marker(shard, &key(), TXN);
        if txn::marker(marker.as_ref(), this.attempt, FINGERPRINT)?.is_some() {
            // It was committed, and its lock is resolved: that is the answer.
            return Ok(());
        }
        let owned = self.route_gates(&point(), observed, Class::New)?;
        txn::young_enough(owned, start_ts)?;
        let who = Who { txn: this, fingerprint: FINGERPRINT, supersedes: true };
        let standing = txn::lock(&key(), self.rows.lock(shard, &key()), who)?;
        if let Some(changed_at) = self.newest(shard, &key()).filter(|at| *at > start_ts) {
            return Err(Refusal::Conflict { key: key(), changed_at });
        }
        if standing != Standing::Own {
            let update = match value {
                Stored::Put { value, .. } => Update::Put { value: value.clone(), ttl_ms: None },
                Stored::Tombstone => Update::Delete,
            };
            let lock = Lock {
                txn: this,
                primary: "z".into(),
                start_ts,
                expire_at: Timestamp::MAX,
                fingerprint: FINGERPRINT,
                update,
            };
            self.state.locks += u64::from(self.rows.put_lock(shard, &key(), lock));
        }
        Ok(())
    }

    /// An entry that resolves the locks of an attempt: makes them versions at `committed`, or takes them away.
    pub fn resolve(
        &mut self,
        observed: Option<CatalogVersion>,
        number: u8,
        start_ts: Timestamp,
        committed: Option<Timestamp>,
    ) -> Result<(), Refusal> {
        let this = attempt(number);
        let (shard, _) = home(self.route_gates(&point(), observed, Class::Settling)?, &key());
        let mut fingerprint = None;
        if let Some(lock) = self.rows.lock(shard, &key()).filter(|lock| lock.txn == this).cloned() {
            fingerprint = Some(lock.fingerprint);
            self.state.locks -= u64::from(self.rows.unlock(shard, &key()));
            if let Some(at) = committed {
                let value = match lock.update {
                    Update::Put { value, .. } => Stored::Put { value, expire_at: None },
                    Update::Delete => Stored::Tombstone,
                };
                self.wrote(shard, &key(), at, &value);
            }
        }
        let kept = self.rows.marker(shard, &key(), TXN);
        let stays =
            kept.is_some_and(|kept| kept.commit_ts.is_some() || (committed.is_none() && kept.attempt >= this.attempt));
        if !stays {
            let marker = TxnMarker { start_ts, attempt: this.attempt, commit_ts: committed, fingerprint };
            self.rows.put_marker(shard, &key(), TXN, &marker);
            self.track();
        }
        Ok(())
    }

    /// When what a read at `at` sees of each key was written, if it sees a value.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn read(
        &self,
        reach: Reach,
        observed: Option<CatalogVersion>,
        at: Timestamp,
    ) -> Result<Vec<Option<Timestamp>>, ReadError> {
        let owned = admit(&self.state, &reach.footprint(), observed, Some(at))?;
        let see = |place: &usize| {
            let (shard, key) = home(owned, &keys()[*place]);
            let blocking = self.rows.lock(shard, &key).filter(|lock| may_become_visible(lock, Some(at)));
            conditions::unlocked(blocking.map(|lock| lock.info(key.clone())))?;
            Ok(conditions::live(self.rows.visible(shard, &key, at), at).map(|version| version.commit_ts))
        };
        reach.places().iter().map(see).collect()
    }

    /// Whether it would serve the key to somebody who knows the catalog at `version`.
    pub fn serves(&self, version: CatalogVersion) -> bool {
        admit(&self.state, &point(), Some(version), None).is_ok_and(|owned| owned[0].interval.contains(&key()))
    }

    /// Entries that raise the safe point and the horizon of records, and all the garbage collection that follows.
    pub fn collect(&mut self, to: Timestamp) {
        self.state.record_horizon = self.state.record_horizon.max(to);
        let rows = &self.rows;
        let oldest = |shard, interval: &Interval| {
            Ok::<_, std::convert::Infallible>(rows.oldest_lock(shard, interval).map_or(to, |lock| lock.min(to)))
        };
        let Ok(_) = advance_safe_point(&mut self.state, to, oldest);
        let rules = gc_rules(&self.state);
        self.rows.collect(&rules);
    }

    /// Whether records of the key may be removed up to the horizon.
    pub fn forgets_records(&self) -> bool {
        self.state.owner_of(&point()).is_some() && !self.state.moves.is_pinned(&point())
    }

    /// Whether it says of a write that nobody knows any more, which had until `not_after`, that it was never applied.
    pub fn settles(&self, not_after: Timestamp) -> bool {
        let settled = Idempotency { key: "k".into(), not_after };
        let verdict = idempotency::judge(idempotency::Attempt::Settle, &settled, None, self.state.record_horizon);
        verdict == idempotency::Verdict::Proceed
    }

    /// An entry that forgets the marks of jobs below `horizon`.
    pub fn advance_horizon(&mut self, horizon: JobId) {
        self.state.moves.advance_horizon(horizon);
    }

    /// Whether the lock of an attempt stands in a shard.
    pub fn locks(&self, shard: ShardId, number: u8) -> bool {
        self.rows.lock(shard, &key()).is_some_and(|lock| lock.txn == attempt(number))
    }
}
