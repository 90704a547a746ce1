//! Steps of transactions in the write pipeline, and their reads through the door, over the real log and state machine.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use drover_fsm::{Command, TimedWrite, ValidationLimits};
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{End, Interval};
use drover_kv::{
    Attempt, Error, Mutation, Outcome, ReadAnswer, ReadOp, ReadSet, Reason, RefreshRequest, TxnCommit, TxnId, TxnRef,
    TxnWrite, Update, WriteKind,
};
use drover_raftgroup::GroupOptions;
use futures::FutureExt;
use support::{Fixture, observed, reason, soon, waits};

/// Writes `keys` in one entry, if `read` are as they were at `start_ts`.
fn commit(id: u8, start_ts: Timestamp, keys: &[&str], read: &[&str]) -> WriteKind {
    let set = |key: &&str| Mutation {
        key: (*key).to_owned().into(),
        update: Update::Put { value: "committed".into(), ttl_ms: None },
    };
    WriteKind::Txn(Box::new(TxnWrite::Commit(TxnCommit {
        txn: TxnRef { id: TxnId([id; 16]), attempt: Attempt { number: 1, coordinator: 0 } },
        start_ts,
        mutations: keys.iter().map(set).collect(),
        reads: reads(read),
    })))
}

fn reads(keys: &[&str]) -> ReadSet {
    ReadSet { keys: keys.iter().map(|key| (*key).to_owned().into()).collect(), intervals: Vec::new() }
}

