//! What nodes say to each other about the copy of a range: `drover.v1.ExportRangeVersionsRequest` and its answers,
//! `MoveFacts`. Nothing of it is stored.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{GroupId, JobId};
use drover_kv::{Error, Reason};
use drover_mvcc::ExportBudget;
use drover_wire::proto::v1;
use prost::Message;
use v1::export_range_versions_request::Rows;

use super::moving::{
    decode_chunk, decode_import, decode_kind, decode_source, decode_sum, encode_chunk, encode_import, encode_kind,
    encode_source, encode_sum,
};
use crate::codec::command::MoveCommand;
use crate::moving::{ExportRequest, ExportRows, Exported, ImportJob, MoveFacts, MoveStep, SourceFacts};

/// A request as a message.
pub fn encode_export(request: &ExportRequest) -> v1::ExportRangeVersionsRequest {
    let rows = match &request.rows {
        ExportRows::Copied { kind, after } => {
            Rows::Copied(v1::ExportCopied { kind: encode_kind(*kind).into(), after: after.clone() })
        }
        ExportRows::Tracked { from, sealed_at } => {
            Rows::Tracked(v1::ExportTracked { from: *from, sealed_at: *sealed_at })
        }
    };
    v1::ExportRangeVersionsRequest {
        group_id: request.group.0,
        job_id: request.job.0,
        armed_at: request.armed_at,
        rows: Some(rows),
        bytes: request.budget.bytes as u64,
        scanned_bytes: request.budget.scanned_bytes as u64,
    }
}

/// A request from its message.
///
/// # Errors
/// What is wrong with it; definite.
pub fn decode_export(message: v1::ExportRangeVersionsRequest) -> Result<ExportRequest, Error> {
    let rows = match message.rows.ok_or_else(|| malformed("it names no rows"))? {
        Rows::Copied(v1::ExportCopied { kind, after }) => {
            ExportRows::Copied { kind: decode_kind(kind).map_err(malformed)?, after }
        }
        Rows::Tracked(v1::ExportTracked { from, sealed_at }) => ExportRows::Tracked { from, sealed_at },
    };
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok(ExportRequest {
        group: GroupId(message.group_id),
        job: JobId(message.job_id),
        armed_at: message.armed_at,
        rows,
        budget: ExportBudget { bytes: size(message.bytes), scanned_bytes: size(message.scanned_bytes) },
    })
}

/// A portion as a message.
pub fn encode_exported(portion: &Exported) -> v1::ExportRangeVersionsResponse {
    v1::ExportRangeVersionsResponse {
        chunk: Some(encode_chunk(&portion.chunk)),
        done: portion.done,
        change: Some(encode_sum(portion.change)),
    }
}

/// A portion from its message.
///
/// # Errors
/// What is wrong with it; definite.
pub fn decode_exported(message: v1::ExportRangeVersionsResponse) -> Result<Exported, Error> {
    Ok(Exported {
        chunk: decode_chunk(message.chunk.ok_or_else(|| malformed("a portion without rows"))?).map_err(malformed)?,
        done: message.done,
        change: message.change.map(decode_sum).unwrap_or_default(),
    })
}

/// A step that brings rows to `group`, as a message. Who sends it says how long it may take.
pub fn encode_import_request(group: GroupId, command: &MoveCommand) -> v1::ImportRangeVersionsRequest {
    let command = Some(super::moving::encode(command));
    v1::ImportRangeVersionsRequest { group_id: group.0, timeout_ms: 0, command }
}

/// A step that brings rows, from its message.
///
/// # Errors
/// What is wrong with it, or that it is another step; definite.
pub fn decode_import_request(message: v1::ImportRangeVersionsRequest) -> Result<MoveCommand, Error> {
    let command = message.command.ok_or_else(|| malformed("it brings no rows"))?;
    let command = super::moving::decode(command).map_err(malformed)?;
    match command.step {
        MoveStep::ImportChunk(_) => Ok(command),
        other => Err(malformed(format!("it brings no rows, but the step {}", other.name()))),
    }
}

/// How far a copy is, as a message.
pub fn encode_import_answer(import: &ImportJob) -> v1::ImportRangeVersionsResponse {
    v1::ImportRangeVersionsResponse { import: Some(encode_import(import)) }
}

/// How far a copy is, from its message.
///
/// # Errors
/// What is wrong with it; the portion may have been imported.
pub fn decode_import_answer(message: v1::ImportRangeVersionsResponse) -> Result<ImportJob, Error> {
    let import = message.import.ok_or_else(|| "an answer without a copy".to_owned()).and_then(decode_import);
    import.map_err(|why| Error::unknown(Reason::Internal, format!("an answer about a copy cannot be read: {why}")))
}

/// What a group's log says of a job, as bytes.
pub fn encode_move_facts(facts: &MoveFacts) -> Bytes {
    let source = facts.source.as_ref().map(|source| v1::MoveSource {
        job: Some(encode_source(&source.job)),
        oldest_lock: source.oldest_lock.map(Timestamp::raw),
        history_start: source.history_start.raw(),
        txn_horizon: source.txn_horizon.raw(),
        record_horizon: source.record_horizon.raw(),
    });
    v1::MoveFacts { retired: facts.retired, source, import: facts.import.as_ref().map(encode_import) }
        .encode_to_vec()
        .into()
}

/// What a group's log says of a job, from bytes.
///
/// # Errors
/// What is wrong with them; definite.
pub fn decode_move_facts(bytes: Bytes) -> Result<MoveFacts, Error> {
    let message = v1::MoveFacts::decode(bytes).map_err(malformed)?;
    let source = |source: v1::MoveSource| {
        let at = Timestamp::from_raw;
        Ok::<_, String>(SourceFacts {
            job: decode_source(source.job.ok_or("a range that moves without a job")?)?,
            oldest_lock: source.oldest_lock.map(at),
            history_start: at(source.history_start),
            txn_horizon: at(source.txn_horizon),
            record_horizon: at(source.record_horizon),
        })
    };
    Ok(MoveFacts {
        retired: message.retired,
        source: message.source.map(source).transpose().map_err(malformed)?,
        import: message.import.map(decode_import).transpose().map_err(malformed)?,
    })
}

fn malformed(why: impl std::fmt::Display) -> Error {
    let message = format!("what a node says of the copy of a range cannot be read: {why}; nothing was changed");
    Error::definite(Reason::Internal, message)
}
