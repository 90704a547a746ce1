//! Arbitrary values, whether a catalog would accept them or not.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use drover_catalog::job::{
    BaseSum, Failure, Handover, HandoverTerms, JobEvent, JobOptions, JobPause, JobPhase, SplitJob,
};
use drover_catalog::*;
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{
    CatalogVersion, End, GroupId, Interval, JobEpoch, JobId, NodeId, ReplicaId, RouteId, ShardId, StoreId,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

pub(super) fn any_time() -> impl Strategy<Value = PhysicalMs> {
    (0..1u64 << 48).prop_map(|ms| PhysicalMs::new(ms).unwrap())
}

fn any_version() -> impl Strategy<Value = Version> {
    any::<(u16, u16)>().prop_map(|(major, minor)| Version { major, minor })
}

fn any_nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
    btree_set(any::<u64>().prop_map(NodeId), 0..4)
}

fn any_names() -> impl Strategy<Value = BTreeSet<String>> {
    btree_set("[a-z]{0,4}", 0..4)
}

fn any_route() -> impl Strategy<Value = Route> {
    let bounds = (vec(any::<u8>(), 0..4), option::of(vec(any::<u8>(), 1..4)));
    (bounds, any::<[u64; 3]>(), option::of(any::<u64>())).prop_filter_map("an empty range", |((start, end), n, job)| {
        let end = end.map_or(End::Unbounded, |end| End::Key(end.into()));
        Some(Route {
            id: RouteId(n[0]),
            interval: Interval::new(start, end).ok()?,
            group: GroupId(n[1]),
            shard: ShardId(n[2]),
            state: job.map_or(RouteState::Active, |job| RouteState::WriteFenced { job: JobId(job) }),
        })
    })
}

fn any_group() -> impl Strategy<Value = GroupDescriptor> {
    let role = prop_oneof![Just(ReplicaRole::Learner), Just(ReplicaRole::Voter)];
    let state = prop_oneof![Just(ReplicaState::Joining), Just(ReplicaState::Active), Just(ReplicaState::Leaving)];
    let replica = (any::<u64>(), role, state).prop_map(|(id, role, state)| Replica { id: ReplicaId(id), role, state });
    let replicas = btree_map(any::<u64>().prop_map(NodeId), replica, 0..4);
    (any::<[u64; 2]>(), replicas).prop_map(|(n, replicas)| GroupDescriptor {
        id: GroupId(n[0]),
        replicas,
        next_replica: ReplicaId(n[1]),
    })
}

fn any_settings() -> impl Strategy<Value = CatalogSettings> {
    any::<([u64; 2], [u32; 4])>().prop_map(
        |([node_ttl_ms, settle_ms], [max_key_bytes, delta_log, audit_log, request_log])| CatalogSettings {
            node_ttl_ms,
            settle_ms,
            max_key_bytes,
            delta_log,
            audit_log,
            request_log,
        },
    )
}

fn any_bootstrap() -> impl Strategy<Value = Bootstrap> {
    let node =
        ("[a-z]{0,4}", "[a-z]{0,4}").prop_map(|(address, admin_address)| BootstrapNode { address, admin_address });
    (
        any_settings(),
        vec(any_route(), 0..4),
        btree_map(any::<u64>().prop_map(GroupId), any_nodes(), 0..4),
        btree_map(any::<u64>().prop_map(NodeId), node, 0..4),
    )
        .prop_map(|(settings, routes, groups, nodes)| Bootstrap { settings, routes, groups, nodes })
}

