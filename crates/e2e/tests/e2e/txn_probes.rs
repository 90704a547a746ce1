//! What strict serializability means to single clients, looked for directly, while leaders and coordinators are killed, crash
//! and are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use drover_client::{Client, NodeId};
use drover_testkit::Cluster;
use drover_testkit::check::{counted_once, no_long_fork, own_writes_are_read};
use drover_testkit::cluster::PATIENCE;
use drover_testkit::ledger::Fate;
use drover_testkit::nemesis::{Fault, strike};
use drover_testkit::workload::{AdditionReport, Additions, Door, PairCount, Pairs, Sessions};
use drover_wire::proto::v1::txn_client::TxnClient;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

const FAULTS: [Fault; 6] = [
    Fault::KillLeader,
    Fault::LoseCoordinator,
    Fault::StopLeader,
    Fault::KillAny,
    Fault::StopAny,
    Fault::LoseCoordinator,
];

/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_secs(2);

async fn cluster() -> Cluster {
    Cluster::builder().data_groups(3).set("txn.lock_ttl_ms", 1_000).start().await.unwrap()
}

/// One client for each node, which sends nothing elsewhere.
async fn clients(cluster: &Cluster, deadline: Duration) -> Vec<(NodeId, Client)> {
    let mut clients = Vec::new();
    for node in cluster.nodes() {
        let only = Client::builder().endpoints([node.grpc_address()]).only_these_endpoints();
        clients.push((node.id(), only.deadline(deadline).connect().await.unwrap()));
    }
    clients
}

/// Strikes while something runs until `stop`, and makes progress of `progress` between the faults.
async fn while_struck<T>(
    cluster: &Cluster,
    seed: u64,
    progress: usize,
    successes: impl Fn() -> usize,
    stop: CancellationToken,
    running: impl Future<Output = T>,
) -> T {
    let nemesis = async {
        let struck = strike(cluster, &cluster.groups(), &FAULTS, seed, progress, successes).await;
        stop.cancel();
        struck.unwrap();
    };
    let (came_to, ()) = tokio::join!(running, nemesis);
    cluster.wait_ready(PATIENCE).await.unwrap();
    cluster.wait_unlocked(PATIENCE).await.unwrap();
    came_to
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writes_are_seen_in_one_order_by_all_readers() {
    let cluster = cluster().await;
    let of = async |deadline| clients(&cluster, deadline).await.into_iter().map(|(_, client)| client).collect();
    // A pair is over when all its readers are: those of a node that is stopped do not wait for long.
    let (writers, readers): (Vec<Client>, Vec<Client>) = (of(DEADLINE).await, of(Duration::from_millis(300)).await);
    let (count, stop) = (Arc::new(PairCount::default()), CancellationToken::new());
    // The two writers of a lane go through different nodes.
    let lanes = [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)];
    let lanes = lanes.map(|(x, y)| ([writers[x].clone(), writers[y].clone()], readers.clone())).into_iter();
    let running = Pairs.run(lanes.collect(), &count, &stop);
    let mut report = while_struck(&cluster, 21, 15, || count.done(), stop.clone(), running).await;
    Pairs.final_read(&cluster.client().await.unwrap(), &mut report).await.unwrap();
    eprintln!("{} pairs, {} one-sided looks of {}", report.written.len(), count.one_sided(), report.looks.len());
    assert!(count.one_sided() > 50, "only {} looks saw one write without the other", count.one_sided());
    no_long_fork(&report.looks).unwrap_or_else(|found| panic!("{found}"));
    let last = report.looks.iter().rev().zip(report.written.iter().rev());
    for (look, (pair, fates)) in last {
        assert_eq!(look.pair, *pair);
        for (seen, fate) in look.seen.into_iter().zip(fates) {
            let fine = match fate {
                Fate::Acknowledged => seen,
                Fate::Refused => !seen,
                Fate::Unknown => true,
            };
            assert!(fine, "pair {pair}: {fates:?}, {look:?}");
        }
    }
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wrote_through_one_node_reads_that_through_every_other() {
    let cluster = cluster().await;
    let (reads, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let sessions = Sessions { sessions: 6, seed: 22 };
    let running = sessions.run(clients(&cluster, DEADLINE).await, &reads, &stop);
    let done = || reads.load(Ordering::SeqCst);
    let mut events = while_struck(&cluster, 22, 150, done, stop.clone(), running).await;
    sessions.final_read(&cluster.client().await.unwrap(), &mut events).await.unwrap();
    eprintln!("{} reads", done());
    for session in &events {
        own_writes_are_read(session).unwrap_or_else(|found| panic!("{found}"));
    }
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_sent_again_and_again_through_any_node_counts_once() {
    let cluster = cluster().await;
    let doors = clients(&cluster, DEADLINE).await.into_iter().map(|(node, client)| {
        let address = format!("http://{}", cluster.node(node).grpc_address());
        let endpoint = Endpoint::from_shared(address).unwrap().connect_timeout(Duration::from_secs(1));
        Door { client, txn: TxnClient::new(endpoint.connect_lazy()) }
    });
    let (report, stop) = (Arc::new(AdditionReport::default()), CancellationToken::new());
    let additions = Additions { tasks: 6, seed: 23 };
    let running = additions.run(doors.collect(), &report, &stop);
    let tried = while_struck(&cluster, 23, 40, || report.acknowledged(), stop.clone(), running).await;
    let (acknowledged, repeated, open) = (report.acknowledged(), report.repeated(), report.open());
    let client = cluster.client().await.unwrap();
    let settled = additions.settle(&client, tried).await.unwrap();
    let of = |fate| settled.iter().filter(|addition| addition.fate == fate).count();
    eprintln!("{acknowledged} acknowledged, {repeated} answers to commits sent again, {open} open at first");
    eprintln!("in the end {} came through, {} did not", of(Fate::Acknowledged), of(Fate::Refused));
    assert!(repeated > 50 && open > 0, "{repeated} answers to commits sent again and {open} open ones show little");
    cluster.wait_unlocked(PATIENCE).await.unwrap();
    let (counters, marks) = additions.final_read(&client).await.unwrap();
    counted_once(&settled, &counters, &marks).unwrap_or_else(|found| panic!("{found}"));
    cluster.assert_replicas_equal().await.unwrap();
}
