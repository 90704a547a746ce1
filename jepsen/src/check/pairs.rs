//! Pairs of keys: one order of two writes, and one row in two ranges that were found empty.

use std::collections::BTreeMap;

use drover_testkit::check::{Look, no_long_fork};
use serde_json::Value;

use super::{Finding, indices, may_have_happened};
use crate::event::Op;

pub fn long_fork(ops: &[Op<'_>]) -> Vec<Finding> {
    let looks: Vec<Look> = ops
        .iter()
        .filter_map(|op| {
            let value = &op.ok().filter(|end| end.f == "look")?.value;
            let seen = value["seen"].as_array()?;
            Some(Look {
                pair: value["pair"].as_u64()?,
                how: format!("the look that began at event {}", op.invoke.index),
                seen: [seen.first()?.as_bool()?, seen.get(1)?.as_bool()?],
            })
        })
        .collect();
    match no_long_fork(&looks) {
        Ok(()) => Vec::new(),
        Err(found) => found.0.into_iter().map(|what| Finding::new("long-fork", what, Vec::new())).collect(),
    }
}

pub fn predicate(ops: &[Op<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut inserted: BTreeMap<u64, &Op<'_>> = BTreeMap::new();
    let mut possible: BTreeMap<u64, &Op<'_>> = BTreeMap::new();
    let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or(0);
    for op in ops.iter().filter(|op| op.invoke.f == "insert" && may_have_happened(op)) {
        let (pair, row) = (number(&op.invoke.value, "pair"), number(&op.invoke.value, "row"));
        possible.insert(row, op);
        if op.ok().is_none() {
            continue;
        }
        if let Some(other) = inserted.insert(pair, op) {
            let what = format!("two transactions both found pair {pair} empty and put a row into it");
            found.push(Finding::new("phantom", what, [indices(other), indices(op)].concat()));
        }
    }
    for op in ops.iter().filter(|op| op.invoke.f == "read") {
        let Some(end) = op.ok() else { continue };
        let pair = number(&end.value, "pair");
        let rows: Vec<u64> = end.value["rows"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let acknowledged = inserted.get(&pair).map(|op| number(&op.invoke.value, "row"));
        if rows.len() > 1 {
            let what = format!("pair {pair} holds {} rows, each put into it when it was empty: {rows:?}", rows.len());
            found.push(Finding::new("phantom", what, indices(op)));
        } else if acknowledged.is_some() && rows.first().copied() != acknowledged {
            let what = format!("pair {pair} holds {rows:?}; {acknowledged:?} was acknowledged");
            found.push(Finding::new("lost-row", what, indices(op)));
        } else if let Some(row) = rows.first().filter(|row| !possible.contains_key(row)) {
            found.push(Finding::new("refused-row", format!("pair {pair} holds {row}, which was refused"), indices(op)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::check::testing::sequence;
    use crate::check::{BUDGET, Valid, workload};
    use crate::event::Type::{Fail, Info, Ok};
    use crate::workload::Kind;

    #[test]
    fn two_orders_of_two_writes_are_a_fork() {
        let look =
            |one: bool, other: bool| (Ok, "look", json!({"pair": 0}), json!({"pair": 0, "seen": [one, other]}), 0);
        let table = [
            (vec![look(false, false), look(true, false), look(true, true)], Valid::True),
            (vec![look(true, false), look(false, true)], Valid::False),
        ];
        for (ops, valid) in table {
            assert_eq!(workload(Kind::LongFork, &sequence("long-fork", &ops), BUDGET).valid, valid, "{ops:?}");
        }
    }

    #[test]
    fn only_one_finds_a_pair_of_ranges_empty() {
        let insert = |kind, row: u64| {
            let value = json!({"pair": 3, "which": 0, "row": row});
            (kind, "insert", value.clone(), value, 0)
        };
        let read = |rows: serde_json::Value| (Ok, "read", json!({"pair": 3}), json!({"pair": 3, "rows": rows}), 0);
        let table = [
            (vec![insert(Ok, 1), insert(Fail, 2), read(json!([1]))], Valid::True),
            (vec![insert(Info, 1), insert(Fail, 2), read(json!([1]))], Valid::True),
            (vec![insert(Info, 1), read(json!([]))], Valid::True),
            (vec![insert(Ok, 1), insert(Ok, 2), read(json!([1, 2]))], Valid::False),
            (vec![insert(Info, 1), insert(Info, 2), read(json!([1, 2]))], Valid::False),
            (vec![insert(Ok, 1), read(json!([]))], Valid::False),
            (vec![insert(Fail, 1), read(json!([1]))], Valid::False),
        ];
        for (ops, valid) in table {
            assert_eq!(workload(Kind::Predicate, &sequence("predicate", &ops), BUDGET).valid, valid, "{ops:?}");
        }
    }
}
