use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::history::{Answer, Expect, Seen};

fn operation(called: u64, returned: u64, action: Action, ending: Ending) -> Operation {
    let returned = (ending != Ending::Unknown).then_some(returned);
    Operation { client: called, key: "k".to_owned(), action, called, returned, ended: Some(ending) }
}

fn write(called: u64, returned: u64, value: u64, commit_ts: u64) -> Operation {
    operation(called, returned, Action::Write { value }, Ending::Answered(Answer::Written { commit_ts }))
}

fn lost_write(called: u64, value: u64) -> Operation {
    operation(called, 0, Action::Write { value }, Ending::Unknown)
}

fn delete(called: u64, returned: u64, commit_ts: u64) -> Operation {
    operation(called, returned, Action::Delete, Ending::Answered(Answer::Written { commit_ts }))
}

fn read(called: u64, returned: u64, seen: Option<(u64, u64)>) -> Operation {
    let seen = seen.map(|(value, commit_ts)| Seen { value: Some(value), commit_ts });
    operation(called, returned, Action::Read, Ending::Answered(Answer::Read(seen)))
}

fn cas(called: u64, returned: u64, expect: Expect, update: u64, commit_ts: u64) -> Operation {
    let action = Action::Cas { expect, update: Some(update) };
    operation(called, returned, action, Ending::Answered(Answer::Written { commit_ts }))
}

fn failed_cas(called: u64, returned: u64, expect: Expect, met: Option<(Option<u64>, u64)>) -> Operation {
    let action = Action::Cas { expect, update: Some(99) };
    let met = met.map(|(value, commit_ts)| Seen { value, commit_ts });
    operation(called, returned, action, Ending::Answered(Answer::CompareFailed(met)))
}

fn verdict(operations: &[Operation]) -> Verdict {
    check("k", operations, Instant::now() + Duration::from_secs(60))
}

#[test]
fn known_good_histories_are_accepted() {
    let histories = [
        ("nothing", vec![]),
        ("an absent key", vec![read(1, 2, None)]),
        (
            "a read that overlaps a write sees either value",
            vec![write(1, 2, 1, 10), write(3, 8, 2, 11), read(4, 5, Some((1, 10))), read(6, 7, Some((2, 11)))],
        ),
        (
            "two writes take effect in the order of their timestamps, not of their calls",
            vec![write(1, 6, 1, 11), write(2, 5, 2, 10), read(7, 8, Some((1, 11)))],
        ),
        (
            "a lost write is seen late",
            vec![lost_write(1, 1), write(2, 3, 2, 10), read(4, 5, Some((2, 10))), read(6, 7, Some((1, 12)))],
        ),
        ("a lost write is never seen", vec![lost_write(1, 1), write(2, 3, 2, 10), read(4, 5, Some((2, 10)))]),
        (
            "two lost writes, seen in the other order",
            vec![lost_write(1, 1), lost_write(2, 2), read(3, 4, Some((2, 5))), read(5, 6, Some((1, 6)))],
        ),
        ("delete, then absent", vec![write(1, 2, 1, 10), delete(3, 4, 11), read(5, 6, None)]),
        (
            "compare-and-set by version after a lost write",
            vec![lost_write(1, 1), cas(2, 3, Expect::Version(7), 2, 8), read(4, 5, Some((2, 8)))],
        ),
        (
            "a failed comparison shows what it met",
            vec![
                write(1, 2, 1, 10),
                failed_cas(3, 4, Expect::Absent, Some((Some(1), 10))),
                failed_cas(5, 6, Expect::Version(9), Some((None, 10))),
                failed_cas(7, 8, Expect::Value(3), Some((Some(1), 10))),
            ],
        ),
        ("a failed comparison with an absent key", vec![failed_cas(1, 2, Expect::Present, None)]),
    ];
    for (name, operations) in histories {
        assert_eq!(verdict(&operations), Verdict::Correct, "{name}");
    }
}

#[test]
fn known_bad_histories_are_rejected() {
    let histories = [
        ("a value that nobody wrote", vec![read(1, 2, Some((1, 10)))]),
        ("a stale read", vec![write(1, 2, 1, 10), write(3, 4, 2, 11), read(5, 6, Some((1, 10)))]),
        ("a lost acknowledged write", vec![write(1, 2, 1, 10), read(3, 4, None)]),
        (
            "two reads that see two writes in different orders",
            vec![write(1, 8, 1, 10), write(2, 9, 2, 11), read(3, 4, Some((2, 11))), read(5, 6, Some((1, 10)))],
        ),
        (
            "a value that comes back after a delete",
            vec![write(1, 2, 1, 10), delete(3, 4, 11), read(5, 6, Some((1, 10)))],
        ),
        ("a write with a timestamp below the version before it", vec![write(1, 2, 1, 10), write(3, 4, 2, 9)]),
        ("the right value at the wrong timestamp", vec![write(1, 2, 1, 10), read(3, 4, Some((1, 11)))]),
        (
            "one lost write at two timestamps",
            vec![lost_write(1, 1), read(2, 3, Some((1, 5))), read(4, 5, Some((1, 6)))],
        ),
        ("a lost write seen before it was asked for", vec![read(1, 2, Some((1, 5))), lost_write(3, 1)]),
        (
            "two compare-and-sets that both found the key absent",
            vec![cas(1, 4, Expect::Absent, 1, 10), cas(2, 3, Expect::Absent, 2, 11)],
        ),
        (
            "two compare-and-sets from one version",
            vec![write(1, 2, 1, 10), cas(3, 6, Expect::Version(10), 2, 11), cas(4, 5, Expect::Version(10), 3, 12)],
        ),
        (
            "a comparison that failed although it held",
            vec![write(1, 2, 1, 10), failed_cas(3, 4, Expect::Value(1), Some((Some(1), 10)))],
        ),
        (
            "an answer of the wrong kind",
            vec![operation(1, 2, Action::Read, Ending::Answered(Answer::Written { commit_ts: 1 }))],
        ),
    ];
    for (name, operations) in histories {
        assert!(matches!(verdict(&operations), Verdict::Violation(_)), "{name}");
    }
}

