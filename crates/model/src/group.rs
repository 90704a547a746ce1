//! A group: its replicated state and its rows, which change by log entries alone. What an entry does is decided by the functions
//! of the product; a gate that objects changes nothing.

use drover_fsm::codec::txn::{Lock, TxnMarker};
use drover_fsm::gate::fence::{self, Class};
use drover_fsm::gate::txn::{Standing, Who};
use drover_fsm::gate::{composed, conditions, floor, owner, txn};
use drover_fsm::moving::{MoveStep, apply_step, note_tracked, tracked_ranges};
use drover_fsm::{
    GroupState, MoveCommand, OwnedInterval, ReadError, admit, advance_safe_point, gc_rules, may_become_visible,
};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId, Interval, JobId, ShardId};
use drover_kv::{Attempt, Refusal, TxnId, TxnRef, Update};
use drover_mvcc::Stored;

use crate::catalog::{ModelCatalog, key};
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

    /// An entry with a step of a move. Whether it was accepted.
    pub fn move_step(&mut self, command: &MoveCommand) -> bool {
        let numbered =
            matches!(command.step, MoveStep::ArmMigration { .. } | MoveStep::ApplyWriteFence | MoveStep::Seal);
        let index = self.index + 1;
        match apply_step(&mut self.state, &mut self.rows, index, command) {
            Ok(changed) => {
                self.index += u64::from(changed && numbered);
                self.track();
                true
            }
            Err(_) => false,
        }
    }

    fn track(&mut self) {
        note_tracked(&mut self.state, self.rows.tracking());
        drover_fsm::moving::MovedRows::set_tracking(&mut self.rows, tracked_ranges(&self.state));
    }

    /// The shard of the key, if it is the group's by the owner gate. Without that gate the group uses what it has.
    fn home(&self) -> Result<&OwnedInterval, Refusal> {
        Ok(&owner::judge(&self.state, &point())?[0])
    }

    /// The gates that every write passes before those which depend on what it writes.
    fn route_gates(&self, observed: Option<CatalogVersion>, class: Class) -> Result<&OwnedInterval, Refusal> {
        let owned = self.home()?;
        composed::judge(std::slice::from_ref(owned), observed)?;
        fence::judge(&self.state, &point(), class)?;
        Ok(owned)
    }

    fn wrote(&mut self, shard: ShardId, at: Timestamp, value: &Stored) {
        self.rows.put_version(shard, &key(), at, value);
        self.state.max_commit_ts = self.state.max_commit_ts.max(at);
        self.track();
    }

    /// An entry with a write to the key.
    pub fn write(&mut self, observed: Option<CatalogVersion>, at: Timestamp, value: &Stored) -> Result<(), Refusal> {
        let owned = self.route_gates(observed, Class::New)?;
        let newest = match floor::needs_newest(&self.state, at) {
            true => self.rows.visible(owned.shard, &key(), Timestamp::MAX).map(|(at, _)| at),
            false => None,
        };
        floor::judge(&self.state, std::slice::from_ref(owned), newest, at)?;
        conditions::unlocked(self.rows.lock(owned.shard, &key()).map(|lock| lock.info(key())))?;
        let shard = owned.shard;
        self.wrote(shard, at, value);
        Ok(())
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
        let owned = self.home()?;
        let marker = self.rows.marker(owned.shard, &key(), TXN);
        if txn::marker(marker.as_ref(), this.attempt, FINGERPRINT)?.is_some() {
            // It was committed, and its lock is resolved: that is the answer.
            return Ok(());
        }
        let owned = self.route_gates(observed, Class::New)?;
        txn::young_enough([owned], start_ts)?;
        let who = Who { txn: this, fingerprint: FINGERPRINT, supersedes: true };
        let standing = txn::lock(&key(), self.rows.lock(owned.shard, &key()), who)?;
        let newest = self.rows.visible(owned.shard, &key(), Timestamp::MAX).map(|(at, _)| at);
        if let Some(changed_at) = newest.filter(|at| *at > start_ts) {
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
            let shard = owned.shard;
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
        let shard = self.route_gates(observed, Class::Settling)?.shard;
        let mut fingerprint = None;
        if let Some(lock) = self.rows.lock(shard, &key()).filter(|lock| lock.txn == this).cloned() {
            fingerprint = Some(lock.fingerprint);
            self.state.locks -= u64::from(self.rows.unlock(shard, &key()));
            if let Some(at) = committed {
                let value = match lock.update {
                    Update::Put { value, .. } => Stored::Put { value, expire_at: None },
                    Update::Delete => Stored::Tombstone,
                };
                self.wrote(shard, at, &value);
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

    /// When what a read at `at` sees was written, if it sees a value.
    pub fn read(&self, observed: Option<CatalogVersion>, at: Timestamp) -> Result<Option<Timestamp>, ReadError> {
        let owned = &admit(&self.state, &point(), observed, Some(at))?[0];
        let blocking = self.rows.lock(owned.shard, &key()).filter(|lock| may_become_visible(lock, Some(at)));
        conditions::unlocked(blocking.map(|lock| lock.info(key())))?;
        Ok(conditions::live(self.rows.visible(owned.shard, &key(), at), at).map(|version| version.commit_ts))
    }

    /// Whether it would serve the key to somebody who knows the catalog at `version`.
    pub fn serves(&self, version: CatalogVersion) -> bool {
        admit(&self.state, &point(), Some(version), None).is_ok_and(|owned| owned[0].interval.contains(&key()))
    }

    /// An entry that raises the safe point, and all the garbage collection that follows.
    pub fn collect(&mut self, to: Timestamp) {
        let rows = &self.rows;
        let oldest = |shard, interval: &Interval| {
            Ok::<_, std::convert::Infallible>(rows.oldest_lock(shard, interval).map_or(to, |lock| lock.min(to)))
        };
        let Ok(_) = advance_safe_point(&mut self.state, to, oldest);
        let rules = gc_rules(&self.state);
        self.rows.collect(&rules);
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
