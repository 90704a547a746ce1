//! What the clients of a run did and were told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use drover_client::Timestamp;
use drover_keys::GroupId;
use parking_lot::Mutex;

use crate::trace::Trace;

/// What became of something that was to change the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, at this commit timestamp.
    Done(Timestamp),
    /// It did not happen and never will.
    Never(String),
    /// Nobody knows.
    Unknown(String),
}

/// Something that happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Begins to write a number, higher than any before, to a key that nobody else writes.
    Writes {
        /// The key.
        key: String,
        /// The number.
        number: u64,
    },
    /// That came to an end.
    Wrote {
        /// The key.
        key: String,
        /// The number.
        number: u64,
        /// The end.
        outcome: Outcome,
    },
    /// Read the number of a key; zero if it had none.
    Read {
        /// The key.
        key: String,
        /// The number.
        number: u64,
    },
    /// Read several keys once more as of a timestamp.
    ReadAgain {
        /// The timestamp.
        at: Timestamp,
        /// The keys.
        keys: Vec<String>,
        /// Their numbers at first.
        first: Vec<u64>,
        /// Their numbers now.
        again: Vec<u64>,
    },
    /// Begins to append something that nobody else appends to all lists.
    Appends {
        /// What.
        element: String,
    },
    /// That came to an end.
    Appended {
        /// What.
        element: String,
        /// The lists with it, if it is done.
        lists: Vec<Vec<String>>,
        /// The end.
        outcome: Outcome,
    },
    /// Read all lists at once.
    Listed {
        /// What was in each.
        lists: Vec<Vec<String>>,
    },
    /// Moved money from one account to another.
    Transferred(Outcome),
    /// Read all accounts at once: what they hold together.
    Counted(i64),
    /// Compared the replicas of a group, with what each has.
    Compared {
        /// The group.
        group: GroupId,
        /// Whether they are equal.
        equal: bool,
        /// What they have.
        digests: String,
    },
    /// Started a move, or called one off.
    Moves(String),
    /// Gave a node a replica, or let one give its own up.
    Members(String),
}

/// Something that happened, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// To whom.
    pub client: String,
    /// When it was begun.
    pub began: Duration,
    /// When it came to its end.
    pub ended: Duration,
    /// What.
    pub what: What,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} since {:.6}: {:?}", self.client, self.began.as_secs_f64(), self.what)
    }
}

/// The history of a run. Clones are the same one.
#[derive(Clone)]
pub struct History {
    trace: Trace,
    events: Arc<Mutex<Vec<Event>>>,
}

impl History {
    /// An empty history, which also goes into `trace`.
    pub fn new(trace: Trace) -> Self {
        Self { trace, events: Arc::default() }
    }

    /// Notes what has just come to its end.
    pub fn note(&self, client: &str, began: Duration, what: What) {
        let event = Event { client: client.to_owned(), began, ended: crate::machine::now(), what };
        self.trace.note(&event);
        self.events.lock().push(event);
    }

    /// What has been noted since this was asked last.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock())
    }
}
