//! The read door: the only way to the data. Gates, locks and rows are judged from one view.

mod maintenance;
mod moving;
mod page;
mod point;
mod scan;
mod txn;
mod validation;

pub use maintenance::{Bounded, ExpiredRecords, ExpiredTxnRecords, UnsettledTxn};
pub use moving::{MoveView, RangeLocks};
pub use page::{PAGE_BYTES, SCAN_BUDGET_BYTES, SCAN_BUDGET_ROWS};
pub use point::{At, ReadOutcome, VERSION_BYTES};
pub use validation::ValidationLimits;

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, Interval, LogicalKey};
use drover_kv::{Error, Reason};

use crate::cell::View;
use crate::codec::txn::Lock;
use crate::error::ReadError;
use crate::gate::{composed, conditions, owner};
use crate::handle::FsmHandle;
use crate::state::{GroupState, OwnedInterval};

/// A read that passed the gates on its whole interval.
struct Admitted<'a> {
    view: &'a View,
    interval: &'a Interval,
    owned: &'a [OwnedInterval],
}

impl<'a> Admitted<'a> {
    /// The gates of a read: owner, composed, and for a snapshot at `at` how far back it may look.
    fn judge(
        view: &'a View,
        interval: &'a Interval,
        observed: Option<CatalogVersion>,
        at: Option<Timestamp>,
    ) -> Result<Self, ReadError> {
        let owned = admit(&view.state, interval, observed, at)?;
        Ok(Self { view, interval, owned })
    }

    /// The owned parts of the interval, ascending.
    fn parts(&self) -> impl DoubleEndedIterator<Item = (&'a OwnedInterval, Interval)> {
        let parts = self.owned.iter().map(|owned| (owned, self.interval.intersection(&owned.interval)));
        parts.map(|(owned, part)| (owned, part.expect("the owner gate returns what overlaps the footprint")))
    }

    /// Refuses if a lock stands on `key` that could become a version which a read at `at` (`None`: latest) sees.
    fn key_unlocked(&self, key: &LogicalKey, at: Option<Timestamp>) -> Result<(), ReadError> {
        if self.view.state.locks > 0
            && let Some(lock) = self.view.snapshot.lock(self.owned[0].shard, key)?
        {
            let lock = Lock::decode(lock)?;
            conditions::unlocked(may_become_visible(&lock, at).then(|| lock.info(key.route_key.clone())))?;
        }
        Ok(())
    }

    /// As [`Admitted::key_unlocked`], for every key of the interval.
    fn interval_unlocked(&self, at: Timestamp) -> Result<(), ReadError> {
        self.each_lock(&mut |key, lock| match may_become_visible(&lock, Some(at)) {
            true => conditions::unlocked(Some(lock.info(key))).map_err(ReadError::from),
            false => Ok(()),
        })
    }

    /// Shows every lock in the interval, in key order, until `judge` refuses.
    fn each_lock(&self, judge: &mut dyn FnMut(Bytes, Lock) -> Result<(), ReadError>) -> Result<(), ReadError> {
        if self.view.state.locks == 0 {
            return Ok(());
        }
        let mut judged = Ok(());
        for (owned, part) in self.parts() {
            self.view.snapshot.scan_locks(owned.shard, &part, &mut |key, lock| {
                judged = Lock::decode(lock).map_err(ReadError::from).and_then(|lock| judge(key, lock));
                if judged.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if judged.is_err() {
                break;
            }
        }
        judged
    }
}

/// The gates of a read of `interval` that was routed by `observed`: owner, composed, and for a snapshot at `at` how far back it
/// may look. The owned intervals that hold it, ascending.
///
/// # Errors
/// [`ReadError`]: the refusal of the first gate that objects; a snapshot that is no longer kept.
pub fn admit<'a>(
    state: &'a GroupState,
    interval: &Interval,
    observed: Option<CatalogVersion>,
    at: Option<Timestamp>,
) -> Result<&'a [OwnedInterval], ReadError> {
    let owned = owner::judge(state, interval)?;
    composed::judge(owned, observed)?;
    if let Some(at) = at.filter(|_| guards::on(Guard::HistoryStart)) {
        let oldest = owned.iter().map(|o| o.history_start.max(o.safe_point)).max().unwrap_or_default();
        not_too_old(at, oldest)?;
    }
    Ok(owned)
}

