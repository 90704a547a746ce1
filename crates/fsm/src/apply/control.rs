//! Commands that are not writes.

use std::ops::ControlFlow;

use drover_guards::{self as guards, Guard};
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{Interval, ShardId};
use drover_mvcc::RecordKind;
use drover_rafttypes::ControlReply;

use super::Prepared;
use crate::ApplyError;
use crate::codec::command::{Command, Grant, RecordName, TxnRecordName};
use crate::codec::record::OutcomeRecord;
use crate::codec::txn::{Lock, TxnMarker, TxnRecord};
use crate::state::{GroupState, OracleCeiling, OwnedInterval};

impl Prepared<'_> {
    /// Applies one command of an entry of `term`.
    pub(super) fn control(&mut self, command: &Command, term: u64) -> Result<ControlReply, ApplyError> {
        let state = &mut self.state;
        match command {
            Command::Write(_) | Command::Catalog(_) | Command::Move(_) => {
                unreachable!("these are carried out elsewhere")
            }
            Command::AdvanceJobHorizon(job) => Ok(match state.moves.advance_horizon(*job) {
                true => ControlReply::Done,
                false => ControlReply::AlreadyDone,
            }),
            Command::GrantRange(grants) => Ok(grant_range(state, grants)),
            Command::SetCeiling(physical) => Ok(set_ceiling(state, *physical, term)),
            Command::AdvanceSafePoint(to) => self.advance_safe_point(*to),
            Command::AdvanceTxnHorizon(to) => Ok(advance_txn_horizon(state, *to)),
            Command::RemoveTxnRecords(names) => self.remove_txn_records(names),
            Command::AdvanceRecordHorizon(to) => Ok(raise(&mut state.record_horizon, *to)),
            Command::RemoveRecords(names) => self.remove_records(names),
            // The digest itself is taken by the driver, right after the batch that this entry ends.
            Command::TakeDigest { .. } => Ok(ControlReply::Done),
        }
    }

    fn advance_safe_point(&mut self, to: Timestamp) -> Result<ControlReply, ApplyError> {
        let batch = &self.batch;
        advance_safe_point(&mut self.state, to, |shard, interval| {
            let mut oldest = Ok(to);
            batch.scan_locks(shard, interval, &mut |_, lock| match (Lock::decode(lock), &oldest) {
                (Ok(lock), Ok(so_far)) => {
                    oldest = Ok(lock.start_ts.min(*so_far));
                    ControlFlow::Continue(())
                }
                (Err(error), _) => {
                    oldest = Err(error);
                    ControlFlow::Break(())
                }
                (Ok(_), Err(_)) => ControlFlow::Break(()),
            })?;
            oldest
        })
    }

    /// The shard and the horizon of the owned interval in which a record may be removed; none if its range moves away.
    fn home_of(&self, route_key: &bytes::Bytes) -> Option<(ShardId, Timestamp)> {
        let point = Interval::point(route_key.clone());
        if self.state.moves.is_pinned(&point) && guards::on(Guard::MovingIsPinned) {
            return None;
        }
        let owned = self.state.owner_of(&point)?;
        Some((owned[0].shard, owned[0].txn_horizon))
    }

    /// Removes those of `names` that belong to transactions below the horizon, of which nothing is left to be done.
    fn remove_txn_records(&mut self, names: &[TxnRecordName]) -> Result<ControlReply, ApplyError> {
        let mut reply = ControlReply::AlreadyDone;
        for TxnRecordName { route_key, id, marker } in names {
            let Some((shard, horizon)) = self.home_of(route_key) else { continue };
            let kind = if *marker { RecordKind::TxnMarker } else { RecordKind::TxnOutcome };
            let Some(bytes) = self.batch.record(shard, route_key, kind, &id.0)? else { continue };
            let may_go = match kind {
                RecordKind::TxnMarker => TxnMarker::decode(bytes)?.start_ts <= horizon,
                _ => {
                    let record = TxnRecord::decode(bytes)?;
                    record.start_ts <= horizon && record.is_settled()
                }
            };
            if may_go || !guards::on(Guard::TxnRecordsKept) {
                self.batch.delete_record(shard, route_key, kind, &id.0)?;
                reply = ControlReply::Done;
            }
        }
        Ok(reply)
    }

    /// Removes those of `names` that nobody may ask for any more.
    fn remove_records(&mut self, names: &[RecordName]) -> Result<ControlReply, ApplyError> {
        let mut reply = ControlReply::AlreadyDone;
        for RecordName { route_key, idempotency_key } in names {
            let Some((shard, _)) = self.home_of(route_key) else { continue };
            let Some(bytes) = self.batch.record(shard, route_key, RecordKind::Idempotency, idempotency_key)? else {
                continue;
            };
            let may_go = OutcomeRecord::decode(bytes)?.not_after <= self.state.record_horizon;
            if may_go || !guards::on(Guard::RecordsKept) {
                self.batch.delete_record(shard, route_key, RecordKind::Idempotency, idempotency_key)?;
                reply = ControlReply::Done;
            }
        }
        Ok(reply)
    }
}

/// Raises the safe point of every owned interval towards `to`: each no further than to the oldest snapshot that a transaction
/// with a lock there reads, which `oldest_lock` tells (`to` if there is none), and not of a range that moves away.
///
/// # Errors
/// Those of `oldest_lock`.
pub fn advance_safe_point<E>(
    state: &mut GroupState,
    to: Timestamp,
    mut oldest_lock: impl FnMut(ShardId, &Interval) -> Result<Timestamp, E>,
) -> Result<ControlReply, E> {
    let mut reply = ControlReply::AlreadyDone;
    let moves = &state.moves;
    for owned in &mut state.owned {
        if moves.is_pinned(&owned.interval) && guards::on(Guard::MovingIsPinned) {
            continue;
        }
        let oldest = match state.locks > 0 && guards::on(Guard::SafePointBehindLocks) {
            true => oldest_lock(owned.shard, &owned.interval)?,
            false => to,
        };
        if raise(&mut owned.safe_point, oldest) == ControlReply::Done {
            reply = ControlReply::Done;
        }
    }
    state.mend();
    Ok(reply)
}

