//! What the log of a node tells of ownership: a line for each entry that changes who owns a range, or how far a range that moves is
//! closed. Every replica tells it when it applies the entry, and again if it applies it anew after a start; whoever compares
//! the lines finds an entry by the group and the index. On request (`drover_fsm::writes=trace`) also a line for each key that an
//! entry writes, with the catalog version that it was routed by.
//!
//! Nothing is decided here.

use drover_catalog::{CatalogCommand, CatalogCommandKind, job::JobEvent};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId, Interval, JobEpoch, JobId, escape};
use drover_kv::{OpResult, Outcome, TxnWrite, Verdict, WriteKind};
use drover_mvcc::RowSum;
use drover_rafttypes::ApplyReply;
use tracing::Level;

use crate::apply::{Body, DecodedEntry};
use crate::codec::command::{Command, Grant, MoveCommand, TimedWrite};
use crate::moving::MoveStep;
use crate::state::GroupState;

/// Who asks for the lines about keys names this in the filter of the log.
const WRITES: &str = "drover_fsm::writes";

/// What an entry changes of the ownership of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnershipChange {
    /// The entry.
    pub index: u64,
    /// The move; zero if it is none.
    pub job: JobId,
    /// Its course.
    pub epoch: JobEpoch,
    /// What happens, as people call it.
    pub step: &'static str,
    /// How far the range is closed then; empty where that is no question.
    pub fence: &'static str,
    /// Route keys.
    pub interval: Interval,
    /// The catalog version since which the group owns it, or did until now.
    pub version: CatalogVersion,
    /// Index of the entry of the source that armed its tracker; zero if it is no move.
    pub armed_at: u64,
    /// Source: what the sum of the rows has changed by since then. Target: the sum of its copy. Catalog: the sum as of then.
    pub sum: RowSum,
}

impl OwnershipChange {
    /// Of what a group begins with.
    pub(crate) fn granted(index: u64, grant: &Grant) -> Self {
        Self {
            index,
            job: JobId(0),
            epoch: JobEpoch(0),
            step: "grant-range",
            fence: "",
            interval: grant.interval.clone(),
            version: grant.acquired_version,
            armed_at: 0,
            sum: RowSum::default(),
        }
    }

    /// Of a step of a move that changed something.
    pub(crate) fn moved(index: u64, command: &MoveCommand, before: &GroupState, after: &GroupState) -> Option<Self> {
        let MoveCommand { job, epoch, step } = command;
        let told = |interval: &Interval, version, fence, armed_at, sum| Self {
            index,
            job: *job,
            epoch: *epoch,
            step: step.name(),
            fence,
            interval: interval.clone(),
            version,
            armed_at,
            sum,
        };
        if let MoveStep::Activate(activation) = step {
            let import = before.moves.import(*job)?;
            return Some(told(&import.interval, activation.acquired_version, "", import.armed_at, import.sum));
        }
        // Where it is given up, or all about it is forgotten, only the state before knows what it was.
        let source = after.moves.source(*job).or_else(|| before.moves.source(*job))?;
        let owns = |state: &GroupState| {
            let owned = state.owned.iter().find(|owned| owned.interval == source.interval);
            owned.map(|owned| owned.acquired_version)
        };
        let version = owns(after).or_else(|| owns(before))?;
        let fence = after.moves.source(*job).map_or("", |source| source.fence.name());
        Some(told(&source.interval, version, fence, source.armed_at, source.change))
    }

    /// Of what the catalog learns of the rows of a range that moves.
    pub(crate) fn scanned(index: u64, command: &CatalogCommand, catalog: &drover_catalog::Catalog) -> Option<Self> {
        let CatalogCommandKind::JobEvent { job, event: JobEvent::Scanned(base), .. } = &command.kind else {
            return None;
        };
        let known = catalog.job(*job)?;
        Some(Self {
            index,
            job: *job,
            epoch: known.epoch,
            step: "scanned",
            fence: "",
            interval: known.interval.clone(),
            version: CatalogVersion(0),
            armed_at: base.armed_at,
            sum: RowSum { hash: base.hash, rows: base.rows },
        })
    }

