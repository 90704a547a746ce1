//! How much of everything there is in a run of the model. Each scenario opens some doors wide and keeps others shut: all at once
//! would be more states than can be looked at.

/// The bounds of a run.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What people call it.
    pub name: &'static str,
    /// Versions that the key has at the start.
    pub versions: u8,
    /// Rows in a portion of the copy.
    pub chunk: usize,
    /// Writes that clients make; the second one deletes.
    pub writes: u8,
    /// A write may also come at an old timestamp, the lowest one that the writer may hope to get through with.
    pub low_timestamps: bool,
    /// Requests may also be routed by old maps.
    pub old_maps: bool,
    /// Requests may also name no map.
    pub no_map: bool,
    /// Clients read: the latest version, and as of the start.
    pub reads: bool,
    /// There is a key beside the range as well; coordinators with a map from before the range was carved out read and write both
    /// keys at once.
    pub beside: bool,
    /// Scans over both keys by coordinators that ask for each part apart.
    pub scans: u8,
    /// How often the transaction is tried; zero: there is none.
    pub attempts: u8,
    /// A prepare may come again after its attempt is over.
    pub late_prepares: bool,
    /// Messages that may be under way and have not arrived.
    pub in_flight: usize,
    /// Each message may come again at any time.
    pub again: bool,
    /// How often the second migrator looks at the job before it is deposed.
    pub looks: u8,
    /// Courses that a job may take; people may call it off in any of them.
    pub courses: u64,
    /// People call jobs off.
    pub abandons: bool,
    /// Jobs fail and are tried again.
    pub fails: bool,
    /// Fences stand for too long.
    pub overruns: bool,
    /// Rounds of what was written meanwhile are copied before the fence.
    pub rounds: bool,
    /// Jobs after one another, each to the group that does not have the range.
    pub jobs: u8,
    /// A job may be asked for while another one is under way.
    pub at_once: bool,
    /// How often the safe point advances, and garbage is collected.
    pub collections: u8,
    /// Rows that a copy loses on its way.
    pub losses: u8,
    /// Portions of a copy that come also with a row too many.
    pub strays: u8,
    /// Notes of an older course, that the copy is closed, which the catalog takes for ones of the present course.
    pub mistakes: u8,
    /// The copy may be read from a replica that lags.
    pub lagging: bool,
    /// Groups forget the marks of jobs that are over.
    pub horizons: bool,
}

/// One move, by one migrator at a time, and nobody writes.
pub const QUIET: Scenario = Scenario {
    name: "quiet",
    versions: 1,
    chunk: 1,
    writes: 0,
    low_timestamps: false,
    old_maps: false,
    no_map: false,
    reads: false,
    beside: false,
    scans: 0,
    attempts: 0,
    late_prepares: false,
    in_flight: 1,
    again: false,
    looks: 0,
    courses: 1,
    abandons: false,
    fails: false,
    overruns: false,
    rounds: false,
    jobs: 1,
    at_once: false,
    collections: 0,
    losses: 0,
    strays: 0,
    mistakes: 0,
    lagging: false,
    horizons: false,
};

/// Everything that clients do, while a range moves once.
pub const CLIENTS: Scenario = Scenario {
    name: "clients",
    writes: 2,
    low_timestamps: true,
    old_maps: true,
    no_map: true,
    reads: true,
    attempts: 1,
    rounds: true,
    ..QUIET
};

/// A transaction that is tried twice while a range moves, with every message of the copy coming again.
pub const COPY: Scenario =
    Scenario { name: "copy", versions: 2, attempts: 2, late_prepares: true, again: true, rounds: true, ..QUIET };

/// Jobs change their course, are called off, and fail; every message comes again at any time.
pub const COURSES: Scenario = Scenario {
    name: "courses",
    writes: 1,
    again: true,
    courses: 2,
    abandons: true,
    fails: true,
    overruns: true,
    ..QUIET
};

/// Two migrators work on a job, one of them by what it saw a while ago.
pub const MIGRATORS: Scenario = Scenario {
    name: "migrators",
    writes: 1,
    in_flight: 2,
    looks: 2,
    courses: 2,
    abandons: true,
    overruns: true,
    ..QUIET
};

/// Messages overtake each other, over changes of course.
pub const OVERTAKING: Scenario =
    Scenario { name: "overtaking", in_flight: 2, courses: 2, abandons: true, overruns: true, ..QUIET };

/// The copy is read from a replica that lags, while fences are lifted and set again.
pub const LAGGING: Scenario =
    Scenario { name: "lagging", writes: 2, attempts: 1, courses: 2, overruns: true, lagging: true, ..QUIET };

