//! What is stored of transactions: locks (`drover.storage.v1.TxnLock`), outcomes (`TxnRecord`) and the markers of participants
//! (`TxnMarker`).

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_kv::{Attempt, LockInfo, TxnRef, Update};
use drover_wire::proto::storage::v1 as pb;
use drover_wire::{decode_attempt, decode_txn_id, decode_update, encode_attempt, encode_txn_id, encode_update};
use prost::Message;

use crate::ApplyError;

/// A lock on one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Who holds it.
    pub txn: TxnRef,
    /// The key under which the holder's outcome is recorded.
    pub primary: Bytes,
    /// The snapshot that the holder reads.
    pub start_ts: Timestamp,
    /// When it may be rolled back.
    pub expire_at: Timestamp,
    /// Of all mutations of the holder.
    pub fingerprint: u64,
    /// What the key becomes if the holder commits.
    pub update: Update,
}

/// What became of a transaction, as far as its primary's group knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnRecord {
    /// The snapshot that it reads. The record may be removed when the horizon has passed it.
    pub start_ts: Timestamp,
    /// What became of it.
    pub state: TxnState,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnState {
    /// Committed, for good.
    Committed {
        /// By this attempt.
        attempt: Attempt,
        /// The timestamp of all that it wrote.
        commit_ts: Timestamp,
        /// Of its mutations.
        fingerprint: u64,
        /// Keys elsewhere whose locks may not be resolved yet.
        remote: Vec<Bytes>,
    },
    /// No attempt up to this one commits.
    RolledBack { through: Attempt },
}

/// What a participant remembers of an attempt whose locks it has resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnMarker {
    /// The snapshot that the transaction reads. The marker may be removed when the horizon has passed it.
    pub start_ts: Timestamp,
    /// The attempt.
    pub attempt: Attempt,
    /// Set if it was committed.
    pub commit_ts: Option<Timestamp>,
    /// Of all its mutations, if a lock of it was there to tell.
    pub fingerprint: Option<u64>,
}

fn corrupt(what: &'static str) -> impl Fn(String) -> ApplyError {
    move |why| ApplyError::Corrupt { what, why }
}

impl Lock {
    /// The stored bytes.
    pub fn encode(&self) -> Bytes {
        let (put_value, ttl_ms) = encode_update(&self.update);
        pb::TxnLock {
            txn_id: encode_txn_id(self.txn.id),
            attempt: Some(encode_attempt(self.txn.attempt)),
            primary: self.primary.clone(),
            start_ts: self.start_ts.raw(),
            expire_at: self.expire_at.raw(),
            put_value,
            ttl_ms,
            fingerprint: self.fingerprint,
        }
        .encode_to_vec()
        .into()
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`ApplyError::Corrupt`] if the bytes are no lock.
    pub fn decode(bytes: Bytes) -> Result<Self, ApplyError> {
        let corrupt = corrupt("lock");
        let lock = pb::TxnLock::decode(bytes).map_err(|e| corrupt(e.to_string()))?;
        let id = decode_txn_id(&lock.txn_id).map_err(|e| corrupt(e.to_string()))?;
        let attempt = decode_attempt(lock.attempt).map_err(|e| corrupt(e.to_string()))?;
        Ok(Self {
            txn: TxnRef { id, attempt },
            primary: lock.primary,
            start_ts: Timestamp::from_raw(lock.start_ts),
            expire_at: Timestamp::from_raw(lock.expire_at),
            fingerprint: lock.fingerprint,
            update: decode_update(lock.put_value, lock.ttl_ms).map_err(|e| corrupt(e.to_string()))?,
        })
    }

    /// What others are told of it, as the lock on `key`.
    pub fn info(&self, key: Bytes) -> LockInfo {
        LockInfo {
            key,
            txn: self.txn,
            primary: self.primary.clone(),
            start_ts: self.start_ts,
            expire_at: self.expire_at,
        }
    }
}

impl TxnRecord {
    /// The stored bytes.
    pub fn encode(&self) -> Bytes {
        let state = match &self.state {
            TxnState::Committed { attempt, commit_ts, fingerprint, remote } => {
                pb::txn_record::State::Committed(pb::TxnCommittedState {
                    attempt: Some(encode_attempt(*attempt)),
                    commit_ts: commit_ts.raw(),
                    fingerprint: *fingerprint,
                    remote: remote.clone(),
                })
            }
            TxnState::RolledBack { through } => pb::txn_record::State::RolledBack(encode_attempt(*through)),
        };
        pb::TxnRecord { start_ts: self.start_ts.raw(), state: Some(state) }.encode_to_vec().into()
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`ApplyError::Corrupt`] if the bytes are no such record.
    pub fn decode(bytes: Bytes) -> Result<Self, ApplyError> {
        let corrupt = corrupt("transaction record");
        let record = pb::TxnRecord::decode(bytes).map_err(|e| corrupt(e.to_string()))?;
        let attempt = |attempt| decode_attempt(attempt).map_err(|e| corrupt(e.to_string()));
        let state = match record.state.ok_or_else(|| corrupt("the state is missing or unknown".to_owned()))? {
            pb::txn_record::State::Committed(committed) => TxnState::Committed {
                attempt: attempt(committed.attempt)?,
                commit_ts: Timestamp::from_raw(committed.commit_ts),
                fingerprint: committed.fingerprint,
                remote: committed.remote,
            },
            pb::txn_record::State::RolledBack(through) => TxnState::RolledBack { through: attempt(Some(through))? },
        };
        Ok(Self { start_ts: Timestamp::from_raw(record.start_ts), state })
    }