/// A transaction commits above the snapshot that it reads, so a lock is nothing to a read at or below that.
pub fn may_become_visible(lock: &Lock, at: Option<Timestamp>) -> bool {
    at.is_none_or(|at| lock.start_ts < at)
}

impl FsmHandle {
    fn view(&self) -> View {
        self.shared.cell.view()
    }

    /// Judges a snapshot read at `at` again after it has read: compaction filters do not respect snapshots, and the
    /// safe point may have passed `at` meanwhile. What the group gave up meanwhile may have been collected before that.
    fn still_kept(&self, interval: &Interval, at: Timestamp) -> Result<(), ReadError> {
        let state = self.state();
        if guards::on(Guard::OwnerAfterRead) {
            owner::judge(&state, interval)?;
        }
        match guards::on(Guard::SafePointAfterRead) {
            true => not_too_old(at, safe_point_of(&state, interval)),
            false => Ok(()),
        }
    }
}

/// The highest safe point of what `state` owns of `interval`.
fn safe_point_of(state: &GroupState, interval: &Interval) -> Timestamp {
    let owned = state.owned.iter().filter(|owned| owned.interval.overlaps(interval));
    owned.map(|owned| owned.safe_point).max().unwrap_or_default()
}

fn not_too_old(at: Timestamp, oldest: Timestamp) -> Result<(), ReadError> {
    if at >= oldest {
        return Ok(());
    }
    Err(ReadError::Failed(Error::definite(
        Reason::SnapshotTooOld,
        format!("the snapshot at {at} is no longer kept, the oldest one is {oldest}; read at a younger timestamp"),
    )))
}

#[cfg(test)]
mod tests {
    use drover_keys::{GroupId, JobEpoch, JobId, RouteId, ShardId};
    use drover_kv::{Limits, Refusal, ScanLimits, ScanRequest, WriteKind, WriteOp};
    use drover_rafttypes::{Entry, Payload, decode_log_id};
    use drover_wire::proto::storage::v1 as pb;
    use openraft::storage::RaftStateMachine;

    use super::*;
    use crate::moving::MoveStep;
    use crate::state::tests::{interval, owned, state, ts};
    use crate::{Command, FsmStateMachine, Grant, MoveCommand, TimedWrite};

    #[test]
    fn a_snapshot_at_the_oldest_kept_timestamp_is_served_and_one_below_is_refused() {
        assert_eq!(not_too_old(ts(5), ts(5)), Ok(()));
        let Err(ReadError::Failed(error)) = not_too_old(ts(4), ts(5)) else { panic!("it is too old") };
        assert_eq!(error.reason, Reason::SnapshotTooOld);
    }

    /// A replica that owns everything from "a" on, with two versions of "k", and a read at 15 that has begun and has not looked
    /// yet: an iterator would hold on to the files.
    struct Overtaken {
        machine: FsmStateMachine,
        handle: FsmHandle,
        view: View,
        _dir: tempfile::TempDir,
    }

