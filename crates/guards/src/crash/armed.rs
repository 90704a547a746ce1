//! Which points are armed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::{CRASH_AT, CRASH_FILE, CrashPoint, HOLD};

/// Lines by which points are armed, and how often each is passed before. A line that goes and comes back counts anew.
#[derive(Debug, Default)]
struct Armed(BTreeMap<String, Line>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The process ends there when it has passed so often.
    Crash { point: CrashPoint, left: u64 },
    /// Whoever comes there waits.
    Hold(CrashPoint),
}

static ARMED: Mutex<Armed> = Mutex::new(Armed(BTreeMap::new()));

fn sources() -> &'static (Option<String>, Option<std::ffi::OsString>) {
    static SOURCES: OnceLock<(Option<String>, Option<std::ffi::OsString>)> = OnceLock::new();
    SOURCES.get_or_init(|| (std::env::var(CRASH_AT).ok(), std::env::var_os(CRASH_FILE)))
}

pub fn is_possible() -> bool {
    let (at, file) = sources();
    at.is_some() || file.is_some()
}

pub fn is_due(point: CrashPoint) -> bool {
    is_possible() && with_present_lines(|armed| armed.passes(point))
}

pub fn is_held(point: CrashPoint) -> bool {
    is_possible() && with_present_lines(|armed| armed.0.values().any(|line| *line == Line::Hold(point)))
}

fn with_present_lines<T>(look: impl FnOnce(&mut Armed) -> T) -> T {
    let (at, file) = sources();
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    // It is put in place as a whole, and removed to arm nothing.
    let text = file.as_ref().and_then(|path| std::fs::read_to_string(Path::new(path)).ok()).unwrap_or_default();
    armed.take(at.iter().map(String::as_str).chain(text.lines()));
    look(&mut armed)
}

impl Armed {
    /// What is armed now.
    fn take<'t>(&mut self, lines: impl Iterator<Item = &'t str>) {
        let mut before = std::mem::take(&mut self.0);
        self.0 = lines
            .map(|line| {
                let known = before.remove(line);
                (line.to_owned(), known.unwrap_or_else(|| parse(line)))
            })
            .collect();
    }

    /// Whether the process has to end here.
    fn passes(&mut self, here: CrashPoint) -> bool {
        let line = self.0.values_mut().find(|line| matches!(line, Line::Crash { point, .. } if *point == here));
        match line {
            Some(Line::Crash { left: 0, .. }) => true,
            Some(Line::Crash { left, .. }) => {
                *left -= 1;
                false
            }
            Some(Line::Hold(_)) | None => false,
        }
    }
}

/// # Panics
/// If it is not a name, or a name, a colon and a number, or the name of a point to wait at.
fn parse(line: &str) -> Line {
    let point = |name: &str| name.parse().unwrap_or_else(|why| panic!("{line}: {why}"));
    if let Some(name) = line.strip_prefix(HOLD) {
        return Line::Hold(point(name));
    }
    let (name, passes) = line.split_once(':').unwrap_or((line, "0"));
    let left = passes.parse().unwrap_or_else(|_| panic!("{line}: {passes} is not a number"));
    Line::Crash { point: point(name), left }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;

    const PREPARED: CrashPoint = CrashPoint::At(Place::TxnPrepared);
    const REFRESHED: CrashPoint = CrashPoint::At(Place::TxnRefreshed);

    #[test]
    fn a_point_may_be_passed_a_number_of_times_before() {
        let mut armed = Armed::default();
        let passes = [true, false].map(|_| {
            armed.take(["txn.prepared:1", "txn.refreshed:9"].into_iter());
            armed.passes(PREPARED)
        });
        assert_eq!(passes, [false, true]);
        assert!(!armed.passes(REFRESHED) && !armed.passes(CrashPoint::At(Place::TxnTimestamped)));
        // A line that went and came back counts anew.
        armed.take(std::iter::empty());
        assert!(!armed.passes(PREPARED));
        armed.take(["txn.prepared:1"].into_iter());
        assert!(!armed.passes(PREPARED));
        armed.take(["txn.prepared"].into_iter());
        assert!(armed.passes(PREPARED));
    }

    #[test]
    fn who_is_to_wait_at_a_point_does_not_end_there() {
        let mut armed = Armed::default();
        armed.take(["hold txn.prepared"].into_iter());
        assert_eq!(armed.0.values().next(), Some(&Line::Hold(PREPARED)));
        assert!(!armed.passes(PREPARED));
    }
}
