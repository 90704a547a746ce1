//! `drover.storage.v1.Command`: what stands in the log of a group.

use drover_catalog::CatalogCommand;
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{CatalogVersion, Interval, JobEpoch, JobId, RouteId, ShardId};
use drover_kv::{Error, Reason, TxnId, WriteKind, WriteOp};
use drover_rafttypes::CommandBytes;
use drover_wire::proto::storage::v1 as pb;
use drover_wire::{decode_operation, decode_range, decode_txn_id, encode_operation, encode_range, encode_txn_id};
use pb::command::Body;
use prost::Message;

use super::{catalog, moving};
use crate::ApplyError;
use crate::moving::MoveStep;

/// The format that this build writes, and the highest it reads. Zero is never written.
pub const FORMAT: u32 = 1;

/// A write and the commit timestamp that the oracle gave for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedWrite {
    /// What to do.
    pub op: WriteOp,
    /// From a request that was sent to the oracle after the keys were registered.
    pub commit_ts: Timestamp,
}

/// One of the first intervals of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Route keys.
    pub interval: Interval,
    /// Name for people.
    pub route: RouteId,
    /// Physical keyspace.
    pub shard: ShardId,
    /// The catalog version that names this group as the owner.
    pub acquired_version: CatalogVersion,
}

/// Names an idempotency record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordName {
    /// Route key of the operation.
    pub route_key: bytes::Bytes,
    /// Its idempotency key.
    pub idempotency_key: bytes::Bytes,
}

/// Names what is recorded of a transaction under one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TxnRecordName {
    /// The primary, or the first key of a participant.
    pub route_key: bytes::Bytes,
    /// The transaction.
    pub id: TxnId,
    /// A participant's marker, not the outcome.
    pub marker: bool,
}

/// A step of a range's move to another group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MoveCommand {
    /// Whose it is.
    pub job: JobId,
    /// The course that it belongs to.
    pub epoch: JobEpoch,
    /// What to do.
    pub step: MoveStep,
}

/// What a log entry asks apply to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Writes, in the order of their commit timestamps.
    Write(Vec<TimedWrite>),
    /// Gives the group its first intervals; once in its life.
    GrantRange(Vec<Grant>),
    /// Default group only: how far the oracle may go.
    SetCeiling(PhysicalMs),
    /// Raises the safe point of every owned interval.
    AdvanceSafePoint(Timestamp),
    /// Raises the horizon at or below which records may be removed.
    AdvanceRecordHorizon(Timestamp),
    /// Removes those of these records that lie at or below the horizon.
    RemoveRecords(Vec<RecordName>),
    /// Makes every replica compute a digest of its state at this entry.
    TakeDigest { request_id: u64 },
    /// Default group only: a command of the catalog.
    Catalog(Box<CatalogCommand>),
    /// Raises the horizon of every owned interval at or below which transactions are refused.
    AdvanceTxnHorizon(Timestamp),
    /// Removes those of these that belong to transactions at or below the horizon with nothing left to be done.
    RemoveTxnRecords(Vec<TxnRecordName>),
    /// A step of a range's move to another group.
    Move(Box<MoveCommand>),
    /// Forgets the marks of jobs below this one, all of which are over.
    AdvanceJobHorizon(JobId),
}

