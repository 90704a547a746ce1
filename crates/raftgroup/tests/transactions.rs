//! Steps of transactions in the write pipeline, and their reads through the door, over the real log and state machine.

#![allow(clippy::unwrap_used)]

mod support;

use drover_hlc::Timestamp;
use drover_kv::{
    Attempt, Error, Mutation, Outcome, ReadAnswer, ReadOp, ReadSet, Reason, RefreshRequest, TxnCommit, TxnId, TxnRef,
    TxnWrite, Update, WriteKind,
};
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
