//! Publishes what readers judge by, so that gates and data come from the same moment.

use std::sync::Arc;

use drover_mvcc::StoreSnapshot;
use parking_lot::RwLock;

use crate::ApplyError;
use crate::apply::{Committed, Prepared};
use crate::codec::applied::Applied;
use crate::home::StoreHome;
use crate::state::GroupState;

/// The store in use, the state after the last batch, and how far that is.
#[derive(Clone)]
pub struct Current {
    /// The store; it stays open while anybody holds it.
    pub home: Arc<StoreHome>,
    /// The state after the last batch.
    pub state: Arc<GroupState>,
    /// The last entry of the last batch.
    pub applied: Applied,
}

/// One consistent view: `snapshot` shows the data that `state` governs.
pub struct View {
    /// Dropped before the store it belongs to.
    pub snapshot: StoreSnapshot,
    /// Owned intervals, safe points, and whether there are locks.
    pub state: Arc<GroupState>,
    /// Keeps the folder until the view is gone.
    _home: Arc<StoreHome>,
}

/// Publishes [`Current`].
///
/// Views are taken under the read half of a lock; a batch that changes what readers judge by
/// ([`GroupState::differs_for_readers`]) is written and published under the write half, as one step. So no reader
/// pairs a state with data from across such a batch. Every other batch is written outside the lock: a reader then may
/// see its rows under the state before it, which says the same about ownership, safe points and locks.
pub struct StateCell(RwLock<Current>);

impl StateCell {
    /// A cell that publishes `current`.
    pub fn new(current: Current) -> Self {
        Self(RwLock::new(current))
    }

    /// What is published now.
    pub fn load(&self) -> Current {
        self.0.read().clone()
    }

    /// The state published now.
    pub fn state(&self) -> Arc<GroupState> {
        Arc::clone(&self.0.read().state)
    }

    /// A view of the data and the state that governs it.
    pub fn view(&self) -> View {
        let current = self.0.read();
        View {
            snapshot: current.home.store().snapshot(),
            state: Arc::clone(&current.state),
            _home: Arc::clone(&current.home),
        }
    }

    /// Writes a batch and publishes what it came to. Only the driver of apply calls this, one batch at a time.
    ///
    /// # Errors
    /// If RocksDB fails; nothing is published then.
    pub fn commit(&self, prepared: Prepared<'_>) -> Result<Committed, ApplyError> {
        let differs = prepared.state.differs_for_readers(&self.state());
        let guard = differs.then(|| self.0.write());
        let committed = prepared.commit()?;
        let mut current = guard.unwrap_or_else(|| self.0.write());
        current.state = Arc::clone(&committed.state);
        current.applied = committed.applied.clone();
        Ok(committed)
    }

    /// Publishes another store with its state, and returns what was published before.
    pub fn replace(&self, next: Current) -> Current {
        std::mem::replace(&mut self.0.write(), next)
    }
}
