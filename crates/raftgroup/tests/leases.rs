//! Leases and leaderships of three replicas, over links that are cut where it hurts.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use drover_kv::Reason;
use drover_raftgroup::{Group, GroupOptions};
use openraft::async_runtime::WatchReceiver;
use support::cluster::{Cluster, patient};
use support::reason;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The lease of the leader rests on one voter alone, since the promise of the other has run out. That one restarts, fast
/// enough to be back before the lease is over, and the leader is cut off: if it votes now, there are two servers.
#[tokio::test(flavor = "multi_thread")]
async fn h43_a_voter_that_restarts_does_not_break_the_lease_it_gave() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::found(dir.path(), 3, patient()).await;
    let [old, voter, other] = cluster.roles();
    cluster.put(old, "k", "old").await.unwrap();
    cluster.caught_up(old).await;
    cluster.cut(old, other);
    tokio::time::sleep(ms(patient().election_max_ms + 50)).await;
    assert_eq!(cluster.get(old, "k", ms(500)).await.unwrap().as_deref(), Some("old"), "one voter is a quorum with it");

    cluster.stop(voter).await;
    cluster.cut(old, voter);
    cluster.start(voter).await;
    cluster.elected(other, &[other, voter], "k", "new").await;
    let mut stale = 0;
    for _ in 0..100 {
        stale += u32::from(cluster.get(old, "k", ms(5)).await.is_ok());
    }
    assert_eq!(stale, 0, "stale reads, of 100");
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h43_an_isolated_leader_stops_serving_before_its_voters_are_free() {
    let dir = tempfile::tempdir().unwrap();
    let options = GroupOptions { election_max_ms: 3_000, lease_margin_ms: 2_000, ..patient() };
    let cluster = Cluster::found(dir.path(), 3, options).await;
    let [leader, a, b] = cluster.roles();
    cluster.put(leader, "k", "v").await.unwrap();
    assert_eq!(cluster.get(leader, "k", ms(500)).await.unwrap().as_deref(), Some("v"));
    cluster.cut(leader, a);
    cluster.cut(leader, b);
    // 3,000 ms for the voters, 1,000 for the leader.
    tokio::time::sleep(ms(1_100)).await;
    cluster.get(leader, "k", ms(50)).await.unwrap_err();
    cluster.close().await;
}

/// The term in which a replica leads for the first time since it started. Meanwhile its Raft must not go on in the term of
/// `before`.
async fn first_term(group: &Group, before: u64) -> u64 {
    let first = group.led();
    tokio::pin!(first);
    loop {
        let (term, leads) = {
            let metrics = group.raft().server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote.leader_id.term, metrics.state.is_leader())
        };
        assert!(!leads || term > before, "it goes on in term {term}");
        if let Ok(leadership) = tokio::time::timeout(ms(2), &mut first).await {
            return leadership.term;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h43_a_leader_that_restarts_wins_a_new_term_before_it_leads() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::found(dir.path(), 1, GroupOptions::default()).await;
    let before = cluster.group(1).leadership().unwrap().term;
    cluster.stop(1).await;
    cluster.start(1).await;
    let term = first_term(cluster.group(1), before).await;
    assert!(term > before, "it takes itself for the leader of term {term}");
    cluster.close().await;
}

/// A new leader starts with nothing pending, so nobody waits for the keys any more; in the leadership that they were
/// registered in they are never let go.
#[tokio::test(flavor = "multi_thread")]
async fn h52_the_keys_of_a_write_whose_outcome_is_unknown_stay_pending() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Arc::new(Cluster::found(dir.path(), 3, patient()).await);
    let [leader, a, b] = cluster.roles();
    let leadership = cluster.group(leader).leadership().unwrap();
    cluster.cut(leader, a);
    cluster.cut(leader, b);
    let entries = cluster.group(leader).stats().snapshot().entries;
    let writer = Arc::clone(&cluster);
    let write = tokio::spawn(async move { writer.put(leader, "k", "lost").await });
    while cluster.group(leader).stats().snapshot().entries == entries {
        tokio::time::sleep(ms(1)).await;
    }
    cluster.elected(a, &[a, b], "k", "new").await;
    cluster.heal();
    let error = write.await.unwrap().unwrap_err();
    assert_eq!(reason(&error), (Reason::TimeoutIndefinite, true));
    assert_eq!(leadership.pending.len(), 1);
    drop(leadership);
    Arc::into_inner(cluster).unwrap().close().await;
}
