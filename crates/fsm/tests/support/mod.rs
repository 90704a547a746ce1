//! Replicas on real stores, fed with log entries by hand.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use drover_catalog::Catalog;
use drover_fsm::{
    Applied, Command, Committed, DecodedEntry, FsmHandle, FsmStateMachine, Grant, GroupState, OwnershipChange,
    TimedWrite, apply_batch, codec,
};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, End, GroupId, Interval, RouteId, ShardId};
use drover_kv::{
    Attempt, Expectation, Idempotency, Mutation, OpResult, ReadSet, RollbackCause, TxnCommit, TxnDecide, TxnFinish,
    TxnHeartbeat, TxnId, TxnPrepare, TxnRef, TxnResolve, TxnRollback, TxnWrite, Update, Verdict, WriteKind, WriteOp,
};
use drover_mvcc::{Digest, DigestScope, GcRule, GcRules, GroupStore, MetaKey, StoreEnv, StoreEnvOptions};
use drover_rafttypes::{ApplyReply, CommandBytes, ControlReply, Entry, LogId, Payload, decode_log_id};
use drover_wire::proto::storage::v1 as pb;
use openraft::storage::RaftStateMachine;

pub const GROUP: GroupId = GroupId(3);
pub const V1: Option<CatalogVersion> = Some(CatalogVersion(1));

pub fn ts(raw: u64) -> Timestamp {
    Timestamp::from_raw(raw)
}

pub fn log_id(term: u64, index: u64) -> LogId {
    decode_log_id(&pb::LogId { term, index })
}

/// `[start, end)`; an empty `end` stands for "unbounded".
pub fn interval(start: &str, end: &str) -> Interval {
    let end = if end.is_empty() { End::Unbounded } else { End::Key(key(end)) };
    Interval::new(key(start), end).unwrap()
}

pub fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn grant(start: &str, end: &str, shard: u64) -> Grant {
    Grant {
        interval: interval(start, end),
        route: RouteId(shard),
        shard: ShardId(shard),
        acquired_version: CatalogVersion(1),
    }
}

/// Everything from "a" to "m" in shard 1, and from "m" on in shard 2.
pub fn bootstrap() -> Command {
    Command::GrantRange(vec![grant("a", "m", 1), grant("m", "", 2)])
}

pub fn put(name: &str, value: &str) -> WriteKind {
    WriteKind::Put { key: key(name), value: key(value), ttl_ms: None }
}

pub fn put_ttl(name: &str, value: &str, ttl_ms: u64) -> WriteKind {
    WriteKind::Put { key: key(name), value: key(value), ttl_ms: Some(ttl_ms) }
}

pub fn delete(name: &str) -> WriteKind {
    WriteKind::Delete { key: key(name) }
}

pub fn cas(name: &str, expect: Expectation, value: &str) -> WriteKind {
    let update = Update::Put { value: key(value), ttl_ms: None };
    WriteKind::CompareAndSet { key: key(name), expect, update }
}

pub fn delete_range(start: &str, end: &str) -> WriteKind {
    WriteKind::DeleteRange { interval: interval(start, end), resume: None }
}

pub fn settle(name: &str) -> WriteKind {
    WriteKind::Settle { key: key(name) }
}

pub fn at(commit_ts: u64, kind: WriteKind) -> TimedWrite {
    TimedWrite { op: WriteOp { kind, observed_version: V1, idempotency: None }, commit_ts: ts(commit_ts) }
}

pub fn once(commit_ts: u64, kind: WriteKind, name: &str, not_after: u64) -> TimedWrite {
    let mut write = at(commit_ts, kind);
    write.op.idempotency = Some(Idempotency { key: key(name), not_after: ts(not_after) });
    write
}

/// The entry of `command` at `index`, admitted and appended in `term`.
pub fn entry(term: u64, index: u64, command: &Command) -> Entry {
    Entry { log_id: log_id(term, index), payload: Payload::Normal(command.encode(term).unwrap()) }
}

pub fn env() -> StoreEnv {
    StoreEnv::new(StoreEnvOptions::default()).unwrap()
}

/// Apply without the driver: what it answers can be looked at.
pub struct Replica {
    pub env: StoreEnv,
    pub store: Arc<GroupStore>,
    pub state: Arc<GroupState>,
    pub catalog: Arc<Catalog>,
    pub applied: Applied,
    pub term: u64,
    /// All entries that were applied since it was made.
    pub log: Vec<Entry>,
    /// What they changed of ownership.
    pub changes: Vec<OwnershipChange>,
}

impl Replica {
    pub fn open(env: &StoreEnv, dir: &Path) -> Self {
        Self::open_group(env, dir, GROUP)
    }

