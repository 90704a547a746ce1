use std::sync::Arc;

use drover_keys::NodeId;
use drover_kv::Reason;
use drover_wire::proto::v1;
use futures::StreamExt;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::options::Tuning;
use crate::outbox::{Closed, Frames, Outbox, outbox};
use crate::pending::{Answer, Pending};
use crate::stats::PeerStats;
use crate::{CallError, Sent};

/// The asking side of one link.
#[derive(Clone)]
pub(crate) struct Link {
    node: NodeId,
    outbox: Outbox,
    pending: Arc<Pending>,
    stats: Arc<PeerStats>,
    max_message_bytes: usize,
}

/// Gives a call up when it is dropped.
struct Waiting<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pending.forget(self.id);
    }
}

impl Link {
    pub(crate) fn new(node: NodeId, tuning: &Tuning, stats: Arc<PeerStats>) -> (Self, Frames) {
        let pending = Arc::new(Pending::default());
        let admit = {
            let pending = Arc::clone(&pending);
            Box::new(move |message: &v1::LinkMessage| pending.admit(message))
        };
        let (outbox, frames) = outbox(tuning, Arc::clone(&stats), admit);
        let max_message_bytes = tuning.max_message_bytes;
        (Self { node, outbox, pending, stats, max_message_bytes }, frames)
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(&self, body: Answer, deadline: Instant) -> Result<Answer, CallError> {
        let result = self.try_call(body, deadline).await;
        match result.as_ref().err().map(|error| error.sent) {
            None => {}
            Some(Sent::NotSent) => PeerStats::inc(&self.stats.calls_not_sent),
            Some(Sent::Unknown) => PeerStats::inc(&self.stats.calls_unknown),
        }
        result
    }

    async fn try_call(&self, body: Answer, deadline: Instant) -> Result<Answer, CallError> {
        let Some((id, answer)) = self.pending.open_call() else { return Err(self.lost(Sent::NotSent)) };
        let waiting = Waiting { pending: &self.pending, id };
        let message = v1::LinkMessage { id, body: Some(body) };
        self.check_size(&message)?;
        let exchange = async {
            if let Err(Closed) = self.outbox.send(message).await {
                return Err(Sent::NotSent);
            }
            answer.await.unwrap_or(Err(Sent::Unknown))
        };
        match timeout_at(deadline, exchange).await {
            Ok(result) => result.map_err(|sent| self.lost(sent)),
            Err(_) => Err(match waiting.pending.forget(id) {
                Sent::NotSent => {
                    CallError::not_sent(self.node, Reason::Timeout, "the deadline passed before it was sent")
                }
                Sent::Unknown => {
                    CallError::unknown(self.node, Reason::TimeoutIndefinite, "the deadline passed before its answer")
                }
            }),
        }
    }

    fn check_size(&self, message: &v1::LinkMessage) -> Result<(), CallError> {
        let bytes = message.encoded_len();
        // A frame adds a tag and a length to its message.
        if bytes.saturating_add(16) > self.max_message_bytes {
            return Err(CallError::not_sent(
                self.node,
                Reason::BatchTooLarge,
                format!("the message has {bytes} bytes, the limit is {} bytes", self.max_message_bytes),
            ));
        }
        Ok(())
    }

    fn lost(&self, sent: Sent) -> CallError {
        match sent {
            Sent::NotSent => CallError::not_sent(self.node, Reason::Unavailable, "the connection was lost"),
            Sent::Unknown => CallError::unknown(self.node, Reason::TimeoutIndefinite, "the connection was lost"),
        }
    }

    /// Opens a replication stream; `None` if the link is gone.
    pub(crate) fn open_stream(&self) -> Option<LinkStream> {
        let (id, answers) = self.pending.open_stream()?;
        Some(LinkStream { id, answers, link: self.clone() })
    }

    /// Hands what the peer sends to whoever waits for it, until the stream ends. Returns why it ended.
    pub(crate) async fn read(&self, mut frames: tonic::Streaming<v1::LinkFrame>) -> String {
        loop {
            match frames.next().await {
                None => return "the peer closed the link".to_owned(),
                Some(Err(status)) => return format!("{:?}: {}", status.code(), status.message()),
                Some(Ok(frame)) => self.take(frame),
            }
        }
    }

    fn take(&self, frame: v1::LinkFrame) {
        PeerStats::inc(&self.stats.frames_received);
        PeerStats::add(&self.stats.messages_received, frame.messages.len() as u64);
        PeerStats::add(&self.stats.bytes_received, frame.encoded_len() as u64);
        for message in frame.messages {
            if !self.pending.complete(message) {
                PeerStats::inc(&self.stats.protocol_errors);
            }
        }
    }

    /// Ends all calls. Those that were sent end as unknown.
    pub(crate) fn close(&self) {
        self.pending.close();
    }
}

/// One replication stream on a link. Dropping it tells the peer.
pub(crate) struct LinkStream {
    id: u64,
    answers: mpsc::UnboundedReceiver<v1::AppendResponse>,
    link: Link,
}

impl LinkStream {
    pub(crate) fn outbox(&self) -> Outbox {
        self.link.outbox.clone()
    }

    pub(crate) fn message(&self, body: Answer) -> v1::LinkMessage {
        v1::LinkMessage { id: self.id, body: Some(body) }
    }

    /// Refuses a message that no frame can carry.
    pub(crate) fn check_size(&self, message: &v1::LinkMessage) -> Result<(), CallError> {
        self.link.check_size(message)
    }

    /// Counts a request whose answer is to come. Called before it is queued.
    pub(crate) fn expect_answer(&self) {
        self.link.pending.expect_answer(self.id);
    }

    /// The next answer; `None` if the link is gone.
    pub(crate) async fn answer(&mut self) -> Option<v1::AppendResponse> {
        self.answers.recv().await
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        self.link.pending.forget(self.id);
        let close = self.message(Answer::AppendClose(v1::AppendClose {}));
        let bytes = close.encoded_len();
        if let Some(slot) = self.link.outbox.try_reserve(bytes) {
            slot.send(close);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let outbox = self.outbox();
            runtime.spawn(async move {
                // A link that is gone has taken its streams along.
                let _ = outbox.send(close).await;
            });
        }
    }
}
