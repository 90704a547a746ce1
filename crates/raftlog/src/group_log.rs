use std::io;

use drover_keys::GroupId;
use drover_rafttypes::{Entry, LogId, TypeConfig, Vote};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use tokio::sync::oneshot;

use crate::error::LogError;
use crate::group_state::GroupState;
use crate::queue::{Request, Work};
use crate::reader::GroupLogReader;
use crate::record::Records;

/// One group's log and vote: openraft's log store.
///
/// Every method answers [`LogError`], wrapped in an [`io::Error`], once a write of any group has failed.
#[derive(Debug)]
pub struct GroupLog {
    reader: GroupLogReader,
}

impl GroupLog {
    pub(crate) fn new(reader: GroupLogReader) -> Self {
        Self { reader }
    }

    /// The group.
    pub fn id(&self) -> GroupId {
        self.reader.cell.id
    }

    /// Changes the state and queues what `change` makes of it, so that both happen in the same order.
    fn change(&self, change: impl FnOnce(&mut GroupState) -> Result<Option<Work>, LogError>) -> Result<(), LogError> {
        self.reader.shared.check()?;
        let mut state = self.reader.cell.state.lock();
        if state.removed {
            return Err(LogError::Removed(self.id()));
        }
        match change(&mut state)? {
            Some(work) => self.reader.shared.submit(Request { group: self.reader.cell.clone(), work }),
            None => Ok(()),
        }
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = GroupLogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.reader.shared.check()?;
        let state = self.reader.cell.state.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> GroupLogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, saved) = oneshot::channel();
        self.change(|_| Ok(Some(Work::Vote { vote: *vote, done })))?;
        Ok(self.reader.shared.outcome(saved).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.change(|state| {
            state.committed = committed;
            Ok(None)
        })?;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.reader.shared.check()?;
        Ok(self.reader.cell.state.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let records = Records::encode(&entries);
        let room = self.reader.shared.room(records.bytes()).await?;
        let last = entries.last().map(|entry| entry.log_id);
        self.change(|state| {
            let write = self.reader.shared.next_write();
            state.append(self.reader.cell.id, entries, write)?;
            Ok(Some(Work::Append { records, last, write, flushed, room }))
        })?;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.change(|state| {
            let changed = state.truncate_after(self.reader.cell.id, last)?;
            Ok(changed.then_some(Work::Truncate { last }))
        })?;
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.change(|state| Ok(state.purge(upto).then_some(Work::Purge { upto })))?;
        Ok(())
    }
}
