//! Whether a failed attempt is tried again: a pure function of what has happened so far.

use std::time::Duration;

use drover_guards::{self as guards, Guard};
use drover_kv::{Certainty, Error, Reason};

/// How a client retries.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all; `None`: as many as fit into the deadline. With `Some(1)` writes carry no idempotency key.
    pub max_attempts: Option<u32>,
    /// Pause before the second attempt; doubles with each further one.
    pub first_backoff: Duration,
    /// Longest pause.
    pub max_backoff: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: None, first_backoff: Duration::from_millis(5), max_backoff: Duration::from_millis(500) }
    }
}

impl RetryPolicy {
    /// One attempt, no retries, no idempotency keys.
    pub fn never() -> Self {
        Self { max_attempts: Some(1), ..Self::default() }
    }

    /// Whether there can be a second attempt.
    pub fn retries(&self) -> bool {
        self.max_attempts != Some(1)
    }

    /// Half of the exponential pause plus a random share (`random` in `0..1`) of the other half, so that clients that
    /// failed together do not come back together.
    fn backoff(&self, attempts: u32, random: f64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(20);
        let full = self.first_backoff.saturating_mul(1 << doublings).min(self.max_backoff);
        full.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

/// What is being tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Changes nothing: may be sent any number of times.
    Read,
    /// A write that names its intention: may be sent again even if an earlier attempt may have applied.
    NamedWrite,
    /// A write without idempotency key: may be sent again only while every attempt so far has certainly not applied.
    BlindWrite,
}

/// The attempts of one call so far, the one that has just failed included in `attempts`, but not in `unknown`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// How many attempts were made.
    pub attempts: u32,
    /// Whether an attempt before the last one ended without a certain outcome.
    pub unknown: bool,
    /// Whether the next attempt goes to a node that has not failed this call yet: then there is nothing to wait for.
    pub fresh_target: bool,
    /// Whether the idempotency key was given by the caller, who may have used it in an earlier call.
    pub foreign_key: bool,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Pause for so long, then try again.
    Retry { after: Duration },
    /// Give up and tell the caller this.
    Fail(Error),
}

/// What an attempt's error says about the call as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Apply has spoken: the operation has not applied and never will, whatever became of earlier attempts.
    Final,
    /// The record of the operation may be gone: says nothing about earlier attempts, and never will again.
    Forgotten,
    /// Sending it again may help.
    Passing,
    /// Sending it again will not help.
    Lasting,
}

fn meaning(class: Class, error: &Error) -> Meaning {
    match error.reason {
        Reason::IdempotencySettled | Reason::IdempotencyReused => Meaning::Final,
        // A node that is told of earlier attempts settles them before it says so.
        Reason::TxnConflict | Reason::TxnAborted if !error.is_unknown() => Meaning::Final,
        Reason::IdempotencyExpired => Meaning::Forgotten,
        _ if error.is_transient() => Meaning::Passing,
        _ if error.is_unknown() && class != Class::BlindWrite => Meaning::Passing,
        _ => Meaning::Lasting,
    }
}

/// Decides what follows the failure `error` of the last attempt. `remaining` is what is left of the deadline, `random`
/// a number in `0..1`.
///
/// The error of [`Decision::Fail`] is certain only if every attempt certainly did nothing, or apply itself said so.
pub fn decide(
    policy: &RetryPolicy,
    class: Class,
    history: History,
    error: Error,
    remaining: Duration,
    random: f64,
) -> Decision {
    let before = history.unknown && guards::on(Guard::ClientUnknownSticks);
    let unknown = class != Class::Read && (before || error.is_unknown());
    let may_resend = class != Class::BlindWrite || !unknown || !guards::on(Guard::ClientBlindWriteOnce);
    let attempts_left = policy.max_attempts.is_none_or(|max| history.attempts < max);
    let pause = pause(policy, history, &error, random);
    match meaning(class, &error) {
        Meaning::Final => Decision::Fail(Error { certainty: Certainty::Definite, ..error }),
        // A pause to the deadline would only cost the caller time.
        Meaning::Passing if pause >= remaining => Decision::Fail(deadline_passed(history.attempts, unknown, &error)),
        Meaning::Passing if may_resend && attempts_left => Decision::Retry { after: pause },
        Meaning::Passing | Meaning::Lasting => Decision::Fail(given_up(error, unknown)),
        // The server cannot know of earlier attempts; this client knows all of those under a key of its own.
        Meaning::Forgotten => Decision::Fail(given_up(error, before || history.foreign_key)),
    }
}

fn pause(policy: &RetryPolicy, history: History, error: &Error, random: f64) -> Duration {
    let asked = error.retry_after_ms.map(Duration::from_millis);
    match asked {
        None if history.fresh_target => Duration::ZERO,
        None => policy.backoff(history.attempts, random),
        Some(asked) => asked.max(policy.backoff(history.attempts, random)),
    }
}

