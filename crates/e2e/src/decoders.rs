//! Everything that reads foreign bytes, in one list.

mod link;
mod moving;

use std::fmt::Debug;

use bytes::Bytes;
use drover_catalog::{
    CatalogCommand, CatalogCommandKind, CatalogReply, CatalogRow, GroupDescriptor, RequestId, Route, RouteDelta,
    RouteMap, RouteState, Split,
};
use drover_coordinator::cursor::Cursor;
use drover_fsm::codec::record::OutcomeRecord;
use drover_fsm::codec::txn::{Lock, TxnMarker, TxnRecord};
use drover_fsm::{Applied, Command, codec};
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{
    CatalogVersion, ClusterId, DataKey, End, GroupId, Interval, JobId, KeyFamily, LogicalKey, NodeId, RouteId, ShardId,
    StoreId, memcomparable,
};
use drover_mvcc::{Stored, fuzzing as mvcc};
use drover_raftlog::fuzzing as raftlog;
use drover_rafttypes::{CommandBytes, decode_entry, decode_snapshot_meta, encode_entry, encode_snapshot_meta};
use drover_server::datadir::Identity;
use drover_server::fuzzing as server;
use drover_transport::fuzzing as transport;
use drover_wire::proto::storage::v1 as stored;
use drover_wire::proto::v1;
use drover_wire::{Request, decode_operation, encode_operation};
use prost::Message;

/// A function that reads foreign bytes.
#[derive(Clone, Copy)]
pub struct Decoder {
    /// Also the name of the fuzz target and of its folder of seeds.
    pub name: &'static str,
    /// Whether the bytes are accepted. Panics if what was read does not survive being written and read again.
    pub run: fn(&[u8]) -> bool,
    /// Bytes that are accepted, to start mutations from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const ALL: &[Decoder] = &[
    Decoder { name: "data_key", run: data_key, seeds: data_key_seeds },
    Decoder { name: "memcomparable", run: memcomparable_string, seeds: memcomparable_seeds },
    Decoder { name: "escaped_text", run: escaped_text, seeds: text_seeds },
    Decoder { name: "timestamp_text", run: timestamp_text, seeds: timestamp_seeds },
    Decoder { name: "log_entry", run: log_entry, seeds: log_entry_seeds },
    Decoder { name: "snapshot_meta", run: snapshot_meta, seeds: snapshot_meta_seeds },
    Decoder { name: "operation", run: operation, seeds: operation_seeds },
    Decoder { name: "stored_value", run: stored_value, seeds: stored_value_seeds },
    Decoder { name: "command", run: command, seeds: command_seeds },
    Decoder { name: "group_state", run: group_state, seeds: group_state_seeds },
    Decoder { name: "applied_state", run: applied_state, seeds: applied_state_seeds },
    Decoder { name: "outcome_record", run: outcome_record, seeds: outcome_record_seeds },
    Decoder { name: "txn_rows", run: txn_rows, seeds: txn_row_seeds },
    Decoder { name: "cursor", run: |bytes| sealed(bytes, cursor), seeds: cursor_seeds },
    Decoder { name: "link_frame", run: link::frame, seeds: link::frames },
    Decoder { name: "session_request", run: session_request, seeds: session_request_seeds },
    Decoder { name: "catalog_command", run: catalog_command, seeds: catalog_command_seeds },
    Decoder { name: "catalog_reply", run: catalog_reply, seeds: catalog_reply_seeds },
    Decoder { name: "catalog_row", run: catalog_row, seeds: catalog_row_seeds },
    Decoder { name: "route_delta", run: route_delta, seeds: route_delta_seeds },
    Decoder { name: "route_event", run: route_event, seeds: route_event_seeds },
    Decoder { name: "topology", run: topology, seeds: topology_seeds },
    Decoder { name: "session_response", run: session_response, seeds: session_response_seeds },
    Decoder { name: "handshake", run: transport::handshake, seeds: transport::handshakes },
    Decoder { name: "snapshot_offer", run: transport::snapshot_offer, seeds: transport::snapshot_offers },
    Decoder { name: "snapshot_chunk", run: transport::snapshot_chunk, seeds: transport::snapshot_chunks },
    Decoder { name: "snapshot_install", run: transport::snapshot_install, seeds: transport::snapshot_installs },
    Decoder { name: "raftlog_record", run: raftlog::record, seeds: raftlog::records },
    Decoder { name: "raftlog_mark", run: raftlog::mark, seeds: raftlog::marks },
    Decoder { name: "raftlog_tail", run: raftlog::tail, seeds: raftlog::tails },
    Decoder { name: "record_key", run: mvcc::record, seeds: mvcc::records },
    Decoder { name: "stored_key", run: mvcc::stored_key, seeds: mvcc::stored_keys },
    Decoder { name: "tracker_row", run: mvcc::tracker_row, seeds: mvcc::tracker_rows },
    Decoder { name: "copied_row", run: mvcc::copied_row, seeds: mvcc::copied_rows },
    Decoder { name: "store_format", run: mvcc::store_format, seeds: mvcc::store_formats },
    Decoder { name: "active_store", run: drover_fsm::fuzzing::active, seeds: drover_fsm::fuzzing::actives },
    Decoder { name: "identity", run: |bytes| sealed(bytes, identity), seeds: identity_seeds },
    Decoder { name: "peer_identities", run: |bytes| sealed(bytes, transport::peers), seeds: transport::peer_files },
    Decoder {
        name: "replica_records",
        run: |bytes| sealed(bytes, server::replica_records),
        seeds: server::replica_files,
    },
    Decoder { name: "known_nodes", run: server::nodes, seeds: server::nodes_files },
    Decoder { name: "configuration", run: server::configuration, seeds: server::configurations },
    Decoder { name: "timeout_header", run: server::timeout_header, seeds: server::timeout_headers },
    Decoder { name: "unary_request", run: server::unary_request, seeds: server::unary_requests },
];

