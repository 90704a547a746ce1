//! The write pipeline and the read door over the real log and state machine.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use drover_fsm::Command;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::{
    Expectation, Outcome, ReadAnswer, ReadOp, Reason, ScanLimits, ScanRequest, Update, WriteKind, WriteOp,
};
use drover_raftgroup::Leadership;
use futures::FutureExt;
use openraft::impls::leader_id_std::LeaderId;
use support::{Fixture, observed, put, reason, soon, waits};

type Read = Result<(Option<String>, Option<Timestamp>), drover_kv::Error>;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_pending_writes_is_read_without_a_timestamp() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    fixture.put("a", "1").await.unwrap();
    let asked = fixture.script.asked();
    assert_eq!(fixture.get("a", None).await.unwrap(), (Some("1".to_owned()), None));
    assert_eq!(fixture.get("b", None).await.unwrap(), (None, None));
    assert_eq!(fixture.script.asked(), asked);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h40_a_latest_read_waits_for_the_write_that_was_pending_when_it_arrived() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    fixture.put("a", "old").await.unwrap();
    fixture.script.hold();
    let asked = fixture.script.asked();
    let mut write = Box::pin(fixture.put("a", "new"));
    assert!(write.as_mut().now_or_never().is_none());
    fixture.script.asked_since(asked).await;
    // The write is registered and has no timestamp yet. A read of its key waits; a read of another key does not.
    let mut read = Box::pin(fixture.get("a", None));
    assert!(waits(&fixture, &mut read, "b").await);
    fixture.script.release();
    let (written, seen): (_, Read) = tokio::join!(write, read);
    assert_eq!(seen.unwrap().0.as_deref(), Some("new"));
    written.unwrap();
    fixture.close().await;
}

/// What is written while it waits may be younger than what it waits for. At the timestamp of its own it sees all below it.
#[tokio::test(flavor = "multi_thread")]
async fn h50_a_latest_read_that_waited_is_made_at_a_fresh_timestamp() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    fixture.put("a", "old").await.unwrap();
    assert_eq!(fixture.get("a", None).await.unwrap().1, None, "one that does not wait needs none");
    fixture.script.hold();
    let asked = fixture.script.asked();
    let mut write = Box::pin(fixture.put("a", "new"));
    assert!(write.as_mut().now_or_never().is_none());
    fixture.script.asked_since(asked).await;
    let mut read = Box::pin(fixture.get("a", None));
    assert!(waits(&fixture, &mut read, "b").await);
    fixture.script.release();
    let (written, seen): (_, Read) = tokio::join!(write, read);
    let (value, at) = seen.unwrap();
    assert_eq!(value.as_deref(), Some("new"));
    assert!(at.is_some_and(|at| at > written.unwrap()), "{at:?}");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h28_a_snapshot_read_waits_while_a_pending_write_may_come_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let first = fixture.put("a", "old").await.unwrap();
    fixture.script.hold();
    let asked = fixture.script.asked();
    let mut write = Box::pin(fixture.put("a", "new"));
    assert!(write.as_mut().now_or_never().is_none());
    fixture.script.asked_since(asked).await;
    let at = first.raw() + 100;
    let mut read = Box::pin(fixture.get("a", Some(at)));
    assert!(waits(&fixture, &mut read, "b").await);
    fixture.script.release();
    let (written, seen): (_, Read) = tokio::join!(write, read);
    assert!(written.unwrap().raw() < at);
    assert_eq!(seen.unwrap().0.as_deref(), Some("new"));
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_waits_for_pending_writes_of_its_interval_only() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    fixture.put("a", "1").await.unwrap();
    let scan = |interval: Interval| {
        ReadOp::Scan(ScanRequest {
            interval,
            read_ts: Timestamp::from_raw(1_000),
            reverse: false,
            keys_only: false,
            count_only: false,
            limits: ScanLimits::default(),
        })
    };
    fixture.script.hold();
    let asked = fixture.script.asked();
    let mut write = Box::pin(fixture.put("m", "2"));
    assert!(write.as_mut().now_or_never().is_none());
    fixture.script.asked_since(asked).await;
    let left = Interval::new("a", drover_keys::End::Key("m".into())).unwrap();
    let ReadAnswer::Scan(page) = fixture.group.read(scan(left), observed(), soon()).await.unwrap() else { panic!() };
    assert_eq!(page.count, 1);
    let mut whole = Box::pin(fixture.group.read(scan(Interval::all()), observed(), soon()));
    assert!(waits(&fixture, &mut whole, "b").await);
    fixture.script.release();
    let (written, page) = tokio::join!(write, whole);
    written.unwrap();
    let ReadAnswer::Scan(page) = page.unwrap() else { panic!() };
    assert_eq!(page.count, 2);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h39_entries_stand_in_the_log_in_timestamp_order_even_if_the_answers_do_not_come_so() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    // The second entry is offered a timestamp below that of the first and has to ask again.
    fixture.script.list([1_000, 500, 2_000]);
    let first = fixture.put("a", "1").await.unwrap();
    let second = fixture.put("a", "2").await.unwrap();
    assert_eq!((first.raw(), second.raw()), (1_000, 2_000));
    assert_eq!(fixture.get("a", None).await.unwrap().0.as_deref(), Some("2"));
    fixture.close().await;
}

