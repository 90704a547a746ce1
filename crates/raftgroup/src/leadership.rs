//! What a replica holds while it leads: the term and the pending writes of that term. Nothing of it outlives the
//! leadership.

use std::sync::Arc;

use drover_kv::{Error, Reason};
use openraft::impls::leader_id_std::LeaderId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pending::PendingRegistry;
use crate::throttle::Throttle;

/// One leadership of this replica.
#[derive(Debug)]
pub struct Leadership {
    /// This replica's term as leader. Entries are stamped with it.
    pub term: u64,
    /// The leader id that proposals are bound to.
    pub leader_id: LeaderId<u64, u64>,
    /// Writes that are on their way.
    pub pending: PendingRegistry,
    /// Ranges whose writers are slowed down.
    pub(crate) throttle: Throttle,
    /// Cancelled when the leadership is over; reads that wait fail then.
    pub over: CancellationToken,
    /// How many hand-overs are under way; nothing is admitted while there is one.
    holds: watch::Sender<u32>,
}

/// While it lives, the leader admits no new entry.
#[derive(Debug)]
pub struct AdmissionHold(watch::Sender<u32>);

impl Drop for AdmissionHold {
    fn drop(&mut self) {
        self.0.send_modify(|holds| *holds -= 1);
    }
}

impl Leadership {
    /// A leadership that begins with nothing pending.
    pub fn begin(leader_id: LeaderId<u64, u64>) -> Arc<Self> {
        Arc::new(Self {
            term: leader_id.term,
            leader_id,
            pending: PendingRegistry::default(),
            throttle: Throttle::default(),
            over: CancellationToken::new(),
            holds: watch::Sender::new(0),
        })
    }

    /// Lets no new entry be admitted until the answer is dropped.
    #[must_use]
    pub fn hold_admission(&self) -> AdmissionHold {
        self.holds.send_modify(|holds| *holds += 1);
        AdmissionHold(self.holds.clone())
    }

    /// Waits until entries may be admitted, or the leadership is over.
    pub async fn admission(&self) {
        if *self.holds.borrow() == 0 {
            return;
        }
        let mut holds = self.holds.subscribe();
        tokio::select! {
            _ = holds.wait_for(|holds| *holds == 0) => {}
            () = self.over.cancelled() => {}
        }
    }

    /// Waits for `work`, or fails when the leadership ends or the deadline passes first.
    ///
    /// # Errors
    /// [`Reason::NotLeader`] or [`Reason::Timeout`], both definite: `work` is a wait and has no effect.
    pub async fn wait<T>(&self, deadline: std::time::Instant, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.over.cancelled() => Err(Error::definite(
                Reason::NotLeader,
                "the leadership of the group ended while the request waited; nothing happened",
            )),
            () = tokio::time::sleep_until(deadline.into()) => Err(Error::definite(
                Reason::Timeout,
                "the deadline passed while the request waited; nothing happened",
            )),
        }
    }
}
