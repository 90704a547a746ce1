//! Digests of the state at chosen entries, for comparing replicas.

use std::collections::BTreeMap;

use drover_kv::{Error, Reason};
use drover_mvcc::{Digest, DigestScope, MetaKey};
use tokio::sync::watch;

use crate::cell::View;

/// How many results are kept.
const KEPT: usize = 16;

/// What became of a digest; `None` while it is being computed.
type Slot = Option<Result<Digest, String>>;

/// The digests that were taken last, by the index of their entries.
pub struct DigestBoard(watch::Sender<BTreeMap<u64, Slot>>);

impl DigestBoard {
    /// An empty board.
    pub fn new() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }

    /// Announces the digest of the entry at `index`, which is being computed.
    pub fn announce(&self, index: u64) {
        self.0.send_modify(|slots| {
            slots.insert(index, None);
            while slots.len() > KEPT {
                slots.pop_first();
            }
        });
    }

    /// Enters the result of an announced digest, unless it has been pushed out meanwhile.
    pub fn enter(&self, index: u64, result: Result<Digest, String>) {
        self.0.send_modify(|slots| {
            if let Some(slot) = slots.get_mut(&index) {
                *slot = Some(result);
            }
        });
    }

    /// The digest of the entry at `index`, which has been applied.
    ///
    /// # Errors
    /// [`Reason::FailedPrecondition`] if none was taken there or it was pushed out; [`Reason::ReplicaStopped`] if the
    /// store could not be read.
    pub async fn wait(&self, index: u64) -> Result<Digest, Error> {
        let mut slots = self.0.subscribe();
        let ready = slots.wait_for(|slots| !matches!(slots.get(&index), Some(None))).await;
        let ready = ready.map_err(|_| Error::definite(Reason::ShuttingDown, "the replica is closing"))?;
        match ready.get(&index).cloned().flatten() {
            Some(Ok(digest)) => Ok(digest),
            Some(Err(why)) => Err(Error::definite(Reason::ReplicaStopped, format!("the digest failed: {why}"))),
            None => Err(Error::definite(
                Reason::FailedPrecondition,
                format!("no digest of log index {index} is kept; the last {KEPT} are: ask for a new one"),
            )),
        }
    }
}

/// Computes the digest of a view: data, records, locks and control state, without what GC may drop.
pub fn compute(view: &View) -> Result<Digest, String> {
    let scopes: Vec<DigestScope> = view
        .state
        .owned
        .iter()
        .map(|owned| DigestScope { shard: owned.shard, interval: owned.interval.clone(), safe_point: owned.safe_point })
        .collect();
    view.snapshot.digest(&scopes, &[MetaKey::GroupState]).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_digest_is_pushed_out_and_said_to_be_gone() {
        futures::executor::block_on(async {
            let board = DigestBoard::new();
            for index in 1..=KEPT as u64 + 1 {
                board.announce(index);
                board.enter(index, Ok(Digest { hash: u128::from(index), rows: 0 }));
            }
            assert_eq!(board.wait(1).await.unwrap_err().reason, Reason::FailedPrecondition);
            assert_eq!(board.wait(2).await.unwrap().hash, 2);
            board.enter(1, Ok(Digest::default()));
            assert!(board.wait(1).await.is_err(), "a late result does not push itself in again");
        });
    }

    #[test]
    fn a_digest_under_way_is_waited_for() {
        futures::executor::block_on(async {
            let board = DigestBoard::new();
            board.announce(7);
            let (digest, ()) = futures::join!(board.wait(7), async { board.enter(7, Err("disk".into())) });
            assert_eq!(digest.unwrap_err().reason, Reason::ReplicaStopped);
        });
    }
}
