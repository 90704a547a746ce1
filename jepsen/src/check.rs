//! Decides whether what clients saw could have happened. Everything here is pure: events in, a [`Verdict`] out.

mod bank;
mod counter;
mod isolation;
mod pairs;
mod registers;
mod sets;
mod timestamps;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Op, Type, operations};
use crate::workload::Kind;

/// Longest time for one check.
pub const BUDGET: Duration = Duration::from_secs(120);
/// Most findings of one check that are explained.
const EXPLAINED: usize = 20;

/// What a check came to. Whoever asks whether all is well has to treat `Unknown` as no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Valid {
    /// It could have happened.
    True,
    /// The check gave up, or had nothing to judge.
    Unknown,
    /// It could not have happened.
    False,
}

/// Something that could not have happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its kind.
    pub name: String,
    /// Why not, for people.
    pub explanation: String,
    /// The events concerned, by their index.
    pub events: Vec<u64>,
}

impl Finding {
    pub(crate) fn new(name: &str, explanation: impl Into<String>, events: Vec<u64>) -> Self {
        Self { name: name.to_owned(), explanation: explanation.into(), events }
    }
}

/// What was found in the history of one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The whole of it.
    pub valid: Valid,
    /// What speaks against it.
    pub findings: Vec<Finding>,
    /// Operations by how they ended.
    pub counts: BTreeMap<String, u64>,
    /// Why nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// Checks all that one workload did.
pub fn workload(kind: Kind, events: &[Event], budget: Duration) -> Verdict {
    let own: Vec<Event> =
        events.iter().filter(|event| event.workload.as_deref() == Some(kind.name())).cloned().collect();
    let ops = operations(&own);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for op in &ops {
        *counts.entry(format!("{} {}", op.invoke.f, op.kind().as_str())).or_default() += 1;
    }
    let mut outcome = match kind {
        Kind::Append | Kind::Wr => isolation::check(kind, &own, budget),
        Kind::Register | Kind::Delete | Kind::Stale => registers::check(&ops, budget),
        Kind::Bank => bank::check(&ops).into(),
        Kind::Set => sets::check(&ops).into(),
        Kind::Counter => counter::check(&ops).into(),
        Kind::Monotonic => Vec::new().into(),
        Kind::LongFork => pairs::long_fork(&ops).into(),
        Kind::Predicate => pairs::predicate(&ops).into(),
    };
    outcome.findings.extend(timestamps::check(&ops));
    outcome.findings.extend(strange_values(&ops));
    if !ops.iter().any(|op| op.ok().is_some()) {
        outcome.unknown.get_or_insert("no operation happened".to_owned());
    }
    let valid = match (outcome.findings.is_empty(), &outcome.unknown) {
        (false, _) => Valid::False,
        (true, Some(_)) => Valid::Unknown,
        (true, None) => Valid::True,
    };
    outcome.findings.truncate(EXPLAINED);
    Verdict { valid, findings: outcome.findings, counts, unknown: outcome.unknown }
}

/// Timestamps of all workloads together.
pub fn all_timestamps(events: &[Event]) -> Vec<Finding> {
    let mut found = timestamps::check(&operations(events));
    found.truncate(EXPLAINED);
    found
}

#[derive(Debug, Default)]
struct Outcome {
    findings: Vec<Finding>,
    unknown: Option<String>,
}

impl From<Vec<Finding>> for Outcome {
    fn from(findings: Vec<Finding>) -> Self {
        Outcome { findings, unknown: None }
    }
}

/// Values that no client wrote.
fn strange_values(ops: &[Op<'_>]) -> Vec<Finding> {
    let ends = ops.iter().filter_map(|op| op.end);
    let strange = ends.filter(|end| end.error.as_ref().is_some_and(|error| error.contains("STRANGE VALUE")));
    strange.map(|end| Finding::new("strange-value", end.error.clone().unwrap_or_default(), vec![end.index])).collect()
}

/// The indices of an operation's events.
fn indices(op: &Op<'_>) -> Vec<u64> {
    std::iter::once(op.invoke.index).chain(op.end.map(|end| end.index)).collect()
}

/// Whether an operation may have had an effect.
fn may_have_happened(op: &Op<'_>) -> bool {
    matches!(op.kind(), Type::Ok | Type::Info)
}

#[cfg(test)]
pub(crate) mod testing {
    use serde_json::Value;

    use crate::event::{Ended, Event, Recorder, Type, Who};

    /// A history as lines of (process, type, f, value, timestamp).
    pub fn history(workload: &'static str, lines: &[(u64, Type, &str, Value, u64)]) -> Vec<Event> {
        let recorder = Recorder::new();
        for (process, kind, f, value, ts) in lines {
            let who = Who { process: *process, workload, node: None };
            match kind {
                Type::Invoke => recorder.invoke(&who, f, value.clone()),
                _ => {
                    let ended = Ended { kind: *kind, value: value.clone(), ts: None, error: None };
                    recorder.end(&who, f, ended.at(*ts));
                }
            }
        }
        recorder.history()
    }

    /// Operations one after the other: (type of the end, f, what was asked, what came of it, timestamp).
    pub fn sequence(workload: &'static str, ops: &[(Type, &str, Value, Value, u64)]) -> Vec<Event> {
        let lines: Vec<_> = ops
            .iter()
            .zip(0..)
            .flat_map(|((kind, f, asked, got, ts), process)| {
                [(process, Type::Invoke, *f, asked.clone(), 0), (process, *kind, *f, got.clone(), *ts)]
            })
            .collect();
        history(workload, &lines)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_happened_is_unknown_and_no_pass() {
        let verdict = workload(Kind::Set, &[], BUDGET);
        assert_eq!(verdict.valid, Valid::Unknown);
        let refused = testing::sequence("set", &[(Type::Fail, "add", json!(1), json!(1), 0)]);
        assert_eq!(workload(Kind::Set, &refused, BUDGET).valid, Valid::Unknown);
    }

    #[test]
    fn a_value_that_nobody_wrote_is_found() {
        let mut events = testing::sequence("bank", &[(Type::Fail, "read", json!(null), json!(null), 0)]);
        events[1].error = Some("INTERNAL: STRANGE VALUE b\"x\"".to_owned());
        assert_eq!(workload(Kind::Bank, &events, BUDGET).valid, Valid::False);
    }
}
