//! Decides whether what clients saw could have happened.
//!
//! - [`linearizable`]: every key alone behaves like one register that all clients share.
//! - [`timestamps_follow_real_time`]: commit timestamps are unique and never run backwards.
//! - [`strictly_serializable`]: transactions on lists or registers, by the crate `adya`.
//! - [`no_long_fork`]: nobody saw two writes in the order opposite to that in which somebody else did.
//! - [`own_writes_are_read`]: who alone writes some keys reads what it wrote, through whichever node.
//! - [`counted_once`]: counters hold what was added to them, however often it was sent.
//! - [`whole_or_absent`]: of a transaction everything is there, or nothing.
//!
//! Everything here is pure: what was seen in, a [`Verdict`] or [`Findings`] out.

mod bits;
mod counters;
mod isolation;
mod long_fork;
mod own_writes;
mod register;
mod timestamps;
mod wgl;
mod whole;

use std::fmt;
use std::time::{Duration, Instant};

pub use counters::{Addition, counted_once};
pub use isolation::strictly_serializable;
pub use long_fork::{Look, no_long_fork};
pub use own_writes::{SessionEvent, own_writes_are_read};
pub use timestamps::timestamps_follow_real_time;
pub use whole::{Spread, whole_or_absent};

use crate::history::{History, Operation};

/// What was seen and could not have happened, or could not be judged: one sentence each. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Findings(pub Vec<String>);

impl Findings {
    fn none_of(found: Vec<String>) -> Result<(), Findings> {
        if found.is_empty() { Ok(()) } else { Err(Findings(found)) }
    }
}

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The history could have happened.
    Correct,
    /// It could not have happened.
    Violation(Box<Violation>),
    /// The time for the check ran out. Tests count this as a failure: a check that gave up has shown nothing.
    Unknown {
        /// The key that was being looked at.
        key: String,
    },
}

impl Verdict {
    /// Fails the test unless the history is correct.
    ///
    /// # Panics
    /// With the violation, or with the key at which time ran out.
    pub fn assert_correct(&self) {
        match self {
            Verdict::Correct => {}
            Verdict::Violation(violation) => panic!("{violation}"),
            Verdict::Unknown { key } => panic!("the check ran out of time at key {key:?}; nothing was shown"),
        }
    }
}

/// Why a history could not have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The key concerned.
    pub key: String,
    /// One sentence.
    pub message: String,
    /// The last operations of the longest order that does work, oldest first.
    pub worked: Vec<Operation>,
    /// The operations that cannot follow.
    pub stuck: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key {:?}: {}", self.key, self.message)?;
        writeln!(f, "  the longest order that works ends with:")?;
        for operation in &self.worked {
            writeln!(f, "    {operation}")?;
        }
        writeln!(f, "  none of these can come next:")?;
        for operation in &self.stuck {
            writeln!(f, "    {operation}")?;
        }
        Ok(())
    }
}

/// Checks that each key of `history` alone is linearizable, which makes the whole history linearizable (Herlihy and
/// Wing's locality). Keys are shared out over the machine's cores; all have to be done within `budget`.
pub fn linearizable(history: &History, budget: Duration) -> Verdict {
    let deadline = Instant::now() + budget;
    let keys: Vec<(String, Vec<Operation>)> = history.by_key().into_iter().collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(keys.len().max(1));
    let next = std::sync::atomic::AtomicUsize::new(0);
    let verdicts = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((key, operations)) = keys.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let verdict = wgl::check(key, operations, deadline);
                    verdicts.lock().expect("no worker panics while it holds the lock").push(verdict);
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().expect("no worker panics while it holds the lock");
    worst(verdicts)
}

/// A violation says more than a check that gave up, and both more than nothing.
fn worst(verdicts: Vec<Verdict>) -> Verdict {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Violation(_) => 0,
        Verdict::Unknown { .. } => 1,
        Verdict::Correct => 2,
    };
    verdicts.into_iter().min_by_key(rank).unwrap_or(Verdict::Correct)
}
