//! A session: many calls over one stream, answered in any order and packed into as few messages as possible. A message is
//! bounded in bytes, because a client that cannot decode one loses the stream, and every call that is on it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use drover_coordinator::Answer;
use drover_kv::Error;
use drover_wire::proto::v1::{self, session_answer, session_call::Call};
use drover_wire::{Request, error_to_status_bytes};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use super::front::Front;
use super::{kv, unread};

/// Answers that go into one message at most.
const ANSWERS_PER_MESSAGE: usize = 256;
/// No answer is added to a message that has reached this size. One answer alone may be larger.
const MESSAGE_BYTES: usize = 1 << 20;

/// Serves a session until its client ends it, or until this node has drained. A message that is not read, because it is too large or is none,
/// ends it as well: what came before is answered, and the end says that what came with it and after it was not looked at.
pub fn serve(
    front: Arc<Front>,
    mut incoming: Streaming<v1::SessionRequest>,
) -> BoxStream<'static, Result<v1::SessionResponse, Status>> {
    // Bounded by the number of requests that the front admits.
    let (answers, outgoing) = mpsc::unbounded_channel();
    let drained = front.drained();
    let (farewell, last_words) = oneshot::channel();
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                message = incoming.message() => message,
                () = drained.cancelled() => return,
            };
            match message {
                Ok(Some(request)) => {
                    for call in request.calls {
                        tokio::spawn(answer(Arc::clone(&front), call, answers.clone()));
                    }
                }
                // The client went away; what it asked for goes on and its answers are dropped.
                Ok(None) => return,
                Err(status) => {
                    if let Some(refusal) = unread::refusal(&status) {
                        let _ = farewell.send(refusal);
                    }
                    return;
                }
            }
        }
    });
    let last_words = stream::once(last_words).filter_map(|status| async { status.ok().map(Err) });
    Messages { answers: outgoing }.map(Ok).chain(last_words).boxed()
}

/// The answers of a session, packed: each message takes what is ready, up to a number and a size.
struct Messages {
    answers: mpsc::UnboundedReceiver<v1::SessionAnswer>,
}

impl Stream for Messages {
    type Item = v1::SessionResponse;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (mut answers, mut bytes) = (Vec::new(), 0);
        while answers.len() < ANSWERS_PER_MESSAGE && bytes < MESSAGE_BYTES {
            match self.answers.poll_recv(cx) {
                Poll::Ready(Some(answer)) => {
                    bytes += answer.encoded_len();
                    answers.push(answer);
                }
                Poll::Ready(None) if answers.is_empty() => return Poll::Ready(None),
                Poll::Pending if answers.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(v1::SessionResponse { answers }))
    }
}

async fn answer(front: Arc<Front>, call: v1::SessionCall, answers: mpsc::UnboundedSender<v1::SessionAnswer>) {
    let id = call.id;
    let Some(kind) = call.call.as_ref().map(Kind::of) else {
        let error = Error::from(drover_wire::WireError::Missing("call"));
        let _ = answers.send(v1::SessionAnswer {
            id,
            leader_hint: 0,
            answer: Some(session_answer::Answer::Error(error_to_status_bytes(&error))),
        });
        return;
    };
    let key = call.call.as_ref().and_then(key_of);
    let result = front.run(Request::try_from(call), None).await.and_then(|answer| kind.pack(answer));
    let leader_hint = key.and_then(|key| front.leader_hint(&key)).map_or(0, |node| node.0);
    let answer = result.unwrap_or_else(|error| session_answer::Answer::Error(error_to_status_bytes(&error)));
    // The client may be gone; its request was carried out all the same.
    let _ = answers.send(v1::SessionAnswer { id, leader_hint, answer: Some(answer) });
}

/// The key that decides which group a call goes to, if there is one.
fn key_of(call: &Call) -> Option<Bytes> {
    match call {
        Call::Get(request) => Some(request.key.clone()),
        Call::Put(request) => Some(request.key.clone()),
        Call::Delete(request) => Some(request.key.clone()),
        Call::CompareAndSet(request) => Some(request.key.clone()),
        Call::LatestCommitTs(request) => Some(request.key.clone()),
        Call::Settle(request) => Some(request.key.clone()),
        Call::Commit(request) => request.mutations.first().map(|first| first.key.clone()),
        Call::BatchGet(_) | Call::Scan(_) | Call::DeleteRange(_) => None,
    }
}

