//! The answering side of one link: takes messages apart and hands each to whom it concerns.
//!
//! The reader never waits for a group. Calls run in tasks of their own, bounded in number; appends go into inboxes. It
//! waits only for room in its own queue of answers, which the peer always empties. An answer that no frame can carry would
//! end the link for all that is on it: its call is told so instead.

use std::sync::Arc;

use drover_keys::{GroupId, NodeId, ReplicaId};
use drover_kv::{Error, Reason};
use drover_rafttypes::TypeConfig;
use drover_wire::proto::v1;
use drover_wire::{encode_group_response, error_to_status_bytes};
use futures::StreamExt;
use openraft::raft::VoteRequest;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::codec::{self, MessageError};
use crate::inbound_append::Appends;
use crate::options::Tuning;
use crate::outbox::Outbox;
use crate::pending::Answer;
use crate::service::{NodeService, RaftEndpoint};
use crate::stats::PeerStats;

/// What stands around an answer in a frame: its tag, its length and its id, and those of its message.
const FRAMING_BYTES: usize = 32;

/// One link that a peer has opened.
pub(crate) struct Inbound {
    node: NodeId,
    service: Arc<dyn NodeService>,
    outbox: Outbox,
    stats: Arc<PeerStats>,
    appends: Appends,
    /// Group operations and timestamps at work.
    calls: Arc<Semaphore>,
    /// Votes and heartbeats at work: they never stand behind operations.
    raft_calls: Arc<Semaphore>,
    max_message_bytes: usize,
}

impl Inbound {
    pub(crate) fn new(
        node: NodeId,
        service: Arc<dyn NodeService>,
        outbox: Outbox,
        stats: Arc<PeerStats>,
        tuning: &Tuning,
    ) -> Self {
        let calls = tuning.inbound_calls.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            node,
            appends: Appends::new(Arc::clone(&service), outbox.clone(), tuning.inbound_streams),
            service,
            outbox,
            stats,
            calls: Arc::new(Semaphore::new(calls)),
            raft_calls: Arc::new(Semaphore::new(calls)),
            max_message_bytes: tuning.max_message_bytes,
        }
    }

    /// Serves the link until the peer ends it or sends what is no frame. Returns what to tell the peer.
    pub(crate) async fn serve(mut self, mut frames: tonic::Streaming<v1::LinkFrame>) -> Option<Status> {
        loop {
            match frames.next().await {
                None => return None,
                Some(Err(status)) => {
                    tracing::debug!(node = %self.node, error = %status, "link from peer ended");
                    return Some(status);
                }
                Some(Ok(frame)) => {
                    PeerStats::inc(&self.stats.frames_received);
                    PeerStats::add(&self.stats.messages_received, frame.messages.len() as u64);
                    PeerStats::add(&self.stats.bytes_received, frame.encoded_len() as u64);
                    for message in frame.messages {
                        self.take(message).await;
                    }
                }
            }
        }
    }

    async fn take(&mut self, message: v1::LinkMessage) {
        let id = message.id;
        match message.body {
            Some(Answer::GroupRequest(request)) => self.group_request(id, request).await,
            Some(Answer::TimestampRequest(request)) => self.timestamp_request(id, request.count).await,
            Some(Answer::RaftRequest(request)) => self.raft_request(id, request).await,
            Some(Answer::AppendOpen(open)) => {
                let opened = self.appends.open(id, GroupId(open.group_id), ReplicaId(open.replica_id));
                self.refuse(id, opened).await;
            }
            Some(Answer::AppendRequest(request)) => {
                let taken = self.appends.append(id, request);
                self.refuse(id, taken).await;
            }
            Some(Answer::AppendClose(v1::AppendClose {})) => self.appends.close(id),
            // Answers belong onto links that this node opened; what has no body is of a kind that this build does not
            // know.
            Some(
                Answer::GroupResponse(_)
                | Answer::TimestampResponse(_)
                | Answer::RaftResponse(_)
                | Answer::AppendResponse(_),
            )
            | None => PeerStats::inc(&self.stats.protocol_errors),
        }
    }

    /// Sends the refusal of an append, if it was refused.
    async fn refuse(&self, id: u64, taken: Result<(), String>) {
        if let Err(error) = taken {
            PeerStats::inc(&self.stats.protocol_errors);
            self.answer(id, Answer::AppendResponse(codec::append_failed(error))).await;
        }
    }

    async fn answer(&self, id: u64, body: Answer) {
        // A peer that is gone does not miss its answer.
        let _ = self.outbox.send(v1::LinkMessage { id, body: Some(body) }).await;
    }

    /// Runs a call in a task of its own, which holds its permit and answers.
    fn spawn<F>(&self, id: u64, permit: OwnedSemaphorePermit, call: F)
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            let body = call.await;
            let _ = outbox.send(v1::LinkMessage { id, body: Some(body) }).await;
            drop(permit);
        });
    }

    async fn group_request(&self, id: u64, request: v1::GroupRequest) {
        match Arc::clone(&self.calls).try_acquire_owned() {
            Ok(permit) => {
                let (service, limit) = (Arc::clone(&self.service), self.max_message_bytes);
                self.spawn(id, permit, async move {
                    let changes = may_change(&request);
                    let response = service.group_call(request).await;
                    Answer::GroupResponse(carried(response, changes, limit))
                });
            }
            Err(_) => self.answer(id, Answer::GroupResponse(encode_group_response(Err(overloaded())))).await,
        }
    }

    async fn timestamp_request(&self, id: u64, count: u32) {
        match Arc::clone(&self.calls).try_acquire_owned() {
            Ok(permit) => {
                let service = Arc::clone(&self.service);
                self.spawn(id, permit, async move { timestamps(service.timestamps(count).await.map(|ts| ts.raw())) });
            }
            Err(_) => self.answer(id, timestamps(Err(overloaded()))).await,
        }
    }

    async fn raft_request(&self, id: u64, request: v1::RaftRequest) {
        let (group, replica) = (GroupId(request.group_id), ReplicaId(request.replica_id));
        let Some(raft) = self.service.raft(group, replica) else {
            let why = format!("this node does not hold replica {replica} of group {group}");
            return self.answer(id, raft_error(why)).await;
        };
        match Arc::clone(&self.raft_calls).try_acquire_owned() {
            Ok(permit) => self.spawn(id, permit, raft_call(raft, request)),
            Err(_) => self.answer(id, raft_error("too many Raft calls at a time")).await,
        }
    }
}