fn any_kind() -> impl Strategy<Value = CatalogCommandKind> {
    use CatalogCommandKind as Kind;
    let node = || any::<u64>().prop_map(NodeId);
    let group = || any::<u64>().prop_map(GroupId);
    let said = || (any::<[u8; 16]>().prop_map(StoreId), any_version(), any_names());
    let replica = || (group(), node(), any::<u64>().prop_map(ReplicaId));
    prop_oneof![
        any_bootstrap().prop_map(|bootstrap| Kind::Bootstrap(Box::new(bootstrap))),
        any::<(u64, u64, Vec<u8>)>().prop_map(|(version, route, key)| Kind::SplitRange {
            expected_version: CatalogVersion(version),
            route: RouteId(route),
            key: key.into(),
        }),
        (option::of((1..u64::MAX).prop_map(NodeId)), said(), "[a-z]{0,4}", "[a-z]{0,4}").prop_map(
            |(node, (store, version, capabilities), address, admin_address)| {
                Kind::RegisterNode(RegisterNode { node, store, address, admin_address, version, capabilities })
            }
        ),
        (node(), said(), any::<bool>()).prop_map(|(node, (store, version, capabilities), serving)| {
            Kind::Heartbeat(Heartbeat { node, store, version, capabilities, serving })
        }),
        (node(), any::<bool>()).prop_map(|(node, on)| Kind::DrainNode { node, on }),
        node().prop_map(|node| Kind::RemoveNode { node }),
        (group(), node()).prop_map(|(group, node)| Kind::AddReplica { group, node }),
        (group(), any_nodes()).prop_map(|(group, nodes)| Kind::RemoveReplicas { group, nodes }),
        replica().prop_map(|(group, node, replica)| Kind::PromoteReplica { group, node, replica }),
        replica().prop_map(|(group, node, replica)| Kind::DropReplica { group, node, replica }),
        Just(Kind::Freeze),
        Just(Kind::Unfreeze),
        Just(Kind::ReadCompat),
        (any::<[u64; 3]>(), any_route(), any_options()).prop_map(|(n, route, options)| Kind::StartJob(StartJob {
            expected_version: CatalogVersion(n[0]),
            route: RouteId(n[1]),
            interval: route.interval,
            target: GroupId(n[2]),
            options,
        })),
        (any::<u64>(), option::of(any::<u64>().prop_map(JobEpoch)), any_event())
            .prop_map(|(job, epoch, event)| Kind::JobEvent { job: JobId(job), epoch, event }),
    ]
}

fn any_options() -> impl Strategy<Value = JobOptions> {
    any::<(u32, u64)>()
        .prop_map(|(max_pause_ms, max_bytes_per_second)| JobOptions { max_pause_ms, max_bytes_per_second })
}

fn any_base() -> impl Strategy<Value = BaseSum> {
    any::<(u64, u128, u64)>().prop_map(|(armed_at, hash, rows)| BaseSum { armed_at, hash, rows })
}

fn any_terms() -> impl Strategy<Value = HandoverTerms> {
    any::<[u64; 4]>().prop_map(|n| {
        let [floor_ts, history_start, txn_horizon, record_horizon] = n.map(Timestamp::from_raw);
        HandoverTerms { floor_ts, history_start, txn_horizon, record_horizon }
    })
}

fn any_event() -> impl Strategy<Value = JobEvent> {
    prop_oneof![
        proptest::sample::select(vec![
            JobEvent::Begin,
            JobEvent::Carve,
            JobEvent::Fence,
            JobEvent::Sealed,
            JobEvent::CutOver,
            JobEvent::Activated,
            JobEvent::Finish,
            JobEvent::Unfence,
            JobEvent::StartOver,
            JobEvent::Retry,
            JobEvent::Abandon,
            JobEvent::Abandoned,
            JobEvent::Pause,
            JobEvent::Resume,
        ]),
        any_base().prop_map(JobEvent::Scanned),
        any_terms().prop_map(JobEvent::HandOver),
        "[a-z]{0,4}".prop_map(|why| JobEvent::Fail { why }),
        any_pause().prop_map(JobEvent::Held),
    ]
}

fn any_pause() -> impl Strategy<Value = JobPause> {
    any::<(u32, u64, u64)>().prop_map(|(fence, write_us, read_us)| JobPause { fence, write_us, read_us })
}

