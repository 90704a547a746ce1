//! A range moves from one group to another: every step, in and out of order, with what is written meanwhile.

#![allow(clippy::unwrap_used)]

mod support;

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_fsm::moving::{Activation, Chunk, ChunkRows, Fence, ImportPhase, MoveStep, MovedRows, apply_step};
use drover_fsm::{Command, GroupState, MoveCommand, RecordName, TxnRecordName};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId, Interval, JobEpoch, JobId, LogicalKey, RouteId, ShardId};
use drover_kv::{OpResult, Outcome, Refusal};
use drover_mvcc::{ExportBudget, RawRow, RowKind, RowSum, Stored, Tracking};
use drover_rafttypes::{ApplyReply, ControlReply};
use proptest::prelude::*;
use support::*;

const JOB: JobId = JobId(5);
const COPY: ShardId = ShardId(90);
const BUDGET: ExportBudget = ExportBudget { bytes: 120, scanned_bytes: 400 };

/// The source owns everything from "a" on; c..f moves to a target that owns nothing.
struct Move {
    source: Replica,
    target: Replica,
    epoch: u64,
    /// Sum of the source's rows as they were when its tracker was armed.
    base: Option<RowSum>,
    _dirs: [tempfile::TempDir; 2],
}

fn moving() -> Interval {
    interval("c", "f")
}

fn is_done(reply: &ControlReply) -> bool {
    matches!(reply, ControlReply::Done | ControlReply::AlreadyDone)
}

impl Move {
    fn new() -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let source = Replica::bootstrapped(dirs[0].path());
        let mut target = Replica::open_group(&env(), &dirs[1].path().join("store"), GroupId(4));
        assert_eq!(target.control(Command::GrantRange(Vec::new())), ControlReply::Done);
        Self { source, target, epoch: 1, base: None, _dirs: dirs }
    }

    fn begun() -> Self {
        let mut this = Self::new();
        this.begin();
        this
    }

    fn begin(&mut self) {
        assert_eq!(self.at_target(self.prepare()), ControlReply::Done);
        assert_eq!(self.at_source(self.arm()), ControlReply::Done);
    }

    fn prepare(&self) -> MoveStep {
        MoveStep::PrepareImport { interval: moving(), shard: COPY, source: GROUP }
    }

    fn arm(&self) -> MoveStep {
        MoveStep::ArmMigration { interval: moving(), target: GroupId(4) }
    }

    fn move_command(&self, step: MoveStep) -> MoveCommand {
        MoveCommand { job: JOB, epoch: JobEpoch(self.epoch), step }
    }

    fn command(&self, step: MoveStep) -> Command {
        Command::Move(Box::new(self.move_command(step)))
    }

    fn at_source(&mut self, step: MoveStep) -> ControlReply {
        self.source.control(self.command(step))
    }

    fn at_target(&mut self, step: MoveStep) -> ControlReply {
        self.target.control(self.command(step))
    }

    fn armed_at(&self) -> u64 {
        self.source.state.moves.source(JOB).unwrap().armed_at
    }

    /// Copies one portion of what is left; false if nothing is left of versions and records.
    fn copy_portion(&mut self) -> bool {
        let import = self.target.state.moves.import(JOB).unwrap();
        let (kind, from) = match (&import.versions, &import.records) {
            (versions, _) if !versions.done => (RowKind::Version, versions.cursor.clone()),
            (_, records) if !records.done => (RowKind::Record, records.cursor.clone()),
            _ => return false,
        };
        let source = self.source.state.moves.source(JOB).unwrap();
        let snapshot = self.source.store.snapshot();
        let portion = snapshot.export(kind, source.shard, &moving(), source.safe_point, &from, BUDGET).unwrap();
        let rows = ChunkRows::Copied { kind, from, to: portion.cursor, done: portion.done, rows: portion.rows };
        let chunk = Chunk { armed_at: self.armed_at(), rows, close: None };
        assert_eq!(self.at_target(MoveStep::ImportChunk(chunk)), ControlReply::Done);
        true
    }

    /// Copies a portion of what was written meanwhile; false if nothing is left.
    fn copy_tracked(&mut self, close: Option<RowSum>) -> bool {
        let from = self.target.state.moves.import(JOB).unwrap().tracked;
        let source = self.source.state.moves.source(JOB).unwrap();
        let portion = self.source.store.snapshot().export_tracked(source.shard, JOB, from, BUDGET).unwrap();
        let rows = ChunkRows::Tracked { from, to: portion.next, rows: portion.rows };
        let close = close.filter(|_| portion.done);
        let chunk = Chunk { armed_at: self.armed_at(), rows, close };
        assert_eq!(self.at_target(MoveStep::ImportChunk(chunk)), ControlReply::Done);
        !portion.done
    }

    /// The source's own scan.
    fn scan(&mut self) {
        let source = self.source.state.moves.source(JOB).unwrap();
        let sum = self.source.store.snapshot().sum(source.shard, &moving(), source.safe_point).unwrap();
        self.base = Some(sum.minus(source.change));
    }

    /// From the fence to the closed import.
    fn finish_copy(&mut self) {
        while self.copy_portion() {}
        if self.base.is_none() {
            self.scan();
        }
        assert!(is_done(&self.at_source(MoveStep::ApplyWriteFence)));
        assert!(is_done(&self.at_source(MoveStep::Seal)));
        let expected = self.base.unwrap().plus(self.source.state.moves.source(JOB).unwrap().change);
        while self.copy_tracked(Some(expected)) {}
    }

    fn activation(&self, floor_ts: u64) -> MoveStep {
        let owned = self.source.state.owner_of(&moving()).unwrap()[0].clone();
        MoveStep::Activate(Activation {
            route: RouteId(7),
            acquired_version: CatalogVersion(8),
            floor_ts: ts(floor_ts),
            history_start: owned.history_start.max(owned.safe_point),
            txn_horizon: owned.txn_horizon,
            record_horizon: self.source.state.record_horizon,
        })
    }

    fn cut_over(&mut self, floor_ts: u64) {
        assert_eq!(self.at_source(MoveStep::ArmReadFence), ControlReply::Done);
        assert_eq!(self.at_target(self.activation(floor_ts)), ControlReply::Done);
        assert_eq!(self.at_source(MoveStep::Release { version: CatalogVersion(8) }), ControlReply::Done);
    }

    fn phase(&self) -> ImportPhase {
        self.target.state.moves.import(JOB).unwrap().phase
    }
}

