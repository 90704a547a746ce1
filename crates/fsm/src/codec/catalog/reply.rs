//! `drover.storage.v1.CatalogReply`: answers that are kept for retries.

use drover_catalog::{CatalogReply, CompatNode, CompatOutcome, CompatState, Split};
use drover_keys::{CatalogVersion, NodeId};
use drover_wire::proto::storage::v1 as pb;
use pb::catalog_reply::Reply;
use pb::compat_reply::Outcome;

use super::job;
use super::parts::{
    decode_freeze, decode_group, decode_known_version, decode_route, decode_version, encode_freeze, encode_group,
    encode_route, encode_version, missing, time,
};

pub(super) fn encode(reply: &CatalogReply) -> pb::CatalogReply {
    let reply = match reply {
        CatalogReply::Bootstrapped { version } => Reply::Bootstrapped(pb::BootstrappedReply { version: version.0 }),
        CatalogReply::Split(split) => Reply::Split(pb::SplitReply {
            version: split.version.0,
            left: Some(encode_route(&split.left)),
            right: Some(encode_route(&split.right)),
        }),
        CatalogReply::Registered { node, cluster_version, high_water } => Reply::Registered(pb::RegisteredReply {
            node_id: node.0,
            cluster_version: cluster_version.map(encode_version),
            high_water: Some(encode_version(*high_water)),
        }),
        CatalogReply::Heard { cluster_version, high_water } => Reply::Heard(pb::HeardReply {
            cluster_version: cluster_version.map(encode_version),
            high_water: Some(encode_version(*high_water)),
        }),
        CatalogReply::Drain { node, on, changed } => {
            Reply::Drain(pb::DrainReply { node_id: node.0, on: *on, changed: *changed })
        }
        CatalogReply::Removed { node } => Reply::Removed(pb::RemovedReply { node_id: node.0 }),
        CatalogReply::Group(group) => Reply::Group(encode_group(group)),
        CatalogReply::Job(job) => Reply::Job(job::encode(job)),
        CatalogReply::Compat { outcome, state } => Reply::Compat(encode_compat(*outcome, state)),
    };
    pb::CatalogReply { reply: Some(reply) }
}

pub(super) fn decode(reply: Option<pb::CatalogReply>) -> Result<CatalogReply, String> {
    let route = |route: Option<pb::CatalogRoute>| decode_route(route.ok_or_else(missing("a half of a route"))?);
    Ok(match reply.and_then(|reply| reply.reply).ok_or_else(missing("an answer"))? {
        Reply::Bootstrapped(reply) => CatalogReply::Bootstrapped { version: CatalogVersion(reply.version) },
        Reply::Split(split) => CatalogReply::Split(Box::new(Split {
            version: CatalogVersion(split.version),
            left: route(split.left)?,
            right: route(split.right)?,
        })),
        Reply::Registered(reply) => CatalogReply::Registered {
            node: NodeId(reply.node_id),
            cluster_version: decode_known_version(reply.cluster_version)?,
            high_water: decode_version(reply.high_water)?,
        },
        Reply::Heard(reply) => CatalogReply::Heard {
            cluster_version: decode_known_version(reply.cluster_version)?,
            high_water: decode_version(reply.high_water)?,
        },
        Reply::Drain(pb::DrainReply { node_id, on, changed }) => {
            CatalogReply::Drain { node: NodeId(node_id), on, changed }
        }
        Reply::Removed(reply) => CatalogReply::Removed { node: NodeId(reply.node_id) },
        Reply::Group(group) => CatalogReply::Group(decode_group(group)?),
        Reply::Job(job) => CatalogReply::Job(Box::new(job::decode(job)?)),
        Reply::Compat(compat) => decode_compat(compat)?,
    })
}

fn encode_compat(outcome: CompatOutcome, state: &CompatState) -> pb::CompatReply {
    let outcome = match outcome {
        CompatOutcome::Frozen => Outcome::Frozen,
        CompatOutcome::AlreadyFrozen => Outcome::AlreadyFrozen,
        CompatOutcome::Unfrozen => Outcome::Unfrozen,
        CompatOutcome::NothingFrozen => Outcome::NothingFrozen,
        CompatOutcome::Read => Outcome::Read,
    };
    let node = |node: &CompatNode| pb::CompatNode {
        node_id: node.node.0,
        version: node.version.map(encode_version),
        live: node.live,
        serving_since_ms: node.serving_since.map(|since| since.unix_ms()),
    };
    pb::CompatReply {
        outcome: outcome.into(),
        cluster_version: state.cluster_version.map(encode_version),
        high_water: Some(encode_version(state.high_water)),
        freeze: state.freeze.as_ref().map(encode_freeze),
        nodes: state.nodes.iter().map(node).collect(),
    }
}

