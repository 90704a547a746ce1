//! Acknowledged writes survive crashes of processes; refused ones never appear.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use drover_client::{Client, IdempotencyKeys, RetryPolicy};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::ledger::Ledger;
use drover_testkit::nemesis::{Fault, strike};
use drover_testkit::workload::Load;
use tokio_util::sync::CancellationToken;

/// Rows whose keys are spread over all groups, without end.
fn rows() -> impl Iterator<Item = (Bytes, Bytes)> + Send {
    (0u64..).map(|n| {
        let letter = char::from(b'a' + u8::try_from(n * 7 % 26).unwrap());
        (format!("{letter}{n:08}").into(), format!("value {n}").repeat(8).into())
    })
}

/// Clients that retry under a name, and others that send once and give up soon, so that every kind of ending occurs. For each
/// node there is one that knows no other: what it is given while the node is down never leaves it, and is refused.
async fn clients(cluster: &Cluster, each: usize) -> Vec<Client> {
    let patient = Client::builder().endpoints(cluster.endpoints()).connect().await.unwrap();
    let hasty = Client::builder().endpoints(cluster.endpoints()).idempotency_keys(IdempotencyKeys::Off);
    let hasty = hasty.deadline(Duration::from_millis(300));
    let mut clients = [vec![patient; each], vec![hasty.clone().connect().await.unwrap(); each]].concat();
    let twice = RetryPolicy { max_attempts: Some(2), ..RetryPolicy::default() };
    for node in cluster.nodes() {
        let faithful = hasty.clone().endpoints([node.grpc_address()]).only_these_endpoints().retry(twice.clone());
        clients.push(faithful.connect().await.unwrap());
    }
    clients
}

async fn load_while(cluster: &Cluster, faults: &[Fault], seed: u64) -> Arc<Ledger> {
    let ledger = Arc::new(Ledger::new());
    let stop = CancellationToken::new();
    let load = Load { rows: rows(), on_row: Arc::new(|_, _| {}) };
    let clients = clients(cluster, 8).await;
    let groups = cluster.groups();
    let nemesis = async {
        let struck = strike(cluster, &groups, faults, seed, 500, || ledger.tally().0).await;
        stop.cancel();
        struck.unwrap();
    };
    tokio::join!(load.run(clients, &ledger, &stop), nemesis);
    ledger
}

async fn audit(cluster: &Cluster, ledger: &Ledger) {
    cluster.wait_ready(PATIENCE).await.unwrap();
    let (acknowledged, refused, unknown) = ledger.tally();
    eprintln!("{acknowledged} acknowledged, {refused} refused, {unknown} unknown");
    assert!(acknowledged > 1000, "only {acknowledged} writes were acknowledged: too few to show anything");
    assert!(refused > 0, "no write was refused: nothing shows that refused ones do not appear");
    for node in cluster.node_ids() {
        ledger.audit(&cluster.all_rows(node).await.unwrap()).assert_clean();
    }
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_and_no_refused_one_appears_while_nodes_are_killed() {
    let cluster = Cluster::builder().start().await.unwrap();
    let faults =
        [Fault::KillAny, Fault::KillLeader, Fault::KillAny, Fault::KillLeader, Fault::StopLeader, Fault::KillAny];
    let ledger = load_while(&cluster, &faults, 1).await;
    audit(&cluster, &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_all_nodes_were_killed_at_once() {
    // Flushes and purges happen between the crashes, so that recovery starts from them.
    let builder = Cluster::builder().set("storage.flush_interval_ms", 500).set("raft.log_retention_entries", 100);
    let cluster = builder.set("raft.snapshot_entries", 500).start().await.unwrap();
    let ledger = load_while(&cluster, &[Fault::KillAll, Fault::KillAll, Fault::KillAll], 2).await;
    audit(&cluster, &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_under_one_name_applies_once_although_leaders_are_killed() {
    use drover_kv::{Expectation, Update};

    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let groups = cluster.data_groups();
    let client = Client::builder().endpoints(cluster.endpoints()).deadline(PATIENCE).connect().await.unwrap();
    let stop = CancellationToken::new();
    client.put("counter", "0").await.unwrap();
    let increments = AtomicUsize::new(0);
    let count = async {
        let mut value = 0u64;
        while !stop.is_cancelled() {
            // If an attempt applied and its repetition were judged anew, the comparison would fail.
            let expect = Expectation::Value(value.to_string().into());
            let update = Update::Put { value: (value + 1).to_string().into(), ttl_ms: None };
            let answer = client.compare_and_set("counter", expect, update).await.unwrap();
            assert!(matches!(answer, drover_client::CompareAndSet::Written { .. }), "at {value}: {answer:?}");
            value += 1;
            increments.fetch_add(1, Ordering::Relaxed);
        }
        value
    };
    let nemesis = async {
        let struck =
            strike(&cluster, &groups, &[Fault::KillLeader; 4], 3, 50, || increments.load(Ordering::Relaxed)).await;
        stop.cancel();
        struck.unwrap();
    };
    let (value, ()) = tokio::join!(count, nemesis);
    let found = client.get("counter").await.unwrap().unwrap();
    assert_eq!(found.value, value.to_string());
}
