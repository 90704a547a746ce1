use drover_hlc::Timestamp;
use drover_keys::CatalogVersion;
use drover_kv::{Expectation, Idempotency, WriteKind, WriteOp};

use crate::WireError;
use crate::proto::storage::v1 as pb;
use crate::range::{decode_range, encode_range};
use crate::txn::{decode_step, decode_update, encode_step, encode_update};

/// A write as it stands in the log. `commit_ts` is [`Timestamp::ZERO`] as long as it is not known.
pub fn encode_operation(op: &WriteOp, commit_ts: Timestamp) -> pb::Operation {
    let idempotency = op.idempotency.clone();
    let (idempotency_key, not_after) = idempotency.map(|i| (i.key, i.not_after.raw())).unwrap_or_default();
    pb::Operation {
        commit_ts: commit_ts.raw(),
        observed_version: op.observed_version.map_or(0, |v| v.0),
        idempotency_key,
        not_after,
        kind: Some(encode_kind(&op.kind)),
    }
}

/// A write from the log, and its commit timestamp.
///
/// # Errors
/// If a part is missing or malformed: the operation is of a kind this build does not know, or corrupt.
pub fn decode_operation(op: pb::Operation) -> Result<(WriteOp, Timestamp), WireError> {
    let idempotency = match (op.idempotency_key, op.not_after) {
        (key, 0) if key.is_empty() => None,
        (key, _) if key.is_empty() => return Err(WireError::Malformed("not_after without idempotency_key")),
        (key, not_after) => Some(Idempotency { key, not_after: Timestamp::from_raw(not_after) }),
    };
    let op_out = WriteOp {
        kind: decode_kind(op.kind.ok_or(WireError::Missing("operation kind"))?)?,
        observed_version: (op.observed_version != 0).then_some(CatalogVersion(op.observed_version)),
        idempotency,
    };
    Ok((op_out, Timestamp::from_raw(op.commit_ts)))
}

fn encode_kind(kind: &WriteKind) -> pb::operation::Kind {
    match kind {
        WriteKind::Put { key, value, ttl_ms } => {
            pb::operation::Kind::Put(pb::PutOp { key: key.clone(), value: value.clone(), ttl_ms: *ttl_ms })
        }
        WriteKind::Delete { key } => pb::operation::Kind::Delete(pb::DeleteOp { key: key.clone() }),
        WriteKind::CompareAndSet { key, expect, update } => {
            let (put_value, ttl_ms) = encode_update(update);
            let expect = Some(encode_expectation(expect));
            pb::operation::Kind::CompareAndSet(pb::CompareAndSetOp { key: key.clone(), expect, put_value, ttl_ms })
        }
        WriteKind::DeleteRange { interval, resume } => pb::operation::Kind::DeleteRange(pb::DeleteRangeOp {
            range: Some(encode_range(interval)),
            resume: resume.clone(),
        }),
        WriteKind::Settle { key } => pb::operation::Kind::Settle(pb::SettleOp { key: key.clone() }),
        WriteKind::Txn(step) => encode_step(step),
    }
}

fn decode_kind(kind: pb::operation::Kind) -> Result<WriteKind, WireError> {
    Ok(match kind {
        pb::operation::Kind::Put(pb::PutOp { key, value, ttl_ms }) => WriteKind::Put { key, value, ttl_ms },
        pb::operation::Kind::Delete(pb::DeleteOp { key }) => WriteKind::Delete { key },
        pb::operation::Kind::CompareAndSet(op) => {
            let update = decode_update(op.put_value, op.ttl_ms)?;
            let expect = decode_expectation(op.expect.ok_or(WireError::Missing("expect"))?)?;
            WriteKind::CompareAndSet { key: op.key, expect, update }
        }
        pb::operation::Kind::DeleteRange(op) => {
            WriteKind::DeleteRange { interval: decode_range(op.range)?, resume: op.resume }
        }
        pb::operation::Kind::Settle(pb::SettleOp { key }) => WriteKind::Settle { key },
        step => match decode_step(step)? {
            Some(step) => WriteKind::Txn(Box::new(step)),
            None => return Err(WireError::Missing("operation kind")),
        },
    })
}

fn encode_expectation(expect: &Expectation) -> pb::compare_and_set_op::Expect {
    match expect {
        Expectation::Absent => pb::compare_and_set_op::Expect::Absent(true),
        Expectation::Present => pb::compare_and_set_op::Expect::Present(true),
        Expectation::Value(value) => pb::compare_and_set_op::Expect::Value(value.clone()),
        Expectation::Version(ts) => pb::compare_and_set_op::Expect::Version(ts.raw()),
    }
}