async fn committed(fixture: &Fixture, kind: WriteKind) -> Result<Timestamp, Error> {
    fixture.write(kind, None).await.map(|outcome| match outcome {
        Outcome::TxnCommitted { commit_ts } => commit_ts,
        other => panic!("a commit was answered with {other:?}"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn h28_a_refresh_waits_for_a_write_that_may_come_below_the_commit_timestamp() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let start_ts = fixture.put("a", "read").await.unwrap();
    fixture.script.hold();
    let asked = fixture.script.asked();
    let mut write = Box::pin(fixture.put("a", "changed"));
    assert!(write.as_mut().now_or_never().is_none());
    fixture.script.asked_since(asked).await;
    // The write is registered and has no timestamp yet: it may get one below that of the transaction.
    let commit_ts = Timestamp::from_raw(start_ts.raw() + 100);
    let refresh = RefreshRequest { id: TxnId([1; 16]), start_ts, commit_ts, reads: reads(&["a"]) };
    let mut refreshed = Box::pin(fixture.group.read(ReadOp::Refresh(refresh), observed(), soon()));
    assert!(waits(&fixture, &mut refreshed, "b").await);
    fixture.script.release();
    let (written, refreshed): (_, Result<ReadAnswer, Error>) = tokio::join!(write, refreshed);
    assert!(written.unwrap() < commit_ts);
    assert_eq!(reason(&refreshed.unwrap_err()), (Reason::TxnConflict, false));
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h40_a_latest_read_waits_for_the_transaction_that_was_pending_when_it_arrived() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let start_ts = fixture.put("a", "old").await.unwrap();
    fixture.script.hold();
    let asked = fixture.script.asked();
    let mut write = Box::pin(committed(&fixture, commit(1, start_ts, &["z", "a"], &["c"])));
    assert!(write.as_mut().now_or_never().is_none());
    fixture.script.asked_since(asked).await;
    // Each of its keys is pending, the primary and the others; what it has read is not.
    let (mut a, mut z) = (Box::pin(fixture.get("a", None)), Box::pin(fixture.get("z", None)));
    assert!(waits(&fixture, &mut a, "c").await);
    assert!(waits(&fixture, &mut z, "c").await);
    fixture.script.release();
    let (written, a, z) = tokio::join!(write, a, z);
    for seen in [a, z] {
        let (value, at) = seen.unwrap();
        assert_eq!(value.as_deref(), Some("committed"));
        assert!(at.unwrap() > *written.as_ref().unwrap(), "a read that waited goes on at a fresh timestamp");
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h39_what_a_transaction_has_read_is_not_written_below_it_in_front_of_it_or_behind() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let start_ts = fixture.put("a", "read").await.unwrap();
    // The write behind it is offered a timestamp below that of the transaction which has read its key, and has to ask again.
    fixture.script.list([1_000, 500, 2_000]);
    let commit_ts = committed(&fixture, commit(1, start_ts, &["b"], &["a"])).await.unwrap();
    let changed = fixture.put("a", "changed").await.unwrap();
    assert_eq!((commit_ts.raw(), changed.raw()), (1_000, 2_000));
    assert_eq!(fixture.get("a", Some(1_000)).await.unwrap().0.as_deref(), Some("read"));
    // The write in front of a transaction is seen by it, although the transaction was offered a timestamp below.
    fixture.script.list([3_000, 2_500, 4_000, 5_000]);
    fixture.put("c", "changed").await.unwrap();
    let blind = committed(&fixture, commit(2, changed, &["d"], &[])).await.unwrap();
    assert_eq!(blind.raw(), 4_000);
    let error = committed(&fixture, commit(3, changed, &["d"], &["c"])).await.unwrap_err();
    assert_eq!(reason(&error), (Reason::TxnConflict, false));
    fixture.close().await;
}

/// Waits until the log of the only replica ends at `index`.
async fn logged_up_to(fixture: &Fixture, index: u64) {
    let patience = soon().saturating_duration_since(Instant::now());
    let logged = fixture.group.raft().wait(Some(patience));
    logged.metrics(|metrics| metrics.last_log_index >= Some(index), "an entry in the log").await.unwrap();
}

fn txn_writes(command: Command) -> Vec<(TxnId, Timestamp)> {
    let Command::Write(writes) = command else { panic!("{command:?}") };
    let named = |TimedWrite { op, commit_ts }| match op.kind {
        WriteKind::Txn(step) => match *step {
            TxnWrite::Commit(commit) => (commit.txn.id, commit_ts),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    writes.into_iter().map(named).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn consecutive_commits_of_one_group_do_not_wait_for_each_others_fsync() {
    let dir = tempfile::tempdir().unwrap();
    let (fixture, gate) = Fixture::gated(dir.path()).await;
    let start_ts = fixture.put("a", "read").await.unwrap();
    let last = fixture.group.fsm().applied_log_id().borrow().unwrap().index;
    let closed = gate.close();
    let mut first = Box::pin(committed(&fixture, commit(1, start_ts, &["a"], &["a"])));
    assert!(first.as_mut().now_or_never().is_none());
    logged_up_to(&fixture, last + 1).await;
    // The first entry stands in front of its fsync.
    let passed = gate.stands().await;
    let asked = fixture.script.asked();
    let mut second = Box::pin(committed(&fixture, commit(2, start_ts, &["b"], &["c"])));
    assert!(second.as_mut().now_or_never().is_none());
    let asks = tokio::time::timeout_at(soon().into(), fixture.script.asked_since(asked));
    asks.await.expect("a commit waits for the fsync of another one before it asks for its timestamp");
    logged_up_to(&fixture, last + 2).await;
    // The second one is in the log, with its timestamp, and nothing has been written since.
    let logged: Vec<_> = fixture.logged_from(last + 1).await.into_iter().map(txn_writes).collect();
    let [first_logged, second_logged] = [1, 2].map(|id| TxnId([id; 16]));
    let timestamps: Vec<Timestamp> = logged.iter().map(|entry| entry[0].1).collect();
    assert_eq!(logged, [vec![(first_logged, timestamps[0])], vec![(second_logged, timestamps[1])]]);
    // Nor do many: each entry is as large as those before it together.
    let mut later = Vec::new();
    for entry in 2..4u32 {
        let size = 1 << (entry - 1);
        for _ in 0..size {
            let id = u8::try_from(3 + later.len()).unwrap();
            let mut commit = Box::pin(committed(&fixture, commit(id, start_ts, &["d"], &[])));
            assert!(commit.as_mut().now_or_never().is_none());
            later.push(commit);
        }
        logged_up_to(&fixture, last + 1 + u64::from(entry)).await;
    }
    assert_eq!(gate.passed(), passed);
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    drop(closed);
    let (first, second) = tokio::join!(first, second);
    assert_eq!([first.unwrap(), second.unwrap()], timestamps[..]);
    assert!(timestamps[0] < timestamps[1]);
    for (n, committed) in futures::future::join_all(later).await.into_iter().enumerate() {
        assert!(committed.unwrap() > timestamps[1], "{n}");
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_older_than_the_limit_is_refused_also_where_there_were_none_before() {
    let dir = tempfile::tempdir().unwrap();
    let options = GroupOptions {
        txn_max_age: Duration::from_secs(7),
        housekeeping_interval: Duration::from_millis(5),
        ..GroupOptions::default()
    };
    let fixture = Fixture::with(dir.path(), options).await;
    let second = |second: u64, logical| Timestamp::new(PhysicalMs::new(second * 1_000).unwrap(), logical);
    fixture.script.go_on_at(second(20, 0).raw());
    let mut applied = fixture.group.fsm().applied_log_id();
    while fixture.group.fsm().state().owned[0].txn_horizon < second(13, 0) {
        tokio::time::timeout_at(soon().into(), applied.changed()).await.expect("the horizon rises").unwrap();
    }
    let old = committed(&fixture, commit(1, second(13, 0), &["a"], &[])).await.unwrap_err();
    assert_eq!(reason(&old), (Reason::TxnTooOld, false), "{old}");
    assert_eq!(fixture.get("a", None).await.unwrap().0, None);
    // Of the same moment, but a little younger.
    committed(&fixture, commit(2, second(13, 1), &["a"], &[])).await.unwrap();
    fixture.close().await;
}

async fn deleted(fixture: &Fixture, key: String) -> Timestamp {
    match fixture.write(WriteKind::Delete { key: key.into() }, None).await.unwrap() {
        Outcome::Written { commit_ts } => commit_ts,
        other => panic!("a delete was answered with {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_keys_in_a_range_that_was_read_do_not_count_as_rows() {
    let dir = tempfile::tempdir().unwrap();
    let validation = ValidationLimits { max_rows: 3, max_keys: 10 };
    let fixture = Fixture::with(dir.path(), GroupOptions { validation, ..GroupOptions::default() }).await;
    let queue = Interval::new("q", End::Key("r".into())).unwrap();
    let mut last = Timestamp::ZERO;
    // What the first step would be of a transaction that writes here only, and the last one of any other.
    let both = |id: u8, start_ts: Timestamp| {
        let (fixture, queue) = (&fixture, queue.clone());
        async move {
            let reads = ReadSet { keys: Vec::new(), intervals: vec![queue] };
            let commit_ts = fixture.put("other", "asks what time it is").await.unwrap();
            let refresh = RefreshRequest { id: TxnId([id; 16]), start_ts, commit_ts, reads: reads.clone() };
            let refreshed = fixture.group.read(ReadOp::Refresh(refresh), observed(), soon()).await;
            let WriteKind::Txn(mut step) = commit(id, start_ts, &["i"], &[]) else { unreachable!() };
            let TxnWrite::Commit(one_entry) = step.as_mut() else { unreachable!() };
            one_entry.reads = reads;
            let committed = committed(fixture, WriteKind::Txn(step)).await;
            [refreshed.map(|_| ()), committed.map(|_| ())]
        }
    };
    for n in 0..6 {
        fixture.put(&format!("q{n}"), "job").await.unwrap();
        last = deleted(&fixture, format!("q{n}")).await;
    }
    assert_eq!(both(1, last).await, [Ok(()), Ok(())]);
    for n in 0..3 {
        last = fixture.put(&format!("q{n}"), "job").await.unwrap();
    }
    assert_eq!(both(2, last).await, [Ok(()), Ok(())]);
    last = fixture.put("q3", "job").await.unwrap();
    for refused in both(3, last).await {
        let error = refused.unwrap_err();
        assert_eq!(reason(&error), (Reason::BatchTooLarge, false));
        assert!(error.message.contains("more than 3 rows in one group"), "{error}");
    }
    // What has to be looked at has its own limit.
    for n in 3..11 {
        fixture.put(&format!("q{n:02}"), "job").await.unwrap();
        deleted(&fixture, format!("q{n:02}")).await;
    }
    for n in 0..4 {
        last = deleted(&fixture, format!("q{n}")).await;
    }
    for refused in both(4, last).await {
        let error = refused.unwrap_err();
        assert_eq!(reason(&error), (Reason::BatchTooLarge, false));
        assert!(error.message.contains("more than 10 keys in one group, deleted and expired ones included"), "{error}");
    }
    fixture.close().await;
}