    impl Overtaken {
        const OBSERVED: Option<CatalogVersion> = Some(CatalogVersion(1));

        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let env = drover_mvcc::StoreEnv::new(drover_mvcc::StoreEnvOptions::default()).unwrap();
            let (machine, handle) = FsmStateMachine::open(env, dir.path(), GroupId(1)).unwrap();
            let (view, interval) = (handle.view(), interval("a", ""));
            let mut this = Self { machine, handle, view, _dir: dir };
            let (route, shard, acquired_version) = (RouteId(1), ShardId(1), CatalogVersion(1));
            this.apply(1, Command::GrantRange(vec![Grant { interval, route, shard, acquired_version }]));
            for (index, commit_ts) in [(2, 10), (3, 20)] {
                let kind = WriteKind::Put { key: "k".into(), value: "v".into(), ttl_ms: None };
                let op = WriteOp { kind, observed_version: Self::OBSERVED, idempotency: None };
                this.apply(index, Command::Write(vec![TimedWrite { op, commit_ts: ts(commit_ts) }]));
            }
            this.view = this.handle.view();
            let kept = this.handle.get(&"k".into(), At::Ts(ts(15)), Self::OBSERVED);
            assert!(matches!(kept, Ok(ReadOutcome::Version(Some(_)))), "{kept:?}");
            this
        }

        fn apply(&mut self, index: u64, command: Command) {
            let log_id = decode_log_id(&pb::LogId { term: 1, index });
            let entry = Entry { log_id, payload: Payload::Normal(command.encode(1).unwrap()) };
            let entries = futures::stream::iter([Ok((entry, None))]);
            futures::executor::block_on(self.machine.apply(entries)).unwrap();
        }

        /// The hazard is real: the row is gone from under the snapshot.
        fn collect(&mut self, index: u64) {
            self.apply(index, Command::AdvanceSafePoint(ts(30)));
            self.handle.store().compact().unwrap();
            let seen = self.view.snapshot.visible(ShardId(1), &LogicalKey::plain("k"), ts(15)).unwrap();
            assert_eq!(seen, None, "nothing was collected");
        }