#[test]
fn a_violation_names_the_operations_that_cannot_come_next() {
    let operations = [write(1, 2, 1, 10), write(3, 4, 2, 11), read(5, 6, Some((1, 10)))];
    let Verdict::Violation(violation) = verdict(&operations) else { panic!("a stale read") };
    assert_eq!(violation.worked, operations[..2]);
    assert_eq!(violation.stuck, operations[2..]);
}

#[test]
fn running_out_of_time_is_not_taken_for_correct() {
    // Many lost writes and a read of a value that nobody wrote: every subset and order has to be tried.
    let mut operations: Vec<Operation> = (0..40).map(|n| lost_write(n + 1, n)).collect();
    operations.push(read(100, 101, Some((777, 5))));
    let verdict = check("k", &operations, Instant::now());
    assert_eq!(verdict, Verdict::Unknown { key: "k".to_owned() });
}

#[test]
fn refused_writes_and_unanswered_reads_say_nothing() {
    let refused = operation(1, 2, Action::Write { value: 1 }, Ending::Refused);
    let unanswered = operation(3, 0, Action::Read, Ending::Unknown);
    assert_eq!(verdict(&[refused.clone(), unanswered, read(4, 5, None)]), Verdict::Correct);
    assert!(matches!(verdict(&[refused, read(4, 5, Some((1, 1)))]), Verdict::Violation(_)));
}

/// The definition, literally: some order of all answered operations and some of the lost ones respects real time and
/// the register.
fn by_definition(operations: &[Operation]) -> bool {
    fn extend(left: &mut Vec<&Operation>, register: Register) -> bool {
        if left.iter().all(|operation| operation.ending() == Ending::Unknown) {
            return true;
        }
        for at in 0..left.len() {
            let next = left[at];
            let too_early = left.iter().any(|other| other.returned.is_some_and(|returned| returned < next.called));
            if too_early {
                continue;
            }
            if let Some(after) = register.step(next.action, &next.ending()) {
                left.remove(at);
                let found = extend(left, after);
                left.insert(at, next);
                if found {
                    return true;
                }
            }
        }
        false
    }
    let mut left: Vec<&Operation> = operations.iter().filter(|operation| matters(operation)).collect();
    extend(&mut left, Register::EMPTY)
}

fn any_seen() -> impl Strategy<Value = Option<Seen>> {
    let value = prop_oneof![4 => (0u64..3).prop_map(Some), 1 => Just(None)];
    proptest::option::weighted(0.7, (value, 1u64..5).prop_map(|(value, commit_ts)| Seen { value, commit_ts }))
}

fn any_expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Absent),
        Just(Expect::Present),
        (0u64..3).prop_map(Expect::Value),
        (1u64..5).prop_map(Expect::Version),
    ]
}

/// Any operation with any ending, right or wrong.
fn any_operation() -> impl Strategy<Value = (Action, Ending)> {
    let action = prop_oneof![
        Just(Action::Read),
        (0u64..3).prop_map(|value| Action::Write { value }),
        Just(Action::Delete),
        (any_expect(), proptest::option::of(0u64..3)).prop_map(|(expect, update)| Action::Cas { expect, update }),
    ];
    (action, any_seen(), 1u64..5, 0u8..10).prop_map(|(action, seen, commit_ts, kind)| {
        let ending = match (action, kind) {
            (_, 0) => Ending::Refused,
            (_, 1..=3) => Ending::Unknown,
            (Action::Read, _) => Ending::Answered(Answer::Read(seen)),
            (Action::Cas { .. }, 4..=5) => Ending::Answered(Answer::CompareFailed(seen)),
            (Action::Write { .. } | Action::Delete | Action::Cas { .. }, _) => {
                Ending::Answered(Answer::Written { commit_ts })
            }
        };
        (action, ending)
    })
}

/// Few operations with overlapping times.
fn small_history() -> impl Strategy<Value = Vec<Operation>> {
    proptest::collection::vec((any_operation(), 0u64..12, 1u64..6), 0..6).prop_map(|parts| {
        let times = parts.iter().enumerate();
        // Distinct times: an event's place, then its number.
        times
            .map(|(n, ((action, ending), called, length))| {
                let called = called * 100 + n as u64;
                operation(called, called + length * 100 + 50, *action, *ending)
            })
            .collect()
    })
}

