use bytes::Bytes;
use drover_catalog::RouteDelta;
use drover_catalog::job::{BaseSum, JobProgress};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId, Interval, JobEpoch, JobId, ShardId};
use drover_kv::{Entry, Error, Outcome, ReadAnswer, ReadOp, Reason, ScanCursor, ScanLimits, ScanPage, ScanRequest};
use drover_kv::{Versioned, WriteOp};

use crate::WireError;
use crate::answer::{key_value, maybe_version};
use crate::base_sum::{decode_base_sum, encode_base_sum};
use crate::error::{error_to_status_bytes, status_bytes_to_error};
use crate::jobs::{decode_job_progress, encode_job_progress};
use crate::operation::{decode_operation, encode_operation};
use crate::proto::v1;
use crate::range::{decode_range, encode_range, interval};
use crate::routes::decode_route_delta;
use crate::txn::{
    decode_known, decode_lock, decode_refresh, decode_txn_id, encode_known, encode_lock, encode_refresh, encode_txn_id,
};
use crate::version::{decode_version, encode_version, optional_ts, raw_ts};

/// What a node asks another node to do in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupOp {
    /// A write through the log.
    Write(WriteOp),
    /// A read through the read door, and the catalog version by which it was routed.
    Read { op: ReadOp, observed_version: Option<CatalogVersion> },
    /// The digest at this log index, waiting for it if need be. Zero, on the leader: take one now.
    Digest { index: u64 },
    /// What the group's log says of these ranges, and how large they are; on the leader.
    Describe { intervals: Vec<Interval> },
    /// A command for the catalog, an encoded `drover.storage.v1.CatalogCommand`; on the leader of the default group.
    Catalog { command: Bytes },
    /// Rows of the catalog, at most `limit`; on the leader of the default group.
    ReadCatalog { part: CatalogPart, limit: u32 },
    /// A step of a range's move, an encoded `drover.storage.v1.MoveCommand` without rows; on the leader.
    MoveStep { command: Bytes },
    /// What the group's log says of a job; on the leader.
    ObserveMove { job: JobId },
    /// The sum of a range that moves away, as of the log entry that armed it; on any replica that has applied that.
    SumRange { job: JobId, armed_at: u64 },
    /// All jobs below this one are over everywhere: their marks need not be kept; on the leader.
    ForgetJobs { below: JobId },
    /// Writes into a range that moves away are let in no faster than this for a while; on the leader, which keeps it in memory.
    SlowWriters {
        /// Whose range.
        job: JobId,
        /// The course of whoever asks.
        epoch: JobEpoch,
        /// Of keys and values; zero: they are slowed down no longer.
        bytes_per_second: u64,
        /// For how long, in milliseconds, unless it is said again.
        duration_ms: u32,
    },
    /// What a command for the catalog would come to now, as [`GroupOp::Catalog`]; nothing is changed.
    JudgeCatalog { command: Bytes },
    /// How far these jobs are; on the leader of the default group.
    JobProgress { jobs: Vec<JobId> },
}

/// Rows of the catalog that are read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogPart {
    /// Counters, settings, the compatibility state.
    Meta,
    /// The nodes.
    Nodes,
    /// The groups.
    Groups,
    /// What has been done; the newest rows.
    Audit,
    /// The jobs with this number or a lower one, the newest ones, the newest first.
    Jobs {
        /// The highest number.
        newest: JobId,
    },
}

/// What a group says of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeFacts {
    /// What its rows take in the store, compressed, all versions; an estimate.
    pub approximate_bytes: u64,
    /// The owned intervals that share a key with it, ascending.
    pub owned: Vec<OwnershipFacts>,
}

/// An interval that a group owns, as its log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnershipFacts {
    /// Route keys.
    pub interval: Interval,
    /// Physical keyspace.
    pub shard: ShardId,
    /// Catalog version at which this uninterrupted ownership began.
    pub acquired_version: CatalogVersion,
    /// Commit timestamps at or below it are refused.
    pub floor_ts: Timestamp,
    /// Snapshots below it are refused.
    pub history_start: Timestamp,
    /// Snapshots below it are refused, and garbage collection works up to it.
    pub safe_point: Timestamp,
}