fn any_job() -> impl Strategy<Value = SplitJob> {
    let phase = || proptest::sample::select(JobPhase::ALL.to_vec());
    let failure =
        ("[a-z]{0,4}", any_time(), phase()).prop_map(|(why, at, retry_phase)| Failure { why, at, retry_phase });
    let handover =
        (any::<u64>(), any_terms()).prop_map(|(version, terms)| Handover { version: CatalogVersion(version), terms });
    let fixed = (any_route(), any_options(), "[a-z]{0,4}", any_time(), any_time());
    let found = (option::of(any_base()), option::of(1..u64::MAX), option::of(handover), option::of(failure));
    let numbers = (any::<[u64; 6]>(), any::<(u32, u32, bool)>(), vec(any_pause(), 0..3));
    (numbers, phase(), fixed, found).prop_map(
        |((n, (starts, fences, paused), pauses), phase, (route, options, actor, created, changed), found)| SplitJob {
            id: JobId(n[0]),
            epoch: JobEpoch(n[1]),
            phase,
            paused,
            interval: route.interval,
            from_route: RouteId(n[2]),
            source: GroupId(n[3]),
            target: GroupId(n[4]),
            shard: ShardId(n[5]),
            options,
            actor,
            created,
            changed,
            starts,
            fences,
            base: found.0,
            own_route: found.1.map(RouteId),
            handover: found.2,
            failure: found.3,
            pauses,
        },
    )
}

pub(super) fn any_command() -> impl Strategy<Value = CatalogCommand> {
    (any::<[u8; 16]>(), "[a-z]{0,8}", any_time(), any_kind()).prop_map(|(id, actor, now, kind)| CatalogCommand {
        request_id: RequestId(id),
        actor,
        now,
        kind,
    })
}

fn any_freeze() -> impl Strategy<Value = Freeze> {
    (any_version(), "[a-z]{0,4}", any_time()).prop_map(|(version, by, at)| Freeze { version, by, at })
}

fn any_compat() -> impl Strategy<Value = CompatState> {
    let node = (any::<u64>(), option::of(any_version()), any::<bool>(), option::of(any_time())).prop_map(
        |(node, version, live, serving_since)| CompatNode { node: NodeId(node), version, live, serving_since },
    );
    (option::of(any_version()), any_version(), option::of(any_freeze()), vec(node, 0..3)).prop_map(
        |(cluster_version, high_water, freeze, nodes)| CompatState { cluster_version, high_water, freeze, nodes },
    )
}

fn any_reply() -> impl Strategy<Value = CatalogReply> {
    let node = || any::<u64>().prop_map(NodeId);
    let versions = || (option::of(any_version()), any_version());
    let outcome = prop_oneof![
        Just(CompatOutcome::Frozen),
        Just(CompatOutcome::AlreadyFrozen),
        Just(CompatOutcome::Unfrozen),
        Just(CompatOutcome::NothingFrozen),
        Just(CompatOutcome::Read),
    ];
    prop_oneof![
        any::<u64>().prop_map(|version| CatalogReply::Bootstrapped { version: CatalogVersion(version) }),
        (any::<u64>(), any_route(), any_route()).prop_map(|(version, left, right)| {
            CatalogReply::Split(Box::new(Split { version: CatalogVersion(version), left, right }))
        }),
        (node(), versions()).prop_map(|(node, (cluster_version, high_water))| CatalogReply::Registered {
            node,
            cluster_version,
            high_water,
        }),
        versions().prop_map(|(cluster_version, high_water)| CatalogReply::Heard { cluster_version, high_water }),
        (node(), any::<[bool; 2]>()).prop_map(|(node, [on, changed])| CatalogReply::Drain { node, on, changed }),
        node().prop_map(|node| CatalogReply::Removed { node }),
        any_group().prop_map(CatalogReply::Group),
        any_job().prop_map(|job| CatalogReply::Job(Box::new(job))),
        (outcome, any_compat()).prop_map(|(outcome, state)| CatalogReply::Compat { outcome, state }),
    ]
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let versions = (option::of(any_version()), any_version(), option::of(any_freeze()));
    (any_settings(), any::<u128>(), any::<[u64; 8]>(), any_time(), versions).prop_map(
        |(settings, bootstrap, n, clock, (cluster_version, high_water, freeze))| Meta {
            settings,
            bootstrap,
            version: CatalogVersion(n[0]),
            revision: n[1],
            next_route: RouteId(n[2]),
            next_shard: ShardId(n[3]),
            next_group: GroupId(n[4]),
            next_node: NodeId(n[5]),
            next_job: JobId(n[6].max(1)),
            next_audit: n[6],
            next_request: n[7],
            clock,
            cluster_version,
            high_water,
            freeze,
        },
    )
}