    /// Whether nothing is left to be done about it.
    pub fn is_settled(&self) -> bool {
        match &self.state {
            TxnState::Committed { remote, .. } => remote.is_empty(),
            TxnState::RolledBack { .. } => true,
        }
    }
}

impl TxnMarker {
    /// The stored bytes.
    pub fn encode(&self) -> Bytes {
        let attempt = Some(encode_attempt(self.attempt));
        let commit_ts = self.commit_ts.map(Timestamp::raw);
        let (start_ts, fingerprint) = (self.start_ts.raw(), self.fingerprint);
        pb::TxnMarker { start_ts, attempt, commit_ts, fingerprint }.encode_to_vec().into()
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`ApplyError::Corrupt`] if the bytes are no marker.
    pub fn decode(bytes: Bytes) -> Result<Self, ApplyError> {
        let corrupt = corrupt("transaction marker");
        let marker = pb::TxnMarker::decode(bytes).map_err(|e| corrupt(e.to_string()))?;
        Ok(Self {
            start_ts: Timestamp::from_raw(marker.start_ts),
            attempt: decode_attempt(marker.attempt).map_err(|e| corrupt(e.to_string()))?,
            commit_ts: marker.commit_ts.map(Timestamp::from_raw),
            fingerprint: marker.fingerprint,
        })
    }
}

#[cfg(test)]
mod tests {
    use drover_kv::TxnId;
    use proptest::prelude::*;

    use super::*;
    use crate::state::tests::ts;

    const ATTEMPT: Attempt = Attempt { number: 2, coordinator: 3 };
    /// An attempt as a message, with its length.
    const GOLDEN_ATTEMPT: [u8; 12] = [11, 8, 2, 17, 3, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn golden_bytes() {
        let txn = TxnRef { id: TxnId([7; 16]), attempt: ATTEMPT };
        let lock =
            |update| Lock { txn, primary: "p".into(), start_ts: ts(5), expire_at: ts(6), fingerprint: 9, update };
        let head = [&[10, 16][..], &[7; 16], &[18], &GOLDEN_ATTEMPT, &[26, 1, b'p', 32, 5, 40, 6]].concat();
        let put = Update::Put { value: "v".into(), ttl_ms: Some(9) };
        for (update, middle) in [(Update::Delete, &[][..]), (put, &[50, 1, b'v', 56, 9])] {
            let golden = [&head, middle, &[65, 9, 0, 0, 0, 0, 0, 0, 0]].concat();
            assert_eq!(lock(update.clone()).encode(), golden);
            assert_eq!(Lock::decode(golden.into()).unwrap(), lock(update));
        }

        let committed = |remote: Vec<Bytes>| TxnRecord {
            start_ts: ts(5),
            state: TxnState::Committed { attempt: ATTEMPT, commit_ts: ts(6), fingerprint: 7, remote },
        };
        let inner = [&[10][..], &GOLDEN_ATTEMPT, &[16, 6, 25, 7, 0, 0, 0, 0, 0, 0, 0]].concat();
        let rolled_back = TxnRecord { start_ts: ts(5), state: TxnState::RolledBack { through: ATTEMPT } };
        let table = [
            (committed(vec![]), [&[8, 5, 18, 24][..], &inner].concat()),
            (committed(vec!["r".into()]), [&[8, 5, 18, 27][..], &inner, &[34, 1, b'r']].concat()),
            (rolled_back, [&[8, 5, 26][..], &GOLDEN_ATTEMPT].concat()),
        ];
        for (record, golden) in table {
            assert_eq!(record.encode(), golden, "{record:?}");
            assert_eq!(TxnRecord::decode(golden.into()).unwrap(), record);
        }

        let head = [&[8, 5, 18][..], &GOLDEN_ATTEMPT].concat();
        let table = [
            (None, None, &[][..]),
            (Some(ts(6)), None, &[24, 6]),
            (Some(ts(6)), Some(9), &[24, 6, 33, 9, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (commit_ts, fingerprint, tail) in table {
            let marker = TxnMarker { start_ts: ts(5), attempt: ATTEMPT, commit_ts, fingerprint };
            let golden = [&head, tail].concat();
            assert_eq!(marker.encode(), golden);
            assert_eq!(TxnMarker::decode(golden.into()).unwrap(), marker);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = (Lock::decode(bytes.clone()), TxnRecord::decode(bytes.clone()), TxnMarker::decode(bytes));
        }
    }
}
