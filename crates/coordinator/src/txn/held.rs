//! Locks by whom they belong to.

use std::collections::BTreeMap;

use bytes::Bytes;
use drover_kv::{Attempt, LockInfo, TxnId};

/// Locks of one attempt of a transaction: one outcome settles all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The one that expires last.
    pub lock: LockInfo,
    /// The keys of all of them, at least one, in the order in which they were met.
    pub keys: Vec<Bytes>,
}

impl Held {
    /// One lock.
    pub fn one(lock: LockInfo) -> Self {
        Self { keys: vec![lock.key.clone()], lock }
    }

    /// Locks by whom they belong to.
    pub fn by_attempt(locks: impl IntoIterator<Item = LockInfo>) -> Vec<Self> {
        let mut found: BTreeMap<(TxnId, Attempt), Held> = BTreeMap::new();
        for lock in locks {
            match found.get_mut(&(lock.txn.id, lock.txn.attempt)) {
                Some(held) => {
                    held.keys.push(lock.key.clone());
                    if held.lock.expire_at < lock.expire_at {
                        held.lock = lock;
                    }
                }
                None => {
                    found.insert((lock.txn.id, lock.txn.attempt), Held::one(lock));
                }
            }
        }
        found.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use drover_hlc::Timestamp;
    use drover_kv::TxnRef;

    use super::*;

    fn lock(key: &'static str, id: u8, number: u32, expire_at: u64) -> LockInfo {
        LockInfo {
            key: key.into(),
            txn: TxnRef { id: TxnId([id; 16]), attempt: Attempt { number, coordinator: 0 } },
            primary: "p".into(),
            start_ts: Timestamp::from_raw(1),
            expire_at: Timestamp::from_raw(expire_at),
        }
    }

    #[test]
    fn attempts_are_kept_apart_and_each_is_judged_by_its_last_lock() {
        let locks =
            [lock("a", 1, 1, 5), lock("b", 2, 1, 5), lock("c", 1, 1, 7), lock("d", 1, 2, 9), lock("e", 1, 1, 6)];
        let expect = [
            Held { lock: lock("c", 1, 1, 7), keys: vec!["a".into(), "c".into(), "e".into()] },
            Held { lock: lock("d", 1, 2, 9), keys: vec!["d".into()] },
            Held { lock: lock("b", 2, 1, 5), keys: vec!["b".into()] },
        ];
        assert_eq!(Held::by_attempt(locks), expect);
        assert_eq!(Held::by_attempt([]), []);
    }
}
