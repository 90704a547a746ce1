//! What is sent several times under one name counts once.

use std::collections::BTreeMap;

use super::{Finding, indices, may_have_happened};
use crate::event::{Op, Type};

pub fn check(ops: &[Op<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut known: BTreeMap<(&str, u64), &Op<'_>> = BTreeMap::new();
    let mut certain: BTreeMap<&str, u64> = BTreeMap::new();
    let mut possible: BTreeMap<&str, u64> = BTreeMap::new();
    for op in ops.iter().filter(|op| op.invoke.f == "add") {
        let Some(key) = op.invoke.value["key"].as_str() else { continue };
        *certain.entry(key).or_default() += u64::from(op.kind() == Type::Ok);
        *possible.entry(key).or_default() += u64::from(may_have_happened(op));
        let Some(holds) = op.ok().and_then(|end| end.value["holds"].as_u64()) else { continue };
        if let Some(other) = known.insert((key, holds), op) {
            let what = format!("two additions to {key} both made it {holds}");
            found.push(Finding::new("lost-addition", what, [indices(other), indices(op)].concat()));
        }
    }
    for op in ops.iter().filter(|op| op.invoke.f == "holds") {
        for (key, held) in op.ok().and_then(|end| end.value.as_object()).into_iter().flatten() {
            let of = |counts: &BTreeMap<&str, u64>| counts.get(key.as_str()).copied().unwrap_or(0);
            let (least, most) = (of(&certain), of(&possible));
            let held = held.as_u64().unwrap_or(0);
            if held < least || held > most {
                let what = format!(
                    "{key} holds {held}; {least} additions were acknowledged and {} may have happened",
                    most - least
                );
                found.push(Finding::new("miscounted", what, indices(op)));
            }
        }
    }
    for op in ops.iter().filter(|op| op.invoke.f == "again") {
        let Some(end) = op.ok() else { continue };
        let value = &end.value;
        if value["first"] != value["again"] || value["holds"] != 2 {
            let what = format!(
                "a put was sent again under its name after another put: answered {} at first and {} then, and the key \
                 holds {} where it must hold 2",
                value["first"], value["again"], value["holds"]
            );
            found.push(Finding::new("applied-again", what, indices(op)));
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
    fn additions_count_once() {
        let ask = json!({"key": "c"});
        let add = |kind, n: u64| (kind, "add", ask.clone(), json!({"key": "c", "holds": n}), 0);
        let holds = |n: u64| (Ok, "holds", json!(null), json!({"c": n}), 0);
        let again = |ts: u64, holds: u64| {
            (Ok, "again", ask.clone(), json!({"key": "c", "first": 5, "again": ts, "holds": holds}), 0)
        };
        let table = [
            (vec![add(Ok, 1), add(Ok, 2), holds(2)], Valid::True),
            (vec![add(Ok, 1), add(Info, 2), holds(2)], Valid::True),
            (vec![add(Ok, 1), add(Info, 2), holds(1)], Valid::True),
            (vec![add(Ok, 1), add(Ok, 2), holds(1)], Valid::False),
            (vec![add(Ok, 1), add(Fail, 2), holds(2)], Valid::False),
            (vec![add(Ok, 1), add(Ok, 1), holds(2)], Valid::False),
            (vec![again(5, 2)], Valid::True),
            (vec![again(9, 1)], Valid::False),
            (vec![again(5, 1)], Valid::False),
        ];
        for (ops, valid) in table {
            assert_eq!(workload(Kind::Counter, &sequence("counter", &ops), BUDGET).valid, valid, "{ops:?}");
        }
    }
}
