//! Who owned what, by what the nodes' own logs say of every entry that changed it and of every key that was written.
//!
//! What must hold: all replicas tell the same of one entry; no two groups own a key since one version; a group gets a range by
//! a move only if the group that had it has closed it, by the same move and the same course of it, and does not open it again;
//! both hold the same rows then; nothing new is written behind a fence; each key that is written was owned by the group that
//! wrote it, since no later than the version that its writer was routed by, and the map of that version named that group
//! (Composed-1); what a client was told of is in some log.
//!
//! Keys are compared as the logs show them. That is their order as long as all of them are printable, as the harness's are.

mod entries;
mod read;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use entries::check_entries;
pub use read::{Logs, parse};
pub use writes::check_writes;

use crate::event::{Event, Type};
use crate::routes::Row;

/// What is found out at most of each kind.
const MOST: usize = 10;

/// An entry that changes who owns a range, or how far it is closed, as one node tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Change {
    /// The group whose log it stands in.
    #[serde(deserialize_with = "read::number")]
    pub group: u64,
    /// Where.
    pub index: u64,
    /// The move; zero if it is none.
    #[serde(deserialize_with = "read::number")]
    pub job: u64,
    /// Its course.
    #[serde(deserialize_with = "read::number")]
    pub epoch: u64,
    /// What happens.
    pub step: String,
    /// How far the range is closed then.
    pub fence: String,
    /// The first key.
    pub start: String,
    /// The first one behind it; empty: there is none.
    pub end: String,
    /// Since which version of the catalog the group owns it, or did.
    #[serde(deserialize_with = "read::number")]
    pub version: u64,
    /// Which arming of the source the sum belongs to.
    pub armed_at: u64,
    /// Rows in the sum, modulo 2^64.
    pub rows: u64,
    /// The sum, modulo 2^128.
    #[serde(deserialize_with = "read::hex")]
    pub sum: u128,
    /// When the node said so, by its clock.
    #[serde(rename = "timestamp")]
    pub at: String,
}

/// A key that an entry wrote.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Write {
    /// The group whose log it stands in.
    #[serde(deserialize_with = "read::number")]
    pub group: u64,
    /// Where.
    pub index: u64,
    /// How.
    pub step: String,
    /// The key.
    pub key: String,
    /// The version of the map by which it was routed.
    pub observed: u64,
    /// The timestamp, of the entry for what prepares.
    pub ts: u64,
}

impl Write {
    /// Whether it is judged by all gates. The end of a transaction that has prepared passes fences, and may be told again.
    fn is_new(&self) -> bool {
        !matches!(self.step.as_str(), "decide" | "resolve")
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// Entries that change ownership.
    pub changes: u64,
    /// Moves whose source and target were found to hold the same when the range changed hands.
    pub moves_compared: u64,
    /// Keys written, each entry counted once.
    pub writes: u64,
    /// Of these, by a version whose map was seen.
    pub writes_by_known_maps: u64,
    /// Writes that clients were told of, and that are in the logs.
    pub acknowledged: u64,
    /// What was not right.
    pub problems: Vec<String>,
}

/// A range of keys.
pub(crate) fn contains(start: &str, end: &str, key: &str) -> bool {
    start <= key && (end.is_empty() || key < end)
}

/// Whether two ranges share a key.
pub(crate) fn overlap(one: (&str, &str), other: (&str, &str)) -> bool {
    let below = |end: &str, start: &str| !end.is_empty() && end <= start;
    !below(one.1, other.0) && !below(other.1, one.0)
}

/// Judges what the logs of a run say. `clocks_agree`: the lines of all nodes can be put in order by their times. `maps`: the
/// maps that were seen, by their versions.
pub fn judge(logs: &Logs, maps: &BTreeMap<u64, Vec<Row>>, history: &[Event], clocks_agree: bool) -> Ownership {
    let entries = check_entries(&logs.changes, clocks_agree);
    let mut found = Ownership {
        changes: entries.changes.len() as u64,
        moves_compared: entries.moves_compared,
        problems: entries.problems,
        ..Ownership::default()
    };
    if found.changes == 0 {
        found.problems.push("the logs say nothing of who owns what".to_owned());
    }
    if logs.writes.is_empty() {
        return found;
    }
    let writes = check_writes(&logs.writes, &entries.changes, &entries.spans, maps);
    (found.writes, found.writes_by_known_maps) = (writes.judged, writes.by_known_maps);
    found.problems.extend(writes.problems);
    let told: BTreeSet<u64> = logs.writes.iter().map(|write| write.ts).collect();
    let acknowledged = history.iter().filter(|event| event.kind == Type::Ok).filter_map(|event| event.ts);
    let (there, missing): (Vec<u64>, Vec<u64>) = acknowledged.partition(|ts| told.contains(ts));
    found.acknowledged = there.len() as u64;
    let missing =
        missing.iter().take(MOST).map(|ts| format!("a client was told of a write at {ts}, and no log has it"));
    found.problems.extend(missing);
    found
}

/// Reads the logs of a run's folder.
pub fn read(dir: &Path, nodes: u64) -> Logs {
    let mut logs = Logs::default();
    for node in 1..=nodes {
        // Those who are not there say nothing, which is found out by that.
        let log = std::fs::read(dir.join(format!("n{node}.log"))).unwrap_or_default();
        parse(&String::from_utf8_lossy(&log), node, &mut logs);
    }
    logs
}