/// The decoder called `name`, found while compiling: a program that keeps it in a constant links no other.
///
/// # Panics
/// If there is none.
pub const fn named(name: &str) -> Decoder {
    let mut at = 0;
    while at < ALL.len() {
        if same(ALL[at].name.as_bytes(), name.as_bytes()) {
            return ALL[at];
        }
        at += 1;
    }
    panic!("no decoder has this name")
}

const fn same(mut one: &[u8], mut other: &[u8]) -> bool {
    while let ([a, rest @ ..], [b, others @ ..]) = (one, other) {
        if *a != *b {
            return false;
        }
        (one, other) = (rest, others);
    }
    one.is_empty() && other.is_empty()
}

/// Runs a reader of something that ends with its CRC-32C. What stands in front is also read with the right one: hardly any other
/// bytes would come past it.
fn sealed(bytes: &[u8], read: fn(&[u8]) -> bool) -> bool {
    if let Some((content, _)) = bytes.split_last_chunk::<4>() {
        read(&[content, &crc32c::crc32c(content).to_be_bytes()].concat());
    }
    read(bytes)
}

fn data_key(bytes: &[u8]) -> bool {
    let Ok(key) = DataKey::decode(bytes) else { return false };
    assert_eq!(key.encode(), bytes);
    true
}

fn data_key_seeds() -> Vec<Vec<u8>> {
    let plain = DataKey { shard: ShardId(1), key: LogicalKey::plain("a\0b"), commit_ts: 7 };
    let row = LogicalKey { route_key: "k".into(), family: KeyFamily(2), suffix: "s\0".into() };
    let other = DataKey { shard: ShardId(u64::MAX), key: row, commit_ts: u64::MAX };
    vec![plain.encode(), other.encode()]
}

fn memcomparable_string(bytes: &[u8]) -> bool {
    let Ok((raw, used)) = memcomparable::decode(bytes) else { return false };
    let mut again = Vec::new();
    memcomparable::encode_into(&raw, &mut again);
    assert_eq!(again, bytes[..used]);
    true
}

fn memcomparable_seeds() -> Vec<Vec<u8>> {
    let encode = |raw: &[u8]| {
        let mut out = Vec::new();
        memcomparable::encode_into(raw, &mut out);
        out
    };
    vec![encode(b""), encode(b"abc"), encode(b"\0\0\xff\x01")]
}

fn escaped_text(bytes: &[u8]) -> bool {
    let Ok(raw) = drover_keys::unescape(&String::from_utf8_lossy(bytes)) else { return false };
    assert_eq!(drover_keys::unescape(&drover_keys::escape(&raw)), Ok(raw));
    true
}

fn text_seeds() -> Vec<Vec<u8>> {
    vec![b"plain".to_vec(), b"\\x00\\\\\\n\\0".to_vec(), "\u{e4}\u{1f600}".as_bytes().to_vec()]
}

fn timestamp_text(bytes: &[u8]) -> bool {
    let Ok(ts) = String::from_utf8_lossy(bytes).parse::<Timestamp>() else { return false };
    assert_eq!(ts.to_string().parse(), Ok(ts));
    true
}

fn timestamp_seeds() -> Vec<Vec<u8>> {
    vec![b"1700000000000.7".to_vec(), b"12345".to_vec()]
}