        /// What becomes of the read, of whatever kind it is.
        fn read(&self) -> [Result<(), ReadError>; 3] {
            let request = ScanRequest {
                interval: interval("a", ""),
                read_ts: ts(15),
                reverse: false,
                keys_only: false,
                count_only: false,
                limits: ScanLimits::default(),
            };
            let Self { handle, view, .. } = self;
            let (observed, limits) = (Self::OBSERVED, Limits::default());
            [
                handle.get_in(view, &"k".into(), At::Ts(ts(15)), observed).map(|_| ()),
                handle.batch_get_in(view, &["k".into()], ts(15), observed, &limits).map(|_| ()),
                handle.scan_in(view, &request, observed).map(|_| ()),
            ]
        }
    }

    #[test]
    fn h38_a_read_that_garbage_collection_overtook_is_refused() {
        let mut overtaken = Overtaken::new();
        overtaken.collect(4);
        for refused in overtaken.read() {
            let Err(ReadError::Failed(error)) = refused else { panic!("it was served: {refused:?}") };
            assert_eq!(error.reason, Reason::SnapshotTooOld);
        }
    }

    /// The state does not say any more up to where was collected what the group has given up.
    #[test]
    fn h19_a_snapshot_read_that_the_release_overtook_is_routed_anew() {
        let mut overtaken = Overtaken::new();
        overtaken.collect(4);
        let steps = [
            MoveStep::ArmMigration { interval: interval("a", ""), target: GroupId(2) },
            MoveStep::ApplyWriteFence,
            MoveStep::ArmReadFence,
            MoveStep::Release { version: CatalogVersion(2) },
        ];
        for (index, step) in (5..).zip(steps) {
            let command = MoveCommand { job: JobId(1), epoch: JobEpoch(1), step };
            overtaken.apply(index, Command::Move(Box::new(command)));
        }
        for refused in overtaken.read() {
            let moved = matches!(refused, Err(ReadError::Refused(Refusal::RouteMoved { hint: Some(_) })));
            assert!(moved, "{refused:?}");
        }
    }

    /// A replica whose state is `state`, with one version of "k" at 10 and a lock on it that counts if the state says so.
    fn published(state: GroupState) -> (tempfile::TempDir, FsmHandle) {
        let dir = tempfile::tempdir().unwrap();
        let env = drover_mvcc::StoreEnv::new(drover_mvcc::StoreEnvOptions::default()).unwrap();
        let (_machine, handle) = FsmStateMachine::open(env, dir.path(), GroupId(1)).unwrap();
        let store = handle.store();
        let mut batch = store.batch();
        let version = drover_mvcc::Stored::Put { value: "v".into(), expire_at: None };
        batch.put_version(ShardId(1), &LogicalKey::plain("k"), ts(10), &version).unwrap();
        let txn = drover_kv::TxnRef { id: drover_kv::TxnId([1; 16]), attempt: drover_kv::Attempt::default() };
        let update = drover_kv::Update::Delete;
        let lock = Lock { txn, primary: "p".into(), start_ts: ts(10), expire_at: ts(99), fingerprint: 0, update };
        batch.put_lock(ShardId(1), &LogicalKey::plain("k"), lock.encode());
        batch.commit().unwrap();
        let current = handle.shared.cell.load();
        handle.shared.cell.replace(crate::cell::Current { state: state.into(), ..current });
        (dir, handle)
    }

    fn every_read(handle: &FsmHandle, at: u64) -> [Result<(), ReadError>; 3] {
        let observed = Some(CatalogVersion(1));
        let request = ScanRequest {
            interval: interval("a", ""),
            read_ts: ts(at),
            reverse: false,
            keys_only: false,
            count_only: false,
            limits: ScanLimits::default(),
        };
        [
            handle.get(&"k".into(), At::Ts(ts(at)), observed).map(|_| ()),
            handle.batch_get(&["k".into()], ts(at), observed, &Limits::default()).map(|_| ()),
            handle.scan(&request, observed).map(|_| ()),
        ]
    }

    #[test]
    fn h36_a_snapshot_from_before_the_history_of_the_range_is_refused() {
        let owned = OwnedInterval { history_start: ts(20), ..owned("a", "", 1) };
        let (_dir, handle) = published(state(vec![owned]));
        for refused in every_read(&handle, 19) {
            let Err(ReadError::Failed(error)) = refused else { panic!("it was served: {refused:?}") };
            assert_eq!(error.reason, Reason::SnapshotTooOld);
        }
        assert_eq!(every_read(&handle, 20), [Ok(()), Ok(()), Ok(())]);
    }

    #[test]
    fn h40_a_lock_blocks_every_read_that_could_see_what_becomes_of_it() {
        let (_dir, handle) = published(GroupState { locks: 1, ..state(vec![owned("a", "", 1)]) });
        let observed = Some(CatalogVersion(1));
        let latest = handle.get(&"k".into(), At::Latest, observed).map(|_| ());
        let newest = handle.latest_commit_ts(&"k".into(), observed).map(|_| ());
        for blocked in every_read(&handle, 11).into_iter().chain([latest, newest]) {
            let Err(ReadError::Refused(Refusal::Locked { lock })) = blocked else { panic!("{blocked:?}") };
            assert_eq!((lock.key.as_ref(), lock.primary.as_ref()), (&b"k"[..], &b"p"[..]));
        }
        // The holder reads at 10: whatever it writes is younger.
        assert_eq!(every_read(&handle, 10), [Ok(()), Ok(()), Ok(())]);
        assert_eq!(handle.get(&"l".into(), At::Latest, observed), Ok(ReadOutcome::Version(None)));
    }

    #[test]
    fn the_highest_safe_point_in_the_interval_decides_afterwards() {
        let high = OwnedInterval { safe_point: ts(9), ..owned("m", "p", 1) };
        let state = state(vec![owned("a", "m", 1), high]);
        let table = [("a", "m", 0), ("a", "m\0", 9), ("n", "", 9), ("p", "", 0)];
        for (start, end, expect) in table {
            assert_eq!(safe_point_of(&state, &interval(start, end)), ts(expect), "[{start}, {end})");
        }
    }
}
