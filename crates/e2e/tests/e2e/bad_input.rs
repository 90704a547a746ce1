//! Requests that are wrong are refused with the documented reason, change nothing, and harm nobody.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use drover_client::{Client, RetryPolicy, WriteOptions};
use drover_hlc::Timestamp;
use drover_keys::{GroupId, NodeId};
use drover_kv::{Certainty, Error, Idempotency, Reason, WriteKind};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::wait::wait_until;
use drover_wire::proto::v1;
use drover_wire::proto::v1::kv_client::KvClient;
use drover_wire::status_to_error;
use futures::stream;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

/// One node is enough: nothing here is about replication.
async fn cluster() -> Cluster {
    let builder = Cluster::builder().nodes(1).data_groups(2);
    builder.set("limits.value_bytes", 100_000).set("limits.batch_bytes", 150_000).start().await.unwrap()
}

/// A client that asks once: it has no limits of its own, so the server has to refuse.
async fn asks_once(cluster: &Cluster) -> Client {
    Client::builder().endpoints(cluster.endpoints()).retry(RetryPolicy::never()).connect().await.unwrap()
}

async fn raw(cluster: &Cluster) -> KvClient<Channel> {
    let address = format!("http://{}", cluster.endpoints()[0]);
    KvClient::connect(address).await.unwrap()
}

fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Error>, reason: Reason) {
    let error = answer.unwrap_err();
    assert_eq!((error.reason, error.certainty), (reason, Certainty::Definite), "{error}");
    assert!(!error.message.is_empty());
}

fn refused<T: std::fmt::Debug>(answer: Result<T, tonic::Status>, reason: Reason) {
    assert_refused(answer.map_err(|status| status_to_error(&status)), reason);
}

