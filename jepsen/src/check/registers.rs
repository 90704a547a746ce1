//! Single keys: each alone is linearizable, with versions.

use std::time::Duration;

use drover_testkit::check::{Verdict, linearizable};
use drover_testkit::history::{Action, Answer, Ending, History, Operation};
use serde_json::Value;

use super::{Finding, Outcome};
use crate::event::{Event, Op, Type};

pub fn check(ops: &[Op<'_>], budget: Duration) -> Outcome {
    let operations: Option<Vec<Operation>> = ops.iter().map(operation).collect();
    let Some(operations) = operations else {
        return Outcome { findings: Vec::new(), unknown: Some("the history is none of registers".to_owned()) };
    };
    match linearizable(&History { operations }, budget) {
        Verdict::Correct => Outcome::default(),
        Verdict::Unknown { key } => {
            Outcome { findings: Vec::new(), unknown: Some(format!("the time was over at key {key}")) }
        }
        Verdict::Violation(violation) => {
            let events = violation.worked.iter().chain(&violation.stuck);
            let events = events.flat_map(|op| std::iter::once(op.called).chain(op.returned)).collect();
            vec![Finding::new("not-linearizable", violation.to_string(), events)].into()
        }
    }
}

fn operation(op: &Op<'_>) -> Option<Operation> {
    let Event { value, index, process, .. } = op.invoke;
    let action: Action = serde_json::from_value(value["action"].clone()).ok()?;
    let answer = |value: &Value| serde_json::from_value::<Answer>(value["answer"].clone()).ok();
    let ended = match op.end {
        None => None,
        Some(end) => Some(match end.kind {
            Type::Ok => Ending::Answered(answer(&end.value)?),
            Type::Fail => Ending::Refused,
            Type::Invoke | Type::Info => Ending::Unknown,
        }),
    };
    Some(Operation {
        client: match process {
            crate::event::Process::Client(number) => *number,
            crate::event::Process::Nemesis(_) => return None,
        },
        key: value["key"].as_str()?.to_owned(),
        action,
        called: *index,
        returned: op.end.map(|end| end.index),
        ended,
    })
}

#[cfg(test)]
mod tests {
    use drover_testkit::history::{Expect, Seen};
    use serde_json::json;

    use super::*;
    use crate::check::testing::history;
    use crate::check::{BUDGET, Valid, workload};
    use crate::event::Type::{Fail, Info, Invoke, Ok};
    use crate::workload::Kind;

    fn ask(action: Action) -> Value {
        json!({"key": "x", "action": action})
    }

    fn got(action: Action, answer: Answer) -> Value {
        json!({"key": "x", "action": action, "answer": answer})
    }

    #[test]
    fn registers_that_could_have_been_so_pass_and_others_do_not() {
        let write = Action::Write { value: 7 };
        let seen = |commit_ts| Answer::Read(Some(Seen { value: Some(7), commit_ts }));
        let cas = Action::Cas { expect: Expect::Version(10), update: Some(8) };
        let table = [
            ("read what was written", vec![(1, Ok, Action::Read, Some(seen(10)))], Valid::True),
            ("of another version", vec![(1, Ok, Action::Read, Some(seen(11)))], Valid::False),
            ("nothing is there", vec![(1, Ok, Action::Read, Some(Answer::Read(None)))], Valid::False),
            (
                "a comparison by version holds",
                vec![
                    (1, Ok, cas, Some(Answer::Written { commit_ts: 12 })),
                    (2, Ok, write, Some(Answer::Written { commit_ts: 13 })),
                ],
                Valid::True,
            ),
            (
                "a comparison fails that must hold",
                vec![(1, Ok, cas, Some(Answer::CompareFailed(Some(Seen { value: Some(7), commit_ts: 10 }))))],
                Valid::False,
            ),
            (
                "what may have happened may be seen",
                vec![
                    (1, Info, Action::Delete, None),
                    (2, Ok, Action::Read, Some(seen(10))),
                    (3, Ok, Action::Read, Some(Answer::Read(None))),
                ],
                Valid::True,
            ),
            (
                "and what was refused may not",
                vec![(1, Fail, Action::Delete, None), (3, Ok, Action::Read, Some(Answer::Read(None)))],
                Valid::False,
            ),
        ];
        for (case, rest, valid) in table {
            let mut lines = vec![
                (0, Invoke, "write", ask(write), 0),
                (0, Ok, "write", got(write, Answer::Written { commit_ts: 10 }), 10),
            ];
            for (process, kind, action, answer) in rest {
                lines.push((process, Invoke, "op", ask(action), 0));
                lines.push((process, kind, "op", answer.map_or(ask(action), |answer| got(action, answer)), 0));
            }
            assert_eq!(workload(Kind::Register, &history("register", &lines), BUDGET).valid, valid, "{case}");
        }
    }
}
