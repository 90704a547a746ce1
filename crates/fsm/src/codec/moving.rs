//! `drover.storage.v1.MoveCommand`, and what a group remembers of moves.

use std::collections::BTreeSet;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId, Interval, JobEpoch, JobId, RouteId, ShardId};
use drover_kv::{Error, Reason};
use drover_mvcc::{RawRow, RowKind, RowSum};
use drover_wire::proto::storage::v1 as pb;
use drover_wire::{decode_range, encode_range};
use pb::import_chunk::Rows;
use pb::move_command::Step;
use prost::Message;

use super::command::MoveCommand;
use crate::moving::{
    Activation, Chunk, ChunkRows, Fence, ImportJob, ImportPhase, MoveStep, Moves, Released, SourceJob, Stream,
};

/// The command of a log entry.
pub fn encode(command: &MoveCommand) -> pb::MoveCommand {
    let step = match &command.step {
        MoveStep::PrepareImport { interval, shard, source } => Step::PrepareImport(pb::PrepareImport {
            range: Some(encode_range(interval)),
            shard_id: shard.0,
            source_group_id: source.0,
        }),
        MoveStep::ArmMigration { interval, target } => {
            Step::ArmMigration(pb::ArmMigration { range: Some(encode_range(interval)), target_group_id: target.0 })
        }
        MoveStep::ImportChunk(chunk) => Step::ImportChunk(encode_chunk(chunk)),
        MoveStep::ApplyWriteFence => Step::ApplyWriteFence(pb::ApplyWriteFence {}),
        MoveStep::Seal => Step::Seal(pb::SealRange {}),
        MoveStep::ArmReadFence => Step::ArmReadFence(pb::ArmReadFence {}),
        MoveStep::Clear => Step::Clear(pb::ClearFences {}),
        MoveStep::Activate(activation) => Step::ActivateRange(pb::ActivateRange {
            route_id: activation.route.0,
            acquired_version: activation.acquired_version.0,
            floor_ts: activation.floor_ts.raw(),
            history_start: activation.history_start.raw(),
            txn_horizon: activation.txn_horizon.raw(),
            record_horizon: activation.record_horizon.raw(),
        }),
        MoveStep::Release { version } => Step::ReleaseRange(pb::ReleaseRange { version: version.0 }),
        MoveStep::Retire => Step::Retire(pb::RetireJob {}),
    };
    pb::MoveCommand { job_id: command.job.0, epoch: command.epoch.0, step: Some(step) }
}

/// A command by itself, as nodes send it to each other.
pub fn encode_move_command(command: &MoveCommand) -> Bytes {
    encode(command).encode_to_vec().into()
}

/// A command by itself.
///
/// # Errors
/// What is wrong with it; definite.
pub fn decode_move_command(bytes: Bytes) -> Result<MoveCommand, Error> {
    let command = pb::MoveCommand::decode(bytes).map_err(|error| error.to_string()).and_then(decode);
    command.map_err(|why| {
        let message = format!("a step of a move cannot be read: {why}; nothing was changed");
        Error::definite(Reason::InvalidArgument, message)
    })
}

