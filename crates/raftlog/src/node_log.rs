use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use drover_keys::GroupId;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::engine::mark::Mark;
use crate::engine::{self, LogEngine, MemoryDisk, Recovered};
use crate::error::{LogError, Place};
use crate::group_log::GroupLog;
use crate::group_state::{GroupCell, GroupState};
use crate::options::LogOptions;
use crate::queue::{Queue, Request, Work};
use crate::reader::GroupLogReader;
use crate::stats::{Counters, LogStats};
use crate::writer::{Pace, Writer};

/// The log store of a node. Dropping it writes what is queued and closes the files; handles of groups that outlive it
/// answer [`LogError::Closed`].
#[derive(Debug)]
pub struct NodeLog {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What is known of the log in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogDir {
    /// No log was ever opened there, or it is gone.
    Nothing,
    /// A log in which nothing has become durable.
    Unused,
    /// A log with something in it.
    Used,
}

impl NodeLog {
    /// Opens or creates the store in `dir`, whose parent exists. Blocks while files are read.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if files are damaged, others if they cannot be read or another process has them open.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Self, LogError> {
        let engine = engine::open(dir, &options)?;
        Self::with_engine(engine, options)
    }

    /// What a folder tells of the log in it, without opening it.
    ///
    /// # Errors
    /// If what tells it is damaged or cannot be read.
    pub fn look(dir: &Path) -> Result<LogDir, LogError> {
        Ok(match Mark::open(dir)? {
            None => LogDir::Nothing,
            Some(mark) if mark.batch() == 0 => LogDir::Unused,
            Some(_) => LogDir::Used,
        })
    }

    /// Opens or creates a store for a simulated node, without threads. What `disk` has taken when the node's runtime is
    /// dropped is there when it is opened again, and nothing else is. Needs a tokio runtime.
    ///
    /// # Errors
    /// If `disk` is in use.
    pub fn in_memory(disk: &MemoryDisk, options: LogOptions, pace: Pace) -> Result<Self, LogError> {
        let (shared, writer) = Self::parts(Box::new(disk.open()?), options, Queue::of_task())?;
        tokio::spawn(writer.run_paced(pace));
        Ok(Self { shared, threads: Vec::new() })
    }

    pub(crate) fn with_engine(engine: Box<dyn LogEngine>, options: LogOptions) -> Result<Self, LogError> {
        let (shared, writer) = Self::parts(engine, options, Queue::default())?;
        let reclaimer = shared.clone();
        let threads = vec![
            spawn("raftlog-write", move || writer.run())?,
            spawn("raftlog-reclaim", move || reclaimer.reclaim_until_closed())?,
        ];
        Ok(Self { shared, threads })
    }

    fn parts(engine: Box<dyn LogEngine>, options: LogOptions, queue: Queue) -> Result<(Arc<Shared>, Writer), LogError> {
        let mut cells = HashMap::new();
        let mut windows = HashMap::new();
        for id in engine.groups()? {
            let recovered = engine.recover(id).map_err(|e| e.of_group(id))?;
            engine::verify(engine.as_ref(), id, &recovered.window).map_err(|e| e.of_group(id))?;
            windows.insert(id, recovered.window);
            cells.insert(id, new_cell(id, &recovered, &options));
        }
        let shared = Arc::new(Shared {
            room: Arc::new(Semaphore::new(options.queue_bytes as usize)),
            engine,
            options,
            queue,
            cells: Mutex::new(cells),
            counters: Counters::default(),
            cause: OnceLock::new(),
            writes: AtomicU64::new(0),
            reclaim: Reclaim::default(),
        });
        Ok((shared.clone(), Writer::new(shared, windows)))
    }

    /// The log of a group, empty if the store has not met it before. There may be several handles.
    pub fn group(&self, id: GroupId) -> GroupLog {
        let mut cells = self.shared.cells.lock();
        let cell = cells.entry(id).or_insert_with(|| new_cell(id, &Recovered::default(), &self.shared.options));
        GroupLog::new(GroupLogReader { shared: self.shared.clone(), cell: cell.clone() })
    }

