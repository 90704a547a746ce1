//! Judges a run by its history and by what was seen besides, and writes down what came of it. Repeatable: nothing else goes in.

mod coverage;
mod lines;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::check::{self, Finding, Valid, Verdict};
use crate::event::{Event, Process, Type, operations};
use crate::nemesis::{Outcome, points};
use crate::ownership::Ownership;
use crate::run::{Facts, Test};
use crate::workload::Kind;
use crate::{plot, timeline};

pub use lines::loud;

use coverage::{crashes_at_steps, crashes_in_phase, in_flight_at_cutover};
use lines::is_expected;

/// A pause without any operation that happened, from which on it is reported.
const UNAVAILABLE_NS: u64 = 1_000_000_000;

/// What came of one nemesis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actions {
    /// It was broken.
    pub installed: u64,
    /// There was nothing to break.
    pub skipped: u64,
    /// Nobody knows.
    pub unclear: u64,
}

/// Everything that came of a run; kept as `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The whole of it. Only `true` is a pass.
    pub valid: Valid,
    /// Each workload.
    pub workloads: BTreeMap<String, Verdict>,
    /// Timestamps of all workloads together.
    pub timestamps: Vec<Finding>,
    /// What was not right besides: recovery, replicas, routes, logs, faults that never happened.
    pub problems: Vec<String>,
    /// What broke.
    pub nemeses: BTreeMap<String, Actions>,
    /// What the network was.
    pub network: String,
    /// Operations that happened.
    pub acknowledged: u64,
    /// Of those that happened, in microseconds: half, 99 of 100, and all were faster.
    pub latency_us: [u64; 3],
    /// From and to, in milliseconds since the run began, when nothing happened at all.
    pub unavailable_ms: Vec<[u64; 2]>,
    /// For each move that ended: operations that were under way while it changed hands.
    pub in_flight_at_cutover: BTreeMap<u64, u64>,
    /// Milliseconds from healing until all nodes were ready, and until moves and locks had come to their end.
    pub recovery_ms: [Option<u64>; 2],
    /// Lines of the logs at WARN or above.
    pub loud: BTreeMap<String, u64>,
    /// Versions of the map of routes that were looked at.
    pub maps_seen: u64,
    /// Owners of keys that were seen, each since another version.
    pub owners_seen: u64,
    /// For each phase of moves: kills, crashes and power losses while one was in it.
    pub crashes_in_phase: BTreeMap<String, u64>,
    /// How often a node ended itself at each step of transactions and moves.
    #[serde(default)]
    pub crashed_at: BTreeMap<String, u64>,
    /// Steps that were armed, and that nobody came to.
    #[serde(default)]
    pub not_come_to: Vec<String>,
    /// Of all steps that the nemeses of this run may arm, how many were come to.
    #[serde(default)]
    pub steps_covered: [u64; 2],
    /// Who owned what, by the nodes' logs.
    #[serde(default)]
    pub ownership: Option<Ownership>,
}

/// Judges a run.
///
/// # Errors
/// For a workload that there is not.
pub fn judge(test: &Test, facts: &Facts, history: &[Event]) -> Result<Results> {
    let mut problems = facts.problems.clone();
    let mut workloads = BTreeMap::new();
    for name in &test.workloads {
        let kind = Kind::by_name(name).with_context(|| format!("there is no workload {name}"))?;
        workloads.insert(name.clone(), check::workload(kind, history, check::BUDGET));
    }
    let timestamps = check::all_timestamps(history);
    let nemeses = actions(history);
    for fault in &test.nemeses {
        if nemeses.get(fault.name()).is_none_or(|actions| actions.installed == 0) {
            problems.push(format!("{} never happened", fault.name()));
        }
    }
    problems.extend(damage_not_noticed(history).map(|file| format!("nobody noticed that {file} was damaged")));
    problems.extend(failures_not_noticed(history));
    if let Some(ownership) = &facts.ownership {
        problems.extend(ownership.problems.iter().map(|problem| format!("ownership: {problem}")));
    }
    let strange = facts.loud.iter().filter(|(line, _)| !is_expected(line, &test.nemeses));
    problems.extend(strange.map(|(line, times)| format!("log, {times} times: {line}")));
    let mut valid = workloads.values().map(|verdict| verdict.valid).max().unwrap_or(Valid::Unknown);
    if !timestamps.is_empty() || !problems.is_empty() {
        valid = Valid::False;
    }
    let ok: Vec<_> = operations(history).into_iter().filter(|op| op.ok().is_some()).collect();
    let mut latencies: Vec<u64> = ok.iter().filter_map(|op| Some((op.end?.time - op.invoke.time) / 1_000)).collect();
    latencies.sort_unstable();
    let at = |part: usize| latencies.get((latencies.len().saturating_sub(1)) * part / 1000).copied().unwrap_or(0);
    let (crashed_at, not_come_to) = crashes_at_steps(history);
    let of_all: usize = test.nemeses.iter().filter(|fault| fault.crashes_at_points()).map(|f| points(*f).len()).sum();
    Ok(Results {
        valid,
        workloads,
        timestamps,
        problems,
        nemeses,
        network: facts.network.clone(),
        acknowledged: ok.len() as u64,
        latency_us: [at(500), at(990), at(1000)],
        unavailable_ms: unavailable(history),
        in_flight_at_cutover: in_flight_at_cutover(history),
        recovery_ms: [facts.ready_after_ms, facts.settled_after_ms],
        loud: facts.loud.clone(),
        maps_seen: facts.maps_seen,
        owners_seen: facts.owners_seen,
        crashes_in_phase: crashes_in_phase(history),
        steps_covered: [crashed_at.len() as u64, of_all as u64],
        crashed_at,
        not_come_to,
        ownership: facts.ownership.clone(),
    })
}

