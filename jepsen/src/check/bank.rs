//! The total stays, and nobody owes.

use super::{Finding, indices};
use crate::event::Op;
use crate::workload::{ACCOUNTS, EACH};

pub fn check(ops: &[Op<'_>]) -> Vec<Finding> {
    let total = EACH * i64::try_from(ACCOUNTS).unwrap_or(0);
    let mut found = Vec::new();
    for op in ops.iter().filter(|op| op.invoke.f != "transfer") {
        let Some(accounts) = op.ok().and_then(|end| end.value.as_object()) else { continue };
        let held: Vec<i64> = accounts.values().filter_map(serde_json::Value::as_i64).collect();
        let how = if op.invoke.f == "scan" { "a scan" } else { "a multi-get" };
        if held.len() as u64 != ACCOUNTS {
            let what = format!("{how} found {} accounts, there are {ACCOUNTS}: {accounts:?}", held.len());
            found.push(Finding::new("missing-accounts", what, indices(op)));
        } else if held.iter().sum::<i64>() != total {
            let sum: i64 = held.iter().sum();
            let what = format!("{how} found {sum} in all accounts together, it is always {total}: {accounts:?}");
            found.push(Finding::new("wrong-total", what, indices(op)));
        } else if held.iter().any(|held| *held < 0) {
            found.push(Finding::new("negative", format!("{how} found a debt: {accounts:?}"), indices(op)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::check::testing::sequence;
    use crate::check::{BUDGET, Valid, workload};
    use crate::event::Type::Ok;
    use crate::workload::Kind;

    #[test]
    fn money_that_is_made_or_lost_is_found() {
        let accounts = |held: [i64; 8]| -> Value {
            (0..8).map(|n| (n.to_string(), json!(held[n]))).collect::<serde_json::Map<_, _>>().into()
        };
        let mut less = accounts([100; 8]);
        less.as_object_mut().unwrap().remove("3");
        let table = [
            (accounts([100; 8]), Valid::True),
            (accounts([95, 105, 100, 100, 100, 100, 100, 100]), Valid::True),
            (accounts([95, 100, 100, 100, 100, 100, 100, 100]), Valid::False),
            (accounts([-5, 205, 100, 100, 100, 100, 100, 100]), Valid::False),
            (less, Valid::False),
        ];
        for (seen, valid) in table {
            for f in ["read", "scan"] {
                let events = sequence("bank", &[(Ok, f, json!(null), seen.clone(), 0)]);
                assert_eq!(workload(Kind::Bank, &events, BUDGET).valid, valid, "{seen}");
            }
        }
    }
}