fn deadline_passed(attempts: u32, unknown: bool, last: &Error) -> Error {
    let (reason, certainty, effect) = if unknown {
        (Reason::TimeoutIndefinite, Certainty::Unknown, "it may have been applied or may still be: settle it")
    } else {
        (Reason::Timeout, Certainty::Definite, "nothing was changed; try again with a longer deadline")
    };
    let message = format!("the deadline leaves no time after {attempts} attempt(s); {effect}; last answer: {last}");
    Error { certainty, ..Error::definite(reason, message) }
}

/// What the last attempt of a request to the cluster means behind the one before, which went to another node. No answer
/// of a node but success tells what became of an attempt that another one may still pass on.
pub(crate) fn sticky(before: &Error, error: Error) -> Error {
    if !before.is_unknown() || error.is_unknown() || !guards::on(Guard::ClientUnknownSticks) {
        return error;
    }
    made_unknown(error, "but an earlier attempt may have been carried out or may still be: look, and ask again")
}

fn made_unknown(error: Error, why: &str) -> Error {
    Error {
        reason: if error.reason == Reason::Timeout { Reason::TimeoutIndefinite } else { error.reason },
        certainty: Certainty::Unknown,
        message: format!("{}; {why}", error.message),
        ..error
    }
}

fn given_up(error: Error, unknown: bool) -> Error {
    match (unknown, error.is_unknown()) {
        (true, false) => made_unknown(error, "but an earlier attempt may have been applied: settle it"),
        (true, true) => error,
        (false, _) => Error { certainty: Certainty::Definite, ..error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Got {
        Again,
        Fail(Reason, Certainty),
    }
    use Certainty::{Definite, Unknown};
    use Class::{BlindWrite, NamedWrite, Read};
    use Got::{Again, Fail};

    const LEFT: Duration = Duration::from_secs(1);
    const NONE: Duration = Duration::ZERO;

    fn got(class: Class, unknown: bool, error: Error, left: Duration) -> Got {
        let history = History { attempts: 1, unknown, ..History::default() };
        match decide(&RetryPolicy::default(), class, history, error, left, 0.5) {
            Decision::Retry { .. } => Again,
            Decision::Fail(error) => Fail(error.reason, error.certainty),
        }
    }

    #[test]
    fn every_combination_of_history_and_error_is_decided_as_the_table_says() {
        let lost = || Error::unknown(Reason::Unavailable, "connection lost");
        let not_sent = || Error::definite(Reason::Unavailable, "not connected");
        let definite = |reason| Error::definite(reason, "x");
        let table = [
            // class, an earlier attempt is unknown, this attempt's error, time left, decision
            (Read, false, not_sent(), LEFT, Again),
            (Read, false, lost(), LEFT, Again),
            (Read, false, lost(), NONE, Fail(Reason::Timeout, Definite)),
            (Read, false, definite(Reason::KeyEmpty), LEFT, Fail(Reason::KeyEmpty, Definite)),
            (Read, false, definite(Reason::SnapshotTooOld), LEFT, Fail(Reason::SnapshotTooOld, Definite)),
            (NamedWrite, false, not_sent(), LEFT, Again),
            (NamedWrite, false, lost(), LEFT, Again),
            (NamedWrite, true, lost(), LEFT, Again),
            (NamedWrite, true, not_sent(), LEFT, Again),
            (NamedWrite, false, not_sent(), NONE, Fail(Reason::Timeout, Definite)),
            (NamedWrite, false, lost(), NONE, Fail(Reason::TimeoutIndefinite, Unknown)),
            (NamedWrite, true, not_sent(), NONE, Fail(Reason::TimeoutIndefinite, Unknown)),
            (NamedWrite, false, definite(Reason::NotLeader), LEFT, Again),
            (NamedWrite, false, definite(Reason::DiskFull), LEFT, Fail(Reason::DiskFull, Definite)),
            (NamedWrite, true, definite(Reason::DiskFull), LEFT, Fail(Reason::DiskFull, Unknown)),
            (NamedWrite, true, definite(Reason::IdempotencySettled), LEFT, Fail(Reason::IdempotencySettled, Definite)),
            (NamedWrite, true, definite(Reason::IdempotencyReused), LEFT, Fail(Reason::IdempotencyReused, Definite)),
            (NamedWrite, true, definite(Reason::IdempotencyExpired), LEFT, Fail(Reason::IdempotencyExpired, Unknown)),
            (
                NamedWrite,
                false,
                Error::unknown(Reason::IdempotencyExpired, "x"),
                LEFT,
                Fail(Reason::IdempotencyExpired, Definite),
            ),
            (NamedWrite, true, definite(Reason::RouteMoved), LEFT, Again),
            (NamedWrite, false, Error::unknown(Reason::Internal, "x"), LEFT, Again),
            (NamedWrite, false, Error::unknown(Reason::TimeoutIndefinite, "x"), LEFT, Again),
            (NamedWrite, true, definite(Reason::Timeout), LEFT, Fail(Reason::TimeoutIndefinite, Unknown)),
            (BlindWrite, false, not_sent(), LEFT, Again),
            (BlindWrite, false, definite(Reason::NotLeader), LEFT, Again),
            (BlindWrite, false, lost(), LEFT, Fail(Reason::Unavailable, Unknown)),
            (BlindWrite, false, Error::unknown(Reason::Internal, "x"), LEFT, Fail(Reason::Internal, Unknown)),
            (BlindWrite, false, lost(), NONE, Fail(Reason::TimeoutIndefinite, Unknown)),
        ];
        for (class, unknown, error, left, expect) in table {
            let row = format!("{class:?} unknown before: {unknown}, {error:?}, left {left:?}");
            assert_eq!(got(class, unknown, error, left), expect, "{row}");
        }
    }

    #[test]
    fn after_an_unknown_attempt_no_reason_but_an_answer_from_apply_makes_a_write_definite() {
        for reason in Reason::ALL {
            let certain = matches!(
                reason,
                Reason::IdempotencySettled | Reason::IdempotencyReused | Reason::TxnConflict | Reason::TxnAborted
            );
            for left in [LEFT, NONE] {
                match got(NamedWrite, true, Error::definite(*reason, "x"), left) {
                    Again => assert!(!certain && !left.is_zero(), "{reason}"),
                    Fail(_, certainty) => assert_eq!(certainty == Definite, certain, "{reason}"),
                }
            }
        }
    }

    #[test]
    fn an_expired_key_of_the_callers_own_says_nothing_about_the_callers_earlier_calls() {
        let history = History { attempts: 1, foreign_key: true, ..History::default() };
        let error = Error::unknown(Reason::IdempotencyExpired, "x");
        let decision = decide(&RetryPolicy::default(), NamedWrite, history, error, LEFT, 0.0);
        assert!(matches!(decision, Decision::Fail(error) if error.is_unknown()));
    }

    #[test]
    fn the_last_attempt_is_not_followed_by_another() {
        let policy = RetryPolicy { max_attempts: Some(3), ..RetryPolicy::default() };
        let run = |attempts| {
            let history = History { attempts, ..History::default() };
            let error = Error::definite(Reason::NotLeader, "x");
            decide(&policy, NamedWrite, history, error, LEFT, 0.0)
        };
        assert!(matches!(run(2), Decision::Retry { .. }));
        assert!(matches!(run(3), Decision::Fail(error) if error.reason == Reason::NotLeader));
    }

    #[test]
    fn a_pause_that_would_last_to_the_deadline_is_not_begun() {
        let run = |left_ms| {
            let error = Error::definite(Reason::RouteFenced, "x").retry_after_ms(70);
            let history = History { attempts: 1, ..History::default() };
            decide(&RetryPolicy::default(), NamedWrite, history, error, Duration::from_millis(left_ms), 0.0)
        };
        assert_eq!(run(71), Decision::Retry { after: Duration::from_millis(70) });
        assert!(matches!(run(70), Decision::Fail(error) if error.reason == Reason::Timeout));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread_by_half() {
        let policy = RetryPolicy {
            max_attempts: None,
            first_backoff: Duration::from_millis(10),
            max_backoff: Duration::from_millis(100),
        };
        let table = [(1, 0.0, 5), (1, 1.0, 10), (2, 1.0, 20), (4, 1.0, 80), (5, 1.0, 100), (900, 0.0, 50)];
        for (attempts, random, expect_ms) in table {
            assert_eq!(policy.backoff(attempts, random), Duration::from_millis(expect_ms), "{attempts} {random}");
        }
    }

    #[test]
    fn a_pause_obeys_the_server_and_is_skipped_for_another_node() {
        let after = |error: Error, fresh_target, left| {
            let history = History { attempts: 1, fresh_target, ..History::default() };
            match decide(&RetryPolicy::default(), Read, history, error, left, 0.0) {
                Decision::Retry { after } => after,
                Decision::Fail(error) => panic!("{error}"),
            }
        };
        let fenced = || Error::definite(Reason::RouteFenced, "x").retry_after_ms(70);
        assert_eq!(after(fenced(), true, LEFT), Duration::from_millis(70));
        assert_eq!(after(Error::definite(Reason::NotLeader, "x"), true, LEFT), Duration::ZERO);
    }
}
