use std::time::Duration;

use adya::{History, Opts, Valid, Workload};

use super::Findings;
use crate::workload::Kind;

/// Checks a history of transactions in Jepsen's format, one JSON object a line, for strict serializability.
///
/// # Errors
/// What contradicts it. A history that shows nothing, or is not judged within `budget`, is an error as well.
pub fn strictly_serializable(history: &str, kind: Kind, budget: Duration) -> Result<(), Findings> {
    let history = History::from_json(history).map_err(|error| Findings(vec![error.to_string()]))?;
    let workload = match kind {
        Kind::List => Workload::ListAppend,
        Kind::Register => Workload::RwRegister,
    };
    let opts = Opts {
        models: vec!["strict-serializable".into()],
        timeout: budget,
        wfr_keys: kind == Kind::Register,
        linearizable_keys: kind == Kind::Register,
        ..Opts::default()
    };
    let report = adya::check(&history, workload, &opts);
    let verdict = match report.valid {
        Valid::True => return Ok(()),
        Valid::False => "not strictly serializable",
        Valid::Unknown => "not judged, which shows nothing",
    };
    let mut found = vec![format!("{verdict}: {}", report.anomaly_types.join(", "))];
    found.extend(report.anomalies.values().flatten().map(|anomaly| anomaly.explanation.clone()));
    Err(Findings(found))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const BUDGET: Duration = Duration::from_secs(10);

    /// Transactions as (process, how it ended, what it did), all under way at once if `at_once`, otherwise one after the
    /// other.
    fn history(at_once: bool, transactions: &[(u64, &str, Value)]) -> String {
        let begin =
            |(process, _, value): &(u64, &str, Value)| json!({"type": "invoke", "process": process, "value": value});
        let end =
            |(process, kind, value): &(u64, &str, Value)| json!({"type": kind, "process": process, "value": value});
        let events: Vec<Value> = match at_once {
            true => transactions.iter().map(begin).chain(transactions.iter().map(end)).collect(),
            false => transactions.iter().flat_map(|one| [begin(one), end(one)]).collect(),
        };
        events.iter().map(|event| format!("{event}\n")).collect()
    }

    fn check(kind: Kind, at_once: bool, transactions: &[(u64, &str, Value)]) -> Result<(), Findings> {
        strictly_serializable(&history(at_once, transactions), kind, BUDGET)
    }

    #[test]
    fn lists_that_contradict_each_other_are_found() {
        let fine = [
            (0, "ok", json!([["append", "x", 1], ["append", "y", 1]])),
            (1, "ok", json!([["r", "x", [1]], ["append", "x", 2]])),
            (2, "info", json!([["append", "x", 3]])),
            (3, "ok", json!([["r", "x", [1, 2]], ["r", "y", [1]]])),
        ];
        assert_eq!(check(Kind::List, false, &fine), Ok(()));
        let table = [
            (
                "write skew",
                true,
                vec![
                    (0, "ok", json!([["r", "x", []], ["append", "y", 1]])),
                    (1, "ok", json!([["r", "y", []], ["append", "x", 1]])),
                    (2, "ok", json!([["r", "x", [1]], ["r", "y", [1]]])),
                ],
            ),
            (
                "half of a transaction",
                false,
                vec![
                    (0, "ok", json!([["append", "x", 1], ["append", "y", 1]])),
                    (1, "ok", json!([["r", "x", [1]], ["r", "y", []]])),
                ],
            ),
            (
                "a stale read",
                false,
                vec![
                    (0, "ok", json!([["append", "x", 1]])),
                    (1, "ok", json!([["r", "x", []]])),
                    (2, "ok", json!([["r", "x", [1]]])),
                ],
            ),
            (
                "a refused one that is there",
                false,
                vec![(0, "fail", json!([["append", "x", 1]])), (1, "ok", json!([["r", "x", [1]]]))],
            ),
            (
                "an acknowledged one that is gone",
                false,
                vec![
                    (0, "ok", json!([["append", "x", 1]])),
                    (1, "ok", json!([["append", "x", 2]])),
                    (2, "ok", json!([["r", "x", [2]]])),
                ],
            ),
        ];
        for (case, at_once, transactions) in table {
            assert!(check(Kind::List, at_once, &transactions).is_err(), "{case}");
        }
    }

    #[test]
    fn registers_that_contradict_each_other_are_found() {
        let fine = [
            (0, "ok", json!([["w", "x", 1], ["w", "y", 1]])),
            (1, "ok", json!([["r", "x", 1], ["w", "x", 2]])),
            (2, "ok", json!([["r", "x", 2], ["r", "y", 1]])),
        ];
        assert_eq!(check(Kind::Register, false, &fine), Ok(()));
        let stale = [
            (0, "ok", json!([["r", "x", null], ["w", "x", 1]])),
            (1, "ok", json!([["r", "x", 1], ["w", "x", 2]])),
            (2, "ok", json!([["r", "x", 1]])),
        ];
        assert!(check(Kind::Register, false, &stale).is_err());
        let half = [
            (0, "ok", json!([["r", "x", null], ["r", "y", null], ["w", "x", 1], ["w", "y", 1]])),
            (1, "ok", json!([["r", "x", 1], ["r", "y", null]])),
        ];
        assert!(check(Kind::Register, false, &half).is_err());
    }

    #[test]
    fn a_history_that_shows_nothing_or_cannot_be_read_fails() {
        let nothing = check(Kind::List, false, &[(0, "info", json!([["append", "x", 1]]))]).unwrap_err();
        assert!(nothing.to_string().contains("shows nothing"), "{nothing}");
        assert!(strictly_serializable("{", Kind::List, BUDGET).is_err());
    }
}
