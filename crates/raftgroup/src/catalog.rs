//! What a leader does for the catalog: commands of the default group, and facts about ranges.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use drover_fsm::{Command, MoveCrash, catalog_rows, decode_catalog_command, encode_catalog_reply};
use drover_guards::Moment;
use drover_keys::Interval;
use drover_kv::{Error, Reason};
use drover_rafttypes::ControlReply;
use drover_wire::{CatalogPart, OwnershipFacts, RangeFacts, catalog_refusal_to_error};

use crate::group::Group;

impl Group {
    /// Proposes a command of the catalog, an encoded `drover.storage.v1.CatalogCommand`, with the oracle's time, and waits
    /// until it is applied; the encoded reply. A machine's clock could jump far ahead, and the catalog's never goes back.
    ///
    /// # Errors
    /// What the catalog refused, definite; otherwise as for writes.
    pub async fn catalog(&self, command: Bytes, deadline: Instant) -> Result<Bytes, Error> {
        let leadership = self.leadership()?;
        let mut command = decode_catalog_command(command)?;
        command.now = self.timestamps.timestamps(1, deadline).await?.physical();
        let crash = MoveCrash::in_catalog(&command.kind);
        let command = Command::Catalog(Box::new(command)).encode(leadership.term)?;
        crash.at(Moment::Unproposed);
        let reply = self.propose(&leadership, command, deadline).await?;
        crash.at(Moment::Applied);
        answer_of(reply)
    }

    /// What [`Group::catalog`] would answer now, and whether anything would change. Nothing is proposed.
    ///
    /// # Errors
    /// What the catalog would refuse, definite; otherwise as for [`Group::prove_leadership`].
    pub async fn judge_catalog(&self, command: Bytes, deadline: Instant) -> Result<(Bytes, bool), Error> {
        let leadership = self.leadership()?;
        let mut command = decode_catalog_command(command)?;
        command.now = self.timestamps.timestamps(1, deadline).await?.physical();
        self.prove_leadership(&leadership, deadline).await?;
        let catalog = Arc::clone(&self.fsm.catalog().borrow());
        match catalog.judge(&command) {
            Ok((reply, changes)) => Ok((encode_catalog_reply(&reply), changes)),
            Err(refusal) => Err(catalog_refusal_to_error(&refusal)),
        }
    }

    /// Rows of the catalog as of now, at most `limit`, each as it stands in the store.
    ///
    /// # Errors
    /// As for [`Group::prove_leadership`].
    pub async fn read_catalog(
        &self,
        part: CatalogPart,
        limit: u32,
        deadline: Instant,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let leadership = self.leadership()?;
        self.prove_leadership(&leadership, deadline).await?;
        let catalog = Arc::clone(&self.fsm.catalog().borrow());
        Ok(catalog_rows(&catalog, part, usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    /// What the group's log says of these ranges now, and how large they are.
    ///
    /// # Errors
    /// As for [`Group::prove_leadership`].
    pub async fn describe(&self, intervals: &[Interval], deadline: Instant) -> Result<Vec<RangeFacts>, Error> {
        let leadership = self.leadership()?;
        self.prove_leadership(&leadership, deadline).await?;
        let (state, store) = (self.fsm.state(), self.fsm.store());
        let facts = intervals.iter().map(|interval| {
            let mut facts = RangeFacts::default();
            for owned in state.owned.iter().filter(|owned| owned.interval.overlaps(interval)) {
                if let Some(part) = owned.interval.intersection(interval) {
                    facts.approximate_bytes += store.approximate_interval_bytes(owned.shard, &part);
                }
                facts.owned.push(OwnershipFacts {
                    interval: owned.interval.clone(),
                    shard: owned.shard,
                    acquired_version: owned.acquired_version,
                    floor_ts: owned.floor_ts,
                    history_start: owned.history_start,
                    safe_point: owned.safe_point,
                });
            }
            facts
        });
        Ok(facts.collect())
    }
}

/// What a caller is told of what apply made of a command.
fn answer_of(reply: ControlReply) -> Result<Bytes, Error> {
    match reply {
        ControlReply::Catalog(answer) => match *answer {
            Ok(reply) => Ok(encode_catalog_reply(&reply)),
            Err(refusal) => Err(catalog_refusal_to_error(&refusal)),
        },
        // Appended in another term than it was admitted in: another attempt may succeed. It is no verdict of the catalog;
        // a node that registers would take one for good and stop.
        ControlReply::Refused(why) => Err(Error::definite(Reason::NotLeader, why)),
        other => Err(Error::unknown(Reason::Internal, format!("the catalog was answered with {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use drover_catalog::CatalogRefusal;
    use drover_keys::NodeId;

    use super::*;

    #[test]
    fn only_a_refusal_of_the_catalog_is_a_verdict() {
        let verdict = ControlReply::Catalog(Box::new(Err(CatalogRefusal::UnknownNode { node: NodeId(7) })));
        let table = [
            (verdict, Reason::UnknownNode, false, false),
            (ControlReply::Refused("the term is over".to_owned()), Reason::NotLeader, false, true),
            (ControlReply::AlreadyDone, Reason::Internal, true, false),
        ];
        for (reply, reason, unknown, transient) in table {
            let error = answer_of(reply.clone()).unwrap_err();
            assert_eq!(
                (error.reason, error.is_unknown(), error.is_transient()),
                (reason, unknown, transient),
                "{reply:?}"
            );
        }
    }
}