/// All that stands in a shard, as it would be exported.
fn rows(replica: &Replica, shard: ShardId, interval: &Interval) -> Vec<RawRow> {
    let all = ExportBudget { bytes: usize::MAX, scanned_bytes: usize::MAX };
    let rows = |kind| replica.store.snapshot().export(kind, shard, interval, ts(0), b"", all).unwrap().rows;
    [rows(RowKind::Version), rows(RowKind::Record)].concat()
}

fn locks(replica: &Replica, shard: ShardId) -> usize {
    let mut count = 0;
    let mut visit = |_, _| {
        count += 1;
        ControlFlow::Continue(())
    };
    replica.store.snapshot().scan_locks(shard, &Interval::all(), &mut visit).unwrap();
    count
}

fn newest(replica: &Replica, shard: ShardId, name: &str) -> Option<(Timestamp, Stored)> {
    replica.store.snapshot().newest(shard, &LogicalKey::plain(key(name))).unwrap()
}

fn fenced(result: &OpResult) -> bool {
    matches!(result, Err(Refusal::RouteFenced { .. }))
}

/// A write with the catalog version of the new owner.
fn at_v8(commit_ts: u64, name: &str, value: &str) -> drover_fsm::TimedWrite {
    let mut write = at(commit_ts, put(name, value));
    write.op.observed_version = Some(CatalogVersion(8));
    write
}

#[test]
fn a_range_moves_with_all_its_rows_and_nothing_is_left_behind() {
    let mut this = Move::new();
    for (n, name) in ["b", "c", "d", "e", "f"].iter().enumerate() {
        this.source.write(once(10 + n as u64, put(name, "old"), name, 900)).unwrap();
    }
    this.source.write(at(20, delete("d"))).unwrap();
    this.begin();
    assert_eq!(this.source.state.owned.len(), 4, "what moves is an interval by itself");
    this.source.write(at(30, put("c", "new"))).unwrap();
    this.source.write(at(31, put("b", "beside it"))).unwrap();
    this.finish_copy();
    assert_eq!(this.phase(), ImportPhase::Closed);
    let before = rows(&this.source, ShardId(1), &moving());
    assert_eq!(rows(&this.target, COPY, &Interval::all()), before);
    this.cut_over(40);

    assert_eq!(newest(&this.target, COPY, "c").unwrap().0, ts(30));
    assert_eq!(newest(&this.target, COPY, "d").unwrap().1, Stored::Tombstone);
    assert!(rows(&this.source, ShardId(1), &moving()).is_empty());
    assert_eq!(rows(&this.source, ShardId(1), &interval("a", "m")).len(), 5, "b twice, f, and their records");
    let tracked = this.source.store.snapshot().export_tracked(ShardId(1), JOB, 0, BUDGET).unwrap();
    assert!(tracked.rows.is_empty() && this.source.state.moves.sources.is_empty());
    assert!(this.target.state.moves.imports.is_empty());

    // Who comes late to the former owner is told where to go; the new one goes on above the floor.
    let gone = this.source.write(at(50, put("c", "x"))).unwrap_err();
    assert!(matches!(gone, Refusal::RouteMoved { hint: Some(hint) } if hint.group == GroupId(4)));
    assert_eq!(this.target.write(at_v8(40, "c", "x")), Err(Refusal::TimestampTooLow { floor: ts(40) }));
    this.target.write(at_v8(41, "c", "x")).unwrap();
    let stale = this.target.write(at(42, put("c", "x")));
    assert_eq!(stale, Err(Refusal::StaleRoute { acquired_version: CatalogVersion(8) }));
    // A retry of what was written before the move gets its first answer.
    let mut again = once(60, put("e", "old"), "e", 900);
    again.op.observed_version = Some(CatalogVersion(8));
    assert_eq!(this.target.write(again), Ok(Outcome::Written { commit_ts: ts(13) }));
    this.source.write(at(61, put("b", "as ever"))).unwrap();
}

#[test]
fn what_changes_of_ownership_is_told_once_by_each_group_and_the_sums_agree() {
    let mut this = Move::begun();
    this.source.write(at(10, put("d", "x"))).unwrap();
    this.finish_copy();
    this.source.control(this.command(MoveStep::Seal));
    this.cut_over(40);
    let steps =
        |replica: &Replica| replica.changes.iter().map(|change| (change.step, change.fence)).collect::<Vec<_>>();
    let expect = [
        ("grant-range", ""),
        ("grant-range", ""),
        ("arm-migration", "open"),
        ("apply-write-fence", "sealed"),
        ("arm-read-fence", "read-fenced"),
        ("release-range", ""),
    ];
    assert_eq!(steps(&this.source), expect);
    assert_eq!(steps(&this.target), [("activate-range", "")]);
    let (closed, active) = (&this.source.changes[4], &this.target.changes[0]);
    assert_eq!((&closed.interval, &active.interval), (&moving(), &moving()));
    assert_eq!(
        (closed.version, active.version, closed.armed_at),
        (CatalogVersion(1), CatalogVersion(8), active.armed_at)
    );
    assert_eq!(this.base.unwrap().plus(closed.sum), active.sum);
}

