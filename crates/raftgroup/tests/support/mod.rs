//! Replicas over the real log and state machine, with a source of timestamps that a test holds back and lets go: one over
//! the real network, or several in this process over links that a test cuts ([`cluster`]).
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

pub mod cluster;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_fsm::{Command, FsmStateMachine, Grant};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, ClusterId, GroupId, Interval, NodeId, ReplicaId, RouteId, ShardId, StoreId};
use drover_kv::{Error, Idempotency, Outcome, ReadAnswer, ReadOp, Reason, WriteKind, WriteOp};
use drover_mvcc::{StoreEnv, StoreEnvOptions};
use drover_raftgroup::{Group, GroupOptions, GroupParts, OpenError, TimestampSource};
use drover_raftlog::gate::FsyncGate;
use drover_raftlog::{LogOptions, NodeLog};
use drover_rafttypes::{Entry, Node, Payload};
use drover_transport::{PeerIdentities, PeerOptions, PeerPool};
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Timestamps as a test wants them: `1, 2, 3, …`, each held back while `held` is set, or taken from a list.
pub struct Script {
    next: Mutex<u64>,
    listed: Mutex<VecDeque<u64>>,
    held: watch::Sender<bool>,
    asked: watch::Sender<usize>,
}

impl Script {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            next: Mutex::new(1),
            listed: Mutex::default(),
            held: watch::Sender::new(false),
            asked: watch::Sender::new(0),
        })
    }

    /// Requests that are sent from now on are answered only after [`Script::release`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Timestamps go on at this one.
    pub fn go_on_at(&self, next: u64) {
        *self.next.lock() = next;
    }

    /// The next requests get these, whatever was issued before.
    pub fn list(&self, timestamps: impl IntoIterator<Item = u64>) {
        self.listed.lock().extend(timestamps);
    }

    /// Waits until one more request has arrived than at the time of `seen`.
    pub async fn asked_since(&self, seen: usize) {
        self.asked.subscribe().wait_for(|asked| *asked > seen).await.unwrap();
    }

    pub fn asked(&self) -> usize {
        *self.asked.borrow()
    }
}

pub struct Source(pub Arc<Script>);

impl TimestampSource for Source {
    fn timestamps(&self, count: u32, _deadline: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        let script = Arc::clone(&self.0);
        script.asked.send_modify(|asked| *asked += 1);
        let mut held = script.held.subscribe();
        async move {
            held.wait_for(|held| !*held).await.unwrap();
            if let Some(listed) = script.listed.lock().pop_front() {
                return Ok(Timestamp::from_raw(listed));
            }
            let mut next = script.next.lock();
            let first = *next;
            *next += u64::from(count);
            Ok(Timestamp::from_raw(first))
        }
        .boxed()
    }
}

pub struct Fixture {
    pub group: Arc<Group>,
    pub script: Arc<Script>,
    stop: CancellationToken,
    log: NodeLog,
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

pub fn observed() -> Option<CatalogVersion> {
    Some(CatalogVersion::FIRST)
}

impl Fixture {
    /// Opens the group in `dir`, founds it if it is new, and waits until it leads and owns the whole key space.
    pub async fn open(dir: &Path) -> Self {
        Self::try_open(dir).await.unwrap()
    }

    pub async fn try_open(dir: &Path) -> Result<Self, OpenError> {
        let log = NodeLog::open(&dir.join("log"), LogOptions::default()).unwrap();
        Self::over(
            dir,
            log,
            GroupOptions { housekeeping_interval: Duration::from_secs(3_600), ..GroupOptions::default() },
        )
        .await
    }

    /// As [`Fixture::open`], with a log whose writes to disk can be held back.
    pub async fn gated(dir: &Path) -> (Self, Arc<FsyncGate>) {
        let (log, gate) = drover_raftlog::gate::open(&dir.join("log"), LogOptions::default()).unwrap();
        let options = GroupOptions { housekeeping_interval: Duration::from_secs(3_600), ..GroupOptions::default() };
        (Self::over(dir, log, options).await.unwrap(), gate)
    }

    /// As [`Fixture::open`], with settings.
    pub async fn with(dir: &Path, options: GroupOptions) -> Self {
        let log = NodeLog::open(&dir.join("log"), LogOptions::default()).unwrap();
        Self::over(dir, log, options).await.unwrap()
    }