/// A range moves away and back, with messages of the first move coming again.
pub const BACK: Scenario = Scenario {
    name: "back",
    writes: 1,
    low_timestamps: true,
    old_maps: true,
    reads: true,
    again: true,
    jobs: 2,
    ..QUIET
};

/// A move is called off, and another one begun, with messages of the first one coming again.
pub const ANEW: Scenario = Scenario { name: "anew", again: true, jobs: 2, abandons: true, horizons: true, ..QUIET };

/// A second job is asked for while the first one is under way.
pub const AT_ONCE: Scenario = Scenario { name: "at-once", jobs: 2, at_once: true, writes: 1, ..QUIET };

/// Garbage is collected while a range moves.
pub const GARBAGE: Scenario = Scenario {
    name: "garbage",
    versions: 2,
    writes: 1,
    old_maps: true,
    reads: true,
    attempts: 1,
    rounds: true,
    collections: 2,
    ..QUIET
};

/// A copy loses rows on its way.
pub const LOSSES: Scenario =
    Scenario { name: "losses", versions: 2, writes: 1, reads: true, rounds: true, losses: 1, courses: 2, ..QUIET };

/// A portion of a copy comes once more, with a row that does not belong there.
pub const STRAYS: Scenario =
    Scenario { name: "strays", writes: 1, reads: true, strays: 1, in_flight: 2, courses: 2, ..QUIET };

/// The catalog believes that a copy is closed which is not.
pub const MISTAKES: Scenario = Scenario {
    name: "mistakes",
    writes: 1,
    reads: true,
    again: true,
    mistakes: 1,
    courses: 2,
    overruns: true,
    ..QUIET
};

/// Requests over a key in the range and one beside it, by coordinators with old maps, while the range moves.
pub const SCANS: Scenario = Scenario {
    name: "scans",
    writes: 2,
    low_timestamps: true,
    old_maps: true,
    reads: true,
    beside: true,
    scans: 1,
    rounds: true,
    ..QUIET
};

/// Those that the tests go through.
pub const SMALL: [Scenario; 15] = [
    QUIET, CLIENTS, COPY, COURSES, MIGRATORS, OVERTAKING, LAGGING, BACK, ANEW, AT_ONCE, GARBAGE, LOSSES, STRAYS,
    MISTAKES, SCANS,
];

/// More than a test can afford, and still gone through to the end.
pub const LARGE: [Scenario; 10] = [
    Scenario { name: "large-clients", writes: 3, attempts: 2, ..CLIENTS },
    Scenario { name: "large-copy", versions: 3, writes: 1, ..COPY },
    Scenario { name: "large-courses", reads: true, courses: 3, ..COURSES },
    Scenario { name: "large-migrators", fails: true, reads: true, ..MIGRATORS },
    Scenario { name: "large-overtaking", in_flight: 3, writes: 2, reads: true, ..OVERTAKING },
    Scenario { name: "large-lagging", in_flight: 2, ..LAGGING },
    Scenario { name: "large-back", writes: 2, jobs: 3, ..BACK },
    Scenario { name: "large-garbage", low_timestamps: true, ..GARBAGE },
    Scenario { name: "large-losses", attempts: 1, losses: 2, strays: 1, courses: 3, ..LOSSES },
    Scenario { name: "large-scans", attempts: 1, ..SCANS },
];

/// More than anybody has gone through to the end.
pub const HUGE: [Scenario; 9] = [
    Scenario { name: "huge-scans", attempts: 1, scans: 2, collections: 1, ..SCANS },
    Scenario { name: "huge-clients", writes: 3, attempts: 2, late_prepares: true, collections: 1, ..CLIENTS },
    Scenario { name: "huge-copy", versions: 3, writes: 1, in_flight: 2, lagging: true, ..COPY },
    Scenario {
        name: "huge-courses",
        low_timestamps: true,
        old_maps: true,
        reads: true,
        attempts: 1,
        courses: 3,
        looks: 1,
        ..COURSES
    },
    Scenario { name: "huge-migrators", in_flight: 2, courses: 3, looks: 2, fails: true, ..MIGRATORS },
    Scenario { name: "huge-lagging", in_flight: 2, courses: 3, again: true, ..LAGGING },
    Scenario { name: "huge-back", writes: 2, attempts: 1, jobs: 3, courses: 2, fails: true, ..BACK },
    Scenario { name: "huge-anew", writes: 2, reads: true, old_maps: true, low_timestamps: true, jobs: 3, ..ANEW },
    Scenario { name: "huge-losses", writes: 2, attempts: 1, losses: 2, collections: 1, courses: 3, ..LOSSES },
];
