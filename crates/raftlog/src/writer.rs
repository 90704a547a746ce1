//! The thread that writes: everything the queue holds becomes one batch, one write, one fsync. In a simulation it is a task.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_guards::{self as guards, Guard};
use drover_keys::GroupId;
use drover_rafttypes::{LogId, TypeConfig, Vote};
use openraft::storage::IOFlushed;
use tokio::sync::OwnedSemaphorePermit;

use crate::engine::Change;
use crate::error::LogError;
use crate::group_state::GroupCell;
use crate::node_log::Shared;
use crate::queue::{Done, Request, Work};
use crate::record::Window;
use crate::stats::add;

/// What is done for a request once its batch is durable.
enum Then {
    Flushed { write: u64, flushed: IOFlushed<TypeConfig>, entries: usize, bytes: usize, _room: OwnedSemaphorePermit },
    Voted { vote: Vote, done: Done },
    Removed { done: Done },
}

/// A batch in the making.
#[derive(Default)]
struct Batch {
    changes: Vec<(GroupId, Change)>,
    then: Vec<(Arc<GroupCell>, Then)>,
    /// Groups whose window is to be written, in the order of their first request.
    touched: Vec<Arc<GroupCell>>,
    requests: usize,
}

/// How long a simulated disk takes for a batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delay {
    /// Until the batch is durable. A crash before loses it.
    pub durable: Duration,
    /// From then until the writer is told. A crash before loses nothing, but nobody has been told.
    pub reported: Duration,
}

/// Says how long a simulated disk takes for the next batch.
pub type Pace = Box<dyn FnMut() -> Delay + Send>;

