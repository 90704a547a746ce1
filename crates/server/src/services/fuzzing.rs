//! What the fuzz targets run of what the services read beyond the messages themselves.

use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::job::{JobEvent, JobOptions};
use drover_catalog::{CatalogCommand, CatalogCommandKind, RequestId};
use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, ClusterId, End, GroupId, Interval, JobId, NodeId, RouteId};
use drover_kv::Error;
use drover_wire::proto::v1;
use drover_wire::{Request, WireError, decode_key_range};
use prost::Message;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use super::distribution::{actor, check_cluster, request_id};
use super::front::grpc_timeout;
use super::job_list::{JobFilter, decode_token, encode_token};
use super::{jobs, membership, txn};

/// Whether the bytes are a `grpc-timeout` header.
///
/// # Panics
/// If a deadline after that time cannot be told.
pub(crate) fn timeout_header(bytes: &[u8]) -> bool {
    let Ok(value) = AsciiMetadataValue::try_from(bytes) else { return false };
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-timeout", value);
    let Some(allowed) = grpc_timeout(&metadata) else { return false };
    assert!(allowed <= Duration::from_secs(99_999_999 * 3_600));
    assert!(Instant::now().checked_add(allowed).is_some());
    true
}

/// `grpc-timeout` headers.
pub(crate) fn timeout_headers() -> Vec<Vec<u8>> {
    ["5S", "20m", "99999999H", "1M", "7u", "00000000n"].map(|text| text.as_bytes().to_vec()).into()
}

/// The cluster that all requests come to, here.
const CLUSTER: ClusterId = ClusterId([9; 16]);

/// Whether a message is read, and what stands in it beyond its fields.
fn read<M: Message + Default>(bytes: &[u8], rest: impl FnOnce(M) -> bool) -> bool {
    M::decode(bytes).is_ok_and(rest)
}

fn is_request<M: Message + Default>(bytes: &[u8]) -> bool
where
    Request: TryFrom<M, Error = WireError>,
{
    read(bytes, |message: M| Request::try_from(message).is_ok())
}

/// Whether a request for the catalog is one, with an identity. What becomes of it must be read by the group as it was meant.
fn is_change(id: &Bytes, named: String, kind: Result<CatalogCommandKind, Error>) -> bool {
    let (Ok(request_id), Ok(kind)) = (request_id(id), kind) else { return false };
    assert_eq!(RequestId(request_id.0).0[..], id[..]);
    let command = CatalogCommand { request_id, actor: actor(named), now: PhysicalMs::default(), kind };
    // What no catalog would accept is not sent on.
    let Ok(sent) = drover_fsm::encode_catalog_command(&command) else { return false };
    assert_eq!(drover_fsm::decode_catalog_command(sent).ok(), Some(command));
    true
}

