//! The sequential specification: one register with versions.

use crate::history::{Action, Answer, Ending, Expect, Seen};

/// The register between two operations.
///
/// The commit timestamp of its newest version may be unknown, because the answer to the write was lost. Then `floor`
/// is only a lower bound, and the first operation that sees the version fixes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Register {
    value: Option<u64>,
    floor: u64,
    exact: bool,
}

impl Register {
    /// Never written.
    pub const EMPTY: Register = Register { value: None, floor: 0, exact: true };

    /// The register after `action` ended in `ending`, or `None` if it cannot end so here.
    ///
    /// An operation that may or may not have happened is only ever asked to happen with effect: its happening without
    /// effect is the same as its not happening, and the search may leave it out.
    pub fn step(self, action: Action, ending: &Ending) -> Option<Register> {
        match (action, ending) {
            (Action::Read, Ending::Answered(Answer::Read(seen))) => self.observe(*seen),
            (Action::Write { value }, Ending::Answered(Answer::Written { commit_ts })) => {
                self.write(Some(value), Some(*commit_ts))
            }
            (Action::Write { value }, Ending::Unknown) => self.write(Some(value), None),
            (Action::Delete, Ending::Answered(Answer::Written { commit_ts })) => self.write(None, Some(*commit_ts)),
            (Action::Delete, Ending::Unknown) => self.write(None, None),
            (Action::Cas { expect, update }, Ending::Answered(Answer::Written { commit_ts })) => {
                self.meet(expect)?.write(update, Some(*commit_ts))
            }
            (Action::Cas { expect, update }, Ending::Unknown) => self.meet(expect)?.write(update, None),
            (Action::Cas { expect, .. }, Ending::Answered(Answer::CompareFailed(seen))) => {
                let after = self.observe(*seen)?;
                // An observed version is exact, so the expectation is decided.
                if after.meet(expect).is_none() { Some(after) } else { None }
            }
            // An answer of the wrong kind, or something that is not part of a prepared history.
            (_, Ending::Answered(_) | Ending::Refused) | (Action::Read, Ending::Unknown) => None,
        }
    }

    fn write(self, value: Option<u64>, commit_ts: Option<u64>) -> Option<Register> {
        match commit_ts {
            Some(ts) if ts <= self.floor => None,
            Some(ts) => Some(Register { value, floor: ts, exact: true }),
            None => Some(Register { value, floor: self.floor, exact: false }),
        }
    }

    fn observe(self, seen: Option<Seen>) -> Option<Register> {
        match (seen, self.value) {
            (None, None) => Some(self),
            (Some(seen), Some(value)) if seen.value.is_none_or(|v| v == value) => self.at(seen.commit_ts),
            (None, Some(_)) | (Some(_), _) => None,
        }
    }

    /// The register if its newest version was committed at `commit_ts`.
    fn at(self, commit_ts: u64) -> Option<Register> {
        let fits = if self.exact { commit_ts == self.floor } else { commit_ts > self.floor };
        fits.then_some(Register { floor: commit_ts, exact: true, ..self })
    }

    /// The register if the expectation holds.
    fn meet(self, expect: Expect) -> Option<Register> {
        match expect {
            Expect::Absent => self.value.is_none().then_some(self),
            Expect::Present => self.value.is_some().then_some(self),
            Expect::Value(value) => (self.value == Some(value)).then_some(self),
            Expect::Version(commit_ts) => {
                self.value?;
                self.at(commit_ts)
            }
        }
    }
}