#[test]
fn every_step_may_be_made_twice_and_none_before_its_time() {
    let mut this = Move::new();
    for step in [MoveStep::ApplyWriteFence, MoveStep::Seal, MoveStep::ArmReadFence, MoveStep::Clear] {
        assert!(matches!(this.at_source(step), ControlReply::Refused(why) if why.contains("not been begun")));
    }
    this.begin();
    assert_eq!(this.at_target(this.prepare()), ControlReply::AlreadyDone);
    assert_eq!(this.at_source(this.arm()), ControlReply::AlreadyDone);
    let other = MoveStep::ArmMigration { interval: interval("c", "e"), target: GroupId(4) };
    assert!(matches!(this.at_source(other), ControlReply::Refused(why) if why.contains("another interval")));
    for step in [MoveStep::Seal, MoveStep::ArmReadFence, MoveStep::Release { version: CatalogVersion(2) }] {
        assert!(matches!(this.at_source(step), ControlReply::Refused(_)));
    }
    assert!(matches!(this.at_target(this.activation(9)), ControlReply::Refused(_)));
    this.finish_copy();
    assert_eq!(this.at_source(MoveStep::ApplyWriteFence), ControlReply::AlreadyDone);
    assert_eq!(this.at_source(MoveStep::ArmReadFence), ControlReply::Done);
    assert_eq!(this.at_source(MoveStep::ArmReadFence), ControlReply::AlreadyDone);
}

#[test]
fn what_cannot_move_is_refused() {
    let mut this = Move::begun();
    let arm = |job, start: &str, end: &str| {
        let step = MoveStep::ArmMigration { interval: interval(start, end), target: GroupId(4) };
        Command::Move(Box::new(MoveCommand { job: JobId(job), epoch: JobEpoch(1), step }))
    };
    let prepare = |job, start: &str, end: &str, shard| {
        let step = MoveStep::PrepareImport { interval: interval(start, end), shard: ShardId(shard), source: GROUP };
        Command::Move(Box::new(MoveCommand { job: JobId(job), epoch: JobEpoch(1), step }))
    };
    let refused =
        |reply, text: &str| assert!(matches!(&reply, ControlReply::Refused(why) if why.contains(text)), "{reply:?}");
    refused(this.source.control(arm(6, "e", "g")), "overlaps with that of job 5");
    refused(this.source.control(arm(6, "k", "n")), "does not lie within one interval");
    refused(this.source.control(arm(6, "", "b")), "does not lie within one interval");
    refused(this.target.control(prepare(6, "e", "g", 91)), "overlaps with that of job 5");
    refused(this.target.control(prepare(6, "x", "y", 90)), "shard 90 is in use");
    refused(this.source.control(prepare(6, "a", "b", 91)), "is owned by this group");
    assert_eq!(this.source.control(arm(6, "m", "")), ControlReply::Done, "the whole of an owned interval");
}

#[test]
fn h11_behind_the_fence_nothing_new_is_written() {
    let mut this = Move::begun();
    this.source.write(at(10, put("d", "x"))).unwrap();
    assert_eq!(this.at_source(MoveStep::ApplyWriteFence), ControlReply::Done);
    let source = this.source.state.moves.source(JOB).unwrap();
    assert_eq!((source.fence, source.sealed_at), (Fence::Sealed, source.fenced_at), "nothing was to be drained");
    let kinds = [put("d", "y"), delete("d"), delete_range("a", "d"), settle("d")];
    for (n, kind) in kinds.into_iter().enumerate() {
        assert!(fenced(&this.source.write(once(20 + n as u64, kind, "n", 900))));
    }
    assert!(fenced(&this.source.write(step(30, prepare(txn(1, 1), 9, "d", puts(&[("d", "y")]))))));
    assert!(fenced(&this.source.write(step(31, commit(txn(1, 1), 9, puts(&[("d", "y")]), reads(&[], &[]))))));
    this.source.write(step(32, commit(txn(2, 1), 30, puts(&[("k", "y")]), reads(&["d"], &[])))).unwrap();
    this.source.write(at(33, put("f", "beside it"))).unwrap();
    assert_eq!(this.source.state.moves.source(JOB).unwrap().tracked_rows, 1);
}

/// Counts what is done to rows, and to whole intervals of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Touched {
    rows: usize,
    intervals: usize,
}

impl MovedRows for Touched {
    type Error = std::convert::Infallible;

    fn empty(&mut self, _: ShardId, _: &Interval) {
        self.intervals += 1;
    }

    fn empty_tracker(&mut self, _: ShardId, _: JobId) {
        self.intervals += 1;
    }

    fn import(&mut self, _: ShardId, _: &RawRow, _: bool) -> Result<RowSum, Self::Error> {
        self.rows += 1;
        Ok(RowSum::default())
    }

    fn is_locked(&self, _: ShardId, _: &Interval) -> Result<bool, Self::Error> {
        Ok(false)
    }

    fn set_tracking(&mut self, _: Vec<Tracking>) {}
}

#[test]
fn h7_handing_over_takes_the_same_few_steps_for_one_row_and_for_a_thousand() {
    let hand_over = |rows: u64| {
        let mut this = Move::new();
        for n in 0..rows {
            this.source.write(once(10 + n, put(&format!("d{n}"), "value"), "op", 1 << 40)).unwrap();
        }
        this.begin();
        while this.copy_portion() {}
        this.scan();
        let (mut source, mut target) = (this.source.state.as_ref().clone(), this.target.state.as_ref().clone());
        let (mut log, mut touched) = (Vec::new(), Touched::default());
        let mut take = |state: &mut GroupState, step: MoveStep| {
            let index = 10_000 + log.len() as u64;
            log.push(format!("{step:?}").split([' ', '(']).next().unwrap().to_owned());
            assert!(apply_step(state, &mut touched, index, &this.move_command(step)).unwrap());
        };
        take(&mut source, MoveStep::ApplyWriteFence);
        let job = source.moves.source(JOB).unwrap().clone();
        assert_eq!(job.fence, Fence::Sealed);
        let from = target.moves.import(JOB).unwrap().tracked;
        let rest = this.source.store.snapshot().export_tracked(job.shard, JOB, from, BUDGET).unwrap();
        assert!(rest.done);
        let rows = ChunkRows::Tracked { from, to: rest.next, rows: rest.rows };
        let close = Some(this.base.unwrap().plus(job.change));
        take(&mut target, MoveStep::ImportChunk(Chunk { armed_at: job.armed_at, rows, close }));
        assert_eq!(target.moves.import(JOB).unwrap().phase, ImportPhase::Closed);
        take(&mut source, MoveStep::ArmReadFence);
        take(&mut target, this.activation(1 << 41));
        take(&mut source, MoveStep::Release { version: CatalogVersion(8) });
        assert!(target.owner_of(&moving()).is_some() && source.owner_of(&moving()).is_none());
        (log, touched)
    };
    let one = hand_over(1);
    assert_eq!(one.1, Touched { rows: 0, intervals: 2 }, "the old rows and their list go, each as a whole");
    assert_eq!(one, hand_over(1_000));
}

