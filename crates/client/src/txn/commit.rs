//! The commit, which sends everything at once.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_kv::{Error, Mutation, ReadSet, Reason};
use drover_wire::proto::v1::session_answer::Answer;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::proto::v1::{self, TxnBeginRequest};
use drover_wire::{encode_key_range, encode_txn_id};

use super::Transaction;
use crate::cluster::of_a_read;
use crate::drive::{Attempted, malformed};
use crate::request::encode_mutation;
use crate::{Class, Client};

/// What a run came to.
pub(super) enum Ran {
    Committed(Timestamp),
    /// It may come through with a newer snapshot.
    Conflict(Error),
    Failed(Error),
}

impl Transaction {
    /// Commits; the commit timestamp, which is that of the snapshot if nothing was written (zero if nothing was read either).
    ///
    /// # Errors
    /// `TXN_CONFLICT` if what was read has changed; as for writes otherwise. After an unknown error the message names the
    /// transaction and its primary, for [`Client::transaction_status`].
    pub async fn commit(self) -> Result<Timestamp, Error> {
        match self.commit_run().await {
            Ran::Committed(commit_ts) => Ok(commit_ts),
            Ran::Conflict(error) | Ran::Failed(error) => Err(error),
        }
    }

    pub(super) async fn commit_run(&self) -> Ran {
        if let Some(stale) = self.inner.lock().stale.take() {
            return Ran::Conflict(stale);
        }
        let (mut start_ts, mutations, reads) = {
            let inner = self.inner.lock();
            let mutation = |key: &Bytes| Mutation { key: key.clone(), update: inner.writes[key].clone() };
            let reads =
                ReadSet { keys: inner.read_keys.iter().cloned().collect(), intervals: inner.read_intervals.clone() };
            (inner.start_ts, inner.order.iter().map(mutation).collect::<Vec<_>>(), reads)
        };
        if mutations.is_empty() {
            return Ran::Committed(start_ts.unwrap_or_default());
        }
        if let Err(error) = self.client.check(|limits| limits.check_txn(&mutations, &reads)) {
            return Ran::Failed(error);
        }
        if start_ts.is_none() {
            match self.client().begin_timestamp().await {
                Ok(begun) => start_ts = Some(begun),
                Err(error) => return Ran::Failed(error),
            }
        }
        let (id, primary) = (self.id, mutations[0].key.clone());
        let call = Call::Commit(v1::TxnCommitRequest {
            txn_id: encode_txn_id(id),
            attempt: 1,
            start_ts: start_ts.unwrap_or_default().raw(),
            mutations: mutations.iter().map(encode_mutation).collect(),
            read_keys: reads.keys,
            read_ranges: reads.intervals.iter().map(encode_key_range).collect(),
            timeout_ms: 0,
        });
        let attempted = Attempted { call, key: primary.clone(), class: Class::NamedWrite, foreign_key: false };
        match self.client.inner.drive(attempted, self.client().due()).await {
            Ok(Answer::Commit(answer)) => Ran::Committed(Timestamp::from_raw(answer.commit_ts)),
            Ok(_) => Ran::Failed(malformed(Class::NamedWrite, "an answer to something else than a commit")),
            Err(error) if error.is_unknown() => {
                let message = format!("{}; transaction {id}, primary {}", error.message, drover_keys::escape(&primary));
                Ran::Failed(Error { message, ..error })
            }
            Err(error) if is_conflict(error.reason) => Ran::Conflict(error),
            Err(error) => Ran::Failed(error),
        }
    }
}

/// Whether the transaction may come through with a newer snapshot.
fn is_conflict(reason: Reason) -> bool {
    matches!(reason, Reason::TxnConflict | Reason::TxnAborted | Reason::TxnTooOld)
}

impl Client {
    async fn begin_timestamp(&self) -> Result<Timestamp, Error> {
        let asked = self.ask_nodes(|node, timeout_ms| {
            let mut txn = node.txn();
            async move { txn.begin(TxnBeginRequest { timeout_ms }).await }
        });
        asked.await.map(|begun| Timestamp::from_raw(begun.start_ts)).map_err(of_a_read)
    }
}
