//! The sending side of one replication stream.
//!
//! Requests go out while earlier ones wait for their answers, bounded in number for each stream and in bytes for each
//! peer. The first request is polled before the connection is asked for: openraft's back-off sleeps inside the stream
//! of requests, and a stream that fails without polling it would be called again at once, for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use drover_keys::{GroupId, ReplicaId};
use drover_rafttypes::TypeConfig;
use drover_wire::proto::v1;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::CallError;
use crate::codec::{AppendSpan, MessageError, decode_stream_result, encode_append, split_append};
use crate::link::LinkStream;
use crate::options::Tuning;
use crate::outbox::Slot;
use crate::peer::Peer;
use crate::pending::Answer;

/// Requests of one stream that the receiving side keeps for its Raft. The sender's window is never larger.
pub(crate) const MAX_WINDOW: usize = 1_024;

/// An answer, or why there are no more.
pub(crate) type Item = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// A request on its way out.
struct Outgoing {
    message: v1::LinkMessage,
    span: AppendSpan,
}

/// Room for a request: in the peer's window and in the queue of the link.
type Room = Result<(OwnedSemaphorePermit, Slot), crate::outbox::Closed>;

/// A request that waits for its answer.
struct Unanswered {
    span: AppendSpan,
    since: Instant,
    _room: OwnedSemaphorePermit,
}

struct Flow<S> {
    peer: Arc<Peer>,
    tuning: Tuning,
    /// `None` when it has ended.
    requests: Option<S>,
    stream: LinkStream,
    outgoing: VecDeque<Outgoing>,
    /// Waits for room for the first of `outgoing`.
    reserving: Option<BoxFuture<'static, Room>>,
    unanswered: VecDeque<Unanswered>,
}

/// Runs a replication stream to a peer, if it is known. `connect` bounds the wait for a connection.
pub(crate) fn stream_append<S>(
    peer: Result<Arc<Peer>, CallError>,
    to: (GroupId, ReplicaId),
    tuning: Tuning,
    mut requests: S,
    connect: Duration,
) -> BoxStream<'static, Item>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let start = async move {
        let Some(first) = requests.next().await else { return stream::empty().boxed() };
        match Flow::open(peer, to, tuning, requests, connect).await {
            Err(error) => stream::once(async { Err(error) }).boxed(),
            Ok(mut flow) => {
                flow.enqueue(first);
                stream::unfold(Some(flow), |flow| async move { flow?.next().await }).boxed()
            }
        }
    };
    stream::once(start).flatten().boxed()
}

