//! Writes of single keys, and deletes of ranges.

use std::time::Instant;

use bytes::Bytes;
use drover_catalog::Route;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::{Error, Idempotency, Outcome, Reason, Update, WriteKind, WriteOp};
use drover_wire::{GroupAnswer, GroupOp};

use crate::answer::Answer;
use crate::coordinator::{Coordinator, misfit};
use crate::cursor::{Cursor, request_hash};
use crate::retry::Repeat;
use crate::scan::remaining;

impl Coordinator {
    pub(crate) async fn write(
        &self,
        kind: WriteKind,
        idempotency: Option<Idempotency>,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        self.limits().check_write(&kind)?;
        self.check_ttl(&kind)?;
        let repeat = if idempotency.is_some() { Repeat::Recognised } else { Repeat::Never };
        self.routed_write(kind, idempotency, repeat, deadline).await
    }

    /// Runs a write that was checked.
    pub(crate) async fn routed_write(
        &self,
        kind: WriteKind,
        idempotency: Option<Idempotency>,
        repeat: Repeat,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        let key = kind.record_key().clone();
        let operation = |version, route: &Route| {
            let (kind, idempotency) = (within_route(&kind, route), idempotency.clone());
            GroupOp::Write(WriteOp { kind, observed_version: Some(version), idempotency })
        };
        match self.routed(&key, repeat, deadline, operation).await? {
            GroupAnswer::Written(outcome) => {
                if let Outcome::Written { commit_ts } | Outcome::RangeDeleted { commit_ts, .. } = &outcome {
                    self.note_issued(*commit_ts);
                }
                Ok(outcome)
            }
            other => Err(misfit(&other)),
        }
    }

    fn check_ttl(&self, kind: &WriteKind) -> Result<(), Error> {
        match kind {
            WriteKind::Put { ttl_ms, .. } => self.check_ttl_ms(*ttl_ms),
            WriteKind::CompareAndSet { update, .. } => self.check_update(update),
            WriteKind::Delete { .. } | WriteKind::DeleteRange { .. } | WriteKind::Settle { .. } | WriteKind::Txn(_) => {
                Ok(())
            }
        }
    }

    pub(crate) fn check_update(&self, update: &Update) -> Result<(), Error> {
        match update {
            Update::Put { ttl_ms, .. } => self.check_ttl_ms(*ttl_ms),
            Update::Delete => Ok(()),
        }
    }

    fn check_ttl_ms(&self, ttl_ms: Option<u64>) -> Result<(), Error> {
        match ttl_ms {
            Some(ms) if ms > self.options().max_ttl_ms => {
                let limit = self.options().max_ttl_ms;
                let message =
                    format!("a time to live of {ms} ms is above the limit of {limit} ms; nothing was changed");
                Err(Error::definite(Reason::InvalidArgument, message))
            }
            _ => Ok(()),
        }
    }

    /// One batch of a range delete.
    pub(crate) async fn delete_range(
        &self,
        interval: &Interval,
        cursor: Option<Bytes>,
        idempotency: Option<Idempotency>,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        self.limits().check_interval(interval)?;
        let hash = request_hash(interval, &[]);
        let start = cursor.map(|token| Cursor::decode(&token, hash)).transpose()?.map(|cursor| cursor.next);
        let Some(rest) = remaining(interval, start, false)? else {
            return Ok(Answer::RangeDeleted { deleted: 0, cursor: None, commit_ts: Timestamp::ZERO });
        };
        let kind = WriteKind::DeleteRange { interval: rest, resume: None };
        match self.write(kind, idempotency, deadline).await? {
            Outcome::RangeDeleted { commit_ts, deleted, resume } => {
                let cursor = resume.map(|next| Cursor { request: hash, read_ts: Timestamp::ZERO, next }.encode());
                Ok(Answer::RangeDeleted { deleted, cursor, commit_ts })
            }
            other => Err(misfit(&other)),
        }
    }
}

/// What of a write concerns one route. A range delete says where it goes on in its recorded outcome, so that a retry that
/// was routed by another map is not taken for more, or less, than what was done.
fn within_route(kind: &WriteKind, route: &Route) -> WriteKind {
    match kind {
        WriteKind::DeleteRange { interval, resume } => match route.interval.intersection(interval) {
            Some(part) if part.end() != interval.end() => {
                WriteKind::DeleteRange { resume: part.end().as_key().cloned(), interval: part }
            }
            Some(_) | None => WriteKind::DeleteRange { interval: interval.clone(), resume: resume.clone() },
        },
        WriteKind::Put { .. }
        | WriteKind::Delete { .. }
        | WriteKind::CompareAndSet { .. }
        | WriteKind::Settle { .. }
        | WriteKind::Txn(_) => kind.clone(),
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::{End, GroupId};

    use super::*;

    fn interval(start: &'static str, end: Option<&'static str>) -> Interval {
        Interval::new(start, end.map_or(End::Unbounded, |end| End::Key(end.into()))).unwrap()
    }

    #[test]
    fn a_range_delete_stops_at_the_end_of_its_route_and_says_where_it_goes_on() {
        let delete = |interval, resume| WriteKind::DeleteRange { interval, resume };
        let route = |interval| Route {
            id: drover_keys::RouteId(1),
            interval,
            group: GroupId(2),
            shard: drover_keys::ShardId(1),
            state: drover_catalog::RouteState::Active,
        };
        let whole = delete(interval("b", Some("y")), None);
        let table = [
            (interval("a", Some("m")), delete(interval("b", Some("m")), Some("m".into()))),
            (interval("a", Some("y")), delete(interval("b", Some("y")), None)),
            (interval("b", None), delete(interval("b", Some("y")), None)),
        ];
        for (covered, expect) in table {
            assert_eq!(within_route(&whole, &route(covered)), expect);
        }
        let unbounded = within_route(&delete(interval("b", None), None), &route(interval("a", Some("m"))));
        assert_eq!(unbounded, delete(interval("b", Some("m")), Some("m".into())));
    }
}