/// The bootstrap flag, not the emptiness of `owned`, keeps a grant from being applied twice: a group may have given
/// away everything since.
fn grant_range(state: &mut GroupState, grants: &[Grant]) -> ControlReply {
    if state.bootstrapped && guards::on(Guard::GrantOnce) {
        return ControlReply::AlreadyDone;
    }
    let mut owned: Vec<OwnedInterval> = grants.iter().map(granted).collect();
    owned.sort_by(|a, b| a.interval.start().cmp(b.interval.start()));
    let next = GroupState { bootstrapped: true, owned, ..state.clone() };
    match next.validate() {
        Ok(()) => {
            *state = next;
            ControlReply::Done
        }
        Err(error) => ControlReply::Refused(format!("the grant is invalid: {error}; nothing was changed")),
    }
}

fn granted(grant: &Grant) -> OwnedInterval {
    OwnedInterval {
        interval: grant.interval.clone(),
        route: grant.route,
        shard: grant.shard,
        acquired_version: grant.acquired_version,
        floor_ts: Timestamp::ZERO,
        history_start: Timestamp::ZERO,
        safe_point: Timestamp::ZERO,
        txn_horizon: Timestamp::ZERO,
    }
}

/// A ceiling that does not rise leaves the old one and its term, so it licenses nobody: a new leader has to raise it.
fn set_ceiling(state: &mut GroupState, physical: PhysicalMs, term: u64) -> ControlReply {
    if physical <= state.oracle_ceiling.physical && guards::on(Guard::CeilingRises) {
        return ControlReply::AlreadyDone;
    }
    state.oracle_ceiling = OracleCeiling { physical, term };
    ControlReply::Done
}

fn advance_txn_horizon(state: &mut GroupState, to: Timestamp) -> ControlReply {
    let replies = state.owned.iter_mut().map(|owned| raise(&mut owned.txn_horizon, to));
    replies.fold(ControlReply::AlreadyDone, |all, one| if one == ControlReply::Done { one } else { all })
}

fn raise(mark: &mut Timestamp, to: Timestamp) -> ControlReply {
    if to <= *mark && guards::on(Guard::MarksRise) {
        return ControlReply::AlreadyDone;
    }
    *mark = to;
    ControlReply::Done
}

#[cfg(test)]
mod tests {
    use drover_keys::{CatalogVersion, RouteId, ShardId};

    use super::*;
    use crate::state::tests::{interval, owned, state, ts};

    fn grant(start: &str, end: &str, version: u64) -> Grant {
        Grant {
            interval: interval(start, end),
            route: RouteId(1),
            shard: ShardId(1),
            acquired_version: CatalogVersion(version),
        }
    }

    #[test]
    fn a_grant_is_applied_once_even_if_everything_was_given_away() {
        let mut group = GroupState::default();
        assert_eq!(grant_range(&mut group, &[grant("m", "", 1), grant("a", "m", 1)]), ControlReply::Done);
        assert_eq!(group, state(vec![owned("a", "m", 1), owned("m", "", 1)]));
        group.owned.clear();
        assert_eq!(grant_range(&mut group, &[grant("a", "", 2)]), ControlReply::AlreadyDone);
        assert_eq!(group, state(vec![]));
    }

    #[test]
    fn an_invalid_grant_changes_nothing_and_may_be_corrected() {
        for bad in [vec![grant("a", "d", 1), grant("c", "e", 1)], vec![grant("a", "b", 0)]] {
            let mut group = GroupState::default();
            assert!(matches!(grant_range(&mut group, &bad), ControlReply::Refused(_)));
            assert_eq!(group, GroupState::default());
            assert_eq!(grant_range(&mut group, &[grant("a", "b", 1)]), ControlReply::Done);
        }
    }

    #[test]
    fn a_ceiling_only_rises_and_keeps_the_term_that_raised_it() {
        let ms = |n| PhysicalMs::new(n).unwrap();
        let mut group = GroupState::default();
        let table = [
            (5, 1, ControlReply::Done, (5, 1)),
            (5, 2, ControlReply::AlreadyDone, (5, 1)),
            (4, 2, ControlReply::AlreadyDone, (5, 1)),
            (6, 2, ControlReply::Done, (6, 2)),
        ];
        for (to, term, reply, (physical, by)) in table {
            assert_eq!(set_ceiling(&mut group, ms(to), term), reply);
            assert_eq!(group.oracle_ceiling, OracleCeiling { physical: ms(physical), term: by });
        }
    }

    #[test]
    fn horizons_only_rise_each_for_itself() {
        let ahead = OwnedInterval { txn_horizon: ts(9), ..owned("b", "c", 1) };
        let mut group = state(vec![owned("a", "b", 1), ahead]);
        let points = |group: &GroupState| group.owned.iter().map(|o| o.txn_horizon.raw()).collect::<Vec<_>>();
        assert_eq!(advance_txn_horizon(&mut group, ts(5)), ControlReply::Done);
        assert_eq!(points(&group), [5, 9]);
        assert_eq!(advance_txn_horizon(&mut group, ts(4)), ControlReply::AlreadyDone);
        assert_eq!(points(&group), [5, 9]);
    }
}
