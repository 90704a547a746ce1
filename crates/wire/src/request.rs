use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::{Expectation, Mutation, ReadSet, ScanLimits, TxnId, Update, WriteKind};

use crate::WireError;
use crate::proto::v1;
use crate::range::decode_key_range;
use crate::txn::decode_txn_id;
use crate::version::optional_ts;

/// What a read may carry whatever it asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Snapshot to read at; `None`: latest.
    pub read_ts: Option<Timestamp>,
    /// How long the caller waits, in milliseconds; `None`: the server's default.
    pub timeout_ms: Option<u32>,
}

/// An idempotency key as a client sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Not empty; its length is not checked here.
    pub key: Bytes,
    /// `None`: the server chooses, counting from when it receives the request.
    pub not_after: Option<Timestamp>,
}

/// What a write may carry whatever it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Set if the client may retry.
    pub idempotency: Option<IdempotencyKey>,
    /// How long the caller waits, in milliseconds; `None`: the server's default.
    pub timeout_ms: Option<u32>,
}

/// One page of a scan, as a client asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPageRequest {
    /// The whole range, also on later pages.
    pub interval: Interval,
    /// From the highest key down.
    pub reverse: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count the rows.
    pub count_only: bool,
    /// Bounds of this page.
    pub limits: ScanLimits,
    /// Resume token from the last page, as it was given out.
    pub cursor: Option<Bytes>,
    /// Snapshot and timeout.
    pub options: ReadOptions,
}

/// What a client asks for, whatever call or session message it came in. Sizes are not checked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `Get`.
    Get { key: Bytes, options: ReadOptions },
    /// `BatchGet`.
    BatchGet { keys: Vec<Bytes>, options: ReadOptions },
    /// `Put`, `Delete`, `CompareAndSet`: writes of one key.
    Write { kind: WriteKind, options: WriteOptions },
    /// `Scan`.
    Scan(ScanPageRequest),
    /// `DeleteRange`: one batch. `cursor` is the resume token of the last one.
    DeleteRange { interval: Interval, cursor: Option<Bytes>, options: WriteOptions },
    /// `LatestCommitTs`.
    LatestCommitTs { key: Bytes, options: ReadOptions },
    /// `Settle`. The idempotency key and its `not_after` are both set.
    Settle { key: Bytes, idempotency_key: Bytes, not_after: Timestamp, timeout_ms: Option<u32> },
    /// `Commit` of a transaction.
    Commit(CommitRequest),
}

/// What a client wants to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRequest {
    /// The transaction.
    pub id: TxnId,
    /// How often the client has sent this, counted from 1.
    pub number: u32,
    /// The snapshot that was read.
    pub start_ts: Timestamp,
    /// What is written. The first key is the primary: what became of the transaction is asked there.
    pub mutations: Vec<Mutation>,
    /// What was read.
    pub reads: ReadSet,
    /// How long the caller waits, in milliseconds; `None`: the server's default.
    pub timeout_ms: Option<u32>,
}

fn timeout(timeout_ms: u32) -> Option<u32> {
    (timeout_ms != 0).then_some(timeout_ms)
}

fn present(bytes: Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then_some(bytes)
}

fn read_options(options: Option<v1::Options>) -> Result<ReadOptions, WireError> {
    let options = options.unwrap_or_default();
    if !options.idempotency_key.is_empty() || options.not_after != 0 {
        return Err(WireError::Contradiction("idempotency_key and not_after belong to writes, this is a read"));
    }
    Ok(ReadOptions { read_ts: optional_ts(options.read_ts), timeout_ms: timeout(options.timeout_ms) })
}

fn write_options(options: Option<v1::Options>) -> Result<WriteOptions, WireError> {
    let options = options.unwrap_or_default();
    if options.read_ts != 0 {
        return Err(WireError::Contradiction("read_ts belongs to reads, this is a write"));
    }
    let not_after = optional_ts(options.not_after);
    let idempotency = match (present(options.idempotency_key), not_after) {
        (None, Some(_)) => return Err(WireError::Contradiction("not_after is given without idempotency_key")),
        (None, None) => None,
        (Some(key), not_after) => Some(IdempotencyKey { key, not_after }),
    };
    Ok(WriteOptions { idempotency, timeout_ms: timeout(options.timeout_ms) })
}

fn ttl(ttl_ms: u64) -> Option<u64> {
    (ttl_ms != 0).then_some(ttl_ms)
}

impl TryFrom<v1::GetRequest> for Request {
    type Error = WireError;

