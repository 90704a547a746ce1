//! Transactions are strictly serializable while leaders and coordinators are killed, crash and are stopped.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use drover_client::{Client, Interval};
use drover_testkit::Cluster;
use drover_testkit::check::strictly_serializable;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::nemesis::{Fault, strike};
use drover_testkit::workload::{Bank, BankReport, Kind, Transactions, TxnRecorder};
use tokio_util::sync::CancellationToken;

const FAULTS: [Fault; 7] = [
    Fault::KillLeader,
    Fault::LoseCoordinator,
    Fault::StopLeader,
    Fault::KillAny,
    Fault::StopAny,
    Fault::LoseCoordinator,
    Fault::KillLeader,
];

/// Clients of one node each, which is lost with its coordinator, and others that go elsewhere and give up soon.
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

fn assert_strictly_serializable(cluster: &Cluster, recorder: &TxnRecorder, kind: Kind) {
    let text = recorder.history();
    std::fs::write(cluster.dir().join("history.jsonl"), &text).unwrap();
    let tally = ["ok", "fail", "info"].map(|kind| recorder.count(kind));
    eprintln!("{tally:?} committed, refused, unknown");
    assert!(tally[0] > 300, "too few transactions to show anything: {tally:?}");
    strictly_serializable(&text, kind, Duration::from_secs(60)).unwrap_or_else(|found| panic!("{found}"));
}

async fn histories(kind: Kind, seed: u64) {
    let cluster = Cluster::builder().data_groups(3).set("txn.lock_ttl_ms", 1_000).start().await.unwrap();
    let keys = ["b", "k", "t", "y"].map(str::to_owned).to_vec();
    let workload = Transactions { keys, kind, txns_per_key_set: 100, seed };
    let (recorder, stop) = (Arc::new(TxnRecorder::default()), CancellationToken::new());
    let nemesis = async {
        let struck = strike(&cluster, &cluster.groups(), &FAULTS, seed, 60, || recorder.committed()).await;
        stop.cancel();
        struck.unwrap();
    };
    tokio::join!(workload.run(clients(&cluster).await, &recorder, &stop), nemesis);
    cluster.wait_ready(PATIENCE).await.unwrap();
    workload.final_read(&cluster.client().await.unwrap(), &recorder).await.unwrap();
    assert_strictly_serializable(&cluster, &recorder, kind);
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_appended_to_are_strictly_serializable() {
    histories(Kind::List, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_that_are_written_are_strictly_serializable() {
    histories(Kind::Register, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_never_makes_or_loses_money_in_any_snapshot() {
    let cluster = Cluster::builder().data_groups(3).set("txn.lock_ttl_ms", 1_000).start().await.unwrap();
    let client = cluster.client().await.unwrap();
    let bank = Bank { accounts: 12, each: 100 };
    bank.fill(&client).await.unwrap();
    let (report, stop) = (Arc::new(BankReport::default()), CancellationToken::new());
    let nemesis = async {
        let struck = strike(&cluster, &cluster.groups(), &FAULTS, 9, 60, || report.moved()).await;
        stop.cancel();
        struck.unwrap();
    };
    let movers = clients(&cluster).await;
    tokio::join!(bank.run(movers, vec![client.clone(); 2], &report, &stop), nemesis);
    cluster.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(bank.totals(&client).await.unwrap(), [bank.total(); 2]);
    assert!(report.looks() > 20, "only {} looks", report.looks());
    cluster.assert_replicas_equal().await.unwrap();
}

/// Of two transactions that each look for the other's write before they write their own, at most one comes through.
#[tokio::test(flavor = "multi_thread")]
async fn neither_write_skew_nor_phantoms_come_through() {
    let cluster = Cluster::builder().data_groups(3).start().await.unwrap();
    let client = cluster.client().await.unwrap();
    for round in 0..30 {
        // By key, and by a scan of a range that is empty; in one group, and in two.
        let (left, right) = match round % 2 {
            0 => (format!("b/{round}/x"), format!("b/{round}/y")),
            _ => (format!("b/{round}/x"), format!("y/{round}/y")),
        };
        let attempt = |own: String, other: String, scans: bool| {
            let client = client.clone();
            async move {
                let txn = client.begin();
                let there = match scans {
                    true => !txn.scan(Interval::point(other), false, 0).await.unwrap().is_empty(),
                    false => txn.get(other).await.unwrap().is_some(),
                };
                if there {
                    return false;
                }
                txn.put(own, "1");
                txn.commit().await.is_ok()
            }
        };
        let scans = round % 4 < 2;
        let (one, two) =
            tokio::join!(attempt(left.clone(), right.clone(), scans), attempt(right.clone(), left.clone(), scans));
        assert!(!(one && two), "round {round}: both came through");
        let written = [client.get(left).await.unwrap(), client.get(right).await.unwrap()].map(|value| value.is_some());
        assert_eq!(written, [one, two], "round {round}");
    }
}
