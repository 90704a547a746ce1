//! What clients did and saw, in the order in which it happened.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

/// What a client asked of one key. Values are numbers; drivers make them unique so that a stale read cannot hide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Read the newest value.
    Read,
    /// Write a value.
    Write { value: u64 },
    /// Delete the key.
    Delete,
    /// Compare, then write (`Some`) or delete (`None`).
    Cas { expect: Expect, update: Option<u64> },
}

/// What a compare-and-set requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// No value.
    Absent,
    /// Any value.
    Present,
    /// This value.
    Value(u64),
    /// A value committed at this timestamp.
    Version(u64),
}

/// A version that an answer showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `None` if the answer left it out (a compare-and-set that was tried again).
    pub value: Option<u64>,
    /// When it was committed, in the 64-bit form.
    pub commit_ts: u64,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To a read; `None`: no value.
    Read(Option<Seen>),
    /// To a write, a delete, or a compare-and-set that succeeded.
    Written { commit_ts: u64 },
    /// To a compare-and-set that met something else.
    CompareFailed(Option<Seen>),
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// With an answer.
    Answered(Answer),
    /// With a definite error: nothing happened and nothing will.
    Refused,
    /// Without certainty: it may have happened, may still happen, or never.
    Unknown,
}

/// One operation on one key. Times are places in the order of all events of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked.
    pub client: u64,
    /// Of which key.
    pub key: String,
    /// What was asked.
    pub action: Action,
    /// Before the request was sent.
    pub called: u64,
    /// After the answer had come; `None` if none came before the history was closed.
    pub returned: Option<u64>,
    /// `None` if none came.
    pub ended: Option<Ending>,
}

impl Operation {
    /// How it ended; an operation that was never heard of again is of unknown fate.
    pub fn ending(&self) -> Ending {
        self.ended.unwrap_or(Ending::Unknown)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let returned = self.returned.map_or("never".to_owned(), |at| at.to_string());
        write!(f, "[{}..{returned}] client {}: {:?} -> {:?}", self.called, self.client, self.action, self.ending())
    }
}

/// A closed history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In the order of their calls.
    pub operations: Vec<Operation>,
}

impl History {
    /// The operations of each key, in the order of their calls.
    pub fn by_key(&self) -> BTreeMap<String, Vec<Operation>> {
        let mut keys: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(operation.key.clone()).or_default().push(operation.clone());
        }
        keys
    }

    /// How many operations were answered, refused, and left unknown.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for operation in &self.operations {
            match operation.ending() {
                Ending::Answered(_) => tally.answered += 1,
                Ending::Refused => tally.refused += 1,
                Ending::Unknown => tally.unknown += 1,
            }
        }
        tally
    }

    /// Writes the history as one JSON object a line.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for operation in &self.operations {
            serde_json::to_writer(&mut file, operation)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }
}

/// Numbers of operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// With an answer.
    pub answered: usize,
    /// With a definite error.
    pub refused: usize,
    /// Without certainty.
    pub unknown: usize,
}

/// Names an operation while it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call(usize);

/// Takes down what concurrent clients do. The order of events is the order in which they enter the recorder's lock, so
/// it never claims that one operation returned before another was called unless it did.
#[derive(Debug, Default)]
pub struct Recorder {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    events: u64,
    answered: usize,
    operations: Vec<Operation>,
}

impl Recorder {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// To be called before the request is sent.
    pub fn call(&self, client: u64, key: impl Into<String>, action: Action) -> Call {
        let key = key.into();
        let mut inner = self.lock();
        inner.events += 1;
        let called = inner.events;
        inner.operations.push(Operation { client, key, action, called, returned: None, ended: None });
        Call(inner.operations.len() - 1)
    }

    /// To be called after the answer came.
    pub fn end(&self, call: Call, ending: Ending) {
        let mut inner = self.lock();
        inner.events += 1;
        inner.answered += usize::from(matches!(ending, Ending::Answered(_)));
        let returned = inner.events;
        let operation = &mut inner.operations[call.0];
        operation.returned = Some(returned);
        operation.ended = Some(ending);
    }

    /// How many operations have been answered so far.
    pub fn answered(&self) -> usize {
        self.lock().answered
    }

    /// Everything so far. Operations that are still under way are of unknown fate in it.
    pub fn history(&self) -> History {
        History { operations: self.lock().operations.clone() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_without_an_end_is_of_unknown_fate_and_every_event_has_its_own_place() {
        let recorder = Recorder::new();
        let a = recorder.call(1, "k", Action::Read);
        recorder.call(2, "k", Action::Write { value: 7 });
        recorder.end(a, Ending::Answered(Answer::Read(None)));
        let history = recorder.history();
        assert_eq!(history.tally(), Tally { answered: 1, refused: 0, unknown: 1 });
        let [read, write] = &history.operations[..] else { panic!("two operations") };
        assert_eq!((read.called, read.returned, write.called, write.returned), (1, Some(3), 2, None));
    }

    #[test]
    fn a_saved_history_has_one_readable_line_for_each_operation() {
        let recorder = Recorder::new();
        let call = recorder.call(1, "k", Action::Cas { expect: Expect::Version(3), update: None });
        recorder.end(call, Ending::Answered(Answer::CompareFailed(Some(Seen { value: Some(1), commit_ts: 2 }))));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        recorder.history().save(&path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let read: Vec<Operation> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, recorder.history().operations);
    }
}
