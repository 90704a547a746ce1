//! The model of the move within bounds that a test can afford. Each scenario is gone through to its end, unless a promise is broken:
//! then the shortest way there is shown.

#![allow(clippy::print_stdout, reason = "how large the model is, is worth knowing")]

use std::time::Instant;

use drover_model::MoveModel;
use drover_model::scenario::{self, Scenario};
use stateright::{Checker, HasDiscoveries, Model};

/// More than this a test cannot afford to generate: a scenario that grows beyond it is to be made smaller.
const MOST_GENERATED: usize = 2_000_000;

/// Goes through all states; those that must be reached are, and no other is.
fn check(scenario: Scenario) {
    let began = Instant::now();
    let builder = MoveModel::new(scenario).checker().threads(2).target_state_count(MOST_GENERATED);
    let checker = builder.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
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
    assert!(checker.state_count() < MOST_GENERATED, "not all states were looked at: make the scenario smaller");
    checker.assert_properties();
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
