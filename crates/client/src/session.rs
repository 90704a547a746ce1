//! One `Kv.Session` stream: many calls at once over one HTTP/2 stream.
//!
//! Callers and the connection meet in one mutex-protected state. Its critical sections move a few words; it is taken
//! once per call by the caller and once per message, not per call, by each half of the stream. A call is *queued* until
//! the connection polls the sending half, then *sent*. Only that transition tells whether losing the stream leaves the
//! call's outcome unknown.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use drover_kv::{Error, Reason};
use drover_wire::proto::v1::kv_client::KvClient;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::proto::v1::{SessionAnswer, SessionCall, SessionRequest, SessionResponse};
use drover_wire::status_to_error;
use futures::Stream;
use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::request::payload_bytes;

/// Calls in one message at most.
const MAX_BATCH_CALLS: usize = 512;
/// No call is added to a message that has reached this size. One call alone may be larger.
const MAX_BATCH_BYTES: usize = 256 << 10;
pub(crate) use drover_wire::MAX_MESSAGE_BYTES;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The call never reached the network.
    NotSent(Arc<str>),
    /// The call was handed to the network, then the stream ended.
    Lost(Arc<str>),
    /// The server does not read messages as large as the one of this call.
    Refused(Box<Error>),
    /// The deadline passed before the call was handed to the network. It never will be.
    TimedOutUnsent,
    /// The deadline passed without an answer to a call that was handed to the network.
    TimedOutSent,
}

type Reply = Result<SessionAnswer, NoAnswer>;

/// A call that waits to be sent or answered.
#[derive(Debug)]
struct Waiting {
    /// Distinguishes successive users of one slot: the upper half of the call's id.
    generation: u32,
    /// Taken when the call is sent.
    call: Option<Call>,
    /// Of its keys and values, once it is sent.
    bytes: usize,
    reply: oneshot::Sender<Reply>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Slab<Waiting>,
    /// Ids of calls that are not sent yet, oldest first. An id whose call was withdrawn is skipped.
    queue: VecDeque<u64>,
    generation: u32,
    /// The connection's task, if it found nothing to send.
    sender: Option<Waker>,
    /// Why the stream ended, once it has.
    closed: Option<Arc<str>>,
}

fn id_of(generation: u32, slot: usize) -> u64 {
    (u64::from(generation) << 32) | slot as u64
}

fn slot_of(id: u64) -> usize {
    (id & u64::from(u32::MAX)) as usize
}

impl State {
    fn enqueue(&mut self, call: Call, reply: oneshot::Sender<Reply>) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.waiting.insert(Waiting { generation, call: Some(call), bytes: 0, reply });
        let id = id_of(generation, slot);
        self.queue.push_back(id);
        id
    }

    fn find(&mut self, id: u64) -> Option<&mut Waiting> {
        self.waiting.get_mut(slot_of(id)).filter(|waiting| u64::from(waiting.generation) == id >> 32)
    }

    fn take(&mut self, id: u64) -> Option<Waiting> {
        self.find(id)?;
        self.waiting.try_remove(slot_of(id))
    }

    /// The next message, or nothing if no call waits to be sent.
    fn next_batch(&mut self) -> Option<SessionRequest> {
        let mut calls = Vec::with_capacity(self.queue.len().min(MAX_BATCH_CALLS));
        let mut bytes = 0;
        while calls.len() < MAX_BATCH_CALLS && bytes < MAX_BATCH_BYTES {
            let Some(id) = self.queue.pop_front() else { break };
            let Some(waiting) = self.find(id) else { continue };
            if let Some(call) = waiting.call.take() {
                waiting.bytes = payload_bytes(&call);
                bytes += waiting.bytes;
                calls.push(SessionCall { id, call: Some(call) });
            }
        }
        (!calls.is_empty()).then_some(SessionRequest { calls })
    }

    /// The server has not read a message, nor anything behind it, and has answered all before it: of the calls that wait none has
    /// happened. The largest one was too large; what stands around a call in its message is small beside that.
    fn refuse(&mut self, error: Error) {
        let sent = self.waiting.iter().filter(|(_, waiting)| waiting.call.is_none());
        let largest = sent.max_by_key(|(_, waiting)| waiting.bytes).map(|(slot, _)| slot);
        let why: Arc<str> = error.message.as_str().into();
        let mut error = Some(error);
        for (slot, waiting) in std::mem::take(&mut self.waiting) {
            let refused = error.take_if(|_| Some(slot) == largest).map(|error| NoAnswer::Refused(Box::new(error)));
            // A caller that has given up meanwhile needs no answer.
            let _ = waiting.reply.send(Err(refused.unwrap_or_else(|| NoAnswer::NotSent(why.clone()))));
        }
        self.close(why);
    }

    /// Ends the stream: whoever waits learns whether the call was sent.
    fn close(&mut self, why: Arc<str>) {
        self.queue.clear();
        for waiting in self.waiting.drain() {
            let reply = match waiting.call {
                Some(_) => NoAnswer::NotSent(why.clone()),
                None => NoAnswer::Lost(why.clone()),
            };
            // A caller that has given up meanwhile needs no answer.
            let _ = waiting.reply.send(Err(reply));
        }
        self.closed.get_or_insert(why);
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }
}