    async fn over(dir: &Path, log: NodeLog, options: GroupOptions) -> Result<Self, OpenError> {
        let id = GroupId(2);
        let env = StoreEnv::new(StoreEnvOptions::default()).unwrap();
        let (state_machine, fsm) = FsmStateMachine::open(env, &dir.join("state"), id).unwrap();
        let peers = PeerPool::new(
            PeerOptions::new(ClusterId([1; 16]), NodeId(1), StoreId([1; 16])),
            PeerIdentities::open(dir.join("peers")).unwrap(),
        );
        let script = Script::new();
        let group = Group::open(GroupParts {
            group: id,
            node: NodeId(1),
            log: log.group(id),
            state_machine,
            fsm,
            network: peers.raft_network(id),
            timestamps: Arc::new(Source(Arc::clone(&script))),
            clock_lead: drover_raftgroup::clock_lead(),
            options,
        })
        .await?;
        group.run().await;
        if !group.has_history() {
            group.initialize(BTreeMap::from([(1, Node::new("127.0.0.1:1", ReplicaId(1)))])).await.unwrap();
        }
        let stop = CancellationToken::new();
        let grant = Grant {
            interval: Interval::all(),
            route: RouteId(1),
            shard: ShardId(1),
            acquired_version: CatalogVersion::FIRST,
        };
        tokio::spawn(Arc::clone(&group).run_duties(drover_raftgroup::granted(vec![grant]), stop.clone()));
        let mut applied = group.fsm().applied_log_id();
        while !group.fsm().state().bootstrapped || !group.is_leader() {
            // Leadership follows the entries of an election, so some entry is applied after each step.
            let _ = tokio::time::timeout(Duration::from_millis(20), applied.changed()).await;
        }
        Ok(Self { group, script, stop, log })
    }

    pub async fn close(self) {
        self.stop.cancel();
        self.group.shutdown().await;
        drop(self.group);
        self.log.close().unwrap();
    }

    /// The commands at the end of the log, from `first` on, whether they are on disk or not.
    pub async fn logged_from(&self, first: u64) -> Vec<Command> {
        let mut log = self.log.group(GroupId(2));
        let last = log.get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index);
        let entries = log.get_log_reader().await.try_get_log_entries(first..=last).await.unwrap();
        let command = |entry: Entry| match entry.payload {
            Payload::Normal(bytes) => Some(Command::decode(entry.log_id.index, &bytes).unwrap().1),
            Payload::Blank | Payload::Membership(_) => None,
        };
        entries.into_iter().filter_map(command).collect()
    }

    pub async fn put(&self, key: &str, value: &str) -> Result<Timestamp, Error> {
        self.write(put(key, value), None).await.map(|outcome| match outcome {
            Outcome::Written { commit_ts } => commit_ts,
            other => panic!("a put was answered with {other:?}"),
        })
    }

    pub async fn write(&self, kind: WriteKind, key: Option<&'static str>) -> Result<Outcome, Error> {
        let idempotency = key.map(|key| Idempotency { key: key.into(), not_after: Timestamp::from_raw(1 << 40) });
        self.group.write(WriteOp { kind, observed_version: observed(), idempotency }, soon()).await
    }

    pub async fn get(&self, key: &str, at: Option<u64>) -> Result<(Option<String>, Option<Timestamp>), Error> {
        let op = ReadOp::Get { key: key.to_owned().into(), read_ts: at.map(Timestamp::from_raw) };
        match self.group.read(op, observed(), soon()).await? {
            ReadAnswer::Get { version, read_ts } => {
                Ok((version.map(|version| String::from_utf8(version.value.to_vec()).unwrap()), read_ts))
            }
            other => panic!("a get was answered with {other:?}"),
        }
    }
}

/// Whether a read goes on waiting while others of `key`, which nobody writes, come and go. They take the same way, so a
/// read that waited for its proof only is through after the first of them.
pub async fn waits<T>(fixture: &Fixture, read: &mut (impl Future<Output = T> + Unpin), key: &str) -> bool {
    for _ in 0..5 {
        if !futures::poll!(&mut *read).is_pending() {
            return false;
        }
        assert_eq!(fixture.get(key, None).await.unwrap(), (None, None), "a read of another key does not wait");
    }
    futures::poll!(read).is_pending()
}

pub fn put(key: &str, value: &str) -> WriteKind {
    WriteKind::Put { key: key.to_owned().into(), value: value.to_owned().into(), ttl_ms: None }
}

pub fn reason(error: &Error) -> (Reason, bool) {
    (error.reason, error.is_unknown())
}
