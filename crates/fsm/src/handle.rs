//! What the rest of the node holds of a state machine.

use std::io;
use std::sync::Arc;

use drover_catalog::Catalog;
use drover_guards::{self as guards, Guard};
use drover_keys::{GroupId, Interval, JobId, ShardId};
use drover_kv::{Error, Reason};
use drover_mvcc::{Digest, GcRule, GcRules, GroupStore, StoreError};
use drover_rafttypes::LogId;
use drover_seams::blocking::aside;
use tokio::sync::watch;

use crate::ApplyError;
use crate::cell::{StateCell, View};
use crate::codec::applied::Applied;
use crate::digest::{self, DigestBoard};
use crate::home::GroupDir;
use crate::state::GroupState;

/// What driver, handle and background work share.
pub(crate) struct Shared {
    pub(crate) group: GroupId,
    pub(crate) dir: GroupDir,
    pub(crate) cell: StateCell,
    pub(crate) digests: DigestBoard,
    pub(crate) catalog: watch::Sender<Arc<Catalog>>,
    pub(crate) applied: watch::Sender<Option<LogId>>,
    pub(crate) flushed: watch::Sender<Option<LogId>>,
    /// Why the store cannot be trusted any longer, once that is known.
    pub(crate) failure: watch::Sender<Option<String>>,
}

/// What the rest of the node holds of a state machine: the read door, and what can be waited for. Clones are cheap.
#[derive(Clone)]
pub struct FsmHandle {
    pub(crate) shared: Arc<Shared>,
}

impl FsmHandle {
    /// The group.
    pub fn group(&self) -> GroupId {
        self.shared.group
    }

    /// The state after the last applied batch.
    pub fn state(&self) -> Arc<GroupState> {
        self.shared.cell.state()
    }

    /// The catalog after the last applied batch, as it changes; empty in every group but the default one.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.shared.catalog.subscribe()
    }

    /// The last applied entry, as it moves. A view taken after it reached an index shows that entry's effects.
    pub fn applied_log_id(&self) -> watch::Receiver<Option<LogId>> {
        self.shared.applied.subscribe()
    }

    /// The last entry whose effects are surely durable, as it moves. The log may be purged up to it, never past it.
    pub fn flushed_log_id(&self) -> watch::Receiver<Option<LogId>> {
        self.shared.flushed.subscribe()
    }

    /// The store in use, for figures and tests. It may be replaced by an installed snapshot at any time.
    pub fn store(&self) -> Arc<GroupStore> {
        Arc::clone(self.shared.cell.load().home.store())
    }

    /// What the store is to hold rows of.
    pub fn kept(&self) -> Kept {
        Kept::of(&self.state())
    }

    /// How many places of the store hold rows although the group neither owns them nor takes them in: what a move has left
    /// behind; and what the store is to hold instead. Blocks on the disk for a few rows of each interval.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn strays(&self) -> Result<(Kept, u64), StoreError> {
        let view = self.shared.cell.view();
        let kept = Kept::of(&view.state);
        let strays = view.snapshot.strays(&kept.intervals, &kept.lists)?;
        Ok((kept, strays))
    }

    /// Why the store cannot be trusted any longer, or apply has stopped. Whoever runs the replica stops it when a read or a digest
    /// has found out; apply stops Raft by itself, which may tell no more than that it did.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.failure.subscribe()
    }

    /// Takes note that the store cannot be trusted any longer. The first reason is kept.
    pub fn report_failure(&self, why: &str) {
        self.shared.report_failure(why);
    }

    /// The digest of the `TakeDigest` entry at `index`; waits until it is applied and computed. An index that is never
    /// applied is waited for without end: the caller has the deadline.
    ///
    /// # Errors
    /// [`Reason::FailedPrecondition`] if there is no digest of that entry, or no longer.
    pub async fn digest(&self, index: u64) -> Result<Digest, Error> {
        let mut applied = self.applied_log_id();
        let reached = applied.wait_for(|applied| applied.is_some_and(|id| id.index >= index)).await;
        reached.map_err(|_| Error::definite(Reason::ShuttingDown, "the replica is closing"))?;
        self.shared.digests.wait(index).await
    }

    /// Makes everything applied so far durable; the id of the last entry that is. Runs on a blocking thread.
    ///
    /// # Errors
    /// If the store fails; the replica must stop then.
    pub async fn flush(&self) -> io::Result<Option<LogId>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.flush().map(|applied| applied.log_id)).await
    }
}

/// What a store is to hold rows of. While it stays the same, no entry puts rows elsewhere, or removes some there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What the group owns, and what is copied to it.
    pub intervals: Vec<(ShardId, Interval)>,
    /// Jobs that move a range away, whose writes are listed.
    pub lists: Vec<(ShardId, JobId)>,
}

impl Kept {
    fn of(state: &GroupState) -> Self {
        let owned = state.owned.iter().map(|owned| (owned.shard, owned.interval.clone()));
        let imports = state.moves.imports.iter().map(|import| (import.shard, import.interval.clone()));
        let lists = state.moves.sources.iter().map(|source| (source.shard, source.job));
        Self { intervals: owned.chain(imports).collect(), lists: lists.collect() }
    }
}

impl Shared {
    /// Flushes the store in use; what is durable then.
    pub(crate) fn flush(&self) -> Result<Applied, ApplyError> {
        let current = self.cell.load();
        let durable = current.home.store().flush()?;
        let durable = Applied::decode(self.group, durable.as_deref())?;
        self.raise_flushed(durable.log_id);
        Ok(durable)
    }

    /// Takes note of an error by which Raft stops.
    pub(crate) fn noted<T>(&self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| self.report_failure(&error.to_string()))
    }

    fn report_failure(&self, why: &str) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(why.to_owned());
            }
            first
        });
    }

    /// Lets everybody see a catalog, if it is another one.
    pub(crate) fn publish_catalog(&self, next: &Arc<Catalog>) {
        self.catalog.send_if_modified(|catalog| {
            let differs = !Arc::ptr_eq(catalog, next);
            if differs {
                *catalog = Arc::clone(next);
            }
            differs
        });
    }

    pub(crate) fn raise_flushed(&self, to: Option<LogId>) {
        self.flushed.send_if_modified(|flushed| {
            let rises = to > *flushed;
            if rises {
                *flushed = to;
            }
            rises
        });
    }

    /// Starts computing the digest of `view`, taken right after the entry at `index`.
    pub(crate) fn take_digest(self: &Arc<Self>, index: u64, view: View) {
        self.digests.announce(index);
        let shared = Arc::clone(self);
        aside(move || {
            let digest = digest::compute(&view);
            if let Err(why) = &digest {
                shared.report_failure(why);
            }
            shared.digests.enter(index, digest);
        });
    }
}

/// Up to where garbage collection may work, once a flush has made `state` durable.
pub fn gc_rules(state: &GroupState) -> GcRules {
    let rule = |owned: &crate::state::OwnedInterval| GcRule {
        shard: owned.shard,
        interval: owned.interval.clone(),
        safe_point: owned.safe_point,
        pinned: state.moves.is_pinned(&owned.interval) && guards::on(Guard::MovingIsPinned),
    };
    GcRules(state.owned.iter().map(rule).collect())
}

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static, E: Into<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> io::Result<T> {
    match aside(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => Err(io::Error::other(error)),
    }
}