fn a_route() -> Route {
    Route {
        id: RouteId(4),
        interval: Interval::new("a", End::Key("m\0".into())).expect("its bounds are in order"),
        group: GroupId(2),
        shard: ShardId(3),
        state: RouteState::WriteFenced { job: JobId(5) },
    }
}

fn catalog_command(bytes: &[u8]) -> bool {
    let Ok(command) = drover_fsm::decode_catalog_command(Bytes::copy_from_slice(bytes)) else { return false };
    // What no catalog would accept is read, and not sent on.
    if let Ok(again) = drover_fsm::encode_catalog_command(&command) {
        assert_eq!(drover_fsm::decode_catalog_command(again), Ok(command));
    }
    true
}

fn catalog_command_seeds() -> Vec<Vec<u8>> {
    let kinds = [
        CatalogCommandKind::SplitRange { expected_version: CatalogVersion(2), route: RouteId(4), key: "k".into() },
        CatalogCommandKind::RemoveReplicas { group: GroupId(2), nodes: [NodeId(1), NodeId(3)].into() },
        CatalogCommandKind::Freeze,
    ];
    let encode = |kind| {
        let (request_id, actor) = (RequestId([7; 16]), "somebody".to_owned());
        let command = CatalogCommand { request_id, actor, now: PhysicalMs::default(), kind };
        drover_fsm::encode_catalog_command(&command).expect("it is acceptable").to_vec()
    };
    kinds.into_iter().chain(moving::catalog_kinds()).map(encode).collect()
}

fn catalog_reply(bytes: &[u8]) -> bool {
    let Ok(reply) = drover_fsm::decode_catalog_reply(Bytes::copy_from_slice(bytes)) else { return false };
    assert_eq!(drover_fsm::decode_catalog_reply(drover_fsm::encode_catalog_reply(&reply)), Ok(reply));
    true
}

fn catalog_reply_seeds() -> Vec<Vec<u8>> {
    let split = Split { version: CatalogVersion(3), left: a_route(), right: a_route() };
    let replies = [
        CatalogReply::Split(Box::new(split)),
        CatalogReply::Group(GroupDescriptor::new(GroupId(2), &[NodeId(1), NodeId(2)].into())),
        CatalogReply::Drain { node: NodeId(1), on: true, changed: false },
        CatalogReply::Job(Box::new(moving::job())),
    ];
    replies.iter().map(|reply| drover_fsm::encode_catalog_reply(reply).to_vec()).collect()
}

/// A key, its length in front, and a value.
fn catalog_row(bytes: &[u8]) -> bool {
    let Some((&length, rest)) = bytes.split_first() else { return false };
    let Some((key, value)) = rest.split_at_checked(usize::from(length)) else { return false };
    let Ok(row) = drover_fsm::decode_catalog_row(key, Bytes::copy_from_slice(value)) else { return false };
    assert_eq!(codec::catalog::row::encode_key(&row.key()), key);
    assert_eq!(drover_fsm::decode_catalog_row(key, codec::catalog::row::encode(&row)), Ok(row));
    true
}

fn catalog_row_seeds() -> Vec<Vec<u8>> {
    let delta = RouteDelta { version: CatalogVersion(2), removed: vec![RouteId(9)], upserted: vec![a_route()] };
    let rows = [
        CatalogRow::Route(a_route()),
        CatalogRow::Delta(delta.into()),
        CatalogRow::Group(GroupDescriptor::new(GroupId(2), &[NodeId(1)].into())),
        CatalogRow::Job(moving::job().into()),
    ];
    let encode = |row: &CatalogRow| {
        let key = codec::catalog::row::encode_key(&row.key());
        [&[key.len() as u8][..], &key, &codec::catalog::row::encode(row)].concat()
    };
    rows.iter().map(encode).collect()
}

fn route_delta(bytes: &[u8]) -> bool {
    message(bytes, drover_wire::decode_route_delta, drover_wire::encode_route_delta)
}

fn route_delta_seeds() -> Vec<Vec<u8>> {
    vec![drover_wire::encode_route_delta(&a_delta()).encode_to_vec()]
}

fn a_delta() -> RouteDelta {
    RouteDelta { version: CatalogVersion(2), removed: vec![RouteId(9)], upserted: vec![a_route()] }
}

