//! Answers again what has been answered; refuses what was settled or may have been forgotten.

use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_kv::{Idempotency, OpResult, Outcome, Refusal};

use crate::codec::record::OutcomeRecord;

/// Which way an operation with an idempotency key goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is no outcome yet: judge and apply it, and record its outcome.
    Proceed,
    /// This is the answer.
    Answer(OpResult),
}

/// What an operation that carries an idempotency key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// A write, with the fingerprint of what it does.
    Write { fingerprint: u64, commit_ts: Timestamp },
    /// A settle of the write that carries the key.
    Settle,
}

/// Judges an operation whose key is `idempotency` and whose recorded outcome is `recorded`.
///
/// A record outlives its `not_after` until an entry removes it, so a recorded outcome is answered whatever the
/// horizon says; without a record, at or below the horizon nobody can tell any more.
pub fn judge(
    attempt: Attempt,
    idempotency: &Idempotency,
    recorded: Option<&OutcomeRecord>,
    record_horizon: Timestamp,
) -> Verdict {
    let expired = Verdict::Answer(Err(Refusal::IdempotencyExpired { not_after: idempotency.not_after }));
    match (attempt, recorded) {
        (Attempt::Settle, Some(record)) => Verdict::Answer(Ok(record.outcome.clone())),
        (Attempt::Write { .. }, Some(OutcomeRecord { outcome: Outcome::Settled, .. })) => {
            Verdict::Answer(Err(Refusal::IdempotencySettled))
        }
        (Attempt::Write { fingerprint, .. }, Some(record)) if record.fingerprint != fingerprint => {
            Verdict::Answer(Err(Refusal::IdempotencyReused))
        }
        (Attempt::Write { .. }, Some(record)) => Verdict::Answer(Ok(record.outcome.clone())),
        (_, None) if idempotency.not_after <= record_horizon && guards::on(Guard::ForgottenRecords) => expired,
        (Attempt::Write { commit_ts, .. }, None)
            if commit_ts > idempotency.not_after && guards::on(Guard::NotAfter) =>
        {
            expired
        }
        (Attempt::Write { .. } | Attempt::Settle, None) => Verdict::Proceed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::ts;

    fn write(fingerprint: u64, commit_ts: u64) -> Attempt {
        Attempt::Write { fingerprint, commit_ts: ts(commit_ts) }
    }

    #[test]
    fn the_first_answer_is_the_only_one() {
        use Attempt::Settle;
        let written = Outcome::Written { commit_ts: ts(3) };
        let failed = Outcome::CompareFailed { current: None };
        let record =
            |outcome: &Outcome| Some(OutcomeRecord { fingerprint: 7, not_after: ts(10), outcome: outcome.clone() });
        let answer = |outcome: &Outcome| Verdict::Answer(Ok(outcome.clone()));
        let refused = |refusal| Verdict::Answer(Err(refusal));
        let expired = || refused(Refusal::IdempotencyExpired { not_after: ts(10) });
        let settled = Outcome::Settled;
        // attempt, record, horizon, verdict
        let table = [
            ("a first attempt", write(7, 5), None, 0, Verdict::Proceed),
            ("at its last moment", write(7, 10), None, 9, Verdict::Proceed),
            ("past its last moment", write(7, 11), None, 0, expired()),
            ("records may have been removed", write(7, 5), None, 10, expired()),
            ("a retry", write(7, 5), record(&written), 0, answer(&written)),
            ("a retry of a failed compare", write(7, 5), record(&failed), 0, answer(&failed)),
            ("a retry past the last moment", write(7, 11), record(&written), 0, answer(&written)),
            ("a retry whose record may go, and has not", write(7, 5), record(&written), 10, answer(&written)),
            ("another operation", write(8, 5), record(&written), 0, refused(Refusal::IdempotencyReused)),
            ("a late attempt after a settle", write(7, 5), record(&settled), 0, refused(Refusal::IdempotencySettled)),
            ("whatever it is", write(8, 99), record(&settled), 99, refused(Refusal::IdempotencySettled)),
            ("a settle of nothing", Settle, None, 0, Verdict::Proceed),
            ("a settle of something forgotten", Settle, None, 10, expired()),
            ("a settle of a write", Settle, record(&written), 0, answer(&written)),
            ("a settle of a failed compare", Settle, record(&failed), 99, answer(&failed)),
            ("a second settle", Settle, record(&settled), 0, answer(&settled)),
        ];
        let idempotency = Idempotency { key: "k".into(), not_after: ts(10) };
        for (case, attempt, recorded, horizon, expect) in table {
            assert_eq!(judge(attempt, &idempotency, recorded.as_ref(), ts(horizon)), expect, "{case}");
        }
    }
}
