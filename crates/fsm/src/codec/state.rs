//! `drover.storage.v1.GroupState`: the replicated control state.

use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{CatalogVersion, RouteId, ShardId};
use drover_wire::proto::storage::v1 as pb;
use drover_wire::{decode_range, encode_range};
use prost::Message;

use super::moving;
use crate::ApplyError;
use crate::state::{GroupState, OracleCeiling, OwnedInterval};

/// The stored bytes.
pub fn encode(state: &GroupState) -> Vec<u8> {
    let mut message = pb::GroupState {
        bootstrapped: state.bootstrapped,
        owned: state.owned.iter().map(encode_owned).collect(),
        read_floor: state.read_floor.raw(),
        max_commit_ts: state.max_commit_ts.raw(),
        record_horizon: state.record_horizon.raw(),
        oracle_ceiling_ms: state.oracle_ceiling.physical.unix_ms(),
        oracle_ceiling_term: state.oracle_ceiling.term,
        locks: state.locks,
        ..pb::GroupState::default()
    };
    moving::encode_moves(&state.moves, &mut message);
    message.encode_to_vec()
}

/// Reads stored bytes; without bytes the group is new.
///
/// # Errors
/// [`ApplyError::Corrupt`] if the bytes are no valid state.
pub fn decode(bytes: Option<&[u8]>) -> Result<GroupState, ApplyError> {
    let Some(bytes) = bytes else { return Ok(GroupState::default()) };
    let corrupt = |why: String| ApplyError::Corrupt { what: "group state", why };
    let mut message = pb::GroupState::decode(bytes).map_err(|e| corrupt(e.to_string()))?;
    let moves = moving::decode_moves(&mut message).map_err(corrupt)?;
    let physical = PhysicalMs::new(message.oracle_ceiling_ms).map_err(|e| corrupt(e.to_string()))?;
    let state = GroupState {
        bootstrapped: message.bootstrapped,
        owned: message.owned.into_iter().map(decode_owned).collect::<Result<_, _>>().map_err(corrupt)?,
        read_floor: Timestamp::from_raw(message.read_floor),
        max_commit_ts: Timestamp::from_raw(message.max_commit_ts),
        record_horizon: Timestamp::from_raw(message.record_horizon),
        oracle_ceiling: OracleCeiling { physical, term: message.oracle_ceiling_term },
        locks: message.locks,
        moves,
    };
    state.validate().map_err(|e| corrupt(e.to_string()))?;
    Ok(state)
}

fn encode_owned(owned: &OwnedInterval) -> pb::OwnedInterval {
    pb::OwnedInterval {
        range: Some(encode_range(&owned.interval)),
        route_id: owned.route.0,
        shard_id: owned.shard.0,
        acquired_version: owned.acquired_version.0,
        floor_ts: owned.floor_ts.raw(),
        history_start: owned.history_start.raw(),
        safe_point: owned.safe_point.raw(),
        txn_horizon: owned.txn_horizon.raw(),
    }
}

fn decode_owned(message: pb::OwnedInterval) -> Result<OwnedInterval, String> {
    Ok(OwnedInterval {
        interval: decode_range(message.range).map_err(|e| e.to_string())?,
        route: RouteId(message.route_id),
        shard: ShardId(message.shard_id),
        acquired_version: CatalogVersion(message.acquired_version),
        floor_ts: Timestamp::from_raw(message.floor_ts),
        history_start: Timestamp::from_raw(message.history_start),
        safe_point: Timestamp::from_raw(message.safe_point),
        txn_horizon: Timestamp::from_raw(message.txn_horizon),
    })
}

#[cfg(test)]
mod tests {
    use drover_keys::{End, GroupId, Interval, JobEpoch, JobId};
    use drover_mvcc::RowSum;
    use proptest::prelude::*;

    use super::*;
    use crate::moving::{Fence, ImportJob, ImportPhase, Moves, Released, SourceJob, Stream};
    use crate::state::tests::{owned, state, ts};

    #[test]
    fn golden_bytes() {
        let golden = GroupState {
            read_floor: ts(1),
            max_commit_ts: ts(2),
            record_horizon: ts(3),
            oracle_ceiling: OracleCeiling { physical: PhysicalMs::new(4).unwrap(), term: 5 },
            locks: 6,
            ..state(vec![OwnedInterval {
                floor_ts: ts(7),
                history_start: ts(8),
                safe_point: ts(9),
                route: RouteId(10),
                shard: ShardId(11),
                ..owned("a", "", 12)
            }])
        };
        let range = [0x0a, 3, 0x0a, 1, b'a'];
        let rest = [0x10, 10, 0x18, 11, 0x20, 12, 0x28, 7, 0x30, 8, 0x38, 9];
        let counters = [0x18, 1, 0x20, 2, 0x28, 3, 0x30, 4, 0x38, 5, 0x40, 6];
        let bytes = [&[8, 1, 0x12, 17][..], &range, &rest, &counters].concat();
        assert_eq!(encode(&golden), bytes);
        assert_eq!(decode(Some(&bytes)).unwrap(), golden);
        assert!(encode(&GroupState::default()).is_empty());
        assert_eq!(decode(None).unwrap(), GroupState::default());
    }

