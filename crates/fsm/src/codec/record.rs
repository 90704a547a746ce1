//! `drover.storage.v1.OutcomeRecord`: what an operation with an idempotency key came to.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_kv::{Outcome, Versioned};
use drover_wire::proto::storage::v1 as pb;
use pb::outcome_record::Outcome as PbOutcome;
use prost::Message;

use crate::ApplyError;

/// An idempotency record. Write-once; removed by an entry when the record horizon has passed `not_after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRecord {
    /// Of the operation; zero in a record that a settle left, which answers every operation alike.
    pub fingerprint: u64,
    /// The operation's own.
    pub not_after: Timestamp,
    /// The first and only outcome. A failed compare keeps the timestamps of what it met, not the value.
    pub outcome: Outcome,
}

impl OutcomeRecord {
    /// The stored bytes.
    pub fn encode(&self) -> Bytes {
        let outcome = match &self.outcome {
            Outcome::Written { commit_ts } => PbOutcome::Written(pb::WrittenOutcome { commit_ts: commit_ts.raw() }),
            Outcome::CompareFailed { current: None } => PbOutcome::CompareFailed(pb::CompareFailedOutcome::default()),
            Outcome::CompareFailed { current: Some(version) } => PbOutcome::CompareFailed(pb::CompareFailedOutcome {
                present: true,
                commit_ts: version.commit_ts.raw(),
                expire_at: version.expire_at.map_or(0, Timestamp::raw),
            }),
            Outcome::RangeDeleted { commit_ts, deleted, resume } => PbOutcome::RangeDeleted(pb::RangeDeletedOutcome {
                commit_ts: commit_ts.raw(),
                deleted: *deleted,
                resume: resume.clone(),
            }),
            Outcome::Settled => PbOutcome::Settled(pb::SettledOutcome {}),
            Outcome::TxnCommitted { .. }
            | Outcome::TxnLocked { .. }
            | Outcome::TxnRolledBack
            | Outcome::TxnResolved => unreachable!("a step of a transaction carries no idempotency key"),
        };
        let not_after = self.not_after.raw();
        pb::OutcomeRecord { fingerprint: self.fingerprint, not_after, outcome: Some(outcome) }.encode_to_vec().into()
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`ApplyError::Corrupt`] if the bytes are no such record.
    pub fn decode(bytes: Bytes) -> Result<Self, ApplyError> {
        let corrupt = |why: String| ApplyError::Corrupt { what: "idempotency record", why };
        let message = pb::OutcomeRecord::decode(bytes).map_err(|e| corrupt(e.to_string()))?;
        let outcome = match message.outcome.ok_or_else(|| corrupt("the outcome is missing or unknown".to_owned()))? {
            PbOutcome::Written(written) => Outcome::Written { commit_ts: Timestamp::from_raw(written.commit_ts) },
            PbOutcome::CompareFailed(failed) => Outcome::CompareFailed {
                current: failed.present.then(|| Versioned {
                    value: Bytes::new(),
                    commit_ts: Timestamp::from_raw(failed.commit_ts),
                    expire_at: (failed.expire_at > 0).then(|| Timestamp::from_raw(failed.expire_at)),
                }),
            },
            PbOutcome::RangeDeleted(range) => Outcome::RangeDeleted {
                commit_ts: Timestamp::from_raw(range.commit_ts),
                deleted: range.deleted,
                resume: range.resume,
            },
            PbOutcome::Settled(pb::SettledOutcome {}) => Outcome::Settled,
        };
        let not_after = Timestamp::from_raw(message.not_after);
        Ok(Self { fingerprint: message.fingerprint, not_after, outcome })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::tests::ts;

    #[test]
    fn golden_bytes_of_every_outcome() {
        let met = Versioned { value: Bytes::new(), commit_ts: ts(3), expire_at: Some(ts(4)) };
        let table: [(Outcome, &[u8]); 6] = [
            (Outcome::Written { commit_ts: ts(3) }, &[0x1a, 2, 8, 3]),
            (Outcome::CompareFailed { current: None }, &[0x22, 0]),
            (Outcome::CompareFailed { current: Some(met) }, &[0x22, 6, 8, 1, 16, 3, 24, 4]),
            (Outcome::RangeDeleted { commit_ts: ts(3), deleted: 2, resume: None }, &[0x2a, 4, 8, 3, 16, 2]),
            (
                Outcome::RangeDeleted { commit_ts: ts(3), deleted: 0, resume: Some("k".into()) },
                &[0x2a, 5, 8, 3, 0x1a, 1, b'k'],
            ),
            (Outcome::Settled, &[0x32, 0]),
        ];
        for (outcome, tail) in table {
            let record = OutcomeRecord { fingerprint: 1, not_after: ts(2), outcome };
            let golden = [&[8, 1, 16, 2][..], tail].concat();
            assert_eq!(record.encode(), golden, "{record:?}");
            assert_eq!(OutcomeRecord::decode(golden.into()).unwrap(), record);
        }
    }

    #[test]
    fn a_recorded_compare_keeps_no_value() {
        let met = Versioned { value: "secret".into(), commit_ts: ts(3), expire_at: None };
        let outcome = Outcome::CompareFailed { current: Some(met.clone()) };
        let record = OutcomeRecord { fingerprint: 1, not_after: ts(2), outcome };
        let kept = Versioned { value: Bytes::new(), ..met };
        let read = OutcomeRecord::decode(record.encode()).unwrap();
        assert_eq!(read.outcome, Outcome::CompareFailed { current: Some(kept) });
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = OutcomeRecord::decode(bytes.into());
        }

        #[test]
        fn range_outcomes_round_trip(fingerprint: u64, n: [u64; 3], resume: Option<Vec<u8>>) {
            let outcome = Outcome::RangeDeleted { commit_ts: ts(n[0]), deleted: n[1], resume: resume.map(Bytes::from) };
            let record = OutcomeRecord { fingerprint, not_after: ts(n[2]), outcome };
            prop_assert_eq!(OutcomeRecord::decode(record.encode()).unwrap(), record);
        }
    }
}