/// What a node that follows the routes is told: all of them, or what changed.
fn route_event(bytes: &[u8]) -> bool {
    use v1::route_event::Event;
    let event = v1::RouteEvent::decode(bytes).ok().and_then(|event| event.event);
    match event {
        Some(Event::Snapshot(part)) => {
            let routes = part.routes.into_iter().map(drover_wire::decode_route).collect::<Result<Vec<_>, _>>();
            let map = routes.ok().and_then(|routes| RouteMap::new(CatalogVersion(part.version), routes).ok());
            map.is_some_and(|map| {
                let everything = Interval::all();
                assert_eq!(map.intersecting(&everything).next().map(|first| first.interval.start().len()), Some(0));
                true
            })
        }
        Some(Event::Delta(delta)) => {
            let known = RouteMap::new(CatalogVersion(2), two_routes()).expect("they are the whole key space");
            drover_wire::decode_route_delta(delta).is_ok_and(|delta| {
                known.apply(&delta).is_ok_and(|next| {
                    assert_eq!(next.version(), delta.version);
                    true
                })
            })
        }
        None => false,
    }
}

fn two_routes() -> Vec<Route> {
    let route = |id, start: &'static str, end| Route {
        id: RouteId(id),
        interval: Interval::new(start, end).expect("its bounds are in order"),
        state: RouteState::Active,
        ..a_route()
    };
    vec![route(1, "", End::Key("m".into())), route(2, "m", End::Unbounded)]
}

fn route_event_seeds() -> Vec<Vec<u8>> {
    use v1::route_event::Event;
    let routes = two_routes().iter().map(|route| drover_wire::encode_route(route, Some(NodeId(1)))).collect();
    let snapshot = v1::RouteSnapshotPart { version: 2, routes, more: false };
    let state = RouteState::WriteFenced { job: JobId(5) };
    let fenced = Route { id: RouteId(9), state, ..two_routes().remove(1) };
    let delta = RouteDelta { version: CatalogVersion(3), removed: vec![RouteId(2)], upserted: vec![fenced] };
    let events = [Event::Snapshot(snapshot), Event::Delta(drover_wire::encode_route_delta(&delta))];
    events.map(|event| v1::RouteEvent { event: Some(event) }.encode_to_vec()).into()
}

fn topology(bytes: &[u8]) -> bool {
    message(bytes, drover_wire::decode_topology, drover_wire::encode_topology)
}

fn topology_seeds() -> Vec<Vec<u8>> {
    use v1::group_replica::State;
    let replica =
        |node_id, votes, state: State| v1::GroupReplica { node_id, replica_id: node_id, votes, state: state.into() };
    let node = |node_id| v1::NodeAddresses { node_id, grpc_address: "a:1".into(), admin_address: "a:2".into() };
    let group = |group_id, replicas| v1::GroupTopology { group_id, replicas, next_replica_id: 4 };
    let growing = vec![replica(1, true, State::Active), replica(2, false, State::Joining)];
    let shrinking =
        vec![replica(1, true, State::Active), replica(2, true, State::Leaving), replica(3, false, State::Leaving)];
    let groups = vec![group(1, growing), group(2, shrinking)];
    let topology = v1::Topology { revision: 5, nodes: vec![node(1), node(2)], groups };
    vec![topology.encode_to_vec(), v1::Topology::default().encode_to_vec()]
}

/// Reads a message, turns it into a value and back; both readings must give the same value.
fn message<M, T, E>(bytes: &[u8], read: impl Fn(M) -> Result<T, E>, write: impl Fn(&T) -> M) -> bool
where
    M: Message + Default,
    T: PartialEq + Debug,
    E: Debug,
{
    let Ok(message) = M::decode(bytes) else { return false };
    let Ok(value) = read(message) else { return false };
    let again = M::decode(&*write(&value).encode_to_vec()).expect("what was encoded decodes");
    assert_eq!(read(again).expect("what was written is accepted"), value);
    true
}

fn log_entry(bytes: &[u8]) -> bool {
    let comparable = |message| decode_entry(message).map(|entry| (entry.log_id, entry.payload));
    let rebuild = |(log_id, payload): &(_, _)| {
        encode_entry(&drover_rafttypes::Entry { log_id: Clone::clone(log_id), payload: Clone::clone(payload) })
    };
    message::<stored::RaftEntry, _, _>(bytes, comparable, rebuild)
}

fn log_id(index: u64) -> Option<stored::LogId> {
    Some(stored::LogId { term: 3, index })
}

fn membership() -> stored::Membership {
    let member = |node_id| stored::Member { node_id, address: format!("127.0.0.1:{node_id}"), replica_id: node_id };
    let configs = vec![stored::NodeSet { node_ids: vec![1, 2] }, stored::NodeSet { node_ids: vec![2, 3] }];
    stored::Membership { configs, members: vec![member(1), member(2), member(3)] }
}

