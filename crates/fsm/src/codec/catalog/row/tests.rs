use std::collections::{BTreeMap, BTreeSet};

use drover_catalog::{CatalogReply, CatalogSettings, Freeze, GroupDescriptor, Route, RouteState, Version};
use drover_hlc::PhysicalMs;
use drover_keys::JobId;
use proptest::prelude::*;

use super::super::strategies::{any_key, any_row};
use super::*;
use crate::state::tests::interval;

fn ms(n: u64) -> PhysicalMs {
    PhysicalMs::new(n).unwrap()
}

#[test]
fn golden_bytes_of_every_row() {
    let route = Route {
        id: RouteId(1),
        interval: interval("a", "b"),
        group: GroupId(2),
        shard: ShardId(3),
        state: RouteState::WriteFenced { job: JobId(4) },
    };
    let route_bytes = [8, 1, 18, 6, 10, 1, b'a', 18, 1, b'b', 24, 2, 32, 3, 50, 2, 8, 4];
    let active = Route { state: RouteState::Active, ..route.clone() };
    let settings =
        CatalogSettings { node_ttl_ms: 1, settle_ms: 2, max_key_bytes: 3, delta_log: 4, audit_log: 5, request_log: 6 };
    let version = Version::new(1, 2);
    let meta = Meta {
        settings,
        bootstrap: 7,
        version: CatalogVersion(1),
        revision: 2,
        next_route: RouteId(3),
        next_shard: ShardId(4),
        next_group: GroupId(5),
        next_node: NodeId(6),
        next_job: JobId(8),
        next_audit: 7,
        next_request: 8,
        clock: ms(9),
        cluster_version: Some(version),
        high_water: version,
        freeze: Some(Freeze { version, by: "b".to_owned(), at: ms(9) }),
    };
    let meta_bytes = [
        &[10, 12, 8, 1, 16, 2, 24, 3, 32, 4, 40, 5, 48, 6, 18, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..],
        &[24, 1, 32, 2, 40, 3, 48, 4, 56, 5, 64, 6, 72, 7, 80, 8, 88, 9],
        &[98, 4, 8, 1, 16, 2, 106, 4, 8, 1, 16, 2, 114, 11, 10, 4, 8, 1, 16, 2, 18, 1, b'b', 24, 9, 120, 7],
    ]
    .concat();
    let presence = Presence {
        store: StoreId([5; 16]),
        version,
        capabilities: BTreeSet::from(["x".to_owned()]),
        renewed: ms(3),
        serving_since: Some(ms(2)),
    };
    let node = NodeEntry {
        id: NodeId(1),
        address: "a".to_owned(),
        admin_address: "b".to_owned(),
        draining: true,
        presence: Some(presence),
    };
    let node_bytes = [
        &[8, 1, 18, 1, b'a', 26, 1, b'b', 32, 1, 42, 31, 10, 16][..],
        &[5; 16],
        &[18, 4, 8, 1, 16, 2, 26, 1, b'x', 32, 3, 40, 2],
    ]
    .concat();
    let removed = RemovedNode { id: NodeId(1), store: Some(StoreId([5; 16])), at: ms(3) };
    let group = GroupDescriptor::new(GroupId(1), &BTreeSet::from([NodeId(2)]));
    let group_bytes = [8, 1, 18, 8, 8, 2, 16, 1, 24, 2, 32, 2, 24, 2];
    let text = |t: &str| t.to_owned();
    let event =
        AuditEvent { seq: 1, at: ms(2), actor: text("a"), action: text("b"), subject: text("c"), details: text("d") };
    let delta = RouteDelta { version: CatalogVersion(9), removed: vec![RouteId(8)], upserted: vec![active] };
    let reply = CatalogReply::Group(group.clone());
    let request = RequestRecord { seq: 1, id: RequestId([2; 16]), fingerprint: 3, reply };
    let numbered = |tag: u8, n: u8| vec![tag, 0, 0, 0, 0, 0, 0, 0, n];
    let table: Vec<(CatalogRow, Vec<u8>, Vec<u8>)> = vec![
        (CatalogRow::Meta(Box::new(meta)), vec![1], meta_bytes),
        (CatalogRow::Route(route), vec![2, b'a'], route_bytes.to_vec()),
        (
            CatalogRow::Delta(Arc::new(delta)),
            numbered(3, 9),
            [&[8, 9, 18, 1, 8, 26, 16][..], &route_bytes[..14], &[42, 0]].concat(),
        ),
        (CatalogRow::Node(node), numbered(4, 1), node_bytes),
        (CatalogRow::RemovedNode(removed), numbered(5, 1), [&[8, 1, 18, 16][..], &[5; 16], &[24, 3]].concat()),
        (CatalogRow::Group(group), numbered(6, 1), group_bytes.to_vec()),
        (
            CatalogRow::Audit(Arc::new(event)),
            numbered(7, 1),
            vec![8, 1, 16, 2, 26, 1, b'a', 34, 1, b'b', 42, 1, b'c', 50, 1, b'd'],
        ),
        (
            CatalogRow::Request(Arc::new(request)),
            numbered(8, 1),
            [&[8, 1, 18, 16][..], &[2; 16], &[26, 16], &[0; 15], &[3, 34, 16, 58, 14], &group_bytes].concat(),
        ),
    ];
    for (row, key, content) in table {
        assert_eq!(encode_key(&row.key()), key, "{row:?}");
        // The number of the field is the tag of the key.
        let golden = [&[key[0] << 3 | 2, u8::try_from(content.len()).unwrap()][..], &content].concat();
        assert_eq!(encode(&row), golden, "{row:?}");
        assert_eq!(decode(&key, golden.into()).unwrap(), row);
    }
}