#[tokio::test]
async fn keys_values_and_batches_beyond_the_limits_are_refused_and_write_nothing() {
    let cluster = cluster().await;
    let mut kv = raw(&cluster).await;
    let client = asks_once(&cluster).await;
    let put = |key: Bytes, value: Bytes| v1::PutRequest { key, value, ..v1::PutRequest::default() };
    refused(kv.put(put(Bytes::new(), "v".into())).await, Reason::KeyEmpty);
    refused(kv.get(v1::GetRequest::default()).await, Reason::KeyEmpty);
    refused(kv.delete(v1::DeleteRequest::default()).await, Reason::KeyEmpty);
    assert_refused(client.put(vec![b'k'; 4097], "v").await, Reason::KeyTooLarge);
    assert_refused(client.get(vec![b'k'; 4097]).await, Reason::KeyTooLarge);
    assert_refused(client.put("k", vec![0; 100_001]).await, Reason::ValueTooLarge);
    let keys: Vec<Bytes> = (0..40u32).map(|n| format!("{n:04000}").into()).collect();
    assert_refused(client.batch_get(keys, None).await, Reason::BatchTooLarge);
    // Far larger than the limit: still told which one, by a stream that goes on.
    let huge = client.put("k", vec![0; 10 << 20]).await.unwrap_err();
    assert!(!huge.is_unknown() && huge.message.contains("100000"), "{huge}");
    assert_eq!(huge.reason, Reason::ValueTooLarge);
    refused(kv.put(put("k".into(), vec![0; 10 << 20].into())).await, Reason::ValueTooLarge);
    // Larger than a node with these limits reads.
    let unread = client.put("k", vec![0; 40 << 20]).await.unwrap_err();
    assert!(
        unread.message.contains("limits.batch_bytes") && unread.message.contains("nothing was changed"),
        "{unread}"
    );
    assert_refused(Err::<(), _>(unread), Reason::BatchTooLarge);
    refused(kv.put(put("k".into(), vec![0; 40 << 20].into())).await, Reason::BatchTooLarge);
    assert_refused(client.put("k", vec![0; 300 << 20]).await, Reason::BatchTooLarge);
    client.put(vec![b'k'; 4096], vec![0; 100_000]).await.unwrap();
    assert_eq!(cluster.all_rows(NodeId(1)).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_to_be_read_costs_the_calls_beside_it_nothing() {
    let cluster = cluster().await;
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    for round in 0..3 {
        let small = (0..200).map(|n| client.put(format!("{round} {n:03}"), "v"));
        let (unread, small) = tokio::join!(client.put("huge", vec![0; 40 << 20]), futures::future::join_all(small));
        assert_refused(unread, Reason::BatchTooLarge);
        for written in small {
            written.unwrap();
        }
    }
    let rows = cluster.all_rows(NodeId(1)).await.unwrap();
    assert!(rows.len() == 600 && !rows.contains_key(&b"huge"[..]), "{} rows", rows.len());
    cluster.assert_quiet_logs(&[]);
}

/// Requests that would write `k` or remove it, each with something that is too large.
async fn oversized(kv: &mut KvClient<Channel>) -> Vec<(&'static str, Reason, Result<(), tonic::Status>)> {
    let named = |bytes: usize| {
        let not_after = Timestamp::MAX.raw();
        Some(v1::Options { idempotency_key: vec![b'i'; bytes].into(), not_after, ..v1::Options::default() })
    };
    let put = |ttl_ms, options| v1::PutRequest { key: "k".into(), value: "new".into(), ttl_ms, options };
    let cas = |ttl_ms, options| {
        let expect = Some(v1::Expectation { expect: Some(v1::expectation::Expect::Present(v1::Unit {})) });
        let update = Some(v1::compare_and_set_request::Update::Put(v1::PutUpdate { value: "new".into(), ttl_ms }));
        v1::CompareAndSetRequest { key: "k".into(), expect, update, options }
    };
    let range = |start: usize, end: Option<usize>| {
        let start = vec![b'a'; start].into();
        Some(v1::KeyRange { start, end: end.map(|bytes| vec![b'z'; bytes].into()) })
    };
    let scan = |range| v1::ScanRequest { range, ..v1::ScanRequest::default() };
    let clear = |range, options| v1::DeleteRangeRequest { range, options, ..v1::DeleteRangeRequest::default() };
    let (invalid, large) = (Reason::InvalidArgument, Reason::KeyTooLarge);
    let century = 100 * 365 * 24 * 3_600 * 1_000;
    vec![
        ("put, name of 65 bytes", invalid, kv.put(put(0, named(65))).await.map(drop)),
        ("put, name of 1 MiB", invalid, kv.put(put(0, named(1 << 20))).await.map(drop)),
        ("compare, name of 65 bytes", invalid, kv.compare_and_set(cas(0, named(65))).await.map(drop)),
        ("clear, name of 65 bytes", invalid, kv.delete_range(clear(range(1, None), named(65))).await.map(drop)),
        ("delete, name of 65 bytes", invalid, {
            kv.delete(v1::DeleteRequest { key: "k".into(), options: named(65) }).await.map(drop)
        }),
        ("settle, name of 65 bytes", invalid, {
            kv.settle(v1::SettleRequest { key: "k".into(), options: named(65) }).await.map(drop)
        }),
        ("put, time to live above a century", invalid, kv.put(put(century + 1, None)).await.map(drop)),
        ("put, endless time to live", invalid, kv.put(put(u64::MAX, None)).await.map(drop)),
        ("compare, time to live above a century", invalid, kv.compare_and_set(cas(century + 1, None)).await.map(drop)),
        ("compare, endless time to live", invalid, kv.compare_and_set(cas(u64::MAX, None)).await.map(drop)),
        ("scan, start of 4098 bytes", large, kv.scan(scan(range(4098, None))).await.map(drop)),
        ("scan, end of 4098 bytes", large, kv.scan(scan(range(1, Some(4098)))).await.map(drop)),
        ("clear, start of 4098 bytes", large, kv.delete_range(clear(range(4098, None), None)).await.map(drop)),
        ("clear, end of 4098 bytes", large, kv.delete_range(clear(range(1, Some(4098)), None)).await.map(drop)),
    ]
}

#[tokio::test]
async fn names_lifetimes_and_bounds_beyond_the_limits_are_refused_and_change_nothing() {
    let cluster = cluster().await;
    let mut kv = raw(&cluster).await;
    let client = cluster.client().await.unwrap();
    client.put("k", "old").await.unwrap();
    let before = client.get("k").await.unwrap();
    for (what, reason, answer) in oversized(&mut kv).await {
        let error = status_to_error(&answer.expect_err(what));
        assert_eq!((error.reason, error.certainty), (reason, Certainty::Definite), "{what}: {error}");
        assert!(error.message.contains("limit"), "{what}: {error}");
        assert_eq!(client.get("k").await.unwrap(), before, "{what}");
    }
    assert_eq!(cluster.all_rows(NodeId(1)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn names_lifetimes_and_bounds_at_the_limits_are_taken() {
    let cluster = cluster().await;
    let mut kv = raw(&cluster).await;
    let client = cluster.client().await.unwrap();
    let name = v1::Options { idempotency_key: vec![b'i'; 64].into(), ..v1::Options::default() };
    let not_after = client.new_idempotency().not_after.raw();
    let century = 100 * 365 * 24 * 3_600 * 1_000;
    for (key, ttl_ms, options) in [("kept", 0, None), ("named", century, Some(v1::Options { not_after, ..name }))] {
        kv.put(v1::PutRequest { key: key.into(), value: "v".into(), ttl_ms, options }).await.unwrap();
    }
    let kept = client.get("kept").await.unwrap().unwrap();
    assert_eq!(kept.expire_at, None, "a time to live of zero is none");
    let named = client.get("named").await.unwrap().unwrap();
    let lives_ms = named.expire_at.unwrap().physical().unix_ms() - named.commit_ts.physical().unix_ms();
    assert_eq!(lives_ms, century);
    let range = Some(v1::KeyRange { start: vec![b'a'; 4097].into(), end: Some(vec![b'z'; 4097].into()) });
    let found = kv.scan(v1::ScanRequest { range: range.clone(), ..v1::ScanRequest::default() }).await.unwrap();
    assert_eq!(found.into_inner().entries.len(), 2);
    let mut clear = v1::DeleteRangeRequest { range, ..v1::DeleteRangeRequest::default() };
    loop {
        clear.cursor = kv.delete_range(clear.clone()).await.unwrap().into_inner().cursor;
        if clear.cursor.is_empty() {
            break;
        }
    }
    assert!(cluster.all_rows(NodeId(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn ranges_that_are_reversed_or_empty_are_refused() {
    let cluster = cluster().await;
    let mut kv = raw(&cluster).await;
    let range = |start: &'static str, end: Option<&'static str>| {
        Some(v1::KeyRange { start: start.into(), end: end.map(Into::into) })
    };
    for bad in [range("b", Some("a")), range("a", Some("a")), range("", Some(""))] {
        let scan = v1::ScanRequest { range: bad.clone(), ..v1::ScanRequest::default() };
        refused(kv.scan(scan).await, Reason::RangeReversed);
        let delete = v1::DeleteRangeRequest { range: bad, ..v1::DeleteRangeRequest::default() };
        refused(kv.delete_range(delete).await, Reason::RangeReversed);
    }
}

#[tokio::test]
async fn timestamps_and_cursors_that_the_cluster_did_not_issue_are_refused() {
    let cluster = cluster().await;
    let mut kv = raw(&cluster).await;
    let client = cluster.client().await.unwrap();
    let written = client.put("k", "v").await.unwrap();
    let later = Timestamp::from_raw(written.raw() + (3_600_000 << 16));
    assert_refused(client.get_at("k", later).await, Reason::TimestampInFuture);
    assert_refused(client.get_at("k", Timestamp::MAX).await, Reason::TimestampInFuture);
    let range = Some(v1::KeyRange { start: "a".into(), end: None });
    for cursor in [&b"nonsense"[..], &[0], &[0xff; 100]] {
        let cursor = Bytes::copy_from_slice(cursor);
        let scan = v1::ScanRequest { range: range.clone(), cursor: cursor.clone(), ..v1::ScanRequest::default() };
        refused(kv.scan(scan).await, Reason::CursorInvalid);
        let delete = v1::DeleteRangeRequest { range: range.clone(), cursor, ..v1::DeleteRangeRequest::default() };
        refused(kv.delete_range(delete).await, Reason::CursorInvalid);
    }
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "v");
    // A timestamp that was refused has not moved the cluster's time.
    assert!(client.put("k", "w").await.unwrap() < later);
}

#[tokio::test]
async fn a_cursor_that_was_made_up_for_a_future_snapshot_is_refused_like_a_future_timestamp() {
    use drover_coordinator::cursor::{Cursor, request_hash};
    let cluster = cluster().await;
    let mut raw = raw(&cluster).await;
    let request = request_hash(&drover_keys::Interval::all(), &[false, false, false]);
    let cursor = Cursor { request, read_ts: Timestamp::MAX, next: "k".into() }.encode();
    let range = Some(v1::KeyRange::default());
    let scan = v1::ScanRequest { range, cursor, ..v1::ScanRequest::default() };
    refused(raw.scan(scan).await, Reason::TimestampInFuture);
}

#[tokio::test]
async fn an_idempotency_key_without_an_end_is_refused_and_writes_nothing() {
    let cluster = cluster().await;
    let mut raw = raw(&cluster).await;
    let options = Some(v1::Options { idempotency_key: "i".into(), ..v1::Options::default() });
    let put = v1::PutRequest { key: "k".into(), value: "v".into(), options, ..v1::PutRequest::default() };
    refused(raw.put(put).await, Reason::InvalidArgument);
    assert_eq!(asks_once(&cluster).await.get("k").await.unwrap(), None);
}

/// The halves of the 64 bits mean nothing of their own: a record lives until its end has passed, wherever that lies.
#[tokio::test]
async fn an_idempotency_key_may_end_at_any_timestamp_up_to_the_last_one() {
    let cluster = cluster().await;
    let mut kv = raw(&cluster).await;
    for not_after in [(1 << 63) - 1, 1 << 63, (1 << 63) + 1, u64::MAX] {
        let key = Bytes::from(format!("k{not_after}"));
        let options =
            |not_after| Some(v1::Options { idempotency_key: "i".into(), not_after, ..v1::Options::default() });
        let put = |value: &'static str, not_after| v1::PutRequest {
            key: key.clone(),
            value: value.into(),
            options: options(not_after),
            ..v1::PutRequest::default()
        };
        let settle = || v1::SettleRequest { key: key.clone(), options: options(not_after) };
        let first = kv.put(put("first", not_after)).await.unwrap().into_inner();
        let again = kv.put(put("first", not_after)).await.unwrap().into_inner();
        assert_eq!(first.commit_ts, again.commit_ts, "{not_after}");
        refused(kv.put(put("second", not_after)).await, Reason::IdempotencyReused);
        refused(kv.put(put("first", not_after - 1)).await, Reason::IdempotencyReused);
        let settled = kv.settle(settle()).await.unwrap().into_inner();
        assert_eq!((settled.succeeded, settled.commit_ts), (true, first.commit_ts), "{not_after}");
    }
    assert_eq!(cluster.all_rows(NodeId(1)).await.unwrap().len(), 4);
}

/// Of unknown certainty, because the record of an earlier attempt may be gone, and at once: no attempt will ever say more.
#[tokio::test]
async fn a_write_or_a_settle_past_the_end_of_its_idempotency_key_is_told_so_at_once() {
    let cluster = cluster().await;
    let client = cluster.client().await.unwrap().with_deadline(PATIENCE);
    let past = |name: &str| Idempotency { key: name.to_owned().into(), not_after: Timestamp::from_raw(1) };
    let put = |value: &'static str| WriteKind::Put { key: "k".into(), value: value.into(), ttl_ms: None };
    let options = WriteOptions { idempotency: Some(past("put")), ..WriteOptions::default() };
    let error = client.write(put("late"), options).await.unwrap_err();
    assert_eq!((error.reason, error.certainty), (Reason::IdempotencyExpired, Certainty::Unknown), "{error}");
    assert_eq!(client.get("k").await.unwrap(), None);
    // The first settle leaves a record that is over already; when it is swept, nobody can tell any more.
    let forgotten =
        wait_until("the record to be swept", PATIENCE, async || match client.settle("k", &past("settle")).await {
            Ok(settled) => Err(format!("{settled:?}")),
            Err(error) => Ok(error),
        });
    let error = forgotten.await.unwrap();
    assert_eq!((error.reason, error.certainty), (Reason::IdempotencyExpired, Certainty::Unknown), "{error}");
}

#[tokio::test]
async fn groups_and_nodes_that_do_not_exist_are_named_in_the_refusal() {
    let cluster = cluster().await;
    let client = cluster.client().await.unwrap();
    assert_refused(client.compare_digests(GroupId(99)).await, Reason::UnknownGroup);
    assert_refused(client.transfer_leader(GroupId(99), NodeId(1)).await, Reason::UnknownGroup);
    assert_refused(client.transfer_leader(GroupId(2), NodeId(99)).await, Reason::UnknownNode);
}

/// Calls a method with messages of another type than it takes.
async fn misused<M: prost::Message + Default + 'static, A: prost::Message + Default + 'static>(
    cluster: &Cluster,
    method: &'static str,
    messages: Vec<M>,
) -> Result<tonic::Streaming<A>, tonic::Status> {
    let channel = Channel::from_shared(format!("http://{}", cluster.endpoints()[0])).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let (method, codec) = (PathAndQuery::from_static(method), tonic_prost::ProstCodec::<M, A>::default());
    grpc.streaming(tonic::Request::new(stream::iter(messages)), method, codec).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused_as_such_and_what_came_before_them_is_answered() {
    let cluster = cluster().await;
    cluster.client().await.unwrap().put("k", "v").await.unwrap();
    // A number where the key should be.
    for method in ["/drover.v1.Kv/Get", "/drover.v1.Kv/Put", "/drover.v1.Txn/Status"] {
        let wrong = vec![v1::TransferLeaderRequest { group_id: 7, to_node: 7, timeout_ms: 7 }];
        let answer = misused::<_, v1::GetResponse>(&cluster, method, wrong).await;
        let status = match answer {
            Ok(mut answers) => answers.message().await.unwrap_err(),
            Err(status) => status,
        };
        refused::<()>(Err(status), Reason::InvalidArgument);
    }
    // In a session they end the stream, behind the answers to what came before them.
    let get = v1::GetRequest { key: "k".into(), ..v1::GetRequest::default() };
    let call = v1::SessionCall { id: 5, call: Some(v1::session_call::Call::Get(get)) };
    // Field 1 is the list of calls in the one, and bytes in the other.
    let message = |bytes: Vec<u8>| v1::GetRequest { key: bytes.into(), ..v1::GetRequest::default() };
    let messages = vec![message(call.encode_to_vec()), message(vec![0xff; 3]), message(call.encode_to_vec())];
    let mut answers = misused::<_, v1::SessionResponse>(&cluster, "/drover.v1.Kv/Session", messages).await.unwrap();
    let first = answers.message().await.unwrap().unwrap().answers;
    assert_eq!(first.iter().map(|answer| answer.id).collect::<Vec<_>>(), [5]);
    refused(answers.message().await, Reason::InvalidArgument);
    cluster.assert_quiet_logs(&[]);
}

#[tokio::test]
async fn garbage_on_a_port_harms_nobody_and_is_not_worth_a_warning() {
    let cluster = cluster().await;
    let client = cluster.client().await.unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let node = &cluster.nodes()[0];
    for address in [node.grpc_address(), node.admin_address()] {
        for round in 0..50 {
            let mut garbage = vec![0u8; rng.random_range(1..4096)];
            rng.fill(&mut garbage[..]);
            // Some of it gets past the first bytes of HTTP/2.
            let preface: &[u8] = if round % 2 == 0 { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" } else { b"" };
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            // The server may hang up at any time.
            let _ = stream.write_all(&[preface, &garbage].concat());
            let _ = stream.read(&mut [0; 1024]);
        }
    }
    client.put("k", "v").await.unwrap();
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "v");
    cluster.assert_quiet_logs(&[]);
}
