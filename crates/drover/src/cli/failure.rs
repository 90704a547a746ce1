//! What a command leaves that failed: a line for people, an object for scripts.

use drover_client::{Certainty, Error, Reason};
use serde_json::{Map, Value, json};

use super::exit::{End, UsageError};
use super::notation::Notation;
use super::output::Output;
use super::settle::{Settle, Unsettled};
use super::{Global, notice};

/// How the command is typed that settles an unknown outcome.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// As a command of `drover`.
    OfNodes(&'a [String]),
    /// As a line of the shell.
    InShell(Notation),
}

impl Asked<'_> {
    fn command(self, settle: &Settle) -> Option<String> {
        match self {
            Asked::OfNodes(endpoints) => settle.command(endpoints),
            Asked::InShell(notation) => settle.shell_command(notation),
        }
    }
}

/// Complains on standard error. With `--json` the failure is one object on standard output as well.
///
/// # Errors
/// If the reader of standard output is gone.
pub fn complain(
    global: &Global,
    asked: Asked<'_>,
    output: &mut Output,
    error: &anyhow::Error,
    end: End,
) -> std::io::Result<()> {
    if global.json {
        print_failure(asked, output, error, end)?;
    }
    // What was printed before stands before it.
    output.flush()?;
    notice(&format!("error: {}", told(error)));
    if let Some(settle) = settle_of(error) {
        notice(&settle.advice(asked.command(settle).as_deref()));
    }
    Ok(())
}

/// Prints the object of a failure.
///
/// # Errors
/// If the reader of standard output is gone.
pub fn print_failure(asked: Asked<'_>, output: &mut Output, error: &anyhow::Error, end: End) -> std::io::Result<()> {
    output.json(&failure_json(asked, error, end))?;
    output.flush()
}

/// An error with its causes, each once: many name their cause themselves.
pub fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

fn settle_of(error: &anyhow::Error) -> Option<&Settle> {
    error.chain().find_map(|cause| cause.downcast_ref::<Unsettled>()).map(|unsettled| &unsettled.settle)
}

/// The object of docs/cli.md.
fn failure_json(asked: Asked<'_>, error: &anyhow::Error, end: End) -> Value {
    let mut object = Map::new();
    let mut tell = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    let settle = settle_of(error);
    if let Some(error) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()) {
        tell("reason", error.reason.as_str().into());
        tell("certainty", certainty(error).into());
        tell("retry", retry(error, settle).into());
        if let Some(ms) = error.retry_after_ms {
            tell("retry_after_ms", ms.into());
        }
        if let Some(settle) = settle.and_then(|settle| settle.json(asked.command(settle))) {
            tell("settle", settle);
        }
    } else if error.chain().any(|cause| cause.is::<UsageError>()) {
        tell("certainty", "definite".into());
        tell("retry", "no".into());
    }
    tell("message", told(error).into());
    json!({ "error": object, "exit_code": end.code() })
}

fn certainty(error: &Error) -> &'static str {
    match error.certainty {
        Certainty::Definite => "definite",
        Certainty::Unknown => "unknown",
    }
}