/// A [`GroupOp`] on its way to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCall {
    /// The group.
    pub group: GroupId,
    /// What is left of the caller's deadline, in milliseconds; zero: nothing.
    pub timeout_ms: u32,
    /// What to do.
    pub op: GroupOp,
}

/// A replica's digest of its state at a log index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupDigest {
    /// Log index at which it was taken.
    pub index: u64,
    /// The digest.
    pub digest: u128,
    /// Rows that went into it.
    pub rows: u64,
}

/// What a group answers if nothing went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupAnswer {
    /// To [`GroupOp::Write`].
    Written(Outcome),
    /// To [`GroupOp::Read`].
    Read(ReadAnswer),
    /// To [`GroupOp::Digest`].
    Digest(GroupDigest),
    /// To [`GroupOp::Describe`], in its order.
    Described(Vec<RangeFacts>),
    /// To [`GroupOp::Catalog`]: an encoded `drover.storage.v1.CatalogReply`.
    Catalog(Bytes),
    /// To [`GroupOp::ReadCatalog`]: key and value of each row, as they stand in the store.
    CatalogRows(Vec<(Bytes, Bytes)>),
    /// To [`GroupOp::MoveStep`], [`GroupOp::ForgetJobs`] and [`GroupOp::SlowWriters`]: whether anything was changed.
    Moved(bool),
    /// To [`GroupOp::ObserveMove`]: an encoded `drover.v1.MoveFacts`.
    MoveFacts(Bytes),
    /// To [`GroupOp::SumRange`].
    RangeSum(BaseSum),
    /// To [`GroupOp::JudgeCatalog`]: an encoded `drover.storage.v1.CatalogReply`, and whether the command would change
    /// something. A refusal is an error.
    Judged {
        /// What it would be answered with.
        reply: Bytes,
        /// Not if it was carried out before, or there is nothing to do.
        changes: bool,
    },
    /// To [`GroupOp::JobProgress`]: of the jobs of which something is known.
    JobProgress(Vec<JobProgress>),
}

/// A call as a message.
pub fn encode_group_request(call: &GroupCall) -> v1::GroupRequest {
    use v1::group_request::Body;
    let (observed_version, body) = match &call.op {
        GroupOp::Write(op) => {
            let operation = Some(encode_operation(op, Timestamp::ZERO));
            (op.observed_version, Body::Write(v1::GroupWrite { operation }))
        }
        GroupOp::Read { op, observed_version } => (*observed_version, encode_read(op)),
        GroupOp::Digest { index } => (None, Body::Digest(v1::GroupDigest { index: *index })),
        GroupOp::Describe { intervals } => {
            (None, Body::Describe(v1::GroupDescribe { ranges: intervals.iter().map(encode_range).collect() }))
        }
        GroupOp::Catalog { command } => (None, Body::Catalog(command.clone())),
        GroupOp::ReadCatalog { part, limit } => {
            let (part, newest_job) = match part {
                CatalogPart::Meta => (v1::group_read_catalog::Part::Meta, 0),
                CatalogPart::Nodes => (v1::group_read_catalog::Part::Nodes, 0),
                CatalogPart::Groups => (v1::group_read_catalog::Part::Groups, 0),
                CatalogPart::Audit => (v1::group_read_catalog::Part::Audit, 0),
                CatalogPart::Jobs { newest } => (v1::group_read_catalog::Part::Jobs, newest.0),
            };
            (None, Body::ReadCatalog(v1::GroupReadCatalog { part: part.into(), limit: *limit, newest_job }))
        }
        GroupOp::JudgeCatalog { command } => (None, Body::JudgeCatalog(command.clone())),
        GroupOp::JobProgress { jobs } => {
            (None, Body::JobProgress(v1::GroupJobs { job_ids: jobs.iter().map(|job| job.0).collect() }))
        }
        GroupOp::MoveStep { command } => (None, Body::MoveStep(command.clone())),
        GroupOp::ObserveMove { job } => (None, Body::ObserveMove(v1::GroupObserveMove { job_id: job.0 })),
        GroupOp::SumRange { job, armed_at } => {
            (None, Body::SumRange(v1::GroupSumRange { job_id: job.0, armed_at: *armed_at }))
        }
        GroupOp::ForgetJobs { below } => (None, Body::ForgetJobs(v1::GroupForgetJobs { below: below.0 })),
        GroupOp::SlowWriters { job, epoch, bytes_per_second, duration_ms } => {
            let (bytes_per_second, duration_ms) = (*bytes_per_second, *duration_ms);
            let slow = v1::GroupSlowWriters { job_id: job.0, epoch: epoch.0, bytes_per_second, duration_ms };
            (None, Body::SlowWriters(slow))
        }
    };
    v1::GroupRequest {
        group_id: call.group.0,
        timeout_ms: call.timeout_ms,
        observed_version: observed_version.map_or(0, |v| v.0),
        body: Some(body),
    }
}

