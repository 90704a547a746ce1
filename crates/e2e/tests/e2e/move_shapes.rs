//! Moves of ranges of every shape, and moves while something else changes: each time everything can be read afterwards as it was,
//! replicas are equal, and nothing is left of the move.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use drover_client::{Client, End, GroupId, Interval, JobPhase, NodeId, ReplicaState, Timestamp};
use drover_guards::{CrashPoint, Place};
use drover_testkit::Cluster;
use drover_testkit::cluster::{ClusterBuilder, PATIENCE};
use drover_testkit::ledger::Ledger;
use drover_testkit::shuttle::{Pace, Shuttle};
use drover_testkit::wait::wait_until;
use drover_testkit::workload::Load;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

const ME: &str = "test";
/// So slow that something can happen meanwhile.
const SLOWLY: Pace = Pace { max_pause: None, max_bytes_per_second: Some(1 << 20) };

fn interval(start: &'static str, end: &'static str) -> Interval {
    Interval::new(start, End::Key(end.into())).unwrap()
}

/// A cluster with two data groups: the first owns all below `n`.
struct Stage {
    cluster: Cluster,
    client: Client,
}

impl Stage {
    async fn new() -> Self {
        Self::of(Cluster::builder()).await
    }

    async fn of(builder: ClusterBuilder) -> Self {
        let cluster = builder.data_groups(2).start().await.unwrap();
        let client = cluster.client().await.unwrap();
        Self { cluster, client }
    }

    fn shuttle(&self, interval: Interval) -> Shuttle {
        Shuttle { client: self.client.clone(), interval, groups: self.cluster.data_groups().try_into().unwrap() }
    }

    /// Moves a range to the other group.
    async fn carry(&self, shuttle: &Shuttle, pace: Pace) {
        let (_, target) = shuttle.ends().await.unwrap();
        let job = shuttle.begin(pace).await.unwrap();
        assert_eq!(shuttle.ended(job, 2 * PATIENCE).await.unwrap(), JobPhase::Done);
        assert_eq!(shuttle.ends().await.unwrap().0, target);
    }

    async fn put_all(&self, rows: impl IntoIterator<Item = (String, Bytes)>) -> BTreeMap<Bytes, Bytes> {
        let mut book = BTreeMap::new();
        for (key, value) in rows {
            self.client.put(key.clone(), value.clone()).await.unwrap();
            book.insert(key.into(), value);
        }
        book
    }

    /// Through every node all rows are there and no other; nothing is left of moves.
    async fn assert_all_is(&self, book: &BTreeMap<Bytes, Bytes>) {
        for node in self.cluster.node_ids() {
            let rows = self.cluster.all_rows(node).await.unwrap();
            let keys = |rows: &BTreeMap<Bytes, Bytes>| rows.keys().cloned().collect::<Vec<_>>();
            assert!(rows == *book, "through node {node}: {:?} instead of {:?}", keys(&rows), keys(book));
        }
        self.assert_nothing_left().await;
    }

    async fn assert_nothing_left(&self) {
        self.cluster.wait_ready(PATIENCE).await.unwrap();
        self.cluster.wait_unlocked(PATIENCE).await.unwrap();
        self.cluster.wait_nothing_left(true, PATIENCE).await.unwrap();
        self.cluster.assert_replicas_equal().await.unwrap();
    }
}

