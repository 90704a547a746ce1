//! Whether the ranges that a transaction has read are unchanged, and how much may be looked at to find that out.
//!
//! Apply looks at every key of such a range, and nobody else is served meanwhile; a refresh does the same in front of it. So a
//! leader counts first. Two things are counted: the *rows* that the transaction can have seen, which is what its caller knows and
//! can do something about, and the *keys* that have to be looked at, deleted ones included, which is what it costs. What is behind the
//! first change is never looked at, so it does not count.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, Interval};
use drover_kv::{Error, Reason, TxnCommit};
use drover_mvcc::{RecordKind, Stored};

use super::Admitted;
use crate::codec::txn::TxnRecord;
use crate::error::ReadError;
use crate::gate::{conditions, txn as gate};
use crate::handle::FsmHandle;

/// What the ranges that one transaction has read in one group may hold. Single keys that it has read do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidationLimits {
    /// Rows that it can have seen: live at its snapshot.
    pub max_rows: u64,
    /// Keys with any version, also one that the transaction cannot have seen because it was deleted or had expired.
    pub max_keys: u64,
}

/// What has been looked at so far for one transaction.
#[derive(Debug)]
pub(super) struct Looked {
    limits: ValidationLimits,
    rows: u64,
    keys: u64,
}

impl Looked {
    pub(super) fn new(limits: ValidationLimits) -> Self {
        Self { limits, rows: 0, keys: 0 }
    }

    /// Counts the newest version of a key, which is not younger than the snapshot.
    fn count(&mut self, version: (Timestamp, Stored), start_ts: Timestamp) -> Result<(), Error> {
        let ValidationLimits { max_rows, max_keys } = self.limits;
        self.keys += 1;
        self.rows += u64::from(conditions::live(Some(version), start_ts).is_some());
        let message = if self.rows > max_rows {
            format!(
                "the ranges that the transaction has read hold more than {max_rows} rows in one group, the limit; nothing was \
                 changed; read less in one transaction"
            )
        } else if self.keys > max_keys {
            format!(
                "the ranges that the transaction has read hold more than {max_keys} keys in one group, deleted and expired ones \
                 included, the limit; nothing was changed; read smaller ranges, or wait until what was deleted is collected"
            )
        } else {
            return Ok(());
        };
        Err(Error::definite(Reason::BatchTooLarge, message))
    }
}

/// The first key of the interval that has changed since `start_ts`, and when: by a version up to `written_by`, or because a value has
/// expired up to `expired_by`.
///
/// # Errors
/// [`Reason::BatchTooLarge`] if more has to be looked at than is allowed; if the store fails.
pub(super) fn first_change(
    admitted: &Admitted<'_>,
    start_ts: Timestamp,
    (written_by, expired_by): (Timestamp, Timestamp),
    looked: &mut Looked,
) -> Result<Option<(Bytes, Timestamp)>, ReadError> {
    let (mut conflict, mut counted) = (None, Ok(()));
    for (owned, part) in admitted.parts() {
        let mut visit = |key: Bytes, at: Timestamp, version: Stored| {
            let version = (at, version);
            match gate::changed(Some(&version), start_ts, expired_by) {
                Some(changed_at) => conflict = Some((key, changed_at)),
                None => counted = looked.count(version, start_ts),
            }
            if conflict.is_none() && counted.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        admitted.view.snapshot.scan(owned.shard, &part, written_by, false, &mut visit)?;
        std::mem::replace(&mut counted, Ok(())).map_err(ReadError::Failed)?;
        if conflict.is_some() {
            break;
        }
    }
    Ok(conflict)
}

impl FsmHandle {
    /// Refuses a commit in one entry whose ranges hold more than apply should look at. One that a recorded outcome answers passes:
    /// nothing is looked at for it. Says nothing about changes; apply judges those.
    ///
    /// # Errors
    /// As [`FsmHandle::get`]; [`Reason::BatchTooLarge`].
    pub fn bounded_reads(
        &self,
        commit: &TxnCommit,
        limits: ValidationLimits,
        observed: Option<CatalogVersion>,
    ) -> Result<(), ReadError> {
        if commit.reads.intervals.is_empty() {
            return Ok(());
        }
        let view = self.view();
        if let Some(primary) = commit.mutations.first() {
            let interval = Interval::point(primary.key.clone());
            let shard = Admitted::judge(&view, &interval, observed, None)?.owned[0].shard;
            let record = view.snapshot.record(shard, &primary.key, RecordKind::TxnOutcome, &commit.txn.id.0)?;
            let record = record.map(TxnRecord::decode).transpose()?;
            if gate::outcome(record.as_ref(), commit.txn.attempt, None) != Ok(None) {
                return Ok(());
            }
        }
        let mut looked = Looked::new(limits);
        for interval in &commit.reads.intervals {
            let admitted = Admitted::judge(&view, interval, observed, None)?;
            // Versions only come on top, so apply finds the same change, or one before it. What time it is then is not known yet, so
            // nothing has expired.
            let until = (Timestamp::MAX, commit.start_ts);
            if first_change(&admitted, commit.start_ts, until, &mut looked)?.is_some() {
                break;
            }
        }
        Ok(())
    }
}
