use drover_keys::escape;
use drover_kv::{Error, Reason, Refusal};

/// What a caller is told of a gate's refusal. The refused proposal has done nothing and never will; only
/// [`Refusal::IdempotencyExpired`] is of unknown certainty, because an earlier attempt under the same key may have
/// applied and its record may be gone.
pub fn refusal_to_error(refusal: &Refusal) -> Error {
    match refusal {
        Refusal::RouteMoved { hint: Some(hint) } => Error::definite(
            Reason::RouteMoved,
            format!(
                "the range moved to group {} at catalog version {}; nothing was changed; route again",
                hint.group, hint.version
            ),
        ),
        Refusal::RouteMoved { hint: None } => Error::definite(
            Reason::RouteMoved,
            "this group does not own the whole range; nothing was changed; route again",
        ),
        Refusal::CutoverPending => Error::definite(
            Reason::CutoverPending,
            "the range is changing hands right now; nothing was changed; route again",
        ),
        Refusal::StaleRoute { acquired_version } => Error::definite(
            Reason::StaleRoute,
            format!(
                "the request was routed by a map older than catalog version {acquired_version}, or by none; nothing \
                 was changed; route again"
            ),
        ),
        Refusal::RouteFenced { retry_after_ms } => Error::definite(
            Reason::RouteFenced,
            format!("writes to the range are held back; nothing was changed; retry in {retry_after_ms} ms"),
        )
        .retry_after_ms(*retry_after_ms),
        Refusal::TimestampTooLow { floor } => Error::definite(
            Reason::TimestampTooLow,
            format!("the commit timestamp is not above {floor}; nothing was changed; retry with a new timestamp"),
        ),
        Refusal::Locked { lock } => Error {
            lock: Some(lock.clone()),
            ..Error::definite(
                Reason::Locked,
                format!(
                    "transaction {} holds a lock on {}; nothing was changed; retry",
                    lock.txn.id,
                    escape(&lock.key)
                ),
            )
        },
        Refusal::Conflict { key, changed_at } => Error::definite(
            Reason::TxnConflict,
            format!(
                "{} changed at {changed_at}, after the snapshot that the transaction reads; nothing was changed; run the \
                 transaction again",
                escape(key)
            ),
        ),
        Refusal::TxnTooOld { start_ts, oldest } => Error::definite(
            Reason::TxnTooOld,
            format!(
                "the transaction reads the snapshot at {start_ts}, the oldest one that can still be committed is above \
                 {oldest}; this attempt changed nothing; run the transaction again"
            ),
        ),
        Refusal::TxnAborted { through } => Error::definite(
            Reason::TxnAborted,
            format!(
                "the transaction was rolled back up to attempt {through}; nothing was changed and nothing will be by \
                 these; run the transaction again"
            ),
        ),
        Refusal::TxnReused => Error::definite(
            Reason::TxnReused,
            "the transaction's id was used for other mutations; nothing was changed; begin a new transaction",
        ),
        Refusal::NotExpired { expire_at } => Error::definite(
            Reason::FailedPrecondition,
            format!("the transaction's locks live until {expire_at} at least; nothing was changed; wait, or abort it"),
        ),
        Refusal::IdempotencyExpired { not_after } => Error::unknown(
            Reason::IdempotencyExpired,
            format!(
                "the idempotency key ended at {not_after}; this attempt changed nothing, an earlier one may have; read \
                 to find out, and use a new key"
            ),
        ),
        Refusal::IdempotencySettled => Error::definite(
            Reason::IdempotencySettled,
            "the operation was settled before it applied; nothing was changed and nothing will be; use a new key",
        ),
        Refusal::IdempotencyReused => Error::definite(
            Reason::IdempotencyReused,
            "the idempotency key was used for a different operation; nothing was changed; use a new key",
        ),
        Refusal::TermMismatch { admitted_term, entry_term } => Error::definite(
            Reason::NotLeader,
            format!(
                "leadership changed while the request was under way (admitted in term {admitted_term}, appended in \
                 term {entry_term}); nothing was changed; retry"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use drover_hlc::Timestamp;
    use drover_keys::{CatalogVersion, GroupId};
    use drover_kv::{Attempt, LockInfo, RouteHint, TxnId, TxnRef};

    use super::*;

    fn lock() -> LockInfo {
        LockInfo {
            key: "k".into(),
            txn: TxnRef { id: TxnId([1; 16]), attempt: Attempt::default() },
            primary: "p".into(),
            start_ts: Timestamp::from_raw(1),
            expire_at: Timestamp::from_raw(2),
        }
    }

    #[test]
    fn each_refusal_names_its_reason_and_whether_anything_can_have_changed() {
        let hint = RouteHint { group: GroupId(7), version: CatalogVersion(9) };
        let ts = Timestamp::from_raw(5);
        let table = [
            (Refusal::RouteMoved { hint: Some(hint) }, Reason::RouteMoved, false),
            (Refusal::RouteMoved { hint: None }, Reason::RouteMoved, false),
            (Refusal::CutoverPending, Reason::CutoverPending, false),
            (Refusal::StaleRoute { acquired_version: CatalogVersion(3) }, Reason::StaleRoute, false),
            (Refusal::RouteFenced { retry_after_ms: 20 }, Reason::RouteFenced, false),
            (Refusal::TimestampTooLow { floor: ts }, Reason::TimestampTooLow, false),
            (Refusal::Locked { lock: Box::new(lock()) }, Reason::Locked, false),
            (Refusal::Conflict { key: "k".into(), changed_at: ts }, Reason::TxnConflict, false),
            (Refusal::TxnTooOld { start_ts: ts, oldest: ts }, Reason::TxnTooOld, false),
            (Refusal::TxnAborted { through: Attempt::MAX }, Reason::TxnAborted, false),
            (Refusal::TxnReused, Reason::TxnReused, false),
            (Refusal::NotExpired { expire_at: ts }, Reason::FailedPrecondition, false),
            (Refusal::IdempotencyExpired { not_after: ts }, Reason::IdempotencyExpired, true),
            (Refusal::IdempotencySettled, Reason::IdempotencySettled, false),
            (Refusal::IdempotencyReused, Reason::IdempotencyReused, false),
            (Refusal::TermMismatch { admitted_term: 1, entry_term: 2 }, Reason::NotLeader, false),
        ];
        for (refusal, reason, unknown) in table {
            let error = refusal_to_error(&refusal);
            assert_eq!((error.reason, error.is_unknown()), (reason, unknown), "{refusal:?}");
            assert!(error.message.contains("changed nothing") || error.message.contains("nothing was changed"));
        }
        assert_eq!(refusal_to_error(&Refusal::RouteFenced { retry_after_ms: 20 }).retry_after_ms, Some(20));
    }
}