    /// Tells it.
    pub(crate) fn log(&self, group: GroupId) {
        tracing::info!(
            %group,
            index = self.index,
            job = %self.job,
            epoch = %self.epoch,
            step = self.step,
            fence = self.fence,
            start = %escape(self.interval.start()),
            end = %self.interval.end().as_key().map(|end| escape(end)).unwrap_or_default(),
            version = %self.version,
            armed_at = self.armed_at,
            rows = self.sum.rows,
            sum = %format_args!("{:032x}", self.sum.hash),
            "the ownership of a range changes"
        );
    }
}

/// Tells what the entries of a batch write, if somebody asks for that.
pub(crate) fn log_writes(group: GroupId, entries: &[DecodedEntry], replies: &[ApplyReply]) {
    if !tracing::enabled!(target: WRITES, Level::TRACE) {
        return;
    }
    for (entry, reply) in entries.iter().zip(replies) {
        let (Body::Command { command: Command::Write(writes), .. }, ApplyReply::Writes(results)) = (&entry.body, reply)
        else {
            continue;
        };
        for (write, result) in writes.iter().zip(results) {
            let Some((step, at)) = written(write, result) else { continue };
            let key = |key: &bytes::Bytes| {
                tracing::trace!(
                    target: WRITES,
                    %group,
                    index = entry.log_id.index,
                    step,
                    key = %escape(key),
                    observed = write.op.observed_version.unwrap_or_default().0,
                    ts = at.raw(),
                    "a key is written"
                );
            };
            match &write.op.kind {
                WriteKind::Txn(step) => step.keys().for_each(key),
                kind => key(kind.record_key()),
            }
        }
    }
}

/// What a write came to that wrote something, and did not only repeat an answer: how it is called, and the timestamp.
fn written(write: &TimedWrite, result: &OpResult) -> Option<(&'static str, Timestamp)> {
    let at = match result.as_ref().ok()? {
        Outcome::Written { commit_ts } | Outcome::TxnCommitted { commit_ts } => *commit_ts,
        Outcome::TxnLocked { .. } | Outcome::TxnResolved => write.commit_ts,
        Outcome::CompareFailed { .. } | Outcome::RangeDeleted { .. } | Outcome::Settled | Outcome::TxnRolledBack => {
            return None;
        }
    };
    let now = at == write.commit_ts;
    match &write.op.kind {
        WriteKind::Put { .. } => now.then_some(("put", at)),
        WriteKind::Delete { .. } => now.then_some(("delete", at)),
        WriteKind::CompareAndSet { .. } => now.then_some(("compare-and-set", at)),
        WriteKind::DeleteRange { .. } | WriteKind::Settle { .. } => None,
        WriteKind::Txn(step) => match (&**step, result) {
            (TxnWrite::Commit(_), _) => now.then_some(("commit", at)),
            (TxnWrite::Prepare(_), Ok(Outcome::TxnLocked { .. })) => Some(("prepare", at)),
            // The timestamp is that of the transaction, which does not tell a repeated one.
            (TxnWrite::Decide(_), _) => Some(("decide", at)),
            (TxnWrite::Resolve(resolve), _) => match resolve.verdict {
                Verdict::Committed { commit_ts } => Some(("resolve", commit_ts)),
                Verdict::RolledBack => None,
            },
            (TxnWrite::Prepare(_) | TxnWrite::Rollback(_) | TxnWrite::Heartbeat(_) | TxnWrite::Finish(_), _) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use drover_kv::WriteOp;

    use super::*;
    use crate::state::tests::ts;

    #[test]
    fn only_what_was_written_now_is_told() {
        let op = |kind| TimedWrite {
            op: WriteOp { kind, observed_version: Some(CatalogVersion(3)), idempotency: None },
            commit_ts: ts(9),
        };
        let put = || WriteKind::Put { key: Bytes::from("k"), value: Bytes::new(), ttl_ms: None };
        let table = [
            (put(), Ok(Outcome::Written { commit_ts: ts(9) }), Some(("put", ts(9)))),
            // An answer that was recorded.
            (put(), Ok(Outcome::Written { commit_ts: ts(7) }), None),
            (put(), Err(drover_kv::Refusal::IdempotencySettled), None),
            (WriteKind::Settle { key: Bytes::from("k") }, Ok(Outcome::Settled), None),
            (
                WriteKind::Delete { key: Bytes::from("k") },
                Ok(Outcome::Written { commit_ts: ts(9) }),
                Some(("delete", ts(9))),
            ),
        ];
        for (kind, result, expect) in table {
            assert_eq!(written(&op(kind), &result), expect);
        }
    }
}
