//! Judges a run by its history and by what was seen besides, and writes down what came of it. Repeatable: nothing else goes in.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::check::{self, Finding, Valid, Verdict};
use crate::event::{Event, Process, Type, operations};
use crate::nemesis::{Fault, Outcome};
use crate::ownership::Ownership;
use crate::run::{Facts, Test};
use crate::workload::Kind;
use crate::{plot, timeline};

/// A pause without any operation that happened, from which on it is reported.
const UNAVAILABLE_NS: u64 = 1_000_000_000;

/// Lines of the logs at WARN or above that are brought about by any fault, or by one of these. Everything else at these levels is a
/// problem.
const EXPECTED: [(&str, &[Fault]); 15] = [
    ("peer cannot be used", &[]),
    ("handshake refused", &[]),
    ("few files may be open", &[]),
    ("snapshot was not installed", &[]),
    ("the addresses of the nodes are not noted", &[]),
    // The newest file of the Raft log ends in the middle of a batch that nobody was told of.
    ("Truncating log file due to broken batch", &[Fault::Kill, Fault::Snapshot, Fault::Crash, Fault::Power]),
    ("the machine was suspended", &[Fault::Pause]),
    ("clock", &[Fault::Clock]),
    // The leader was itself removed, or is not it any more.
    ("has to forward request to", &[Fault::Membership]),
    ("Truncating log file due to broken header", &[Fault::Power]),
    ("os error 5)", &[Fault::Power]),
    ("Input/output error", &[Fault::Power]),
    ("the disk is full", &[Fault::DiskFull]),
    ("half of the reserve is gone", &[Fault::DiskFull]),
    ("No space left", &[Fault::DiskFull]),
];

/// Whether a line belongs to what was broken.
fn is_expected(line: &str, faults: &[Fault]) -> bool {
    let by = |causes: &[Fault]| causes.is_empty() || causes.iter().any(|cause| faults.contains(cause));
    !line.contains("panicked at") && EXPECTED.iter().any(|(part, causes)| line.contains(part) && by(causes))
}

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

/// Operations that were under way while a job changed hands: between the last event before it has and the first after.
fn in_flight_at_cutover(history: &[Event]) -> BTreeMap<u64, u64> {
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
fn crashes_in_phase(history: &[Event]) -> BTreeMap<String, u64> {
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
            "start-kill" | "start-crash" | "start-power" if event.value["outcome"] == "installed" => {
                for phase in phases.values().filter(|phase| !matches!(**phase, "done" | "abandoned")) {
                    *found.entry((*phase).to_owned()).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    found
}

/// The lines of a log at WARN or above and panics, without their times and numbers.
pub fn loud(log: &str) -> Vec<String> {
    let is_loud = |line: &&str| {
        let mut words = line.split_whitespace().take(3);
        let json = line.contains("\"level\":\"WARN\"") || line.contains("\"level\":\"ERROR\"");
        words.any(|word| word == "WARN" || word == "ERROR") || json || line.contains("panicked at")
    };
    log.lines().filter(is_loud).map(without_numbers).collect()
}

/// A line from its level on, with every run of digits as one sign.
fn without_numbers(line: &str) -> String {
    let from = ["WARN", "ERROR"].iter().filter_map(|level| line.find(level)).min().unwrap_or(0);
    let mut text = String::new();
    for c in line[from..].chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if !(c == '#' && text.ends_with('#')) {
            text.push(c);
        }
    }
    text.truncate(text.char_indices().nth(400).map_or(text.len(), |(at, _)| at));
    text
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

    #[test]
    fn operations_under_way_while_a_range_changes_hands_are_counted() {
        let recorder = recorder();
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
    fn lines_of_logs_are_loud_by_their_level_and_counted_without_numbers() {
        let log = "2026-01-01T00:00:00Z  INFO a: said \"WARN\" once more\n2026-01-01T00:00:00Z  WARN a: peer 17 is gone\n\
                   thread 'x' panicked at src/a.rs:1\n";
        assert_eq!(loud(log), ["WARN a: peer # is gone", "thread 'x' panicked at src/a.rs:#"]);
    }
}
