//! What is under way: each step that was decided is a message, which comes late, more than once, or never.

use std::collections::BTreeMap;

use drover_catalog::job::JobEvent;
use drover_fsm::MoveCommand;
use drover_keys::{GroupId, JobEpoch, JobId};

use crate::shared::hash_of;

/// A step that somebody has decided on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// To the catalog.
    Catalog {
        /// Of which job.
        job: JobId,
        /// The course that the sender follows; `None` if people ask.
        epoch: Option<JobEpoch>,
        /// What happens to it.
        event: JobEvent,
    },
    /// To a group.
    Group {
        /// Which.
        to: GroupId,
        /// The entry for its log.
        command: MoveCommand,
    },
}

/// Names a message in the network.
pub type MessageId = u64;

/// Messages that may still arrive. One that is never delivered is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Network {
    /// And whether each has arrived already.
    messages: BTreeMap<MessageId, (Message, bool)>,
}

impl Network {
    /// How many have not arrived.
    pub fn in_flight(&self) -> usize {
        self.messages.values().filter(|(_, arrived)| !arrived).count()
    }

    /// Sends a message. One that is decided on twice is one.
    pub fn send(&mut self, message: Message) {
        self.messages.entry(hash_of(&message)).or_insert((message, false));
    }

    /// What may arrive.
    pub fn messages(&self) -> impl Iterator<Item = (MessageId, &Message, bool)> {
        self.messages.iter().map(|(id, (message, arrived))| (*id, message, *arrived))
    }

    /// A message.
    pub fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(&id).map(|(message, _)| message)
    }

    /// One has arrived: it may come again if `again`.
    pub fn arrived(&mut self, id: MessageId, again: bool) {
        if again {
            self.messages.entry(id).and_modify(|(_, arrived)| *arrived = true);
        } else {
            self.messages.remove(&id);
        }
    }
}
