//! Where a test may end the process while a transaction is under way: before and after each of its entries.

use drover_guards::{CrashPoint, Moment, TxnEntry, crash_point, crashes_are_possible};
use drover_kv::{TxnWrite, Verdict, WriteKind};

/// The entry of a step, as far as a test may ask about it.
#[derive(Debug, Clone, Copy)]
pub struct TxnCrash(Option<TxnEntry>);

impl TxnCrash {
    /// Of this step.
    #[inline]
    pub fn of(step: &TxnWrite) -> Self {
        Self(crashes_are_possible().then(|| entry_of(step)))
    }

    /// Ends the process if a test has asked for that at this moment of such an entry.
    #[inline]
    pub fn at(self, moment: Moment) {
        if let Some(entry) = self.0 {
            crash_point(CrashPoint::Txn(entry, moment));
        }
    }

    /// As [`TxnCrash::at`], for a write that may be a step of a transaction.
    #[inline]
    pub fn in_write(kind: &WriteKind, moment: Moment) {
        if let WriteKind::Txn(step) = kind {
            Self::of(step).at(moment);
        }
    }
}

fn entry_of(step: &TxnWrite) -> TxnEntry {
    match step {
        TxnWrite::Commit(_) => TxnEntry::Commit,
        TxnWrite::Prepare(prepare) if prepare.mutations.iter().any(|mutation| mutation.key == prepare.primary) => {
            TxnEntry::PreparePrimary
        }
        TxnWrite::Prepare(_) => TxnEntry::PrepareSecondary,
        TxnWrite::Decide(_) => TxnEntry::Decide,
        TxnWrite::Resolve(resolve) => match resolve.verdict {
            Verdict::Committed { .. } => TxnEntry::ResolveCommitted,
            Verdict::RolledBack => TxnEntry::ResolveRolledBack,
        },
        TxnWrite::Rollback(_) => TxnEntry::Rollback,
        TxnWrite::Heartbeat(_) => TxnEntry::Heartbeat,
        TxnWrite::Finish(_) => TxnEntry::Finish,
    }
}