/// A call from its message.
///
/// # Errors
/// If a part is missing or malformed.
pub fn decode_group_request(request: v1::GroupRequest) -> Result<GroupCall, WireError> {
    use v1::group_request::Body;
    let observed_version = (request.observed_version != 0).then_some(CatalogVersion(request.observed_version));
    let read = |op| GroupOp::Read { op, observed_version };
    let op = match request.body.ok_or(WireError::Missing("body"))? {
        Body::Write(v1::GroupWrite { operation }) => {
            let (op, commit_ts) = decode_operation(operation.ok_or(WireError::Missing("operation"))?)?;
            if commit_ts != Timestamp::ZERO {
                return Err(WireError::Contradiction("a forwarded write carries a commit timestamp"));
            }
            if op.observed_version != observed_version {
                return Err(WireError::Contradiction("observed_version differs between the request and its operation"));
            }
            GroupOp::Write(op)
        }
        Body::Get(get) => read(ReadOp::Get { key: get.key, read_ts: optional_ts(get.read_ts) }),
        Body::BatchGet(get) => read(ReadOp::BatchGet { keys: get.keys, read_ts: Timestamp::from_raw(get.read_ts) }),
        Body::Scan(scan) => read(ReadOp::Scan(decode_scan(scan)?)),
        Body::LatestCommitTs(latest) => read(ReadOp::LatestCommitTs { key: latest.key }),
        Body::TxnRefresh(refresh) => read(ReadOp::Refresh(decode_refresh(refresh)?)),
        Body::TxnStatus(status) => {
            read(ReadOp::TxnStatus { id: decode_txn_id(&status.txn_id)?, primary: status.primary })
        }
        Body::Locks(locks) => read(ReadOp::Locks { interval: decode_range(locks.range)?, limit: locks.limit }),
        Body::Digest(v1::GroupDigest { index }) => GroupOp::Digest { index },
        Body::Describe(v1::GroupDescribe { ranges }) => GroupOp::Describe {
            intervals: ranges.into_iter().map(|range| decode_range(Some(range))).collect::<Result<_, _>>()?,
        },
        Body::Catalog(command) => GroupOp::Catalog { command },
        Body::ReadCatalog(v1::GroupReadCatalog { part, limit, newest_job }) => {
            let part = match v1::group_read_catalog::Part::try_from(part) {
                Ok(v1::group_read_catalog::Part::Meta) => CatalogPart::Meta,
                Ok(v1::group_read_catalog::Part::Nodes) => CatalogPart::Nodes,
                Ok(v1::group_read_catalog::Part::Groups) => CatalogPart::Groups,
                Ok(v1::group_read_catalog::Part::Audit) => CatalogPart::Audit,
                Ok(v1::group_read_catalog::Part::Jobs) => CatalogPart::Jobs { newest: JobId(newest_job) },
                Ok(v1::group_read_catalog::Part::Unspecified) | Err(_) => {
                    return Err(WireError::Malformed("part of the catalog"));
                }
            };
            GroupOp::ReadCatalog { part, limit }
        }
        Body::MoveStep(command) => GroupOp::MoveStep { command },
        Body::ObserveMove(v1::GroupObserveMove { job_id }) => GroupOp::ObserveMove { job: JobId(job_id) },
        Body::SumRange(v1::GroupSumRange { job_id, armed_at }) => GroupOp::SumRange { job: JobId(job_id), armed_at },
        Body::ForgetJobs(v1::GroupForgetJobs { below }) => GroupOp::ForgetJobs { below: JobId(below) },
        Body::SlowWriters(v1::GroupSlowWriters { job_id, epoch, bytes_per_second, duration_ms }) => {
            GroupOp::SlowWriters { job: JobId(job_id), epoch: JobEpoch(epoch), bytes_per_second, duration_ms }
        }
        Body::JudgeCatalog(command) => GroupOp::JudgeCatalog { command },
        Body::JobProgress(v1::GroupJobs { job_ids }) => {
            GroupOp::JobProgress { jobs: job_ids.into_iter().map(JobId).collect() }
        }
    };
    Ok(GroupCall { group: GroupId(request.group_id), timeout_ms: request.timeout_ms, op })
}

