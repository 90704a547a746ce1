//! Everything that was added is in every later read, and what was seen once stays.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Finding, may_have_happened};
use crate::event::Op;

pub fn check(ops: &[Op<'_>]) -> Vec<Finding> {
    let adds: BTreeMap<u64, &Op<'_>> =
        ops.iter().filter(|op| op.invoke.f == "add").filter_map(|op| Some((op.invoke.value.as_u64()?, op))).collect();
    // When each element was certainly there: its add was acknowledged, or somebody had read it.
    let mut since: BTreeMap<u64, u64> = BTreeMap::new();
    for (element, op) in &adds {
        if let Some(end) = op.ok() {
            since.insert(*element, end.index);
        }
    }
    let mut reads: Vec<(&Op<'_>, u64, BTreeSet<u64>)> = Vec::new();
    for op in ops.iter().filter(|op| op.invoke.f == "read") {
        let Some(end) = op.ok() else { continue };
        let seen: BTreeSet<u64> = end.value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        reads.push((op, end.index, seen));
    }
    for (_, ended, seen) in &reads {
        for element in seen {
            let first = since.entry(*element).or_insert(*ended);
            *first = (*first).min(*ended);
        }
    }
    let mut found = Vec::new();
    for (op, ended, seen) in &reads {
        let lost: Vec<u64> = since
            .iter()
            .filter(|(element, since)| **since < op.invoke.index && !seen.contains(element))
            .map(|(element, _)| *element)
            .collect();
        if let Some(first) = lost.first() {
            let what = format!(
                "{} elements were there before this read began and are not in it: {:?}; {first} was there since event {}",
                lost.len(),
                &lost[..lost.len().min(10)],
                since[first],
            );
            found.push(Finding::new("lost", what, vec![since[first], op.invoke.index, *ended]));
        }
        let strange = seen
            .iter()
            .filter(|element| adds.get(element).is_none_or(|add| !may_have_happened(add) || add.invoke.index > *ended));
        let strange: Vec<u64> = strange.copied().collect();
        if !strange.is_empty() {
            let what = format!("elements that were refused, or not added yet, were read: {strange:?}");
            found.push(Finding::new("never-added", what, vec![op.invoke.index, *ended]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::check::testing::{history, sequence};
    use crate::check::{BUDGET, Valid, workload};
    use crate::event::Type::{Fail, Info, Invoke, Ok};
    use crate::workload::Kind;

    #[test]
    fn what_was_added_or_seen_is_in_every_later_read() {
        let read = |seen: serde_json::Value| (Ok, "read", json!(null), seen, 0);
        let add = |kind, n: u64| (kind, "add", json!(n), json!(n), 0);
        let table = [
            (vec![add(Ok, 1), read(json!([1]))], Valid::True),
            (vec![add(Ok, 1), read(json!([]))], Valid::False),
            (vec![add(Info, 1), read(json!([])), read(json!([1]))], Valid::True),
            (vec![add(Info, 1), read(json!([1])), read(json!([]))], Valid::False),
            (vec![add(Fail, 1), read(json!([1]))], Valid::False),
            (vec![add(Ok, 1), read(json!([1, 2]))], Valid::False),
        ];
        for (ops, valid) in table {
            assert_eq!(workload(Kind::Set, &sequence("set", &ops), BUDGET).valid, valid, "{ops:?}");
        }
        // At the same time both are right.
        let at_once = history(
            "set",
            &[
                (0, Invoke, "add", json!(1), 0),
                (1, Invoke, "read", json!(null), 0),
                (0, Ok, "add", json!(1), 0),
                (1, Ok, "read", json!([]), 0),
            ],
        );
        assert_eq!(workload(Kind::Set, &at_once, BUDGET).valid, Valid::True);
    }
}