/// Reads a command whose step is known.
///
/// # Errors
/// What is wrong with it.
pub fn decode(message: pb::MoveCommand) -> Result<MoveCommand, String> {
    let step = match message.step.ok_or("a move without a step")? {
        Step::PrepareImport(prepare) => MoveStep::PrepareImport {
            interval: range(prepare.range)?,
            shard: ShardId(prepare.shard_id),
            source: GroupId(prepare.source_group_id),
        },
        Step::ArmMigration(arm) => {
            MoveStep::ArmMigration { interval: range(arm.range)?, target: GroupId(arm.target_group_id) }
        }
        Step::ImportChunk(chunk) => MoveStep::ImportChunk(decode_chunk(chunk)?),
        Step::ApplyWriteFence(pb::ApplyWriteFence {}) => MoveStep::ApplyWriteFence,
        Step::Seal(pb::SealRange {}) => MoveStep::Seal,
        Step::ArmReadFence(pb::ArmReadFence {}) => MoveStep::ArmReadFence,
        Step::Clear(pb::ClearFences {}) => MoveStep::Clear,
        Step::ActivateRange(activate) => MoveStep::Activate(Activation {
            route: RouteId(activate.route_id),
            acquired_version: CatalogVersion(activate.acquired_version),
            floor_ts: Timestamp::from_raw(activate.floor_ts),
            history_start: Timestamp::from_raw(activate.history_start),
            txn_horizon: Timestamp::from_raw(activate.txn_horizon),
            record_horizon: Timestamp::from_raw(activate.record_horizon),
        }),
        Step::ReleaseRange(release) => MoveStep::Release { version: CatalogVersion(release.version) },
        Step::Retire(pb::RetireJob {}) => MoveStep::Retire,
    };
    Ok(MoveCommand { job: JobId(message.job_id), epoch: JobEpoch(message.epoch), step })
}

pub(super) fn encode_chunk(chunk: &Chunk) -> pb::ImportChunk {
    let rows = match &chunk.rows {
        ChunkRows::Copied { kind, from, to, done, rows } => Rows::Copied(pb::CopiedRows {
            kind: encode_kind(*kind).into(),
            from: from.clone(),
            to: to.clone(),
            done: *done,
            rows: rows
                .iter()
                .map(|row| pb::CopiedRow { key: row.key.clone(), value: row.value.clone().unwrap_or_default() })
                .collect(),
        }),
        ChunkRows::Tracked { from, to, rows } => Rows::Tracked(pb::TrackedRows {
            from: *from,
            to: *to,
            rows: rows
                .iter()
                .map(|row| pb::TrackedRow {
                    kind: encode_kind(row.kind).into(),
                    key: row.key.clone(),
                    value: row.value.clone(),
                })
                .collect(),
        }),
    };
    pb::ImportChunk { armed_at: chunk.armed_at, rows: Some(rows), close: chunk.close.map(encode_sum) }
}

pub(super) fn decode_chunk(message: pb::ImportChunk) -> Result<Chunk, String> {
    let rows = match message.rows.ok_or("a chunk without rows")? {
        Rows::Copied(copied) => {
            let kind = decode_kind(copied.kind)?;
            let row = |row: pb::CopiedRow| RawRow { kind, key: row.key, value: Some(row.value) };
            let rows = copied.rows.into_iter().map(row).collect();
            ChunkRows::Copied { kind, from: copied.from, to: copied.to, done: copied.done, rows }
        }
        Rows::Tracked(tracked) => {
            let row = |row: pb::TrackedRow| {
                Ok::<_, String>(RawRow { kind: decode_kind(row.kind)?, key: row.key, value: row.value })
            };
            let rows = tracked.rows.into_iter().map(row).collect::<Result<_, _>>()?;
            ChunkRows::Tracked { from: tracked.from, to: tracked.to, rows }
        }
    };
    Ok(Chunk { armed_at: message.armed_at, rows, close: message.close.map(decode_sum) })
}

pub(super) fn encode_kind(kind: RowKind) -> pb::RowKind {
    match kind {
        RowKind::Version => pb::RowKind::Version,
        RowKind::Record => pb::RowKind::Record,
    }
}

pub(super) fn decode_kind(raw: i32) -> Result<RowKind, String> {
    match pb::RowKind::try_from(raw) {
        Ok(pb::RowKind::Version) => Ok(RowKind::Version),
        Ok(pb::RowKind::Record) => Ok(RowKind::Record),
        Ok(pb::RowKind::Unspecified) | Err(_) => Err(format!("a row of the unknown kind {raw}")),
    }
}

pub(super) fn encode_sum(sum: RowSum) -> pb::RowSum {
    pb::RowSum { hash_high: (sum.hash >> 64) as u64, hash_low: sum.hash as u64, rows: sum.rows }
}

