use std::collections::VecDeque;
use std::sync::Arc;

use drover_guards::{self as guards, Guard};
use drover_rafttypes::{LogId, TypeConfig, Vote};
use openraft::storage::IOFlushed;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use crate::error::LogError;
use crate::group_state::GroupCell;
use crate::record::Records;

/// Tells who waits for a write how it ended.
pub type Done = oneshot::Sender<Result<(), LogError>>;

/// One thing a group wants written.
pub enum Work {
    Append {
        records: Records,
        last: Option<LogId>,
        write: u64,
        flushed: IOFlushed<TypeConfig>,
        room: OwnedSemaphorePermit,
    },
    Truncate {
        last: Option<LogId>,
    },
    Purge {
        upto: LogId,
    },
    Vote {
        vote: Vote,
        done: Done,
    },
    Remove {
        done: Done,
    },
}

/// A group's request in the queue.
pub struct Request {
    pub group: Arc<GroupCell>,
    pub work: Work,
}

impl Request {
    fn bytes(&self) -> usize {
        match &self.work {
            Work::Append { records, .. } => records.bytes(),
            _ => 0,
        }
    }

    /// Tells whoever waits that it was not done.
    pub fn fail(self, error: &LogError) {
        match self.work {
            Work::Append { flushed, .. } => flushed.io_completed(Err(error.clone().of_group(self.group.id).into())),
            Work::Vote { done, .. } | Work::Remove { done } => {
                // A caller that went away does not care.
                let _ = done.send(Err(error.clone().of_group(self.group.id)));
            }
            Work::Truncate { .. } | Work::Purge { .. } => {}
        }
    }
}

#[derive(Default)]
struct Inner {
    requests: VecDeque<Request>,
    closed: bool,
}

impl Inner {
    /// The first requests, up to `max_bytes`, at least one. There is one.
    fn take(&mut self, max_bytes: usize) -> Vec<Request> {
        let mut bytes = 0;
        let fits = |request: &Request| {
            bytes += request.bytes();
            bytes <= max_bytes
        };
        let count = self.requests.iter().map(fits).take_while(|fits| *fits).count().max(1);
        self.requests.drain(..count).collect()
    }
}

/// Requests of all groups in the order in which they were made.
#[derive(Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Is told of changes where a task takes the requests, not a thread.
    task: Option<Notify>,
}

impl Queue {
    /// A queue whose requests a task takes, with [`Queue::taken`].
    pub fn of_task() -> Self {
        Self { task: Some(Notify::new()), ..Self::default() }
    }

    /// Adds a request. Returns whether it did: a closed queue drops it.
    pub fn push(&self, request: Request) -> bool {
        let mut inner = self.inner.lock();
        if inner.closed {
            return false;
        }
        match &request.work {
            Work::Vote { .. } if !guards::on(Guard::VotesInOrder) => inner.requests.push_front(request),
            _ => inner.requests.push_back(request),
        }
        if inner.requests.len() == 1 {
            self.notify();
        }
        true
    }

    fn notify(&self) {
        match &self.task {
            Some(task) => task.notify_one(),
            None => {
                self.changed.notify_one();
            }
        }
    }

    /// Waits for requests and takes them up to `max_bytes`, at least one. `None` when it is closed and empty.
    pub fn take(&self, max_bytes: usize) -> Option<Vec<Request>> {
        let mut inner = self.inner.lock();
        while inner.requests.is_empty() {
            if inner.closed {
                return None;
            }
            self.changed.wait(&mut inner);
        }
        Some(inner.take(max_bytes))
    }

    /// As [`Queue::take`], of a queue for a task.
    pub async fn taken(&self, max_bytes: usize) -> Option<Vec<Request>> {
        loop {
            {
                let mut inner = self.inner.lock();
                if !inner.requests.is_empty() {
                    return Some(inner.take(max_bytes));
                }
                if inner.closed {
                    return None;
                }
            }
            self.task.as_ref()?.notified().await;
        }
    }

    /// Takes no more requests. Those that are in it are still given out.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.notify();
    }

    /// Takes no more requests and gives out what is in it.
    pub fn close_and_drain(&self) -> Vec<Request> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        self.notify();
        inner.requests.drain(..).collect()
    }
}
