//! The oracle on a leader that is cut off from its group.

#![allow(clippy::unwrap_used)]

#[path = "../../raftgroup/tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_hlc::{ManualClock, PhysicalMs};
use drover_oracle::{Oracle, OracleCore, OracleOptions};
use drover_raftgroup::GroupOptions;
use support::cluster::{Cluster, patient};
use support::soon;
use tokio_util::sync::CancellationToken;

fn ms(ms: u64) -> PhysicalMs {
    PhysicalMs::new(ms).unwrap()
}

fn within(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// An oracle that has issued, on the leader; it runs until the token is cancelled.
async fn oracle(cluster: &Cluster, leader: u64) -> (Arc<Oracle>, Arc<ManualClock>, CancellationToken) {
    let clock = Arc::new(ManualClock::new(ms(10_000)));
    let oracle = Oracle::new(Arc::clone(cluster.group(leader)), clock.clone(), OracleOptions::default());
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&oracle).run(stop.clone()));
    assert_eq!(oracle.timestamps(1, soon()).await.unwrap().physical(), ms(10_000));
    (oracle, clock, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn h29_a_deposed_oracle_issues_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::found(dir.path(), 3, patient()).await;
    let [leader, a, b] = cluster.roles();
    let (oracle, _clock, stop) = oracle(&cluster, leader).await;
    cluster.cut(leader, a);
    cluster.cut(leader, b);
    cluster.elected(a, &[a, b], "k", "v").await;
    assert!(oracle.is_leader(), "it does not know yet");
    let issued = oracle.timestamps(1, within(100)).await;
    assert!(issued.is_err(), "{issued:?}");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn h29_a_ceiling_counts_once_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let options = GroupOptions { election_max_ms: 4_000, ..patient() };
    let cluster = Cluster::found(dir.path(), 3, options).await;
    let [leader, a, b] = cluster.roles();
    let (oracle, clock, stop) = oracle(&cluster, leader).await;
    // It still has its lease, and cannot commit any more.
    cluster.cut(leader, a);
    cluster.cut(leader, b);
    clock.set(ms(20_000));
    let committed = cluster.group(leader).fsm().state().oracle_ceiling.physical;
    for _ in 0..3 {
        if let Ok(first) = oracle.timestamps(OracleCore::MAX_COUNT, within(300)).await {
            assert!(first.physical() <= committed, "{first} is above the ceiling at {committed:?}");
        }
    }
    stop.cancel();
}