impl Command {
    /// The entry's bytes, for a proposal in `admitted_term` only.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`], definite, for a write that apply could not read: a settle without an idempotency
    /// key, or an empty one. The same for a command that no catalog would accept.
    pub fn encode(&self, admitted_term: u64) -> Result<CommandBytes, Error> {
        let body = match self {
            Command::Write(writes) => {
                let operations = writes.iter().map(encode_write).collect::<Result<_, _>>()?;
                Body::WriteBatch(pb::WriteBatch { operations })
            }
            Command::GrantRange(grants) => {
                Body::GrantRange(pb::GrantRange { grants: grants.iter().map(encode_grant).collect() })
            }
            Command::SetCeiling(physical) => Body::SetCeiling(pb::SetCeiling { physical_ms: physical.unix_ms() }),
            Command::AdvanceSafePoint(ts) => Body::AdvanceSafePoint(pb::AdvanceSafePoint { safe_point: ts.raw() }),
            Command::AdvanceRecordHorizon(ts) => {
                Body::AdvanceRecordHorizon(pb::AdvanceRecordHorizon { horizon: ts.raw() })
            }
            Command::RemoveRecords(names) => Body::RemoveRecords(pb::RemoveRecords {
                records: names
                    .iter()
                    .map(|name| pb::RecordName {
                        route_key: name.route_key.clone(),
                        idempotency_key: name.idempotency_key.clone(),
                    })
                    .collect(),
            }),
            Command::TakeDigest { request_id } => Body::TakeDigest(pb::TakeDigest { request_id: *request_id }),
            Command::AdvanceTxnHorizon(ts) => Body::AdvanceTxnHorizon(pb::AdvanceTxnHorizon { horizon: ts.raw() }),
            Command::RemoveTxnRecords(names) => Body::RemoveTxnRecords(pb::RemoveTxnRecords {
                records: names
                    .iter()
                    .map(|name| pb::TxnRecordName {
                        route_key: name.route_key.clone(),
                        txn_id: encode_txn_id(name.id),
                        marker: name.marker,
                    })
                    .collect(),
            }),
            Command::Move(command) => Body::Move(moving::encode(command)),
            Command::AdvanceJobHorizon(job) => Body::AdvanceJobHorizon(pb::AdvanceJobHorizon { job_id: job.0 }),
            Command::Catalog(command) => {
                command.check().map_err(|refusal| Error::definite(Reason::InvalidArgument, refusal.to_string()))?;
                Body::Catalog(catalog::command::encode(command))
            }
        };
        let command = pb::Command { format: FORMAT, admitted_term, body: Some(body) };
        Ok(CommandBytes(command.encode_to_vec().into()))
    }

    /// Reads the entry at log index `index`: the term it was admitted in, and what it asks for.
    ///
    /// # Errors
    /// Fatal ones: bytes that are no command, a format or type that this build does not know.
    pub fn decode(index: u64, bytes: &CommandBytes) -> Result<(u64, Command), ApplyError> {
        let bad = |what: String| ApplyError::BadEntry { index, what };
        let message = pb::Command::decode(bytes.0.clone()).map_err(|e| bad(e.to_string()))?;
        match message.format {
            FORMAT => {}
            0 => return Err(bad("it has no format".to_owned())),
            format => return Err(ApplyError::UnknownFormat { index, format, known: FORMAT }),
        }
        let command = match message.body.ok_or(ApplyError::UnknownEntry { index })? {
            Body::WriteBatch(batch) => {
                let unknown = batch.operations.iter().any(|op| op.kind.is_none());
                if unknown {
                    return Err(ApplyError::UnknownEntry { index });
                }
                Command::Write(batch.operations.into_iter().map(decode_write).collect::<Result<_, _>>().map_err(bad)?)
            }
            Body::GrantRange(grant) => {
                Command::GrantRange(grant.grants.into_iter().map(decode_grant).collect::<Result<_, _>>().map_err(bad)?)
            }
            Body::SetCeiling(pb::SetCeiling { physical_ms }) => {
                Command::SetCeiling(PhysicalMs::new(physical_ms).map_err(|e| bad(e.to_string()))?)
            }
            Body::AdvanceSafePoint(advance) => Command::AdvanceSafePoint(Timestamp::from_raw(advance.safe_point)),
            Body::AdvanceRecordHorizon(advance) => Command::AdvanceRecordHorizon(Timestamp::from_raw(advance.horizon)),
            Body::RemoveRecords(remove) => Command::RemoveRecords(
                remove
                    .records
                    .into_iter()
                    .map(|name| RecordName { route_key: name.route_key, idempotency_key: name.idempotency_key })
                    .collect(),
            ),
            Body::TakeDigest(pb::TakeDigest { request_id }) => Command::TakeDigest { request_id },
            Body::AdvanceTxnHorizon(advance) => Command::AdvanceTxnHorizon(Timestamp::from_raw(advance.horizon)),
            Body::RemoveTxnRecords(remove) => {
                let name = |name: pb::TxnRecordName| {
                    let id = decode_txn_id(&name.txn_id).map_err(|e| bad(e.to_string()))?;
                    Ok(TxnRecordName { route_key: name.route_key, id, marker: name.marker })
                };
                Command::RemoveTxnRecords(remove.records.into_iter().map(name).collect::<Result<_, ApplyError>>()?)
            }
            Body::Move(command) if command.step.is_none() => return Err(ApplyError::UnknownEntry { index }),
            Body::Move(command) => Command::Move(Box::new(moving::decode(command).map_err(bad)?)),
            Body::AdvanceJobHorizon(advance) => Command::AdvanceJobHorizon(JobId(advance.job_id)),
            Body::Catalog(command) if command.kind.is_none() => return Err(ApplyError::UnknownEntry { index }),
            Body::Catalog(command) => Command::Catalog(Box::new(catalog::command::decode(command).map_err(bad)?)),
        };
        Ok((message.admitted_term, command))
    }
}