/// What nemeses came to, by their names.
pub fn actions(history: &[Event]) -> BTreeMap<String, Actions> {
    let mut all: BTreeMap<String, Actions> = BTreeMap::new();
    for event in history.iter().filter(|event| matches!(event.process, Process::Nemesis(_))) {
        let Some(name) = event.f.strip_prefix("start-") else { continue };
        let actions = all.entry(name.to_owned()).or_default();
        match serde_json::from_value(event.value["outcome"].clone()) {
            Ok(Outcome::Installed) => actions.installed += 1,
            Ok(Outcome::Skipped) => actions.skipped += 1,
            Ok(Outcome::Unclear) => actions.unclear += 1,
            Err(_) => {}
        }
    }
    all
}

/// The files that were damaged and of which no node said so.
fn damage_not_noticed(history: &[Event]) -> impl Iterator<Item = &str> {
    let damage = history.iter().filter(|event| event.f == "start-damage").map(|event| &event.value["what"]);
    let in_vain = damage.filter(|what| what["noticed"].is_null() && what["needed"] != false);
    in_vain.filter_map(|what| what["file"].as_str())
}

/// The calls that failed and after which their node went on without a word.
fn failures_not_noticed(history: &[Event]) -> impl Iterator<Item = String> {
    let failing = history.iter().filter(|event| matches!(&event.f[..], "start-write-error" | "start-sync-error"));
    let calls = failing.filter_map(|event| event.value["what"]["calls"].as_array()).flatten();
    let in_vain = calls.filter(|call| call["needed"] == true && call["noticed"].is_null() && call["ended"] == false);
    in_vain.map(|call| {
        let text = |name: &str| call[name].as_str().unwrap_or_default().to_owned();
        format!("node {} went on although a {} of {} had failed", call["node"], text("call"), text("file"))
    })
}

/// When nothing happened for a second or more while clients asked.
fn unavailable(history: &[Event]) -> Vec<[u64; 2]> {
    let mut windows = Vec::new();
    let mut last = history.first().map_or(0, |event| event.time);
    for event in history.iter().filter(|event| event.kind == Type::Ok) {
        if event.time - last >= UNAVAILABLE_NS {
            windows.push([last / 1_000_000, event.time / 1_000_000]);
        }
        last = event.time;
    }
    windows
}

/// Writes everything that can be made of a run again: results, explanations, plots, timeline.
///
/// # Errors
/// If a file cannot be written.
pub fn write(dir: &Path, test: &Test, results: &Results, history: &[Event]) -> Result<()> {
    let save = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    save("results.json", &serde_json::to_string_pretty(results)?)?;
    save("latency.svg", &plot::latency(history))?;
    save("rate.svg", &plot::rate(history))?;
    save("timeline.html", &timeline::page(&test.name(), history))?;
    save("report.html", &timeline::report(test, results))?;
    save("explanations.txt", &explanations(results, history))
}

/// What was found, for people: what could not have happened, why, and the events concerned.
pub fn explanations(results: &Results, history: &[Event]) -> String {
    let mut text = String::new();
    for problem in &results.problems {
        text.push_str(&format!("problem: {problem}\n\n"));
    }
    for (name, verdict) in &results.workloads {
        if let Some(why) = &verdict.unknown {
            text.push_str(&format!("{name}: unknown, which is no pass: {why}\n\n"));
        }
    }
    let of_workloads =
        results.workloads.iter().flat_map(|(name, verdict)| verdict.findings.iter().map(move |f| (name, f)));
    let all = "all workloads".to_owned();
    for (name, finding) in of_workloads.chain(results.timestamps.iter().map(|finding| (&all, finding))) {
        text.push_str(&format!("{name}: {}\n{}\n", finding.name, finding.explanation));
        let known: BTreeMap<u64, &Event> = history.iter().map(|event| (event.index, event)).collect();
        for event in finding.events.iter().take(40).filter_map(|index| known.get(index)) {
            let line = crate::edn::line(event);
            text.push_str(&format!("    {}\n", line.chars().take(600).collect::<String>()));
        }
        text.push('\n');
    }
    if text.is_empty() {
        text.push_str("nothing was found\n");
    }
    text
}

