//! What the session has come across, for completion: nothing is asked of the cluster for it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use drover_client::TxnId;

/// Keys that are kept.
const KEYS: usize = 1_000;
/// Transactions that are kept.
const TXNS: usize = 100;

/// Keys that were named or printed, and transactions with their primaries. The first ones stay; when it is full, further ones
/// are not noted.
#[derive(Debug, Clone, Default)]
pub struct Known {
    keys: BTreeSet<Bytes>,
    txns: BTreeMap<TxnId, Bytes>,
}

impl Known {
    /// Takes note of a key.
    pub fn key(&mut self, key: &Bytes) {
        if self.keys.len() < KEYS {
            self.keys.insert(key.clone());
        }
    }

    /// Takes note of a transaction and the key of its first write.
    pub fn txn(&mut self, id: TxnId, primary: Bytes) {
        if self.txns.len() < TXNS {
            self.txns.insert(id, primary);
        }
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.iter()
    }

    /// The transactions, in order.
    pub fn txns(&self) -> impl Iterator<Item = TxnId> {
        self.txns.keys().copied()
    }

    /// The primary of a transaction.
    pub fn primary(&self, id: TxnId) -> Option<Bytes> {
        self.txns.get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_primaries_and_never_grows_beyond_its_bounds() {
        let mut known = Known::default();
        for n in 0..5_000u32 {
            known.key(&Bytes::copy_from_slice(&n.to_be_bytes()));
            known.txn(TxnId(u128::from(n).to_be_bytes()), "p".into());
        }
        assert_eq!((known.keys().count(), known.txns().count()), (KEYS, TXNS));
        assert_eq!(known.primary(TxnId([0; 16])), Some("p".into()));
        assert_eq!(known.primary(TxnId([9; 16])), None);
    }
}
