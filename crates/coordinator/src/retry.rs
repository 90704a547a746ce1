//! When another attempt is safe, and what a failed operation is reported as. Pure.

use drover_guards::{self as guards, Guard};
use drover_keys::NodeId;
use drover_kv::{Error, Reason};

/// How an operation behaves when it is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It has no effect.
    Read,
    /// Apply recognises the second time by its idempotency key.
    Recognised,
    /// As `Recognised`; it is the step of a transaction that holds locks, which waits for no fence: what the fence waits for may
    /// be one of them.
    Holder,
    /// It would be applied twice.
    Never,
}

/// How one attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The node answered with an error.
    Answered(Error),
    /// The request did not leave this node.
    NotSent(String),
    /// The request left, the answer did not come.
    Lost(String),
}

impl Failure {
    /// As it is told to somebody who does not try again.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Answered(error) => error,
            Failure::NotSent(why) => {
                Error::definite(Reason::Unavailable, format!("the request was not sent: {why}; nothing happened"))
            }
            Failure::Lost(why) => lost(&why),
        }
    }
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Give this to the caller.
    GiveUp(Error),
    /// Try again, at the node that is said to lead if it is known.
    Again { leader: Option<NodeId>, unknown: bool },
    /// The operation went to the wrong group, or was routed by a map that is too old: route it anew.
    Reroute { error: Error, unknown: bool },
    /// A lock stands in the way, which has to be dealt with first.
    Unblock(Error),
    /// Writes to the range are held back: send it again when its route has changed.
    Park { error: Error, unknown: bool },
}

/// Judges a failed attempt. `unknown` tells whether an earlier attempt may have been logged.
pub fn decide(repeat: Repeat, unknown: bool, failure: Failure) -> Next {
    match failure {
        Failure::NotSent(_) => Next::Again { leader: None, unknown },
        Failure::Lost(why) => after_unknown(repeat, lost(&why)),
        // Nothing is known of earlier attempts, and never will be: another one gets the same answer.
        Failure::Answered(error) if error.reason == Reason::IdempotencyExpired => Next::GiveUp(settle(unknown, error)),
        Failure::Answered(error) if error.is_unknown() => after_unknown(repeat, error),
        Failure::Answered(error) if is_misrouted(error.reason) => Next::Reroute { error, unknown },
        Failure::Answered(error) if error.lock.is_some() => Next::Unblock(error),
        Failure::Answered(error)
            if error.reason == Reason::RouteFenced
                && repeat == Repeat::Holder
                && guards::on(Guard::HolderNeverParks) =>
        {
            Next::GiveUp(settle(unknown, error))
        }
        Failure::Answered(error) if error.reason == Reason::RouteFenced => Next::Park { error, unknown },
        // The time of one attempt is over, not the caller's: that is for the caller of this function to know.
        Failure::Answered(error) if error.is_transient() || error.reason == Reason::Timeout => {
            Next::Again { leader: error.leader_hint, unknown }
        }
        Failure::Answered(error) => Next::GiveUp(settle(unknown, error)),
    }
}

/// Whether the group refused because of who owns what: only another route can help.
pub fn is_misrouted(reason: Reason) -> bool {
    matches!(reason, Reason::RouteMoved | Reason::StaleRoute | Reason::CutoverPending)
}

fn after_unknown(repeat: Repeat, error: Error) -> Next {
    match repeat {
        Repeat::Read => Next::Again { leader: error.leader_hint, unknown: false },
        Repeat::Recognised | Repeat::Holder => Next::Again { leader: error.leader_hint, unknown: true },
        Repeat::Never if !guards::on(Guard::BlindWriteOnce) => Next::Again { leader: error.leader_hint, unknown: true },
        Repeat::Never => Next::GiveUp(Error { certainty: drover_kv::Certainty::Unknown, ..error }),
    }
}

/// What the caller is told at the deadline; `last` is what the last attempt failed with.
pub fn at_deadline(unknown: bool, last: Option<&Failure>) -> Error {
    let why = match last {
        None => "no attempt was finished".to_owned(),
        Some(Failure::Answered(error)) => error.to_string(),
        Some(Failure::NotSent(why) | Failure::Lost(why)) => why.clone(),
    };
    if unknown {
        Error::unknown(
            Reason::TimeoutIndefinite,
            format!(
                "the deadline passed after an attempt whose answer was lost ({why}); it may have happened: settle it by its idempotency key"
            ),
        )
    } else {
        Error::definite(
            Reason::Timeout,
            format!("the deadline passed and nothing happened; the last attempt ended with: {why}"),
        )
    }
}

/// What the caller is told who is not let wait any longer. `unknown` tells whether an attempt may have been logged.
pub fn turned_away(unknown: bool, error: Error) -> Error {
    settle(unknown, error)
}

/// After an unknown attempt only an answer from apply is definite.
fn settle(unknown: bool, error: Error) -> Error {
    let from_apply = matches!(error.reason, Reason::IdempotencySettled | Reason::IdempotencyReused);
    if !unknown || from_apply || !guards::on(Guard::UnknownSticks) {
        return error;
    }
    let message = format!("an earlier attempt may have happened: {}", error.message);
    Error { certainty: drover_kv::Certainty::Unknown, message, ..error }
}