impl<S> Flow<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    async fn open(
        peer: Result<Arc<Peer>, CallError>,
        (group, replica): (GroupId, ReplicaId),
        tuning: Tuning,
        requests: S,
        connect: Duration,
    ) -> Result<Self, RPCError<TypeConfig>> {
        let peer = peer.map_err(unreachable)?;
        let connection = peer.connection(Instant::now() + connect).await.map_err(unreachable)?;
        let stream = connection.bulk.open_stream().ok_or_else(lost)?;
        let open = stream.message(Answer::AppendOpen(v1::AppendOpen { group_id: group.0, replica_id: replica.0 }));
        let queued = tokio::time::timeout(stall(&tuning), stream.outbox().send(open)).await;
        match queued {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(lost()),
            Err(_) => return Err(unreachable("the link does not move")),
        }
        let (outgoing, unanswered) = (VecDeque::new(), VecDeque::new());
        Ok(Self { peer, tuning, requests: Some(requests), stream, outgoing, reserving: None, unanswered })
    }

    fn enqueue(&mut self, request: AppendEntriesRequest<TypeConfig>) {
        for part in split_append(request, self.tuning.append_bytes) {
            let message = self.stream.message(Answer::AppendRequest(encode_append(&part)));
            self.outgoing.push_back(Outgoing { message, span: AppendSpan::of(&part) });
        }
    }

    /// The next answer, sending requests meanwhile. Ends after an answer that ends the stream.
    async fn next(mut self) -> Option<(Item, Option<Self>)> {
        loop {
            if let Err(error) = self.start_reserving() {
                return Some((Err(error), None));
            }
            if self.requests.is_none() && self.outgoing.is_empty() && self.unanswered.is_empty() {
                return None;
            }
            let oldest = self.unanswered.front().map(|request| request.since);
            tokio::select! {
                biased;
                answer = self.stream.answer() => return Some(self.answered(answer)),
                () = tokio::time::sleep_until(oldest.unwrap_or_else(Instant::now) + stall(&self.tuning)),
                    if oldest.is_some() => return Some((Err(unreachable("no answer to appends")), None)),
                room = wait(&mut self.reserving), if self.reserving.is_some() => {
                    self.reserving = None;
                    match room {
                        Ok((room, slot)) => self.send(room, slot),
                        Err(_) => return Some((Err(lost()), None)),
                    }
                }
                request = next_request(&mut self.requests), if self.outgoing.is_empty() && self.requests.is_some() => {
                    match request {
                        Some(request) => self.enqueue(request),
                        None => self.requests = None,
                    }
                }
            }
        }
    }

    /// Starts to wait for room for the next request, if the window of the stream is open.
    fn start_reserving(&mut self) -> Result<(), RPCError<TypeConfig>> {
        let window = self.tuning.append_window.clamp(1, MAX_WINDOW);
        let Some(next) = self.outgoing.front() else { return Ok(()) };
        if self.reserving.is_some() || self.unanswered.len() >= window {
            return Ok(());
        }
        self.stream.check_size(&next.message).map_err(unreachable)?;
        let bytes = next.message.encoded_len();
        let permits = u32::try_from(bytes.clamp(1, self.tuning.append_window_bytes.max(1))).unwrap_or(u32::MAX);
        let (room, outbox) = (Arc::clone(&self.peer.append_room), self.stream.outbox());
        self.reserving = Some(Box::pin(async move {
            let room = room.acquire_many_owned(permits).await.map_err(|_| crate::outbox::Closed)?;
            Ok((room, outbox.reserve(bytes).await?))
        }));
        Ok(())
    }

    fn send(&mut self, room: OwnedSemaphorePermit, slot: Slot) {
        if let Some(Outgoing { message, span }) = self.outgoing.pop_front() {
            self.stream.expect_answer();
            self.unanswered.push_back(Unanswered { span, since: Instant::now(), _room: room });
            slot.send(message);
        }
    }

    fn answered(mut self, answer: Option<v1::AppendResponse>) -> (Item, Option<Self>) {
        let Some(answer) = answer else { return (Err(lost()), None) };
        let Some(request) = self.unanswered.pop_front() else {
            return (Err(refused(&MessageError::Remote(answer.error))), None);
        };
        match decode_stream_result(&answer, request.span) {
            Ok(Ok(log_id)) => (Ok(Ok(log_id)), Some(self)),
            Ok(Err(refusal)) => (Ok(Err(refusal)), None),
            Err(error) => (Err(refused(&error)), None),
        }
    }
}

async fn wait(reserving: &mut Option<BoxFuture<'static, Room>>) -> Room {
    match reserving {
        Some(reserving) => reserving.await,
        None => std::future::pending().await,
    }
}

async fn next_request<S: Stream + Unpin>(requests: &mut Option<S>) -> Option<S::Item> {
    match requests {
        Some(requests) => requests.next().await,
        None => std::future::pending().await,
    }
}

fn stall(tuning: &Tuning) -> Duration {
    Duration::from_millis(tuning.append_stall_ms)
}

fn lost() -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string("the connection was lost"))
}

fn unreachable(error: impl ToString) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

/// An answer that makes no sense, or says that the peer's replica is not there: not to be repeated at once.
fn refused(error: &MessageError) -> RPCError<TypeConfig> {
    unreachable(error)
}