#[test]
fn h21_a_range_delete_is_judged_by_all_that_it_reaches_into() {
    let mut this = Move::begun();
    this.source.write(at(10, put("d", "x"))).unwrap();
    let mut now = 20;
    let mut delete_from_the_left = |this: &mut Move| {
        now += 1;
        this.source.write(at(now, delete_range("a", "e")))
    };
    delete_from_the_left(&mut this).unwrap();
    assert_eq!(this.source.state.moves.source(JOB).unwrap().tracked_rows, 2, "it is listed: the write, and its end");
    this.finish_copy();
    assert!(fenced(&delete_from_the_left(&mut this)));
    assert_eq!(this.at_source(MoveStep::ArmReadFence), ControlReply::Done);
    assert_eq!(delete_from_the_left(&mut this), Err(Refusal::CutoverPending));
    assert_eq!(this.at_target(this.activation(40)), ControlReply::Done);
    assert_eq!(this.at_source(MoveStep::Release { version: CatalogVersion(8) }), ControlReply::Done);
    assert!(matches!(delete_from_the_left(&mut this), Err(Refusal::RouteMoved { .. })));
}

#[test]
fn h49_what_was_read_is_not_validated_where_reads_are_over() {
    let mut this = Move::begun();
    this.source.write(at(10, put("d", "x"))).unwrap();
    this.finish_copy();
    let mut id = 0;
    // Writes beside the range what depends on a key of it, or on a part.
    let mut read_and_write_beside = |this: &mut Move| {
        [reads(&["d"], &[]), reads(&[], &[("d", "e")])].map(|read| {
            id += 1;
            this.source.write(step(20 + u64::from(id), commit(txn(id, 1), 15, puts(&[("k", "y")]), read)))
        })
    };
    assert!(read_and_write_beside(&mut this).iter().all(|result| result.is_ok()), "nothing is written there any more");
    assert_eq!(this.at_source(MoveStep::ArmReadFence), ControlReply::Done);
    assert_eq!(this.at_target(this.activation(40)), ControlReply::Done);
    this.target.write(at_v8(41, "d", "changed elsewhere")).unwrap();
    for refused in read_and_write_beside(&mut this) {
        assert_eq!(refused, Err(Refusal::CutoverPending));
    }
    assert_eq!(this.at_source(MoveStep::Release { version: CatalogVersion(8) }), ControlReply::Done);
    for refused in read_and_write_beside(&mut this) {
        assert!(matches!(refused, Err(Refusal::RouteMoved { .. })), "{refused:?}");
    }
}

#[test]
fn h12_a_range_is_sealed_when_the_last_prepared_transaction_is_resolved() {
    let mut this = Move::begun();
    this.source.write(step(10, prepare(txn(1, 1), 9, "d", puts(&[("d", "1")])))).unwrap();
    this.source.write(step(11, prepare(txn(2, 1), 9, "a", puts(&[("e", "2")])))).unwrap();
    this.source.write(step(12, prepare(txn(3, 1), 9, "k", puts(&[("k", "3")])))).unwrap();
    assert_eq!(this.at_source(MoveStep::ApplyWriteFence), ControlReply::Done);
    let stands =
        |reply| assert!(matches!(&reply, ControlReply::Refused(why) if why.contains("hold locks")), "{reply:?}");
    stands(this.at_source(MoveStep::Seal));
    assert!(fenced(&this.source.write(at(20, put("c", "x")))));
    // The end of what has prepared passes: a decision here, a secondary whose primary is elsewhere, both below the fence.
    this.source.write(step(21, decide(txn(1, 1), 9, 15, &["d"], &[]))).unwrap();
    stands(this.at_source(MoveStep::Seal));
    this.source.write(step(22, resolve(txn(2, 1), 9, Some(16), &["e"]))).unwrap();
    assert_eq!(this.at_source(MoveStep::Seal), ControlReply::Done);
    assert_eq!(locks(&this.source, ShardId(1)), 1, "the lock beside the range holds nobody up");
    assert!(fenced(&this.source.write(step(23, rollback(txn(9, 1), 9, "d", None)))), "no marker comes behind the seal");
    this.scan();
    this.finish_copy();
    assert_eq!(this.phase(), ImportPhase::Closed);
    this.cut_over(30);
    assert_eq!(newest(&this.target, COPY, "d").unwrap().0, ts(15));
    assert_eq!(newest(&this.target, COPY, "e").unwrap().0, ts(16));
}

