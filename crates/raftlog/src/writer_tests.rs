//! What the writer promises, seen through an engine that can be held, watched and made to fail.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use drover_keys::GroupId;
use drover_rafttypes::{Entry, LogId, Payload, TypeConfig, Vote, decode_log_id};
use drover_wire::proto::storage::v1 as pb;
use futures::FutureExt;
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;
use parking_lot::{Condvar, Mutex};

use crate::engine::{self, Change, LogEngine, Recovered};
use crate::error::{LogError, Place};
use crate::group_log::GroupLog;
use crate::node_log::NodeLog;
use crate::options::LogOptions;

const G: GroupId = GroupId(1);

#[derive(Default)]
struct Control {
    held: Mutex<bool>,
    changed: Condvar,
    failure: Mutex<Option<LogError>>,
    batches: Mutex<Vec<Vec<(GroupId, Change)>>>,
}

impl Control {
    /// Lets no write go on until what it returns is dropped.
    fn hold(self: &Arc<Self>) -> Held {
        *self.held.lock() = true;
        Held(self.clone())
    }

    /// Waits until the writer has begun to write.
    fn wait_for_a_batch(&self) {
        let mut held = self.held.lock();
        while self.batches.lock().is_empty() {
            self.changed.wait(&mut held);
        }
    }

    fn fail_with(&self, error: io::Error) {
        *self.failure.lock() = Some(LogError::io(Place::default(), "write", error));
    }

    /// Names of the changes of each batch.
    fn written(&self) -> Vec<Vec<String>> {
        let name = |(group, change): &(GroupId, Change)| match change {
            Change::Append(records) => format!("{group}: append {}", records.len()),
            Change::Purge { through } => format!("{group}: purge {through}"),
            Change::Window(window) => format!("{group}: committed {:?}", window.committed.map(|id| id.index)),
            Change::Vote(vote) => format!("{group}: vote {}", vote.leader_id.term),
            Change::Remove => format!("{group}: remove"),
        };
        self.batches.lock().iter().map(|batch| batch.iter().map(name).collect()).collect()
    }
}

struct Held(Arc<Control>);

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.held.lock() = false;
        self.0.changed.notify_all();
    }
}

/// A real engine behind the controls.
struct Controlled {
    engine: Box<dyn LogEngine>,
    control: Arc<Control>,
}

impl LogEngine for Controlled {
    fn write(&self, changes: &[(GroupId, Change)]) -> Result<u64, LogError> {
        let mut held = self.control.held.lock();
        self.control.batches.lock().push(changes.to_vec());
        self.control.changed.notify_all();
        while *held {
            self.control.changed.wait(&mut held);
        }
        match self.control.failure.lock().clone() {
            Some(error) => Err(error),
            None => self.engine.write(changes),
        }
    }

    fn read(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        self.engine.read(group, range, max_bytes)
    }

    fn groups(&self) -> Result<Vec<GroupId>, LogError> {
        self.engine.groups()
    }

    fn recover(&self, group: GroupId) -> Result<Recovered, LogError> {
        self.engine.recover(group)
    }
}

fn open(dir: &Path, options: LogOptions) -> (NodeLog, Arc<Control>) {
    let control = Arc::new(Control::default());
    let engine = engine::open(&dir.join("log"), &options).unwrap();
    let controlled = Controlled { engine, control: control.clone() };
    (NodeLog::with_engine(Box::new(controlled), options).unwrap(), control)
}

fn log_id(index: u64) -> LogId {
    decode_log_id(&pb::LogId { term: 1, index })
}

fn blank(index: u64) -> Entry {
    Entry { log_id: log_id(index), payload: Payload::Blank }
}

fn vote(term: u64) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for: 1 }, committed: false }
}

async fn append(log: &mut GroupLog, index: u64) -> OneshotReceiverOf<TypeConfig, Result<(), io::Error>> {
    let (tx, rx) = TypeConfig::oneshot();
    log.append([blank(index)], IOFlushed::signal(tx)).await.unwrap();
    rx
}

/// Makes the writer stand in the middle of a write of an entry of a group of its own.
async fn occupy(node: &NodeLog, control: &Arc<Control>) -> Held {
    let holding = control.hold();
    drop(append(&mut node.group(GroupId(99)), 0).await);
    control.wait_for_a_batch();
    holding
}