fn encode_write(write: &TimedWrite) -> Result<pb::Operation, Error> {
    let invalid = |what| Err(Error::definite(Reason::InvalidArgument, format!("{what}; nothing was changed")));
    match (&write.op.kind, &write.op.idempotency) {
        (WriteKind::Settle { .. }, None) => invalid("a settle needs the idempotency key of the operation to settle"),
        (_, Some(idempotency)) if idempotency.key.is_empty() => invalid("the idempotency key is empty"),
        (WriteKind::Txn(step), _) if step.keys().next().is_none() => {
            invalid("the step of the transaction names no key")
        }
        (WriteKind::Txn(_), Some(_)) => invalid("a transaction is named by its id, not by an idempotency key"),
        _ => Ok(encode_operation(&write.op, write.commit_ts)),
    }
}

fn decode_write(message: pb::Operation) -> Result<TimedWrite, String> {
    let (op, commit_ts) = decode_operation(message).map_err(|e| e.to_string())?;
    match (&op.kind, &op.idempotency) {
        (WriteKind::Settle { .. }, None) => Err("a settle has no idempotency key".to_owned()),
        (WriteKind::Txn(_), Some(_)) => Err("a step of a transaction with an idempotency key".to_owned()),
        _ => Ok(TimedWrite { op, commit_ts }),
    }
}

fn encode_grant(grant: &Grant) -> pb::Grant {
    pb::Grant {
        range: Some(encode_range(&grant.interval)),
        route_id: grant.route.0,
        shard_id: grant.shard.0,
        acquired_version: grant.acquired_version.0,
    }
}

fn decode_grant(message: pb::Grant) -> Result<Grant, String> {
    Ok(Grant {
        interval: decode_range(message.range).map_err(|e| e.to_string())?,
        route: RouteId(message.route_id),
        shard: ShardId(message.shard_id),
        acquired_version: CatalogVersion(message.acquired_version),
    })
}

#[cfg(test)]
mod tests {
    use drover_catalog::{CatalogCommandKind, RequestId};
    use drover_kv::Idempotency;
    use proptest::prelude::*;

    use super::*;
    use crate::state::tests::{interval, ts};

    fn write(kind: WriteKind, key: Option<&'static str>) -> TimedWrite {
        let idempotency = key.map(|key| Idempotency { key: key.into(), not_after: ts(9) });
        TimedWrite { op: WriteOp { kind, observed_version: Some(CatalogVersion(1)), idempotency }, commit_ts: ts(3) }
    }

