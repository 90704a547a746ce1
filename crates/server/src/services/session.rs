//! A session: many calls over one stream, answered in any order and packed into as few messages as possible.

use std::sync::Arc;

use bytes::Bytes;
use drover_coordinator::Answer;
use drover_kv::Error;
use drover_wire::proto::v1::{self, session_answer, session_call::Call};
use drover_wire::{Request, error_to_status_bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

use super::front::Front;
use super::kv;

/// Answers that go into one message at most.
const ANSWERS_PER_MESSAGE: usize = 256;

/// Serves a session until its client ends it, or until this node has drained.
pub fn serve(
    front: Arc<Front>,
    mut incoming: Streaming<v1::SessionRequest>,
) -> BoxStream<'static, Result<v1::SessionResponse, Status>> {
    // Bounded by the number of requests that the front admits.
    let (answers, outgoing) = mpsc::unbounded_channel();
    let drained = front.drained();
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
                Ok(None) | Err(_) => return,
            }
        }
    });
    UnboundedReceiverStream::new(outgoing)
        .ready_chunks(ANSWERS_PER_MESSAGE)
        .map(|answers| Ok(v1::SessionResponse { answers }))
        .boxed()
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
