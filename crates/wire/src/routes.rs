//! Routes and their changes as messages of `drover.v1`.

use drover_catalog::{Route, RouteDelta, RouteState};
use drover_keys::{CatalogVersion, GroupId, JobId, NodeId, RouteId, ShardId};

use crate::WireError;
use crate::proto::v1;
use crate::range::interval;

/// A route as a message, and who is believed to lead its group.
pub fn encode_route(route: &Route, leader: Option<NodeId>) -> v1::Route {
    let (state, job_id) = match route.state {
        RouteState::Active => (v1::route::State::Active, 0),
        RouteState::WriteFenced { job } => (v1::route::State::WriteFenced, job.0),
    };
    v1::Route {
        route_id: route.id.0,
        start: route.interval.start().clone(),
        end: route.interval.end().as_key().cloned(),
        group_id: route.group.0,
        shard_id: route.shard.0,
        leader: leader.map_or(0, |node| node.0),
        state: state.into(),
        job_id,
        approximate_bytes: None,
        acquired_version: None,
    }
}

/// A route from its message.
///
/// # Errors
/// If it has no state that this build knows, or bounds that are none.
pub fn decode_route(route: v1::Route) -> Result<Route, WireError> {
    let state = match v1::route::State::try_from(route.state) {
        Ok(v1::route::State::Active) => RouteState::Active,
        Ok(v1::route::State::WriteFenced) => RouteState::WriteFenced { job: JobId(route.job_id) },
        Ok(v1::route::State::Unspecified) | Err(_) => return Err(WireError::Malformed("route state")),
    };
    Ok(Route {
        id: RouteId(route.route_id),
        interval: interval(route.start, route.end)?,
        group: GroupId(route.group_id),
        shard: ShardId(route.shard_id),
        state,
    })
}

/// A change as a message.
pub fn encode_route_delta(delta: &RouteDelta) -> v1::RouteDelta {
    v1::RouteDelta {
        version: delta.version.0,
        removed: delta.removed.iter().map(|id| id.0).collect(),
        upserted: delta.upserted.iter().map(|route| encode_route(route, None)).collect(),
    }
}

/// A change from its message.
///
/// # Errors
/// If one of its routes is none.
pub fn decode_route_delta(delta: v1::RouteDelta) -> Result<RouteDelta, WireError> {
    Ok(RouteDelta {
        version: CatalogVersion(delta.version),
        removed: delta.removed.into_iter().map(RouteId).collect(),
        upserted: delta.upserted.into_iter().map(decode_route).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::strategies;

    fn route() -> impl Strategy<Value = Route> {
        (strategies::interval(), any::<[u64; 3]>(), proptest::option::of(any::<u64>())).prop_map(
            |(interval, [id, group, shard], job)| Route {
                id: RouteId(id),
                interval,
                group: GroupId(group),
                shard: ShardId(shard),
                state: job.map_or(RouteState::Active, |job| RouteState::WriteFenced { job: JobId(job) }),
            },
        )
    }

    #[test]
    fn a_route_of_a_state_of_the_future_is_refused() {
        let message = v1::Route { state: 99, end: Some("b".into()), ..Default::default() };
        assert_eq!(decode_route(message), Err(WireError::Malformed("route state")));
    }

    proptest! {
        #[test]
        fn changes_round_trip(
            version: u64,
            removed: Vec<u64>,
            upserted in proptest::collection::vec(route(), 0..5),
        ) {
            let removed = removed.into_iter().map(RouteId).collect();
            let delta = RouteDelta { version: CatalogVersion(version), removed, upserted };
            let bytes = encode_route_delta(&delta).encode_to_vec();
            prop_assert_eq!(decode_route_delta(v1::RouteDelta::decode(&bytes[..]).unwrap()), Ok(delta));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(delta) = v1::RouteDelta::decode(&bytes[..]) {
                let _ = decode_route_delta(delta);
            }
        }
    }
}
