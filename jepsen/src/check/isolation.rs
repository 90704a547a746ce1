//! Lists and registers in transactions: strict serializability, by the crate `adya`.

use std::time::Duration;

use adya::{History, Opts, Valid, Workload};

use super::{Finding, Outcome};
use crate::event::Event;
use crate::workload::Kind;

pub fn check(kind: Kind, events: &[Event], budget: Duration) -> Outcome {
    let text: String =
        events.iter().filter_map(|event| serde_json::to_string(event).ok()).map(|line| line + "\n").collect();
    let history = match History::from_json(&text) {
        Ok(history) => history,
        Err(error) => return Outcome { findings: Vec::new(), unknown: Some(error.to_string()) },
    };
    let is_register = kind == Kind::Wr;
    let opts = Opts {
        models: vec!["strict-serializable".into()],
        timeout: budget,
        wfr_keys: is_register,
        linearizable_keys: is_register,
        ..Opts::default()
    };
    let workload = if is_register { Workload::RwRegister } else { Workload::ListAppend };
    let report = adya::check(&history, workload, &opts);
    let anomalies = report.anomalies.values().flatten();
    let findings: Vec<Finding> =
        anomalies.map(|anomaly| Finding::new(&anomaly.kind, &anomaly.explanation, anomaly.ops.clone())).collect();
    match report.valid {
        Valid::True => Outcome::default(),
        Valid::False if findings.is_empty() => {
            vec![Finding::new("not-strictly-serializable", report.anomaly_types.join(", "), Vec::new())].into()
        }
        Valid::False => findings.into(),
        Valid::Unknown => {
            Outcome { findings: Vec::new(), unknown: Some(format!("not judged: {}", report.anomaly_types.join(", "))) }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::check::testing::history;
    use crate::check::{BUDGET, Valid, workload};
    use crate::event::Type::{Info, Invoke, Ok};
    use crate::workload::Kind;

    #[test]
    fn write_skew_is_found_and_explained_and_what_is_right_passes() {
        let skew = history(
            "append",
            &[
                (0, Invoke, "txn", json!([["r", "x", null], ["append", "y", 1]]), 0),
                (1, Invoke, "txn", json!([["r", "y", null], ["append", "x", 1]]), 0),
                (0, Ok, "txn", json!([["r", "x", []], ["append", "y", 1]]), 0),
                (1, Ok, "txn", json!([["r", "y", []], ["append", "x", 1]]), 0),
                (2, Invoke, "txn", json!([["r", "x", null], ["r", "y", null]]), 0),
                (2, Ok, "txn", json!([["r", "x", [1]], ["r", "y", [1]]]), 0),
            ],
        );
        let verdict = workload(Kind::Append, &skew, BUDGET);
        assert_eq!(verdict.valid, Valid::False);
        assert!(verdict.findings[0].explanation.contains("because"), "{verdict:?}");
        let fine = history(
            "wr",
            &[
                (0, Invoke, "txn", json!([["w", "x", 1]]), 0),
                (0, Ok, "txn", json!([["w", "x", 1]]), 0),
                (1, Invoke, "txn", json!([["w", "x", 2]]), 0),
                (1, Info, "txn", json!([["w", "x", 2]]), 0),
                (2, Invoke, "txn", json!([["r", "x", null]]), 0),
                (2, Ok, "txn", json!([["r", "x", 2]]), 0),
            ],
        );
        assert_eq!(workload(Kind::Wr, &fine, BUDGET).valid, Valid::True);
        let stale = history(
            "wr",
            &[
                (0, Invoke, "txn", json!([["r", "x", null], ["w", "x", 1]]), 0),
                (0, Ok, "txn", json!([["r", "x", null], ["w", "x", 1]]), 0),
                (2, Invoke, "txn", json!([["r", "x", null]]), 0),
                (2, Ok, "txn", json!([["r", "x", null]]), 0),
            ],
        );
        assert_eq!(workload(Kind::Wr, &stale, BUDGET).valid, Valid::False);
    }
}
