//! The keys from "x" on move from the right group to the left one, step by step.

use drover_fsm::moving::{Activation, Chunk, ChunkRows, Fence, MoveStep};
use drover_fsm::{Command, MoveCommand};
use drover_keys::{JobEpoch, JobId};
use drover_mvcc::{ExportBudget, RowKind, RowSum};
use drover_rafttypes::ControlReply;

use super::*;

const JOB: JobId = JobId(1);
const BUDGET: ExportBudget = ExportBudget { bytes: 1 << 20, scanned_bytes: 1 << 20 };
/// For the copy.
const SHARD: ShardId = ShardId(9);

pub fn moving() -> Interval {
    Interval::new("x", End::Unbounded).unwrap()
}

/// Makes a step, or makes sure that it was made.
pub async fn move_step(group: &Group, epoch: u64, step: MoveStep) {
    let leadership = group.leadership().unwrap();
    let command = Command::Move(Box::new(MoveCommand { job: JOB, epoch: JobEpoch(epoch), step }));
    let reply = group.propose(&leadership, command.encode(leadership.term).unwrap(), soon()).await.unwrap();
    assert!(matches!(reply, ControlReply::Done | ControlReply::AlreadyDone), "{reply:?}");
}

impl Fixture {
    pub fn left(&self) -> &Arc<Group> {
        &self.groups[&LEFT]
    }

    pub fn right(&self) -> &Arc<Group> {
        &self.groups[&RIGHT]
    }

    /// Lets the coordinator know who has the range, and whether writes to it are held back.
    pub fn tell(&self, group: GroupId, fenced: bool) -> CatalogVersion {
        let routes = self.coordinator.routes();
        let version = CatalogVersion(routes.current().version().0 + 1);
        let state = if fenced { RouteState::WriteFenced { job: JOB } } else { RouteState::Active };
        let route =
            |id: u64, interval, group: GroupId, shard, state| Route { id: RouteId(id), interval, group, shard, state };
        let middle = Interval::new("m", End::Key("x".into())).unwrap();
        let shard = if group == LEFT { SHARD } else { ShardId(RIGHT.0) };
        let all = vec![
            route(LEFT.0, side(LEFT), LEFT, ShardId(LEFT.0), RouteState::Active),
            route(RIGHT.0, middle, RIGHT, ShardId(RIGHT.0), RouteState::Active),
            route(9, moving(), group, shard, state),
        ];
        assert!(routes.replace(RouteMap::new(version, all).unwrap()));
        version
    }

    /// Copies what is there, and lists what is written from now on.
    pub async fn begin_move(&self) {
        move_step(self.left(), 1, MoveStep::PrepareImport { interval: moving(), shard: SHARD, source: RIGHT }).await;
        move_step(self.right(), 1, MoveStep::ArmMigration { interval: moving(), target: LEFT }).await;
        let view = self.right().fsm().move_view().unwrap();
        let armed_at = view.state().moves.source(JOB).unwrap().armed_at;
        for kind in [RowKind::Version, RowKind::Record] {
            let portion = view.export(JOB, armed_at, kind, &[], BUDGET).unwrap();
            assert!(portion.done);
            let (from, to, rows) = (Bytes::new(), portion.cursor, portion.rows);
            let rows = ChunkRows::Copied { kind, from, to, done: true, rows };
            move_step(self.left(), 1, MoveStep::ImportChunk(Chunk { armed_at, rows, close: None })).await;
        }
    }

    /// Holds writes back.
    pub async fn fence(&self, epoch: u64) {
        move_step(self.right(), epoch, MoveStep::ApplyWriteFence).await;
    }

    /// Lifts the fence of the epochs before.
    pub async fn lift(&self, epoch: u64) {
        move_step(self.right(), epoch, MoveStep::Clear).await;
    }

    /// Copies the rest, compares, and holds reads back as well.
    pub async fn fence_reads(&self, epoch: u64) {
        move_step(self.right(), epoch, MoveStep::Seal).await;
        let view = self.right().fsm().move_view().unwrap();
        let source = view.state().moves.source(JOB).unwrap();
        assert!(source.fence >= Fence::Sealed);
        let armed_at = source.armed_at;
        let from = self.left().fsm().state().moves.import(JOB).unwrap().tracked;
        let portion = view.export_tracked(JOB, armed_at, from, Some(source.sealed_at), BUDGET).unwrap();
        assert!(portion.done);
        let mut summing = view.summing(JOB, armed_at).unwrap();
        let base = view.base_sum(JOB, armed_at, &mut summing, usize::MAX).unwrap().unwrap();
        let close = Some(RowSum { hash: base.hash, rows: base.rows }.plus(source.change));
        let rows = ChunkRows::Tracked { from, to: portion.next, rows: portion.rows };
        move_step(self.left(), epoch, MoveStep::ImportChunk(Chunk { armed_at, rows, close })).await;
        move_step(self.right(), epoch, MoveStep::ArmReadFence).await;
    }

    /// Gives the range to the left group, which the catalog names from `version` on.
    pub async fn activate(&self, epoch: u64, version: CatalogVersion) {
        let source = self.right().fsm().state();
        let owned = source.owner_of(&moving()).unwrap()[0].clone();
        let activation = Activation {
            route: RouteId(9),
            acquired_version: version,
            floor_ts: self.now().await,
            history_start: owned.history_start.max(owned.safe_point),
            txn_horizon: owned.txn_horizon,
            record_horizon: source.record_horizon,
        };
        move_step(self.left(), epoch, MoveStep::Activate(activation)).await;
        move_step(self.right(), epoch, MoveStep::Release { version }).await;
    }

    /// Waits until so many requests were held by the left group.
    pub async fn held(&self, requests: u64) {
        let until = soon();
        while self.left().stats().snapshot().held_requests < requests {
            assert!(Instant::now() < until, "the request does not arrive");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until so many requests are parked.
    pub async fn parked(&self, requests: usize) {
        let until = soon();
        while self.coordinator.parking().size().0 != requests {
            assert!(Instant::now() < until, "{:?} are parked", self.coordinator.parking().size());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
