//! What nodes say to each other about the copy of a range that moves.

use drover_wire::proto::storage::v1 as stored;
use drover_wire::proto::v1::export_range_versions_request::Rows;
use drover_wire::proto::v1::*;

use super::{Case, case};

pub fn cases() -> Vec<Case> {
    let export = |rows| ExportRangeVersionsRequest {
        group_id: 2,
        job_id: 5,
        armed_at: 300,
        rows: Some(rows),
        bytes: 400,
        scanned_bytes: 500,
    };
    let copied = |kind| Rows::Copied(ExportCopied { kind, after: "a".into() });
    let tracked = |sealed_at| Rows::Tracked(ExportTracked { from: 6, sealed_at });
    let sum = stored::RowSum { hash_high: 1, hash_low: 2, rows: 3 };
    let chunk = stored::ImportChunk { armed_at: 300, ..Default::default() };
    let portion = ExportRangeVersionsResponse { chunk: Some(chunk.clone()), done: true, change: Some(sum) };
    let step = Some(stored::move_command::Step::ImportChunk(chunk));
    let command = Some(stored::MoveCommand { job_id: 5, epoch: 6, step });
    let import = Some(stored::ImportJob { job_id: 5, ..Default::default() });
    let source = MoveSource {
        job: Some(stored::SourceJob { job_id: 5, ..Default::default() }),
        oldest_lock: Some(7),
        history_start: 8,
        txn_horizon: 9,
        record_horizon: 10,
    };
    vec![
        case("ExportRangeVersionsRequest/versions", export(copied(stored::RowKind::Version.into()))),
        case("ExportRangeVersionsRequest/records", export(copied(stored::RowKind::Record.into()))),
        case("ExportRangeVersionsRequest/tracked", export(tracked(None))),
        case("ExportRangeVersionsRequest/sealed", export(tracked(Some(600)))),
        case("ExportRangeVersionsResponse/portion", portion),
        case("ImportRangeVersionsRequest/chunk", ImportRangeVersionsRequest { group_id: 3, timeout_ms: 300, command }),
        case("ImportRangeVersionsResponse/import", ImportRangeVersionsResponse { import: import.clone() }),
        case("MoveFacts/retired", MoveFacts { retired: true, ..Default::default() }),
        case("MoveFacts/source", MoveFacts { source: Some(source), ..Default::default() }),
        case("MoveFacts/import", MoveFacts { import, ..Default::default() }),
    ]
}
