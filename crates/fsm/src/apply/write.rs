//! Writes: the gates in their order, then the effect.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_keys::{Interval, LogicalKey, ShardId};
use drover_kv::{Expectation, Idempotency, LockInfo, OpResult, Outcome, Refusal, Update, WriteKind, WriteOp};
use drover_mvcc::{Batch, RecordKind, StoreError, Stored};

use super::{Prepared, txn};
use crate::ApplyError;
use crate::codec::command::TimedWrite;
use crate::codec::record::OutcomeRecord;
use crate::codec::txn::Lock;
use crate::fingerprint::fingerprint;
use crate::gate::fence::{self, Class};
use crate::gate::idempotency::{Attempt, Verdict};
use crate::gate::{composed, conditions, floor, idempotency, owner};
use crate::state::{GroupState, OwnedInterval};

/// Why an operation ends before it has an effect.
pub(super) enum Stop {
    /// This is the answer.
    Answer(OpResult),
    /// The replica stops.
    Fatal(ApplyError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Answer(Err(refusal))
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::Fatal(error.into())
    }
}

impl From<ApplyError> for Stop {
    fn from(error: ApplyError) -> Self {
        Stop::Fatal(error)
    }
}

/// What an operation with an outcome leaves in the group's state.
#[derive(Default)]
pub(super) struct Marks {
    /// The highest commit timestamp that it wrote a version at.
    pub wrote: Option<Timestamp>,
    /// The commit timestamp at which its effect depended on what it read.
    pub read: Option<Timestamp>,
    /// How many more locks there are.
    pub locks: i64,
}

impl Prepared<'_> {
    /// Applies one write.
    pub(super) fn write(&mut self, write: &TimedWrite) -> Result<OpResult, ApplyError> {
        let judged = match &write.op.kind {
            WriteKind::Txn(step) => {
                txn::run(&mut self.batch, &self.state, step, write.op.observed_version, write.commit_ts)
            }
            _ => run(&mut self.batch, &self.state, write),
        };
        match judged {
            Ok((outcome, marks)) => {
                let state = &mut self.state;
                if guards::on(Guard::MaxCommitTs) {
                    state.max_commit_ts = state.max_commit_ts.max(marks.wrote.unwrap_or_default());
                }
                state.read_floor = state.read_floor.max(marks.read.unwrap_or_default());
                state.locks = state.locks.saturating_add_signed(marks.locks);
                Ok(Ok(outcome))
            }
            Err(Stop::Answer(result)) => Ok(result),
            Err(Stop::Fatal(error)) => Err(error),
        }
    }
}

/// The gates in their order: owner, idempotency, composed; then, by kind, floor and conditions; then the effect.
fn run(batch: &mut Batch<'_>, state: &GroupState, write: &TimedWrite) -> Result<(Outcome, Marks), Stop> {
    let WriteOp { kind, observed_version, idempotency } = &write.op;
    let commit_ts = write.commit_ts;
    let footprint = kind.footprint();
    let first_key = (!guards::on(Guard::WholeFootprint)).then(|| Interval::point(kind.record_key().clone()));
    let judged = first_key.as_ref().unwrap_or(&footprint);

    let owned = owner::judge(state, judged)?;
    let recorder = idempotency.as_ref().map(|idempotency| Recorder::new(&owned[0], kind, idempotency));
    if !guards::on(Guard::AnswersBeforeRouting) {
        composed::judge(owned, *observed_version)?;
    }
    if let Some(recorder) = recorder.as_ref().filter(|_| guards::on(Guard::IdempotencyGate)) {
        recorder.judge(batch, state, commit_ts)?;
    }
    composed::judge(owned, *observed_version)?;
    fence::judge(state, judged, Class::New)?;

    let point = Point { state, owned, commit_ts };
    let (outcome, marks) = match kind {
        WriteKind::Put { key, value, ttl_ms } => point.put(batch, key, put(value, *ttl_ms, commit_ts))?,
        WriteKind::Delete { key } => point.put(batch, key, Stored::Tombstone)?,
        WriteKind::CompareAndSet { key, expect, update } => {
            point.compare_and_set(batch, key, expect, &stored(update, commit_ts))?
        }
        WriteKind::DeleteRange { resume, .. } => delete_range(batch, state, owned, &footprint, commit_ts, resume)?,
        WriteKind::Settle { .. } => (Outcome::Settled, Marks::default()),
        WriteKind::Txn(_) => unreachable!("steps of transactions have gates of their own"),
    };
    if let Some(recorder) = recorder.filter(|_| outcome != Outcome::Settled || guards::on(Guard::SettlePoisons)) {
        recorder.record(batch, &outcome)?;
    }
    Ok((outcome, marks))
}