#[test]
fn h16_nothing_is_collected_or_removed_while_a_range_is_copied() {
    let mut this = Move::new();
    for (name, ts) in [("b", 10), ("d", 11)] {
        this.source.write(once(ts, put(name, "1"), name, 20)).unwrap();
        this.source.write(step(ts + 2, commit(txn(ts as u8, 1), 9, puts(&[(name, "2")]), reads(&[], &[])))).unwrap();
    }
    this.begin();
    for horizon in
        [Command::AdvanceSafePoint(ts(50)), Command::AdvanceRecordHorizon(ts(50)), Command::AdvanceTxnHorizon(ts(50))]
    {
        assert_eq!(this.source.control(horizon), ControlReply::Done);
    }
    let names = ["b", "d"].map(|name| RecordName { route_key: key(name), idempotency_key: key(name) });
    this.source.control(Command::RemoveRecords(names.into()));
    let outcome = |name: &str, id| TxnRecordName { route_key: key(name), id: txn(id, 1).id, marker: false };
    this.source.control(Command::RemoveTxnRecords(vec![outcome("b", 10), outcome("d", 11)]));
    this.source.store.flush().unwrap();
    this.source.store.compact().unwrap();
    let left = |start, end| rows(&this.source, ShardId(1), &interval(start, end)).len();
    assert_eq!((left("b", "c"), left("c", "f")), (1, 4), "beside it all went that may");
    this.finish_copy();
    this.cut_over(60);
    assert_eq!(rows(&this.target, COPY, &Interval::all()).len(), 4);
    let owned = &this.target.state.owned[0];
    assert_eq!((owned.history_start, owned.safe_point), (ts(0), ts(0)), "its history came along");
}

#[test]
fn h20_what_may_have_been_forgotten_at_the_source_is_not_settled_at_the_target() {
    let mut this = Move::new();
    this.source.write(once(10, put("d", "1"), "op", 20)).unwrap();
    assert_eq!(this.source.control(Command::AdvanceRecordHorizon(ts(50))), ControlReply::Done);
    let name = RecordName { route_key: key("d"), idempotency_key: key("op") };
    assert_eq!(this.source.control(Command::RemoveRecords(vec![name])), ControlReply::Done);
    this.begin();
    this.finish_copy();
    this.cut_over(60);
    let mut ask = once(70, settle("d"), "op", 20);
    ask.op.observed_version = Some(CatalogVersion(8));
    assert_eq!(this.target.write(ask), Err(Refusal::IdempotencyExpired { not_after: ts(20) }));
}

#[test]
fn a_group_that_was_not_given_its_own_yet_takes_nothing_in() {
    let mut this = Move::new();
    let dir = tempfile::tempdir().unwrap();
    this.target = Replica::open_group(&env(), &dir.path().join("store"), GroupId(4));
    assert!(matches!(this.at_target(this.prepare()), ControlReply::Refused(why) if why.contains("from the start")));
    assert_eq!(this.target.control(Command::GrantRange(vec![grant("x", "z", 7)])), ControlReply::Done);
    assert_eq!(this.at_target(this.prepare()), ControlReply::Done);
    drop(this);
}

#[tokio::test]
async fn h26_a_replica_that_knows_an_older_seal_does_not_pass_for_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = Machine::bootstrapped(&env(), &dir.path().join("group")).await;
    let command = |epoch, step| Command::Move(Box::new(MoveCommand { job: JOB, epoch: JobEpoch(epoch), step }));
    machine.command(command(1, MoveStep::ArmMigration { interval: moving(), target: GroupId(4) })).await;
    machine.command(command(1, MoveStep::ApplyWriteFence)).await;
    let lagging = machine.handle.move_view().unwrap();
    machine.command(command(2, MoveStep::Clear)).await;
    machine.write(20, put("d", "acknowledged")).await;
    machine.command(command(2, MoveStep::ApplyWriteFence)).await;
    let current = machine.handle.move_view().unwrap();
    let source = current.state().moves.source(JOB).unwrap();
    let delta =
        |view: &drover_fsm::MoveView| view.export_tracked(JOB, source.armed_at, 0, Some(source.sealed_at), BUDGET);
    assert_eq!(delta(&current).unwrap().rows.len(), 1);
    assert!(delta(&lagging).is_err(), "it would say that nothing is left");
}

#[test]
fn h33_a_copy_that_differs_is_never_activated() {
    let mut this = Move::begun();
    this.source.write(at(10, put("d", "x"))).unwrap();
    while this.copy_portion() {}
    this.scan();
    this.base = this.base.map(|base| base.plus(RowSum { hash: 1, rows: 0 }));
    this.finish_copy();
    assert_eq!(this.phase(), ImportPhase::Differs);
    assert_eq!(this.at_source(MoveStep::ArmReadFence), ControlReply::Done);
    assert!(matches!(this.at_target(this.activation(20)), ControlReply::Refused(_)));
    this.epoch = 2;
    assert_eq!(this.at_target(MoveStep::Clear), ControlReply::AlreadyDone);
    assert!(matches!(this.at_target(this.activation(20)), ControlReply::Refused(_)));
}

#[test]
fn only_a_closed_import_is_activated() {
    let mut this = Move::begun();
    while this.copy_portion() {}
    assert!(matches!(this.at_target(this.activation(20)), ControlReply::Refused(why) if why.contains("is open")));
    this.finish_copy();
    this.epoch = 2;
    assert!(
        matches!(this.at_target(this.activation(20)), ControlReply::Refused(_)),
        "what an older course has closed is not what this one relies on"
    );
    assert!(this.target.state.owned.is_empty());
}

#[test]
fn only_a_range_that_serves_nobody_is_released() {
    let mut this = Move::begun();
    this.source.write(at(10, put("d", "x"))).unwrap();
    this.finish_copy();
    let release = || MoveStep::Release { version: CatalogVersion(8) };
    assert!(matches!(this.at_source(release()), ControlReply::Refused(why) if why.contains("sealed")));
    assert!(newest(&this.source, ShardId(1), "d").is_some());
    assert_eq!(this.at_source(MoveStep::ArmReadFence), ControlReply::Done);
    assert_eq!(this.source.write(at(20, put("d", "y"))), Err(Refusal::CutoverPending));
    assert_eq!(this.at_source(release()), ControlReply::Done);
}