fn log_entry_seeds() -> Vec<Vec<u8>> {
    use stored::raft_entry::Payload;
    let payloads = [
        Payload::Blank(stored::Blank {}),
        Payload::Command(Bytes::from_static(b"\x08\x01")),
        Payload::Membership(membership()),
    ];
    let entries = payloads.into_iter().map(|payload| stored::RaftEntry { log_id: log_id(9), payload: Some(payload) });
    entries.map(|entry| entry.encode_to_vec()).collect()
}

fn snapshot_meta(bytes: &[u8]) -> bool {
    message::<stored::SnapshotMeta, _, _>(bytes, |m| decode_snapshot_meta(&m), encode_snapshot_meta)
}

fn snapshot_meta_seeds() -> Vec<Vec<u8>> {
    let last_membership = Some(stored::StoredMembership { log_id: log_id(1), membership: Some(membership()) });
    vec![stored::SnapshotMeta { last_log_id: log_id(5), last_membership }.encode_to_vec()]
}

fn operation(bytes: &[u8]) -> bool {
    message::<stored::Operation, _, _>(bytes, decode_operation, |(op, ts)| encode_operation(op, *ts))
}

fn operations() -> Vec<stored::Operation> {
    use stored::operation::Kind;
    let range = |end: Option<&'static str>| stored::Range { start: "a".into(), end: end.map(Into::into) };
    let kinds = [
        Kind::Put(stored::PutOp { key: "k".into(), value: "v".into(), ttl_ms: Some(5) }),
        Kind::Delete(stored::DeleteOp { key: "k".into() }),
        Kind::CompareAndSet(stored::CompareAndSetOp {
            key: "k".into(),
            put_value: Some("v".into()),
            ttl_ms: None,
            expect: Some(stored::compare_and_set_op::Expect::Version(9)),
        }),
        Kind::DeleteRange(stored::DeleteRangeOp { range: Some(range(Some("b"))), resume: Some("aa".into()) }),
        Kind::DeleteRange(stored::DeleteRangeOp { range: Some(range(None)), resume: None }),
        Kind::Settle(stored::SettleOp { key: "k".into() }),
    ];
    let wrap = |kind| stored::Operation {
        commit_ts: Timestamp::new(PhysicalMs::default().saturating_add_ms(7), 1).raw(),
        observed_version: 1,
        idempotency_key: "id".into(),
        not_after: 1 << 40,
        kind: Some(kind),
    };
    let unnamed = |kind| stored::Operation { idempotency_key: Bytes::new(), not_after: 0, ..wrap(kind) };
    kinds.into_iter().map(wrap).chain(txn_steps().into_iter().map(unnamed)).collect()
}

fn txn_id() -> Bytes {
    vec![7; 16].into()
}

fn txn_ref() -> Option<stored::TxnRef> {
    Some(stored::TxnRef { txn_id: txn_id(), number: 2, coordinator: 3 })
}

fn txn_reads() -> Option<stored::TxnReads> {
    Some(stored::TxnReads { keys: vec!["r".into()], ranges: vec![whole_range()] })
}

fn txn_steps() -> Vec<stored::operation::Kind> {
    use stored::operation::Kind;
    let (txn, start_ts, primary, keys) = (txn_ref, 5, || "p".into(), || vec!["k".into(), "l".into()]);
    let put = stored::TxnMutation { key: "k".into(), put_value: Some("v".into()), ttl_ms: Some(6) };
    let mutations = || vec![put.clone(), stored::TxnMutation { key: "l".into(), ..Default::default() }];
    vec![
        Kind::TxnCommit(stored::TxnCommitOp { txn: txn(), start_ts, mutations: mutations(), reads: txn_reads() }),
        Kind::TxnPrepare(stored::TxnPrepareOp {
            txn: txn(),
            start_ts,
            primary: primary(),
            fingerprint: 8,
            ttl_ms: 9,
            supersedes: true,
            mutations: mutations(),
        }),
        Kind::TxnDecide(stored::TxnDecideOp {
            txn: txn(),
            start_ts,
            commit_ts: 6,
            fingerprint: 8,
            keys: keys(),
            remote: keys(),
        }),
        Kind::TxnResolve(stored::TxnResolveOp { txn: txn(), start_ts, commit_ts: Some(6), keys: keys() }),
        Kind::TxnRollback(stored::TxnRollbackOp { txn: txn(), start_ts, primary: primary(), seen_expire_at: Some(4) }),
        Kind::TxnHeartbeat(stored::TxnHeartbeatOp { txn: txn(), primary: primary(), ttl_ms: 9 }),
        Kind::TxnFinish(stored::TxnFinishOp { txn: txn(), primary: primary() }),
    ]
}