fn cause(error: io::Error) -> LogError {
    *error.into_inner().unwrap().downcast::<LogError>().unwrap()
}

#[tokio::test]
async fn entries_are_readable_before_they_are_durable_and_reported_after() {
    let dir = tempfile::tempdir().unwrap();
    let (node, control) = open(dir.path(), LogOptions::default());
    let held = occupy(&node, &control).await;
    let mut log = node.group(G);
    let mut flushed = append(&mut log, 0).await;
    assert_eq!(log.get_log_reader().await.try_get_log_entries(..).await.unwrap(), [blank(0)]);
    assert!((&mut flushed).now_or_never().is_none(), "reported durable before it was written");
    drop(held);
    flushed.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_append_is_not_reported_while_it_is_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let (node, control) = open(dir.path(), LogOptions::default());
    let holding = control.hold();
    let mut log = node.group(G);
    let mut flushed = append(&mut log, 0).await;
    control.wait_for_a_batch();
    assert!((&mut flushed).now_or_never().is_none(), "reported durable before the fsync");
    drop(holding);
    flushed.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_gathers_during_a_write_shares_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (node, control) = open(dir.path(), LogOptions::default());
    let held = occupy(&node, &control).await;
    let mut flushed = Vec::new();
    for group in 1..=20 {
        flushed.push(append(&mut node.group(GroupId(group)), 0).await);
    }
    drop(held);
    for flushed in flushed {
        flushed.await.unwrap().unwrap();
    }
    let stats = node.stats();
    assert_eq!((stats.fsyncs, stats.appends), (2, 21));
}

#[tokio::test]
async fn votes_and_entries_are_written_in_the_order_in_which_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let (node, control) = open(dir.path(), LogOptions::default());
    let held = occupy(&node, &control).await;
    let mut log = node.group(G);
    let first = append(&mut log, 0).await;
    let mut voter = node.group(G);
    let voting = tokio::spawn(async move { voter.save_vote(&vote(5)).await });
    tokio::task::yield_now().await;
    let second = append(&mut log, 1).await;
    assert_eq!(log.get_log_reader().await.read_vote().await.unwrap(), None, "a vote is seen once it is durable");
    drop(held);
    voting.await.unwrap().unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(log.get_log_reader().await.read_vote().await.unwrap(), Some(vote(5)));
    assert_eq!(control.written()[1], ["1: append 1", "1: vote 5", "1: append 1", "1: committed None"]);
}

#[tokio::test]
async fn a_full_queue_makes_append_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (node, control) = open(dir.path(), LogOptions { queue_bytes: 10, ..LogOptions::default() });
    let held = occupy(&node, &control).await;
    let mut log = node.group(G);
    let mut waiting = Box::pin(append(&mut log, 0));
    assert!((&mut waiting).now_or_never().is_none());
    assert!(node.queued_bytes() > 0);
    drop(held);
    waiting.await.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_append_larger_than_the_queue_is_written_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path(), LogOptions { queue_bytes: 1, batch_bytes: 1, ..LogOptions::default() });
    node.group(G).blocking_append((0..9).map(blank)).await.unwrap();
    assert_eq!(node.stats().entries, 9);
}

#[tokio::test]
async fn committed_rides_on_the_next_append_once_the_written_log_reaches_it() {
    let dir = tempfile::tempdir().unwrap();
    let (node, control) = open(dir.path(), LogOptions { batch_bytes: 1, ..LogOptions::default() });
    let held = occupy(&node, &control).await;
    let mut log = node.group(G);
    let flushed = [append(&mut log, 0).await, append(&mut log, 1).await, append(&mut log, 2).await];
    log.save_committed(Some(log_id(1))).await.unwrap();
    drop(held);
    for flushed in flushed {
        flushed.await.unwrap().unwrap();
    }
    assert_eq!(
        control.written()[1..],
        [
            ["1: append 1", "1: committed None"],
            ["1: append 1", "1: committed Some(1)"],
            ["1: append 1", "1: committed Some(1)"]
        ]
    );
}