/// Whether the bytes are a request of a unary or streaming call, told apart by the first byte.
///
/// # Panics
/// If a command for the catalog reaches its group as another one.
pub(crate) fn unary_request(bytes: &[u8]) -> bool {
    let Some((&call, bytes)) = bytes.split_first() else { return false };
    let same_cluster = |named: &str| check_cluster(CLUSTER, named).is_ok();
    match call {
        0 => is_request::<v1::GetRequest>(bytes),
        1 => is_request::<v1::BatchGetRequest>(bytes),
        2 => is_request::<v1::PutRequest>(bytes),
        3 => is_request::<v1::DeleteRequest>(bytes),
        4 => is_request::<v1::CompareAndSetRequest>(bytes),
        5 => is_request::<v1::ScanRequest>(bytes),
        6 => is_request::<v1::DeleteRangeRequest>(bytes),
        7 => is_request::<v1::LatestCommitTsRequest>(bytes),
        8 => is_request::<v1::SettleRequest>(bytes),
        9 => is_request::<v1::TxnCommitRequest>(bytes),
        10 => read(bytes, |request: v1::TxnAbortRequest| txn::id(&request.txn_id).is_ok()),
        11 => read(bytes, |request: v1::TxnHeartbeatRequest| txn::id(&request.txn_id).is_ok()),
        12 => read(bytes, |request: v1::TxnStatusRequest| txn::id(&request.txn_id).is_ok()),
        13 => read(bytes, |request: v1::TxnResolveRequest| txn::id(&request.txn_id).is_ok()),
        14 => read(bytes, |request: v1::RegisterNodeRequest| {
            let (id, actor) = (request.request_id.clone(), request.actor.clone());
            let kind = membership::registration(request.clone()).map(CatalogCommandKind::RegisterNode);
            same_cluster(&request.cluster_id) && is_change(&id, actor, kind)
        }),
        15 => read(bytes, |request: v1::DrainNodeRequest| {
            let kind = CatalogCommandKind::DrainNode { node: NodeId(request.node_id), on: request.on };
            is_change(&request.request_id, request.actor, Ok(kind))
        }),
        16 => read(bytes, |request: v1::RemoveNodeRequest| {
            let kind = CatalogCommandKind::RemoveNode { node: NodeId(request.node_id) };
            is_change(&request.request_id, request.actor, Ok(kind))
        }),
        17 => read(bytes, |request: v1::AddReplicaRequest| {
            let (group, node) = (GroupId(request.group_id), NodeId(request.node_id));
            is_change(&request.request_id, request.actor, Ok(CatalogCommandKind::AddReplica { group, node }))
        }),
        18 => read(bytes, |request: v1::RemoveReplicasRequest| {
            let nodes = request.node_ids.into_iter().map(NodeId).collect();
            let kind = CatalogCommandKind::RemoveReplicas { group: GroupId(request.group_id), nodes };
            is_change(&request.request_id, request.actor, Ok(kind))
        }),
        19 => read(bytes, |request: v1::SplitRangeRequest| {
            let kind = CatalogCommandKind::SplitRange {
                expected_version: CatalogVersion(request.expected_version),
                route: RouteId(request.route_id),
                key: request.key,
            };
            is_change(&request.request_id, request.actor, Ok(kind))
        }),
        20 => read(bytes, |request: v1::CompatRequest| {
            is_change(&request.request_id, request.actor, Ok(CatalogCommandKind::Freeze))
        }),
        21 => read(bytes, |request: v1::WatchTopologyRequest| same_cluster(&request.cluster_id)),
        22 => read(bytes, |request: v1::WatchRoutesRequest| same_cluster(&request.cluster_id)),
        23 => read(bytes, |request: v1::ListRoutesRequest| Interval::new(request.start, End::Unbounded).is_ok()),
        24 => read(bytes, |request: v1::GetIntersectingRoutesRequest| {
            decode_key_range(Some(v1::KeyRange { start: request.start, end: request.end })).is_ok()
        }),
        25 => read(bytes, |request: v1::GetRouteOwnershipRequest| {
            assert!(Interval::point(request.key.clone()).contains(&request.key));
            true
        }),
        26 => read(bytes, |request: v1::StartSplitMigrationRequest| {
            let (id, actor) = (request.request_id.clone(), request.actor.clone());
            // The route that holds a split key ends where the map says: here, nowhere.
            is_change(
                &id,
                actor,
                jobs::command(&request, JobOptions::default(), right_half).map(CatalogCommandKind::StartJob),
            )
        }),
        27 => read(bytes, |request: v1::ListSplitJobsRequest| {
            let Ok(filter) = JobFilter::of(&request) else { return false };
            let token = decode_token(&filter, &request.page_token);
            if let Ok(Some(newest)) = token
                && newest.0 < u64::MAX
            {
                assert_eq!(encode_token(&filter, JobId(newest.0 + 1)), request.page_token);
            }
            token.is_ok()
        }),
        28 => read(bytes, |request: v1::ChangeSplitJobRequest| {
            let kind =
                CatalogCommandKind::JobEvent { job: JobId(request.job_id), epoch: None, event: JobEvent::Abandon };
            is_change(&request.request_id, request.actor, Ok(kind))
        }),
        29 => v1::GetSplitJobRequest::decode(bytes).is_ok(),
        30 => v1::WatchSplitJobRequest::decode(bytes).is_ok(),
        _ => false,
    }
}

/// What a split key stands for in a map of one route.
fn right_half(key: &Bytes) -> Result<Interval, Error> {
    Interval::new(key.clone(), End::Unbounded).map_err(|error| WireError::from(error).into())
}

fn second_page_of_jobs() -> v1::ListSplitJobsRequest {
    let mut request = v1::ListSplitJobsRequest {
        which: 1,
        phases: vec![1, 10],
        source_group: 2,
        target_group: 3,
        limit: 5,
        page_token: Bytes::new(),
        timeout_ms: 50,
    };
    let filter = JobFilter::of(&request).expect("these phases are known");
    request.page_token = encode_token(&filter, JobId(300));
    request
}