#[test]
fn a_step_that_is_refused_changes_nothing_not_even_the_epoch() {
    let mut this = Move::begun();
    this.source.write(at(10, put("d", "x"))).unwrap();
    let moves = |this: &Move| (this.source.state.moves.clone(), this.target.state.moves.clone());
    let before = moves(&this);
    this.epoch = 2;
    let early = || Chunk {
        armed_at: 10,
        rows: ChunkRows::Tracked { from: 0, to: 5, rows: Vec::new() },
        close: Some(RowSum::default()),
    };
    let other = MoveStep::PrepareImport { interval: interval("c", "e"), shard: COPY, source: GROUP };
    for step in [MoveStep::ImportChunk(early()), this.activation(20), other] {
        assert!(matches!(this.at_target(step.clone()), ControlReply::Refused(_)), "{step:?}");
        assert_eq!(moves(&this), before, "{step:?}");
    }
    let other = MoveStep::ArmMigration { interval: interval("c", "e"), target: GroupId(4) };
    let release = MoveStep::Release { version: CatalogVersion(8) };
    for step in [MoveStep::Seal, MoveStep::ArmReadFence, release, other] {
        assert!(matches!(this.at_source(step.clone()), ControlReply::Refused(_)), "{step:?}");
        assert_eq!(moves(&this), before, "{step:?}");
    }
}

#[test]
fn h26_a_change_of_course_lifts_the_fences_of_older_ones_and_a_late_step_none() {
    let mut this = Move::begun();
    this.finish_copy();
    assert_eq!(this.at_source(MoveStep::Clear), ControlReply::AlreadyDone, "the course that fenced relies on it");
    this.epoch = 2;
    assert_eq!(this.at_source(MoveStep::Clear), ControlReply::Done);
    assert_eq!(this.at_target(MoveStep::Clear), ControlReply::Done);
    this.source.write(at(20, put("d", "between"))).unwrap();
    this.finish_copy();
    this.epoch = 1;
    for late in [MoveStep::Clear, MoveStep::ArmReadFence, MoveStep::Retire] {
        assert!(matches!(this.at_source(late), ControlReply::Refused(why) if why.contains("epoch 2")));
    }
    this.epoch = 2;
    this.cut_over(30);
    assert_eq!(newest(&this.target, COPY, "d").unwrap().0, ts(20));
}

#[test]
fn h35_a_job_that_is_over_refuses_every_step() {
    let mut this = Move::begun();
    this.source.write(at(10, put("d", "x"))).unwrap();
    this.copy_portion();
    assert_eq!(this.at_source(MoveStep::ApplyWriteFence), ControlReply::Done);
    for _ in 0..2 {
        assert!(is_done(&this.at_source(MoveStep::Retire)) && is_done(&this.at_target(MoveStep::Retire)));
    }
    this.source.write(at(20, put("d", "y"))).unwrap();
    assert!(rows(&this.target, COPY, &Interval::all()).is_empty());
    this.epoch = 9;
    let chunk = Chunk { armed_at: 1, rows: ChunkRows::Tracked { from: 0, to: 0, rows: Vec::new() }, close: None };
    for step in [this.arm(), MoveStep::ApplyWriteFence, MoveStep::Seal, MoveStep::ArmReadFence, MoveStep::Clear] {
        assert!(matches!(this.at_source(step), ControlReply::Refused(why) if why.contains("is over")));
    }
    let release = MoveStep::Release { version: CatalogVersion(2) };
    for step in [this.prepare(), MoveStep::ImportChunk(chunk), MoveStep::Clear, this.activation(9), release] {
        assert!(matches!(this.at_target(step), ControlReply::Refused(why) if why.contains("is over")));
    }
    // Also of one that was never begun here.
    let never = |step| Command::Move(Box::new(MoveCommand { job: JobId(8), epoch: JobEpoch(1), step }));
    assert_eq!(this.source.control(never(MoveStep::Retire)), ControlReply::Done);
    assert!(matches!(this.source.control(never(this.arm())), ControlReply::Refused(_)));
    // What was cut for it is whole again when its neighbours are as it is.
    assert_eq!(this.source.control(Command::AdvanceSafePoint(ts(5))), ControlReply::Done);
    assert_eq!(this.source.state.owned.len(), 2);
    // The marks go behind the horizon, and the jobs stay over.
    assert_eq!(this.source.control(Command::AdvanceJobHorizon(JobId(9))), ControlReply::Done);
    assert!(this.source.state.moves.retired.is_empty());
    assert!(matches!(this.at_source(this.arm()), ControlReply::Refused(why) if why.contains("is over")));
}

#[test]
fn h27_a_range_moves_away_and_back_and_late_steps_of_the_first_move_do_nothing() {
    let mut there = Move::begun();
    there.source.write(at(10, put("d", "1"))).unwrap();
    there.finish_copy();
    there.cut_over(20);
    there.target.write(at_v8(30, "d", "2")).unwrap();
    // Back, as another job, into another shard.
    let Move { source: target, target: source, _dirs, .. } = there;
    let back = |step| Command::Move(Box::new(MoveCommand { job: JobId(6), epoch: JobEpoch(1), step }));
    let (mut source, mut target) = (source, target);
    let prepare = |shard| MoveStep::PrepareImport { interval: moving(), shard: ShardId(shard), source: GroupId(4) };
    assert!(matches!(target.control(back(prepare(1))), ControlReply::Refused(why) if why.contains("in use")));
    assert_eq!(target.control(back(prepare(91))), ControlReply::Done);
    assert_eq!(source.control(back(MoveStep::ArmMigration { interval: moving(), target: GROUP })), ControlReply::Done);
    let job = source.state.moves.source(JobId(6)).unwrap().clone();
    let all = ExportBudget { bytes: usize::MAX, scanned_bytes: usize::MAX };
    let snapshot = source.store.snapshot();
    assert_eq!(source.control(back(MoveStep::ApplyWriteFence)), ControlReply::Done);
    let sum = snapshot.sum(COPY, &moving(), job.safe_point).unwrap();
    for (kind, close) in [(RowKind::Version, None), (RowKind::Record, Some(sum))] {
        let portion = snapshot.export(kind, COPY, &moving(), job.safe_point, b"", all).unwrap();
        let rows = ChunkRows::Copied { kind, from: Bytes::new(), to: portion.cursor, done: true, rows: portion.rows };
        let chunk = Chunk { armed_at: job.armed_at, rows, close };
        assert_eq!(target.control(back(MoveStep::ImportChunk(chunk))), ControlReply::Done);
    }
    assert_eq!(source.control(back(MoveStep::ArmReadFence)), ControlReply::Done);
    let activation = Activation {
        route: RouteId(7),
        acquired_version: CatalogVersion(9),
        floor_ts: ts(40),
        history_start: ts(0),
        txn_horizon: ts(0),
        record_horizon: ts(0),
    };
    assert_eq!(target.control(back(MoveStep::Activate(activation))), ControlReply::Done);
    assert_eq!(source.control(back(MoveStep::Release { version: CatalogVersion(9) })), ControlReply::Done);
    assert_eq!(newest(&target, ShardId(91), "d").unwrap().0, ts(30));
    // A late step of the first move meets the mark of its end, and a stale coordinator the version of the new ownership.
    let first = |step| Command::Move(Box::new(MoveCommand { job: JOB, epoch: JobEpoch(1), step }));
    for late in [MoveStep::ArmReadFence, MoveStep::Release { version: CatalogVersion(8) }, MoveStep::ApplyWriteFence] {
        assert!(matches!(target.control(first(late)), ControlReply::Refused(_)));
    }
    let stale = target.write(at_v8(50, "d", "3"));
    assert_eq!(stale, Err(Refusal::StaleRoute { acquired_version: CatalogVersion(9) }));
    assert!(target.state.moves.gone(&moving()).is_none(), "the hint of its leaving is of the past");
    drop(_dirs);
}