fn encode_read(op: &ReadOp) -> v1::group_request::Body {
    use v1::group_request::Body;
    match op {
        ReadOp::Get { key, read_ts } => Body::Get(v1::GroupGet { key: key.clone(), read_ts: raw_ts(*read_ts) }),
        ReadOp::BatchGet { keys, read_ts } => {
            Body::BatchGet(v1::GroupBatchGet { keys: keys.clone(), read_ts: read_ts.raw() })
        }
        ReadOp::Scan(scan) => Body::Scan(v1::GroupScan {
            range: Some(encode_range(&scan.interval)),
            read_ts: scan.read_ts.raw(),
            reverse: scan.reverse,
            keys_only: scan.keys_only,
            count_only: scan.count_only,
            limit_rows: scan.limits.rows,
            limit_bytes: scan.limits.bytes,
        }),
        ReadOp::LatestCommitTs { key } => Body::LatestCommitTs(v1::GroupLatestCommitTs { key: key.clone() }),
        ReadOp::Refresh(refresh) => Body::TxnRefresh(encode_refresh(refresh)),
        ReadOp::TxnStatus { id, primary } => {
            Body::TxnStatus(v1::GroupTxnStatus { txn_id: encode_txn_id(*id), primary: primary.clone() })
        }
        ReadOp::Locks { interval, limit } => {
            Body::Locks(v1::GroupLocks { range: Some(encode_range(interval)), limit: *limit })
        }
    }
}

fn decode_scan(scan: v1::GroupScan) -> Result<ScanRequest, WireError> {
    Ok(ScanRequest {
        interval: decode_range(scan.range)?,
        read_ts: Timestamp::from_raw(scan.read_ts),
        reverse: scan.reverse,
        keys_only: scan.keys_only,
        count_only: scan.count_only,
        limits: ScanLimits { rows: scan.limit_rows, bytes: scan.limit_bytes },
    })
}

/// An answer as a message.
pub fn encode_group_response(answer: Result<GroupAnswer, Error>) -> v1::GroupResponse {
    use v1::group_response::Body;
    let lock = answer.as_ref().err().and_then(|error| error.lock.as_deref()).map(encode_lock);
    let body = match answer {
        Err(error) => Body::Error(error_to_status_bytes(&error)),
        Ok(GroupAnswer::Written(outcome)) => Body::Written(v1::GroupWritten { outcome: Some(encode_outcome(outcome)) }),
        Ok(GroupAnswer::Read(ReadAnswer::Get { version, read_ts })) => {
            Body::Get(v1::GroupGot { version: version.map(encode_version), read_ts: raw_ts(read_ts) })
        }
        Ok(GroupAnswer::Read(ReadAnswer::BatchGet { versions })) => {
            Body::BatchGet(v1::GroupBatchGot { versions: versions.into_iter().map(maybe_version).collect() })
        }
        Ok(GroupAnswer::Read(ReadAnswer::Scan(page))) => Body::Scan(v1::GroupScanned {
            entries: page.entries.into_iter().map(key_value).collect(),
            count: page.count,
            cursor: page.cursor.map(|c| c.0),
        }),
        Ok(GroupAnswer::Read(ReadAnswer::LatestCommitTs(ts))) => Body::LatestCommitTs(raw_ts(ts)),
        Ok(GroupAnswer::Read(ReadAnswer::Refreshed)) => Body::TxnRefreshed(v1::Unit {}),
        Ok(GroupAnswer::Read(ReadAnswer::TxnStatus(status))) => Body::TxnStatus(encode_known(status)),
        Ok(GroupAnswer::Read(ReadAnswer::Locks { locks, resume })) => {
            Body::Locks(v1::GroupLocked { locks: locks.iter().map(encode_lock).collect(), resume })
        }
        Ok(GroupAnswer::Digest(GroupDigest { index, digest, rows })) => {
            Body::Digest(v1::GroupDigested { index, digest: Bytes::copy_from_slice(&digest.to_be_bytes()), rows })
        }
        Ok(GroupAnswer::Described(ranges)) => {
            Body::Describe(v1::GroupDescribed { ranges: ranges.iter().map(encode_facts).collect() })
        }
        Ok(GroupAnswer::Catalog(reply)) => Body::Catalog(reply),
        Ok(GroupAnswer::CatalogRows(rows)) => {
            let rows = rows.into_iter().map(|(key, value)| v1::CatalogRowBytes { key, value });
            Body::CatalogRows(v1::GroupCatalogRows { rows: rows.collect() })
        }
        Ok(GroupAnswer::Moved(changed)) => Body::Moved(changed),
        Ok(GroupAnswer::MoveFacts(facts)) => Body::MoveFacts(facts),
        Ok(GroupAnswer::RangeSum(sum)) => Body::RangeSum(encode_base_sum(&sum)),
        Ok(GroupAnswer::Judged { reply, changes }) => Body::Judged(v1::GroupJudged { reply, changes }),
        Ok(GroupAnswer::JobProgress(jobs)) => {
            Body::JobProgress(v1::GroupJobProgress { jobs: jobs.iter().map(encode_job_progress).collect() })
        }
    };
    v1::GroupResponse { body: Some(body), lock, newer_routes: Vec::new() }
}