    fn try_from(request: v1::GetRequest) -> Result<Self, WireError> {
        Ok(Request::Get { key: request.key, options: read_options(request.options)? })
    }
}

impl TryFrom<v1::BatchGetRequest> for Request {
    type Error = WireError;

    fn try_from(request: v1::BatchGetRequest) -> Result<Self, WireError> {
        Ok(Request::BatchGet { keys: request.keys, options: read_options(request.options)? })
    }
}

impl TryFrom<v1::PutRequest> for Request {
    type Error = WireError;

    fn try_from(request: v1::PutRequest) -> Result<Self, WireError> {
        let kind = WriteKind::Put { key: request.key, value: request.value, ttl_ms: ttl(request.ttl_ms) };
        Ok(Request::Write { kind, options: write_options(request.options)? })
    }
}

impl TryFrom<v1::DeleteRequest> for Request {
    type Error = WireError;

    fn try_from(request: v1::DeleteRequest) -> Result<Self, WireError> {
        Ok(Request::Write { kind: WriteKind::Delete { key: request.key }, options: write_options(request.options)? })
    }
}

impl TryFrom<v1::CompareAndSetRequest> for Request {
    type Error = WireError;

    fn try_from(request: v1::CompareAndSetRequest) -> Result<Self, WireError> {
        let expect = match request.expect.and_then(|e| e.expect).ok_or(WireError::Missing("expect"))? {
            v1::expectation::Expect::Absent(_) => Expectation::Absent,
            v1::expectation::Expect::Present(_) => Expectation::Present,
            v1::expectation::Expect::Value(value) => Expectation::Value(value),
            v1::expectation::Expect::CommitTs(raw) => Expectation::Version(Timestamp::from_raw(raw)),
        };
        let update = match request.update.ok_or(WireError::Missing("update"))? {
            v1::compare_and_set_request::Update::Put(put) => Update::Put { value: put.value, ttl_ms: ttl(put.ttl_ms) },
            v1::compare_and_set_request::Update::Delete(_) => Update::Delete,
        };
        let kind = WriteKind::CompareAndSet { key: request.key, expect, update };
        Ok(Request::Write { kind, options: write_options(request.options)? })
    }
}

impl TryFrom<v1::ScanRequest> for Request {
    type Error = WireError;

    fn try_from(request: v1::ScanRequest) -> Result<Self, WireError> {
        Ok(Request::Scan(ScanPageRequest {
            interval: decode_key_range(request.range)?,
            reverse: request.reverse,
            keys_only: request.keys_only,
            count_only: request.count_only,
            limits: ScanLimits { rows: request.limit_rows, bytes: request.limit_bytes },
            cursor: present(request.cursor),
            options: read_options(request.options)?,
        }))
    }
}

impl TryFrom<v1::DeleteRangeRequest> for Request {
    type Error = WireError;

    fn try_from(request: v1::DeleteRangeRequest) -> Result<Self, WireError> {
        // A range that was left out by mistake must not delete everything.
        let range = request.range.ok_or(WireError::Missing("range"))?;
        Ok(Request::DeleteRange {
            interval: decode_key_range(Some(range))?,
            cursor: present(request.cursor),
            options: write_options(request.options)?,
        })
    }
}

impl TryFrom<v1::LatestCommitTsRequest> for Request {
    type Error = WireError;

    fn try_from(request: v1::LatestCommitTsRequest) -> Result<Self, WireError> {
        let options = read_options(request.options)?;
        if options.read_ts.is_some() {
            return Err(WireError::Contradiction("LatestCommitTs takes no read_ts"));
        }
        Ok(Request::LatestCommitTs { key: request.key, options })
    }
}

impl TryFrom<v1::SettleRequest> for Request {
    type Error = WireError;

    fn try_from(request: v1::SettleRequest) -> Result<Self, WireError> {
        let options = write_options(request.options)?;
        let idempotency = options.idempotency.ok_or(WireError::Missing("idempotency_key"))?;
        Ok(Request::Settle {
            key: request.key,
            idempotency_key: idempotency.key,
            not_after: idempotency.not_after.ok_or(WireError::Missing("not_after"))?,
            timeout_ms: options.timeout_ms,
        })
    }
}

impl TryFrom<v1::TxnCommitRequest> for Request {
    type Error = WireError;

