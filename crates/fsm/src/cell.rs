//! Publishes what readers judge by, so that gates and data come from the same moment.

use std::sync::Arc;

use drover_catalog::Catalog;
use drover_guards::{self as guards, Guard};
use drover_mvcc::{StoreError, StoreSnapshot};
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
    /// The catalog after the last batch; empty in every group but the default one.
    pub catalog: Arc<Catalog>,
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
        self.publish(differs, || prepared.commit())
    }

    /// Runs `write`, with all readers kept out if the batch `differs` for them, and publishes what it came to.
    fn publish(
        &self,
        differs: bool,
        write: impl FnOnce() -> Result<Committed, StoreError>,
    ) -> Result<Committed, ApplyError> {
        let guard = (differs && guards::on(Guard::OneView)).then(|| self.0.write());
        let committed = write()?;
        let mut current = guard.unwrap_or_else(|| self.0.write());
        current.state = Arc::clone(&committed.state);
        current.catalog = Arc::clone(&committed.catalog);
        current.applied = committed.applied.clone();
        Ok(committed)
    }

    /// Publishes another store with its state, and returns what was published before.
    pub fn replace(&self, next: Current) -> Current {
        std::mem::replace(&mut self.0.write(), next)
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::GroupId;
    use drover_mvcc::{StoreEnv, StoreEnvOptions};

    use super::*;
    use crate::home::GroupDir;
    use crate::state::tests::{owned, state};

    #[test]
    fn h37_no_view_is_taken_while_a_batch_that_differs_for_readers_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let env = StoreEnv::new(StoreEnvOptions::default()).unwrap();
        let (_dir, home) = GroupDir::open(env, dir.path()).unwrap();
        let applied = Applied::nothing(GroupId(1));
        let before = Arc::new(GroupState::default());
        let cell =
            StateCell::new(Current { home, state: before.clone(), catalog: Arc::default(), applied: applied.clone() });
        let after = Arc::new(state(vec![owned("a", "", 1)]));
        let committed = || Committed {
            state: after.clone(),
            catalog: Arc::default(),
            applied: applied.clone(),
            replies: Vec::new(),
        };
        for differs in [false, true] {
            let write = || {
                assert_eq!(cell.0.try_read().is_none(), differs, "readers are kept out exactly if they would see it");
                Ok(committed())
            };
            cell.publish(differs, write).unwrap();
            assert_eq!(cell.view().state, after);
        }

        let failed = cell.publish(true, || Err(StoreError::Io { message: "disk".into() }));
        assert!(failed.is_err());
        assert_eq!(cell.state(), after, "nothing is published that was not written");
    }
}