/// Whether a request can have an effect.
fn may_change(request: &v1::GroupRequest) -> bool {
    use v1::group_request::Body;
    match request.body {
        Some(Body::Write(_) | Body::Catalog(_) | Body::MoveStep(_) | Body::ForgetJobs(_)) => true,
        Some(
            Body::Get(_)
            | Body::BatchGet(_)
            | Body::Scan(_)
            | Body::LatestCommitTs(_)
            | Body::Digest(_)
            | Body::Describe(_)
            | Body::ReadCatalog(_)
            | Body::JudgeCatalog(_)
            | Body::JobProgress(_)
            | Body::TxnRefresh(_)
            | Body::TxnStatus(_)
            | Body::Locks(_)
            | Body::ObserveMove(_)
            | Body::SumRange(_)
            // Nothing is lost or done twice with it.
            | Body::SlowWriters(_),
        )
        | None => false,
    }
}

/// An answer as the link can carry it: one that is too large for a frame is replaced by an error that says so, definite if
/// the request changes nothing.
fn carried(response: v1::GroupResponse, changes: bool, max_message_bytes: usize) -> v1::GroupResponse {
    let bytes = response.encoded_len();
    if bytes.saturating_add(FRAMING_BYTES) <= max_message_bytes {
        return response;
    }
    let size = format!("the answer has {bytes} bytes, a message between nodes at most {max_message_bytes} bytes");
    encode_group_response(Err(match changes {
        false => Error::definite(Reason::BatchTooLarge, format!("{size}; nothing was changed; ask for less at a time")),
        true => Error::unknown(Reason::BatchTooLarge, format!("{size}; it may have happened: read what was written")),
    }))
}

fn overloaded() -> Error {
    Error::definite(Reason::Overloaded, "too many requests of one node are in flight; nothing was changed; retry")
}

