//! A node crashes at each step of a transaction, where it coordinates it, leads the group of the primary or that of other keys.
//! Each time others settle what it leaves behind, and nothing is lost, torn, or out of order.
//!
//! The table of the steps is [`CrashPoint::all`]: the code can crash nowhere else. [`role`] says who has to crash there; what
//! has to do with replicas is part of `replicas.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_client::{Client, GroupId};
use drover_guards::{CrashPoint, Moment, Place, TxnEntry};
use drover_testkit::Cluster;
use drover_testkit::check::{Spread, strictly_serializable, whole_or_absent};
use drover_testkit::cluster::{Node, PATIENCE};
use drover_testkit::wait::wait_until;
use drover_testkit::workload::{Bank, BankReport, Kind, Transactions, TxnRecorder, Wide};
use tokio_util::sync::CancellationToken;

/// Who crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The coordinator of the transaction.
    Coordinator,
    /// The leader of the group that holds its primary.
    Primary,
    /// The leader of another group that it writes to.
    Secondary,
    /// Nobody who has to do with transactions: these are points of `replicas.rs` and `move_crashes.rs`.
    Other,
}

fn role(point: CrashPoint) -> Role {
    match point {
        CrashPoint::At(Place::TxnPrepared | Place::TxnTimestamped | Place::TxnRefreshed) => Role::Coordinator,
        CrashPoint::At(
            Place::ReplicaAddCleared
            | Place::ReplicaAddRecorded
            | Place::ReplicaAddOpened
            | Place::ReplicaRemoveRecorded
            | Place::ReplicaRemoveCleared
            | Place::ReplicaClearStore,
        )
        | CrashPoint::Move(..)
        | CrashPoint::Job(..) => Role::Other,
        CrashPoint::Txn(_, Moment::Unsent | Moment::Answered) => Role::Coordinator,
        CrashPoint::Txn(entry, Moment::Unproposed | Moment::Committed | Moment::Applied) => match entry {
            TxnEntry::Commit
            | TxnEntry::PreparePrimary
            | TxnEntry::Decide
            | TxnEntry::Rollback
            | TxnEntry::Heartbeat
            | TxnEntry::Finish => Role::Primary,
            TxnEntry::PrepareSecondary | TxnEntry::ResolveCommitted | TxnEntry::ResolveRolledBack => Role::Secondary,
        },
    }
}

/// How often the point is passed before: the crash comes in the middle of the load. What is rare is not waited for.
fn passes(point: CrashPoint) -> u64 {
    match point {
        CrashPoint::Txn(TxnEntry::Heartbeat | TxnEntry::Rollback | TxnEntry::ResolveRolledBack, _) => 0,
        CrashPoint::Txn(..) | CrashPoint::At(_) | CrashPoint::Move(..) | CrashPoint::Job(..) => 7,
    }
}

/// A cluster that goes through one crash after the other.
struct Scene {
    cluster: Cluster,
    bank: Bank,
}

/// What clients do around a crash.
struct Load {
    recorder: Arc<TxnRecorder>,
    report: Arc<BankReport>,
    wide: Arc<AtomicUsize>,
}

impl Scene {
    async fn start() -> Self {
        let cluster = Cluster::builder().data_groups(3).set("txn.lock_ttl_ms", 1_000).start().await.unwrap();
        let bank = Bank { accounts: 9, each: 100 };
        bank.fill(&cluster.client().await.unwrap()).await.unwrap();
        Self { cluster, bank }
    }

