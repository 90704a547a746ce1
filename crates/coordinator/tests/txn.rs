//! Transactions over two groups.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drover_coordinator::{Answer, Coordinator, CoordinatorOptions};
use drover_fsm::moving::MoveStep;
use drover_hlc::Timestamp;
use drover_keys::{End, GroupId, Interval};
use drover_kv::{ReadSet, Reason, TxnId, TxnStatus, WriteKind};
use drover_oracle::OracleClient;
use drover_raftgroup::{Group, GroupOptions};
use drover_wire::{CommitRequest, ReadOptions, Request};
use futures::FutureExt;
use parking_lot::Mutex;
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_changed_before_the_commit_timestamp_is_a_conflict() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    fixture.put("a", "changed").await.unwrap();
    let error = fixture.commit(request(1, start_ts, vec![set("z", "1")], &["a"])).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
    // With a snapshot from after the change, and once the lock of the first is gone, it comes through.
    fixture.unlocked().await;
    let start_ts = fixture.now().await;
    let commit_ts = fixture.commit(request(2, start_ts, vec![set("z", "1")], &["a"])).await.unwrap();
    assert_eq!(fixture.value_at("z", commit_ts).await.unwrap().unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_between_refresh_and_commit_timestamp_is_noticed() {
    let fixture = Fixture::new().await;
    fixture.put("a", "read").await.unwrap();
    let start_ts = fixture.now().await;
    // Whenever the coordinator is on its way to a timestamp that is already fixed.
    let left = fixture.group("a");
    fixture.on_timestamp(move |_| {
        let left = Arc::clone(&left);
        async move { put(&left, "a", "changed").await.map(|_| ()).unwrap() }.boxed()
    });
    let commit_ts = fixture.commit(request(1, start_ts, vec![set("z", "1")], &["a"])).await.unwrap();
    assert_eq!(fixture.value_at("z", commit_ts).await.unwrap().unwrap(), "1");
    assert_eq!(fixture.value_at("a", commit_ts).await.unwrap().unwrap(), "read", "it rests on what was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_read_while_locks_were_set_stays_as_it_was() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let (right, clock, seen) = (fixture.group("z"), Arc::clone(&fixture.clock), Arc::new(Mutex::new(Vec::new())));
    let notes = Arc::clone(&seen);
    fixture.on_timestamp(move |_| {
        let (right, clock, notes) = (Arc::clone(&right), Arc::clone(&clock), Arc::clone(&notes));
        async move {
            let at = clock.issue(1);
            let value = read(&right, "z", at).await;
            notes.lock().push((at, value));
        }
        .boxed()
    });
    fixture.commit(request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[])).await.unwrap();
    *fixture.clock.hook.lock() = None;
    // Not through the locks: they are versions by now.
    fixture.unlocked().await;
    let seen = std::mem::take(&mut *seen.lock());
    assert!(!seen.is_empty());
    for (at, before) in seen {
        match before {
            // A lock was in the way: nothing was served.
            Err(error) => assert_eq!(error.reason, Reason::Locked, "{error}"),
            Ok(before) => assert_eq!(fixture.coordinator_value("z", at).await, before, "at {at}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_answered_before_the_decision_is_in_the_log() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    // From the commit timestamp on the groups get none, so that nothing more gets into a log until they do.
    let clock = Arc::clone(&fixture.clock);
    fixture.on_timestamp(move |_| {
        clock.held.send_replace(true);
        std::future::ready(()).boxed()
    });
    let clock = Arc::clone(&fixture.clock);
    tokio::spawn(async move {
        clock.held.subscribe().wait_for(|held| *held).await.unwrap();
        let asked = *clock.asked.borrow();
        clock.asked.subscribe().wait_for(|now| *now > asked).await.unwrap();
        // Somebody who does not wait for the decision has answered long before this.
        tokio::time::sleep(Duration::from_millis(300)).await;
        clock.held.send_replace(false);
    });
    let commit_ts = fixture.commit(request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[])).await.unwrap();
    match fixture.status(1, "a").await {
        TxnStatus::Committed { commit_ts: recorded, .. } => assert_eq!(recorded, commit_ts),
        other => panic!("it was acknowledged, and is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_sent_again_gets_the_first_answer_whatever_has_changed_since() {
    let fixture = Fixture::new().await;
    for (id, mutations) in [(1, vec![set("a", "1")]), (2, vec![set("a", "2"), set("z", "2")])] {
        let start_ts = fixture.now().await;
        let request = request(id, start_ts, mutations, &["b"]);
        let commit_ts = fixture.commit(request.clone()).await.unwrap();
        fixture.put("b", "changed").await.unwrap();
        for number in [1, 2, 3] {
            let again = CommitRequest { number, ..request.clone() };
            assert_eq!(fixture.commit(again).await, Ok(commit_ts), "{id}, {number}");
        }
        let other = CommitRequest { mutations: vec![set("a", "other")], number: 2, ..request };
        let error = fixture.commit(other).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnReused, false), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_later_attempt_is_certain_because_the_earlier_ones_are_settled_first() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    fixture.put("a", "changed").await.unwrap();
    for (id, mutations) in [(1, vec![set("b", "1")]), (2, vec![set("b", "1"), set("z", "1")])] {
        let second = CommitRequest { number: 2, ..request(id, start_ts, mutations.clone(), &["a"]) };
        let error = fixture.commit(second).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
        // The first attempt arrives late.
        let error = fixture.commit(request(id, start_ts, mutations, &[])).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnAborted, false), "{error}");
    }
    assert_eq!(fixture.coordinator_value("b", fixture.now().await).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_takes_no_timestamp_that_was_issued_before_it_asked_for_one() {
    let fixture = Fixture::new().await;
    let network = Arc::new(OverNetwork(Arc::clone(&fixture.clock)));
    let options = CoordinatorOptions { txn_lock_ttl: TTL, ..CoordinatorOptions::default() };
    let dispatcher = Arc::clone(fixture.coordinator.dispatcher());
    let other = Arc::new(Coordinator::new(dispatcher, OracleClient::start(network), options));
    let start_ts = other.fresh(soon()).await.unwrap();
    // What is read here, elsewhere and later, must stay as it is.
    let at = fixture.now().await;
    assert_eq!(fixture.coordinator_value("z", at).await, None);
    let commit = request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[]);
    let commit_ts = other.commit(commit, soon()).await.unwrap();
    assert_eq!(fixture.coordinator_value("z", at).await, None, "read at {at}, committed at {commit_ts}");
    assert_eq!(fixture.coordinator_value("z", fixture.now().await).await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_has_expired_since_it_was_read_is_a_change_in_one_group_and_in_several() {
    let fixture = Fixture::new().await;
    let put = WriteKind::Put { key: "a".into(), value: "1".into(), ttl_ms: Some(1_000) };
    write(&fixture.groups[&LEFT], put).await.unwrap();
    let start_ts = fixture.now().await;
    assert_eq!(fixture.value_at("a", start_ts).await.unwrap().unwrap(), "1");
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.value_at("a", fixture.now().await).await.unwrap(), None);
    let scanned = ReadSet { keys: vec![], intervals: vec![Interval::new("a", End::Key("c".into())).unwrap()] };
    for (id, written) in [(1, "z"), (3, "b")] {
        for (id, read) in [(id, None), (id + 1, Some(scanned.clone()))] {
            let request = request(id, start_ts, vec![set(written, "1")], &["a"]);
            let reads = read.unwrap_or_else(|| request.reads.clone());
            let error = fixture.commit(CommitRequest { reads, ..request }).await.unwrap_err();
            assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{id}: {error}");
            fixture.unlocked().await;
        }
    }
    // It has expired before the snapshot: nothing has changed since.
    let start_ts = fixture.now().await;
    fixture.commit(request(5, start_ts, vec![set("z", "1")], &["a"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_at_the_deadline_is_settled_without_anybody_waiting_for_it() {
    let fixture = Fixture::new().await;
    for (id, mutations) in [(1, vec![set("a", "1")]), (2, vec![set("a", "1"), set("z", "1")])] {
        let start_ts = fixture.now().await;
        // An earlier attempt may have been committed; nothing gets into a log until after the deadline.
        fixture.clock.held.send_replace(true);
        let second = CommitRequest { number: 2, ..request(id, start_ts, mutations.clone(), &[]) };
        let shortly = Instant::now() + Duration::from_millis(100);
        let error = fixture.coordinator.commit(second, shortly).await.unwrap_err();
        assert!(error.is_unknown(), "{error}");
        assert!(error.message.contains(&TxnId([id; 16]).to_string()), "{error}");
        assert_eq!(fixture.status(id, "a").await, TxnStatus::Nothing);
        fixture.clock.held.send_replace(false);
        let outcome = fixture.outcome(id, "a").await;
        assert!(matches!(outcome, TxnStatus::RolledBack { .. }), "{outcome:?}");
        fixture.unlocked().await;
        // The earlier attempt arrives late.
        let error = fixture.commit(request(id, start_ts, mutations, &[])).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnAborted, false), "{error}");
        assert_eq!(fixture.coordinator_value("a", fixture.now().await).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_another_transaction_was_committed_under_is_refused_wherever_they_meet() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let commit_ts = fixture.commit(request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[])).await.unwrap();
    fixture.unlocked().await;
    let strangers = [
        ("the same primary, one group", vec![set("a", "2")]),
        ("the same primary, several groups", vec![set("a", "2"), set("y", "2")]),
        ("another primary, which the first one has written", vec![set("z", "2"), set("b", "2")]),
        ("another primary, and a key that the first one has written", vec![set("c", "2"), set("z", "2")]),
    ];
    for (case, mutations) in strangers {
        let start_ts = fixture.now().await;
        let error = fixture.commit(request(1, start_ts, mutations, &[])).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnReused, false), "{case}: {error}");
        fixture.unlocked().await;
    }
    for (key, expect) in [("a", Some("1")), ("z", Some("1")), ("b", None), ("c", None), ("y", None)] {
        let value = fixture.coordinator_value(key, fixture.now().await).await;
        assert_eq!(value.as_deref(), expect.map(str::as_bytes), "{key}");
    }
    assert_eq!(fixture.commit(request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[])).await, Ok(commit_ts));
}

#[tokio::test(flavor = "multi_thread")]
async fn h45_who_holds_locks_waits_for_no_fence() {
    let fixture = Fixture::new().await;
    let right = fixture.group("z");
    let interval = Interval::new("x", End::Unbounded).unwrap();
    move_step(&right, 1, MoveStep::ArmMigration { interval, target: GroupId(9) }).await;
    move_step(&right, 1, MoveStep::ApplyWriteFence).await;
    let (coordinator, start_ts) = (Arc::clone(&fixture.coordinator), fixture.now().await);
    let both = request(7, start_ts, vec![set("a", "both"), set("z", "both")], &[]);
    let committing = tokio::spawn(async move { coordinator.commit(both, soon()).await });
    // A fence on the left would be waiting for the lock on "a" now; so does a write.
    let put = drover_wire::Request::Write {
        kind: WriteKind::Put { key: "b".into(), value: "x".into(), ttl_ms: None },
        options: drover_wire::WriteOptions::default(),
    };
    fixture.coordinator.handle(put, soon()).await.unwrap();
    let mut applied = fixture.group("a").fsm().applied_log_id();
    let patience = Instant::now() + Duration::from_secs(10);
    for locked in [true, false, true, false] {
        let until = |group: &Group| (group.fsm().state().locks > 0) == locked;
        while !until(&fixture.group("a")) {
            tokio::time::timeout_at(patience.into(), applied.changed())
                .await
                .expect("the lock neither comes nor goes")
                .unwrap();
        }
    }
    assert!(!committing.is_finished(), "it is waiting for the fence without locks");
    move_step(&right, 2, MoveStep::Clear).await;
    let commit_ts = committing.await.unwrap().unwrap();
    fixture.unlocked().await;
    assert_eq!(fixture.value_at("z", commit_ts).await.unwrap().unwrap(), "both");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_takes_longer_than_its_locks_live_keeps_them_alive() {
    let ttl = Duration::from_millis(300);
    let options = CoordinatorOptions { txn_lock_ttl: ttl, ..CoordinatorOptions::default() };
    let fixture = Fixture::with(options, GroupOptions::default()).await;
    let start_ts = fixture.now().await;
    let (clock, coordinator) = (Arc::clone(&fixture.clock), Arc::clone(&fixture.coordinator));
    let (first, (waits, waiting)) = (AtomicBool::new(true), tokio::sync::oneshot::channel());
    let waits = Mutex::new(Some(waits));
    fixture.on_timestamp(move |_| {
        // Both locks stand; others ask for timestamps as well.
        if !first.swap(false, Ordering::SeqCst) {
            return std::future::ready(()).boxed();
        }
        let (clock, coordinator) = (Arc::clone(&clock), Arc::clone(&coordinator));
        let reader = Arc::clone(&coordinator);
        let get = Request::Get { key: "a".into(), options: ReadOptions::default() };
        let reading = tokio::spawn(async move { reader.handle(get, soon()).await });
        waits.lock().take().unwrap().send(reading).unwrap();
        async move {
            for _ in 0..6 {
                clock.advance(ttl / 2);
                let now = Timestamp::from_raw(clock.next.load(Ordering::SeqCst)).physical();
                let renewed = now.saturating_add_ms(u64::try_from(ttl.as_millis()).unwrap());
                let until = soon();
                loop {
                    match coordinator.txn_status(TxnId([1; 16]), &"a".into(), soon()).await.unwrap() {
                        TxnStatus::Prepared { expire_at, .. } if expire_at.physical() >= renewed => break,
                        status => assert!(Instant::now() < until, "half of its time is over, and it is {status:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
        .boxed()
    });
    let commit_ts = fixture.commit(request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[])).await.unwrap();
    match waiting.await.unwrap().await.unwrap().unwrap() {
        Answer::Get { version: Some(version), .. } => {
            assert_eq!((&version.value[..], version.commit_ts), (&b"1"[..], commit_ts))
        }
        other => panic!("{other:?}"),
    }
}