pub(super) fn decode_sum(sum: pb::RowSum) -> RowSum {
    RowSum { hash: u128::from(sum.hash_high) << 64 | u128::from(sum.hash_low), rows: sum.rows }
}

fn range(range: Option<pb::Range>) -> Result<Interval, String> {
    decode_range(range).map_err(|error| error.to_string())
}

/// Adds what is remembered of moves to a stored state.
pub fn encode_moves(moves: &Moves, state: &mut pb::GroupState) {
    state.sources = moves.sources.iter().map(encode_source).collect();
    state.imports = moves.imports.iter().map(encode_import).collect();
    state.retired_jobs = moves.retired.iter().map(|job| job.0).collect();
    state.job_horizon = moves.horizon.0;
    let released = |released: &Released| pb::ReleasedInterval {
        range: Some(encode_range(&released.interval)),
        group_id: released.group.0,
        version: released.version.0,
    };
    state.released = moves.released.iter().map(released).collect();
}

/// Takes what is remembered of moves out of a stored state.
///
/// # Errors
/// What is wrong with it.
pub fn decode_moves(state: &mut pb::GroupState) -> Result<Moves, String> {
    let released = |released: pb::ReleasedInterval| {
        Ok::<_, String>(Released {
            interval: range(released.range)?,
            group: GroupId(released.group_id),
            version: CatalogVersion(released.version),
        })
    };
    Ok(Moves {
        sources: std::mem::take(&mut state.sources).into_iter().map(decode_source).collect::<Result<_, _>>()?,
        imports: std::mem::take(&mut state.imports).into_iter().map(decode_import).collect::<Result<_, _>>()?,
        retired: std::mem::take(&mut state.retired_jobs).into_iter().map(JobId).collect::<BTreeSet<_>>(),
        horizon: JobId(state.job_horizon),
        released: std::mem::take(&mut state.released).into_iter().map(released).collect::<Result<_, _>>()?,
    })
}

pub(super) fn encode_source(source: &SourceJob) -> pb::SourceJob {
    let fence = match source.fence {
        Fence::Open => pb::Fence::Open,
        Fence::Written => pb::Fence::Written,
        Fence::Sealed => pb::Fence::Sealed,
        Fence::Read => pb::Fence::Read,
    };
    pb::SourceJob {
        job_id: source.job.0,
        epoch: source.epoch.0,
        range: Some(encode_range(&source.interval)),
        shard_id: source.shard.0,
        target_group_id: source.target.0,
        armed_at: source.armed_at,
        safe_point: source.safe_point.raw(),
        tracked_rows: source.tracked_rows,
        tracked_bytes: source.tracked_bytes,
        change: Some(encode_sum(source.change)),
        fence: fence.into(),
        fenced_in: source.fenced_in.0,
        fenced_at: source.fenced_at,
        sealed_at: source.sealed_at,
    }
}

pub(super) fn decode_source(message: pb::SourceJob) -> Result<SourceJob, String> {
    let fence = match pb::Fence::try_from(message.fence) {
        Ok(pb::Fence::Open) => Fence::Open,
        Ok(pb::Fence::Written) => Fence::Written,
        Ok(pb::Fence::Sealed) => Fence::Sealed,
        Ok(pb::Fence::Read) => Fence::Read,
        Err(_) => return Err(format!("the unknown fence {}", message.fence)),
    };
    Ok(SourceJob {
        job: JobId(message.job_id),
        epoch: JobEpoch(message.epoch),
        interval: range(message.range)?,
        shard: ShardId(message.shard_id),
        target: GroupId(message.target_group_id),
        armed_at: message.armed_at,
        safe_point: Timestamp::from_raw(message.safe_point),
        tracked_rows: message.tracked_rows,
        tracked_bytes: message.tracked_bytes,
        change: message.change.map(decode_sum).unwrap_or_default(),
        fence,
        fenced_in: JobEpoch(message.fenced_in),
        fenced_at: message.fenced_at,
        sealed_at: message.sealed_at,
    })
}