/// When a value written at `commit_ts` expires: at the end of the millisecond in which its time to live runs out, so
/// that it lives at least that long, and always above `commit_ts`.
fn expiry(commit_ts: Timestamp, ttl_ms: u64) -> Timestamp {
    let end = Timestamp::new(commit_ts.physical().saturating_add_ms(ttl_ms), u16::MAX);
    end.max(commit_ts.next().unwrap_or(Timestamp::MAX))
}

/// The version that an update committed at `commit_ts` leaves.
pub(super) fn stored(update: &Update, commit_ts: Timestamp) -> Stored {
    match update {
        Update::Put { value, ttl_ms } => put(value, *ttl_ms, commit_ts),
        Update::Delete => Stored::Tombstone,
    }
}

fn put(value: &Bytes, ttl_ms: Option<u64>, commit_ts: Timestamp) -> Stored {
    Stored::Put { value: value.clone(), expire_at: ttl_ms.map(|ttl_ms| expiry(commit_ts, ttl_ms)) }
}

/// A write to a single key that this group owns.
struct Point<'a> {
    state: &'a GroupState,
    owned: &'a [OwnedInterval],
    commit_ts: Timestamp,
}

impl Point<'_> {
    /// Writes a version whatever is there. Reads nothing unless the timestamp or a lock could be in the way.
    fn put(&self, batch: &mut Batch<'_>, key: &Bytes, version: Stored) -> Result<(Outcome, Marks), Stop> {
        let (shard, logical) = (self.owned[0].shard, LogicalKey::plain(key.clone()));
        let newest = match floor::needs_newest(self.state, self.commit_ts) {
            true => batch.newest(shard, &logical)?.map(|(at, _)| at),
            false => None,
        };
        floor::judge(self.state, self.owned, newest, self.commit_ts)?;
        conditions::unlocked(self.lock(batch, shard, &logical)?)?;
        batch.put_version(shard, &logical, self.commit_ts, &version)?;
        Ok((Outcome::Written { commit_ts: self.commit_ts }, self.marks(true, false)))
    }

    /// Writes a version if the live value is as expected.
    fn compare_and_set(
        &self,
        batch: &mut Batch<'_>,
        key: &Bytes,
        expect: &Expectation,
        update: &Stored,
    ) -> Result<(Outcome, Marks), Stop> {
        let (shard, logical) = (self.owned[0].shard, LogicalKey::plain(key.clone()));
        let newest = batch.newest(shard, &logical)?;
        floor::judge(self.state, self.owned, newest.as_ref().map(|(at, _)| *at), self.commit_ts)?;
        conditions::unlocked(self.lock(batch, shard, &logical)?)?;
        // Past the floor gate the newest version is the one that a read at the commit timestamp sees.
        let current = conditions::live(newest, self.commit_ts);
        if !conditions::holds(expect, current.as_ref()) && guards::on(Guard::CompareGate) {
            let read = guards::on(Guard::FailedCompareIsRead);
            return Ok((Outcome::CompareFailed { current }, self.marks(false, read)));
        }
        batch.put_version(shard, &logical, self.commit_ts, update)?;
        Ok((Outcome::Written { commit_ts: self.commit_ts }, self.marks(true, true)))
    }

    fn marks(&self, wrote: bool, read: bool) -> Marks {
        Marks { wrote: wrote.then_some(self.commit_ts), read: read.then_some(self.commit_ts), locks: 0 }
    }

    fn lock(&self, batch: &Batch<'_>, shard: ShardId, key: &LogicalKey) -> Result<Option<LockInfo>, Stop> {
        if self.state.locks == 0 {
            return Ok(None);
        }
        let lock = batch.lock(shard, key)?.map(Lock::decode).transpose()?;
        Ok(lock.map(|lock| lock.info(key.route_key.clone())))
    }
}

