//! The driver: openraft's state machine over apply.

use std::io;
use std::path::Path;
use std::sync::Arc;

use drover_catalog::Catalog;
use drover_guards::{self as guards, Guard, Moment};
use drover_keys::{GroupId, JobId};
use drover_mvcc::{CheckpointInfo, GroupStore, MetaKey, StoreEnv, inspect_checkpoint};
use drover_rafttypes::{Entry, LogId, Responder, SnapshotDir, SnapshotMeta, StoredMembership, TypeConfig};
use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::SnapshotOf;
use tokio::sync::watch;

use crate::ApplyError;
use crate::apply::{Body, DecodedEntry, apply_batch};
use crate::cell::{Current, StateCell};
use crate::codec::applied::Applied;
use crate::codec::catalog::row;
use crate::codec::command::Command;
use crate::codec::{command, state};
use crate::crash::{MoveCrash, TxnCrash};
use crate::digest::DigestBoard;
use crate::handle::{FsmHandle, Shared, blocking, gc_rules};
use crate::home::{GroupDir, StoreHome};
use crate::ownership::log_writes;
use crate::state::GroupState;

/// Entries that one write batch holds at most.
const BATCH_ENTRIES: usize = 256;
/// Bytes of commands after which a write batch is closed.
const BATCH_BYTES: usize = 4 << 20;

const _: () = assert!(command::FORMAT > 0 && BATCH_ENTRIES > 0);

/// The state machine of one group replica, for openraft. Entries are applied on the task that openraft runs it on:
/// a batch is a write to memory, without a sync.
pub struct FsmStateMachine {
    shared: Arc<Shared>,
}

impl FsmStateMachine {
    /// Opens the replica of `group` in the folder `dir`, or creates it; at most once at a time. Blocks.
    ///
    /// # Errors
    /// If the file system or the store fails, or the folder belongs to another group; nothing was changed then.
    pub fn open(env: StoreEnv, dir: &Path, group: GroupId) -> io::Result<(Self, FsmHandle)> {
        let (dir, home) = GroupDir::open(env, dir)?;
        let current = load(group, home)?;
        let shared = Arc::new(Shared {
            group,
            dir,
            digests: DigestBoard::new(),
            catalog: watch::Sender::new(Arc::clone(&current.catalog)),
            applied: watch::Sender::new(current.applied.log_id),
            flushed: watch::Sender::new(current.applied.log_id),
            failure: watch::Sender::new(None),
            cell: StateCell::new(current),
        });
        Ok((Self { shared: Arc::clone(&shared) }, FsmHandle { shared }))
    }