/// Writes while something goes on, and checks then that all that was acknowledged is there.
async fn under_writes<T>(stage: &Stage, work: impl AsyncFnOnce() -> T) -> T {
    let (ledger, stop) = (Arc::new(Ledger::new()), CancellationToken::new());
    let rows = (0u64..).map(|n| {
        let letter = char::from(b'a' + u8::try_from(n * 7 % 26).unwrap());
        (format!("{letter}/written/{n:08}").into(), Bytes::from_static(b"value"))
    });
    let load = Load { rows, on_row: Arc::new(|_, _| {}) };
    let working = async {
        let done = work().await;
        stop.cancel();
        done
    };
    let (_, done) = tokio::join!(load.run(vec![stage.client.clone(); 4], &ledger, &stop), working);
    let (acknowledged, refused, _) = ledger.tally();
    assert!(acknowledged > 100 && refused == 0, "{acknowledged} acknowledged, {refused} refused");
    for node in stage.cluster.node_ids() {
        let rows = stage.cluster.all_rows(node).await.unwrap();
        let written = rows.into_iter().filter(|(key, _)| key[1..].starts_with(b"/written/")).collect();
        ledger.audit(&written).assert_clean();
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ranges_change_places_at_once() {
    let stage = Stage::new().await;
    let (low, high) = (stage.shuttle(interval("c", "f")), stage.shuttle(interval("p", "s")));
    for n in 0..30 {
        let letter = if n % 2 == 0 { "d" } else { "q" };
        stage.client.put(format!("{letter}/much/{n}"), vec![b'm'; 100 << 10]).await.unwrap();
    }
    under_writes(&stage, async || {
        for _ in 0..4 {
            let ends = (low.ends().await.unwrap(), high.ends().await.unwrap());
            // Both copy for a while before either is done.
            let (first, second) = (low.begin(SLOWLY).await.unwrap(), high.begin(SLOWLY).await.unwrap());
            assert_ne!(first, second);
            let (first, second) = tokio::join!(low.ended(first, PATIENCE), high.ended(second, PATIENCE));
            assert_eq!((first.unwrap(), second.unwrap()), (JobPhase::Done, JobPhase::Done));
            let turned = |(source, target)| (target, source);
            assert_eq!((low.ends().await.unwrap(), high.ends().await.unwrap()), (turned(ends.0), turned(ends.1)));
        }
    })
    .await;
    stage.assert_nothing_left().await;
}

/// The nodes whose replicas vote, once no change of the group is under way.
async fn settled(client: &Client, group: GroupId) -> Vec<u64> {
    wait_until(&format!("the change of group {group} to end"), PATIENCE, async || {
        let groups = client.groups().await.map_err(|error| error.to_string())?;
        let info = groups.into_iter().find(|info| info.group_id == group.0).ok_or("it is not listed")?;
        match info.replicas.iter().all(|replica| replica.state() == ReplicaState::Active && replica.votes) {
            true => Ok(info.replicas.iter().map(|replica| replica.node_id).collect()),
            false => Err(format!("{info:?}")),
        }
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_moves_while_a_node_of_its_source_and_of_its_target_is_replaced() {
    let mut stage = Stage::new().await;
    let new = stage.cluster.join().await.unwrap();
    stage.client = stage.cluster.client().await.unwrap();
    let shuttle = stage.shuttle(interval("c", "k"));
    for n in 0..40 {
        stage.client.put(format!("d/much/{n}"), vec![b'm'; 100 << 10]).await.unwrap();
    }
    under_writes(&stage, async || {
        // The source's replacement while the range goes, the target's while it comes back: the same group.
        for (at, source_changes) in [(0, true), (1, true), (2, false), (3, false)] {
            let (source, target) = shuttle.ends().await.unwrap();
            let group = if source_changes { source } else { target };
            let job = shuttle.begin(SLOWLY).await.unwrap();
            let members = settled(&stage.client, group).await;
            let leader = stage.cluster.leader(group, PATIENCE).await.unwrap();
            // First the new node takes the place of the leader, later whoever left comes back.
            let comes = stage.cluster.node_ids().into_iter().find(|node| !members.contains(&node.0)).unwrap();
            assert!(at > 1 || comes == new);
            stage.client.add_replica(group, comes, ME).await.unwrap();
            assert_eq!(settled(&stage.client, group).await.len(), 4);
            stage.client.remove_replicas(group, &[leader], ME).await.unwrap();
            assert!(!settled(&stage.client, group).await.contains(&leader.0));
            assert_eq!(shuttle.ended(job, PATIENCE).await.unwrap(), JobPhase::Done, "{source} to {target}");
        }
    })
    .await;
    stage.assert_nothing_left().await;
    assert_eq!(stage.client.count(interval("d/much/", "d/much0"), None).await.unwrap(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_without_a_row_moves_and_takes_rows_then() {
    let stage = Stage::new().await;
    let shuttle = stage.shuttle(interval("c", "k"));
    stage.carry(&shuttle, Pace::default()).await;
    let book = stage.put_all([("c".to_owned(), Bytes::from_static(b"1")), ("j".to_owned(), "2".into())]).await;
    stage.carry(&shuttle, Pace::default()).await;
    stage.assert_all_is(&book).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_one_key_moves_out_of_the_midst_of_others() {
    let stage = Stage::new().await;
    let rows = ["dd", "dda", "de", "dd\0", "dc"].map(|key| (key.to_owned(), Bytes::from(key)));
    let book = stage.put_all(rows).await;
    let shuttle = stage.shuttle(Interval::point("dd"));
    for _ in 0..2 {
        stage.carry(&shuttle, Pace::default()).await;
        for key in ["dd", "dda", "de", "dd\0", "dc"] {
            let read = stage.client.get(key).await.unwrap();
            assert_eq!(read.map(|version| version.value), Some(Bytes::from(key)));
        }
        stage.assert_all_is(&book).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_key_moves_with_each_of_its_hundred_thousand_versions() {
    const VERSIONS: usize = 100_000;
    let stage = Stage::new().await;
    let put = |n: usize| {
        let client = stage.client.clone();
        async move { (client.put("hot", n.to_string()).await.unwrap(), n) }
    };
    let written: BTreeMap<Timestamp, usize> =
        futures::stream::iter((0..VERSIONS).map(put)).buffer_unordered(512).collect().await;
    assert_eq!(written.len(), VERSIONS);
    let shuttle = stage.shuttle(interval("c", "k"));
    stage.carry(&shuttle, Pace::default()).await;
    let (last, newest) = written.last_key_value().unwrap();
    let read = stage.client.get("hot").await.unwrap().unwrap();
    assert_eq!((read.commit_ts, &read.value[..]), (*last, newest.to_string().as_bytes()));
    let look = |(at, n): (&Timestamp, &usize)| {
        let (client, at, n) = (stage.client.clone(), *at, *n);
        async move {
            let read = client.get_at("hot", at).await.unwrap().unwrap();
            assert_eq!((read.commit_ts, &read.value[..]), (at, n.to_string().as_bytes()));
        }
    };
    let looks = written.iter().step_by(17).map(look).collect::<Vec<_>>();
    futures::stream::iter(looks).buffer_unordered(64).collect::<()>().await;
    stage.assert_all_is(&[("hot".into(), newest.to_string().into())].into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_and_what_expires_during_the_move_stays_gone_and_is_there_in_the_past() {
    let stage = Stage::new().await;
    let (client, ttl) = (&stage.client, Duration::from_millis(1_500));
    let mut book = stage.put_all((0..60).map(|n| (format!("d/much/{n}"), vec![b'm'; 100 << 10].into()))).await;
    let mut deleted = Vec::new();
    for n in 0..20 {
        let key = format!("e/deleted/{n}");
        let written = client.put(key.clone(), "was").await.unwrap();
        client.delete(key.clone()).await.unwrap();
        deleted.push((key, written));
    }
    let shuttle = stage.shuttle(interval("c", "k"));
    let job = shuttle.begin(SLOWLY).await.unwrap();
    // Before the copy comes to them, and while what is written is listed.
    let mut expiring = Vec::new();
    for n in 0..20 {
        let key = format!("{}/expires/{n}", if n % 2 == 0 { "c" } else { "j" });
        expiring.push((key.clone(), client.put_ttl(key, "is", ttl).await.unwrap()));
        let key = format!("f/deleted/{n}");
        let written = client.put(key.clone(), "was").await.unwrap();
        client.delete(key.clone()).await.unwrap();
        deleted.push((key, written));
    }
    wait_until("all to expire", PATIENCE, async || {
        let left = client.count(interval("c/expires/", "c/expires0"), None).await.map_err(|error| error.to_string())?;
        if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
    })
    .await
    .unwrap();
    let status = shuttle.status(job).await.unwrap();
    assert_eq!(status.job.unwrap().phase(), JobPhase::Backfill, "it is over before anything expired during it");
    assert_eq!(shuttle.ended(job, PATIENCE).await.unwrap(), JobPhase::Done);
    for (key, written) in deleted.iter().chain(&expiring) {
        assert_eq!(client.get(key.clone()).await.unwrap(), None, "{key}");
        let then = client.get_at(key.clone(), *written).await.unwrap().unwrap();
        assert_eq!(then.commit_ts, *written, "{key}");
    }
    // What comes later at the same keys is not hidden.
    for (key, _) in &expiring {
        client.put(key.clone(), "again").await.unwrap();
        book.insert(key.clone().into(), "again".into());
    }
    stage.assert_all_is(&book).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_full_of_locks_whose_coordinators_are_gone_moves_when_they_are_resolved() {
    const TXNS: usize = 10_000;
    const PREPARED: CrashPoint = CrashPoint::At(Place::TxnPrepared);
    let builder = Cluster::builder().set("txn.lock_ttl_ms", 20_000).set("limits.max_requests", 20_000);
    let stage = Stage::of(builder).await;
    let (cluster, [here, there, lost]) = (&stage.cluster, [NodeId(1), NodeId(2), NodeId(3)]);
    for (group, node) in [(GroupId::DEFAULT, here), (GroupId(2), here), (GroupId(3), there)] {
        cluster.lead(group, node, PATIENCE).await.unwrap();
    }
    let book = stage.put_all([("c/free".to_owned(), Bytes::from_static(b"0"))]).await;
    let coordinator = cluster.node(lost);
    coordinator.arm(None, Some(PREPARED)).unwrap();
    let only = Client::builder().endpoints([coordinator.grpc_address()]).only_these_endpoints();
    let client = only.deadline(4 * PATIENCE).max_in_flight(TXNS).connect().await.unwrap();
    let mut txns = tokio::task::JoinSet::new();
    for n in 0..TXNS {
        let txn = client.begin();
        // Where the first key is, the outcome is recorded.
        let keys = [format!("e/{n:05}"), format!("t/{n:05}")];
        let first = n % 2;
        txn.put(keys[first].clone(), "never");
        txn.put(keys[1 - first].clone(), "never");
        txns.spawn(txn.commit());
    }
    coordinator.wait_held(PREPARED, TXNS, 2 * PATIENCE).await.unwrap();
    coordinator.arm(None, None).unwrap();
    coordinator.kill().unwrap();
    txns.shutdown().await;
    coordinator.start().unwrap();

    let shuttle = stage.shuttle(interval("c", "k"));
    let written = AtomicUsize::new(0);
    let stop = CancellationToken::new();
    // Who meets no lock goes on writing while the move waits for those that do.
    let writing = async {
        while !stop.is_cancelled() {
            stage.client.put("c/free", "0").await.unwrap();
            written.fetch_add(1, Ordering::SeqCst);
        }
    };
    let moving = async {
        let job = shuttle.begin(Pace::default()).await.unwrap();
        wait_until("the job to wait for locks", PATIENCE, async || {
            let status = shuttle.status(job).await.map_err(|error| error.to_string())?;
            let waits = format!("{status:?}");
            if waits.contains("hold locks") { Ok(()) } else { Err(waits) }
        })
        .await
        .unwrap();
        let before = written.load(Ordering::SeqCst);
        wait_until("writes beside the locks", PATIENCE, async || match written.load(Ordering::SeqCst) {
            now if now > before + 10 => Ok(()),
            now => Err(format!("{now} after {before}")),
        })
        .await
        .unwrap();
        let ended = shuttle.ended(job, 3 * PATIENCE).await.unwrap();
        stop.cancel();
        assert_eq!(ended, JobPhase::Done);
    };
    tokio::join!(writing, moving);
    stage.assert_all_is(&book).await;
}
