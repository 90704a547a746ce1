//! Domain requests as the messages of a session.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_kv::{Expectation, Idempotency, Mutation, Update, WriteKind};
use drover_wire::encode_key_range;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::proto::v1::{self, compare_and_set_request, expectation};

/// The `Options` of a read.
pub(crate) fn read_options(read_ts: Option<Timestamp>) -> Option<v1::Options> {
    Some(v1::Options { read_ts: read_ts.map_or(0, Timestamp::raw), ..v1::Options::default() })
}

/// The `Options` of a write.
pub(crate) fn write_options(idempotency: Option<&Idempotency>) -> Option<v1::Options> {
    let mut options = v1::Options::default();
    if let Some(idempotency) = idempotency {
        options.idempotency_key = idempotency.key.clone();
        options.not_after = idempotency.not_after.raw();
    }
    Some(options)
}

/// A write as a message. `cursor` continues a range delete; other writes ignore it.
pub(crate) fn write_call(kind: &WriteKind, cursor: Bytes, idempotency: Option<&Idempotency>) -> Call {
    let options = write_options(idempotency);
    match kind.clone() {
        WriteKind::Put { key, value, ttl_ms } => {
            Call::Put(v1::PutRequest { key, value, ttl_ms: ttl_ms.unwrap_or(0), options })
        }
        WriteKind::Delete { key } => Call::Delete(v1::DeleteRequest { key, options }),
        WriteKind::CompareAndSet { key, expect, update } => Call::CompareAndSet(v1::CompareAndSetRequest {
            key,
            expect: Some(v1::Expectation { expect: Some(encode_expectation(expect)) }),
            update: Some(encode_update(update)),
            options,
        }),
        WriteKind::DeleteRange { interval, .. } => {
            Call::DeleteRange(v1::DeleteRangeRequest { range: Some(encode_key_range(&interval)), cursor, options })
        }
        WriteKind::Settle { key } => Call::Settle(v1::SettleRequest { key, options }),
        WriteKind::Txn(_) => unreachable!("steps of transactions are for nodes alone"),
    }
}

/// What a transaction does to one key.
pub(crate) fn encode_mutation(mutation: &Mutation) -> v1::Mutation {
    let update = match &mutation.update {
        Update::Put { value, ttl_ms } => {
            v1::mutation::Update::Put(v1::PutUpdate { value: value.clone(), ttl_ms: ttl_ms.unwrap_or(0) })
        }
        Update::Delete => v1::mutation::Update::Delete(v1::DeleteUpdate {}),
    };
    v1::Mutation { key: mutation.key.clone(), update: Some(update) }
}

fn encode_expectation(expect: Expectation) -> expectation::Expect {
    match expect {
        Expectation::Absent => expectation::Expect::Absent(v1::Unit {}),
        Expectation::Present => expectation::Expect::Present(v1::Unit {}),
        Expectation::Value(value) => expectation::Expect::Value(value),
        Expectation::Version(ts) => expectation::Expect::CommitTs(ts.raw()),
    }
}

fn encode_update(update: Update) -> compare_and_set_request::Update {
    match update {
        Update::Put { value, ttl_ms } => {
            compare_and_set_request::Update::Put(v1::PutUpdate { value, ttl_ms: ttl_ms.unwrap_or(0) })
        }
        Update::Delete => compare_and_set_request::Update::Delete(v1::DeleteUpdate {}),
    }
}

/// Tells the servers how often a commit was sent. Other calls are the same each time.
pub(crate) fn set_attempt(call: &mut Call, attempt: u32) {
    if let Call::Commit(request) = call {
        request.attempt = attempt;
    }
}

fn options_of(call: &mut Call) -> &mut Option<v1::Options> {
    match call {
        Call::Commit(_) => unreachable!("a commit has its own field"),
        Call::Get(request) => &mut request.options,
        Call::BatchGet(request) => &mut request.options,
        Call::Put(request) => &mut request.options,
        Call::Delete(request) => &mut request.options,
        Call::CompareAndSet(request) => &mut request.options,
        Call::Scan(request) => &mut request.options,
        Call::DeleteRange(request) => &mut request.options,
        Call::LatestCommitTs(request) => &mut request.options,
        Call::Settle(request) => &mut request.options,
    }
}