/// How one operation of a real execution looks from outside.
#[derive(Debug, Clone)]
struct Shape {
    action: u8,
    before: u64,
    after: u64,
    fate: u8,
}

/// Runs the actions one after the other on a real register; each takes effect at its place, was called up to `before`
/// places earlier and returned up to `after` places later.
fn execute(shapes: &[Shape]) -> Vec<Operation> {
    let mut newest: Option<(Option<u64>, u64)> = None;
    let mut history = Vec::new();
    for (place, shape) in (1u64..).zip(shapes) {
        let commit_ts = place * 2;
        let present = newest.and_then(|(value, ts)| value.map(|value| (value, ts)));
        let seen = present.map(|(value, commit_ts)| Seen { value: Some(value), commit_ts });
        let action = match shape.action {
            0..=3 => Action::Read,
            4..=6 => Action::Write { value: place },
            7 => Action::Delete,
            8 => Action::Cas { expect: Expect::Version(present.map_or(1, |(_, ts)| ts)), update: Some(place) },
            _ => Action::Cas { expect: Expect::Absent, update: Some(place) },
        };
        let holds = match action {
            Action::Read => false,
            Action::Write { .. } | Action::Delete => true,
            Action::Cas { expect: Expect::Absent, .. } => present.is_none(),
            Action::Cas { .. } => present.is_some(),
        };
        let answer = match action {
            Action::Read => Answer::Read(seen),
            _ if holds => Answer::Written { commit_ts },
            _ => Answer::CompareFailed(seen),
        };
        let (ending, happened) = match shape.fate {
            0 => (Ending::Refused, false),
            1 => (Ending::Unknown, false),
            2 => (Ending::Unknown, true),
            _ => (Ending::Answered(answer), true),
        };
        if happened && holds {
            newest = match action {
                Action::Write { value } => Some((Some(value), commit_ts)),
                Action::Cas { update, .. } => Some((update, commit_ts)),
                Action::Delete | Action::Read => Some((None, commit_ts)),
            };
        }
        // Distinct times that keep the order of the places.
        let called = (place * 1000).saturating_sub(shape.before * 1000) + place;
        let returned = place * 1000 + 500 + shape.after * 1000 + place;
        history.push(operation(called, returned, action, ending));
    }
    history
}

/// Proving that there is no order at all means to try every fate of every unknown operation, which doubles the work each
/// time: few of them, in histories of a moderate length.
fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let shape = (0u8..10, 0u64..6, 0u64..6, 0u8..40).prop_map(|(action, before, after, fate)| Shape {
        action,
        before,
        after,
        fate,
    });
    proptest::collection::vec(shape, 1..60)
}

/// Makes one read return a version that another write had replaced, and was known to have replaced, before the read
/// was called. `None` if the history has no such place.
fn make_stale(history: &[Operation]) -> Option<Vec<Operation>> {
    let versions: Vec<(u64, u64, &Operation)> = history
        .iter()
        .filter_map(|operation| match (operation.action, operation.ending()) {
            (Action::Write { value }, Ending::Answered(Answer::Written { commit_ts })) => {
                Some((value, commit_ts, operation))
            }
            _ => None,
        })
        .collect();
    for (at, operation) in history.iter().enumerate().rev() {
        if !matches!(operation.ending(), Ending::Answered(Answer::Read(Some(_)))) {
            continue;
        }
        let known = versions.iter().filter(|(_, _, w)| w.returned.is_some_and(|r| r < operation.called));
        let Some(newest) = known.map(|(_, ts, _)| *ts).max() else { continue };
        if let Some((value, commit_ts, _)) = versions.iter().find(|(_, ts, _)| *ts < newest) {
            let mut stale = history.to_vec();
            let seen = Seen { value: Some(*value), commit_ts: *commit_ts };
            stale[at].ended = Some(Ending::Answered(Answer::Read(Some(seen))));
            return Some(stale);
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_search_agrees_with_the_definition(history in small_history()) {
        prop_assert_eq!(verdict(&history) == Verdict::Correct, by_definition(&history), "{:#?}", history);
    }
}

proptest! {
    #[test]
    fn histories_of_real_executions_are_accepted(shapes in shapes()) {
        let history = execute(&shapes);
        prop_assert_eq!(verdict(&history), Verdict::Correct);
    }

    #[test]
    fn a_stale_read_in_a_real_execution_is_rejected(shapes in shapes()) {
        if let Some(stale) = make_stale(&execute(&shapes)) {
            prop_assert!(matches!(verdict(&stale), Verdict::Violation(_)));
        }
    }
}

#[test]
fn most_generated_executions_have_a_place_for_a_stale_read() {
    let shape = |n: u64| Shape { action: (n * 7 % 10) as u8, before: n % 3, after: n % 4, fate: 9 };
    let history = execute(&(0..60).map(shape).collect::<Vec<_>>());
    assert!(make_stale(&history).is_some());
}
