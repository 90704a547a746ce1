//! What depends on the rows themselves: foreign locks, and what a compare-and-set expects.

use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_kv::{Expectation, LockInfo, Refusal, Versioned};
use drover_mvcc::Stored;

/// The value that a read at `at` sees, given the newest version at or below `at`. A tombstone, an expired version and
/// nothing are alike: garbage collection may turn each into the next.
pub fn live(version: Option<(Timestamp, Stored)>, at: Timestamp) -> Option<Versioned> {
    match version? {
        (_, Stored::Tombstone) => None,
        (_, Stored::Put { expire_at: Some(expire_at), .. }) if expire_at <= at => None,
        (commit_ts, Stored::Put { value, expire_at }) => Some(Versioned { value, commit_ts, expire_at }),
    }
}

/// Refuses if a lock stands on a key of the footprint; `locked` is the first such lock.
///
/// # Errors
/// [`Refusal::Locked`].
pub fn unlocked(locked: Option<LockInfo>) -> Result<(), Refusal> {
    match locked {
        Some(lock) if guards::on(Guard::LockGate) => Err(Refusal::Locked { lock: Box::new(lock) }),
        Some(_) | None => Ok(()),
    }
}

/// Whether `current`, the live value, is what a compare-and-set expects.
pub fn holds(expect: &Expectation, current: Option<&Versioned>) -> bool {
    match (expect, current) {
        (Expectation::Absent, current) => current.is_none(),
        (Expectation::Present, current) => current.is_some(),
        (Expectation::Value(value), Some(current)) => *value == current.value,
        (Expectation::Version(commit_ts), Some(current)) => *commit_ts == current.commit_ts,
        (Expectation::Value(_) | Expectation::Version(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use drover_kv::{Attempt, TxnId, TxnRef};

    use super::*;
    use crate::state::tests::ts;

    fn put(value: &'static str, commit_ts: u64, expire_at: Option<u64>) -> Option<(Timestamp, Stored)> {
        Some((ts(commit_ts), Stored::Put { value: value.into(), expire_at: expire_at.map(ts) }))
    }

    #[test]
    fn a_tombstone_an_expired_value_and_nothing_count_alike() {
        use Expectation::{Absent, Present, Value, Version};
        let nothing = [None, Some((ts(3), Stored::Tombstone)), put("v", 3, Some(10)), put("v", 3, Some(9))];
        for version in nothing {
            let current = live(version.clone(), ts(10));
            assert_eq!(current, None, "{version:?}");
            let table = [(Absent, true), (Present, false), (Value("v".into()), false), (Version(ts(3)), false)];
            for (expect, holds_then) in table {
                assert_eq!(holds(&expect, current.as_ref()), holds_then, "{version:?} {expect:?}");
            }
        }
    }

    #[test]
    fn a_live_value_is_compared_by_presence_value_or_version() {
        use Expectation::{Absent, Present, Value, Version};
        for version in [put("v", 3, None), put("v", 3, Some(11))] {
            let current = live(version.clone(), ts(10));
            let table = [
                (Absent, false),
                (Present, true),
                (Value("v".into()), true),
                (Value("".into()), false),
                (Value("vv".into()), false),
                (Version(ts(3)), true),
                (Version(ts(4)), false),
                (Version(Timestamp::ZERO), false),
            ];
            for (expect, holds_then) in table {
                assert_eq!(holds(&expect, current.as_ref()), holds_then, "{version:?} {expect:?}");
            }
        }
    }

    #[test]
    fn a_lock_refuses_and_names_its_key() {
        assert_eq!(unlocked(None), Ok(()));
        let lock = LockInfo {
            key: "k".into(),
            txn: TxnRef { id: TxnId([1; 16]), attempt: Attempt::default() },
            primary: "p".into(),
            start_ts: ts(1),
            expire_at: ts(2),
        };
        assert_eq!(unlocked(Some(lock.clone())), Err(Refusal::Locked { lock: Box::new(lock) }));
    }
}