/// What happens at the source between two portions.
#[derive(Debug, Clone)]
enum Doing {
    Put(u8),
    PutExpiring(u8),
    Delete(u8),
    DeleteRange(u8, u8),
    Idempotent(u8),
    Commit(u8, u8),
    Prepare(u8),
    Resolve { commits: bool },
}

const NAMES: [&str; 8] = ["a", "b", "c", "cc", "d", "e", "ez", "f"];

fn any_doing() -> impl Strategy<Value = Doing> {
    let name = 0u8..8;
    prop_oneof![
        4 => name.clone().prop_map(Doing::Put),
        1 => name.clone().prop_map(Doing::PutExpiring),
        2 => name.clone().prop_map(Doing::Delete),
        1 => (name.clone(), name.clone()).prop_map(|(a, b)| Doing::DeleteRange(a, b)),
        2 => name.clone().prop_map(Doing::Idempotent),
        2 => (name.clone(), name.clone()).prop_map(|(a, b)| Doing::Commit(a, b)),
        2 => name.prop_map(Doing::Prepare),
        2 => any::<bool>().prop_map(|commits| Doing::Resolve { commits }),
    ]
}

/// Writes to the source as clients would, whatever is answered.
struct Writers {
    now: u64,
    /// Prepared and not resolved: id, start, key.
    prepared: Vec<(u8, u64, &'static str)>,
}

impl Writers {
    fn go(&mut self, replica: &mut Replica, doing: &Doing) {
        self.now += 10;
        let (now, id) = (self.now, (self.now / 10) as u8);
        let name = |n: u8| NAMES[n as usize];
        let write = match doing {
            Doing::Put(n) => at(now, put(name(*n), "v")),
            Doing::PutExpiring(n) => at(now, put_ttl(name(*n), "v", 1)),
            Doing::Delete(n) => at(now, delete(name(*n))),
            Doing::DeleteRange(a, b) if name(*a) < name(*b) => at(now, delete_range(name(*a), name(*b))),
            Doing::DeleteRange(..) => return,
            Doing::Idempotent(n) => once(now, put(name(*n), "i"), &id.to_string(), 1 << 40),
            Doing::Commit(a, b) if a != b => {
                let mutations = puts(&[(name(*a), "t"), (name(*b), "t")]);
                step(now, commit(txn(id, 1), now - 1, mutations, reads(&[], &[])))
            }
            Doing::Commit(..) => return,
            Doing::Prepare(n) => {
                let write = step(now, prepare(txn(id, 1), now - 1, name(*n), puts(&[(name(*n), "p")])));
                if replica.write(write).is_ok() {
                    self.prepared.push((id, now - 1, name(*n)));
                }
                return;
            }
            Doing::Resolve { commits } => {
                let Some((id, start, key)) = self.prepared.pop() else { return };
                match commits {
                    true => step(now, decide(txn(id, 1), start, start + 3, &[key], &[])),
                    false => step(now, rollback(txn(id, 1), start, key, None)),
                }
            }
        };
        let _ = replica.write(write);
    }