pub(super) fn encode_import(import: &ImportJob) -> pb::ImportJob {
    let phase = match import.phase {
        ImportPhase::Open => pb::ImportPhase::Open,
        ImportPhase::Closed => pb::ImportPhase::Closed,
        ImportPhase::Differs => pb::ImportPhase::Differs,
    };
    let stream = |stream: &Stream| Some(pb::CopyStream { cursor: stream.cursor.clone(), done: stream.done });
    pb::ImportJob {
        job_id: import.job.0,
        epoch: import.epoch.0,
        range: Some(encode_range(&import.interval)),
        shard_id: import.shard.0,
        source_group_id: import.source.0,
        armed_at: import.armed_at,
        versions: stream(&import.versions),
        records: stream(&import.records),
        tracked: import.tracked,
        sum: Some(encode_sum(import.sum)),
        bytes: import.bytes,
        highest: import.highest.raw(),
        phase: phase.into(),
        closed_in: import.closed_in.0,
    }
}

pub(super) fn decode_import(message: pb::ImportJob) -> Result<ImportJob, String> {
    let phase = match pb::ImportPhase::try_from(message.phase) {
        Ok(pb::ImportPhase::Open) => ImportPhase::Open,
        Ok(pb::ImportPhase::Closed) => ImportPhase::Closed,
        Ok(pb::ImportPhase::Differs) => ImportPhase::Differs,
        Err(_) => return Err(format!("the unknown phase {} of an import", message.phase)),
    };
    let stream = |stream: Option<pb::CopyStream>| {
        let pb::CopyStream { cursor, done } = stream.unwrap_or_default();
        Stream { cursor, done }
    };
    Ok(ImportJob {
        job: JobId(message.job_id),
        epoch: JobEpoch(message.epoch),
        interval: range(message.range)?,
        shard: ShardId(message.shard_id),
        source: GroupId(message.source_group_id),
        armed_at: message.armed_at,
        versions: stream(message.versions),
        records: stream(message.records),
        tracked: message.tracked,
        sum: message.sum.map(decode_sum).unwrap_or_default(),
        bytes: message.bytes,
        highest: Timestamp::from_raw(message.highest),
        phase,
        closed_in: JobEpoch(message.closed_in),
    })
}

#[cfg(test)]
mod tests {
    use drover_rafttypes::CommandBytes;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::command::Command;
    use crate::state::tests::{interval, ts};

    fn rows() -> Vec<RawRow> {
        vec![RawRow { kind: RowKind::Version, key: "k".into(), value: Some("v".into()) }]
    }