    /// Groups that have a vote or a log, or have been asked for, in ascending order.
    pub fn groups(&self) -> Vec<GroupId> {
        let mut ids: Vec<GroupId> = self.shared.cells.lock().keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Forgets vote and log of a group. They are gone for good when this returns.
    ///
    /// # Errors
    /// If the store has stopped or the removal could not be written.
    pub async fn remove_group(&self, id: GroupId) -> Result<(), LogError> {
        let (done, removed) = oneshot::channel();
        {
            let mut cells = self.shared.cells.lock();
            let Some(cell) = cells.get(&id).cloned() else { return Ok(()) };
            let mut state = cell.state.lock();
            state.removed = true;
            state.generation += 1;
            self.shared.submit(Request { group: cell.clone(), work: Work::Remove { done } })?;
            cells.remove(&id);
        }
        self.shared.outcome(removed).await
    }

    /// What it has done so far.
    pub fn stats(&self) -> LogStats {
        self.shared.counters.snapshot()
    }

    /// Bytes of entries that wait for the writer.
    pub fn queued_bytes(&self) -> usize {
        (self.shared.options.queue_bytes as usize).saturating_sub(self.shared.room.available_permits())
    }

    /// Why the store takes no more writes, if a write has failed.
    pub fn failure(&self) -> Option<Arc<LogError>> {
        self.shared.cause.get().cloned()
    }

    /// Writes what is queued and takes no more. Blocks until that is done.
    ///
    /// # Errors
    /// If a write has failed, now or before.
    pub fn close(mut self) -> Result<(), LogError> {
        self.finish();
        self.shared.check()
    }

    fn finish(&mut self) {
        self.shared.room.close();
        self.shared.queue.close();
        self.shared.reclaim.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log store panicked");
            }
        }
    }
}

impl Drop for NodeLog {
    fn drop(&mut self) {
        self.finish();
    }
}

fn new_cell(id: GroupId, recovered: &Recovered, options: &LogOptions) -> Arc<GroupCell> {
    let state = GroupState::new(recovered, options.cache_bytes_per_group);
    Arc::new(GroupCell { id, state: Mutex::new(state) })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LogError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|e| LogError::io(Place::default(), "start a thread", e))
}

#[derive(Debug, Default)]
struct Reclaim {
    state: Mutex<ReclaimState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct ReclaimState {
    written_bytes: u64,
    closed: bool,
}

impl Reclaim {
    fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

/// What the store, the handles of groups and the threads share.
pub struct Shared {
    pub engine: Box<dyn LogEngine>,
    pub options: LogOptions,
    pub queue: Queue,
    pub counters: Counters,
    room: Arc<Semaphore>,
    cells: Mutex<HashMap<GroupId, Arc<GroupCell>>>,
    cause: OnceLock<Arc<LogError>>,
    writes: AtomicU64,
    reclaim: Reclaim,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Shared {
    /// Whether the store still takes requests.
    pub fn check(&self) -> Result<(), LogError> {
        match self.cause.get() {
            Some(cause) => Err(LogError::Stopped(cause.clone())),
            None => Ok(()),
        }
    }

    /// Stops the store for good because of `error`: everything queued fails with what this returns.
    pub fn stop(&self, error: LogError) -> LogError {
        if self.cause.set(Arc::new(error.clone())).is_ok() {
            tracing::error!(%error, "the log store has stopped, this node must be restarted");
        }
        self.room.close();
        self.reclaim.close();
        let stopped = self.refusal();
        for request in self.queue.close_and_drain() {
            request.fail(&stopped);
        }
        error
    }

    /// Waits for room for `bytes` in the queue.
    pub async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, LogError> {
        // An append larger than the queue waits until it is alone.
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.options.queue_bytes);
        self.room.clone().acquire_many_owned(permits).await.map_err(|_| self.refusal())
    }

    /// Queues a request. The caller holds the lock of the group's state, so requests stand in the order of its changes.
    pub fn submit(&self, request: Request) -> Result<(), LogError> {
        if self.queue.push(request) { Ok(()) } else { Err(self.refusal()) }
    }

    /// Waits for the outcome of a queued request.
    pub async fn outcome(&self, done: oneshot::Receiver<Result<(), LogError>>) -> Result<(), LogError> {
        done.await.unwrap_or_else(|_| Err(self.refusal()))
    }

    /// A number for the next write, higher than any before.
    pub fn next_write(&self) -> u64 {
        self.writes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// All groups.
    pub fn cells(&self) -> Vec<Arc<GroupCell>> {
        self.cells.lock().values().cloned().collect()
    }

    /// Lets the reclaimer run once enough has been written since it last did.
    pub fn wake_reclaimer(&self, written_bytes: u64) {
        let mut state = self.reclaim.state.lock();
        state.written_bytes += written_bytes;
        if state.written_bytes >= self.options.file_bytes {
            self.reclaim.changed.notify_one();
        }
    }

    fn refusal(&self) -> LogError {
        self.check().err().unwrap_or(LogError::Closed)
    }

    fn reclaim_until_closed(&self) {
        loop {
            let mut state = self.reclaim.state.lock();
            while state.written_bytes < self.options.file_bytes && !state.closed {
                self.reclaim.changed.wait(&mut state);
            }
            if state.closed {
                return;
            }
            state.written_bytes = 0;
            drop(state);
            if let Err(error) = self.engine.reclaim() {
                self.stop(error);
                return;
            }
        }
    }
}
