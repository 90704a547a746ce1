//! A log whose writes to disk a test holds back. No part of the API.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use drover_keys::GroupId;
use drover_rafttypes::Entry;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::engine::{self, Change, LogEngine, Recovered};
use crate::error::LogError;
use crate::node_log::NodeLog;
use crate::options::LogOptions;

/// Stands between the thread that writes and the engine, so in front of each write and its fsync.
pub struct FsyncGate {
    closed: Mutex<bool>,
    opened: Condvar,
    /// How many batches have come to the gate, and how many have passed it.
    batches: watch::Sender<(usize, usize)>,
}

impl FsyncGate {
    /// Lets no batch through until what it returns is dropped.
    pub fn close(self: &Arc<Self>) -> Closed {
        *self.closed.lock() = true;
        Closed(Arc::clone(self))
    }

    /// Waits until a batch stands at the gate, and returns how many have passed it before.
    pub async fn stands(&self) -> usize {
        let mut batches = self.batches.subscribe();
        let standing = batches.wait_for(|(arrived, passed)| arrived > passed).await;
        standing.map_or(0, |batches| batches.1)
    }

    /// How many batches have passed.
    pub fn passed(&self) -> usize {
        self.batches.borrow().1
    }

    fn pass(&self) {
        self.batches.send_modify(|(arrived, _)| *arrived += 1);
        let mut closed = self.closed.lock();
        while *closed {
            self.opened.wait(&mut closed);
        }
        drop(closed);
        self.batches.send_modify(|(_, passed)| *passed += 1);
    }
}

/// A gate that is closed.
#[must_use = "the gate is open again when this is dropped"]
pub struct Closed(Arc<FsyncGate>);

impl Drop for Closed {
    fn drop(&mut self) {
        *self.0.closed.lock() = false;
        self.0.opened.notify_all();
    }
}

/// Opens the store in `dir` as [`NodeLog::open`] does, with a gate, which is open.
///
/// # Errors
/// As [`NodeLog::open`].
pub fn open(dir: &Path, options: LogOptions) -> Result<(NodeLog, Arc<FsyncGate>), LogError> {
    let gate =
        Arc::new(FsyncGate { closed: Mutex::new(false), opened: Condvar::new(), batches: watch::Sender::new((0, 0)) });
    let engine = engine::open(dir, &options)?;
    let log = NodeLog::with_engine(Box::new(Gated { engine, gate: Arc::clone(&gate) }), options)?;
    Ok((log, gate))
}

struct Gated {
    engine: Box<dyn LogEngine>,
    gate: Arc<FsyncGate>,
}

impl LogEngine for Gated {
    fn write(&self, changes: &[(GroupId, Change)]) -> Result<u64, LogError> {
        self.gate.pass();
        self.engine.write(changes)
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

    fn reclaim(&self) -> Result<(), LogError> {
        self.engine.reclaim()
    }
}