/// Takes the changes of routes out of an answer. A change that cannot be read, and all after it, are left out: they come
/// by other ways.
pub fn take_newer_routes(response: &mut v1::GroupResponse) -> Vec<RouteDelta> {
    std::mem::take(&mut response.newer_routes).into_iter().map_while(|delta| decode_route_delta(delta).ok()).collect()
}

fn encode_facts(facts: &RangeFacts) -> v1::RangeFacts {
    let owned = facts.owned.iter().map(|owned| v1::Ownership {
        start: owned.interval.start().clone(),
        end: owned.interval.end().as_key().cloned(),
        shard_id: owned.shard.0,
        acquired_version: owned.acquired_version.0,
        floor_ts: owned.floor_ts.raw(),
        history_start: owned.history_start.raw(),
        safe_point: owned.safe_point.raw(),
    });
    v1::RangeFacts { approximate_bytes: facts.approximate_bytes, owned: owned.collect() }
}

fn decode_facts(facts: v1::RangeFacts) -> Result<RangeFacts, WireError> {
    let owned = facts.owned.into_iter().map(|owned| {
        Ok(OwnershipFacts {
            interval: interval(owned.start, owned.end)?,
            shard: ShardId(owned.shard_id),
            acquired_version: CatalogVersion(owned.acquired_version),
            floor_ts: Timestamp::from_raw(owned.floor_ts),
            history_start: Timestamp::from_raw(owned.history_start),
            safe_point: Timestamp::from_raw(owned.safe_point),
        })
    });
    Ok(RangeFacts { approximate_bytes: facts.approximate_bytes, owned: owned.collect::<Result<_, WireError>>()? })
}

/// An answer from its message.
///
/// # Errors
/// The error that the group answered with; or, if the message is malformed, an internal one of unknown certainty.
pub fn decode_group_response(response: v1::GroupResponse) -> Result<GroupAnswer, Error> {
    decode_body(response).unwrap_or_else(|error| {
        Err(Error::unknown(
            Reason::Internal,
            format!("the answer of the group cannot be read: {error}; the operation may have been applied"),
        ))
    })
}