fn decode_compat(compat: pb::CompatReply) -> Result<CatalogReply, String> {
    let outcome = match compat.outcome() {
        Outcome::Frozen => CompatOutcome::Frozen,
        Outcome::AlreadyFrozen => CompatOutcome::AlreadyFrozen,
        Outcome::Unfrozen => CompatOutcome::Unfrozen,
        Outcome::NothingFrozen => CompatOutcome::NothingFrozen,
        Outcome::Read => CompatOutcome::Read,
        Outcome::Unspecified => return Err(missing("the outcome")()),
    };
    let node = |node: pb::CompatNode| {
        Ok(CompatNode {
            node: NodeId(node.node_id),
            version: decode_known_version(node.version)?,
            live: node.live,
            serving_since: node.serving_since_ms.map(time).transpose()?,
        })
    };
    let state = CompatState {
        cluster_version: decode_known_version(compat.cluster_version)?,
        high_water: decode_version(compat.high_water)?,
        freeze: compat.freeze.map(decode_freeze).transpose()?,
        nodes: compat.nodes.into_iter().map(node).collect::<Result<_, String>>()?,
    };
    Ok(CatalogReply::Compat { outcome, state })
}

#[cfg(test)]
mod tests {
    use drover_catalog::{Freeze, Route, RouteState, Version};
    use drover_hlc::PhysicalMs;
    use drover_keys::{GroupId, RouteId, ShardId};
    use prost::Message;

    use super::*;
    use crate::state::tests::interval;

    /// The answer about a group is in the row's golden bytes.
    #[test]
    fn golden_bytes_of_every_answer() {
        let (node, high_water, cluster_version) = (NodeId(1), Version::new(1, 2), Some(Version::new(1, 2)));
        let version = CatalogVersion(1);
        let left = Route {
            id: RouteId(1),
            interval: interval("a", "b"),
            group: GroupId(2),
            shard: ShardId(3),
            state: RouteState::Active,
        };
        let route = [16, 8, 1, 18, 6, 10, 1, b'a', 18, 1, b'b', 24, 2, 32, 3, 42, 0];
        let nine = PhysicalMs::new(9).unwrap();
        let compat_node = CompatNode { node, version: cluster_version, live: true, serving_since: Some(nine) };
        let state = CompatState {
            cluster_version,
            high_water,
            freeze: Some(Freeze { version: high_water, by: "b".to_owned(), at: nine }),
            nodes: vec![compat_node],
        };
        let state_bytes = [
            &[18, 4, 8, 1, 16, 2, 26, 4, 8, 1, 16, 2, 34, 11, 10, 4, 8, 1, 16, 2, 18, 1, b'b', 24, 9][..],
            &[42, 12, 8, 1, 18, 4, 8, 1, 16, 2, 24, 1, 32, 9],
        ]
        .concat();
        let outcomes = [
            CompatOutcome::Frozen,
            CompatOutcome::AlreadyFrozen,
            CompatOutcome::Unfrozen,
            CompatOutcome::NothingFrozen,
            CompatOutcome::Read,
        ];
        let compat = (1..).zip(outcomes).map(|(number, outcome)| {
            let reply = CatalogReply::Compat { outcome, state: state.clone() };
            (reply, [&[66, 41, 8, number][..], &state_bytes].concat())
        });
        let split = Split { version, left: left.clone(), right: left };
        let table = [
            (CatalogReply::Bootstrapped { version }, vec![10, 2, 8, 1]),
            (CatalogReply::Split(Box::new(split)), [&[18, 38, 8, 1, 18][..], &route, &[26], &route].concat()),
            (
                CatalogReply::Registered { node, cluster_version, high_water },
                vec![26, 14, 8, 1, 18, 4, 8, 1, 16, 2, 26, 4, 8, 1, 16, 2],
            ),
            (CatalogReply::Heard { cluster_version, high_water }, vec![34, 12, 10, 4, 8, 1, 16, 2, 18, 4, 8, 1, 16, 2]),
            (CatalogReply::Drain { node, on: true, changed: true }, vec![42, 6, 8, 1, 16, 1, 24, 1]),
            (CatalogReply::Removed { node }, vec![50, 2, 8, 1]),
        ];
        for (reply, golden) in table.into_iter().chain(compat) {
            assert_eq!(encode(&reply).encode_to_vec(), golden, "{reply:?}");
            assert_eq!(decode(Some(pb::CatalogReply::decode(golden.as_slice()).unwrap())).unwrap(), reply);
        }
    }
}
