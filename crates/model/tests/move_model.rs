//! The model of the move within bounds that a test can afford. Each scenario is gone through to its end, unless a promise is broken:
//! then the shortest way there is shown.

#![allow(clippy::print_stdout, reason = "how large the model is, is worth knowing")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use drover_guards::{self as guards, Guard};
use drover_model::MoveModel;
use drover_model::scenario::{self, Scenario};
use stateright::{Checker, HasDiscoveries, Model};

/// More than this a test cannot afford to generate: a scenario that grows beyond it is to be made smaller.
const MOST_GENERATED: usize = 2_000_000;

/// Goes through all states; those that must be reached are, and no other is.
///
/// With a guard of the product switched off nothing else fails this than a way to a broken promise: that the scenario has grown
/// too large then, or that the product panics, shows nothing of what the guard is for.
fn check(scenario: Scenario) {
    let is_guarded = Guard::ALL.iter().all(|guard| guards::on(*guard));
    let began = Instant::now();
    let builder = MoveModel::new(scenario).checker().threads(2).target_state_count(MOST_GENERATED);
    let builder = builder.finish_when(HasDiscoveries::AnyFailures);
    let checker = match catch_unwind(AssertUnwindSafe(|| builder.spawn_bfs().join())) {
        Ok(checker) => checker,
        Err(_) if !is_guarded => return,
        Err(panicked) => resume_unwind(panicked),
    };
    println!(
        "{}: {} states, {} generated, {} deep, {} ms",
        scenario.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_millis()
    );
    for (name, path) in checker.discoveries() {
        if checker.model().property(name).expectation.discovery_is_failure() {
            panic!("it does not hold that {name}: {:#?}", path.into_actions());
        }
    }
    if is_guarded {
        assert!(checker.state_count() < MOST_GENERATED, "not all states were looked at: make the scenario smaller");
        checker.assert_properties();
    }
}

#[test]
fn a_quiet_move_keeps_every_promise() {
    check(scenario::QUIET);
}

#[test]
fn a_move_under_writers_readers_and_a_transaction_keeps_every_promise() {
    check(scenario::CLIENTS);
}

#[test]
fn a_copy_whose_messages_come_again_keeps_every_promise() {
    check(scenario::COPY);
}

#[test]
fn changes_of_course_and_late_messages_keep_every_promise() {
    check(scenario::COURSES);
}

#[test]
fn two_migrators_at_once_keep_every_promise() {
    check(scenario::MIGRATORS);
}

#[test]
fn messages_that_overtake_each_other_keep_every_promise() {
    check(scenario::OVERTAKING);
}

#[test]
fn a_copy_from_a_replica_that_lags_keeps_every_promise() {
    check(scenario::LAGGING);
}

#[test]
fn a_move_away_and_back_keeps_every_promise() {
    check(scenario::BACK);
}

#[test]
fn a_move_that_is_called_off_and_begun_anew_keeps_every_promise() {
    check(scenario::ANEW);
}

#[test]
fn jobs_that_are_asked_for_at_once_keep_every_promise() {
    check(scenario::AT_ONCE);
}

#[test]
fn a_move_under_garbage_collection_keeps_every_promise() {
    check(scenario::GARBAGE);
}

#[test]
fn a_copy_that_loses_rows_keeps_every_promise() {
    check(scenario::LOSSES);
}

#[test]
fn a_portion_with_a_row_too_many_keeps_every_promise() {
    check(scenario::STRAYS);
}

#[test]
fn a_copy_that_is_wrongly_believed_to_be_closed_is_not_served() {
    check(scenario::MISTAKES);
}

#[test]
fn scans_and_writes_over_the_bound_of_the_range_keep_every_promise() {
    check(scenario::SCANS);
}