fn decode_body(response: v1::GroupResponse) -> Result<Result<GroupAnswer, Error>, WireError> {
    use v1::group_response::Body;
    let read = |answer| Ok(Ok(GroupAnswer::Read(answer)));
    match response.body.ok_or(WireError::Missing("body"))? {
        Body::Error(bytes) => {
            let lock = response.lock.map(decode_lock).transpose()?.map(Box::new);
            Ok(Err(Error { lock, ..status_bytes_to_error(&bytes) }))
        }
        Body::Written(v1::GroupWritten { outcome }) => {
            Ok(Ok(GroupAnswer::Written(decode_outcome(outcome.ok_or(WireError::Missing("outcome"))?))))
        }
        Body::Get(got) => {
            read(ReadAnswer::Get { version: got.version.map(decode_version), read_ts: optional_ts(got.read_ts) })
        }
        Body::BatchGet(got) => read(ReadAnswer::BatchGet {
            versions: got.versions.into_iter().map(|v| v.version.map(decode_version)).collect(),
        }),
        Body::Scan(scanned) => read(ReadAnswer::Scan(decode_page(scanned)?)),
        Body::LatestCommitTs(raw) => read(ReadAnswer::LatestCommitTs(optional_ts(raw))),
        Body::TxnRefreshed(v1::Unit {}) => read(ReadAnswer::Refreshed),
        Body::TxnStatus(known) => read(ReadAnswer::TxnStatus(decode_known(known)?)),
        Body::Locks(v1::GroupLocked { locks, resume }) => {
            let locks = locks.into_iter().map(decode_lock).collect::<Result<_, _>>()?;
            read(ReadAnswer::Locks { locks, resume })
        }
        Body::Digest(v1::GroupDigested { index, digest, rows }) => {
            let digest = digest.as_ref().try_into().map_err(|_| WireError::Malformed("digest"))?;
            Ok(Ok(GroupAnswer::Digest(GroupDigest { index, digest: u128::from_be_bytes(digest), rows })))
        }
        Body::Describe(v1::GroupDescribed { ranges }) => {
            Ok(Ok(GroupAnswer::Described(ranges.into_iter().map(decode_facts).collect::<Result<_, _>>()?)))
        }
        Body::Catalog(reply) => Ok(Ok(GroupAnswer::Catalog(reply))),
        Body::CatalogRows(v1::GroupCatalogRows { rows }) => {
            Ok(Ok(GroupAnswer::CatalogRows(rows.into_iter().map(|row| (row.key, row.value)).collect())))
        }
        Body::Moved(changed) => Ok(Ok(GroupAnswer::Moved(changed))),
        Body::MoveFacts(facts) => Ok(Ok(GroupAnswer::MoveFacts(facts))),
        Body::RangeSum(sum) => Ok(Ok(GroupAnswer::RangeSum(decode_base_sum(&sum)))),
        Body::Judged(v1::GroupJudged { reply, changes }) => Ok(Ok(GroupAnswer::Judged { reply, changes })),
        Body::JobProgress(v1::GroupJobProgress { jobs }) => {
            Ok(Ok(GroupAnswer::JobProgress(jobs.into_iter().map(decode_job_progress).collect())))
        }
    }
}

fn decode_page(scanned: v1::GroupScanned) -> Result<ScanPage, WireError> {
    let entry = |kv: v1::KeyValue| {
        let version: Versioned = decode_version(kv.version.ok_or(WireError::Missing("version"))?);
        Ok(Entry { key: kv.key, version })
    };
    Ok(ScanPage {
        entries: scanned.entries.into_iter().map(entry).collect::<Result<_, WireError>>()?,
        count: scanned.count,
        cursor: scanned.cursor.map(ScanCursor),
    })
}

fn encode_outcome(outcome: Outcome) -> v1::group_written::Outcome {
    match outcome {
        Outcome::Written { commit_ts } => v1::group_written::Outcome::CommitTs(commit_ts.raw()),
        Outcome::CompareFailed { current } => {
            v1::group_written::Outcome::CompareFailed(v1::GroupCompareFailed { current: current.map(encode_version) })
        }
        Outcome::RangeDeleted { commit_ts, deleted, resume } => {
            v1::group_written::Outcome::RangeDeleted(v1::GroupRangeDeleted {
                commit_ts: commit_ts.raw(),
                deleted,
                resume,
            })
        }
        Outcome::Settled => v1::group_written::Outcome::Settled(v1::Unit {}),
        Outcome::TxnCommitted { commit_ts } => v1::group_written::Outcome::TxnCommitted(commit_ts.raw()),
        Outcome::TxnLocked { expire_at, changes_at } => v1::group_written::Outcome::TxnLocked(v1::GroupTxnLocked {
            expire_at: expire_at.raw(),
            changes_at: changes_at.map(Timestamp::raw),
        }),
        Outcome::TxnRolledBack => v1::group_written::Outcome::TxnRolledBack(v1::Unit {}),
        Outcome::TxnResolved => v1::group_written::Outcome::TxnResolved(v1::Unit {}),
    }
}