#[tokio::test]
async fn an_append_that_leaves_a_hole_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path(), LogOptions::default());
    let mut log = node.group(G);
    append(&mut log, 4).await.await.unwrap().unwrap();
    let error = log.append([blank(6)], IOFlushed::noop()).await.unwrap_err();
    assert!(matches!(cause(error), LogError::Hole { expected: 5, got: 6, .. }));
    let error = log.append([blank(5), blank(7)], IOFlushed::noop()).await.unwrap_err();
    assert!(matches!(cause(error), LogError::Hole { expected: 6, got: 7, .. }));
    append(&mut log, 5).await.await.unwrap().unwrap();
    assert_eq!(log.get_log_reader().await.try_get_log_entries(..).await.unwrap(), [blank(4), blank(5)]);
}

#[tokio::test]
async fn a_failed_write_stops_the_store_and_loses_nothing_that_was_durable() {
    for (failure, kind) in [
        (io::Error::from(io::ErrorKind::StorageFull), io::ErrorKind::StorageFull),
        (io::Error::other("fsync failed"), io::ErrorKind::Other),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (node, control) = open(dir.path(), LogOptions { batch_bytes: 1, ..LogOptions::default() });
        let mut log = node.group(G);
        append(&mut log, 0).await.await.unwrap().unwrap();
        log.save_vote(&vote(3)).await.unwrap();
        let held = control.hold();
        control.fail_with(failure);
        let writing = append(&mut log, 1).await;
        let queued = append(&mut log, 2).await;
        drop(held);
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("log of group 1"), "{error}");
        assert!(matches!(cause(queued.await.unwrap().unwrap_err()), LogError::Stopped(_)));

        assert!(matches!(cause(log.save_vote(&vote(4)).await.unwrap_err()), LogError::Stopped(_)));
        assert!(matches!(cause(log.get_log_state().await.unwrap_err()), LogError::Stopped(_)));
        assert!(matches!(cause(log.append([blank(3)], IOFlushed::noop()).await.unwrap_err()), LogError::Stopped(_)));
        assert!(node.failure().is_some());
        assert!(node.close().is_err());
        drop(log);

        let (node, _) = open(dir.path(), LogOptions::default());
        let mut log = node.group(G);
        assert_eq!(log.get_log_reader().await.try_get_log_entries(..).await.unwrap(), [blank(0)]);
        assert_eq!(log.get_log_reader().await.read_vote().await.unwrap(), Some(vote(3)));
    }
}

#[tokio::test]
async fn handles_of_a_removed_group_are_void_and_the_group_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path(), LogOptions::default());
    let mut old = node.group(G);
    append(&mut old, 0).await.await.unwrap().unwrap();
    old.save_vote(&vote(3)).await.unwrap();
    node.remove_group(G).await.unwrap();
    assert_eq!(node.groups(), []);
    assert!(matches!(cause(old.save_vote(&vote(4)).await.unwrap_err()), LogError::Removed(G)));
    let mut new = node.group(G);
    assert_eq!(new.get_log_reader().await.read_vote().await.unwrap(), None);
    append(&mut new, 7).await.await.unwrap().unwrap();
    assert_eq!(new.get_log_reader().await.try_get_log_entries(..).await.unwrap(), [blank(7)]);
}

#[tokio::test]
async fn closing_writes_what_is_queued_and_handles_say_so_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path(), LogOptions::default());
    let mut log = node.group(G);
    let flushed = append(&mut log, 0).await;
    node.close().unwrap();
    flushed.await.unwrap().unwrap();
    assert!(matches!(cause(log.save_vote(&vote(4)).await.unwrap_err()), LogError::Closed));
}

#[tokio::test]
async fn a_bounded_read_gives_nothing_rather_than_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path(), LogOptions { read_bytes: 1, ..LogOptions::default() });
    let mut log = node.group(G);
    log.blocking_append((0..5).map(blank)).await.unwrap();
    let mut reader = log.get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(1, 5).await.unwrap(), [blank(1)]);
    log.purge(log_id(2)).await.unwrap();
    assert_eq!(reader.limited_get_log_entries(1, 5).await.unwrap(), []);
    assert_eq!(reader.try_get_log_entries(1..5).await.unwrap(), [blank(3), blank(4)]);
}