    #[test]
    fn golden_bytes_of_every_command() {
        let grant = Grant {
            interval: interval("a", "b"),
            route: RouteId(1),
            shard: ShardId(2),
            acquired_version: CatalogVersion(3),
        };
        let name = RecordName { route_key: "r".into(), idempotency_key: "i".into() };
        let delete = WriteKind::Delete { key: "k".into() };
        let catalog = CatalogCommand {
            request_id: RequestId([7; 16]),
            actor: "a".to_owned(),
            now: PhysicalMs::new(5).unwrap(),
            kind: CatalogCommandKind::Freeze,
        };
        let catalog_bytes = [&[0x52, 25, 10, 16][..], &[7; 16], &[18, 1, b'a', 24, 5, 0x72, 0]].concat();
        let forgotten = |marker| TxnRecordName { route_key: "r".into(), id: TxnId([7; 16]), marker };
        let remove = [
            &[0x62, 48, 10, 21, 10, 1, b'r', 18, 16][..],
            &[7; 16],
            &[10, 23, 10, 1, b'r', 18, 16],
            &[7; 16],
            &[24, 1],
        ];
        let remove = remove.concat();
        let table: [(Command, &[u8]); 10] = [
            (Command::AdvanceTxnHorizon(ts(7)), &[0x5a, 2, 8, 7]),
            (Command::RemoveTxnRecords(vec![forgotten(false), forgotten(true)]), &remove),
            (Command::Write(vec![write(delete, None)]), &[0x1a, 11, 10, 9, 8, 3, 16, 1, 0x32, 3, 10, 1, b'k']),
            (
                Command::GrantRange(vec![grant]),
                &[0x22, 16, 10, 14, 10, 6, 10, 1, b'a', 18, 1, b'b', 16, 1, 24, 2, 32, 3],
            ),
            (Command::SetCeiling(PhysicalMs::new(5).unwrap()), &[0x2a, 2, 8, 5]),
            (Command::AdvanceSafePoint(ts(6)), &[0x32, 2, 8, 6]),
            (Command::AdvanceRecordHorizon(ts(7)), &[0x3a, 2, 8, 7]),
            (Command::RemoveRecords(vec![name]), &[0x42, 8, 10, 6, 10, 1, b'r', 18, 1, b'i']),
            (Command::TakeDigest { request_id: 8 }, &[0x4a, 2, 8, 8]),
            (Command::Catalog(Box::new(catalog)), &catalog_bytes),
        ];
        for (command, tail) in table {
            let golden = [&[8, 1, 16, 4][..], tail].concat();
            let encoded = command.encode(4).unwrap();
            assert_eq!(encoded.0, golden, "{command:?}");
            assert_eq!(Command::decode(1, &CommandBytes(golden.into())).unwrap(), (4, command));
        }
    }

    #[test]
    fn formats_and_types_of_the_future_are_told_apart_from_damage() {
        let decode = |bytes: &'static [u8]| Command::decode(5, &CommandBytes(bytes.into())).unwrap_err();
        assert!(matches!(decode(&[8, 2, 16, 4, 0x4a, 0]), ApplyError::UnknownFormat { index: 5, format: 2, known: 1 }));
        // Body number 15 is not in this build's table, nor is a move without a step.
        assert!(matches!(decode(&[8, 1, 16, 4, 0x7a, 0]), ApplyError::UnknownEntry { index: 5 }));
        assert!(matches!(decode(&[8, 1, 16, 4, 0x6a, 0]), ApplyError::UnknownEntry { index: 5 }));
        // A catalog command of a kind that is not in this build's table, and one without a request id.
        assert!(matches!(decode(&[8, 1, 0x52, 3, 0xfa, 1, 0]), ApplyError::UnknownEntry { index: 5 }));
        assert!(matches!(decode(&[8, 1, 0x52, 2, 0x72, 0]), ApplyError::BadEntry { .. }));
        // An operation of a kind that is not in this build's table.
        assert!(matches!(decode(&[8, 1, 0x1a, 6, 10, 4, 8, 3, 0x8a, 1]), ApplyError::BadEntry { .. }));
        assert!(matches!(decode(&[8, 1, 0x1a, 7, 10, 5, 8, 3, 0x8a, 1, 0]), ApplyError::UnknownEntry { index: 5 }));
        assert!(matches!(decode(&[]), ApplyError::BadEntry { .. }));
        assert!(matches!(decode(&[0xff]), ApplyError::BadEntry { .. }));
    }

    #[test]
    fn what_apply_could_not_read_is_not_proposed() {
        let settle = WriteKind::Settle { key: "k".into() };
        for bad in [write(settle.clone(), None), write(settle.clone(), Some(""))] {
            assert_eq!(Command::Write(vec![bad]).encode(1).unwrap_err().reason, Reason::InvalidArgument);
        }
        Command::Write(vec![write(settle, Some("i"))]).encode(1).unwrap();
        let nobody = CatalogCommand {
            request_id: RequestId([7; 16]),
            actor: String::new(),
            now: PhysicalMs::default(),
            kind: CatalogCommandKind::Freeze,
        };
        assert_eq!(Command::Catalog(Box::new(nobody)).encode(1).unwrap_err().reason, Reason::InvalidArgument);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Command::decode(1, &CommandBytes(bytes.into()));
        }
    }
}