    fn try_from(request: v1::TxnCommitRequest) -> Result<Self, WireError> {
        let mutation = |mutation: v1::Mutation| {
            let update = match mutation.update.ok_or(WireError::Missing("update"))? {
                v1::mutation::Update::Put(put) => Update::Put { value: put.value, ttl_ms: ttl(put.ttl_ms) },
                v1::mutation::Update::Delete(_) => Update::Delete,
            };
            Ok::<_, WireError>(Mutation { key: mutation.key, update })
        };
        let intervals = request.read_ranges.into_iter().map(|range| decode_key_range(Some(range)));
        Ok(Request::Commit(CommitRequest {
            id: decode_txn_id(&request.txn_id)?,
            number: match request.attempt {
                0 => return Err(WireError::Missing("attempt")),
                number => number,
            },
            start_ts: optional_ts(request.start_ts).ok_or(WireError::Missing("start_ts"))?,
            mutations: request.mutations.into_iter().map(mutation).collect::<Result<_, _>>()?,
            reads: ReadSet { keys: request.read_keys, intervals: intervals.collect::<Result<_, _>>()? },
            timeout_ms: timeout(request.timeout_ms),
        }))
    }
}

impl TryFrom<v1::SessionCall> for Request {
    type Error = WireError;

    fn try_from(call: v1::SessionCall) -> Result<Self, WireError> {
        match call.call.ok_or(WireError::Missing("call"))? {
            v1::session_call::Call::Get(request) => request.try_into(),
            v1::session_call::Call::BatchGet(request) => request.try_into(),
            v1::session_call::Call::Put(request) => request.try_into(),
            v1::session_call::Call::Delete(request) => request.try_into(),
            v1::session_call::Call::CompareAndSet(request) => request.try_into(),
            v1::session_call::Call::Scan(request) => request.try_into(),
            v1::session_call::Call::DeleteRange(request) => request.try_into(),
            v1::session_call::Call::LatestCommitTs(request) => request.try_into(),
            v1::session_call::Call::Settle(request) => request.try_into(),
            v1::session_call::Call::Commit(request) => request.try_into(),
        }
    }
}

