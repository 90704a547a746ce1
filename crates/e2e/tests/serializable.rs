//! Transactions are strictly serializable while leaders and coordinators are killed and stopped.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adya::{History, Opts, Valid, Workload};
use drover_client::{Client, Error, Interval, Reason, Transaction};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::nemesis::{Fault, strike};
use drover_testkit::workload::{Kind, Transactions, TxnRecorder};
use tokio_util::sync::CancellationToken;

const FAULTS: [Fault; 5] = [Fault::KillLeader, Fault::StopLeader, Fault::KillAny, Fault::KillLeader, Fault::KillAny];

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
    let history = History::from_json(&text).unwrap();
    let workload = match kind {
        Kind::List => Workload::ListAppend,
        Kind::Register => Workload::RwRegister,
    };
    let opts = Opts {
        models: vec!["strict-serializable".into()],
        timeout: Duration::from_secs(60),
        wfr_keys: kind == Kind::Register,
        linearizable_keys: kind == Kind::Register,
        ..Opts::default()
    };
    let report = adya::check(&history, workload, &opts);
    let why: Vec<&str> = report.anomalies.values().flatten().map(|found| found.explanation.as_str()).collect();
    assert_eq!(report.valid, Valid::True, "{:?}\n{}", report.anomaly_types, why.join("\n"));
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

const ACCOUNTS: usize = 12;
const TOTAL: i64 = 1_200;

fn account(n: usize) -> String {
    format!("{}/{n}", char::from(b'a' + u8::try_from(n * 26 / ACCOUNTS).unwrap()))
}

async fn amount(txn: &Transaction, n: usize) -> Result<i64, Error> {
    Ok(txn.get(account(n)).await?.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap()))
}

async fn transfer(client: &Client, from: usize, to: usize) -> Result<(), Error> {
    client
        .transaction(|txn| async move {
            let (mine, theirs) = (amount(&txn, from).await?, amount(&txn, to).await?);
            let moved = 1 + (mine + theirs) % 5;
            if from != to && mine >= moved {
                txn.put(account(from), (mine - moved).to_string());
                txn.put(account(to), (theirs + moved).to_string());
            }
            Ok(())
        })
        .await
}

/// The total, by reading every account at one moment, and by a scan.
async fn totals(client: &Client) -> Result<[i64; 2], Error> {
    let number = |value: &[u8]| std::str::from_utf8(value).unwrap().parse::<i64>().unwrap();
    let accounts = (0..ACCOUNTS).map(|n| account(n).into()).collect();
    let got = client.batch_get(accounts, None).await?;
    let read = got.versions.iter().flatten().map(|version| number(&version.value)).sum();
    let rows = client.snapshot(None).scan(Interval::all(), false, 0).await?;
    Ok([read, rows.iter().map(|(_, value)| number(value)).sum()])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_never_makes_or_loses_money_in_any_snapshot() {
    let cluster = Cluster::builder().data_groups(3).set("txn.lock_ttl_ms", 1_000).start().await.unwrap();
    let client = cluster.client().await.unwrap();
    let fill = |txn: Transaction| async move {
        (0..ACCOUNTS).for_each(|n| txn.put(account(n), (TOTAL / ACCOUNTS as i64).to_string()));
        Ok::<_, Error>(())
    };
    client.transaction(fill).await.unwrap();
    let (stop, looks) = (CancellationToken::new(), AtomicUsize::new(0));
    let (moved, looks) = (&AtomicUsize::new(0), &looks);
    let movers = (0..6usize).map(|task| {
        let (client, stop) = (client.clone(), stop.clone());
        async move {
            for n in (task..).step_by(6) {
                if stop.is_cancelled() {
                    return;
                }
                match transfer(&client, n * 7 % ACCOUNTS, n * 5 % ACCOUNTS).await {
                    Ok(()) => drop(moved.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => assert!(error.is_unknown() || error.reason != Reason::Internal, "{error}"),
                }
            }
        }
    });
    let looking = async {
        while !stop.is_cancelled() {
            // A read that ends without an answer shows nothing.
            if let Ok(totals) = totals(&client).await {
                assert_eq!(totals, [TOTAL; 2]);
                looks.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let nemesis = async {
        let struck = strike(&cluster, &cluster.groups(), &FAULTS, 9, 60, || moved.load(Ordering::SeqCst)).await;
        stop.cancel();
        struck.unwrap();
    };
    tokio::join!(futures::future::join_all(movers), looking, nemesis);
    cluster.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(totals(&client).await.unwrap(), [TOTAL; 2]);
    assert!(looks.load(Ordering::SeqCst) > 20, "only {looks:?} looks");
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