/// A leadership that this replica never had, and whose end it would not notice.
fn another_leadership(fixture: &Fixture) -> std::sync::Arc<Leadership> {
    let term = fixture.group.leadership().unwrap().term;
    Leadership::begin(LeaderId { term: term + 1, voted_for: 1 })
}

#[tokio::test(flavor = "multi_thread")]
async fn h28_a_proposal_of_another_leadership_is_not_appended() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let other = another_leadership(&fixture);
    let command = Command::AdvanceRecordHorizon(Timestamp::from_raw(1)).encode(other.term).unwrap();
    let error = fixture.group.propose(&other, command, soon()).await.unwrap_err();
    assert_eq!(reason(&error), (Reason::NotLeader, false));
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h28_a_proof_of_another_leadership_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let error = fixture.group.prove_leadership(&another_leadership(&fixture), soon()).await.unwrap_err();
    assert_eq!(reason(&error), (Reason::NotLeader, false));
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h52_a_write_that_times_out_before_it_is_proposed_never_applies_and_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    fixture.put("a", "old").await.unwrap();
    fixture.script.hold();
    let op = WriteOp { kind: put("a", "new"), observed_version: observed(), idempotency: None };
    let error = fixture.group.write(op, Instant::now() + Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(reason(&error), (Reason::Timeout, false));
    fixture.script.release();
    assert_eq!(fixture.get("a", None).await.unwrap().0.as_deref(), Some("old"));
    assert_eq!(fixture.group.leadership().unwrap().pending.len(), 0);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h52_a_caller_that_goes_away_leaves_its_key_pending_until_the_write_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    fixture.script.hold();
    let asked = fixture.script.asked();
    let mut write = Box::pin(fixture.put("a", "new"));
    assert!(write.as_mut().now_or_never().is_none());
    fixture.script.asked_since(asked).await;
    drop(write);
    assert_eq!(fixture.group.leadership().unwrap().pending.len(), 1);
    let mut read = Box::pin(fixture.get("a", None));
    assert!(futures::poll!(&mut read).is_pending());
    fixture.script.release();
    assert_eq!(read.await.unwrap().0.as_deref(), Some("new"), "it was queued, so it is carried out");
    assert_eq!(fixture.group.leadership().unwrap().pending.len(), 0);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writes_at_once_share_entries_and_each_gets_its_own_answer() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let before = fixture.group.stats().snapshot();
    let keys: Vec<String> = (0..500).map(|i| format!("k{i:03}")).collect();
    let writes = keys.iter().map(|key| fixture.put(key, key));
    let stamps = futures::future::try_join_all(writes).await.unwrap();
    let after = fixture.group.stats().snapshot();
    assert_eq!(after.operations - before.operations, 500);
    assert!(after.entries - before.entries < 500, "{after:?}");
    let mut unique = stamps.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 500);
    for (key, stamp) in keys.iter().zip(stamps) {
        let ReadAnswer::LatestCommitTs(found) =
            fixture.group.read(ReadOp::LatestCommitTs { key: key.clone().into() }, observed(), soon()).await.unwrap()
        else {
            panic!()
        };
        assert_eq!(found, Some(stamp));
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_with_an_expiry_is_read_at_a_fresh_timestamp() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let kind = WriteKind::Put { key: "a".into(), value: "1".into(), ttl_ms: Some(1) };
    fixture.write(kind, None).await.unwrap();
    let (value, at) = fixture.get("a", None).await.unwrap();
    assert_eq!(value.as_deref(), Some("1"));
    assert!(at.is_some());
    // Timestamps of this source count in steps of the logical half: a millisecond is 65,536 of them.
    fixture.script.list([5 << 16]);
    assert_eq!(fixture.get("a", None).await.unwrap(), (None, Some(Timestamp::from_raw(5 << 16))));
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h44_a_retry_gets_the_first_answer_also_after_a_restart_and_a_settled_key_never_applies() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let cas = || WriteKind::CompareAndSet {
        key: "a".into(),
        expect: Expectation::Absent,
        update: Update::Put { value: "1".into(), ttl_ms: None },
    };
    let first = fixture.write(cas(), Some("i1")).await.unwrap();
    assert!(matches!(first, Outcome::Written { .. }));
    assert_eq!(fixture.write(cas(), Some("i1")).await.unwrap(), first);
    let settled = fixture.write(WriteKind::Settle { key: "a".into() }, Some("i2")).await.unwrap();
    assert_eq!(settled, Outcome::Settled);
    fixture.close().await;

    let fixture = Fixture::open(dir.path()).await;
    fixture.script.list([1 << 20, 1 << 21, 1 << 22, 1 << 23]);
    assert_eq!(fixture.write(cas(), Some("i1")).await.unwrap(), first);
    assert_eq!(fixture.write(WriteKind::Settle { key: "a".into() }, Some("i1")).await.unwrap(), first);
    let error = fixture.write(put("a", "late"), Some("i2")).await.unwrap_err();
    assert_eq!(reason(&error), (Reason::IdempotencySettled, false));
    assert_eq!(fixture.get("a", None).await.unwrap().0.as_deref(), Some("1"));
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_a_request_that_was_routed_by_no_map_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let op = WriteOp { kind: put("a", "1"), observed_version: None, idempotency: None };
    let error = fixture.group.write(op, soon()).await.unwrap_err();
    assert_eq!(reason(&error), (Reason::StaleRoute, false));
    let read = ReadOp::Get { key: "a".into(), read_ts: None };
    let error = fixture.group.read(read, None, soon()).await.unwrap_err();
    assert_eq!(reason(&error), (Reason::StaleRoute, false));
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_delete_is_cut_into_bounded_batches() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    for batch in 0..3 {
        let writes = (0..500).map(|i| {
            let key = format!("k{:04}", batch * 500 + i);
            let fixture = &fixture;
            async move { fixture.put(&key, "v").await }
        });
        futures::future::try_join_all(writes).await.unwrap();
    }
    let mut rest = Some(Interval::all());
    let (mut deleted_keys, mut batches) = (0, 0);
    while let Some(interval) = rest.take() {
        let kind = WriteKind::DeleteRange { interval, resume: None };
        let Outcome::RangeDeleted { deleted, resume, .. } = fixture.write(kind, None).await.unwrap() else { panic!() };
        assert!(deleted <= fixture.group.options().delete_range_keys);
        deleted_keys += deleted;
        batches += 1;
        rest = resume.map(|next| Interval::new(next, drover_keys::End::Unbounded).unwrap());
    }
    assert_eq!((deleted_keys, batches), (1_500, 2));
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_its_log_and_votes_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    fixture.put("a", "1").await.unwrap();
    fixture.group.fsm().flush().await.unwrap();
    fixture.close().await;
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let error = Fixture::try_open(dir.path()).await.err().expect("its votes are gone");
    assert!(error.to_string().contains("Raft log of this replica is missing"), "{error}");
}

/// Whoever still holds on to it must not go on asking a Raft task that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_stopped_leads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    fixture.put("k", "v").await.unwrap();
    let leadership = fixture.group.leadership().unwrap();
    fixture.group.shutdown().await;
    assert!(leadership.over.is_cancelled() && !fixture.group.is_leader());
    assert_eq!(reason(&fixture.group.leadership().unwrap_err()), (Reason::NotLeader, false));
    fixture.close().await;
}

/// Whoever waits holds on to the store, which could not be removed.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_digest_that_is_never_taken_is_told_when_the_replica_stops() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let mut digest = Box::pin(fixture.group.digest(1_000_000, Instant::now() + Duration::from_secs(3_600)));
    assert!(digest.as_mut().now_or_never().is_none());
    fixture.group.shutdown().await;
    assert_eq!(reason(&digest.await.unwrap_err()), (Reason::ReplicaStopped, false));
    fixture.close().await;
}
