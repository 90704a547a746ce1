use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_kv::{Entry, Error, Outcome, Reason, Versioned};

use crate::proto::v1;
use crate::version::{encode_version, raw_ts};

/// Answer to `Get`. `read_ts` is `None` if the latest value was served.
pub fn get_response(version: Option<Versioned>, read_ts: Option<Timestamp>) -> v1::GetResponse {
    v1::GetResponse { version: version.map(encode_version), read_ts: raw_ts(read_ts) }
}

/// Answer to `BatchGet`: one item for each key, in their order.
pub fn batch_get_response(versions: Vec<Option<Versioned>>, read_ts: Timestamp) -> v1::BatchGetResponse {
    v1::BatchGetResponse { versions: versions.into_iter().map(maybe_version).collect(), read_ts: read_ts.raw() }
}

/// Answer to `Scan`. `cursor` is the resume token, `None` if the range is finished.
pub fn scan_response(entries: Vec<Entry>, count: u64, cursor: Option<Bytes>, read_ts: Timestamp) -> v1::ScanResponse {
    v1::ScanResponse {
        entries: entries.into_iter().map(key_value).collect(),
        count,
        cursor: cursor.unwrap_or_default(),
        read_ts: read_ts.raw(),
    }
}

/// Answer to `LatestCommitTs`.
pub fn latest_commit_ts_response(commit_ts: Option<Timestamp>) -> v1::LatestCommitTsResponse {
    v1::LatestCommitTsResponse { commit_ts: raw_ts(commit_ts) }
}

/// Answer to `Put`.
///
/// # Errors
/// If the outcome is not that of a put.
pub fn put_response(outcome: &Outcome) -> Result<v1::PutResponse, Error> {
    match outcome {
        Outcome::Written { commit_ts } => Ok(v1::PutResponse { commit_ts: commit_ts.raw() }),
        other => Err(wrong_outcome("put", other)),
    }
}

/// Answer to `Delete`.
///
/// # Errors
/// If the outcome is not that of a delete.
pub fn delete_response(outcome: &Outcome) -> Result<v1::DeleteResponse, Error> {
    match outcome {
        Outcome::Written { commit_ts } => Ok(v1::DeleteResponse { commit_ts: commit_ts.raw() }),
        other => Err(wrong_outcome("delete", other)),
    }
}

/// Answer to `CompareAndSet`.
///
/// # Errors
/// If the outcome is not that of a comparison.
pub fn compare_and_set_response(outcome: Outcome) -> Result<v1::CompareAndSetResponse, Error> {
    match outcome {
        Outcome::Written { commit_ts } => {
            Ok(v1::CompareAndSetResponse { succeeded: true, commit_ts: commit_ts.raw(), current: None })
        }
        Outcome::CompareFailed { current } => {
            Ok(v1::CompareAndSetResponse { succeeded: false, commit_ts: 0, current: current.map(encode_version) })
        }
        other => Err(wrong_outcome("compare-and-set", &other)),
    }
}

/// Answer to `DeleteRange`. `cursor` is the resume token, `None` if the range is finished.
pub fn delete_range_response(deleted: u64, cursor: Option<Bytes>, commit_ts: Timestamp) -> v1::DeleteRangeResponse {
    v1::DeleteRangeResponse { deleted, cursor: cursor.unwrap_or_default(), commit_ts: commit_ts.raw() }
}

/// Answer to `Settle`: what became of the operation.
///
/// # Errors
/// If the outcome is that of a transaction's step: those carry no idempotency key.
pub fn settle_response(outcome: &Outcome) -> Result<v1::SettleResponse, Error> {
    let (verdict, succeeded, commit_ts) = match outcome {
        Outcome::Written { commit_ts } | Outcome::RangeDeleted { commit_ts, .. } => {
            (v1::settle_response::Verdict::Applied, true, commit_ts.raw())
        }
        Outcome::CompareFailed { .. } => (v1::settle_response::Verdict::Applied, false, 0),
        Outcome::Settled => (v1::settle_response::Verdict::Never, false, 0),
        Outcome::TxnCommitted { .. } | Outcome::TxnLocked { .. } | Outcome::TxnRolledBack | Outcome::TxnResolved => {
            return Err(wrong_outcome("settle", outcome));
        }
    };
    Ok(v1::SettleResponse { verdict: verdict.into(), succeeded, commit_ts })
}

pub(crate) fn maybe_version(version: Option<Versioned>) -> v1::MaybeVersion {
    v1::MaybeVersion { version: version.map(encode_version) }
}

pub(crate) fn key_value(entry: Entry) -> v1::KeyValue {
    v1::KeyValue { key: entry.key, version: Some(encode_version(entry.version)) }
}

fn wrong_outcome(what: &str, outcome: &Outcome) -> Error {
    Error::unknown(
        Reason::Internal,
        format!("a {what} was answered with {outcome:?}; this is a defect; it may have been applied"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_answers_only_the_requests_it_can_belong_to() {
        let ts = Timestamp::from_raw(8);
        let current = Some(Versioned { value: "v".into(), commit_ts: ts, expire_at: None });
        // outcome, answers a put or delete, answers a compare-and-set, settle verdict
        let table = [
            (Outcome::Written { commit_ts: ts }, true, Some(true), (1, true, 8)),
            (Outcome::CompareFailed { current }, false, Some(false), (1, false, 0)),
            (Outcome::RangeDeleted { commit_ts: ts, deleted: 2, resume: None }, false, None, (1, true, 8)),
            (Outcome::Settled, false, None, (2, false, 0)),
        ];
        for (outcome, writes, compares, (verdict, succeeded, commit_ts)) in table {
            assert_eq!(put_response(&outcome).is_ok(), writes, "{outcome:?}");
            assert_eq!(delete_response(&outcome).is_ok(), writes, "{outcome:?}");
            let compared = compare_and_set_response(outcome.clone());
            assert_eq!(compared.as_ref().ok().map(|r| r.succeeded), compares, "{outcome:?}");
            assert!(compared.is_ok() || compared.is_err_and(|e| e.is_unknown() && e.reason == Reason::Internal));
            assert_eq!(settle_response(&outcome), Ok(v1::SettleResponse { verdict, succeeded, commit_ts }));
        }
    }

    #[test]
    fn what_is_absent_is_zero_or_empty() {
        assert_eq!(get_response(None, None), v1::GetResponse::default());
        assert_eq!(scan_response(vec![], 0, None, Timestamp::ZERO), v1::ScanResponse::default());
        assert_eq!(latest_commit_ts_response(None), v1::LatestCommitTsResponse::default());
        assert_eq!(delete_range_response(0, None, Timestamp::ZERO), v1::DeleteRangeResponse::default());
        let batch = batch_get_response(vec![None], Timestamp::from_raw(4));
        assert_eq!((batch.versions, batch.read_ts), (vec![v1::MaybeVersion { version: None }], 4));
    }
}
