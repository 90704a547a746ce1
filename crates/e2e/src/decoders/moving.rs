//! What is stored of ranges that move: seeds of the decoders that read it among other things.

use drover_catalog::job::{
    BaseSum, Failure, Handover, HandoverTerms, JobEvent, JobOptions, JobPause, JobPhase, SplitJob,
};
use drover_catalog::{CatalogCommandKind, StartJob};
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{CatalogVersion, GroupId, JobEpoch, JobId, RouteId, ShardId};
use drover_wire::proto::storage::v1 as stored;

use super::{a_route, whole_range};

fn terms() -> HandoverTerms {
    let at = Timestamp::from_raw;
    HandoverTerms { floor_ts: at(3), history_start: at(4), txn_horizon: at(5), record_horizon: at(6) }
}

fn base() -> BaseSum {
    BaseSum { armed_at: 7, hash: 1 << 64 | 2, rows: 3 }
}

fn pause() -> JobPause {
    JobPause { fence: 2, write_us: 300, read_us: 301 }
}

/// A job that has everything a job can have.
pub(super) fn job() -> SplitJob {
    let now = PhysicalMs::default();
    SplitJob {
        id: JobId(5),
        epoch: JobEpoch(6),
        phase: JobPhase::Cleanup,
        paused: true,
        interval: a_route().interval,
        from_route: RouteId(4),
        source: GroupId(2),
        target: GroupId(3),
        shard: ShardId(9),
        options: JobOptions::default(),
        actor: "somebody".to_owned(),
        created: now,
        changed: now,
        starts: 1,
        fences: 2,
        base: Some(base()),
        own_route: Some(RouteId(8)),
        handover: Some(Handover { version: CatalogVersion(4), terms: terms() }),
        failure: Some(Failure { why: "late".to_owned(), at: now, retry_phase: JobPhase::Backfill }),
        pauses: vec![pause()],
    }
}

/// What the catalog is told of jobs.
pub(super) fn catalog_kinds() -> Vec<CatalogCommandKind> {
    let start = StartJob {
        expected_version: CatalogVersion(2),
        route: RouteId(4),
        interval: a_route().interval,
        target: GroupId(3),
        options: JobOptions::default(),
    };
    let events = [
        JobEvent::Begin,
        JobEvent::Scanned(base()),
        JobEvent::HandOver(terms()),
        JobEvent::Fail { why: "late".to_owned() },
        JobEvent::Held(pause()),
    ];
    let event = |event| CatalogCommandKind::JobEvent { job: JobId(5), epoch: Some(JobEpoch(6)), event };
    [CatalogCommandKind::StartJob(start)].into_iter().chain(events.map(event)).collect()
}

fn sum() -> Option<stored::RowSum> {
    Some(stored::RowSum { hash_high: 1, hash_low: 2, rows: 3 })
}

/// Entries of the log that carry out a move.
pub(super) fn commands() -> Vec<stored::command::Body> {
    use stored::import_chunk::Rows;
    use stored::move_command::Step;
    let (version, record) = (stored::RowKind::Version.into(), stored::RowKind::Record.into());
    let copied = stored::CopiedRows {
        kind: version,
        from: "f".into(),
        to: "t".into(),
        done: true,
        rows: vec![stored::CopiedRow { key: "k".into(), value: "v".into() }],
    };
    let tracked = stored::TrackedRows {
        from: 4,
        to: 6,
        rows: vec![
            stored::TrackedRow { kind: version, key: "k".into(), value: Some("v".into()) },
            stored::TrackedRow { kind: record, key: "l".into(), value: None },
        ],
    };
    let chunk = |rows, close| Step::ImportChunk(stored::ImportChunk { armed_at: 7, rows: Some(rows), close });
    let steps = [
        Step::PrepareImport(stored::PrepareImport { range: Some(whole_range()), shard_id: 9, source_group_id: 2 }),
        Step::ArmMigration(stored::ArmMigration { range: Some(whole_range()), target_group_id: 3 }),
        chunk(Rows::Copied(copied), None),
        chunk(Rows::Tracked(tracked), sum()),
        Step::ApplyWriteFence(stored::ApplyWriteFence {}),
        Step::Seal(stored::SealRange {}),
        Step::ArmReadFence(stored::ArmReadFence {}),
        Step::Clear(stored::ClearFences {}),
        Step::ActivateRange(stored::ActivateRange {
            route_id: 4,
            acquired_version: 2,
            floor_ts: 3,
            history_start: 4,
            txn_horizon: 5,
            record_horizon: 6,
        }),
        Step::ReleaseRange(stored::ReleaseRange { version: 4 }),
        Step::Retire(stored::RetireJob {}),
    ];
    let step = |step| stored::command::Body::Move(stored::MoveCommand { job_id: 5, epoch: 6, step: Some(step) });
    let horizon = stored::command::Body::AdvanceJobHorizon(stored::AdvanceJobHorizon { job_id: 5 });
    steps.into_iter().map(step).chain([horizon]).collect()
}

/// A state that remembers moves in both directions; what it owns moves away.
pub(super) fn remembered(state: stored::GroupState) -> stored::GroupState {
    let range = || Some(whole_range());
    let source = stored::SourceJob {
        job_id: 5,
        epoch: 6,
        range: range(),
        shard_id: 1,
        target_group_id: 3,
        armed_at: 7,
        safe_point: 8,
        tracked_rows: 9,
        tracked_bytes: 300,
        change: sum(),
        fence: stored::Fence::Sealed.into(),
        fenced_in: 6,
        fenced_at: 10,
        sealed_at: 11,
    };
    let stream = |done| Some(stored::CopyStream { cursor: "c".into(), done });
    let import = stored::ImportJob {
        job_id: 6,
        epoch: 1,
        range: range(),
        shard_id: 9,
        source_group_id: 4,
        armed_at: 7,
        versions: stream(true),
        records: stream(false),
        tracked: 5,
        sum: sum(),
        bytes: 300,
        highest: 12,
        phase: stored::ImportPhase::Closed.into(),
        closed_in: 1,
    };
    let released = stored::ReleasedInterval { range: range(), group_id: 3, version: 4 };
    stored::GroupState {
        sources: vec![source],
        imports: vec![import],
        retired_jobs: vec![3, 4],
        job_horizon: 2,
        released: vec![released],
        ..state
    }
}