#[test]
fn a_row_that_stands_elsewhere_or_says_what_no_build_writes_is_damage() {
    let group = CatalogRow::Group(GroupDescriptor::new(GroupId(1), &BTreeSet::from([NodeId(2), NodeId(3)])));
    let (key, bytes) = (encode_key(&group.key()), encode(&group));
    let refuse = |key: &[u8], bytes: &[u8]| {
        let error = decode(key, Bytes::copy_from_slice(bytes)).unwrap_err();
        assert!(matches!(error, ApplyError::Corrupt { what: "catalog row", .. }), "{error}");
        error.to_string()
    };
    assert!(refuse(&encode_key(&RowKey::Group(GroupId(2))), &bytes).contains("stands under"));
    assert!(refuse(&key, b"").contains("its content is missing or unknown"));
    assert!(refuse(&key, &[0x7a, 0]).contains("its content is missing or unknown"), "a row of a later build");
    let mut message = pb::CatalogRow::decode(bytes).unwrap();
    let Some(Row::Group(group)) = &mut message.row else { panic!("not a group") };
    group.replicas.swap(0, 1);
    assert!(refuse(&key, &message.encode_to_vec()).contains("do not ascend"));
    let Some(Row::Group(group)) = &mut message.row else { panic!("not a group") };
    group.replicas.truncate(1);
    group.replicas[0].role = 7;
    assert!(refuse(&key, &message.encode_to_vec()).contains("the role of a replica"));
}

proptest! {
    #[test]
    fn rows_round_trip(row in any_row()) {
        prop_assert_eq!(decode(&encode_key(&row.key()), encode(&row)).unwrap(), row);
    }

    #[test]
    fn rows_sort_like_their_keys(keys in proptest::collection::vec(any_key(), 0..20)) {
        let encoded: BTreeMap<Vec<u8>, RowKey> = keys.iter().map(|key| (encode_key(key), key.clone())).collect();
        let sorted: BTreeSet<RowKey> = keys.into_iter().collect();
        prop_assert!(encoded.into_values().eq(sorted));
    }

    #[test]
    fn arbitrary_bytes_never_panic(key: Vec<u8>, bytes: Vec<u8>) {
        let _ = decode(&key, bytes.into());
    }
}
