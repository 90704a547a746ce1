//! Transactions are strictly serializable while leaders and coordinators are killed, crash and are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use drover_client::{Client, End, Error, Interval, Reason};
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

/// Writes a key if another one is not there, by key or by a scan of a range that would hold it; whether it did.
async fn write_unless(client: &Client, own: &str, other: &str, scans: bool) -> Result<bool, Error> {
    let txn = client.begin();
    let there = match scans {
        true => {
            let around = Interval::new(other.to_owned(), End::Key(format!("{other}~").into())).unwrap();
            !txn.scan(around, false, 0).await?.is_empty()
        }
        false => txn.get(other.to_owned()).await?.is_some(),
    };
    if there {
        return Ok(false);
    }
    txn.put(own.to_owned(), "1");
    txn.commit().await.map(|_| true)
}

/// Of two transactions that each look for the other's write before they write their own, at most one comes through.
#[tokio::test(flavor = "multi_thread")]
async fn neither_write_skew_nor_phantoms_come_through() {
    let cluster = Cluster::builder().data_groups(3).set("txn.lock_ttl_ms", 1_000).start().await.unwrap();
    let clients = clients(&cluster).await;
    let (through, stop) = (AtomicUsize::new(0), CancellationToken::new());
    let nemesis = async {
        let struck = strike(&cluster, &cluster.groups(), &FAULTS, 11, 10, || through.load(Ordering::Relaxed)).await;
        stop.cancel();
        struck.unwrap();
    };
    let rounds = async {
        let mut rounds = Vec::new();
        for round in 0usize.. {
            if stop.is_cancelled() {
                break;
            }
            // In one group, and in two.
            let left = format!("b/{round}/x");
            let right = format!("{}/{round}/y", if round % 2 == 0 { "b" } else { "y" });
            let (here, there) = (&clients[round % clients.len()], &clients[(round / 2) % clients.len()]);
            let scans = round % 4 < 2;
            let (one, two) =
                tokio::join!(write_unless(here, &left, &right, scans), write_unless(there, &right, &left, scans));
            let came = [&one, &two].into_iter().filter(|came| matches!(came, Ok(true))).count();
            assert!(came < 2, "round {round}: both came through");
            through.fetch_add(came, Ordering::Relaxed);
            rounds.push(([left, right], [one, two]));
        }
        rounds
    };
    let (rounds, ()) = tokio::join!(rounds, nemesis);
    cluster.wait_ready(PATIENCE).await.unwrap();
    let client = cluster.client().await.unwrap();
    // By key and by scan: rounds in which one has noticed the other.
    let mut noticed = [0; 2];
    for (round, (keys, outcomes)) in rounds.into_iter().enumerate() {
        let conflict =
            |outcome: &Result<bool, Error>| matches!(outcome, Err(error) if error.reason == Reason::TxnConflict);
        noticed[usize::from(round % 4 < 2)] += usize::from(outcomes.iter().any(conflict));
        let mut written = [false; 2];
        for ((key, outcome), written) in keys.iter().zip(outcomes).zip(&mut written) {
            *written = client.get(key.clone()).await.unwrap().is_some();
            match outcome {
                Ok(came) => assert_eq!(came, *written, "{key}"),
                Err(error) if error.is_unknown() => {}
                Err(error) => assert!(!*written, "{key} was refused and is there: {error}"),
            }
        }
        assert_ne!(written, [true, true], "both of {keys:?} are there");
    }
    assert!(noticed.iter().all(|rounds| *rounds > 5), "hardly any two were at work at once: {noticed:?}");
    cluster.assert_replicas_equal().await.unwrap();
}