fn txn_rows(bytes: &[u8]) -> bool {
    let bytes = || Bytes::copy_from_slice(bytes);
    let lock = Lock::decode(bytes()).inspect(|lock| assert_eq!(Lock::decode(lock.encode()).ok().as_ref(), Some(lock)));
    let record = TxnRecord::decode(bytes());
    let record = record.inspect(|record| assert_eq!(TxnRecord::decode(record.encode()).ok().as_ref(), Some(record)));
    let marker = TxnMarker::decode(bytes());
    let marker = marker.inspect(|marker| assert_eq!(TxnMarker::decode(marker.encode()).ok().as_ref(), Some(marker)));
    lock.is_ok() || record.is_ok() || marker.is_ok()
}

fn txn_row_seeds() -> Vec<Vec<u8>> {
    let attempt = || Some(stored::TxnAttempt { number: 2, coordinator: 3 });
    let committed =
        stored::TxnCommittedState { attempt: attempt(), commit_ts: 6, fingerprint: 8, remote: vec!["z".into()] };
    let lock = stored::TxnLock {
        txn_id: txn_id(),
        attempt: attempt(),
        primary: "p".into(),
        start_ts: 5,
        expire_at: 9,
        put_value: Some("v".into()),
        ttl_ms: Some(6),
        fingerprint: 8,
    };
    let marker = stored::TxnMarker { start_ts: 5, attempt: attempt(), commit_ts: Some(6), fingerprint: Some(7) };
    let states = [
        stored::txn_record::State::Committed(committed),
        stored::txn_record::State::RolledBack(attempt().expect("it is one")),
    ];
    let records = states.map(|state| stored::TxnRecord { start_ts: 5, state: Some(state) }.encode_to_vec());
    [lock.encode_to_vec(), marker.encode_to_vec()].into_iter().chain(records).collect()
}

fn operation_seeds() -> Vec<Vec<u8>> {
    operations().iter().map(Message::encode_to_vec).collect()
}

fn stored_value(bytes: &[u8]) -> bool {
    let Ok(value) = Stored::decode(bytes) else { return false };
    assert_eq!(value.encode(), bytes);
    true
}

fn stored_value_seeds() -> Vec<Vec<u8>> {
    let put = |expire_at| Stored::Put { value: "value".into(), expire_at };
    [put(None), put(Some(Timestamp::from_raw(7))), Stored::Tombstone].iter().map(Stored::encode).collect()
}

fn command(bytes: &[u8]) -> bool {
    let Ok((term, command)) = Command::decode(1, &CommandBytes(Bytes::copy_from_slice(bytes))) else { return false };
    let again = command.encode(term).expect("a command that was read can be written");
    assert_eq!(Command::decode(1, &again).expect("what was written is accepted"), (term, command));
    true
}

fn command_seeds() -> Vec<Vec<u8>> {
    use stored::command::Body;
    let grant = stored::Grant { range: Some(whole_range()), route_id: 1, shard_id: 1, acquired_version: 1 };
    let name = stored::RecordName { route_key: "k".into(), idempotency_key: "id".into() };
    let bodies = [
        Body::WriteBatch(stored::WriteBatch { operations: operations() }),
        Body::GrantRange(stored::GrantRange { grants: vec![grant] }),
        Body::SetCeiling(stored::SetCeiling { physical_ms: 1_700_000_000_000 }),
        Body::AdvanceSafePoint(stored::AdvanceSafePoint { safe_point: 1 << 40 }),
        Body::AdvanceRecordHorizon(stored::AdvanceRecordHorizon { horizon: 1 << 40 }),
        Body::RemoveRecords(stored::RemoveRecords { records: vec![name] }),
        Body::TakeDigest(stored::TakeDigest { request_id: 9 }),
        Body::AdvanceTxnHorizon(stored::AdvanceTxnHorizon { horizon: 1 << 40 }),
        Body::RemoveTxnRecords(stored::RemoveTxnRecords {
            records: vec![stored::TxnRecordName { route_key: "k".into(), txn_id: txn_id(), marker: true }],
        }),
    ];
    let commands = bodies.into_iter().chain(moving::commands()).map(|body| stored::Command {
        format: 1,
        admitted_term: 3,
        body: Some(body),
    });
    commands.map(|command| command.encode_to_vec()).collect()
}

fn whole_range() -> stored::Range {
    stored::Range { start: Bytes::new(), end: None }
}