impl Request {
    /// How long the caller waits, in milliseconds; `None`: the server's default.
    pub fn timeout_ms(&self) -> Option<u32> {
        match self {
            Request::Get { options, .. }
            | Request::BatchGet { options, .. }
            | Request::LatestCommitTs { options, .. } => options.timeout_ms,
            Request::Scan(scan) => scan.options.timeout_ms,
            Request::Write { options, .. } | Request::DeleteRange { options, .. } => options.timeout_ms,
            Request::Settle { timeout_ms, .. } => *timeout_ms,
            Request::Commit(commit) => commit.timeout_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn options(read_ts: u64, key: &'static str, not_after: u64, timeout_ms: u32) -> Option<v1::Options> {
        Some(v1::Options { read_ts, idempotency_key: key.into(), not_after, timeout_ms })
    }

    #[test]
    fn zero_and_empty_mean_absent() {
        let bare = Request::try_from(v1::GetRequest { key: "k".into(), options: None }).unwrap();
        assert_eq!(bare, Request::Get { key: "k".into(), options: ReadOptions::default() });
        let full = Request::try_from(v1::GetRequest { key: "k".into(), options: options(7, "", 0, 9) }).unwrap();
        let expect = ReadOptions { read_ts: Some(Timestamp::from_raw(7)), timeout_ms: Some(9) };
        assert_eq!(full, Request::Get { key: "k".into(), options: expect });
        assert_eq!(full.timeout_ms(), Some(9));
        let put = v1::PutRequest { key: "k".into(), value: "v".into(), ttl_ms: 0, options: options(0, "i", 0, 0) };
        let idempotency = Some(IdempotencyKey { key: "i".into(), not_after: None });
        assert_eq!(
            Request::try_from(put),
            Ok(Request::Write {
                kind: WriteKind::Put { key: "k".into(), value: "v".into(), ttl_ms: None },
                options: WriteOptions { idempotency, timeout_ms: None },
            })
        );
    }

    #[test]
    fn options_that_contradict_the_request_are_refused() {
        let put = |options| Request::try_from(v1::PutRequest { key: "k".into(), options, ..Default::default() });
        assert!(matches!(put(options(1, "", 0, 0)), Err(WireError::Contradiction(_))));
        assert!(matches!(put(options(0, "", 1, 0)), Err(WireError::Contradiction(_))));
        let get = |options| Request::try_from(v1::GetRequest { key: "k".into(), options });
        assert!(matches!(get(options(0, "i", 0, 0)), Err(WireError::Contradiction(_))));
        let latest = |options| Request::try_from(v1::LatestCommitTsRequest { key: "k".into(), options });
        assert!(matches!(latest(options(3, "", 0, 0)), Err(WireError::Contradiction(_))));
    }

    #[test]
    fn what_a_request_cannot_do_without_is_named() {
        assert_eq!(Request::try_from(v1::CompareAndSetRequest::default()), Err(WireError::Missing("expect")));
        let expect = Some(v1::Expectation { expect: Some(v1::expectation::Expect::Absent(v1::Unit {})) });
        let cas = v1::CompareAndSetRequest { expect, ..Default::default() };
        assert_eq!(Request::try_from(cas), Err(WireError::Missing("update")));
        assert_eq!(Request::try_from(v1::DeleteRangeRequest::default()), Err(WireError::Missing("range")));
        assert_eq!(Request::try_from(v1::SettleRequest::default()), Err(WireError::Missing("idempotency_key")));
        let settle = v1::SettleRequest { key: "k".into(), options: options(0, "i", 0, 0) };
        assert_eq!(Request::try_from(settle), Err(WireError::Missing("not_after")));
        assert_eq!(Request::try_from(v1::SessionCall::default()), Err(WireError::Missing("call")));
    }

    #[test]
    fn a_commit_names_transaction_attempt_and_snapshot_and_says_what_becomes_of_each_key() {
        let put = v1::mutation::Update::Put(v1::PutUpdate { value: "v".into(), ttl_ms: 0 });
        let good = v1::TxnCommitRequest {
            txn_id: vec![7; 16].into(),
            attempt: 2,
            start_ts: 5,
            mutations: vec![v1::Mutation { key: "k".into(), update: Some(put) }],
            read_keys: vec!["r".into()],
            read_ranges: vec![v1::KeyRange { start: "a".into(), end: None }],
            timeout_ms: 9,
        };
        let expect = CommitRequest {
            id: TxnId([7; 16]),
            number: 2,
            start_ts: Timestamp::from_raw(5),
            mutations: vec![Mutation { key: "k".into(), update: Update::Put { value: "v".into(), ttl_ms: None } }],
            reads: ReadSet {
                keys: vec!["r".into()],
                intervals: vec![Interval::new("a", drover_keys::End::Unbounded).unwrap()],
            },
            timeout_ms: Some(9),
        };
        assert_eq!(Request::try_from(good.clone()), Ok(Request::Commit(expect)));
        let bad = [
            (v1::TxnCommitRequest { txn_id: "short".into(), ..good.clone() }, WireError::Malformed("txn_id")),
            (v1::TxnCommitRequest { attempt: 0, ..good.clone() }, WireError::Missing("attempt")),
            (v1::TxnCommitRequest { start_ts: 0, ..good.clone() }, WireError::Missing("start_ts")),
            (v1::TxnCommitRequest { mutations: vec![v1::Mutation::default()], ..good }, WireError::Missing("update")),
        ];
        for (request, error) in bad {
            assert_eq!(Request::try_from(request), Err(error));
        }
    }

    #[test]
    fn each_expectation_and_update_is_told_apart() {
        use v1::compare_and_set_request::Update as U;
        use v1::expectation::Expect as E;
        let put = Update::Put { value: "n".into(), ttl_ms: Some(4) };
        let table = [
            (E::Absent(v1::Unit {}), Expectation::Absent),
            (E::Present(v1::Unit {}), Expectation::Present),
            (E::Value(Bytes::new()), Expectation::Value(Bytes::new())),
            (E::CommitTs(5), Expectation::Version(Timestamp::from_raw(5))),
        ];
        for (wire, expect) in table {
            for (wire_update, update) in [
                (U::Put(v1::PutUpdate { value: "n".into(), ttl_ms: 4 }), put.clone()),
                (U::Delete(v1::DeleteUpdate {}), Update::Delete),
            ] {
                let request = v1::CompareAndSetRequest {
                    key: "k".into(),
                    expect: Some(v1::Expectation { expect: Some(wire.clone()) }),
                    update: Some(wire_update),
                    options: None,
                };
                let kind = WriteKind::CompareAndSet { key: "k".into(), expect: expect.clone(), update };
                let options = WriteOptions::default();
                assert_eq!(Request::try_from(request), Ok(Request::Write { kind, options }));
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(session) = v1::SessionRequest::decode(&bytes[..]) {
                for call in session.calls {
                    let _ = Request::try_from(call);
                }
            }
        }
    }
}
