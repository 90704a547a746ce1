//! Places at which a test can end the process, as SIGKILL would: nothing is flushed, no destructor runs.
//!
//! Only in builds with debug assertions, and only the one that the environment variable [`CRASH_AT`] arms. (The crate `fail`
//! would do, but its points can only be switched on for all dependencies at once, and raft-engine does not build with them.)

/// The environment variable that names the point to crash at, alone or with the number of times that it is passed before:
/// `replica.add.recorded` or `txn.prepared:2`.
pub const CRASH_AT: &str = "CRASH_AT";

/// Ends the process here if a test has armed `name`.
#[inline]
#[cfg_attr(not(debug_assertions), expect(unused_variables, reason = "nothing can be armed"))]
pub fn crash_point(name: &'static str) {
    #[cfg(debug_assertions)]
    if armed::is_due(name) {
        std::process::abort();
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

    pub fn is_due(name: &str) -> bool {
        let armed = ARMED.get_or_init(|| std::env::var(super::CRASH_AT).ok().map(|text| parse(&text)));
        // The count goes below zero only in a process that has ended.
        armed.as_ref().is_some_and(|(point, left)| point == name && left.fetch_sub(1, Ordering::Relaxed) == 0)
    }

    /// # Panics
    /// If it is not a name, or a name, a colon and a number.
    pub fn parse(text: &str) -> (String, AtomicU64) {
        let (name, passes) = text.split_once(':').unwrap_or((text, "0"));
        let passes = passes.parse().unwrap_or_else(|_| panic!("{}: {passes} is not a number", super::CRASH_AT));
        (name.to_owned(), AtomicU64::new(passes))
    }
}
