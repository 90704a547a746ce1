//! What clients and nemeses did, in Jepsen's format: one event for each beginning and each end.

use std::fmt;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an event says of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// It begins.
    Invoke,
    /// It happened.
    Ok,
    /// It did not happen and never will.
    Fail,
    /// Nobody knows. For a nemesis: whatever it does.
    Info,
}

impl Type {
    /// As a keyword of Jepsen's.
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Invoke => "invoke",
            Type::Ok => "ok",
            Type::Fail => "fail",
            Type::Info => "info",
        }
    }
}

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Process {
    /// A client. One that lost an answer goes on under another number.
    Client(u64),
    /// A nemesis.
    Nemesis(Nemesis),
}

/// The name of the process that breaks things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nemesis {
    /// The only one.
    Nemesis,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Process::Client(number) => write!(f, "{number}"),
            Process::Nemesis(_) => write!(f, "nemesis"),
        }
    }
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place among all events.
    pub index: u64,
    /// Nanoseconds since the run began.
    pub time: u64,
    /// What it says.
    #[serde(rename = "type")]
    pub kind: Type,
    /// Who.
    pub process: Process,
    /// Which operation.
    pub f: String,
    /// What was asked, or what came of it.
    pub value: Value,
    /// The workload; none for a nemesis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The node that the client sends everything to; none if it chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// The commit timestamp of what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<u64>,
    /// Why it did not end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// `Ok`, `Fail` or `Info`.
    pub kind: Type,
    /// What came of it.
    pub value: Value,
    /// Commit timestamp.
    pub ts: Option<u64>,
    /// Why not.
    pub error: Option<String>,
}

impl Ended {
    /// It happened.
    pub fn ok(value: Value) -> Self {
        Self { kind: Type::Ok, value, ts: None, error: None }
    }

    /// With a commit timestamp.
    #[must_use]
    pub fn at(mut self, ts: u64) -> Self {
        self.ts = (ts > 0).then_some(ts);
        self
    }
}

/// Takes down what happens. An event gets its place and its time under one lock, so both agree.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    events: Mutex<Vec<Event>>,
    acknowledged: AtomicU64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { began: Instant::now(), events: Mutex::default(), acknowledged: AtomicU64::new(0) }
    }
}

/// Names a client in its events.
#[derive(Debug, Clone)]
pub struct Who {
    /// Its number.
    pub process: u64,
    /// What it does.
    pub workload: &'static str,
    /// Where it sends everything to.
    pub node: Option<u64>,
}

impl Recorder {
    /// Empty; time begins now.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&self, mut event: Event) {
        let mut events = self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        event.index = events.len() as u64;
        event.time = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        events.push(event);
    }

    /// A client begins.
    pub fn invoke(&self, who: &Who, f: &str, value: Value) {
        self.client(who, f, Ended { kind: Type::Invoke, value, ts: None, error: None });
    }

    /// It has ended.
    pub fn end(&self, who: &Who, f: &str, ended: Ended) {
        if ended.kind == Type::Ok {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self.client(who, f, ended);
    }

    fn client(&self, who: &Who, f: &str, ended: Ended) {
        self.push(Event {
            index: 0,
            time: 0,
            kind: ended.kind,
            process: Process::Client(who.process),
            f: f.to_owned(),
            value: ended.value,
            workload: Some(who.workload.to_owned()),
            node: who.node,
            ts: ended.ts,
            error: ended.error,
        });
    }

    /// A nemesis did something.
    pub fn nemesis(&self, f: &str, value: Value) {
        self.push(Event {
            index: 0,
            time: 0,
            kind: Type::Info,
            process: Process::Nemesis(Nemesis::Nemesis),
            f: f.to_owned(),
            value,
            workload: None,
            node: None,
            ts: None,
            error: None,
        });
    }

    /// How many operations have happened so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Everything so far.
    pub fn history(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// An operation: its beginning and its end, which is missing if it was still under way.
#[derive(Debug, Clone, Copy)]
pub struct Op<'a> {
    /// The beginning.
    pub invoke: &'a Event,
    /// The end.
    pub end: Option<&'a Event>,
}

impl<'a> Op<'a> {
    /// How it ended.
    pub fn kind(&self) -> Type {
        self.end.map_or(Type::Info, |end| end.kind)
    }

    /// The end of an operation that happened.
    pub fn ok(&self) -> Option<&'a Event> {
        self.end.filter(|end| end.kind == Type::Ok)
    }
}

/// Pairs beginnings with ends, in the order of the beginnings.
pub fn operations(events: &[Event]) -> Vec<Op<'_>> {
    let mut open: std::collections::BTreeMap<u64, usize> = std::collections::BTreeMap::new();
    let mut operations: Vec<Op<'_>> = Vec::new();
    for event in events {
        let Process::Client(process) = event.process else { continue };
        match event.kind {
            Type::Invoke => {
                open.insert(process, operations.len());
                operations.push(Op { invoke: event, end: None });
            }
            Type::Ok | Type::Fail | Type::Info => {
                if let Some(at) = open.remove(&process) {
                    operations[at].end = Some(event);
                }
            }
        }
    }
    operations
}

/// Writes a history, one JSON object a line.
///
/// # Errors
/// If the file cannot be written.
pub fn save(path: &Path, events: &[Event]) -> Result<()> {
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let mut file = std::io::BufWriter::new(file);
    for event in events {
        serde_json::to_writer(&mut file, event)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// If it cannot be read, or a line is none of a history.
pub fn load(path: &Path) -> Result<Vec<Event>> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let lines = std::io::BufReader::new(file).lines().enumerate();
    lines
        .map(|(number, line)| {
            serde_json::from_str(&line?).with_context(|| format!("{} line {}", path.display(), number + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_has_jepsens_fields() {
        let recorder = Recorder::new();
        let who = Who { process: 3, workload: "append", node: Some(2) };
        recorder.invoke(&who, "txn", json!([["r", "x", null]]));
        recorder.nemesis("start-kill", json!({"nodes": [1]}));
        recorder.end(&who, "txn", Ended::ok(json!([["r", "x", [1]]])).at(7));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        save(&path, &recorder.history()).unwrap();
        assert_eq!(load(&path).unwrap(), recorder.history());
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let seen: Vec<_> = lines.iter().map(|line| (&line["type"], &line["process"], &line["index"])).collect();
        let expect = [
            (&json!("invoke"), &json!(3), &json!(0)),
            (&json!("info"), &json!("nemesis"), &json!(1)),
            (&json!("ok"), &json!(3), &json!(2)),
        ];
        assert_eq!(seen, expect);
    }

    #[test]
    fn operations_are_paired_by_their_process() {
        let recorder = Recorder::new();
        let who = |process| Who { process, workload: "set", node: None };
        recorder.invoke(&who(0), "add", json!(1));
        recorder.invoke(&who(1), "add", json!(2));
        recorder.end(&who(1), "add", Ended::ok(json!(2)));
        recorder.invoke(&who(1), "add", json!(3));
        let history = recorder.history();
        let found: Vec<_> = operations(&history).iter().map(|op| (op.invoke.value.clone(), op.kind())).collect();
        assert_eq!(found, [(json!(1), Type::Info), (json!(2), Type::Ok), (json!(3), Type::Info)]);
    }
}