    /// Applies the entries of one batch and answers their proposers.
    fn apply_entries(&mut self, pending: Pending) -> Result<(), ApplyError> {
        let shared = &self.shared;
        let current = shared.cell.load();
        let store = current.home.store();
        pending.crash_if_asked();
        let prepared = apply_batch(store, &current.state, &current.catalog, &current.applied, &pending.entries)?;
        // Before anybody can see it, so that who acts on it tells of that later.
        prepared.changes.iter().for_each(|change| change.log(shared.group));
        log_writes(shared.group, &pending.entries, &prepared.replies);
        let committed = shared.cell.commit(prepared)?;
        if committed.state.owned != current.state.owned || !pinned(&committed.state).eq(pinned(&current.state)) {
            store.set_gc(gc_rules(&committed.state));
        }
        if let Some(last) = pending.entries.last().filter(|entry| entry.takes_digest()) {
            shared.take_digest(last.log_id.index, shared.cell.view());
        }
        shared.publish_catalog(&committed.catalog);
        shared.applied.send_replace(committed.applied.log_id);
        for (responder, reply) in pending.responders.into_iter().zip(committed.replies) {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    /// Applies what comes, batch by batch, until nothing more does.
    async fn apply_all<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<(Entry, Option<Responder>)>> + Unpin + Send,
    {
        let mut next = entries.next().await;
        while let Some(item) = next {
            let mut pending = Pending::default();
            let (entry, responder) = item?;
            pending.push(entry, responder)?;
            // Take what is there already; wait for more only with nothing in hand.
            while !pending.is_closed()
                && let Some(Some(item)) = entries.next().now_or_never()
            {
                let (entry, responder) = item?;
                pending.push(entry, responder)?;
            }
            self.apply_entries(pending)?;
            next = entries.next().await;
        }
        Ok(())
    }
}

/// Jobs whose ranges are kept from garbage collection.
fn pinned(state: &GroupState) -> impl Iterator<Item = JobId> {
    state.moves.sources.iter().map(|source| source.job)
}

/// The entries of a batch and who waits for their answers.
#[derive(Default)]
struct Pending {
    entries: Vec<DecodedEntry>,
    responders: Vec<Option<Responder>>,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, entry: Entry, responder: Option<Responder>) -> Result<(), ApplyError> {
        if let drover_rafttypes::Payload::Normal(command) = &entry.payload {
            self.bytes += command.0.len();
        }
        self.entries.push(DecodedEntry::decode(entry)?);
        self.responders.push(responder);
        Ok(())
    }

    /// Somebody waits for the answer only where the entry was proposed.
    fn crash_if_asked(&self) {
        for (entry, _) in self.entries.iter().zip(&self.responders).filter(|(_, responder)| responder.is_some()) {
            let Body::Command { command, .. } = &entry.body else { continue };
            match command {
                Command::Write(writes) => {
                    writes.iter().for_each(|write| TxnCrash::in_write(&write.op.kind, Moment::Committed));
                }
                Command::Move(step) => MoveCrash::of(&step.step).at(Moment::Committed),
                Command::Catalog(command) => MoveCrash::in_catalog(&command.kind).at(Moment::Committed),
                _ => {}
            }
        }
    }

    /// A digest is taken from the state right after its entry, so that entry is the last of its batch.
    fn is_closed(&self) -> bool {
        self.entries.len() >= BATCH_ENTRIES
            || self.bytes >= BATCH_BYTES
            || self.entries.last().is_some_and(DecodedEntry::takes_digest) && guards::on(Guard::DigestEndsBatch)
    }
}

impl RaftStateMachine<TypeConfig> for FsmStateMachine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = FlushReporter;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.shared.cell.load().applied;
        Ok((applied.log_id, applied.membership.stored().clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<(Entry, Option<Responder>)>> + Unpin + Send,
    {
        let applied = self.apply_all(entries).await;
        self.shared.noted(applied)
    }

    async fn get_snapshot_builder(&mut self) -> FlushReporter {
        FlushReporter { shared: Arc::clone(&self.shared) }
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotDir>>> {
        let shared = Arc::clone(&self.shared);
        let made = blocking(move || checkpoint(&shared)).await;
        self.shared.noted(made)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotDir) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let meta = meta.clone();
        let installed = blocking(move || install(&shared, &meta, &snapshot)).await;
        self.shared.noted(installed)
    }
}

/// Reads the published form of an open store.
fn load(group: GroupId, home: Arc<StoreHome>) -> Result<Current, ApplyError> {
    let store: &GroupStore = home.store();
    let applied = Applied::decode(group, store.applied_state()?.as_deref())?;
    let state = state::decode(store.meta(MetaKey::GroupState)?.as_deref())?;
    store.set_gc(gc_rules(&state));
    let rows = store.catalog_rows()?.into_iter().map(|(name, value)| row::decode(&name, value));
    let catalog = Catalog::from_rows(rows.collect::<Result<Vec<_>, _>>()?)
        .map_err(|error| ApplyError::Corrupt { what: "catalog", why: error.to_string() })?;
    Ok(Current { state: Arc::new(state), catalog: Arc::new(catalog), applied, home })
}

/// A checkpoint with a description of its own content; `None` while nothing has been applied.
fn checkpoint(shared: &Shared) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotDir>>> {
    let current = shared.cell.load();
    if current.applied.log_id.is_none() {
        return Ok(None);
    }
    let dir = SnapshotDir::new(shared.dir.snapshot_path());
    let contained = current.home.store().checkpoint(dir.path()).map_err(io::Error::other)?;
    let contained = Applied::decode(shared.group, contained.as_deref())?;
    shared.raise_flushed(contained.log_id);
    Ok(Some(SnapshotOf::<TypeConfig, SnapshotDir> { meta: contained.snapshot_meta(), snapshot: dir }))
}

/// Puts a received checkpoint in the place of the live store.
fn install(shared: &Shared, meta: &SnapshotMeta, snapshot: &SnapshotDir) -> io::Result<()> {
    let live = shared.cell.load();
    let CheckpointInfo { applied_state, files, bytes, rows } =
        inspect_checkpoint(snapshot.path()).map_err(io::Error::other)?;
    let contained = Applied::decode(shared.group, applied_state.as_deref())?;
    check_snapshot(&live.applied, &contained, meta)?;
    let home = shared.dir.install(snapshot.path(), &live.home)?;
    let next = load(shared.group, home)?;
    shared.raise_flushed(next.applied.log_id);
    let (log_id, catalog) = (next.applied.log_id, Arc::clone(&next.catalog));
    drop(shared.cell.replace(next));
    shared.publish_catalog(&catalog);
    shared.applied.send_replace(log_id);
    tracing::info!(group = %shared.group, snapshot = ?log_id, files, bytes, rows, "snapshot installed");
    Ok(())
}

/// Refuses a checkpoint that is not what its description says, or that would take the replica back.
fn check_snapshot(live: &Applied, contained: &Applied, meta: &SnapshotMeta) -> io::Result<()> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if contained.snapshot_meta() != *meta && guards::on(Guard::SnapshotAsAnnounced) {
        return refuse(format!(
            "the snapshot holds {:?} and was announced as {:?}; nothing was changed",
            contained.log_id, meta.last_log_id
        ));
    }
    if contained.log_id < live.log_id && guards::on(Guard::SnapshotNotBack) {
        return refuse(format!(
            "the snapshot ends at {:?}, this replica has applied {:?}; nothing was changed",
            contained.log_id, live.log_id
        ));
    }
    Ok(())
}

/// openraft's snapshot builder: flushes, and reports the last entry that is durable, so that the log is purged behind
/// it. What is sent to a follower is made when it is asked for ([`FsmStateMachine`]'s `get_current_snapshot`).
pub struct FlushReporter {
    shared: Arc<Shared>,
}

impl RaftSnapshotBuilder<TypeConfig> for FlushReporter {
    type SnapshotData = SnapshotDir;

