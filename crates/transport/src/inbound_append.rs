use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use drover_keys::{GroupId, ReplicaId};
use drover_rafttypes::TypeConfig;
use drover_wire::proto::v1;
use futures::StreamExt;
use openraft::raft::AppendEntriesRequest;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;

use crate::append_stream::MAX_WINDOW;
use crate::codec;
use crate::outbox::Outbox;
use crate::pending::Answer;
use crate::service::{NodeService, RaftEndpoint};

/// The replication streams that a peer has open on one link.
pub(crate) struct Appends {
    service: Arc<dyn NodeService>,
    outbox: Outbox,
    max_streams: usize,
    /// A stream that has failed stays here, without its inbox, until the peer closes it: requests that were under way
    /// are no offence.
    inboxes: HashMap<u64, Option<Inbox>>,
}

type Inbox = mpsc::Sender<AppendEntriesRequest<TypeConfig>>;

impl Appends {
    pub(crate) fn new(service: Arc<dyn NodeService>, outbox: Outbox, max_streams: usize) -> Self {
        Self { service, outbox, max_streams, inboxes: HashMap::new() }
    }

    /// Opens a stream. The error is what to tell the peer.
    pub(crate) fn open(&mut self, id: u64, group: GroupId, replica: ReplicaId) -> Result<(), String> {
        if self.inboxes.len() >= self.max_streams {
            return Err("too many replication streams on one link".to_owned());
        }
        let Entry::Vacant(vacant) = self.inboxes.entry(id) else {
            return Err("the replication stream is open already".to_owned());
        };
        let Some(raft) = self.service.raft(group, replica) else {
            vacant.insert(None);
            return Err(format!("this node does not hold replica {replica} of group {group}"));
        };
        let (inbox, requests) = mpsc::channel(MAX_WINDOW);
        vacant.insert(Some(inbox));
        tokio::spawn(run(id, raft, requests, self.outbox.clone()));
        Ok(())
    }

    /// Takes a request of a stream. The error is what to tell the peer.
    pub(crate) fn append(&mut self, id: u64, request: v1::AppendRequest) -> Result<(), String> {
        let Some(slot) = self.inboxes.get_mut(&id) else {
            return Err("there is no such replication stream".to_owned());
        };
        let Some(inbox) = slot else { return Ok(()) };
        let refusal = match codec::decode_append(request) {
            Err(error) => error.to_string(),
            Ok(request) => match inbox.try_send(request) {
                // The stream has ended by an answer of its own.
                Ok(()) | Err(TrySendError::Closed(_)) => return Ok(()),
                Err(TrySendError::Full(_)) => "more requests are under way than a stream may have".to_owned(),
            },
        };
        *slot = None;
        Err(refusal)
    }

    /// The peer has ended a stream.
    pub(crate) fn close(&mut self, id: u64) {
        self.inboxes.remove(&id);
    }
}

/// Feeds the requests of one stream to its Raft, and sends the answers back in their order.
async fn run(
    id: u64,
    raft: Arc<dyn RaftEndpoint>,
    requests: mpsc::Receiver<AppendEntriesRequest<TypeConfig>>,
    outbox: Outbox,
) {
    let mut answers = raft.stream_append(ReceiverStream::new(requests).boxed());
    while let Some(answer) = answers.next().await {
        let (response, last) = match answer {
            Ok(result) => (codec::encode_stream_result(&result), result.is_err()),
            Err(error) => (codec::append_failed(error), true),
        };
        let message = v1::LinkMessage { id, body: Some(Answer::AppendResponse(response)) };
        if outbox.send(message).await.is_err() || last {
            return;
        }
    }
}
