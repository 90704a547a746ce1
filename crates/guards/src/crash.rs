//! Places at which a test can end the process, as SIGKILL would: nothing is flushed, no destructor runs.
//!
//! Only in builds with debug assertions, and only those that are armed: the one that the environment variable [`CRASH_AT`]
//! names, and those in the file that [`CRASH_FILE`] names, which may change while the process runs. (The crate `fail`
//! would do, but its points can only be switched on for all dependencies at once, and raft-engine does not build with them.)
//!
//! [`CrashPoint::all`] is the table of all places: the code can crash nowhere else, and the tests in
//! `txn_crashes.rs`, `replicas.rs` and `move_crashes.rs` in `crates/e2e/tests/e2e` crash at each.

/// An enum whose values have names.
macro_rules! named {
    ($(#[doc = $what:literal])+ $list:ident { $($(#[doc = $doc:literal])+ $name:ident: $text:literal;)+ }) => {
        $(#[doc = $what])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $list {
            $($(#[doc = $doc])+ $name,)+
        }

        impl $list {
            /// All of them.
            pub const ALL: &[$list] = &[$($list::$name),+];

            pub(super) const fn name(self) -> &'static str {
                match self {
                    $($list::$name => $text,)+
                }
            }
        }
    };
}

#[cfg(debug_assertions)]
mod armed;
mod moving;

use std::fmt;
use std::str::FromStr;

pub use moving::{JobMark, MoveEntry};

/// The environment variable that names the point to crash at, alone or with the number of times that it is passed before:
/// `replica.add.recorded` or `txn.prepared:2`.
pub const CRASH_AT: &str = "CRASH_AT";

/// The environment variable that names a file with points, one in each line, as in [`CRASH_AT`]. A line may begin with
/// [`HOLD`]: whoever comes to that point waits there for as long as the line stands.
pub const CRASH_FILE: &str = "CRASH_FILE";

/// Begins a line of [`CRASH_FILE`] that names a point to wait at.
pub const HOLD: &str = "hold ";

/// What the process writes to its standard error, followed by the name of the point, when it begins to wait at one.
pub const HELD_WORDS: &str = "the process waits here as a test has asked: ";

/// What the process writes to its standard error, followed by the name of the point, before it ends.
pub const LAST_WORDS: &str = "the process ends here as a test has asked: ";

/// A log entry by which a transaction makes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TxnEntry {
    /// All of a transaction of one group.
    Commit,
    /// Locks where the primary is.
    PreparePrimary,
    /// Locks elsewhere.
    PrepareSecondary,
    /// The commit point of a transaction of several groups.
    Decide,
    /// Makes the locks elsewhere versions.
    ResolveCommitted,
    /// Removes locks of what was rolled back.
    ResolveRolledBack,
    /// Records, where the primary is, that it is rolled back.
    Rollback,
    /// Keeps the lock on the primary alive.
    Heartbeat,
    /// Notes, where the primary is, that no lock is left.
    Finish,
}

impl TxnEntry {
    /// All of them.
    pub const ALL: [TxnEntry; 9] = [
        TxnEntry::Commit,
        TxnEntry::PreparePrimary,
        TxnEntry::PrepareSecondary,
        TxnEntry::Decide,
        TxnEntry::ResolveCommitted,
        TxnEntry::ResolveRolledBack,
        TxnEntry::Rollback,
        TxnEntry::Heartbeat,
        TxnEntry::Finish,
    ];

    const fn name(self) -> &'static str {
        match self {
            TxnEntry::Commit => "commit",
            TxnEntry::PreparePrimary => "prepare_primary",
            TxnEntry::PrepareSecondary => "prepare_secondary",
            TxnEntry::Decide => "decide",
            TxnEntry::ResolveCommitted => "resolve_committed",
            TxnEntry::ResolveRolledBack => "resolve_rolled_back",
            TxnEntry::Rollback => "rollback",
            TxnEntry::Heartbeat => "heartbeat",
            TxnEntry::Finish => "finish",
        }
    }
}

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moment {
    /// Its coordinator is about to send it.
    Unsent,
    /// The leader of the group has a timestamp for it, and has not handed it to Raft.
    Unproposed,
    /// A majority has it in the log; the leader has not applied it.
    Committed,
    /// The leader has applied it and told nobody.
    Applied,
    /// Its coordinator has the answer and has told nobody.
    Answered,
}

impl Moment {
    /// All of them, in their order.
    pub const ALL: [Moment; 5] =
        [Moment::Unsent, Moment::Unproposed, Moment::Committed, Moment::Applied, Moment::Answered];

    const fn name(self) -> &'static str {
        match self {
            Moment::Unsent => "unsent",
            Moment::Unproposed => "unproposed",
            Moment::Committed => "committed",
            Moment::Applied => "applied",
            Moment::Answered => "answered",
        }
    }

    /// Whether it happens on the coordinator of the transaction, otherwise on the leader of the group.
    pub const fn is_on_the_coordinator(self) -> bool {
        matches!(self, Moment::Unsent | Moment::Answered)
    }
}

named! {
    /// A place to crash at, apart from those before and after the entries of transactions and moves.
    Place {
        /// A replica is to be added, and what lay in its place is gone.
        ReplicaAddCleared: "replica.add.cleared";
        /// It is noted on disk that the replica is there.
        ReplicaAddRecorded: "replica.add.recorded";
        /// The replica is open.
        ReplicaAddOpened: "replica.add.opened";
        /// It is noted on disk that the replica is to go.
        ReplicaRemoveRecorded: "replica.remove.recorded";
        /// The replica's data is gone.
        ReplicaRemoveCleared: "replica.remove.cleared";
        /// The replica's log is gone, its state machine is not.
        ReplicaClearStore: "replica.clear.store";
        /// All locks of a transaction stand.
        TxnPrepared: "txn.prepared";
        /// The transaction has its commit timestamp.
        TxnTimestamped: "txn.timestamped";
        /// What it has read was found unchanged.
        TxnRefreshed: "txn.refreshed";
    }
}

