use std::collections::HashMap;

use super::{Verdict, Violation};
use crate::history::{Answer, Ending, History, Operation};

/// Checks that no two writes of the history, on whatever keys, share a commit timestamp, and that a write that began
/// after another had been answered has the higher one.
pub fn timestamps_follow_real_time(history: &History) -> Verdict {
    let mut writes: Vec<(&Operation, u64)> = Vec::new();
    let mut owners: HashMap<u64, &Operation> = HashMap::new();
    for operation in &history.operations {
        let Ending::Answered(Answer::Written { commit_ts }) = operation.ending() else { continue };
        if let Some(other) = owners.insert(commit_ts, operation) {
            return violation(operation, other, format!("commit timestamp {commit_ts} was given twice"));
        }
        writes.push((operation, commit_ts));
    }
    // Sweep the calls in time, with the highest timestamp among the writes that had returned by then.
    let mut returned = writes.clone();
    returned.sort_unstable_by_key(|(operation, _)| operation.returned);
    writes.sort_unstable_by_key(|(operation, _)| operation.called);
    let mut returned = returned.into_iter().peekable();
    let mut highest: Option<(&Operation, u64)> = None;
    for (operation, commit_ts) in writes {
        while let Some(earlier) = returned.next_if(|(r, _)| r.returned.is_some_and(|at| at < operation.called)) {
            if highest.is_none_or(|(_, ts)| ts < earlier.1) {
                highest = Some(earlier);
            }
        }
        if let Some((other, ts)) = highest
            && ts >= commit_ts
        {
            return violation(operation, other, format!("{commit_ts} was given after {ts} had been answered"));
        }
    }
    Verdict::Correct
}

fn violation(later: &Operation, earlier: &Operation, message: String) -> Verdict {
    Verdict::Violation(Box::new(Violation {
        key: later.key.clone(),
        message,
        worked: vec![earlier.clone()],
        stuck: vec![later.clone()],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Action;

    fn write(key: &str, called: u64, returned: u64, commit_ts: u64) -> Operation {
        Operation {
            client: 0,
            key: key.to_owned(),
            action: Action::Write { value: commit_ts },
            called,
            returned: Some(returned),
            ended: Some(Ending::Answered(Answer::Written { commit_ts })),
        }
    }

    #[test]
    fn overlapping_writes_may_have_either_order_and_others_may_not() {
        let table = [
            (vec![write("a", 0, 5, 20), write("b", 1, 2, 10)], true),
            (vec![write("a", 0, 1, 20), write("b", 2, 3, 10)], false),
            (vec![write("a", 0, 1, 20), write("b", 2, 3, 21)], true),
            (vec![write("a", 0, 5, 20), write("b", 1, 3, 20)], false),
            (vec![write("b", 4, 5, 12), write("a", 0, 1, 10), write("c", 2, 3, 13)], false),
        ];
        for (operations, correct) in table {
            let history = History { operations };
            assert_eq!(timestamps_follow_real_time(&history) == Verdict::Correct, correct, "{history:?}");
        }
    }
}
