//! openraft's own suite for log stores, with a state machine in memory beside it.

#![allow(clippy::unwrap_used)]

mod common;

use std::io;
use std::sync::Arc;

use common::{ENGINES, open, small};
use drover_keys::GroupId;
use drover_raftlog::{EngineKind, GroupLog, NodeLog};
use drover_rafttypes::{ApplyReply, LogId, Payload, SnapshotMeta, StoredMembership, TypeConfig};
use futures::{Stream, TryStreamExt};
use openraft::StorageError;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;

#[derive(Debug, Clone, Default)]
struct MemoryState {
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Shared with the builders.
    snapshot: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for MemoryState {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, ()>, io::Error> {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        *self.snapshot.lock() = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for MemoryState {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let Payload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(ApplyReply::None);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        *self.snapshot.lock() = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, ()>>, io::Error> {
        Ok(self.snapshot.lock().clone().map(|meta| Snapshot { meta, snapshot: () }))
    }
}

struct Builder(EngineKind);

impl StoreBuilder<TypeConfig, GroupLog, MemoryState, (NodeLog, tempfile::TempDir)> for Builder {
    async fn build(&self) -> Result<((NodeLog, tempfile::TempDir), GroupLog, MemoryState), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path(), &small(self.0)).unwrap();
        let log = node.group(GroupId(1));
        Ok(((node, dir), log, MemoryState::default()))
    }
}

#[tokio::test]
async fn openrafts_suite_passes_on_each_engine() {
    for engine in ENGINES {
        Suite::test_all(Builder(engine)).await.unwrap();
    }
}