/// The writer's own state: the windows as they are on disk.
pub struct Writer {
    shared: Arc<Shared>,
    windows: HashMap<GroupId, Window>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, windows: HashMap<GroupId, Window>) -> Self {
        Self { shared, windows }
    }

    /// Writes until the queue is closed and empty, or a write fails.
    pub fn run(mut self) {
        while let Some(requests) = self.shared.queue.take(self.shared.options.batch_bytes) {
            let mut batch = self.gather(requests);
            let Ok(written_bytes) = self.store(&mut batch) else { return };
            self.complete(batch.then);
            self.shared.wake_reclaimer(written_bytes);
        }
        self.write_committed();
    }

    /// As [`Writer::run`], as a task, on a disk that takes as long as `pace` says.
    pub async fn run_paced(mut self, mut pace: Pace) {
        while let Some(requests) = self.shared.queue.taken(self.shared.options.batch_bytes).await {
            let (mut batch, delay) = (self.gather(requests), pace());
            tokio::time::sleep(delay.durable).await;
            if self.store(&mut batch).is_err() {
                return;
            }
            tokio::time::sleep(delay.reported).await;
            self.complete(batch.then);
        }
    }

    /// Makes a batch of requests.
    fn gather(&mut self, requests: Vec<Request>) -> Batch {
        let mut batch = Batch { requests: requests.len(), ..Batch::default() };
        for Request { group, work } in requests {
            self.add(&mut batch, group, work);
        }
        for group in std::mem::take(&mut batch.touched) {
            self.add_window(&mut batch, &group);
        }
        if !guards::on(Guard::ReportedWhenDurable) {
            self.complete(std::mem::take(&mut batch.then));
        }
        batch
    }

    /// Makes a batch durable; the bytes that were written. If it cannot be, everybody who waits for it has been told.
    fn store(&self, batch: &mut Batch) -> Result<u64, ()> {
        let started = Instant::now();
        match self.shared.engine.write(&batch.changes) {
            Ok(written_bytes) => {
                self.shared.counters.batch(batch.requests, written_bytes, started.elapsed());
                Ok(written_bytes)
            }
            Err(error) => {
                let error = self.shared.stop(error);
                for (group, then) in std::mem::take(&mut batch.then) {
                    then.fail(&group, &error);
                }
                Err(())
            }
        }
    }

    fn add(&mut self, batch: &mut Batch, group: Arc<GroupCell>, work: Work) {
        let window = self.windows.entry(group.id).or_default();
        match work {
            Work::Append { records, last, write, flushed, room } => {
                let (entries, bytes) = (records.len(), records.bytes());
                if last.is_some() {
                    if window.is_empty() {
                        window.first = records.first();
                    }
                    window.last = last;
                    batch.changes.push((group.id, Change::Append(records)));
                    batch.touch(&group);
                }
                let then = Then::Flushed { write, flushed, entries, bytes, _room: room };
                batch.then.push((group, then));
            }
            Work::Truncate { last } if guards::on(Guard::TruncatedStaysGone) => {
                window.last = last;
                batch.touch(&group);
            }
            Work::Truncate { .. } => {}
            Work::Purge { upto } => {
                window.purged = Some(upto);
                window.first = upto.index + 1;
                window.last = window.last.filter(|last| last.index > upto.index).or(Some(upto));
                batch.changes.push((group.id, Change::Purge { through: upto.index }));
                batch.touch(&group);
            }
            Work::Vote { vote, done } => {
                batch.changes.push((group.id, Change::Vote(vote)));
                batch.then.push((group, Then::Voted { vote, done }));
            }
            Work::Remove { done } => {
                self.windows.remove(&group.id);
                batch.touched.retain(|touched| touched.id != group.id);
                batch.changes.push((group.id, Change::Remove));
                batch.then.push((group, Then::Removed { done }));
            }
        }
    }

    /// The window of a group as of the end of the batch. What is committed goes along if the log then reaches it.
    fn add_window(&mut self, batch: &mut Batch, group: &GroupCell) {
        let window = self.windows.entry(group.id).or_default();
        let committed = group.state.lock().committed;
        if reaches(window.last, committed) {
            window.committed = committed;
        }
        batch.changes.push((group.id, Change::Window(*window)));
    }

    fn complete(&self, then: Vec<(Arc<GroupCell>, Then)>) {
        let counters = &self.shared.counters;
        for (group, then) in then {
            match then {
                Then::Flushed { write, flushed, entries, bytes, _room } => {
                    group.state.lock().cache.written(write);
                    add(&counters.appends, 1);
                    add(&counters.entries, entries as u64);
                    add(&counters.entry_bytes, bytes as u64);
                    flushed.io_completed(Ok(()));
                }
                Then::Voted { vote, done } => {
                    group.state.lock().vote = Some(vote);
                    add(&counters.votes, 1);
                    // A caller that went away does not care.
                    let _ = done.send(Ok(()));
                }
                Then::Removed { done } => {
                    let _ = done.send(Ok(()));
                }
            }
        }
    }

    /// At an orderly end, what is committed is written even without an append to ride on.
    fn write_committed(&mut self) {
        let mut batch = Batch::default();
        for group in self.shared.cells() {
            let committed = group.state.lock().committed;
            let window = self.windows.get(&group.id).copied().unwrap_or_default();
            if committed != window.committed && reaches(window.last, committed) {
                self.add_window(&mut batch, &group);
            }
        }
        if !batch.changes.is_empty()
            && let Err(error) = self.shared.engine.write(&batch.changes)
        {
            self.shared.stop(error);
        }
    }
}

/// Whether a log that ends at `last` contains `committed`.
fn reaches(last: Option<LogId>, committed: Option<LogId>) -> bool {
    committed.map(|id| id.index) <= last.map(|id| id.index) || !guards::on(Guard::CommittedWithinLog)
}

impl Batch {
    fn touch(&mut self, group: &Arc<GroupCell>) {
        // Most batches are of few groups, most requests of the group just before.
        if !self.touched.iter().rev().any(|touched| touched.id == group.id) {
            self.touched.push(group.clone());
        }
    }
}

impl Then {
    fn fail(self, group: &GroupCell, error: &LogError) {
        let error = error.clone().of_group(group.id);
        match self {
            Then::Flushed { flushed, .. } => flushed.io_completed(Err(error.into())),
            Then::Voted { done, .. } | Then::Removed { done } => {
                let _ = done.send(Err(error));
            }
        }
    }
}