fn lost(why: &str) -> Error {
    Error::unknown(
        Reason::TimeoutIndefinite,
        format!(
            "the answer was lost ({why}); it may have happened: read the key, or send writes with an idempotency key"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definite(reason: Reason) -> Failure {
        Failure::Answered(Error::definite(reason, "x"))
    }

    fn unknown(reason: Reason) -> Failure {
        Failure::Answered(Error::unknown(reason, "x"))
    }

    /// (again?, unknown afterwards)
    fn verdict(next: &Next) -> (bool, bool) {
        match next {
            Next::Again { unknown, .. } | Next::Reroute { unknown, .. } | Next::Park { unknown, .. } => {
                (true, *unknown)
            }
            Next::GiveUp(error) => (false, error.is_unknown()),
            Next::Unblock(_) => panic!("no failure of these tables names a lock"),
        }
    }

    #[test]
    fn a_refusal_that_names_a_lock_leads_to_the_lock() {
        let lock = drover_kv::LockInfo {
            key: "k".into(),
            txn: drover_kv::TxnRef { id: drover_kv::TxnId([1; 16]), attempt: drover_kv::Attempt::default() },
            primary: "p".into(),
            start_ts: drover_hlc::Timestamp::from_raw(1),
            expire_at: drover_hlc::Timestamp::from_raw(2),
        };
        let error = Error { lock: Some(Box::new(lock)), ..Error::definite(Reason::Locked, "x") };
        for repeat in [Repeat::Read, Repeat::Recognised, Repeat::Never] {
            let next = decide(repeat, false, Failure::Answered(error.clone()));
            assert_eq!(next, Next::Unblock(error.clone()));
        }
    }

    #[test]
    fn every_kind_of_failure_meets_every_kind_of_operation() {
        use Repeat::{Never, Read, Recognised};
        let gone = || Failure::Lost("reset".to_owned());
        let unsent = || Failure::NotSent("refused".to_owned());
        #[rustfmt::skip]
        let table = [
            // repeat, unknown before, failure, (again, unknown after)
            (Read, false, gone(), (true, false)),
            (Read, false, unknown(Reason::ReplicaStopped), (true, false)),
            (Never, false, gone(), (false, true)),
            (Never, false, unknown(Reason::TimeoutIndefinite), (false, true)),
            (Never, false, unsent(), (true, false)),
            (Never, false, definite(Reason::NotLeader), (true, false)),
            (Never, false, definite(Reason::StaleRoute), (true, false)),
            (Never, false, definite(Reason::KeyTooLarge), (false, false)),
            (Recognised, false, gone(), (true, true)),
            (Recognised, true, unsent(), (true, true)),
            (Recognised, true, definite(Reason::NotLeader), (true, true)),
            (Never, false, definite(Reason::Timeout), (true, false)),
            (Recognised, false, definite(Reason::Timeout), (true, false)),
            (Recognised, true, definite(Reason::Timeout), (true, true)),
            (Recognised, true, definite(Reason::DiskFull), (false, true)),
            (Recognised, true, definite(Reason::IdempotencyExpired), (false, true)),
            (Recognised, false, unknown(Reason::IdempotencyExpired), (false, true)),
            (Recognised, true, unknown(Reason::IdempotencyExpired), (false, true)),
            (Recognised, false, unknown(Reason::TimeoutIndefinite), (true, true)),
            (Recognised, true, definite(Reason::IdempotencySettled), (false, false)),
            (Recognised, true, definite(Reason::IdempotencyReused), (false, false)),
        ];
        for (repeat, before, failure, expect) in table {
            let next = decide(repeat, before, failure.clone());
            assert_eq!(verdict(&next), expect, "{repeat:?} {before} {failure:?} -> {next:?}");
        }
    }

    #[test]
    fn refusals_by_ownership_lead_to_another_route_and_keep_what_is_unknown() {
        for reason in Reason::ALL {
            for before in [false, true] {
                let next = decide(Repeat::Recognised, before, definite(*reason));
                let rerouted = matches!(next, Next::Reroute { unknown, .. } if unknown == before);
                assert_eq!(rerouted, is_misrouted(*reason), "{reason}");
            }
        }
    }

    #[test]
    fn a_fence_parks_whatever_may_wait_and_who_holds_locks_gives_up() {
        for before in [false, true] {
            for repeat in [Repeat::Read, Repeat::Recognised, Repeat::Never] {
                let next = decide(repeat, before, definite(Reason::RouteFenced));
                assert!(matches!(next, Next::Park { unknown, .. } if unknown == before), "{repeat:?}: {next:?}");
            }
            let next = decide(Repeat::Holder, before, definite(Reason::RouteFenced));
            assert!(matches!(&next, Next::GiveUp(error) if error.is_unknown() == before), "{next:?}");
        }
    }

    #[test]
    fn who_is_turned_away_is_told_that_nothing_happened_only_if_that_is_certain() {
        for unknown in [false, true] {
            let error = turned_away(unknown, Error::definite(Reason::Unavailable, "full").retry_after_ms(50));
            assert_eq!((error.reason, error.is_unknown()), (Reason::Unavailable, unknown));
            assert_eq!(error.retry_after_ms, Some(50));
        }
    }

    #[test]
    fn the_deadline_is_definite_only_if_no_attempt_was_unknown() {
        assert_eq!(at_deadline(false, None).reason, Reason::Timeout);
        let late = at_deadline(true, Some(&definite(Reason::NotLeader)));
        assert_eq!((late.reason, late.is_unknown()), (Reason::TimeoutIndefinite, true));
    }

    #[test]
    fn a_hint_is_followed() {
        let error = Error::definite(Reason::NotLeader, "x").leader_hint(Some(NodeId(3)));
        assert_eq!(
            decide(Repeat::Read, false, Failure::Answered(error)),
            Next::Again { leader: Some(NodeId(3)), unknown: false }
        );
    }
}