    /// Lets a node crash at `point` under load, and come back; then everything is as it should be.
    async fn crash(&self, round: u64, point: CrashPoint) {
        let began = Instant::now();
        let nodes = self.cluster.nodes();
        let of = |offset: u64| &nodes[usize::try_from((round + offset) % 3).unwrap()];
        let (victim, steady, stalled) = (of(0), of(1), of(2));
        victim.crash_at(Some(&format!("{point}:{}", passes(point))));
        victim.restart().unwrap();
        self.cluster.wait_ready(PATIENCE).await.unwrap();
        let groups = self.cluster.data_groups();
        let group = |offset: u64| groups[usize::try_from((round + offset) % 3).unwrap()];
        // A node that starts leads nothing, so this is the only group that it leads.
        let doors = match role(point) {
            Role::Coordinator => [victim, steady],
            Role::Primary | Role::Secondary => {
                self.cluster.lead(group(0), victim.id(), PATIENCE).await.unwrap();
                [steady, stalled]
            }
            Role::Other => unreachable!("{point} has nothing to do with transactions"),
        };
        let lists = Transactions {
            keys: ["b", "k", "t", "y"].map(|letter| format!("{letter}/list/{round}/")).to_vec(),
            kind: Kind::List,
            txns_per_key_set: 60,
            seed: round,
        };
        let wide = Wide { letters: vec!['c', 'm', 'w'], name: round.to_string() };
        // Some clients wait until a node is back and ask it again, others are left without an answer.
        let patient = self.clients(doors, Duration::from_secs(5)).await;
        let hasty = self.clients(doors, Duration::from_millis(400)).await;
        let load = Load { recorder: Arc::default(), report: Arc::default(), wide: Arc::default() };
        let stop = CancellationToken::new();
        let crash = async {
            if let CrashPoint::Txn(TxnEntry::Heartbeat, _) = point {
                // A group that does not answer makes transactions wait that hold locks in others.
                self.cluster.lead(group(1), stalled.id(), PATIENCE).await.unwrap();
                self.cluster.lead(GroupId::DEFAULT, steady.id(), PATIENCE).await.unwrap();
                load.advance(3).await;
                stalled.stop().unwrap();
                let crashed = victim.wait_crash(point, PATIENCE).await;
                stalled.resume().unwrap();
                crashed.unwrap();
            } else {
                victim.wait_crash(point, PATIENCE).await.unwrap();
            }
            // The others go on without it, past what it has left.
            load.advance(5).await;
            victim.crash_at(None);
            victim.start().unwrap();
            victim.wait_ready(PATIENCE).await.unwrap();
            load.advance(15).await;
            stop.cancel();
        };
        let (_, (), written, ()) = tokio::join!(
            lists.run([patient.clone(), hasty.clone()].concat(), &load.recorder, &stop),
            self.bank.run(patient.clone(), vec![patient[1].clone()], &load.report, &stop),
            wide.run(hasty, &load.wide, &stop),
            crash
        );
        let crashed_after = began.elapsed();
        self.check(&lists, &load, &written).await;
        eprintln!("{point}: {crashed_after:?} until it was back, {:?} in all; {load}", began.elapsed());
    }

    /// Clients of one node each, whoever leads.
    async fn clients(&self, nodes: [&Node; 2], deadline: Duration) -> Vec<Client> {
        let mut clients = Vec::new();
        for node in nodes {
            let only = Client::builder().endpoints([node.grpc_address()]).only_these_endpoints();
            clients.push(only.deadline(deadline).connect().await.unwrap());
        }
        clients
    }

    async fn check(&self, lists: &Transactions, load: &Load, written: &[Spread]) {
        self.cluster.wait_unlocked(PATIENCE).await.unwrap();
        lists.final_read(&self.cluster.client().await.unwrap(), &load.recorder).await.unwrap();
        let history = load.recorder.history();
        std::fs::write(self.cluster.dir().join("history.jsonl"), &history).unwrap();
        strictly_serializable(&history, Kind::List, Duration::from_secs(30)).unwrap_or_else(|found| panic!("{found}"));
        let mut seen: Option<BTreeMap<Bytes, Bytes>> = None;
        for node in self.cluster.node_ids() {
            let totals = self.bank.totals(&self.cluster.client_of(node).await.unwrap()).await.unwrap();
            assert_eq!(totals, [self.bank.total(); 2], "through node {node}");
            let rows = self.cluster.all_rows(node).await.unwrap();
            whole_or_absent(written, &rows).unwrap_or_else(|found| panic!("{found}"));
            assert!(seen.is_none_or(|seen| seen == rows), "node {node} shows something else than the one before it");
            seen = Some(rows);
        }
        self.cluster.assert_replicas_equal().await.unwrap();
    }
}

impl Load {
    /// Waits until so many more transactions of each kind were acknowledged.
    async fn advance(&self, more: usize) {
        let now = || [self.recorder.committed(), self.report.moved(), self.wide.load(Ordering::SeqCst)];
        let before = now();
        wait_until("transactions to be committed", PATIENCE, async || match now() {
            now if now.iter().zip(before).all(|(now, before)| *now >= before + more) => Ok(()),
            now => Err(format!("{now:?} after {before:?}")),
        })
        .await
        .unwrap();
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [ok, fail, info] = ["ok", "fail", "info"].map(|kind| self.recorder.count(kind));
        write!(f, "lists {ok} committed, {fail} refused, {info} unknown; ")?;
        write!(f, "{} transfers, {} wide committed", self.report.moved(), self.wide.load(Ordering::SeqCst))
    }
}

async fn every_crash_of(role_of: Role, which: impl Fn(CrashPoint) -> bool) {
    let scene = Scene::start().await;
    let points: Vec<CrashPoint> = CrashPoint::all().filter(|point| role(*point) == role_of && which(*point)).collect();
    assert!(!points.is_empty());
    for (round, point) in (0..).zip(points) {
        scene.crash(round, point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_crashes_before_an_entry_or_between_two_leaves_nothing_behind() {
    every_crash_of(Role::Coordinator, |point| !matches!(point, CrashPoint::Txn(_, Moment::Answered))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_crashes_after_an_entry_leaves_nothing_behind() {
    every_crash_of(Role::Coordinator, |point| matches!(point, CrashPoint::Txn(_, Moment::Answered))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_where_the_primary_is_that_crashes_around_an_entry_tears_no_transaction() {
    every_crash_of(Role::Primary, |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_elsewhere_that_crashes_around_an_entry_tears_no_transaction() {
    every_crash_of(Role::Secondary, |_| true).await;
}