fn any_node() -> impl Strategy<Value = NodeEntry> {
    let presence = (any::<[u8; 16]>(), any_version(), any_names(), any_time(), option::of(any_time())).prop_map(
        |(store, version, capabilities, renewed, serving_since)| Presence {
            store: StoreId(store),
            version,
            capabilities,
            renewed,
            serving_since,
        },
    );
    (any::<u64>(), "[a-z]{0,4}", "[a-z]{0,4}", any::<bool>(), option::of(presence)).prop_map(
        |(id, address, admin_address, draining, presence)| NodeEntry {
            id: NodeId(id),
            address,
            admin_address,
            draining,
            presence,
        },
    )
}

pub(super) fn any_row() -> impl Strategy<Value = CatalogRow> {
    prop_oneof![
        any_meta().prop_map(|meta| CatalogRow::Meta(Box::new(meta))),
        any_route().prop_map(CatalogRow::Route),
        (any::<u64>(), vec(any::<u64>().prop_map(RouteId), 0..4), vec(any_route(), 0..4)).prop_map(
            |(version, removed, upserted)| {
                CatalogRow::Delta(Arc::new(RouteDelta { version: CatalogVersion(version), removed, upserted }))
            }
        ),
        any_node().prop_map(CatalogRow::Node),
        (any::<u64>(), option::of(any::<[u8; 16]>().prop_map(StoreId)), any_time())
            .prop_map(|(id, store, at)| CatalogRow::RemovedNode(RemovedNode { id: NodeId(id), store, at })),
        any_group().prop_map(CatalogRow::Group),
        any_job().prop_map(|job| CatalogRow::Job(Arc::new(job))),
        (any::<u64>(), any_time(), vec("[a-z]{0,4}", 4)).prop_map(|(seq, at, mut text)| {
            let mut next = || text.pop().unwrap();
            let (actor, action, subject, details) = (next(), next(), next(), next());
            CatalogRow::Audit(Arc::new(AuditEvent { seq, at, actor, action, subject, details }))
        }),
        (any::<u64>(), any::<[u8; 16]>(), any::<u128>(), any_reply()).prop_map(|(seq, id, fingerprint, reply)| {
            CatalogRow::Request(Arc::new(RequestRecord { seq, id: RequestId(id), fingerprint, reply }))
        }),
    ]
}

pub(super) fn any_key() -> impl Strategy<Value = RowKey> {
    let number = any::<u64>;
    prop_oneof![
        Just(RowKey::Meta),
        any::<Vec<u8>>().prop_map(|start| RowKey::Route(Bytes::from(start))),
        number().prop_map(|n| RowKey::Delta(CatalogVersion(n))),
        number().prop_map(|n| RowKey::Node(NodeId(n))),
        number().prop_map(|n| RowKey::RemovedNode(NodeId(n))),
        number().prop_map(|n| RowKey::Group(GroupId(n))),
        number().prop_map(RowKey::Audit),
        number().prop_map(RowKey::Request),
        number().prop_map(|n| RowKey::Job(JobId(n))),
    ]
}