fn timestamps(result: Result<u64, Error>) -> Answer {
    let body = match result {
        Ok(first) => v1::timestamp_response::Body::First(first),
        Err(error) => v1::timestamp_response::Body::Error(error_to_status_bytes(&error)),
    };
    Answer::TimestampResponse(v1::TimestampResponse { body: Some(body) })
}

fn raft_error(error: impl ToString) -> Answer {
    Answer::RaftResponse(v1::RaftResponse { body: Some(v1::raft_response::Body::Error(error.to_string())) })
}

async fn raft_call(raft: Arc<dyn RaftEndpoint>, request: v1::RaftRequest) -> Answer {
    match try_raft_call(&*raft, request).await {
        Ok(body) => Answer::RaftResponse(v1::RaftResponse { body: Some(body) }),
        Err(error) => raft_error(error),
    }
}

async fn try_raft_call(raft: &dyn RaftEndpoint, request: v1::RaftRequest) -> Result<v1::raft_response::Body, String> {
    use v1::raft_request::Body as Ask;
    use v1::raft_response::Body as Tell;
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let decode_vote = |request: &v1::VoteRequest| -> Result<VoteRequest<TypeConfig>, String> {
        codec::decode_vote_request(request).map_err(|e| e.to_string())
    };
    match request.body.ok_or_else(|| text(&MessageError::Inconsistent("the request has no body")))? {
        Ask::Append(request) => {
            let request = codec::decode_append(request).map_err(|e| text(&e))?;
            let response = raft.append(request).await.map_err(|e| text(&e))?;
            Ok(Tell::Append(codec::encode_append_response(&response)))
        }
        Ask::Vote(request) => {
            let response = raft.vote(decode_vote(&request)?).await.map_err(|e| text(&e))?;
            Ok(Tell::Vote(codec::encode_vote_response(&response)))
        }
        Ask::PreVote(request) => {
            let response = raft.pre_vote(decode_vote(&request)?).await.map_err(|e| text(&e))?;
            Ok(Tell::Vote(codec::encode_vote_response(&response)))
        }
        Ask::Transfer(request) => {
            let request = codec::decode_transfer(&request).map_err(|e| text(&e))?;
            let response = raft.transfer_leader(request).await.map_err(|e| text(&e))?;
            Ok(Tell::Transfer(codec::encode_transfer_response(&response)))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use drover_kv::Certainty;
    use drover_wire::decode_group_response;
    use v1::group_request::Body;

    use super::*;

    #[test]
    fn an_answer_that_no_frame_can_carry_becomes_an_error_that_says_whether_anything_happened() {
        let answer = |bytes: usize| v1::GroupResponse {
            body: Some(v1::group_response::Body::Catalog(vec![7; bytes].into())),
            ..Default::default()
        };
        let around = answer(1_000).encoded_len() - 1_000;
        let fits = 1_000 + around + FRAMING_BYTES;
        for (body, certainty) in [
            (Body::BatchGet(v1::GroupBatchGet::default()), Certainty::Definite),
            (Body::Scan(v1::GroupScan::default()), Certainty::Definite),
            (Body::ReadCatalog(v1::GroupReadCatalog::default()), Certainty::Definite),
            (Body::JudgeCatalog(Bytes::new()), Certainty::Definite),
            (Body::Write(v1::GroupWrite::default()), Certainty::Unknown),
            (Body::Catalog(Bytes::new()), Certainty::Unknown),
        ] {
            let changes = may_change(&v1::GroupRequest { body: Some(body), ..Default::default() });
            assert_eq!(carried(answer(1_000), changes, fits), answer(1_000));
            let error = decode_group_response(carried(answer(1_001), changes, fits)).unwrap_err();
            assert_eq!((error.reason, error.certainty), (Reason::BatchTooLarge, certainty));
        }
    }

    #[test]
    fn a_frame_of_the_largest_answer_is_no_larger_than_a_message_may_be() {
        let body = v1::group_response::Body::Catalog(vec![7; 70 << 20].into());
        let response = v1::GroupResponse { body: Some(body), ..Default::default() };
        let bytes = response.encoded_len();
        let message = v1::LinkMessage { id: u64::MAX, body: Some(Answer::GroupResponse(response)) };
        assert!(v1::LinkFrame { messages: vec![message] }.encoded_len() <= bytes + FRAMING_BYTES);
    }
}