/// Deletes every live key of `footprint`. It counts as a read as well: a write that came below it later would be a key
/// that the delete should have met.
fn delete_range(
    batch: &mut Batch<'_>,
    state: &GroupState,
    owned: &[OwnedInterval],
    footprint: &Interval,
    commit_ts: Timestamp,
    resume: &Option<Bytes>,
) -> Result<(Outcome, Marks), Stop> {
    let mut newest = None;
    let mut locked = None;
    let mut doomed: Vec<(ShardId, Bytes)> = Vec::new();
    for owned in owned {
        let part = footprint.intersection(&owned.interval).expect("the owner gate returns what overlaps the footprint");
        batch.scan_visible(owned.shard, &part, Timestamp::MAX, &mut |key, at, version| {
            newest = newest.max(Some(at));
            if conditions::live(Some((at, version)), commit_ts).is_some() {
                doomed.push((owned.shard, key));
            }
            ControlFlow::Continue(())
        })?;
        if state.locks > 0 && locked.is_none() {
            batch.scan_locks(owned.shard, &part, &mut |key, lock| {
                locked = Some((key, lock));
                ControlFlow::Break(())
            })?;
        }
    }
    floor::judge(state, owned, newest, commit_ts)?;
    let locked = locked.map(|(key, lock)| Ok::<_, ApplyError>(Lock::decode(lock)?.info(key))).transpose()?;
    conditions::unlocked(locked)?;
    let deleted = doomed.len() as u64;
    for (shard, key) in doomed {
        batch.put_version(shard, &LogicalKey::plain(key), commit_ts, &Stored::Tombstone)?;
    }
    let outcome = Outcome::RangeDeleted { commit_ts, deleted, resume: resume.clone() };
    let wrote = (deleted > 0).then_some(commit_ts);
    Ok((outcome, Marks { wrote, read: Some(commit_ts), locks: 0 }))
}

/// Looks up and writes the record of an operation that carries an idempotency key.
struct Recorder<'a> {
    shard: ShardId,
    kind: &'a WriteKind,
    idempotency: &'a Idempotency,
    fingerprint: u64,
}

impl<'a> Recorder<'a> {
    /// `home` is the owned interval that holds the operation's record key.
    fn new(home: &OwnedInterval, kind: &'a WriteKind, idempotency: &'a Idempotency) -> Self {
        let fingerprint = match kind {
            WriteKind::Settle { .. } => 0,
            _ => fingerprint(kind, idempotency),
        };
        Self { shard: home.shard, kind, idempotency, fingerprint }
    }

    fn judge(&self, batch: &Batch<'_>, state: &GroupState, commit_ts: Timestamp) -> Result<(), Stop> {
        let (route_key, name) = (self.kind.record_key(), &self.idempotency.key);
        let recorded = batch.record(self.shard, route_key, RecordKind::Idempotency, name)?;
        let recorded = recorded.map(OutcomeRecord::decode).transpose()?;
        let attempt = match self.kind {
            WriteKind::Settle { .. } => Attempt::Settle,
            _ => Attempt::Write { fingerprint: self.fingerprint, commit_ts },
        };
        match idempotency::judge(attempt, self.idempotency, recorded.as_ref(), state.record_horizon) {
            Verdict::Proceed => Ok(()),
            Verdict::Answer(answer) => Err(Stop::Answer(answer)),
        }
    }

    fn record(self, batch: &mut Batch<'_>, outcome: &Outcome) -> Result<(), StoreError> {
        let record = OutcomeRecord {
            fingerprint: self.fingerprint,
            not_after: self.idempotency.not_after,
            outcome: outcome.clone(),
        };
        let route_key = self.kind.record_key();
        batch.put_record(self.shard, route_key, RecordKind::Idempotency, &self.idempotency.key, record.encode())
    }
}

#[cfg(test)]
mod tests {
    use drover_hlc::PhysicalMs;

    use super::*;

    #[test]
    fn a_value_lives_at_least_its_time_and_always_past_its_commit() {
        let at = |ms, logical| Timestamp::new(PhysicalMs::new(ms).unwrap(), logical);
        let table = [
            (at(10, 3), 5, at(15, u16::MAX)),
            (at(10, 3), 0, at(10, u16::MAX)),
            (at(10, u16::MAX), 0, at(11, 0)),
            (at(10, 3), u64::MAX, Timestamp::MAX),
            (Timestamp::MAX, 0, Timestamp::MAX),
        ];
        for (commit_ts, ttl_ms, expect) in table {
            assert_eq!(expiry(commit_ts, ttl_ms), expect, "{commit_ts} + {ttl_ms} ms");
        }
    }
}
