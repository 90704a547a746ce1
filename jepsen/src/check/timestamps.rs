//! Commit timestamps are unique and follow real time, whatever the keys; a snapshot is at or above everything that was
//! acknowledged before it, and what is written afterwards is above it.

use std::collections::BTreeMap;

use super::{Finding, indices};
use crate::event::{Op, Type};

pub fn check(ops: &[Op<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut owners: BTreeMap<u64, &Op<'_>> = BTreeMap::new();
    // Calls and returns in the order in which they happened.
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (number, op) in ops.iter().enumerate() {
        let Some((end, _, _)) = stamp(op) else { continue };
        events.push((op.invoke.index, true, number));
        events.push((end, false, number));
    }
    events.sort_unstable();
    let mut highest: Option<(u64, usize)> = None;
    let mut floors: BTreeMap<usize, Option<(u64, usize)>> = BTreeMap::new();
    for (_, is_call, number) in events {
        if is_call {
            floors.insert(number, highest);
            continue;
        }
        let op = &ops[number];
        let Some((_, ts, is_write)) = stamp(op) else { continue };
        if is_write && let Some(other) = owners.insert(ts, op) {
            let what = format!("commit timestamp {ts} was given twice");
            found.push(Finding::new("timestamp-twice", what, [indices(other), indices(op)].concat()));
        }
        if let Some(Some((floor, other))) = floors.get(&number)
            && (ts < *floor || (is_write && ts == *floor))
        {
            let what = format!("{ts} was given after {floor} had been answered");
            found.push(Finding::new("timestamp-back", what, [indices(&ops[*other]), indices(op)].concat()));
        }
        if highest.is_none_or(|(high, _)| ts > high) {
            highest = Some((ts, number));
        }
    }
    found
}

/// When an operation ended, its timestamp, and whether it wrote.
fn stamp(op: &Op<'_>) -> Option<(u64, u64, bool)> {
    let end = op.end.filter(|end| end.kind == Type::Ok)?;
    let read = end.value.get("read_ts").and_then(serde_json::Value::as_u64);
    end.ts.map(|ts| (end.index, ts, true)).or(read.map(|ts| (end.index, ts, false)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::check::testing::{history, sequence};
    use crate::check::{BUDGET, Valid, workload};
    use crate::event::Type::{Invoke, Ok};
    use crate::workload::Kind;

    #[test]
    fn timestamps_follow_real_time_and_are_unique() {
        let write = |ts: u64| (Ok, "write", json!(null), json!(null), ts);
        let stamp = |ts: u64| (Ok, "stamp", json!(null), json!({"read_ts": ts}), 0);
        let table = [
            (vec![write(1), write(2), stamp(2), stamp(2), write(3)], Valid::True),
            (vec![write(2), write(1)], Valid::False),
            (vec![write(2), write(2)], Valid::False),
            (vec![write(2), stamp(1)], Valid::False),
            (vec![stamp(2), write(2)], Valid::False),
        ];
        for (ops, valid) in table {
            assert_eq!(workload(Kind::Monotonic, &sequence("monotonic", &ops), BUDGET).valid, valid, "{ops:?}");
        }
        let at_once = history(
            "monotonic",
            &[
                (0, Invoke, "write", json!(null), 0),
                (1, Invoke, "write", json!(null), 0),
                (0, Ok, "write", json!(null), 2),
                (1, Ok, "write", json!(null), 1),
            ],
        );
        assert_eq!(workload(Kind::Monotonic, &at_once, BUDGET).valid, Valid::True);
    }
}
