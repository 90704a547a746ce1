//! Places at which a test can end the process, as SIGKILL would: nothing is flushed, no destructor runs.
//!
//! Only in builds with debug assertions, and only the one that the environment variable [`CRASH_AT`] arms. (The crate `fail`
//! would do, but its points can only be switched on for all dependencies at once, and raft-engine does not build with them.)
//!
//! [`CrashPoint::all`] is the table of all places: the code can crash nowhere else, and the tests in
//! `crates/e2e/tests/txn_crashes.rs` and `crates/e2e/tests/replicas.rs` crash at each.

use std::fmt;
use std::str::FromStr;

/// The environment variable that names the point to crash at, alone or with the number of times that it is passed before:
/// `replica.add.recorded` or `txn.prepared:2`.
pub const CRASH_AT: &str = "CRASH_AT";

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

macro_rules! places {
    ($($(#[doc = $doc:literal])+ $name:ident: $text:literal;)+) => {
        /// A place to crash at, apart from those before and after the entries of transactions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Place {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Place {
            /// All of them.
            pub const ALL: &[Place] = &[$(Place::$name),+];

            const fn name(self) -> &'static str {
                match self {
                    $(Place::$name => $text,)+
                }
            }
        }
    };
}

places! {
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

/// A place in the code at which a test can end the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CrashPoint {
    /// A single one.
    At(Place),
    /// Before or after an entry of a transaction.
    Txn(TxnEntry, Moment),
}

impl From<Place> for CrashPoint {
    fn from(place: Place) -> Self {
        CrashPoint::At(place)
    }
}

impl CrashPoint {
    /// All of them.
    pub fn all() -> impl Iterator<Item = CrashPoint> {
        let entries = TxnEntry::ALL.into_iter();
        let entries =
            entries.flat_map(|entry| Moment::ALL.into_iter().map(move |moment| CrashPoint::Txn(entry, moment)));
        Place::ALL.iter().map(|place| CrashPoint::At(*place)).chain(entries)
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CrashPoint::At(place) => f.write_str(place.name()),
            CrashPoint::Txn(entry, moment) => write!(f, "txn.{}.{}", entry.name(), moment.name()),
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

/// Whether a test may have armed any point: to find out whether one is reached may take work.
#[inline]
pub fn crashes_are_possible() -> bool {
    #[cfg(debug_assertions)]
    return armed::point().is_some();
    #[cfg(not(debug_assertions))]
    return false;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::CrashPoint;

    static ARMED: OnceLock<Option<(CrashPoint, AtomicU64)>> = OnceLock::new();

    pub fn point() -> Option<&'static (CrashPoint, AtomicU64)> {
        ARMED.get_or_init(|| std::env::var(super::CRASH_AT).ok().map(|text| parse(&text))).as_ref()
    }

    pub fn is_due(name: CrashPoint) -> bool {
        // The count goes below zero only in a process that has ended.
        point().is_some_and(|(point, left)| *point == name && left.fetch_sub(1, Ordering::Relaxed) == 0)
    }

    /// # Panics
    /// If it is not a name, or a name, a colon and a number.
    pub fn parse(text: &str) -> (CrashPoint, AtomicU64) {
        let (name, passes) = text.split_once(':').unwrap_or((text, "0"));
        let point = name.parse().unwrap_or_else(|why| panic!("{}: {why}", super::CRASH_AT));
        let passes = passes.parse().unwrap_or_else(|_| panic!("{}: {passes} is not a number", super::CRASH_AT));
        (point, AtomicU64::new(passes))
    }
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
                    Some("rs") if !path.ends_with("guards/src/crash.rs") => {
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
        // The one call besides is that of `TxnCrash`, which takes every entry and moment.
        assert_eq!(text.matches("crash_point(").count(), Place::ALL.len() + 1);
        for moment in Moment::ALL {
            let of_an_entry = format!(".at(Moment::{moment:?})");
            let of_a_write = format!("Moment::{moment:?}));");
            assert!(text.contains(&of_an_entry) || text.contains(&of_a_write), "{moment:?}");
        }
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_point_may_be_passed_a_number_of_times_before() {
        let (point, left) = armed::parse("txn.prepared:2");
        assert_eq!((point, left.into_inner()), (CrashPoint::At(Place::TxnPrepared), 2));
        assert_eq!(armed::parse("txn.prepared").1.into_inner(), 0);
    }
}