    #[test]
    fn golden_bytes_of_every_step() {
        let sum = RowSum { hash: 1 << 64 | 2, rows: 3 };
        let copied =
            ChunkRows::Copied { kind: RowKind::Version, from: "f".into(), to: "t".into(), done: true, rows: rows() };
        let gone = RawRow { kind: RowKind::Record, key: "k".into(), value: None };
        let tracked = ChunkRows::Tracked { from: 4, to: 5, rows: vec![gone] };
        let activation = Activation {
            route: RouteId(1),
            acquired_version: CatalogVersion(2),
            floor_ts: ts(3),
            history_start: ts(4),
            txn_horizon: ts(5),
            record_horizon: ts(6),
        };
        let range = [10, 6, 10, 1, b'a', 18, 1, b'b'];
        let sum_bytes = [0x22, 20, 9, 1, 0, 0, 0, 0, 0, 0, 0, 17, 2, 0, 0, 0, 0, 0, 0, 0, 24, 3];
        let prepare = MoveStep::PrepareImport { interval: interval("a", "b"), shard: ShardId(9), source: GroupId(3) };
        let table: [(MoveStep, Vec<u8>); 11] = [
            (prepare, [&[0x1a, 12][..], &range, &[16, 9, 24, 3]].concat()),
            (
                MoveStep::ArmMigration { interval: interval("a", "b"), target: GroupId(4) },
                [&[0x22, 10][..], &range, &[16, 4]].concat(),
            ),
            (
                MoveStep::ImportChunk(Chunk { armed_at: 7, rows: copied, close: None }),
                vec![0x2a, 22, 8, 7, 0x12, 18, 8, 1, 18, 1, b'f', 26, 1, b't', 32, 1, 42, 6, 10, 1, b'k', 18, 1, b'v'],
            ),
            (
                MoveStep::ImportChunk(Chunk { armed_at: 7, rows: tracked, close: Some(sum) }),
                [&[0x2a, 37, 8, 7, 0x1a, 11, 8, 4, 16, 5, 26, 5, 8, 2, 18, 1, b'k'][..], &sum_bytes].concat(),
            ),
            (MoveStep::ApplyWriteFence, vec![0x32, 0]),
            (MoveStep::Seal, vec![0x3a, 0]),
            (MoveStep::ArmReadFence, vec![0x42, 0]),
            (MoveStep::Clear, vec![0x4a, 0]),
            (MoveStep::Activate(activation), vec![0x52, 12, 8, 1, 16, 2, 24, 3, 32, 4, 40, 5, 48, 6]),
            (MoveStep::Release { version: CatalogVersion(8) }, vec![0x5a, 2, 8, 8]),
            (MoveStep::Retire, vec![0x62, 0]),
        ];
        for (step, tail) in table {
            let body = [&[8, 5, 16, 6][..], &tail].concat();
            let golden = [&[8, 1, 16, 4, 0x6a, u8::try_from(body.len()).unwrap()][..], &body].concat();
            let command = Command::Move(Box::new(MoveCommand { job: JobId(5), epoch: JobEpoch(6), step }));
            assert_eq!(command.encode(4).unwrap().0, golden, "{command:?}");
            assert_eq!(Command::decode(1, &CommandBytes(golden.into())).unwrap(), (4, command));
        }
        let horizon = Command::AdvanceJobHorizon(JobId(9));
        assert_eq!(horizon.encode(4).unwrap().0, [8, 1, 16, 4, 0x72, 2, 8, 9].as_slice());
    }

    fn any_kind() -> impl Strategy<Value = RowKind> {
        prop_oneof![Just(RowKind::Version), Just(RowKind::Record)]
    }

    fn any_bytes() -> impl Strategy<Value = Bytes> {
        any::<Vec<u8>>().prop_map(Bytes::from)
    }

    fn any_rows() -> impl Strategy<Value = ChunkRows> {
        let copied = (any_kind(), any_bytes(), any_bytes(), any::<bool>());
        let row = (any_bytes(), any_bytes());
        let tracked = (any_kind(), any_bytes(), proptest::option::of(any_bytes()))
            .prop_map(|(kind, key, value)| RawRow { kind, key, value });
        prop_oneof![
            (copied, proptest::collection::vec(row, 0..4)).prop_map(|((kind, from, to, done), rows)| {
                let row = |(key, value)| RawRow { kind, key, value: Some(value) };
                ChunkRows::Copied { kind, from, to, done, rows: rows.into_iter().map(row).collect() }
            }),
            (any::<[u64; 2]>(), proptest::collection::vec(tracked, 0..4))
                .prop_map(|([from, to], rows)| ChunkRows::Tracked { from, to, rows }),
        ]
    }

    proptest! {
        #[test]
        fn chunks_round_trip(
            n: [u64; 3],
            rows in any_rows(),
            close in proptest::option::of(any::<(u128, u64)>().prop_map(|(hash, rows)| RowSum { hash, rows })),
        ) {
            let step = MoveStep::ImportChunk(Chunk { armed_at: n[0], rows, close });
            let command = MoveCommand { job: JobId(n[1]), epoch: JobEpoch(n[2]), step };
            prop_assert_eq!(decode(encode(&command)), Ok(command));
        }
    }
}
