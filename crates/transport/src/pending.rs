//! The calls of one link that have no answer yet.

use std::collections::HashMap;

use drover_wire::proto::v1;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::Sent;

/// What comes back for a call.
pub(crate) type Answer = v1::link_message::Body;

/// What ends a call without an answer: whether it was sent.
pub(crate) type CallResult = Result<Answer, Sent>;

enum Slot {
    Call {
        answer: oneshot::Sender<CallResult>,
        sent: bool,
    },
    /// A replication stream: one answer for each request.
    Stream {
        answers: mpsc::UnboundedSender<v1::AppendResponse>,
        unanswered: usize,
    },
}

/// Pairs answers with calls. The id of a call is in the table from before it is queued until its answer, its deadline
/// or the end of the link, whichever is first.
#[derive(Default)]
pub(crate) struct Pending {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    slots: HashMap<u64, Slot>,
    next_id: u64,
    closed: bool,
}

impl Table {
    fn insert(&mut self, slot: Slot) -> Option<u64> {
        if self.closed {
            return None;
        }
        self.next_id += 1;
        self.slots.insert(self.next_id, slot);
        Some(self.next_id)
    }
}

impl Pending {
    /// A new call; `None` if the link is gone.
    pub(crate) fn open_call(&self) -> Option<(u64, oneshot::Receiver<CallResult>)> {
        let (answer, receiver) = oneshot::channel();
        let id = self.table.lock().insert(Slot::Call { answer, sent: false })?;
        Some((id, receiver))
    }

    /// A new replication stream; `None` if the link is gone.
    pub(crate) fn open_stream(&self) -> Option<(u64, mpsc::UnboundedReceiver<v1::AppendResponse>)> {
        let (answers, receiver) = mpsc::unbounded_channel();
        let id = self.table.lock().insert(Slot::Stream { answers, unanswered: 0 })?;
        Some((id, receiver))
    }

    /// Counts a request of a stream whose answer is to come.
    pub(crate) fn expect_answer(&self, id: u64) {
        if let Some(Slot::Stream { unanswered, .. }) = self.table.lock().slots.get_mut(&id) {
            *unanswered += 1;
        }
    }

    /// Called when a message leaves the queue: whether it shall be sent. From then on its call counts as sent.
    pub(crate) fn admit(&self, message: &v1::LinkMessage) -> bool {
        match self.table.lock().slots.get_mut(&message.id) {
            Some(Slot::Call { sent, .. }) => {
                *sent = true;
                true
            }
            Some(Slot::Stream { .. }) => true,
            // What tells the peer that a stream is over outlives the stream.
            None => matches!(message.body, Some(v1::link_message::Body::AppendClose(_))),
        }
    }

    /// Gives a call or stream up. A call that still stands in the queue will not be sent.
    pub(crate) fn forget(&self, id: u64) -> Sent {
        match self.table.lock().slots.remove(&id) {
            Some(Slot::Call { sent: false, .. }) => Sent::NotSent,
            Some(Slot::Call { sent: true, .. } | Slot::Stream { .. }) | None => Sent::Unknown,
        }
    }

    /// Hands an answer to whoever waits. `false` if it makes no sense: it answers nothing that was asked.
    ///
    /// An answer to a call that was given up is in order.
    pub(crate) fn complete(&self, message: v1::LinkMessage) -> bool {
        let mut table = self.table.lock();
        let known = message.id <= table.next_id && message.id != 0;
        let Some(body) = message.body else { return false };
        match (table.slots.get_mut(&message.id), body) {
            (Some(Slot::Stream { answers, unanswered }), Answer::AppendResponse(response)) => {
                let failed = response.kind() == v1::append_response::Kind::Failed;
                if *unanswered == 0 && !failed {
                    return false;
                }
                *unanswered = unanswered.saturating_sub(1);
                // The stream may have been dropped a moment ago.
                let _ = answers.send(response);
                true
            }
            (Some(Slot::Stream { .. }), _) => false,
            (Some(Slot::Call { sent: false, .. }), _) => false,
            (Some(Slot::Call { .. }), body) => {
                if let Some(Slot::Call { answer, .. }) = table.slots.remove(&message.id) {
                    let _ = answer.send(Ok(body));
                }
                true
            }
            (None, _) => known,
        }
    }

    /// The link is gone: ends everything, and takes nothing more.
    pub(crate) fn close(&self) {
        let slots = {
            let mut table = self.table.lock();
            table.closed = true;
            std::mem::take(&mut table.slots)
        };
        for slot in slots.into_values() {
            if let Slot::Call { answer, sent } = slot {
                let _ = answer.send(Err(if sent { Sent::Unknown } else { Sent::NotSent }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u64, body: Answer) -> v1::LinkMessage {
        v1::LinkMessage { id, body: Some(body) }
    }

    fn answer() -> Answer {
        Answer::TimestampResponse(v1::TimestampResponse::default())
    }

    fn appended() -> Answer {
        let kind = v1::append_response::Kind::Success.into();
        Answer::AppendResponse(v1::AppendResponse { kind, ..Default::default() })
    }

    #[test]
    fn a_lost_link_tells_apart_what_was_sent() {
        let pending = Pending::default();
        let (sent, mut sent_result) = pending.open_call().unwrap();
        let (_, mut queued_result) = pending.open_call().unwrap();
        assert!(pending.admit(&message(sent, answer())));
        pending.close();
        assert_eq!(sent_result.try_recv().unwrap(), Err(Sent::Unknown));
        assert_eq!(queued_result.try_recv().unwrap(), Err(Sent::NotSent));
        assert!(pending.open_call().is_none() && pending.open_stream().is_none());
    }

    #[test]
    fn a_call_given_up_in_the_queue_is_never_sent() {
        let pending = Pending::default();
        let (queued, _keep) = pending.open_call().unwrap();
        assert_eq!(pending.forget(queued), Sent::NotSent);
        assert!(!pending.admit(&message(queued, answer())));
        let (sent, _keep) = pending.open_call().unwrap();
        assert!(pending.admit(&message(sent, answer())));
        assert_eq!(pending.forget(sent), Sent::Unknown);
        assert!(pending.complete(message(sent, answer())), "a late answer is no offence");
    }

    #[test]
    fn answers_that_answer_nothing_are_told_apart() {
        let pending = Pending::default();
        let (call, mut result) = pending.open_call().unwrap();
        let (stream, mut answers) = pending.open_stream().unwrap();
        assert!(!pending.complete(message(call, answer())), "before it was sent");
        assert!(!pending.complete(message(stream, appended())), "nothing was asked on the stream");
        assert!(!pending.complete(message(99, answer())), "an id that was never given out");
        assert!(!pending.complete(message(0, answer())));
        assert!(!pending.complete(v1::LinkMessage { id: call, body: None }));
        pending.admit(&message(call, answer()));
        assert!(pending.complete(message(call, answer())));
        assert_eq!(result.try_recv().unwrap(), Ok(answer()));
        pending.expect_answer(stream);
        assert!(pending.complete(message(stream, appended())));
        assert!(answers.try_recv().is_ok());
        assert!(!pending.complete(message(stream, appended())), "more answers than requests");
    }
}
