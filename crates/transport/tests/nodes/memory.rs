//! A log and a state machine in memory, just enough for a real Raft to run over the network under test.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use drover_rafttypes::{
    ApplyReply, Entry, LogId, Payload, SnapshotDir, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};
use drover_transport::Snapshot;
use futures::{Stream, TryStreamExt};
use openraft::LogState;
use openraft::storage::{
    EntryResponder, IOFlushed, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine,
};

#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
}

#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Log>>);

impl RaftLogReader<TypeConfig> for MemoryLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.0.lock().unwrap().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.lock().unwrap().vote)
    }
}

impl RaftLogStorage<TypeConfig> for MemoryLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.0.lock().unwrap();
        let last = log.entries.values().next_back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last.or(log.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.0.lock().unwrap().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        self.0.lock().unwrap().entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        flushed.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let keep = last.map_or(0, |last| last.index + 1);
        self.0.lock().unwrap().entries.retain(|index, _| *index < keep);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let mut log = self.0.lock().unwrap();
        log.entries.retain(|index, _| *index > upto.index);
        log.purged = Some(upto);
        Ok(())
    }
}

#[derive(Default)]
struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    commands: Vec<Bytes>,
    snapshots: u64,
}

/// Remembers the commands in the order in which they were applied.
#[derive(Clone)]
pub struct MemoryMachine {
    state: Arc<Mutex<State>>,
    dir: PathBuf,
}

impl MemoryMachine {
    pub fn new(dir: PathBuf) -> Self {
        Self { state: Arc::default(), dir }
    }

    pub fn commands(&self) -> Vec<Bytes> {
        self.state.lock().unwrap().commands.clone()
    }

    fn snapshot(&self) -> Snapshot {
        let mut state = self.state.lock().unwrap();
        state.snapshots += 1;
        let dir = self.dir.join(format!("snapshot-{}", state.snapshots));
        std::fs::create_dir_all(&dir).unwrap();
        let lines: Vec<u8> = state.commands.iter().flat_map(|c| [c.as_ref(), b"\n"].concat()).collect();
        std::fs::write(dir.join("commands"), lines).unwrap();
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        Snapshot { meta, snapshot: SnapshotDir::new(dir) }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for MemoryMachine {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(self.snapshot())
    }
}

impl RaftStateMachine<TypeConfig> for MemoryMachine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.state.lock().unwrap();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut state = self.state.lock().unwrap();
            state.applied = Some(entry.log_id);
            match entry.payload {
                Payload::Blank => {}
                Payload::Normal(command) => state.commands.push(command.0),
                Payload::Membership(membership) => {
                    state.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            drop(state);
            if let Some(responder) = responder {
                responder.send(ApplyReply::None);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotDir) -> Result<(), io::Error> {
        let lines = std::fs::read(snapshot.path().join("commands"))?;
        let mut commands: Vec<Bytes> = lines.split(|byte| *byte == b'\n').map(Bytes::copy_from_slice).collect();
        commands.pop();
        let mut state = self.state.lock().unwrap();
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.commands = commands;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let taken = self.state.lock().unwrap().applied.is_some();
        Ok(taken.then(|| self.snapshot()))
    }
}
