//! Transactions over real processes.

use std::time::Duration;

use bytes::Bytes;
use drover_client::{
    Client, Error, Expectation, Interval, Reason, Transaction, TransactionOptions, TransactionStatus, Update,
};
use drover_guards::{CrashPoint, Moment, Place, TxnEntry};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;

async fn number(txn: &Transaction, key: &str) -> Result<i64, Error> {
    let value = txn.get(key.to_owned()).await?;
    Ok(value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap()))
}

/// Adds to counters, all at once.
async fn add(client: &Client, keys: &[&str], by: i64) -> Result<(), Error> {
    client
        .transaction(|txn| async move {
            for key in keys {
                let value = number(&txn, key).await?;
                txn.put((*key).to_owned(), (value + by).to_string());
            }
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_one_group_and_of_several_apply_as_a_whole_and_see_themselves() {
    let cluster = Cluster::builder().data_groups(3).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    // Keys of three groups.
    let keys = ["a", "k", "z"];
    let groups: std::collections::BTreeSet<u64> = {
        let routes = client.routes().await.unwrap();
        let group = |key: &&str| {
            let at = routes.routes.partition_point(|route| route.start.as_ref() <= key.as_bytes());
            routes.routes[at - 1].group_id
        };
        keys.iter().map(group).collect()
    };
    assert_eq!(groups.len(), 3, "the keys lie in {groups:?}");
    for keys in [&keys[..1], &keys[..2], &keys[..]] {
        add(&client, keys, 5).await.unwrap();
    }
    for (key, expect) in [("a", "15"), ("k", "10"), ("z", "5")] {
        assert_eq!(client.get(key).await.unwrap().unwrap().value, expect);
    }
    // Its own writes are part of what it reads, and of nothing else before the commit.
    let txn = client.begin();
    txn.put("b", "new");
    txn.delete("k");
    assert_eq!(txn.get("b").await.unwrap().unwrap(), "new");
    let rows = txn.scan(Interval::all(), false, 0).await.unwrap();
    let shown: Vec<&[u8]> = rows.iter().map(|(key, _)| key.as_ref()).collect();
    assert_eq!(shown, [b"a", b"b", b"z"]);
    let last = txn.scan(Interval::all(), true, 2).await.unwrap();
    assert_eq!(last, [("z".into(), "5".into()), ("b".into(), "new".into())] as [(Bytes, Bytes); 2]);
    assert!(txn.update_if("c", Expectation::Absent, Update::Put { value: "1".into(), ttl_ms: None }).await.unwrap());
    assert!(!txn.update_if("c", Expectation::Absent, Update::Delete).await.unwrap());
    assert_eq!(client.get("b").await.unwrap(), None);
    let start_ts = txn.start_ts().unwrap();
    let commit_ts = txn.commit().await.unwrap();
    assert!(commit_ts > start_ts);
    assert_eq!(client.get("k").await.unwrap(), None);
    assert_eq!(client.get("b").await.unwrap().unwrap().commit_ts, commit_ts);
    assert_eq!(client.get("c").await.unwrap().unwrap().commit_ts, commit_ts);
    // Reads that are under way at once share one snapshot.
    let txn = client.begin();
    let (one, two, rows) = tokio::join!(txn.get("b"), txn.get("z"), txn.scan(Interval::all(), false, 0));
    assert_eq!((one.unwrap().unwrap(), two.unwrap().unwrap()), ("new".into(), "5".into()));
    assert_eq!(rows.unwrap().len(), 4);
    // The snapshot from before it is as it was.
    let before = client.snapshot(Some(start_ts));
    assert_eq!(before.get("k").await.unwrap().unwrap(), "10");
    assert_eq!(before.scan(Interval::all(), false, 0).await.unwrap().len(), 3);
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_since_it_was_read_is_a_conflict_and_is_tried_again() {
    let cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    client.put("a", "1").await.unwrap();
    for also in ["b", "z"] {
        let txn = client.begin();
        let seen = number(&txn, "a").await.unwrap();
        client.put("a", (seen + 1).to_string()).await.unwrap();
        txn.put("a", "lost");
        txn.put(also, "lost");
        let error = txn.commit().await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
        // A key that was not there when it was looked for, and a range that was empty.
        let txn = client.begin();
        assert_eq!(txn.get("absent").await.unwrap(), None);
        assert!(txn.scan(Interval::point("m"), false, 0).await.unwrap().is_empty());
        client.put("m", "phantom").await.unwrap();
        txn.put(also, "lost");
        assert_eq!(txn.commit().await.unwrap_err().reason, Reason::TxnConflict);
        client.delete("m").await.unwrap();
    }
    assert_eq!(client.get("b").await.unwrap(), None);
    // Many at once on the same counters: each counts exactly once.
    let adding = (0..40).map(|n| {
        let client = client.clone();
        let keys: &[&str] = if n % 2 == 0 { &["n"] } else { &["n", "zz"] };
        async move { add(&client, keys, 1).await.unwrap() }
    });
    futures::future::join_all(adding).await;
    assert_eq!(client.get("n").await.unwrap().unwrap().value, "40");
    assert_eq!(client.get("zz").await.unwrap().unwrap().value, "20");
    cluster.wait_unlocked(PATIENCE).await.unwrap();
    cluster.assert_replicas_equal().await.unwrap();
}

/// Where a coordinator may be lost, and whether the transaction is committed then.
const POINTS: [(CrashPoint, bool); 8] = [
    (CrashPoint::Txn(TxnEntry::PreparePrimary, Moment::Unsent), false),
    (CrashPoint::Txn(TxnEntry::PreparePrimary, Moment::Answered), false),
    (CrashPoint::Txn(TxnEntry::PrepareSecondary, Moment::Answered), false),
    (CrashPoint::At(Place::TxnPrepared), false),
    (CrashPoint::At(Place::TxnTimestamped), false),
    (CrashPoint::At(Place::TxnRefreshed), false),
    (CrashPoint::Txn(TxnEntry::Decide, Moment::Unsent), false),
    (CrashPoint::Txn(TxnEntry::Decide, Moment::Answered), true),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_coordinator_leaves_behind_is_settled_by_others() {
    let builder = Cluster::builder().data_groups(3).set("txn.lock_ttl_ms", 1_000);
    let cluster = builder.start().await.unwrap();
    let keys = ["a", "k", "z"];
    for (round, (point, committed)) in (1..).zip(POINTS) {
        let node = cluster.node(drover_client::NodeId(1 + round % 3));
        node.crash_at(Some(&point.to_string()));
        node.restart().unwrap();
        cluster.wait_ready(PATIENCE).await.unwrap();
        let through = Client::builder().endpoints([node.grpc_address()]).only_these_endpoints();
        let through = through.deadline(Duration::from_secs(2)).connect().await.unwrap();
        let others = Client::connect(cluster.endpoints()).await.unwrap();
        let before = others.get("a").await.unwrap().map(|version| version.value);
        let txn = through.begin();
        for key in keys {
            let value = number(&txn, key).await.unwrap();
            txn.put(key, (value + 1).to_string());
        }
        let error = txn.commit().await.unwrap_err();
        assert!(error.is_unknown(), "{point}: {error}");
        node.wait_crash(point, PATIENCE).await.unwrap();
        // Nobody waits for longer than the locks live.
        let mut values = Vec::new();
        for key in keys {
            values.push(others.get(key).await.unwrap().map(|version| version.value));
        }
        assert!(values.iter().all(|value| *value == values[0]), "{point}: {values:?}");
        assert_eq!(values[0] != before, committed, "{point}: {before:?} {values:?}");
        node.crash_at(None);
        node.start().unwrap();
        cluster.wait_ready(PATIENCE).await.unwrap();
        add(&others, &keys, 1).await.unwrap();
    }
    cluster.wait_unlocked(PATIENCE).await.unwrap();
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_can_be_asked_about_and_given_up() {
    let cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let id = drover_client::TxnId([7; 16]);
    assert_eq!(client.transaction_status(id, "k").await.unwrap(), TransactionStatus::Nothing);
    let begun = client.begin();
    begun.get("k").await.unwrap();
    let start_ts = begun.start_ts().unwrap();
    assert_eq!(
        client.abort_transaction(id, "k", start_ts).await.unwrap(),
        TransactionStatus::RolledBack { settled: true }
    );
    assert_eq!(client.transaction_status(id, "k").await.unwrap(), TransactionStatus::RolledBack { settled: true });
    assert_eq!(client.keep_transaction_alive(id, "k").await.unwrap(), TransactionStatus::RolledBack { settled: true });
    let error = client.resolve_transaction(id, true).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::FailedPrecondition, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_keeps_its_deadline_over_all_its_calls() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = cluster.client().await.unwrap().with_deadline(Duration::from_secs(2));
    let reads = std::sync::atomic::AtomicU32::new(0);
    let ended: Result<(), Error> = client
        .transaction(async |txn| {
            for _ in 0..200 {
                txn.get("k").await?;
                reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        })
        .await;
    let error = ended.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::Timeout, false), "{error}");
    assert!((1..200).contains(&reads.into_inner()), "each call had a deadline of its own");
}

/// Reads a key and lets somebody else change it, so that each run ends with a conflict. The error, and how many runs there were.
async fn always_conflicting(client: &Client, other: &Client, options: TransactionOptions) -> (Error, u32) {
    let runs = std::sync::atomic::AtomicU32::new(0);
    let ended: Result<(), Error> = client
        .transaction_with(options, async |txn| {
            let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            txn.get("k").await?;
            other.put("k", run.to_string()).await?;
            txn.put("mine", run.to_string());
            Ok(())
        })
        .await;
    (ended.unwrap_err(), runs.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_always_conflicts_ends_with_its_runs_or_with_its_deadline() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = cluster.client().await.unwrap();
    let few = TransactionOptions { max_runs: 3, ..TransactionOptions::default() };
    let (error, runs) = always_conflicting(&client, &client, few).await;
    assert_eq!((error.reason, error.is_unknown(), runs), (Reason::TxnConflict, false, 3), "{error}");
    assert!(error.message.ends_with("(after 3 runs)"), "{error}");
    // The deadline is that of all runs together.
    let patient = TransactionOptions { max_runs: u32::MAX, max_backoff: Duration::from_millis(50), ..few };
    let hasty = client.with_deadline(Duration::from_secs(2));
    let (error, runs) = always_conflicting(&hasty, &client, patient).await;
    // Whoever's time runs out while a commit is under way cannot know what becomes of it.
    let definite = matches!(error.reason, Reason::TxnConflict | Reason::Timeout) && !error.is_unknown();
    let under_way = error.reason == Reason::TimeoutIndefinite && error.is_unknown();
    assert!(definite || under_way, "{error}");
    assert!(runs > 3, "{runs}");
    assert_eq!(client.get("mine").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_until_the_commit_or_nothing_is_written() {
    let cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let client = cluster.client().await.unwrap();
    let put = |value: &str| Update::Put { value: value.to_owned().into(), ttl_ms: None };
    let mut written = client.put("a", "1").await.unwrap();
    for case in 0..6 {
        let (expect, holds) = match case {
            0 => (Expectation::Present, true),
            1 => (Expectation::Value("1".into()), true),
            2 => (Expectation::Version(written), true),
            3 => (Expectation::Absent, false),
            4 => (Expectation::Value("2".into()), false),
            _ => (Expectation::Version(written.next().unwrap()), false),
        };
        let txn = client.begin();
        assert_eq!(txn.update_if("a", expect.clone(), put("2")).await.unwrap(), holds, "{expect:?}");
        assert_eq!(txn.get("a").await.unwrap().unwrap(), if holds { "2" } else { "1" }, "{expect:?}");
        txn.put("z", "too");
        // Whether it held or not, it was looked at: if it changes, neither write happens.
        written = client.put("a", "1").await.unwrap();
        assert_eq!(txn.commit().await.unwrap_err().reason, Reason::TxnConflict, "{expect:?}");
        assert_eq!(client.get("z").await.unwrap(), None, "{expect:?}");
    }
    let txn = client.begin();
    assert!(txn.update_if("a", Expectation::Present, Update::Delete).await.unwrap());
    txn.put("z", "too");
    txn.commit().await.unwrap();
    assert_eq!((client.get("a").await.unwrap(), client.get("z").await.unwrap().is_some()), (None, true));
}