fn group_state(bytes: &[u8]) -> bool {
    let Ok(state) = codec::state::decode(Some(bytes)) else { return false };
    let again = codec::state::encode(&state);
    assert_eq!(codec::state::decode(Some(&again)).expect("what was written is accepted"), state);
    true
}

fn group_state_seeds() -> Vec<Vec<u8>> {
    let owned = stored::OwnedInterval {
        range: Some(whole_range()),
        route_id: 1,
        shard_id: 1,
        acquired_version: 1,
        ..stored::OwnedInterval::default()
    };
    let granted = stored::GroupState { bootstrapped: true, owned: vec![owned], ..stored::GroupState::default() };
    let moving = moving::remembered(granted.clone());
    vec![Vec::new(), granted.encode_to_vec(), moving.encode_to_vec()]
}

fn applied_state(bytes: &[u8]) -> bool {
    let Ok(applied) = Applied::decode(GroupId(2), Some(bytes)) else { return false };
    let again = applied.encode();
    assert_eq!(Applied::decode(GroupId(2), Some(&again)).expect("what was written is accepted"), applied);
    true
}

fn applied_state_seeds() -> Vec<Vec<u8>> {
    let stored_membership = stored::StoredMembership { log_id: log_id(1), membership: Some(membership()) };
    let applied =
        stored::AppliedState { applied: log_id(5), membership: stored_membership.encode_to_vec().into(), group_id: 2 };
    vec![applied.encode_to_vec()]
}

fn outcome_record(bytes: &[u8]) -> bool {
    let Ok(record) = OutcomeRecord::decode(Bytes::copy_from_slice(bytes)) else { return false };
    assert_eq!(OutcomeRecord::decode(record.encode()).expect("what was written is accepted"), record);
    true
}

fn outcome_record_seeds() -> Vec<Vec<u8>> {
    use stored::outcome_record::Outcome;
    let outcomes = [
        Outcome::Written(stored::WrittenOutcome { commit_ts: 5 }),
        Outcome::CompareFailed(stored::CompareFailedOutcome { present: true, commit_ts: 5, expire_at: 9 }),
        Outcome::RangeDeleted(stored::RangeDeletedOutcome { commit_ts: 5, deleted: 2, resume: Some("k".into()) }),
        Outcome::Settled(stored::SettledOutcome {}),
    ];
    let records = outcomes.map(|outcome| stored::OutcomeRecord {
        fingerprint: 0x1234,
        not_after: 1 << 40,
        outcome: Some(outcome),
    });
    records.iter().map(Message::encode_to_vec).collect()
}

/// What the request of every cursor hashes to, here.
const CURSOR_REQUEST: u64 = 0x0102_0304_0506_0708;

fn cursor(bytes: &[u8]) -> bool {
    let Ok(cursor) = Cursor::decode(&Bytes::copy_from_slice(bytes), CURSOR_REQUEST) else { return false };
    assert_eq!(cursor.encode(), bytes);
    true
}

fn cursor_seeds() -> Vec<Vec<u8>> {
    let cursor =
        |next: &'static str| Cursor { request: CURSOR_REQUEST, read_ts: Timestamp::from_raw(9), next: next.into() };
    vec![cursor("k").encode().to_vec(), cursor("key\0").encode().to_vec()]
}

/// The form in which a peer sends an error: google.rpc.Status with an ErrorInfo.
fn error_bytes() -> Bytes {
    let error = drover_wire::status_bytes_to_error(&Bytes::new());
    drover_wire::error_to_status_bytes(&error)
}

fn session_request(bytes: &[u8]) -> bool {
    let Ok(request) = v1::SessionRequest::decode(bytes) else { return false };
    request.calls.into_iter().all(|call| match Request::try_from(call) {
        Ok(Request::DeleteRange { interval, .. }) => {
            assert!(match interval.end() {
                End::Key(end) => interval.start() < end,
                End::Unbounded => interval.covers(&Interval::point(interval.start().clone())),
            });
            true
        }
        Ok(_) => true,
        Err(_) => false,
    })
}