/// One request of each call.
pub(crate) fn unary_requests() -> Vec<Vec<u8>> {
    let options = || Some(v1::Options { idempotency_key: "id".into(), not_after: 1 << 40, ..v1::Options::default() });
    let range = || Some(v1::KeyRange { start: "a".into(), end: Some("b".into()) });
    let id = || Bytes::from_static(&[7; 16]);
    let (key, actor, cluster_id) = (|| Bytes::from_static(b"k"), || "somebody".to_owned(), CLUSTER.to_string());
    let put = v1::PutUpdate { value: "v".into(), ttl_ms: 6 };
    let mutation = v1::Mutation { key: key(), update: Some(v1::mutation::Update::Put(put.clone())) };
    let requests: [Vec<u8>; 31] = [
        v1::GetRequest { key: key(), options: None }.encode_to_vec(),
        v1::BatchGetRequest { keys: vec![key()], options: None }.encode_to_vec(),
        v1::PutRequest { key: key(), value: "v".into(), ttl_ms: 3, options: options() }.encode_to_vec(),
        v1::DeleteRequest { key: key(), options: options() }.encode_to_vec(),
        v1::CompareAndSetRequest {
            key: key(),
            expect: Some(v1::Expectation { expect: Some(v1::expectation::Expect::Value("w".into())) }),
            update: Some(v1::compare_and_set_request::Update::Put(put)),
            options: options(),
        }
        .encode_to_vec(),
        v1::ScanRequest { range: range(), cursor: "c".into(), limit_rows: 3, ..v1::ScanRequest::default() }
            .encode_to_vec(),
        v1::DeleteRangeRequest { range: range(), cursor: "c".into(), options: options() }.encode_to_vec(),
        v1::LatestCommitTsRequest { key: key(), options: None }.encode_to_vec(),
        v1::SettleRequest { key: key(), options: options() }.encode_to_vec(),
        v1::TxnCommitRequest {
            txn_id: id(),
            attempt: 1,
            start_ts: 5,
            mutations: vec![mutation],
            read_keys: vec![key()],
            read_ranges: range().into_iter().collect(),
            timeout_ms: 50,
        }
        .encode_to_vec(),
        v1::TxnAbortRequest { txn_id: id(), primary: key(), start_ts: 5, timeout_ms: 50 }.encode_to_vec(),
        v1::TxnHeartbeatRequest { txn_id: id(), primary: key(), timeout_ms: 50 }.encode_to_vec(),
        v1::TxnStatusRequest { txn_id: id(), primary: key(), timeout_ms: 50 }.encode_to_vec(),
        v1::TxnResolveRequest { txn_id: id(), force: true, ..v1::TxnResolveRequest::default() }.encode_to_vec(),
        v1::RegisterNodeRequest {
            store_id: vec![5; 16].into(),
            grpc_address: "a:1".into(),
            admin_address: "a:2".into(),
            version: Some(v1::SoftwareVersion { major: 1, minor: 2 }),
            capabilities: vec!["c".into()],
            request_id: id(),
            actor: actor(),
            timeout_ms: 50,
            node_id: 4,
            cluster_id: cluster_id.clone(),
        }
        .encode_to_vec(),
        v1::DrainNodeRequest { node_id: 4, on: true, request_id: id(), actor: actor(), timeout_ms: 50 }.encode_to_vec(),
        v1::RemoveNodeRequest { node_id: 4, request_id: id(), actor: actor(), timeout_ms: 50 }.encode_to_vec(),
        v1::AddReplicaRequest { group_id: 2, node_id: 4, request_id: id(), actor: actor(), timeout_ms: 50 }
            .encode_to_vec(),
        v1::RemoveReplicasRequest {
            group_id: 2,
            node_ids: vec![1, 3],
            request_id: id(),
            actor: actor(),
            timeout_ms: 50,
        }
        .encode_to_vec(),
        v1::SplitRangeRequest {
            expected_version: 2,
            route_id: 4,
            key: key(),
            request_id: id(),
            actor: actor(),
            timeout_ms: 50,
        }
        .encode_to_vec(),
        v1::CompatRequest { request_id: id(), actor: actor(), timeout_ms: 50 }.encode_to_vec(),
        v1::WatchTopologyRequest { known_revision: 3, cluster_id: cluster_id.clone() }.encode_to_vec(),
        v1::WatchRoutesRequest { known_version: 3, cluster_id }.encode_to_vec(),
        v1::ListRoutesRequest { start: key(), limit: 7, version: 2, with_sizes: true, timeout_ms: 50 }.encode_to_vec(),
        v1::GetIntersectingRoutesRequest { start: "a".into(), end: Some("b".into()), version: 2, timeout_ms: 50 }
            .encode_to_vec(),
        v1::GetRouteOwnershipRequest { key: key(), timeout_ms: 50 }.encode_to_vec(),
        v1::StartSplitMigrationRequest {
            expected_version: 2,
            route_id: 4,
            what: Some(v1::start_split_migration_request::What::Range(v1::KeyRange {
                start: "a".into(),
                end: Some("b".into()),
            })),
            target_group: 3,
            options: [("max_pause_ms".to_owned(), "50".to_owned())].into(),
            request_id: id(),
            actor: actor(),
            dry_run: true,
            timeout_ms: 50,
        }
        .encode_to_vec(),
        second_page_of_jobs().encode_to_vec(),
        v1::ChangeSplitJobRequest { job_id: 5, request_id: id(), actor: actor(), timeout_ms: 50 }.encode_to_vec(),
        v1::GetSplitJobRequest { job_id: 5, timeout_ms: 50 }.encode_to_vec(),
        v1::WatchSplitJobRequest { job_id: 5 }.encode_to_vec(),
    ];
    (0u8..).zip(requests).map(|(call, request)| [&[call][..], &request].concat()).collect()
}