fn decode_outcome(outcome: v1::group_written::Outcome) -> Outcome {
    match outcome {
        v1::group_written::Outcome::CommitTs(raw) => Outcome::Written { commit_ts: Timestamp::from_raw(raw) },
        v1::group_written::Outcome::CompareFailed(failed) => {
            Outcome::CompareFailed { current: failed.current.map(decode_version) }
        }
        v1::group_written::Outcome::RangeDeleted(deleted) => Outcome::RangeDeleted {
            commit_ts: Timestamp::from_raw(deleted.commit_ts),
            deleted: deleted.deleted,
            resume: deleted.resume,
        },
        v1::group_written::Outcome::Settled(v1::Unit {}) => Outcome::Settled,
        v1::group_written::Outcome::TxnCommitted(raw) => Outcome::TxnCommitted { commit_ts: Timestamp::from_raw(raw) },
        v1::group_written::Outcome::TxnLocked(locked) => Outcome::TxnLocked {
            expire_at: Timestamp::from_raw(locked.expire_at),
            changes_at: locked.changes_at.map(Timestamp::from_raw),
        },
        v1::group_written::Outcome::TxnRolledBack(v1::Unit {}) => Outcome::TxnRolledBack,
        v1::group_written::Outcome::TxnResolved(v1::Unit {}) => Outcome::TxnResolved,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::strategies;

    #[test]
    fn a_forwarded_write_must_not_choose_its_commit_timestamp() {
        let op = drover_kv::WriteKind::Delete { key: "k".into() };
        let op = WriteOp { kind: op, observed_version: Some(CatalogVersion(4)), idempotency: None };
        let call = GroupCall { group: GroupId(1), timeout_ms: 5, op: GroupOp::Write(op) };
        let good = encode_group_request(&call);
        assert_eq!(decode_group_request(good.clone()), Ok(call));
        let mut stamped = good.clone();
        if let Some(v1::group_request::Body::Write(v1::GroupWrite { operation: Some(operation) })) = &mut stamped.body {
            operation.commit_ts = 9;
        }
        assert!(matches!(decode_group_request(stamped), Err(WireError::Contradiction(_))));
        let other = v1::GroupRequest { observed_version: 5, ..good };
        assert!(matches!(decode_group_request(other), Err(WireError::Contradiction(_))));
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_of_unknown_certainty() {
        let short = v1::group_response::Body::Digest(v1::GroupDigested { digest: "x".into(), ..Default::default() });
        for body in [None, Some(short)] {
            let error = decode_group_response(v1::GroupResponse { body, ..Default::default() }).unwrap_err();
            assert_eq!((error.reason, error.is_unknown()), (Reason::Internal, true));
        }
    }

    proptest! {
        #[test]
        fn calls_round_trip(call in strategies::group_call()) {
            let bytes = encode_group_request(&call).encode_to_vec();
            prop_assert_eq!(decode_group_request(v1::GroupRequest::decode(&bytes[..]).unwrap()).unwrap(), call);
        }

        #[test]
        fn answers_round_trip(answer in strategies::group_answer()) {
            let bytes = encode_group_response(answer.clone()).encode_to_vec();
            prop_assert_eq!(decode_group_response(v1::GroupResponse::decode(&bytes[..]).unwrap()), answer);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(request) = v1::GroupRequest::decode(&bytes[..]) {
                let _ = decode_group_request(request);
            }
            if let Ok(response) = v1::GroupResponse::decode(&bytes[..]) {
                let _ = decode_group_response(response);
            }
        }

        #[test]
        fn damaged_calls_never_panic(call in strategies::group_call(), at: prop::sample::Index, byte: u8) {
            let mut bytes = encode_group_request(&call).encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(request) = v1::GroupRequest::decode(&bytes[..]) {
                let _ = decode_group_request(request);
            }
        }
    }
}
