//! What becomes of locks that stand in the way.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_coordinator::txn::LockSweep;
use drover_hlc::Timestamp;
use drover_keys::{End, Interval};
use drover_kv::{
    Attempt, Error, Expectation, Mutation, Outcome, Reason, RollbackCause, TxnDecide, TxnId, TxnPrepare, TxnRef,
    TxnRollback, TxnStatus, TxnWrite, Update, WriteKind,
};
use drover_raftgroup::Group;
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_writers_settle_what_a_lost_coordinator_left_when_its_time_is_over() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let lost = fixture.prepare(7, start_ts, &["a", "z"]).await;
    // A read of a snapshot from before it does not care.
    assert_eq!(fixture.coordinator_value("z", start_ts).await, None);
    let (listed, _) = fixture.coordinator.prepared(Bytes::new(), 1_000, soon()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].lock.txn, listed[0].keys.len()), (lost, 2));
    assert!(matches!(listed[0].status, TxnStatus::Prepared { .. }));
    // Others wait, and end when their own time is over. Nothing has happened then.
    let shortly = Instant::now() + Duration::from_millis(100);
    let put = drover_wire::Request::Write {
        kind: WriteKind::Put { key: "z".into(), value: "put".into(), ttl_ms: None },
        options: drover_wire::WriteOptions::default(),
    };
    let error = fixture.coordinator.handle(put.clone(), shortly).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::Timeout, false), "{error}");
    let error = fixture.coordinator.resolve_txn(lost.id, false, soon()).await.unwrap_err();
    assert_eq!(error.reason, Reason::FailedPrecondition, "{error}");
    let conflict = fixture.commit(request(8, start_ts, vec![set("b", ""), set("z", "")], &[])).await.unwrap_err();
    assert_eq!(conflict.reason, Reason::TxnConflict, "{conflict}");
    fixture.clock.advance(TTL);
    fixture.coordinator.handle(put, soon()).await.unwrap();
    assert_eq!(fixture.coordinator_value("z", fixture.now().await).await.unwrap(), "put");
    assert_eq!(fixture.coordinator_value("a", fixture.now().await).await, None);
    assert_eq!(fixture.status(7, "a").await, TxnStatus::RolledBack { through: lost.attempt });
    fixture.unlocked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_tended_and_settled_by_hand_through_the_same_protocol() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    fixture.prepare(7, start_ts, &["a", "z"]).await;
    let forced = fixture.coordinator.resolve_txn(TxnId([7; 16]), true, soon()).await.unwrap();
    assert!(matches!(forced, TxnStatus::RolledBack { .. }));
    fixture.prepare(8, start_ts, &["a", "z"]).await;
    fixture.clock.advance(TTL);
    for group in fixture.groups.values() {
        fixture.coordinator.tend_locks(group, &mut LockSweep::default(), soon()).await.unwrap();
    }
    fixture.unlocked().await;
    assert!(matches!(fixture.status(8, "a").await, TxnStatus::RolledBack { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_meets_the_lock_of_an_earlier_transaction_is_a_conflict_at_once() {
    let fixture = Fixture::new().await;
    let earlier = fixture.now().await;
    let holder = fixture.prepare(7, earlier, &["a"]).await;
    let start_ts = fixture.now().await;
    // Waiting would take all the time that the caller allows: the holder does nothing more.
    let error = fixture.commit(request(8, start_ts, vec![set("z", "1")], &["a"])).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
    assert!(error.message.contains(&holder.id.to_string()), "{error}");
    assert!(matches!(fixture.outcome(8, "z").await, TxnStatus::RolledBack { .. }));
    assert_eq!(fixture.value_at("z", fixture.now().await).await.unwrap(), None);
    assert!(matches!(fixture.status(7, "a").await, TxnStatus::Prepared { .. }), "the holder is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_waits_for_the_lock_of_a_later_transaction_and_sees_what_it_commits() {
    let fixture = Fixture::new().await;
    // The holder gets its commit timestamp before the one that waits, or after it, or is rolled back.
    for (id, before, committed) in [(10, true, true), (20, false, true), (30, false, false)] {
        let start_ts = fixture.now().await;
        let later = fixture.now().await;
        let holder = fixture.prepare(id, later, &["a"]).await;
        let first = fixture.now().await;
        let mut counted = fixture.counting();
        let (coordinator, commit) =
            (Arc::clone(&fixture.coordinator), request(id + 1, start_ts, vec![set("z", "1")], &["a"]));
        let mut waiting = tokio::spawn(async move { coordinator.commit(commit, soon()).await });
        // It asks for its commit timestamp, and then, whenever it meets the lock, for what time it is.
        let early = tokio::select! {
            counted = counted.wait_for(|count| *count >= 2) => counted.map(|_| None).unwrap(),
            ended = &mut waiting => Some(ended.unwrap()),
        };
        *fixture.clock.hook.lock() = None;
        let holder_ts = if before { first } else { fixture.now().await };
        match committed {
            true => fixture.decide(holder, later, &["a"], holder_ts).await,
            false => {
                let rollback =
                    TxnRollback { txn: holder, start_ts: later, primary: "a".into(), cause: RollbackCause::Asked };
                let kind = WriteKind::Txn(Box::new(TxnWrite::Rollback(rollback)));
                assert_eq!(write(&fixture.groups[&LEFT], kind).await, Ok(Outcome::TxnRolledBack));
            }
        }
        let ended = match early {
            Some(ended) => ended,
            None => waiting.await.unwrap(),
        };
        match (before, ended) {
            (true, ended) => {
                let error = ended.expect_err("what it has read was changed below its commit timestamp");
                assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
            }
            (false, ended) => assert!(ended.unwrap() < holder_ts, "{id}"),
        }
        fixture.unlocked().await;
    }
}

/// Each kind of write to "a", and what "a" is after it, if the transaction in front of it has set it to "prepared".
fn writes_to_a() -> [(drover_wire::Request, Option<&'static str>); 5] {
    use drover_wire::{Request, WriteOptions};
    let put = |value: &'static str| Update::Put { value: value.into(), ttl_ms: None };
    let one = |kind| Request::Write { kind, options: WriteOptions::default() };
    let cas = |expect, value| one(WriteKind::CompareAndSet { key: "a".into(), expect, update: put(value) });
    let range = Interval::new("a", End::Key("b".into())).unwrap();
    [
        (one(WriteKind::Put { key: "a".into(), value: "put".into(), ttl_ms: None }), Some("put")),
        (one(WriteKind::Delete { key: "a".into() }), None),
        (cas(Expectation::Value("prepared".into()), "met"), Some("met")),
        (cas(Expectation::Absent, "not met"), Some("prepared")),
        (Request::DeleteRange { interval: range, cursor: None, options: WriteOptions::default() }, None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_single_keys_wait_for_a_foreign_lock_and_are_not_pending_meanwhile() {
    let fixture = Fixture::new().await;
    for (id, (kind, expect)) in (10..).zip(writes_to_a()) {
        let start_ts = fixture.now().await;
        let holder = fixture.prepare(id, start_ts, &["a"]).await;
        // Until their own time is over, and then nothing has happened. No timestamp was asked for.
        let (shortly, asked) = (Instant::now() + Duration::from_millis(50), *fixture.clock.asked.borrow());
        let error = fixture.coordinator.handle(kind.clone(), shortly).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::Timeout, false), "{kind:?}: {error}");
        assert_eq!(*fixture.clock.asked.borrow(), asked, "{kind:?}");
        let mut counted = fixture.counting();
        let (coordinator, waiting) = (Arc::clone(&fixture.coordinator), kind.clone());
        let waiting = tokio::spawn(async move { coordinator.handle(waiting, soon()).await });
        // It was turned away, and asks what time it is because of the lock.
        counted.wait_for(|count| *count >= 1).await.unwrap();
        *fixture.clock.hook.lock() = None;
        assert_eq!(fixture.group("a").leadership().unwrap().pending.len(), 0, "{kind:?}");
        assert!(!waiting.is_finished(), "{kind:?}");
        let commit_ts = fixture.now().await;
        fixture.decide(holder, start_ts, &["a"], commit_ts).await;
        waiting.await.unwrap().unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(fixture.value_at("a", commit_ts).await.unwrap().unwrap(), "prepared", "{kind:?}");
        let after = fixture.value_at("a", fixture.now().await).await.unwrap();
        assert_eq!(after.as_deref(), expect.map(str::as_bytes), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_one_entry_holds_no_locks_and_waits_for_those_of_others() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let holder = fixture.prepare(7, start_ts, &["a"]).await;
    let shortly = Instant::now() + Duration::from_millis(50);
    let blind = |id| request(id, start_ts, vec![set("a", "blind"), set("b", "blind")], &[]);
    let error = fixture.coordinator.commit(blind(8), shortly).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::Timeout, false), "{error}");
    let mut counted = fixture.counting();
    let (coordinator, waiting) = (Arc::clone(&fixture.coordinator), blind(9));
    let waiting = tokio::spawn(async move { coordinator.commit(waiting, soon()).await });
    counted.wait_for(|count| *count >= 1).await.unwrap();
    *fixture.clock.hook.lock() = None;
    let commit_ts = fixture.now().await;
    fixture.decide(holder, start_ts, &["a"], commit_ts).await;
    let blind_ts = waiting.await.unwrap().unwrap();
    assert!(blind_ts > commit_ts);
    assert_eq!(fixture.value_at("a", fixture.now().await).await.unwrap().unwrap(), "blind");
    let again = blind(9);
    let start_ts = fixture.now().await;
    let holder = fixture.prepare(10, start_ts, &["a"]).await;
    assert_eq!(fixture.commit(again).await, Ok(blind_ts), "its outcome is recorded, whatever is locked by now");
    // One that has read the key waits as well, for nothing.
    let mut counted = fixture.counting();
    let (coordinator, waiting) =
        (Arc::clone(&fixture.coordinator), request(11, start_ts, vec![set("b", "lost")], &["a"]));
    let waiting = tokio::spawn(async move { coordinator.commit(waiting, soon()).await });
    counted.wait_for(|count| *count >= 1).await.unwrap();
    *fixture.clock.hook.lock() = None;
    fixture.decide(holder, start_ts, &["a"], fixture.now().await).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_remembers_while_it_waits_is_less_than_what_a_commit_does() {
    let fixture = Fixture::new().await;
    let put = drover_wire::Request::Write {
        kind: WriteKind::Put { key: "a".into(), value: "1".into(), ttl_ms: None },
        options: drover_wire::WriteOptions::default(),
    };
    let start_ts = fixture.now().await;
    let commit = fixture.coordinator.commit(request(1, start_ts, vec![set("a", "1")], &[]), soon());
    let put = fixture.coordinator.handle(put, soon());
    let (put, commit) = (size_of_val(&put), size_of_val(&commit));
    assert!(put < commit, "{put} bytes, {commit} for a commit");
}

/// Keys on both sides, `each` on either, those of the left group first.
fn keys_on_both_sides(each: usize) -> [Vec<Bytes>; 2] {
    ["a", "z"].map(|side| (0..each).map(|n| format!("{side}{n:06}").into()).collect())
}

impl Fixture {
    /// As [`Fixture::prepare`], with many keys by one entry for each group; the first key is the primary.
    async fn prepare_many(&self, id: u8, start_ts: Timestamp, keys: &[Vec<Bytes>; 2]) -> TxnRef {
        let txn = TxnRef { id: TxnId([id; 16]), attempt: Attempt { number: 1, coordinator: 1 } };
        for (group, keys_there) in [LEFT, RIGHT].into_iter().zip(keys) {
            let update = || Update::Put { value: "prepared".into(), ttl_ms: None };
            let prepare = TxnPrepare {
                txn,
                start_ts,
                primary: keys[0][0].clone(),
                fingerprint: 0,
                ttl_ms: u64::try_from(TTL.as_millis()).unwrap(),
                supersedes: false,
                mutations: keys_there.iter().map(|key| Mutation { key: key.clone(), update: update() }).collect(),
            };
            write(&self.groups[&group], WriteKind::Txn(Box::new(TxnWrite::Prepare(prepare)))).await.unwrap();
        }
        txn
    }

    /// How many locks there are, and how many entries have been applied.
    fn locks_and_entries(&self) -> (u64, u64) {
        let of = |group: &Arc<Group>| {
            let index = group.fsm().applied_log_id().borrow().unwrap().index;
            (group.fsm().state().locks, index)
        };
        self.groups.values().map(of).fold((0, 0), |sum, (locks, index)| (sum.0 + locks, sum.1 + index))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_locks_of_a_lost_coordinator_are_cleared_in_one_round_by_few_entries() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let keys = keys_on_both_sides(5_000);
    let lost = fixture.prepare_many(7, start_ts, &keys).await;
    let (locks, before) = fixture.locks_and_entries();
    assert_eq!(locks, 10_000);
    fixture.clock.advance(TTL);
    for group in fixture.groups.values() {
        fixture.coordinator.tend_locks(group, &mut LockSweep::default(), soon()).await.unwrap();
    }
    let (locks, after) = fixture.locks_and_entries();
    assert_eq!(locks, 0);
    // A thousand keys by each entry, and the rollback of the primary, which takes its own lock away.
    assert_eq!(after - before, 11);
    let primary = std::str::from_utf8(&keys[0][0]).unwrap().to_owned().leak();
    assert_eq!(fixture.status(7, primary).await, TxnStatus::RolledBack { through: lost.attempt });
    let rows = all_rows(&fixture).await.unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_locks_of_a_committed_transaction_become_versions_by_few_entries() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let keys = keys_on_both_sides(2_500);
    let txn = fixture.prepare_many(7, start_ts, &keys).await;
    let commit_ts = fixture.now().await;
    // Its coordinator is lost behind the commit point: the locks elsewhere are left, and so are the keys in the record.
    let (keys, remote) = (keys[0].clone(), keys[1].clone());
    let decide = TxnDecide { txn, start_ts, commit_ts, fingerprint: 0, keys, remote };
    write(&fixture.groups[&LEFT], WriteKind::Txn(Box::new(TxnWrite::Decide(decide)))).await.unwrap();
    let (locks, before) = fixture.locks_and_entries();
    assert_eq!(locks, 2_500);
    fixture.clock.advance(TTL);
    let right = &fixture.groups[&RIGHT];
    fixture.coordinator.tend_locks(right, &mut LockSweep::default(), soon()).await.unwrap();
    let (locks, after) = fixture.locks_and_entries();
    assert_eq!((locks, after - before), (0, 3));
    assert_eq!(all_rows(&fixture).await.unwrap(), 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_in_either_direction_clears_thousands_of_locks_that_it_meets_by_few_entries() {
    for reverse in [false, true] {
        let fixture = Fixture::new().await;
        let start_ts = fixture.now().await;
        let keys = keys_on_both_sides(2_500);
        fixture.prepare_many(7, start_ts, &keys).await;
        let (_, before) = fixture.locks_and_entries();
        fixture.clock.advance(TTL);
        assert_eq!(rows_of_scan(&fixture, reverse).await.unwrap(), 0);
        let (locks, after) = fixture.locks_and_entries();
        assert_eq!(locks, 0);
        // On each side one alone, and the others by thousands; the rollback.
        assert!(after - before <= 9, "{} entries, reverse: {reverse}", after - before);
    }
}

/// How many rows a scan shows.
async fn rows_of_scan(fixture: &Fixture, reverse: bool) -> Result<u64, Error> {
    let scan = drover_wire::ScanPageRequest {
        interval: Interval::all(),
        reverse,
        keys_only: false,
        count_only: true,
        limits: drover_kv::ScanLimits::default(),
        cursor: None,
        options: drover_wire::ReadOptions::default(),
    };
    match fixture.coordinator.handle(drover_wire::Request::Scan(scan), soon()).await? {
        drover_coordinator::Answer::Scan { count, cursor: None, .. } => Ok(count),
        other => panic!("{other:?}"),
    }
}

async fn all_rows(fixture: &Fixture) -> Result<u64, Error> {
    rows_of_scan(fixture, false).await
}