/// A place in the code at which a test can end the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CrashPoint {
    /// A single one.
    At(Place),
    /// Before or after an entry of a transaction.
    Txn(TxnEntry, Moment),
    /// Before or after an entry of a move in the log of its source or of its target.
    Move(MoveEntry, Moment),
    /// Before or after an entry of a move in the catalog.
    Job(JobMark, Moment),
}

impl From<Place> for CrashPoint {
    fn from(place: Place) -> Self {
        CrashPoint::At(place)
    }
}

impl CrashPoint {
    /// All of them.
    pub fn all() -> impl Iterator<Item = CrashPoint> {
        let moments = || Moment::ALL.into_iter();
        let txns = TxnEntry::ALL.into_iter();
        let txns = txns.flat_map(move |entry| moments().map(move |moment| CrashPoint::Txn(entry, moment)));
        let moves = MoveEntry::ALL.iter();
        let moves = moves.flat_map(move |entry| moments().map(move |moment| CrashPoint::Move(*entry, moment)));
        let jobs = JobMark::ALL.iter();
        let jobs = jobs.flat_map(move |mark| moments().map(move |moment| CrashPoint::Job(*mark, moment)));
        Place::ALL.iter().map(|place| CrashPoint::At(*place)).chain(txns).chain(moves).chain(jobs)
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CrashPoint::At(place) => f.write_str(place.name()),
            CrashPoint::Txn(entry, moment) => write!(f, "txn.{}.{}", entry.name(), moment.name()),
            CrashPoint::Move(entry, moment) => write!(f, "move.{}.{}", entry.name(), moment.name()),
            CrashPoint::Job(mark, moment) => write!(f, "job.{}.{}", mark.name(), moment.name()),
        }
    }
}

impl FromStr for CrashPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        CrashPoint::all()
            .find(|point| point.to_string() == text)
            .ok_or_else(|| format!("there is no crash point {text}"))
    }
}

/// Ends the process here if a test has armed `point`.
#[inline]
#[cfg_attr(not(debug_assertions), expect(unused_variables, reason = "nothing can be armed"))]
pub fn crash_point(point: impl Into<CrashPoint>) {
    #[cfg(debug_assertions)]
    if let point = point.into()
        && armed::is_due(point)
    {
        use std::io::Write;
        // A test takes it for the proof that the process came here; without a reader there is nothing to prove. One piece, so
        // that nothing comes in between.
        let _ = std::io::stderr().write_all(format!("{LAST_WORDS}{point}\n").as_bytes());
        std::process::abort();
    }
}

/// Whether a test wants whoever comes to `point` to wait there. Asked again and again by whoever waits.
#[inline]
#[cfg_attr(not(debug_assertions), expect(unused_variables, reason = "nothing can be armed"))]
pub fn is_held_at(point: CrashPoint) -> bool {
    #[cfg(debug_assertions)]
    return armed::is_held(point);
    #[cfg(not(debug_assertions))]
    return false;
}

/// Whether a test may have armed any point: to find out whether one is reached may take work.
#[inline]
pub fn crashes_are_possible() -> bool {
    #[cfg(debug_assertions)]
    return armed::is_possible();
    #[cfg(not(debug_assertions))]
    return false;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn points_are_found_by_names_of_their_own() {
        let names: BTreeSet<String> = CrashPoint::all().map(|point| point.to_string()).collect();
        assert_eq!(names.len(), CrashPoint::all().count());
        for point in CrashPoint::all() {
            assert_eq!(point.to_string().parse(), Ok(point));
        }
        assert!(CrashPoint::from_str("txn.nowhere").is_err());
        assert_eq!(CrashPoint::Txn(TxnEntry::Decide, Moment::Applied).to_string(), "txn.decide.applied");
        assert_eq!(CrashPoint::Move(MoveEntry::Seal, Moment::Unsent).to_string(), "move.seal.unsent");
        assert_eq!(CrashPoint::Job(JobMark::HandOver, Moment::Committed).to_string(), "job.hand_over.committed");
    }

    /// The text of all sources of the workspace but this file.
    fn sources() -> String {
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
        let mut text = String::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.extension().and_then(|extension| extension.to_str()) {
                    _ if path.is_dir() && !path.ends_with("tests") => folders.push(path),
                    Some("rs") if !path.ends_with("guards/src/crash.rs") && !path.ends_with("crash/armed.rs") => {
                        text.push_str(&std::fs::read_to_string(path).unwrap());
                    }
                    _ => {}
                }
            }
        }
        text
    }

    #[test]
    fn the_code_comes_to_every_point_of_the_table_and_to_no_other() {
        let text = sources();
        for place in Place::ALL {
            assert_eq!(text.matches(&format!("crash_point(Place::{place:?})")).count(), 1, "{place:?}");
        }
        // The two calls besides are those of `TxnCrash` and `MoveCrash`, which take every entry and moment.
        assert_eq!(text.matches("crash_point(").count(), Place::ALL.len() + 2);
        for moment in Moment::ALL {
            let of_an_entry = format!(".at(Moment::{moment:?})");
            let of_a_write = format!("Moment::{moment:?}));");
            assert!(text.contains(&of_an_entry) || text.contains(&of_a_write), "{moment:?}");
        }
    }
}