    /// The folder of the result does not exist: openraft uses the description only.
    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotDir>> {
        let shared = Arc::clone(&self.shared);
        let durable = match guards::on(Guard::PurgeBehindFlush) {
            true => {
                let flushed = blocking(move || shared.flush()).await;
                self.shared.noted(flushed)?
            }
            false => shared.cell.load().applied,
        };
        let snapshot = SnapshotDir::new(self.shared.dir.snapshot_path());
        Ok(SnapshotOf::<TypeConfig, SnapshotDir> { meta: durable.snapshot_meta(), snapshot })
    }
}

#[cfg(test)]
mod tests {
    use drover_rafttypes::decode_log_id;
    use drover_wire::proto::storage::v1 as pb;

    use super::*;

    #[test]
    fn a_snapshot_that_is_not_as_announced_or_older_is_refused() {
        let at = |index| Applied {
            log_id: Some(decode_log_id(&pb::LogId { term: 1, index })),
            ..Applied::nothing(GroupId(1))
        };
        let nothing = Applied::nothing(GroupId(1));
        let table = [
            ("into an empty replica", &nothing, at(5), at(5), true),
            ("into a lagging replica", &at(4), at(5), at(5), true),
            ("again", &at(5), at(5), at(5), true),
            ("back", &at(6), at(5), at(5), false),
            ("announced higher than it is", &nothing, at(5), at(6), false),
            ("announced lower than it is", &nothing, at(5), at(4), false),
        ];
        for (case, live, contained, announced, accepted) in table {
            assert_eq!(check_snapshot(live, &contained, &announced.snapshot_meta()).is_ok(), accepted, "{case}");
        }
    }
}
