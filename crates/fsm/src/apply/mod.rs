//! Apply: the pure function from a state and entries to a state and answers.

mod catalog;
mod control;
mod moving;
mod txn;
mod write;

pub use control::advance_safe_point;

use std::sync::Arc;

use drover_catalog::Catalog;
use drover_guards::{self as guards, Guard};
use drover_mvcc::{Batch, GroupStore, MetaKey, StoreError};
use drover_rafttypes::{ApplyReply, ControlReply, Entry, LogId, Membership, Payload, StoredMembership};

use crate::ApplyError;
use crate::codec::applied::Applied;
use crate::codec::command::Command;
use crate::codec::state;
use crate::ownership::OwnershipChange;
use crate::state::GroupState;

/// A log entry as apply sees it.
#[derive(Debug, Clone)]
pub struct DecodedEntry {
    /// Where it stands.
    pub log_id: LogId,
    /// What it holds.
    pub body: Body,
}

/// What a log entry holds.
#[derive(Debug, Clone)]
pub enum Body {
    /// Nothing: a leader's first entry.
    Blank,
    /// New voters and learners.
    Membership(Membership),
    /// A command, and the term in which a leader admitted it.
    Command { admitted_term: u64, command: Command },
}

impl DecodedEntry {
    /// Reads an entry.
    ///
    /// # Errors
    /// Fatal ones: see [`Command::decode`].
    pub fn decode(entry: Entry) -> Result<Self, ApplyError> {
        let body = match entry.payload {
            Payload::Blank => Body::Blank,
            Payload::Membership(membership) => Body::Membership(membership),
            Payload::Normal(bytes) => {
                let (admitted_term, command) = Command::decode(entry.log_id.index, &bytes)?;
                Body::Command { admitted_term, command }
            }
        };
        Ok(Self { log_id: entry.log_id, body })
    }

    /// Whether a digest is to be taken right after this entry.
    pub fn takes_digest(&self) -> bool {
        matches!(&self.body, Body::Command { admitted_term, command: Command::TakeDigest { .. } }
            if *admitted_term == *self.log_id.leader_id)
    }
}

/// The effects of a batch of entries, not yet written.
#[must_use = "nothing has been written yet"]
pub struct Prepared<'a> {
    batch: Batch<'a>,
    /// The state after the batch.
    pub state: GroupState,
    /// The catalog after the batch; empty in every group but the default one.
    pub catalog: Arc<Catalog>,
    /// The last entry of the batch, and the membership then.
    pub applied: Applied,
    /// One for each entry, in their order.
    pub replies: Vec<ApplyReply>,
    /// What the entries change of ownership, in their order.
    pub changes: Vec<OwnershipChange>,
}

impl Prepared<'_> {
    /// Writes effects, state and applied log id, all or nothing.
    ///
    /// # Errors
    /// If RocksDB fails.
    pub fn commit(self) -> Result<Committed, StoreError> {
        self.batch.commit()?;
        let Self { state, catalog, applied, replies, .. } = self;
        Ok(Committed { state: Arc::new(state), catalog, applied, replies })
    }
}

/// What a batch came to, after it was written.
#[derive(Debug)]
pub struct Committed {
    /// The state after the batch.
    pub state: Arc<GroupState>,
    /// The catalog after the batch.
    pub catalog: Arc<Catalog>,
    /// The last entry of the batch, and the membership then.
    pub applied: Applied,
    /// One for each entry, in their order.
    pub replies: Vec<ApplyReply>,
}

/// Applies `entries`, which follow `applied` in the log, to `state` and the data of `store`. Operations and entries see
/// the effects of those before them; how the log is cut into batches makes no difference to effects or answers.
///
/// # Errors
/// Fatal ones; nothing is written then.
pub fn apply_batch<'a>(
    store: &'a GroupStore,
    state: &GroupState,
    catalog: &Arc<Catalog>,
    applied: &Applied,
    entries: &[DecodedEntry],
) -> Result<Prepared<'a>, ApplyError> {
    let mut work = Prepared {
        batch: store.batch(),
        state: state.clone(),
        catalog: Arc::clone(catalog),
        applied: applied.clone(),
        replies: Vec::with_capacity(entries.len()),
        changes: Vec::new(),
    };
    work.batch.set_youngest(state.max_commit_ts);
    work.track();
    for entry in entries {
        let reply = work.apply(entry)?;
        work.note_tracked();
        work.replies.push(reply);
        work.applied.log_id = Some(entry.log_id);
    }
    if work.state != *state {
        work.state.validate()?;
        work.batch.put_meta(MetaKey::GroupState, state::encode(&work.state).into());
    }
    // In the batch of the effects: an id that was written on its own could fall behind them.
    let durable = if guards::on(Guard::AppliedIdInBatch) { &work.applied } else { applied };
    work.batch.put_applied_state(durable.encode().into());
    Ok(work)
}

impl Prepared<'_> {
    fn apply(&mut self, entry: &DecodedEntry) -> Result<ApplyReply, ApplyError> {
        let entry_term = *entry.log_id.leader_id;
        match &entry.body {
            Body::Blank => Ok(ApplyReply::None),
            Body::Membership(membership) => {
                self.applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone()).into();
                Ok(ApplyReply::None)
            }
            Body::Command { admitted_term, command }
                if *admitted_term != entry_term && guards::on(Guard::AdmittedTerm) =>
            {
                Ok(wrong_term(*admitted_term, entry_term, command))
            }
            Body::Command { command: Command::Write(writes), .. } => {
                writes.iter().map(|op| self.write(op)).collect::<Result<_, _>>().map(ApplyReply::Writes)
            }
            Body::Command { command: Command::Catalog(command), .. } => {
                Ok(ApplyReply::Control(self.catalog_command(entry.log_id.index, command)))
            }
            Body::Command { command: Command::Move(command), .. } => {
                self.move_step(entry.log_id.index, command).map(ApplyReply::Control)
            }
            Body::Command { command, .. } => {
                let reply = self.control(command, entry_term)?;
                if let (Command::GrantRange(grants), ControlReply::Done) = (command, &reply) {
                    let granted = grants.iter().map(|grant| OwnershipChange::granted(entry.log_id.index, grant));
                    self.changes.extend(granted);
                }
                Ok(ApplyReply::Control(reply))
            }
        }
    }
}

/// The answer to a command that was proposed for another term: nothing that its leader checked in memory holds now.
fn wrong_term(admitted_term: u64, entry_term: u64, command: &Command) -> ApplyReply {
    use drover_kv::Refusal::TermMismatch;
    match command {
        Command::Write(writes) => {
            ApplyReply::Writes(writes.iter().map(|_| Err(TermMismatch { admitted_term, entry_term })).collect())
        }
        _ => ApplyReply::Control(ControlReply::Refused(format!(
            "it was admitted in term {admitted_term} and appended in term {entry_term}; nothing was changed"
        ))),
    }
}
