//! What a run has come to: operations under way while ranges changed hands, nodes that were lost in each phase, steps at which
//! nodes ended themselves.

use std::collections::BTreeMap;

use crate::event::{Event, operations};

/// Operations that were under way while a job changed hands: between the last event before it has and the first after.
pub(super) fn in_flight_at_cutover(history: &[Event]) -> BTreeMap<u64, u64> {
    let ops = operations(history);
    let mut before: BTreeMap<u64, u64> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for event in history.iter().filter(|event| event.f == "move-phase") {
        let Some(job) = event.value["job"].as_u64() else { continue };
        match event.value["phase"].as_str().unwrap_or_default() {
            "fence" | "delta_copy" | "cutover" => drop(before.insert(job, event.index)),
            "cleanup" | "done" if !found.contains_key(&job) => {
                let from = before.get(&job).copied().unwrap_or(event.index);
                let under_way =
                    ops.iter().filter(|op| op.invoke.index < event.index && op.end.is_none_or(|end| end.index > from));
                found.insert(job, under_way.count() as u64);
            }
            _ => {}
        }
    }
    found
}

/// How often nodes were lost while a move was in each phase.
pub(super) fn crashes_in_phase(history: &[Event]) -> BTreeMap<String, u64> {
    let mut phases: BTreeMap<u64, &str> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for event in history {
        match event.f.as_str() {
            "move-phase" => {
                let (job, phase) = (event.value["job"].as_u64(), event.value["phase"].as_str());
                if let Some((job, phase)) = job.zip(phase) {
                    phases.insert(job, phase);
                }
            }
            "start-kill" | "start-crash-txn" | "start-crash-move" | "start-power"
                if event.value["outcome"] == "installed" =>
            {
                for phase in phases.values().filter(|phase| !matches!(**phase, "done" | "abandoned")) {
                    *found.entry((*phase).to_owned()).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    found
}

/// The steps at which nodes ended themselves, with how often; and those that were armed in vain.
pub(super) fn crashes_at_steps(history: &[Event]) -> (BTreeMap<String, u64>, Vec<String>) {
    let mut come_to: BTreeMap<String, u64> = BTreeMap::new();
    let mut in_vain = Vec::new();
    for event in history.iter().filter(|event| event.f.starts_with("start-crash-")) {
        let Some(point) = event.value["what"]["point"].as_str() else { continue };
        match event.value["outcome"].as_str() {
            Some("installed") => *come_to.entry(point.to_owned()).or_default() += 1,
            _ => in_vain.push(point.to_owned()),
        }
    }
    in_vain.retain(|point| !come_to.contains_key(point));
    in_vain.sort();
    in_vain.dedup();
    (come_to, in_vain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{Ended, Recorder, Who};

    #[test]
    fn operations_under_way_while_a_range_changes_hands_are_counted() {
        let recorder = Recorder::new();
        let phase = |phase: &str| recorder.nemesis("move-phase", json!({"job": 4, "phase": phase}));
        let who = |process| Who { process, workload: "set", node: None };
        phase("backfill");
        phase("fence");
        recorder.invoke(&who(1), "add", json!(1));
        recorder.end(&who(1), "add", Ended::ok(json!(1)));
        recorder.invoke(&who(2), "add", json!(2));
        phase("done");
        recorder.invoke(&who(3), "add", json!(3));
        assert_eq!(in_flight_at_cutover(&recorder.history()), BTreeMap::from([(4, 2)]));
    }

    #[test]
    fn nodes_that_are_lost_count_for_the_phase_of_the_moves_under_way() {
        let recorder = Recorder::new();
        let phase = |job: u64, phase: &str| recorder.nemesis("move-phase", json!({"job": job, "phase": phase}));
        let kill = |outcome: &str| recorder.nemesis("start-kill", json!({"outcome": outcome}));
        phase(1, "backfill");
        kill("installed");
        kill("skipped");
        phase(1, "cutover");
        phase(2, "backfill");
        kill("installed");
        phase(1, "done");
        phase(2, "abandoned");
        kill("installed");
        let expect = BTreeMap::from([("backfill".to_owned(), 2), ("cutover".to_owned(), 1)]);
        assert_eq!(crashes_in_phase(&recorder.history()), expect);
    }

    #[test]
    fn steps_count_as_covered_when_a_node_ended_there() {
        let recorder = Recorder::new();
        let crash = |outcome: &str, point: &str| {
            recorder.nemesis("start-crash-move", json!({"outcome": outcome, "what": {"point": point}}));
        };
        crash("installed", "move.arm.applied");
        crash("skipped", "move.clear.unsent");
        crash("skipped", "move.seal.unsent");
        crash("installed", "move.seal.unsent");
        recorder.nemesis("start-crash-move", json!({"asked": true}));
        let text = str::to_owned;
        let expect = BTreeMap::from([(text("move.arm.applied"), 1), (text("move.seal.unsent"), 1)]);
        assert_eq!(crashes_at_steps(&recorder.history()), (expect, vec![text("move.clear.unsent")]));
    }
}
