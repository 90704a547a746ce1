//! Leases and leaderships of three replicas, over links that are cut where it hurts.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use drover_catalog::{CatalogCommand, CatalogCommandKind, RequestId};
use drover_fsm::encode_catalog_command;
use drover_hlc::PhysicalMs;
use drover_kv::{Error, Reason};
use drover_raftgroup::{Group, GroupOptions};
use openraft::async_runtime::WatchReceiver;
use support::cluster::{Cluster, patient};
use support::{reason, soon};

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

/// Nobody sends heartbeats, so a lease that is over stays over.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_after_the_lease_asks_a_quorum_and_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (heartbeat_ms, election_min_ms, election_max_ms) = (20_000, 60_000, 61_000);
    let lease = ms(300);
    let lease_margin_ms = election_max_ms - 300;
    let options = GroupOptions { heartbeat_ms, election_min_ms, election_max_ms, lease_margin_ms, ..patient() };
    let cluster = Cluster::found(dir.path(), 3, options).await;
    let [leader, ..] = cluster.roles();
    cluster.put(leader, "k", "v").await.unwrap();
    cluster.caught_up(leader).await;
    tokio::time::sleep(lease + ms(50)).await;
    let before = cluster.delivered();
    assert_eq!(cluster.get(leader, "k", ms(5_000)).await.unwrap().as_deref(), Some("v"));
    assert!(cluster.delivered() > before, "it was served without asking anybody");
    cluster.close().await;
}

/// The lease is fresh by the clock that stood still, and the voters' promises may be long over.
#[tokio::test(flavor = "multi_thread")]
async fn h43_a_read_after_a_suspension_asks_a_quorum_although_the_lease_is_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let (heartbeat_ms, election_min_ms, election_max_ms) = (20_000, 60_000, 61_000);
    let options = GroupOptions { heartbeat_ms, election_min_ms, election_max_ms, lease_margin_ms: 1_000, ..patient() };
    let cluster = Cluster::found(dir.path(), 3, options).await;
    let [leader, a, b] = cluster.roles();
    cluster.put(leader, "k", "v").await.unwrap();
    cluster.caught_up(leader).await;
    let before = cluster.delivered();
    assert_eq!(cluster.get(leader, "k", ms(5_000)).await.unwrap().as_deref(), Some("v"));
    assert_eq!(cluster.delivered(), before, "the lease is fresh, so nobody is asked");

    cluster.suspend(ms(30_000));
    assert_eq!(cluster.get(leader, "k", ms(5_000)).await.unwrap().as_deref(), Some("v"));
    assert!(cluster.delivered() > before, "it was served without asking anybody");
    assert_eq!(cluster.group(leader).stats().snapshot().suspensions, 1);
    cluster.cut(leader, a);
    cluster.cut(leader, b);
    cluster.get(leader, "k", ms(100)).await.unwrap_err();
    cluster.close().await;
}

fn assert_not_leader(error: &Error) {
    assert_eq!(reason(error), (Reason::NotLeader, false), "{error}");
    assert!(error.is_transient(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_for_a_write_fails_definitely_when_the_leadership_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Arc::new(Cluster::found(dir.path(), 3, patient()).await);
    let [old, a, b] = cluster.roles();
    cluster.script.hold();
    let asked = cluster.script.asked();
    let writer = Arc::clone(&cluster);
    let write = tokio::spawn(async move { writer.put(old, "k", "late").await });
    cluster.script.asked_since(asked).await;
    let waited = cluster.group(old).stats().snapshot().waited_reads;
    let reader = Arc::clone(&cluster);
    let read = tokio::spawn(async move { reader.get(old, "k", ms(60_000)).await });
    while cluster.group(old).stats().snapshot().waited_reads == waited {
        tokio::time::sleep(ms(1)).await;
    }
    cluster.cut(old, a);
    cluster.cut(old, b);
    cluster.leads(a).await;
    assert!(!read.is_finished(), "nobody has told it yet that another one leads");
    cluster.heal();
    assert_not_leader(&read.await.unwrap().unwrap_err());
    assert_not_leader(&write.await.unwrap().unwrap_err());
    cluster.script.release();
    Arc::into_inner(cluster).unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_for_a_quorum_fails_definitely_when_the_leadership_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Arc::new(Cluster::found(dir.path(), 3, patient()).await);
    let [old, a, b] = cluster.roles();
    cluster.put(old, "k", "v").await.unwrap();
    cluster.cut(old, a);
    cluster.cut(old, b);
    tokio::time::sleep(ms(patient().election_max_ms)).await;
    let proofs = cluster.group(old).stats().snapshot().proofs;
    let reader = Arc::clone(&cluster);
    let read = tokio::spawn(async move { reader.get(old, "k", ms(60_000)).await });
    while cluster.group(old).stats().snapshot().proofs == proofs {
        tokio::time::sleep(ms(1)).await;
    }
    cluster.elected(a, &[a, b], "k", "new").await;
    cluster.heal();
    assert_not_leader(&read.await.unwrap().unwrap_err());
    Arc::into_inner(cluster).unwrap().close().await;
}

/// The command is stamped with the term it was admitted in, and the same replica leads again by the time it is proposed.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_command_of_an_earlier_leadership_is_refused_definitely_and_may_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Arc::new(Cluster::found(dir.path(), 3, patient()).await);
    let [old, a, b] = cluster.roles();
    let term = cluster.group(old).leadership().unwrap().term;
    cluster.script.hold();
    let asked = cluster.script.asked();
    let group = Arc::clone(cluster.group(old));
    let command = CatalogCommand {
        request_id: RequestId([1; 16]),
        actor: "test".to_owned(),
        now: PhysicalMs::default(),
        kind: CatalogCommandKind::Freeze,
    };
    let command = encode_catalog_command(&command).unwrap();
    let answer = tokio::spawn(async move { group.catalog(command, soon()).await });
    cluster.script.asked_since(asked).await;
    cluster.cut(old, a);
    cluster.cut(old, b);
    cluster.leads(a).await;
    cluster.heal();
    let mut applied = cluster.group(old).fsm().applied_log_id();
    applied.wait_for(|applied| applied.is_some_and(|log_id| *log_id.leader_id > term)).await.unwrap();
    cluster.cut(a, old);
    cluster.cut(a, b);
    cluster.leads(old).await;
    cluster.script.release();
    assert_not_leader(&answer.await.unwrap().unwrap_err());
    assert!(cluster.group(old).leadership().unwrap().term > term);
    Arc::into_inner(cluster).unwrap().close().await;
}
