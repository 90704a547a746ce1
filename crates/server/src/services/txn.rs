//! `drover.v1.Txn`: transactions, and what is asked about them.

use std::sync::Arc;

use drover_coordinator::txn::PreparedTxn;
use drover_hlc::Timestamp;
use drover_kv::{Attempt, Error, Reason, TxnId, TxnStatus};
use drover_wire::proto::v1;
use drover_wire::proto::v1::txn_server::Txn;
use drover_wire::proto::v1::txn_state::Kind;
use drover_wire::{decode_txn_id, encode_txn_id, error_to_status};
use tonic::{Request, Response, Status};

use super::front::{Front, grpc_timeout};
use super::kv;

/// Locks that one page of a list holds if the caller does not say.
const LOCKS_PER_PAGE: u32 = 1_000;

/// `drover.v1.Txn`.
pub struct TxnService {
    front: Arc<Front>,
}

impl TxnService {
    /// The service over this front.
    pub fn new(front: Arc<Front>) -> Self {
        Self { front }
    }
}

fn state(status: &TxnStatus) -> v1::TxnState {
    let of = |kind: Kind| v1::TxnState { kind: kind.into(), ..v1::TxnState::default() };
    match status {
        TxnStatus::Nothing => of(Kind::Nothing),
        TxnStatus::Prepared { expire_at, .. } => v1::TxnState { expire_at: expire_at.raw(), ..of(Kind::Prepared) },
        TxnStatus::Committed { commit_ts, .. } => {
            v1::TxnState { commit_ts: commit_ts.raw(), settled: true, ..of(Kind::Committed) }
        }
        TxnStatus::RolledBack { through } => v1::TxnState { settled: *through == Attempt::MAX, ..of(Kind::RolledBack) },
    }
}

fn prepared(txn: PreparedTxn) -> v1::PreparedTxn {
    v1::PreparedTxn {
        txn_id: encode_txn_id(txn.lock.txn.id),
        start_ts: txn.lock.start_ts.raw(),
        primary: txn.lock.primary,
        keys: txn.keys,
        state: Some(state(&txn.status)),
    }
}

/// The identity of a transaction, from its bytes.
pub(super) fn id(bytes: &[u8]) -> Result<TxnId, Error> {
    decode_txn_id(bytes).map_err(|_| {
        let message = format!("a transaction id has 16 bytes, not {}; nothing was changed", bytes.len());
        Error::definite(Reason::InvalidArgument, message)
    })
}

fn answer<T>(result: Result<T, Error>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| error_to_status(&error))
}

#[tonic::async_trait]
impl Txn for TxnService {
    async fn begin(&self, request: Request<v1::TxnBeginRequest>) -> Result<Response<v1::TxnBeginResponse>, Status> {
        let deadline = self.front.deadline(request.get_ref().timeout_ms, grpc_timeout(request.metadata()));
        let begun = self.front.coordinator().fresh(deadline).await.map(|start_ts| v1::TxnBeginResponse {
            txn_id: encode_txn_id(TxnId(rand::random())),
            start_ts: start_ts.raw(),
        });
        answer(begun)
    }

    async fn commit(&self, request: Request<v1::TxnCommitRequest>) -> Result<Response<v1::TxnCommitResponse>, Status> {
        let timeout = grpc_timeout(request.metadata());
        let answered = self.front.run(drover_wire::Request::try_from(request.into_inner()), timeout).await;
        answer(answered.and_then(kv::commit))
    }

    async fn abort(&self, request: Request<v1::TxnAbortRequest>) -> Result<Response<v1::TxnState>, Status> {
        let deadline = self.front.deadline(request.get_ref().timeout_ms, grpc_timeout(request.metadata()));
        let v1::TxnAbortRequest { txn_id, primary, start_ts, .. } = request.into_inner();
        let aborted = async {
            self.front.may_write()?;
            let start_ts = Timestamp::from_raw(start_ts);
            self.front.coordinator().abort(id(&txn_id)?, primary, start_ts, deadline).await
        };
        answer(aborted.await.map(|status| state(&status)))
    }

    async fn heartbeat(&self, request: Request<v1::TxnHeartbeatRequest>) -> Result<Response<v1::TxnState>, Status> {
        let deadline = self.front.deadline(request.get_ref().timeout_ms, grpc_timeout(request.metadata()));
        let v1::TxnHeartbeatRequest { txn_id, primary, .. } = request.into_inner();
        let kept = async {
            self.front.may_write()?;
            self.front.coordinator().keep_alive(id(&txn_id)?, primary, deadline).await
        };
        answer(kept.await.map(|status| state(&status)))
    }

    async fn status(&self, request: Request<v1::TxnStatusRequest>) -> Result<Response<v1::TxnState>, Status> {
        let deadline = self.front.deadline(request.get_ref().timeout_ms, grpc_timeout(request.metadata()));
        let v1::TxnStatusRequest { txn_id, primary, .. } = request.into_inner();
        let known = async {
            let id = id(&txn_id)?;
            if primary.is_empty() {
                let message = "the key of the first mutation is missing: the outcome is recorded there";
                return Err(Error::definite(Reason::KeyEmpty, message));
            }
            self.front.coordinator().txn_status(id, &primary, deadline).await
        };
        answer(known.await.map(|status| state(&status)))
    }

    async fn list_prepared(
        &self,
        request: Request<v1::ListPreparedRequest>,
    ) -> Result<Response<v1::ListPreparedResponse>, Status> {
        let deadline = self.front.deadline(request.get_ref().timeout_ms, grpc_timeout(request.metadata()));
        let v1::ListPreparedRequest { limit_locks, cursor, .. } = request.into_inner();
        let limit = if limit_locks == 0 { LOCKS_PER_PAGE } else { limit_locks };
        let listed = self.front.coordinator().prepared(cursor, limit, deadline).await;
        answer(listed.map(|(transactions, cursor)| v1::ListPreparedResponse {
            transactions: transactions.into_iter().map(prepared).collect(),
            cursor: cursor.unwrap_or_default(),
        }))
    }

    async fn resolve(&self, request: Request<v1::TxnResolveRequest>) -> Result<Response<v1::TxnState>, Status> {
        let deadline = self.front.deadline(request.get_ref().timeout_ms, grpc_timeout(request.metadata()));
        let v1::TxnResolveRequest { txn_id, force, .. } = request.into_inner();
        let resolved = async {
            self.front.may_write()?;
            self.front.coordinator().resolve_txn(id(&txn_id)?, force, deadline).await
        };
        answer(resolved.await.map(|status| state(&status)))
    }
}