    pub fn open_group(env: &StoreEnv, dir: &Path, group: GroupId) -> Self {
        let store = env.open(dir).unwrap();
        let applied = Applied::decode(group, store.applied_state().unwrap().as_deref()).unwrap();
        let state = codec::state::decode(store.meta(MetaKey::GroupState).unwrap().as_deref()).unwrap();
        let rows = store.catalog_rows().unwrap().into_iter();
        let rows = rows.map(|(name, value)| codec::catalog::row::decode(&name, value).unwrap());
        let catalog = Arc::new(Catalog::from_rows(rows).unwrap());
        let replica = Self {
            env: env.clone(),
            store,
            state: Arc::new(state),
            catalog,
            applied,
            term: 1,
            log: Vec::new(),
            changes: Vec::new(),
        };
        replica.set_gc();
        replica
    }

    pub fn bootstrapped(dir: &Path) -> Self {
        let mut replica = Self::open(&env(), &dir.join("store"));
        assert_eq!(replica.control(bootstrap()), ControlReply::Done);
        replica
    }

    pub fn next_index(&self) -> u64 {
        self.applied.log_id.map_or(0, |id| id.index + 1)
    }

    pub fn apply(&mut self, entries: &[Entry]) -> Vec<ApplyReply> {
        let decoded: Vec<DecodedEntry> = entries.iter().cloned().map(|e| DecodedEntry::decode(e).unwrap()).collect();
        let prepared = apply_batch(&self.store, &self.state, &self.catalog, &self.applied, &decoded).unwrap();
        self.changes.extend_from_slice(&prepared.changes);
        let Committed { state, catalog, applied, replies } = prepared.commit().unwrap();
        state.validate().unwrap();
        (self.state, self.catalog, self.applied) = (state, catalog, applied);
        self.log.extend_from_slice(entries);
        self.set_gc();
        replies
    }

    /// Is killed, and goes on from what was durable and from its log; its state is the same then.
    pub fn restart(&mut self) {
        let (dir, group) = (self.store.dir().to_owned(), self.applied.group);
        let nowhere = tempfile::tempdir().unwrap();
        let placeholder = Self::open_group(&self.env, &nowhere.path().join("store"), group);
        let before = std::mem::replace(self, placeholder);
        let (env, log, state) = (before.env.clone(), before.log.clone(), Arc::clone(&before.state));
        drop(before);
        *self = Self::open_group(&env, &dir, group);
        let next = self.next_index();
        let rest: Vec<Entry> = log.iter().filter(|entry| entry.log_id.index >= next).cloned().collect();
        self.apply(&rest);
        self.log = log;
        assert_eq!(self.state, state, "a restart changes nothing");
    }

    pub fn set_gc(&self) {
        let rule = |o: &drover_fsm::OwnedInterval| GcRule {
            shard: o.shard,
            interval: o.interval.clone(),
            safe_point: o.safe_point,
            pinned: self.state.moves.is_pinned(&o.interval),
        };
        self.store.set_gc(GcRules(self.state.owned.iter().map(rule).collect()));
    }

    pub fn command(&mut self, command: Command) -> ApplyReply {
        let entry = entry(self.term, self.next_index(), &command);
        self.apply(&[entry]).pop().unwrap()
    }

    pub fn control(&mut self, command: Command) -> ControlReply {
        match self.command(command) {
            ApplyReply::Control(reply) => reply,
            other => panic!("not a control reply: {other:?}"),
        }
    }

    /// Applies several operations as one entry.
    pub fn writes(&mut self, writes: Vec<TimedWrite>) -> Vec<OpResult> {
        match self.command(Command::Write(writes)) {
            ApplyReply::Writes(results) => results,
            other => panic!("not a write reply: {other:?}"),
        }
    }

    pub fn write(&mut self, write: TimedWrite) -> OpResult {
        self.writes(vec![write]).pop().unwrap()
    }

    pub fn digest(&self) -> Digest {
        let scope = |o: &drover_fsm::OwnedInterval| DigestScope {
            shard: o.shard,
            interval: o.interval.clone(),
            safe_point: o.safe_point,
        };
        let scopes: Vec<_> = self.state.owned.iter().map(scope).collect();
        self.store.snapshot().digest(&scopes, &[MetaKey::GroupState]).unwrap()
    }
}

/// A replica with its driver and read door.
pub struct Machine {
    pub machine: FsmStateMachine,
    pub handle: FsmHandle,
    pub term: u64,
}

impl Machine {
    pub fn open(env: &StoreEnv, dir: &Path) -> Self {
        let (machine, handle) = FsmStateMachine::open(env.clone(), dir, GROUP).unwrap();
        Self { machine, handle, term: 1 }
    }

