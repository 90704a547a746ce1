//! What commands, rows and replies have in common.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use drover_catalog::{
    CatalogSettings, Freeze, GroupDescriptor, Replica, ReplicaRole, ReplicaState, Route, RouteState, Version,
};
use drover_hlc::PhysicalMs;
use drover_keys::{GroupId, JobId, NodeId, ReplicaId, RouteId, ShardId};
use drover_wire::proto::storage::v1 as pb;
use drover_wire::{decode_range, encode_range};
use pb::catalog_route::State;
use pb::group_replica::{Role as PbRole, State as PbState};

/// What a field lacks.
pub(super) fn missing(what: &'static str) -> impl Fn() -> String {
    move || format!("{what} is missing or unknown")
}

/// Sixteen bytes.
pub(super) fn sixteen(what: &'static str, bytes: &Bytes) -> Result<[u8; 16], String> {
    <[u8; 16]>::try_from(bytes.as_ref()).map_err(|_| format!("{what} has {} bytes, not 16", bytes.len()))
}

pub(super) fn time(ms: u64) -> Result<PhysicalMs, String> {
    PhysicalMs::new(ms).map_err(|error| error.to_string())
}

/// The set of what stands in ascending order.
pub(super) fn set<T: Ord>(what: &'static str, items: impl IntoIterator<Item = T>) -> Result<BTreeSet<T>, String> {
    let map = map(what, items.into_iter().map(|item| Ok((item, ()))))?;
    Ok(map.into_keys().collect())
}

/// The map of what stands in ascending order of its keys.
pub(super) fn map<K: Ord, V>(
    what: &'static str,
    items: impl IntoIterator<Item = Result<(K, V), String>>,
) -> Result<BTreeMap<K, V>, String> {
    let mut map = BTreeMap::new();
    for item in items {
        let (key, value) = item?;
        if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(format!("{what} do not ascend"));
        }
        map.insert(key, value);
    }
    Ok(map)
}

pub(super) fn encode_version(version: Version) -> pb::SoftwareVersion {
    pb::SoftwareVersion { major: version.major.into(), minor: version.minor.into() }
}

pub(super) fn decode_version(version: Option<pb::SoftwareVersion>) -> Result<Version, String> {
    let pb::SoftwareVersion { major, minor } = version.ok_or_else(missing("the version"))?;
    match (u16::try_from(major), u16::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(Version { major, minor }),
        _ => Err(format!("{major}.{minor} is not a version")),
    }
}

/// `None` if there is none.
pub(super) fn decode_known_version(version: Option<pb::SoftwareVersion>) -> Result<Option<Version>, String> {
    version.map(|version| decode_version(Some(version))).transpose()
}

pub(super) fn encode_freeze(freeze: &Freeze) -> pb::VersionFreeze {
    let version = Some(encode_version(freeze.version));
    pb::VersionFreeze { version, by: freeze.by.clone(), at_ms: freeze.at.unix_ms() }
}

pub(super) fn decode_freeze(freeze: pb::VersionFreeze) -> Result<Freeze, String> {
    Ok(Freeze { version: decode_version(freeze.version)?, by: freeze.by, at: time(freeze.at_ms)? })
}

pub(super) fn encode_settings(settings: &CatalogSettings) -> pb::CatalogSettings {
    pb::CatalogSettings {
        node_ttl_ms: settings.node_ttl_ms,
        settle_ms: settings.settle_ms,
        max_key_bytes: settings.max_key_bytes,
        delta_log: settings.delta_log,
        audit_log: settings.audit_log,
        request_log: settings.request_log,
    }
}

pub(super) fn decode_settings(settings: Option<pb::CatalogSettings>) -> Result<CatalogSettings, String> {
    let settings = settings.ok_or_else(missing("the settings"))?;
    Ok(CatalogSettings {
        node_ttl_ms: settings.node_ttl_ms,
        settle_ms: settings.settle_ms,
        max_key_bytes: settings.max_key_bytes,
        delta_log: settings.delta_log,
        audit_log: settings.audit_log,
        request_log: settings.request_log,
    })
}

pub(super) fn encode_route(route: &Route) -> pb::CatalogRoute {
    pb::CatalogRoute {
        route_id: route.id.0,
        range: Some(encode_range(&route.interval)),
        group_id: route.group.0,
        shard_id: route.shard.0,
        state: Some(match route.state {
            RouteState::Active => State::Active(pb::RouteActive {}),
            RouteState::WriteFenced { job } => State::WriteFenced(pb::RouteWriteFenced { job_id: job.0 }),
        }),
    }
}

pub(super) fn decode_route(route: pb::CatalogRoute) -> Result<Route, String> {
    Ok(Route {
        id: RouteId(route.route_id),
        interval: decode_range(route.range).map_err(|error| error.to_string())?,
        group: GroupId(route.group_id),
        shard: ShardId(route.shard_id),
        state: match route.state.ok_or_else(missing("the state of a route"))? {
            State::Active(pb::RouteActive {}) => RouteState::Active,
            State::WriteFenced(pb::RouteWriteFenced { job_id }) => RouteState::WriteFenced { job: JobId(job_id) },
        },
    })
}

pub(super) fn decode_routes(routes: Vec<pb::CatalogRoute>) -> Result<Vec<Route>, String> {
    routes.into_iter().map(decode_route).collect()
}

pub(super) fn encode_group(group: &GroupDescriptor) -> pb::CatalogGroup {
    let replica = |(node, replica): (&NodeId, &Replica)| pb::GroupReplica {
        node_id: node.0,
        replica_id: replica.id.0,
        role: match replica.role {
            ReplicaRole::Learner => PbRole::Learner,
            ReplicaRole::Voter => PbRole::Voter,
        }
        .into(),
        state: match replica.state {
            ReplicaState::Joining => PbState::Joining,
            ReplicaState::Active => PbState::Active,
            ReplicaState::Leaving => PbState::Leaving,
        }
        .into(),
    };
    pb::CatalogGroup {
        group_id: group.id.0,
        replicas: group.replicas.iter().map(replica).collect(),
        next_replica: group.next_replica.0,
    }
}

pub(super) fn decode_group(group: pb::CatalogGroup) -> Result<GroupDescriptor, String> {
    Ok(GroupDescriptor {
        id: GroupId(group.group_id),
        replicas: map("the replicas of a group", group.replicas.into_iter().map(decode_replica))?,
        next_replica: ReplicaId(group.next_replica),
    })
}

fn decode_replica(replica: pb::GroupReplica) -> Result<(NodeId, Replica), String> {
    let role = match replica.role() {
        PbRole::Learner => ReplicaRole::Learner,
        PbRole::Voter => ReplicaRole::Voter,
        PbRole::Unspecified => return Err(missing("the role of a replica")()),
    };
    let state = match replica.state() {
        PbState::Joining => ReplicaState::Joining,
        PbState::Active => ReplicaState::Active,
        PbState::Leaving => ReplicaState::Leaving,
        PbState::Unspecified => return Err(missing("the state of a replica")()),
    };
    Ok((NodeId(replica.node_id), Replica { id: ReplicaId(replica.replica_id), role, state }))
}
