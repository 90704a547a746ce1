use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use drover_rafttypes::{Entry, TypeConfig, Vote};
use drover_seams::blocking;
use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::RaftLogReader;

use crate::error::LogError;
use crate::group_state::GroupCell;
use crate::node_log::Shared;
use crate::stats::add;

/// Reads one group's log and vote. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GroupLogReader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cell: Arc<GroupCell>,
}

/// What one look at a group's state gives to a read.
enum Step {
    /// It has all it needs.
    Done,
    /// Entries have disappeared since it began.
    StartAgain,
    /// These are not in the cache.
    FromEngine(Range<u64>),
}

impl GroupLogReader {
    /// Entries of the log within `range`, no more once they weigh `max_bytes`, at least one if there are any. As of
    /// one moment: a purge or truncation while it reads makes it start again.
    pub(crate) async fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        self.shared.check()?;
        'again: loop {
            let (generation, range) = {
                let state = self.cell.state.lock();
                if state.removed {
                    return Err(LogError::Removed(self.cell.id));
                }
                let present = state.range();
                (state.generation, range.start.max(present.start)..range.end.min(present.end))
            };
            let mut entries = Vec::new();
            let mut bytes = 0;
            loop {
                match self.step(generation, &range, max_bytes, &mut bytes, &mut entries) {
                    Step::Done => return Ok(entries),
                    Step::StartAgain => continue 'again,
                    Step::FromEngine(missing) => {
                        let read = self.read_engine(missing, max_bytes - bytes).await;
                        if self.cell.state.lock().generation != generation {
                            continue 'again;
                        }
                        for entry in read? {
                            bytes += crate::record::weight(&entry);
                            entries.push(entry);
                        }
                    }
                }
            }
        }
    }

    fn step(
        &self,
        generation: u64,
        range: &Range<u64>,
        max_bytes: usize,
        bytes: &mut usize,
        entries: &mut Vec<Entry>,
    ) -> Step {
        let next = entries.last().map_or(range.start, |entry| entry.log_id.index + 1);
        if next >= range.end || *bytes >= max_bytes {
            return Step::Done;
        }
        let state = self.cell.state.lock();
        if state.generation != generation {
            return Step::StartAgain;
        }
        match state.cache.first_index() {
            Some(first) if first <= next => {
                *bytes += state.cache.copy(next, range.end, max_bytes - *bytes, entries);
                Step::Done
            }
            Some(first) => Step::FromEngine(next..first.min(range.end)),
            None => Step::FromEngine(next..range.end),
        }
    }

    async fn read_engine(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        let reader = self.clone();
        let read = move || reader.shared.engine.read(reader.cell.id, range, max_bytes);
        let entries = blocking::aside(read).await.map_err(|_| LogError::Closed)??;
        add(&self.shared.counters.engine_reads, entries.len() as u64);
        Ok(entries)
    }
}

/// `start..end` of any range.
fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for GroupLogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(bounds(&range), usize::MAX).await?)
    }

    /// Streams in pieces of [`crate::LogOptions::read_bytes`]: a log replayed at start need not fit into memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let pieces = futures::stream::try_unfold((self.clone(), bounds(&range)), |(reader, rest)| async move {
            let piece = reader.read(rest.clone(), reader.shared.options.read_bytes).await?;
            let Some(last) = piece.last() else { return Ok::<_, io::Error>(None) };
            let rest = last.log_id.index + 1..rest.end;
            Ok(Some((futures::stream::iter(piece.into_iter().map(Ok)), (reader, rest))))
        });
        Box::pin(futures::TryStreamExt::try_flatten(pieces))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.shared.check()?;
        Ok(self.cell.state.lock().vote)
    }

    /// Entries from `start` on, no more once they weigh [`crate::LogOptions::read_bytes`], at least one. Nothing if the
    /// entry at `start` is gone, which only a replication that has lost its leadership can meet: openraft sends a
    /// heartbeat then. The rest without it would be a hole in the follower's log, and an error would stop the group.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let mut entries = self.read(start..end, self.shared.options.read_bytes).await?;
        if entries.first().is_some_and(|first| first.log_id.index != start) {
            entries.clear();
        }
        Ok(entries)
    }
}
