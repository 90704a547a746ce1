//! What clients see is linearizable, and timestamps follow real time, while leaders are killed, stopped and replaced.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drover_client::{Client, IdempotencyKeys, RetryPolicy, Timestamp};
use drover_keys::GroupId;
use drover_testkit::check::{linearizable, timestamps_follow_real_time};
use drover_testkit::cluster::{ClusterError, PATIENCE};
use drover_testkit::history::{Answer, Ending};
use drover_testkit::nemesis::{Fault, strike};
use drover_testkit::workload::{Mix, Registers};
use drover_testkit::{Cluster, History, Recorder};
use tokio_util::sync::CancellationToken;

const CHECK_BUDGET: Duration = Duration::from_secs(120);

/// One client for each node, which sends nothing elsewhere, and two that learn who leads and give up soon, so that
/// writes of unknown fate occur.
async fn clients(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in cluster.node_ids() {
        clients.push(cluster.client_of(node).await.unwrap());
    }
    let hasty = Client::builder().endpoints(cluster.endpoints()).idempotency_keys(IdempotencyKeys::Off);
    let hasty = hasty.deadline(Duration::from_millis(200)).retry(RetryPolicy::never());
    clients.push(hasty.clone().connect().await.unwrap());
    clients.push(hasty.connect().await.unwrap());
    clients
}

async fn record(cluster: &Cluster, workload: Registers, groups: &[GroupId], faults: &[Fault]) -> History {
    let (clients, seed) = (clients(cluster).await, workload.seed);
    let nemesis = async |recorder: &Recorder| strike(cluster, groups, faults, seed, 200, || recorder.answered()).await;
    record_while(cluster, workload, clients, nemesis).await
}

/// What the clients see until the nemesis has done its work.
async fn record_while(
    cluster: &Cluster,
    workload: Registers,
    clients: Vec<Client>,
    nemesis: impl AsyncFnOnce(&Recorder) -> Result<(), ClusterError>,
) -> History {
    let recorder = Arc::new(Recorder::new());
    let stop = CancellationToken::new();
    let nemesis = async {
        let struck = nemesis(&recorder).await;
        stop.cancel();
        struck.unwrap();
    };
    tokio::join!(workload.run(clients, &recorder, &stop), nemesis);
    cluster.wait_ready(PATIENCE).await.unwrap();
    workload.final_read(&cluster.client().await.unwrap(), &recorder).await.unwrap();
    let history = recorder.history();
    let tally = history.tally();
    eprintln!("{tally:?}");
    assert!(tally.answered > 500, "too few answers to show anything: {tally:?}");
    history.save(&cluster.dir().join("history.jsonl")).unwrap();
    history
}

/// Keys in all data groups.
fn keys() -> Vec<String> {
    ["b", "d", "k", "n", "t", "y"].map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_linearizable_while_leaders_are_killed() {
    let cluster = Cluster::builder().start().await.unwrap();
    let workload = Registers { keys: keys(), mix: Mix::default(), seed: 11 };
    let history = record(&cluster, workload, &cluster.groups(), &[Fault::KillLeader; 5]).await;
    linearizable(&history, CHECK_BUDGET).assert_correct();
    timestamps_follow_real_time(&history).assert_correct();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_stopped_and_replaced_serves_nothing_stale_when_it_goes_on() {
    let cluster = Cluster::builder().start().await.unwrap();
    let mix = Mix { read: 10, write: 4, delete: 0, cas: 0 };
    let workload = Registers { keys: keys(), mix, seed: 12 };
    let history = record(&cluster, workload, &cluster.data_groups(), &[Fault::StopLeader; 5]).await;
    linearizable(&history, CHECK_BUDGET).assert_correct();
    timestamps_follow_real_time(&history).assert_correct();
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_never_repeat_or_run_backwards_while_the_oracle_moves() {
    let cluster = Cluster::builder().start().await.unwrap();
    let workload = Registers { keys: keys(), mix: Mix { read: 0, write: 1, delete: 0, cas: 0 }, seed: 13 };
    let faults = [Fault::KillLeader, Fault::StopLeader, Fault::KillLeader, Fault::KillAll, Fault::StopLeader];
    let history = record(&cluster, workload, &[GroupId::DEFAULT], &faults).await;
    timestamps_follow_real_time(&history).assert_correct();
}

const HOUR_MS: i64 = 3_600_000;

/// The oracle moves between nodes whose clocks are hours ahead of and behind each other, to a cluster that is far ahead as
/// a whole, and to one that is far behind.
#[tokio::test(flavor = "multi_thread")]
async fn timestamps_never_repeat_or_run_backwards_while_the_oracle_moves_between_clocks_that_are_hours_apart() {
    let cluster = Cluster::builder().set("oracle.max_clock_step_ms", "6h").prepare().unwrap();
    let shift = |hours: [i64; 3]| {
        for (node, hours) in cluster.nodes().iter().zip(hours) {
            node.shift_clock(hours * HOUR_MS);
        }
    };
    shift([0, 2, -3]);
    cluster.start_all(PATIENCE).await.unwrap();
    // From its next start on, each node has the clock that stands beside the fault.
    let rounds = [
        (Fault::KillLeader, [4, -4, 3]),
        (Fault::KillLeader, [-5, 5, -2]),
        (Fault::StopLeader, [6, 1, -6]),
        (Fault::KillAll, [8, 7, 9]),
        (Fault::KillLeader, [-8, -7, -9]),
        (Fault::KillLeader, [-8, -7, -9]),
        (Fault::KillAll, [-8, -7, -9]),
    ];
    // A name of a write ends at a time that the client takes from its own clock, which is right.
    let mut clients = Vec::new();
    for node in cluster.nodes() {
        let client = Client::builder().endpoints([node.grpc_address()]).only_these_endpoints();
        clients.push(client.idempotency_keys(IdempotencyKeys::Off).connect().await.unwrap());
    }
    let workload = Registers { keys: keys(), mix: Mix { read: 0, write: 1, delete: 0, cas: 0 }, seed: 14 };
    let history = record_while(&cluster, workload, clients, async |recorder| {
        for (seed, (fault, hours)) in rounds.into_iter().enumerate() {
            shift(hours);
            strike(&cluster, &[GroupId::DEFAULT], &[fault], seed as u64, 200, || recorder.answered()).await?;
        }
        Ok(())
    })
    .await;
    timestamps_follow_real_time(&history).assert_correct();
    let issued = history.operations.iter().filter_map(|operation| match operation.ending() {
        Ending::Answered(Answer::Written { commit_ts }) => Some(Timestamp::from_raw(commit_ts).physical().unix_ms()),
        _ => None,
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ahead_ms = issued.max().unwrap().saturating_sub(u64::try_from(now.as_millis()).unwrap());
    assert!(ahead_ms > HOUR_MS.unsigned_abs(), "no clock that is ahead was ever used: {ahead_ms} ms");
}