/// Whether it helps to run the same command again.
fn retry(error: &Error, settle: Option<&Settle>) -> &'static str {
    if error.is_unknown() {
        return match settle {
            Some(Settle::Write { .. } | Settle::Txn { .. }) => "settle",
            Some(Settle::Look(_)) | None => "look",
            Some(Settle::Again) => "now",
        };
    }
    match error.reason {
        _ if error.is_transient() => "later",
        Reason::Timeout | Reason::DiskFull => "later",
        // Each run reads anew, and has names of its own.
        Reason::TxnConflict
        | Reason::TxnAborted
        | Reason::TxnTooOld
        | Reason::TxnReused
        | Reason::IdempotencySettled
        | Reason::IdempotencyReused => "now",
        _ => "no",
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use drover_client::{Idempotency, Timestamp, TxnId};

    use super::super::exit::end_of;
    use super::*;

    #[test]
    fn every_cause_of_an_error_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot lock x: {source}")]
        struct NamesItsCause {
            source: std::io::Error,
        }
        let cause = || std::io::Error::other("no space");
        let lost = || Error::unknown(Reason::Unavailable, "gone");
        let table = [
            (anyhow::Error::from(cause()), "no space"),
            (NamesItsCause { source: cause() }.into(), "cannot lock x: no space"),
            (
                Err::<(), _>(NamesItsCause { source: cause() }).context("line 7").unwrap_err(),
                "line 7: cannot lock x: no space",
            ),
            (Settle::Again.add_to(lost()), "UNAVAILABLE: gone"),
        ];
        for (error, expect) in table {
            assert_eq!(told(&error), expect);
        }
    }

    fn shown(error: &anyhow::Error) -> Value {
        failure_json(Asked::OfNodes(&["n:1".to_owned(), "n:2".to_owned()]), error, end_of(error))
    }

    #[test]
    fn a_failure_is_one_object_with_what_is_certain_and_the_exit_code() {
        let refused = Error::definite(Reason::Overloaded, "too many").retry_after_ms(30);
        let expect = json!({
            "error": {
                "reason": "OVERLOADED",
                "certainty": "definite",
                "retry": "later",
                "retry_after_ms": 30,
                "message": "line 3: OVERLOADED: too many",
            },
            "exit_code": 4,
        });
        assert_eq!(shown(&anyhow::Error::from(refused).context("line 3")), expect);
        let usage = json!({ "error": { "certainty": "definite", "retry": "no", "message": "not so" }, "exit_code": 2 });
        assert_eq!(shown(&UsageError("not so".to_owned()).into()), usage);
        let local = json!({ "error": { "message": "no space" }, "exit_code": 5 });
        assert_eq!(shown(&std::io::Error::other("no space").into()), local);
    }

    #[test]
    fn an_unknown_outcome_has_what_settles_it_in_the_object_and_in_words() {
        let lost = || Error::unknown(Reason::Unavailable, "gone");
        let name = Idempotency { key: "\x01\x02".into(), not_after: Timestamp::from_raw(65_537) };
        let txn = Settle::Txn { id: TxnId([7; 16]), primary: "a b".into() };
        let id = "07".repeat(16);
        let table = [
            (
                Settle::Write { key: "k v".into(), name },
                "settle",
                json!({
                    "key_hex": "6b2076",
                    "idempotency_key": "0102",
                    "not_after": "1.1",
                    "command": "drover kv settle --hex 6b2076 --idempotency-key 0102 --not-after 1.1 --endpoints n:1,n:2",
                }),
                Some("settle \"k v\" --idempotency-key 0102 --not-after 1.1".to_owned()),
            ),
            (
                txn,
                "settle",
                json!({
                    "transaction": id,
                    "primary_hex": "612062",
                    "command": format!("drover txn status --hex {id} 612062 --endpoints n:1,n:2"),
                }),
                Some(format!("txn status {id} \"a b\"")),
            ),
            (
                Settle::Look("group list".to_owned()),
                "look",
                json!({ "command": "drover group list --endpoints n:1,n:2" }),
                None,
            ),
            (Settle::Again, "now", Value::Null, None),
        ];
        for (settle, retry, object, line) in table {
            assert_eq!(settle.shell_command(Notation::Escaped), line);
            let command = object["command"].as_str();
            assert!(settle.advice(command).contains(command.unwrap_or("do the same again")), "{settle:?}");
            let error = settle.add_to(lost()).context("line 3");
            let failure = shown(&error);
            assert_eq!(failure["error"]["settle"], object, "{failure}");
            assert_eq!((&failure["error"]["retry"], &failure["exit_code"]), (&retry.into(), &3.into()), "{failure}");
        }
        // Of what is certain there is nothing to settle.
        let refused = Settle::Again.add_to(Error::definite(Reason::KeyEmpty, "no key"));
        assert_eq!(shown(&refused)["error"]["retry"], "no");
    }

    #[test]
    fn each_definite_reason_says_whether_to_run_it_again() {
        let by = |retry: &str| {
            let reasons =
                Reason::ALL.iter().filter(|reason| super::retry(&Error::definite(**reason, ""), None) == retry);
            reasons.map(|reason| reason.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(
            by("now"),
            ["TXN_CONFLICT", "TXN_ABORTED", "TXN_TOO_OLD", "TXN_REUSED", "IDEMPOTENCY_SETTLED", "IDEMPOTENCY_REUSED"]
        );
        assert_eq!(
            by("later"),
            [
                "NOT_LEADER",
                "UNAVAILABLE",
                "ROUTE_MOVED",
                "CUTOVER_PENDING",
                "STALE_ROUTE",
                "ROUTE_FENCED",
                "TIMESTAMP_TOO_LOW",
                "LOCKED",
                "TIMEOUT",
                "OVERLOADED",
                "DISK_FULL",
                "SHUTTING_DOWN",
                "REPLICA_STOPPED"
            ]
        );
    }
}
