//! What clients see stays strictly serializable while ranges move between groups, leaders and coordinators are killed and
//! nodes are stopped.

use std::sync::Arc;
use std::time::Duration;

use drover_client::Client;
use drover_testkit::Cluster;
use drover_testkit::check::strictly_serializable;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::mover::{Mover, MoverReport};
use drover_testkit::nemesis::{Fault, strike};
use drover_testkit::workload::{Bank, BankReport, Kind, Transactions, TxnRecorder};
use tokio_util::sync::CancellationToken;

const KEYS: [&str; 4] = ["b", "k", "t", "y"];
/// Moves that have to have come to their end, for a history to show anything.
const MOVES: usize = 10;

const FAULTS: [Fault; 6] =
    [Fault::KillLeader, Fault::LoseCoordinator, Fault::StopLeader, Fault::KillAny, Fault::StopAny, Fault::KillLeader];

async fn cluster() -> Cluster {
    Cluster::builder().data_groups(3).set("txn.lock_ttl_ms", 1_000).start().await.unwrap()
}

/// Clients of one node each, and others that go elsewhere and give up soon.
async fn clients(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in cluster.node_ids() {
        let only = Client::builder().endpoints([cluster.node(node).grpc_address()]).only_these_endpoints();
        clients.push(only.deadline(Duration::from_secs(2)).connect().await.unwrap());
        let hasty = Client::builder().endpoints(cluster.endpoints()).deadline(Duration::from_millis(500));
        clients.push(hasty.connect().await.unwrap());
    }
    clients
}

/// Moves ranges while faults happen, and then until enough have moved.
async fn move_and_strike(
    cluster: &Cluster,
    seed: u64,
    stop: &CancellationToken,
    successes: impl Fn() -> usize,
) -> MoverReport {
    let mover = Mover {
        client: cluster.client().await.unwrap(),
        groups: cluster.groups(),
        keys: KEYS.map(str::to_owned).to_vec(),
    };
    let still = CancellationToken::new();
    let striking = async {
        strike(cluster, &cluster.groups(), &FAULTS, seed, 60, &successes).await.unwrap();
        still.cancel();
    };
    let (moved, ()) = tokio::join!(mover.run(seed, MOVES, &still), striking);
    stop.cancel();
    let moved = moved.unwrap();
    eprintln!("{moved:?}");
    moved
}

async fn histories(kind: Kind, seed: u64) {
    let cluster = cluster().await;
    let keys = KEYS.map(str::to_owned).to_vec();
    let workload = Transactions { keys, kind, txns_per_key_set: 100, seed };
    let (recorder, stop) = (Arc::new(TxnRecorder::default()), CancellationToken::new());
    let nemesis = move_and_strike(&cluster, seed, &stop, || recorder.committed());
    tokio::join!(workload.run(clients(&cluster).await, &recorder, &stop), nemesis);
    cluster.wait_ready(PATIENCE).await.unwrap();
    workload.final_read(&cluster.client().await.unwrap(), &recorder).await.unwrap();
    let text = recorder.history();
    std::fs::write(cluster.dir().join("history.jsonl"), &text).unwrap();
    let tally = ["ok", "fail", "info"].map(|kind| recorder.count(kind));
    eprintln!("{tally:?} committed, refused, unknown");
    assert!(tally[0] > 300, "too few transactions to show anything: {tally:?}");
    strictly_serializable(&text, kind, Duration::from_secs(60)).unwrap_or_else(|found| panic!("{found}"));
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_strictly_serializable_while_their_ranges_move() {
    histories(Kind::List, 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_are_strictly_serializable_while_their_ranges_move() {
    histories(Kind::Register, 22).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_keeps_its_money_while_its_accounts_move() {
    let cluster = cluster().await;
    let client = cluster.client().await.unwrap();
    let bank = Bank { accounts: 12, each: 100 };
    bank.fill(&client).await.unwrap();
    let (report, stop) = (Arc::new(BankReport::default()), CancellationToken::new());
    let nemesis = move_and_strike(&cluster, 23, &stop, || report.moved());
    let movers = clients(&cluster).await;
    tokio::join!(bank.run(movers, vec![client.clone(); 2], &report, &stop), nemesis);
    cluster.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(bank.totals(&client).await.unwrap(), [bank.total(); 2]);
    assert!(report.looks() > 20, "only {} looks", report.looks());
    cluster.assert_replicas_equal().await.unwrap();
}
