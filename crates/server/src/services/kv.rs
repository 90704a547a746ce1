use std::sync::Arc;

use drover_coordinator::Answer;
use drover_kv::{Error, Reason};
use drover_wire::proto::v1::{self, kv_server::Kv};
use drover_wire::{Request, WireError, error_to_status};
use futures::stream::BoxStream;
use tonic::{Response, Status, Streaming};

use super::front::{Front, grpc_timeout};
use super::session;

/// `drover.v1.Kv`.
pub struct KvService {
    front: Arc<Front>,
}

impl KvService {
    /// The service over this front.
    pub fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    async fn run<M, R>(
        &self,
        request: tonic::Request<M>,
        answer: impl FnOnce(Answer) -> Result<R, Error>,
    ) -> Result<Response<R>, Status>
    where
        Request: TryFrom<M, Error = WireError>,
    {
        let timeout = grpc_timeout(request.metadata());
        let answered = self.front.run(Request::try_from(request.into_inner()), timeout).await;
        answered.and_then(answer).map(Response::new).map_err(|error| error_to_status(&error))
    }
}

/// An answer that does not fit its question is a defect, whichever question it was.
pub(super) fn misfit(answer: &Answer) -> Error {
    Error::unknown(Reason::Internal, format!("the answer does not fit the request: {answer:?}; it may have happened"))
}

pub(super) fn get(answer: Answer) -> Result<v1::GetResponse, Error> {
    match answer {
        Answer::Get { version, read_ts } => Ok(drover_wire::get_response(version, read_ts)),
        other => Err(misfit(&other)),
    }
}

pub(super) fn batch_get(answer: Answer) -> Result<v1::BatchGetResponse, Error> {
    match answer {
        Answer::BatchGet { versions, read_ts } => Ok(drover_wire::batch_get_response(versions, read_ts)),
        other => Err(misfit(&other)),
    }
}

pub(super) fn put(answer: Answer) -> Result<v1::PutResponse, Error> {
    match answer {
        Answer::Written(outcome) => drover_wire::put_response(&outcome),
        other => Err(misfit(&other)),
    }
}

pub(super) fn delete(answer: Answer) -> Result<v1::DeleteResponse, Error> {
    match answer {
        Answer::Written(outcome) => drover_wire::delete_response(&outcome),
        other => Err(misfit(&other)),
    }
}

pub(super) fn compare_and_set(answer: Answer) -> Result<v1::CompareAndSetResponse, Error> {
    match answer {
        Answer::Written(outcome) => drover_wire::compare_and_set_response(outcome),
        other => Err(misfit(&other)),
    }
}

pub(super) fn scan(answer: Answer) -> Result<v1::ScanResponse, Error> {
    match answer {
        Answer::Scan { entries, count, cursor, read_ts } => {
            Ok(drover_wire::scan_response(entries, count, cursor, read_ts))
        }
        other => Err(misfit(&other)),
    }
}

pub(super) fn delete_range(answer: Answer) -> Result<v1::DeleteRangeResponse, Error> {
    match answer {
        Answer::RangeDeleted { deleted, cursor, commit_ts } => {
            Ok(drover_wire::delete_range_response(deleted, cursor, commit_ts))
        }
        other => Err(misfit(&other)),
    }
}

pub(super) fn latest_commit_ts(answer: Answer) -> Result<v1::LatestCommitTsResponse, Error> {
    match answer {
        Answer::LatestCommitTs(commit_ts) => Ok(drover_wire::latest_commit_ts_response(commit_ts)),
        other => Err(misfit(&other)),
    }
}

pub(super) fn settle(answer: Answer) -> Result<v1::SettleResponse, Error> {
    match answer {
        Answer::Settled(outcome) => drover_wire::settle_response(&outcome),
        other => Err(misfit(&other)),
    }
}

pub(super) fn commit(answer: Answer) -> Result<v1::TxnCommitResponse, Error> {
    match answer {
        Answer::Committed(commit_ts) => Ok(v1::TxnCommitResponse { commit_ts: commit_ts.raw() }),
        other => Err(misfit(&other)),
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn get(&self, request: tonic::Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        self.run(request, get).await
    }

    async fn batch_get(
        &self,
        request: tonic::Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetResponse>, Status> {
        self.run(request, batch_get).await
    }

    async fn put(&self, request: tonic::Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        self.run(request, put).await
    }

    async fn delete(&self, request: tonic::Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        self.run(request, delete).await
    }

    async fn compare_and_set(
        &self,
        request: tonic::Request<v1::CompareAndSetRequest>,
    ) -> Result<Response<v1::CompareAndSetResponse>, Status> {
        self.run(request, compare_and_set).await
    }

    async fn scan(&self, request: tonic::Request<v1::ScanRequest>) -> Result<Response<v1::ScanResponse>, Status> {
        self.run(request, scan).await
    }

    async fn delete_range(
        &self,
        request: tonic::Request<v1::DeleteRangeRequest>,
    ) -> Result<Response<v1::DeleteRangeResponse>, Status> {
        self.run(request, delete_range).await
    }

    async fn latest_commit_ts(
        &self,
        request: tonic::Request<v1::LatestCommitTsRequest>,
    ) -> Result<Response<v1::LatestCommitTsResponse>, Status> {
        self.run(request, latest_commit_ts).await
    }

    async fn settle(&self, request: tonic::Request<v1::SettleRequest>) -> Result<Response<v1::SettleResponse>, Status> {
        self.run(request, settle).await
    }

    type SessionStream = BoxStream<'static, Result<v1::SessionResponse, Status>>;

    async fn session(
        &self,
        request: tonic::Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(Response::new(session::serve(Arc::clone(&self.front), request.into_inner())))
    }
}