fn session_request_seeds() -> Vec<Vec<u8>> {
    use v1::session_call::Call;
    let options = Some(v1::Options { idempotency_key: "id".into(), not_after: 1 << 40, ..v1::Options::default() });
    let range = Some(v1::KeyRange { start: "a".into(), end: Some("b".into()) });
    let mutation = |key: &'static str, update| v1::Mutation { key: key.into(), update: Some(update) };
    let put = mutation("k", v1::mutation::Update::Put(v1::PutUpdate { value: "v".into(), ttl_ms: 6 }));
    let delete = mutation("l", v1::mutation::Update::Delete(v1::DeleteUpdate {}));
    let calls = [
        Call::Get(v1::GetRequest { key: "k".into(), options: None }),
        Call::BatchGet(v1::BatchGetRequest { keys: vec!["a".into(), "b".into()], options: None }),
        Call::Put(v1::PutRequest { key: "k".into(), value: "v".into(), ttl_ms: 3, options: options.clone() }),
        Call::Delete(v1::DeleteRequest { key: "k".into(), options: options.clone() }),
        Call::CompareAndSet(v1::CompareAndSetRequest {
            key: "k".into(),
            expect: Some(v1::Expectation { expect: Some(v1::expectation::Expect::CommitTs(4)) }),
            update: Some(v1::compare_and_set_request::Update::Delete(v1::DeleteUpdate {})),
            options: options.clone(),
        }),
        Call::Scan(v1::ScanRequest { range: range.clone(), cursor: "c".into(), ..v1::ScanRequest::default() }),
        Call::DeleteRange(v1::DeleteRangeRequest {
            range: range.clone(),
            cursor: Bytes::new(),
            options: options.clone(),
        }),
        Call::LatestCommitTs(v1::LatestCommitTsRequest { key: "k".into(), options: None }),
        Call::Commit(v1::TxnCommitRequest {
            txn_id: txn_id(),
            attempt: 1,
            start_ts: 5,
            mutations: vec![put, delete],
            read_keys: vec!["r".into()],
            read_ranges: range.into_iter().collect(),
            timeout_ms: 50,
        }),
        Call::Settle(v1::SettleRequest { key: "k".into(), options }),
    ];
    let requests =
        calls.into_iter().map(|call| v1::SessionRequest { calls: vec![v1::SessionCall { id: 1, call: Some(call) }] });
    requests.map(|request| request.encode_to_vec()).collect()
}

/// What a client reads.
fn session_response(bytes: &[u8]) -> bool {
    use v1::session_answer::Answer;
    let Ok(response) = v1::SessionResponse::decode(bytes) else { return false };
    response.answers.into_iter().all(|answer| match answer.answer {
        // Every error has a meaning, so all decode.
        Some(Answer::Error(status)) => {
            drop(drover_wire::status_bytes_to_error(&status));
            true
        }
        Some(Answer::Get(got)) => got.version.into_iter().all(survives),
        Some(Answer::CompareAndSet(done)) => done.current.into_iter().all(survives),
        Some(Answer::BatchGet(got)) => got.versions.into_iter().filter_map(|maybe| maybe.version).all(survives),
        Some(Answer::Scan(page)) => page.entries.into_iter().filter_map(|entry| entry.version).all(survives),
        Some(_) => true,
        None => false,
    })
}

fn survives(version: v1::Version) -> bool {
    let read = drover_wire::decode_version(version.clone());
    assert_eq!(drover_wire::encode_version(read), version);
    true
}

fn session_response_seeds() -> Vec<Vec<u8>> {
    use v1::session_answer::Answer;
    let version = Some(v1::Version { value: "v".into(), commit_ts: 300, expire_at: 400 });
    let entry = v1::KeyValue { key: "k".into(), version: version.clone() };
    let answers = [
        Answer::Error(error_bytes()),
        Answer::Get(v1::GetResponse { version: version.clone(), read_ts: 7 }),
        Answer::BatchGet(v1::BatchGetResponse {
            versions: vec![v1::MaybeVersion { version: version.clone() }],
            read_ts: 7,
        }),
        Answer::Put(v1::PutResponse { commit_ts: 300 }),
        Answer::CompareAndSet(v1::CompareAndSetResponse { succeeded: false, commit_ts: 0, current: version }),
        Answer::Scan(v1::ScanResponse { entries: vec![entry], count: 1, cursor: "c".into(), read_ts: 7 }),
    ];
    let wrap = |answer| v1::SessionAnswer { id: 1, leader_hint: 2, answer: Some(answer) };
    let responses = answers.map(|answer| v1::SessionResponse { answers: vec![wrap(answer)] });
    responses.iter().map(Message::encode_to_vec).collect()
}

fn identity(bytes: &[u8]) -> bool {
    let Ok(identity) = Identity::decode(bytes) else { return false };
    assert_eq!(identity.encode(), bytes);
    true
}

fn identity_seeds() -> Vec<Vec<u8>> {
    let (cluster, store) = (ClusterId([0xc1; 16]), StoreId([0x5e; 16]));
    vec![Identity { format: 1, cluster, node: NodeId(7), store }.encode()]
}