    #[test]
    fn an_invalid_state_is_corruption() {
        let overlap = state(vec![owned("a", "c", 1), owned("b", "d", 1)]);
        assert!(matches!(decode(Some(&encode(&overlap))), Err(ApplyError::Corrupt { what: "group state", .. })));
        assert!(decode(Some(b"\x12\x01")).is_err());
    }

    fn any_source(owned: &OwnedInterval, n: [u64; 6]) -> SourceJob {
        let fences = [Fence::Open, Fence::Written, Fence::Sealed, Fence::Read];
        SourceJob {
            job: JobId(n[0]),
            epoch: JobEpoch(n[1]),
            interval: owned.interval.clone(),
            shard: owned.shard,
            target: GroupId(n[2]),
            armed_at: n[3],
            safe_point: ts(n[4]),
            tracked_rows: n[5],
            tracked_bytes: n[0],
            change: RowSum { hash: u128::from(n[1]) << 64 | u128::from(n[2]), rows: n[3] },
            fence: fences[(n[4] % 4) as usize],
            fenced_in: JobEpoch(n[5]),
            fenced_at: n[0],
            sealed_at: n[1],
        }
    }

    fn any_import(interval: Interval, n: [u64; 6]) -> ImportJob {
        let stream = |n: u64| Stream { cursor: n.to_be_bytes().to_vec().into(), done: n.is_multiple_of(2) };
        let phases = [ImportPhase::Open, ImportPhase::Closed, ImportPhase::Differs];
        ImportJob {
            job: JobId(n[0]),
            epoch: JobEpoch(n[1]),
            interval,
            shard: ShardId(n[2]),
            source: GroupId(n[3]),
            armed_at: n[4],
            versions: stream(n[5]),
            records: stream(n[0]),
            tracked: n[1],
            sum: RowSum { hash: u128::from(n[2]), rows: n[3] },
            bytes: n[4],
            highest: ts(n[5]),
            phase: phases[(n[0] % 3) as usize],
            closed_in: JobEpoch(n[1]),
        }
    }

    fn any_state() -> impl Strategy<Value = GroupState> {
        let cuts = proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 0..4), 0..8);
        (cuts, any::<[u64; 6]>(), 0..1u64 << 48, any::<bool>()).prop_map(|(cuts, n, ceiling_ms, open)| {
            let cuts: Vec<Vec<u8>> = cuts.into_iter().collect();
            let bounds = cuts.iter().enumerate().filter_map(|(i, start)| match cuts.get(i + 1) {
                Some(end) => Some((start, End::Key(end.clone().into()))),
                None => open.then_some((start, End::Unbounded)),
            });
            let owned: Vec<OwnedInterval> = bounds
                .map(|(start, end)| OwnedInterval {
                    interval: Interval::new(start.clone(), end).unwrap(),
                    floor_ts: ts(n[0]),
                    safe_point: ts(n[1]),
                    ..owned("", "", n[2].max(1))
                })
                .collect();
            let version = CatalogVersion(n[3]);
            let released = Released { interval: Interval::all(), group: GroupId(n[4]), version };
            let moves = Moves {
                sources: owned.iter().skip(1).map(|owned| any_source(owned, n)).collect(),
                imports: owned.iter().take(2).map(|owned| any_import(owned.interval.clone(), n)).collect(),
                retired: n[..3].iter().copied().map(JobId).collect(),
                horizon: JobId(n[5]),
                released: if open { vec![released] } else { Vec::new() },
            };
            GroupState {
                bootstrapped: true,
                owned,
                read_floor: ts(n[3]),
                max_commit_ts: ts(n[4]),
                record_horizon: ts(n[5]),
                oracle_ceiling: OracleCeiling { physical: PhysicalMs::new(ceiling_ms).unwrap(), term: n[0] },
                locks: n[1],
                moves,
            }
        })
    }

    proptest! {
        #[test]
        fn states_round_trip(state in any_state()) {
            prop_assert_eq!(state.validate(), Ok(()));
            prop_assert_eq!(decode(Some(&encode(&state))).unwrap(), state);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_give_an_invalid_state(bytes: Vec<u8>) {
            if let Ok(state) = decode(Some(&bytes)) {
                prop_assert_eq!(state.validate(), Ok(()));
            }
        }
    }
}