    pub async fn bootstrapped(env: &StoreEnv, dir: &Path) -> Self {
        let mut machine = Self::open(env, dir);
        machine.command(bootstrap()).await;
        machine
    }

    pub fn next_index(&self) -> u64 {
        self.handle.applied_log_id().borrow().map_or(0, |id| id.index + 1)
    }

    pub async fn apply(&mut self, entries: Vec<Entry>) -> std::io::Result<()> {
        let stream = futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
        self.machine.apply(stream).await
    }

    pub async fn command(&mut self, command: Command) {
        let entry = entry(self.term, self.next_index(), &command);
        self.apply(vec![entry]).await.unwrap();
    }

    pub async fn write(&mut self, commit_ts: u64, kind: WriteKind) {
        self.command(Command::Write(vec![at(commit_ts, kind)])).await;
    }
}

pub fn raw_entry(term: u64, index: u64, bytes: &'static [u8]) -> Entry {
    Entry { log_id: log_id(term, index), payload: Payload::Normal(CommandBytes(bytes.into())) }
}

/// Attempt `number` of the transaction whose id is all `id`.
pub fn txn(id: u8, number: u32) -> TxnRef {
    TxnRef { id: TxnId([id; 16]), attempt: attempt(number) }
}

pub fn attempt(number: u32) -> Attempt {
    Attempt { number, coordinator: 0 }
}

/// Puts these values to these keys.
pub fn puts(rows: &[(&str, &str)]) -> Vec<Mutation> {
    let put = |(name, value): &(&str, &str)| Mutation {
        key: key(name),
        update: Update::Put { value: key(value), ttl_ms: None },
    };
    rows.iter().map(put).collect()
}

pub fn reads(keys: &[&str], intervals: &[(&str, &str)]) -> ReadSet {
    ReadSet {
        keys: keys.iter().map(|name| key(name)).collect(),
        intervals: intervals.iter().map(|(start, end)| interval(start, end)).collect(),
    }
}

pub fn step(now: u64, step: TxnWrite) -> TimedWrite {
    at(now, WriteKind::Txn(Box::new(step)))
}

pub fn commit(txn: TxnRef, start_ts: u64, mutations: Vec<Mutation>, reads: ReadSet) -> TxnWrite {
    TxnWrite::Commit(TxnCommit { txn, start_ts: ts(start_ts), mutations, reads })
}

/// A first prepare, with a fingerprint that is the transaction's start.
pub fn prepare(txn: TxnRef, start_ts: u64, primary: &str, mutations: Vec<Mutation>) -> TxnWrite {
    let supersedes = txn.attempt.number > 1;
    let (primary, start_ts, fingerprint) = (key(primary), ts(start_ts), start_ts);
    TxnWrite::Prepare(TxnPrepare { txn, start_ts, primary, fingerprint, ttl_ms: 1, supersedes, mutations })
}

pub fn decide(txn: TxnRef, start_ts: u64, commit_ts: u64, keys: &[&str], remote: &[&str]) -> TxnWrite {
    let all = |names: &[&str]| names.iter().map(|name| key(name)).collect();
    let (keys, remote) = (all(keys), all(remote));
    TxnWrite::Decide(TxnDecide {
        txn,
        start_ts: ts(start_ts),
        commit_ts: ts(commit_ts),
        fingerprint: start_ts,
        keys,
        remote,
    })
}

/// `commit_ts`: `None` for a rollback.
pub fn resolve(txn: TxnRef, start_ts: u64, commit_ts: Option<u64>, keys: &[&str]) -> TxnWrite {
    let verdict = commit_ts.map_or(Verdict::RolledBack, |raw| Verdict::Committed { commit_ts: ts(raw) });
    let keys = keys.iter().map(|name| key(name)).collect();
    TxnWrite::Resolve(TxnResolve { txn, start_ts: ts(start_ts), verdict, keys })
}

/// `seen`: when the lock expires that was met; `None` if the rollback was asked for.
pub fn rollback(txn: TxnRef, start_ts: u64, primary: &str, seen: Option<u64>) -> TxnWrite {
    let cause = seen.map_or(RollbackCause::Asked, |raw| RollbackCause::Expired { seen: ts(raw) });
    TxnWrite::Rollback(TxnRollback { txn, start_ts: ts(start_ts), primary: key(primary), cause })
}

pub fn heartbeat(txn: TxnRef, primary: &str, ttl_ms: u64) -> TxnWrite {
    TxnWrite::Heartbeat(TxnHeartbeat { txn, primary: key(primary), ttl_ms })
}

pub fn finish(txn: TxnRef, primary: &str) -> TxnWrite {
    TxnWrite::Finish(TxnFinish { txn, primary: key(primary) })
}