/// Judges a folder again.
///
/// # Errors
/// If it is none of a run.
pub fn again(dir: &Path) -> Result<Results> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let test: Test = serde_json::from_str(&read("test.json")?).context("test.json")?;
    let mut facts: Facts = serde_json::from_str(&read("facts.json")?).context("facts.json")?;
    let history = crate::event::load(&dir.join("history.jsonl"))?;
    if facts.ownership.is_some() {
        facts.take_logs(dir, &test, &history);
    }
    let results = judge(&test, &facts, &history)?;
    write(dir, &test, &results, &history)?;
    Ok(results)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{Ended, Recorder, Who};
    use crate::nemesis::Fault;

    fn test(nemeses: Vec<Fault>) -> Test {
        Test {
            workloads: vec!["set".to_owned()],
            nemeses,
            time_s: 1,
            rate: 1,
            nodes: 3,
            clients: 1,
            seed: 1,
            targets: Vec::new(),
            net: None,
            settings: Vec::new(),
            environment: Vec::new(),
        }
    }

    fn recorder() -> Recorder {
        let recorder = Recorder::new();
        let who = Who { process: 0, workload: "set", node: None };
        recorder.invoke(&who, "read", json!(null));
        recorder.end(&who, "read", Ended::ok(json!([])));
        recorder
    }

    #[test]
    fn a_required_fault_that_never_happened_fails_the_run() {
        let recorder = recorder();
        let judged = |faults| judge(&test(faults), &Facts::default(), &recorder.history()).unwrap();
        assert_eq!(judged(vec![]).valid, Valid::True);
        recorder.nemesis("start-kill", json!({"asked": true}));
        recorder.nemesis("start-kill", json!({"outcome": "skipped", "what": {}}));
        recorder.nemesis("start-kill", json!({"outcome": "unclear", "what": {}}));
        let results = judged(vec![Fault::Kill]);
        assert_eq!((results.valid, &results.problems[0][..]), (Valid::False, "kill never happened"));
        recorder.nemesis("start-kill", json!({"outcome": "installed", "what": {}}));
        let results = judged(vec![Fault::Kill]);
        assert_eq!(results.valid, Valid::True);
        assert_eq!(results.nemeses["kill"], Actions { installed: 1, skipped: 1, unclear: 1 });
    }

    #[test]
    fn damage_that_nobody_noticed_fails_the_run() {
        let recorder = recorder();
        let damage = |outcome: &str, noticed: Option<&str>| {
            let what = json!({"file": "7.sst", "noticed": noticed});
            recorder.nemesis("start-damage", json!({"outcome": outcome, "what": what}));
        };
        let judged = || judge(&test(vec![Fault::Damage]), &Facts::default(), &recorder.history()).unwrap();
        damage("installed", Some("7.sst is damaged"));
        assert_eq!(judged().valid, Valid::True);
        let dead = json!({"file": "8.raftlog", "noticed": null, "needed": false});
        recorder.nemesis("start-damage", json!({"outcome": "installed", "what": dead}));
        assert_eq!(judged().valid, Valid::True, "nobody had to look there");
        damage("unclear", None);
        assert_eq!(judged().problems, ["nobody noticed that 7.sst was damaged"]);
    }

    #[test]
    fn a_node_that_goes_on_when_its_disk_has_failed_fails_the_run() {
        let judged = |noticed: Option<&str>, ended: bool, needed: bool| {
            let recorder = recorder();
            let call = json!({
                "node": 2, "call": "sync", "file": "a.raftlog", "noticed": noticed, "ended": ended, "needed": needed,
            });
            recorder.nemesis("start-sync-error", json!({"outcome": "installed", "what": {"calls": [call]}}));
            judge(&test(vec![Fault::SyncError]), &Facts::default(), &recorder.history()).unwrap().problems
        };
        assert_eq!(judged(Some("os error 5"), true, true), [""; 0]);
        assert_eq!(judged(Some("the replica has stopped"), false, true), [""; 0]);
        assert_eq!(judged(None, false, false), [""; 0], "it was only for speed");
        assert_eq!(judged(None, true, true), [""; 0], "another fault may have ended it first");
        assert_eq!(judged(None, false, true), ["node 2 went on although a sync of a.raftlog had failed"]);
    }

    #[test]
    fn what_did_not_recover_and_what_the_logs_say_fails_the_run() {
        let history = recorder().history();
        let loud = |line: &str| Facts { loud: BTreeMap::from([(line.to_owned(), 1)]), ..Facts::default() };
        let table = [
            (Facts { problems: vec!["locks are left".to_owned()], ..Facts::default() }, Valid::False),
            (loud("ERROR drover: the disk is on fire"), Valid::False),
            (loud("WARN drover: peer cannot be used"), Valid::True),
            (loud("WARN drover: the machine was suspended"), Valid::False),
            (loud("thread panicked at peer cannot be used"), Valid::False),
        ];
        for (facts, valid) in table {
            assert_eq!(judge(&test(vec![]), &facts, &history).unwrap().valid, valid, "{facts:?}");
        }
    }
}