/// Which answer a call wants.
#[derive(Clone, Copy)]
enum Kind {
    Get,
    BatchGet,
    Put,
    Delete,
    CompareAndSet,
    Scan,
    DeleteRange,
    LatestCommitTs,
    Settle,
    Commit,
}

impl Kind {
    fn of(call: &Call) -> Self {
        match call {
            Call::Get(_) => Kind::Get,
            Call::BatchGet(_) => Kind::BatchGet,
            Call::Put(_) => Kind::Put,
            Call::Delete(_) => Kind::Delete,
            Call::CompareAndSet(_) => Kind::CompareAndSet,
            Call::Scan(_) => Kind::Scan,
            Call::DeleteRange(_) => Kind::DeleteRange,
            Call::LatestCommitTs(_) => Kind::LatestCommitTs,
            Call::Settle(_) => Kind::Settle,
            Call::Commit(_) => Kind::Commit,
        }
    }

    fn pack(self, answer: Answer) -> Result<session_answer::Answer, Error> {
        use session_answer::Answer as Packed;
        match self {
            Kind::Get => kv::get(answer).map(Packed::Get),
            Kind::BatchGet => kv::batch_get(answer).map(Packed::BatchGet),
            Kind::Put => kv::put(answer).map(Packed::Put),
            Kind::Delete => kv::delete(answer).map(Packed::Delete),
            Kind::CompareAndSet => kv::compare_and_set(answer).map(Packed::CompareAndSet),
            Kind::Scan => kv::scan(answer).map(Packed::Scan),
            Kind::DeleteRange => kv::delete_range(answer).map(Packed::DeleteRange),
            Kind::LatestCommitTs => kv::latest_commit_ts(answer).map(Packed::LatestCommitTs),
            Kind::Settle => kv::settle(answer).map(Packed::Settle),
            Kind::Commit => kv::commit(answer).map(Packed::Commit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How answers of these sizes are packed: the number in each message.
    fn packed(sizes: &[usize]) -> Vec<usize> {
        let (sender, answers) = mpsc::unbounded_channel();
        for (id, bytes) in sizes.iter().enumerate() {
            let value = vec![7; *bytes].into();
            let version = Some(v1::Version { value, ..Default::default() });
            let answer = session_answer::Answer::Get(v1::GetResponse { version, read_ts: 0 });
            sender.send(v1::SessionAnswer { id: id as u64, leader_hint: 0, answer: Some(answer) }).unwrap();
        }
        drop(sender);
        let messages: Vec<v1::SessionResponse> = futures::executor::block_on_stream(Messages { answers }).collect();
        let ids: Vec<u64> =
            messages.iter().flat_map(|message| message.answers.iter().map(|answer| answer.id)).collect();
        assert_eq!(ids, (0..sizes.len() as u64).collect::<Vec<_>>(), "every answer once, in order");
        messages.iter().map(|message| message.answers.len()).collect()
    }

    #[test]
    fn a_message_is_closed_by_its_number_of_answers_or_by_its_size() {
        let table = [
            (vec![], vec![]),
            (vec![10; 3], vec![3]),
            (vec![10; 600], vec![256, 256, 88]),
            (vec![8 << 20; 3], vec![1, 1, 1]),
            (vec![10, 8 << 20, 10, 10], vec![2, 2]),
            (vec![300 << 10; 9], vec![4, 4, 1]),
        ];
        for (sizes, expect) in table {
            assert_eq!(packed(&sizes), expect, "{:?} ...", sizes.first());
        }
    }

    #[tokio::test]
    async fn what_is_ready_does_not_wait_for_more() {
        let (sender, answers) = mpsc::unbounded_channel();
        let mut messages = Messages { answers };
        for id in 1..3 {
            sender.send(v1::SessionAnswer { id, leader_hint: 0, answer: None }).unwrap();
            assert_eq!(messages.next().await.unwrap().answers.len(), 1);
        }
    }
}