/// Why a stream has ended.
enum End {
    Lost(Arc<str>),
    /// A message was too large for the server.
    Refused(Error),
}

impl From<&str> for End {
    fn from(why: &str) -> Self {
        End::Lost(why.into())
    }
}

impl From<&tonic::Status> for End {
    fn from(status: &tonic::Status) -> Self {
        let error = status_to_error(status);
        match error.reason == Reason::BatchTooLarge && !error.is_unknown() {
            true => End::Refused(error),
            false => End::Lost(describe(status).into()),
        }
    }
}

/// What callers and both halves of the stream share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Whether the stream has ended: a glance at `state.closed` without the lock.
    ended: AtomicBool,
}

impl Shared {
    fn close(&self, end: End) {
        self.ended.store(true, Ordering::Relaxed);
        match end {
            End::Lost(why) => self.state.lock().close(why),
            End::Refused(error) => self.state.lock().refuse(error),
        }
    }
}

/// A handle to a running stream.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
}

impl Session {
    /// Opens a stream over `channel` in the background. Calls may be made at once; they are sent when it stands.
    pub(crate) fn open(channel: Channel) -> Session {
        let shared = Arc::new(Shared::default());
        tokio::spawn(run(channel, shared.clone()));
        Session { shared }
    }

    /// Whether the stream has not ended, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        !self.shared.ended.load(Ordering::Relaxed)
    }

    /// Sends one call and waits for its answer until `deadline`.
    pub(crate) async fn call(&self, call: Call, deadline: Instant) -> Reply {
        let (reply, answer) = oneshot::channel();
        let (id, sender) = {
            let mut state = self.shared.state.lock();
            if let Some(why) = &state.closed {
                return Err(NoAnswer::NotSent(why.clone()));
            }
            (state.enqueue(call, reply), state.sender.take())
        };
        if let Some(sender) = sender {
            sender.wake();
        }
        let mut place = Place { state: &self.shared.state, id, held: true };
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(reply)) => {
                place.held = false;
                reply
            }
            // The slot is dropped unanswered only by the end of the runtime.
            Ok(Err(_)) => Err(NoAnswer::Lost("the client's runtime is shutting down".into())),
            Err(_) => Err(place.give_up()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.close("the client was closed".into());
    }
}

/// A caller's place among the waiting. Given back if the caller stops waiting, for whatever reason.
struct Place<'a> {
    state: &'a Mutex<State>,
    id: u64,
    held: bool,
}

impl Place<'_> {
    fn give_up(&mut self) -> NoAnswer {
        self.held = false;
        match self.state.lock().take(self.id) {
            Some(Waiting { call: Some(_), .. }) => NoAnswer::TimedOutUnsent,
            Some(_) | None => NoAnswer::TimedOutSent,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.held {
            self.state.lock().take(self.id);
        }
    }
}

/// The sending half, polled by the connection whenever it can take more.
struct Outbound {
    shared: Arc<Shared>,
}