    /// Ends what has prepared.
    fn drain(&mut self, replica: &mut Replica) {
        while !self.prepared.is_empty() {
            self.go(replica, &Doing::Resolve { commits: self.now.is_multiple_of(20) });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever clients do while a range is copied, also if the move starts over in between, the copy is equal when it is
    /// closed; and what is answered as written is there.
    #[test]
    fn h13_whatever_is_written_while_a_range_is_copied_arrives(
        before in proptest::collection::vec(any_doing(), 0..20),
        meanwhile in proptest::collection::vec((any_doing(), 0u8..4), 0..40),
        scan_at in 0usize..40,
        unfence in any::<bool>(),
    ) {
        let mut this = Move::new();
        let mut writers = Writers { now: 10, prepared: Vec::new() };
        for doing in &before {
            writers.go(&mut this.source, doing);
        }
        this.begin();
        for (n, (doing, then)) in meanwhile.iter().enumerate() {
            writers.go(&mut this.source, doing);
            if n == scan_at {
                this.scan();
            }
            match then {
                0 => drop(this.copy_portion()),
                1 if !this.copy_portion() => drop(this.copy_tracked(None)),
                2 if unfence && n % 7 == 0 => {
                    this.at_source(MoveStep::ApplyWriteFence);
                    this.epoch += 1;
                    prop_assert_eq!(this.at_source(MoveStep::Clear), ControlReply::Done);
                }
                _ => {}
            }
        }
        prop_assert_eq!(this.at_source(MoveStep::ApplyWriteFence), ControlReply::Done);
        writers.drain(&mut this.source);
        this.finish_copy();
        prop_assert_eq!(this.phase(), ImportPhase::Closed);
        let ours = rows(&this.source, ShardId(1), &moving());
        prop_assert_eq!(ours, rows(&this.target, COPY, &Interval::all()));
        this.cut_over(writers.now + 1);
        prop_assert!(rows(&this.source, ShardId(1), &moving()).is_empty());
    }

    /// The same log gives the same state, whatever its batches and restarts.
    #[test]
    fn steps_of_moves_are_applied_alike_however_the_log_is_cut(
        meanwhile in proptest::collection::vec((any_doing(), 0u8..6), 1..30),
        cuts in proptest::collection::vec(1usize..7, 1..10),
        restarts in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Replica::bootstrapped(dir.path());
        let mut log = Vec::new();
        let mut writers = Writers { now: 10, prepared: Vec::new() };
        let mut epoch = 1;
        for (doing, then) in &meanwhile {
            let step = match then {
                0 => MoveStep::ArmMigration { interval: moving(), target: GroupId(4) },
                1 => MoveStep::ApplyWriteFence,
                2 => MoveStep::Clear,
                3 => MoveStep::Retire,
                4 => MoveStep::PrepareImport { interval: interval("A", "B"), shard: COPY, source: GroupId(9) },
                _ => MoveStep::Seal,
            };
            epoch += u64::from(*then == 2);
            let job = JobId(if *then == 4 { 70 } else { 5 });
            let command = Command::Move(Box::new(MoveCommand { job, epoch: JobEpoch(epoch), step }));
            let index = one.next_index();
            log.push(entry(1, index, &command));
            one.command(command);
            let before = one.next_index();
            writers.go(&mut one, doing);
            if one.next_index() > before {
                // What was written is read back from what the first replica was given.
                log.push(one.log.last().cloned().unwrap());
            }
        }
        let other_dir = tempfile::tempdir().unwrap();
        let mut two = Replica::bootstrapped(other_dir.path());
        let mut rest = &log[..];
        for size in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at((*size).min(rest.len()));
            two.apply(head);
            rest = tail;
            if restarts {
                two.store.flush().unwrap();
                let (env, path) = (two.env.clone(), two.store.dir().to_owned());
                drop(two);
                two = Replica::open(&env, &path);
            }
        }
        prop_assert_eq!(&one.state, &two.state);
        prop_assert_eq!(one.digest(), two.digest());
    }
}

#[test]
fn replies_to_steps_are_control_replies() {
    let mut this = Move::new();
    let command = this.command(this.prepare());
    assert!(matches!(this.target.command(command), ApplyReply::Control(ControlReply::Done)));
}

#[tokio::test]
async fn a_copy_reads_rows_tracker_and_state_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = Machine::bootstrapped(&env(), &dir.path().join("group")).await;
    let command = |step| Command::Move(Box::new(MoveCommand { job: JOB, epoch: JobEpoch(1), step }));
    machine.write(10, put("d", "1")).await;
    machine.command(command(MoveStep::ArmMigration { interval: moving(), target: GroupId(4) })).await;
    let armed_at = machine.handle.state().moves.source(JOB).unwrap().armed_at;
    let before = machine.handle.move_view().unwrap();
    machine.write(20, put("d", "2")).await;
    machine.write(21, put("e", "x")).await;
    machine.command(Command::Write(vec![step(22, prepare(txn(1, 1), 9, "d", puts(&[("c", "p")])))])).await;
    let after = machine.handle.move_view().unwrap();
    let sum = |view: &drover_fsm::MoveView, bytes| {
        let mut summing = view.summing(JOB, armed_at).unwrap();
        std::iter::from_fn(|| Some(view.base_sum(JOB, armed_at, &mut summing, bytes).unwrap()))
            .flatten()
            .next()
            .unwrap()
    };
    let base = sum(&before, usize::MAX);
    assert_eq!((base.rows, base), (1, sum(&after, usize::MAX)), "it does not matter when it is summed");
    assert_eq!(sum(&after, 1), base, "nor in how many steps");
    let tracked = |view: &drover_fsm::MoveView, sealed_at| view.export_tracked(JOB, armed_at, 0, sealed_at, BUDGET);
    assert_eq!(tracked(&before, None).unwrap().rows.len(), 0);
    assert_eq!(tracked(&after, None).unwrap().rows.len(), 2);
    let refused = |result: Result<(), drover_fsm::ReadError>| {
        let Err(drover_fsm::ReadError::Failed(error)) = result else { panic!("{result:?}") };
        assert_eq!(error.reason, drover_kv::Reason::FailedPrecondition);
    };
    refused(tracked(&after, Some(0)).map(drop));
    refused(after.export(JOB, armed_at + 1, RowKind::Version, b"", BUDGET).map(drop));
    refused(after.summing(JobId(6), armed_at).map(drop));
    let locks = after.locks(JOB, 10).unwrap();
    assert_eq!((locks.first, locks.oldest), (vec![(key("c"), ts(9))], Some(ts(9))));
    assert_eq!(before.locks(JOB, 10).unwrap(), drover_fsm::RangeLocks::default());
    machine.command(Command::Write(vec![step(23, resolve(txn(1, 1), 9, None, &["c"]))])).await;
    machine.command(command(MoveStep::ApplyWriteFence)).await;
    let sealed = machine.handle.move_view().unwrap();
    let source = sealed.state().moves.source(JOB).unwrap();
    assert_eq!(tracked(&sealed, Some(source.sealed_at)).unwrap().next, source.tracked_rows);
    refused(tracked(&sealed, Some(source.sealed_at + 9)).map(drop));
    assert_eq!(
        before.export(JOB, armed_at, RowKind::Version, b"", BUDGET).unwrap().rows.len(),
        1,
        "it is of its moment"
    );
}