fn decode_expectation(expect: pb::compare_and_set_op::Expect) -> Result<Expectation, WireError> {
    match expect {
        pb::compare_and_set_op::Expect::Absent(true) => Ok(Expectation::Absent),
        pb::compare_and_set_op::Expect::Present(true) => Ok(Expectation::Present),
        pb::compare_and_set_op::Expect::Absent(false) | pb::compare_and_set_op::Expect::Present(false) => {
            Err(WireError::Malformed("expect"))
        }
        pb::compare_and_set_op::Expect::Value(value) => Ok(Expectation::Value(value)),
        pb::compare_and_set_op::Expect::Version(raw) => Ok(Expectation::Version(Timestamp::from_raw(raw))),
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::{End, Interval};
    use drover_kv::Update;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::strategies;

    #[test]
    fn operations_keep_their_bytes() {
        let op = |kind| WriteOp { kind, observed_version: None, idempotency: None };
        let ts = Timestamp::from_raw(3);
        let key: bytes::Bytes = "k".into();
        let update = Update::Put { value: "v".into(), ttl_ms: Some(9) };
        let expect = Expectation::Version(Timestamp::from_raw(5));
        let interval = Interval::new("a", End::Key("b".into())).unwrap();
        let settle = WriteOp {
            kind: WriteKind::Settle { key: key.clone() },
            observed_version: Some(CatalogVersion(2)),
            idempotency: Some(Idempotency { key: "i".into(), not_after: Timestamp::from_raw(7) }),
        };
        let table: [(WriteOp, &[u8]); 5] = [
            (
                op(WriteKind::Put { key: key.clone(), value: "v".into(), ttl_ms: Some(0) }),
                &[8, 3, 0x2a, 8, 10, 1, b'k', 18, 1, b'v', 24, 0],
            ),
            (op(WriteKind::Delete { key: key.clone() }), &[8, 3, 0x32, 3, 10, 1, b'k']),
            (
                op(WriteKind::CompareAndSet { key, expect, update }),
                &[8, 3, 0x3a, 10, 10, 1, b'k', 40, 5, 50, 1, b'v', 56, 9],
            ),
            (
                op(WriteKind::DeleteRange { interval, resume: Some("b".into()) }),
                &[8, 3, 0x42, 11, 10, 6, 10, 1, b'a', 18, 1, b'b', 18, 1, b'b'],
            ),
            (settle, &[8, 3, 16, 2, 26, 1, b'i', 32, 7, 0x4a, 3, 10, 1, b'k']),
        ];
        for (op, bytes) in table {
            assert_eq!(encode_operation(&op, ts).encode_to_vec(), bytes, "{op:?}");
            assert_eq!(decode_operation(pb::Operation::decode(bytes).unwrap()), Ok((op, ts)));
        }
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let cas = |expect, put_value, ttl_ms| {
            let op = pb::CompareAndSetOp { key: "k".into(), expect, put_value, ttl_ms };
            pb::Operation { kind: Some(pb::operation::Kind::CompareAndSet(op)), ..Default::default() }
        };
        let absent = |yes| Some(pb::compare_and_set_op::Expect::Absent(yes));
        let range = pb::operation::Kind::DeleteRange(pb::DeleteRangeOp::default());
        let table = [
            (pb::Operation::default(), WireError::Missing("operation kind")),
            (cas(None, None, None), WireError::Missing("expect")),
            (cas(absent(false), None, None), WireError::Malformed("expect")),
            (cas(absent(true), None, Some(1)), WireError::Malformed("ttl_ms without put_value")),
            (pb::Operation { kind: Some(range), ..Default::default() }, WireError::Missing("range")),
            (
                pb::Operation { not_after: 1, ..cas(absent(true), None, None) },
                WireError::Malformed("not_after without idempotency_key"),
            ),
        ];
        for (op, error) in table {
            assert_eq!(decode_operation(op), Err(error));
        }
    }

    proptest! {
        #[test]
        fn operations_round_trip(op in strategies::write_op(), ts: u64) {
            let ts = Timestamp::from_raw(ts);
            let bytes = encode_operation(&op, ts).encode_to_vec();
            prop_assert_eq!(decode_operation(pb::Operation::decode(&bytes[..]).unwrap()).unwrap(), (op, ts));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(op) = pb::Operation::decode(&bytes[..]) {
                let _ = decode_operation(op);
            }
        }
    }
}
