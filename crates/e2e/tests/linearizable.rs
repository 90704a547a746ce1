//! What clients see is linearizable, and timestamps follow real time, while leaders are killed, stopped and replaced.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use drover_client::{Client, IdempotencyKeys, RetryPolicy};
use drover_keys::GroupId;
use drover_testkit::check::{linearizable, timestamps_follow_real_time};
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
    let recorder = Arc::new(Recorder::new());
    let stop = CancellationToken::new();
    let clients = clients(cluster).await;
    let nemesis = async {
        let struck = strike(cluster, groups, faults, workload.seed, 200, || recorder.answered()).await;
        stop.cancel();
        struck.unwrap();
    };
    tokio::join!(workload.run(clients, &recorder, &stop), nemesis);
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
