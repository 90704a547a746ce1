//! What became of transactions, and what settles those that were left behind.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_kv::{Error, TxnId};
use drover_wire::proto::v1::txn_state::Kind;
use drover_wire::proto::v1::{
    self, ListPreparedRequest, TxnAbortRequest, TxnHeartbeatRequest, TxnResolveRequest, TxnState, TxnStatusRequest,
};
use drover_wire::{decode_txn_id, encode_txn_id};

use crate::cluster::of_a_read;
use crate::drive::malformed;
use crate::{Class, Client};

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Nothing is known: no commit has reached the servers, or everything is forgotten.
    Nothing,
    /// It holds locks and is not decided. They live until then at least.
    Prepared { expire_at: Timestamp },
    /// It is committed.
    Committed { commit_ts: Timestamp },
    /// Its attempts so far never commit; none ever does if that is `settled`.
    RolledBack { settled: bool },
}

/// A transaction that holds locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedTransaction {
    /// Its id.
    pub id: TxnId,
    /// The snapshot that it reads.
    pub start_ts: Timestamp,
    /// The key under which its outcome is recorded.
    pub primary: Bytes,
    /// Keys that it has locked.
    pub keys: Vec<Bytes>,
    /// What is known of its outcome.
    pub status: TransactionStatus,
}

impl Client {
    /// What became of a transaction whose first write was to `primary`.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn transaction_status(&self, id: TxnId, primary: impl Into<Bytes>) -> Result<TransactionStatus, Error> {
        let primary = primary.into();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let request = TxnStatusRequest { txn_id: encode_txn_id(id), primary: primary.clone(), timeout_ms };
            let mut txn = node.txn();
            async move { txn.status(request).await }
        });
        asked.await.and_then(|state| decode_status(Class::Read, &state)).map_err(of_a_read)
    }

    /// Makes sure that a transaction never commits, unless it has: what became of it. `start_ts` is its snapshot.
    ///
    /// # Errors
    /// As for writes; it may be sent again.
    pub async fn abort_transaction(
        &self,
        id: TxnId,
        primary: impl Into<Bytes>,
        start_ts: Timestamp,
    ) -> Result<TransactionStatus, Error> {
        let primary = primary.into();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let (txn_id, primary) = (encode_txn_id(id), primary.clone());
            let request = TxnAbortRequest { txn_id, primary, start_ts: start_ts.raw(), timeout_ms };
            let mut txn = node.txn();
            async move { txn.abort(request).await }
        });
        asked.await.and_then(|state| decode_status(Class::NamedWrite, &state))
    }

    /// Keeps the locks of a transaction alive whose commit is under way; what is known of it.
    ///
    /// # Errors
    /// As for writes; it may be sent again.
    pub async fn keep_transaction_alive(
        &self,
        id: TxnId,
        primary: impl Into<Bytes>,
    ) -> Result<TransactionStatus, Error> {
        let primary = primary.into();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let request = TxnHeartbeatRequest { txn_id: encode_txn_id(id), primary: primary.clone(), timeout_ms };
            let mut txn = node.txn();
            async move { txn.heartbeat(request).await }
        });
        asked.await.and_then(|state| decode_status(Class::NamedWrite, &state))
    }

    /// One page of the transactions that hold locks, and the cursor of the next page if there may be one.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn prepared_transactions(
        &self,
        cursor: Option<Bytes>,
    ) -> Result<(Vec<PreparedTransaction>, Option<Bytes>), Error> {
        let cursor = cursor.unwrap_or_default();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let request = ListPreparedRequest { limit_locks: 0, cursor: cursor.clone(), timeout_ms };
            let mut txn = node.txn();
            async move { txn.list_prepared(request).await }
        });
        let page = asked.await.map_err(of_a_read)?;
        let decode = |txn: v1::PreparedTxn| {
            Ok(PreparedTransaction {
                id: decode_txn_id(&txn.txn_id).map_err(|_| malformed(Class::Read, "a transaction without id"))?,
                start_ts: Timestamp::from_raw(txn.start_ts),
                primary: txn.primary,
                keys: txn.keys,
                status: decode_status(Class::Read, &txn.state.unwrap_or_default())?,
            })
        };
        let transactions = page.transactions.into_iter().map(decode).collect::<Result<_, Error>>();
        Ok((transactions.map_err(of_a_read)?, (!page.cursor.is_empty()).then_some(page.cursor)))
    }

    /// Settles a transaction that holds locks: what became of it. `force`: rolls it back although its time is not over.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if it holds no lock, or may still be at work; as for writes otherwise.
    pub async fn resolve_transaction(&self, id: TxnId, force: bool) -> Result<TransactionStatus, Error> {
        let asked = self.ask_nodes(|node, timeout_ms| {
            let request = TxnResolveRequest { txn_id: encode_txn_id(id), force, timeout_ms };
            let mut txn = node.txn();
            async move { txn.resolve(request).await }
        });
        asked.await.and_then(|state| decode_status(Class::NamedWrite, &state))
    }
}

fn decode_status(class: Class, state: &TxnState) -> Result<TransactionStatus, Error> {
    match state.kind() {
        Kind::Nothing => Ok(TransactionStatus::Nothing),
        Kind::Prepared => Ok(TransactionStatus::Prepared { expire_at: Timestamp::from_raw(state.expire_at) }),
        Kind::Committed => Ok(TransactionStatus::Committed { commit_ts: Timestamp::from_raw(state.commit_ts) }),
        Kind::RolledBack => Ok(TransactionStatus::RolledBack { settled: state.settled }),
        Kind::Unspecified => Err(malformed(class, "a transaction in no state")),
    }
}