/// Tells the server how long the caller still waits.
pub(crate) fn set_timeout(call: &mut Call, timeout_ms: u32) {
    match call {
        Call::Commit(request) => request.timeout_ms = timeout_ms,
        _ => options_of(call).get_or_insert_default().timeout_ms = timeout_ms,
    }
}

/// Payload of a call in bytes, for packing messages. Leaves out what every call has.
pub(crate) fn payload_bytes(call: &Call) -> usize {
    match call {
        Call::Get(request) => request.key.len(),
        Call::BatchGet(request) => request.keys.iter().map(Bytes::len).sum(),
        Call::Put(request) => request.key.len() + request.value.len(),
        Call::Delete(request) => request.key.len(),
        Call::CompareAndSet(request) => {
            let expect = match request.expect.as_ref().and_then(|e| e.expect.as_ref()) {
                Some(expectation::Expect::Value(value)) => value.len(),
                _ => 0,
            };
            let update = match &request.update {
                Some(compare_and_set_request::Update::Put(put)) => put.value.len(),
                Some(compare_and_set_request::Update::Delete(_)) | None => 0,
            };
            request.key.len() + expect + update
        }
        Call::Scan(request) => request.cursor.len(),
        Call::DeleteRange(request) => request.cursor.len(),
        Call::LatestCommitTs(request) => request.key.len(),
        Call::Settle(request) => request.key.len(),
        Call::Commit(request) => {
            let mutation = |mutation: &v1::Mutation| {
                let value = match &mutation.update {
                    Some(v1::mutation::Update::Put(put)) => put.value.len(),
                    Some(v1::mutation::Update::Delete(_)) | None => 0,
                };
                mutation.key.len() + value
            };
            let range = |range: &v1::KeyRange| range.start.len() + range.end.as_ref().map_or(0, Bytes::len);
            let read = request.read_keys.iter().map(Bytes::len).chain(request.read_ranges.iter().map(range));
            request.mutations.iter().map(mutation).chain(read).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::{End, Interval};
    use drover_wire::{IdempotencyKey, Request, WriteOptions};

    use super::*;

    #[test]
    fn what_a_server_decodes_is_what_was_asked() {
        let idempotency = Idempotency { key: "id".into(), not_after: Timestamp::from_raw(77) };
        let interval = Interval::new("a", End::Key("b".into())).unwrap();
        let kinds = [
            WriteKind::Put { key: "k".into(), value: "v".into(), ttl_ms: Some(5) },
            WriteKind::Put { key: "k".into(), value: Bytes::new(), ttl_ms: None },
            WriteKind::Delete { key: "k".into() },
            WriteKind::CompareAndSet { key: "k".into(), expect: Expectation::Absent, update: Update::Delete },
            WriteKind::CompareAndSet {
                key: "k".into(),
                expect: Expectation::Value(Bytes::new()),
                update: Update::Put { value: "w".into(), ttl_ms: Some(9) },
            },
            WriteKind::CompareAndSet {
                key: "k".into(),
                expect: Expectation::Version(Timestamp::from_raw(3)),
                update: Update::Put { value: "w".into(), ttl_ms: None },
            },
        ];
        let options = WriteOptions {
            idempotency: Some(IdempotencyKey { key: "id".into(), not_after: Some(Timestamp::from_raw(77)) }),
            timeout_ms: Some(12),
        };
        for kind in kinds {
            let mut call = write_call(&kind, Bytes::new(), Some(&idempotency));
            set_timeout(&mut call, 12);
            assert_eq!(payload_bytes(&call), kind.payload_bytes(), "{kind:?}");
            let got = Request::try_from(v1::SessionCall { id: 1, call: Some(call) }).unwrap();
            assert_eq!(got, Request::Write { kind, options: options.clone() });
        }
        let kind = WriteKind::DeleteRange { interval: interval.clone(), resume: None };
        let call = write_call(&kind, "next".into(), None);
        let got = Request::try_from(v1::SessionCall { id: 1, call: Some(call) }).unwrap();
        let expect = Request::DeleteRange { interval, cursor: Some("next".into()), options: WriteOptions::default() };
        assert_eq!(got, expect);
    }
}