impl Stream for Outbound {
    type Item = SessionRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SessionRequest>> {
        let mut state = self.shared.state.lock();
        if state.closed.is_some() {
            return Poll::Ready(None);
        }
        match state.next_batch() {
            Some(request) => Poll::Ready(Some(request)),
            None => {
                state.sender = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Runs the stream to its end and tells those who wait.
async fn run(channel: Channel, shared: Arc<Shared>) {
    let mut client = KvClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let outbound = Outbound { shared: shared.clone() };
    let end = match client.session(outbound).await {
        Ok(response) => receive(response.into_inner(), &shared.state).await,
        Err(status) => End::from(&status),
    };
    shared.close(end);
}

async fn receive(mut inbound: tonic::Streaming<SessionResponse>, state: &Mutex<State>) -> End {
    let mut ready = Vec::new();
    loop {
        match inbound.message().await {
            Ok(Some(response)) => {
                {
                    let mut state = state.lock();
                    ready.extend(response.answers.into_iter().filter_map(|answer| {
                        let waiting = state.take(answer.id)?;
                        Some((waiting.reply, answer))
                    }));
                }
                for (reply, answer) in ready.drain(..) {
                    // A caller that has given up meanwhile needs no answer.
                    let _ = reply.send(Ok(answer));
                }
            }
            Ok(None) => return "the server closed the stream".into(),
            Err(status) => return End::from(&status),
        }
    }
}

/// A status of the transport in one line, with the cause at the bottom, which is what helps.
pub(crate) fn describe(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    if text.is_empty() { format!("{:?}", status.code()) } else { text }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use drover_wire::proto::v1::GetRequest;

    use super::*;

    fn get(key: usize) -> Call {
        Call::Get(GetRequest { key: Bytes::from(vec![0; key]), options: None })
    }

    fn queued(state: &mut State, call: Call) -> (u64, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        (state.enqueue(call, reply), answer)
    }

    #[test]
    fn a_message_ends_at_its_limits_and_the_rest_follows_in_order() {
        let mut state = State::default();
        let mut ids: Vec<u64> = (0..MAX_BATCH_CALLS + 3).map(|_| queued(&mut state, get(1)).0).collect();
        ids.push(queued(&mut state, get(MAX_BATCH_BYTES)).0);
        ids.push(queued(&mut state, get(1)).0);
        let batches: Vec<Vec<u64>> =
            std::iter::from_fn(|| state.next_batch()).map(|r| r.calls.iter().map(|c| c.id).collect()).collect();
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_BATCH_CALLS, 4, 1]);
        assert_eq!(batches.concat(), ids);
    }

    #[test]
    fn of_the_calls_behind_a_message_that_was_not_read_the_largest_is_refused_and_the_others_may_be_sent_again() {
        let mut state = State::default();
        let (_, mut small) = queued(&mut state, get(1));
        let (_, mut large) = queued(&mut state, get(MAX_BATCH_BYTES));
        state.next_batch().unwrap();
        let (_, mut behind) = queued(&mut state, get(10));
        state.next_batch().unwrap();
        let (_, mut unsent) = queued(&mut state, get(2 * MAX_BATCH_BYTES));
        let error = Error::definite(Reason::BatchTooLarge, "too large");
        state.refuse(error.clone());
        assert_eq!(large.try_recv().unwrap(), Err(NoAnswer::Refused(Box::new(error))));
        for answer in [&mut small, &mut behind, &mut unsent] {
            assert_eq!(answer.try_recv().unwrap(), Err(NoAnswer::NotSent("too large".into())));
        }
        assert!(state.closed.is_some() && state.next_batch().is_none());
    }

    #[test]
    fn the_end_of_the_stream_tells_what_was_sent_from_what_was_not() {
        let mut state = State::default();
        let (_, mut sent) = queued(&mut state, get(1));
        state.next_batch().unwrap();
        let (_, mut unsent) = queued(&mut state, get(1));
        state.close("gone".into());
        assert_eq!(sent.try_recv().unwrap(), Err(NoAnswer::Lost("gone".into())));
        assert_eq!(unsent.try_recv().unwrap(), Err(NoAnswer::NotSent("gone".into())));
        assert!(state.next_batch().is_none());
    }

    #[test]
    fn a_withdrawn_call_is_never_sent_and_its_slot_does_not_answer_for_the_next() {
        let mut state = State::default();
        let (withdrawn, _answer) = queued(&mut state, get(1));
        assert!(state.take(withdrawn).unwrap().call.is_some());
        let (next, _answer) = queued(&mut state, get(1));
        assert_eq!(slot_of(withdrawn), slot_of(next));
        assert!(state.take(withdrawn).is_none());
        let batch = state.next_batch().unwrap();
        assert_eq!(batch.calls.iter().map(|c| c.id).collect::<Vec<_>>(), [next]);
    }
}
