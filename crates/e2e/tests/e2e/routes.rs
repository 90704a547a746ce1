//! Routes of a running cluster: they are durable, they can be divided under traffic, and whoever follows them misses
//! nothing.

use std::sync::Arc;

use bytes::Bytes;
use drover_client::{CatalogVersion, Client, NodeId, Reason, RouteEventKind, RouteId, RouteWatch, Routes};
use drover_testkit::Cluster;
use drover_testkit::cluster::{PATIENCE, Split};
use drover_testkit::ledger::Ledger;
use drover_testkit::wait::wait_until;
use drover_testkit::workload::Load;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The route that holds `key`.
fn route_of<'a>(routes: &'a Routes, key: &[u8]) -> &'a drover_client::Route {
    let after = routes.routes.partition_point(|route| route.start.as_ref() <= key);
    &routes.routes[after - 1]
}

fn assert_tiled(routes: &Routes) {
    assert!(routes.routes[0].start.is_empty());
    for pair in routes.routes.windows(2) {
        assert_eq!(pair[0].end.as_ref(), Some(&pair[1].start));
    }
    assert_eq!(routes.routes.last().unwrap().end, None);
}

/// Splits the route of `key`. The node that tells the routes may be a little behind; then it is asked again.
async fn split(client: &Client, key: &str) -> drover_client::SplitRangeResponse {
    loop {
        let routes = client.routes().await.unwrap();
        let route = RouteId(route_of(&routes, key.as_bytes()).route_id);
        match client.split_route(routes.version, route, key.to_owned(), "test").await {
            Err(error) if error.reason == Reason::VersionMismatch => {}
            done => return done.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_divided_many_times_under_heavy_writes_without_an_error_or_a_loss() {
    const SPLITS: u64 = 150;
    let cluster = Cluster::builder().start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let ledger = Arc::new(Ledger::new());
    let stop = CancellationToken::new();
    let rows = (0u64..).map(|n| (format!("{:08}", n * 7_919 % 100_000_000).into(), "value".into()));
    let load = Load { rows, on_row: Arc::new(|_, _| {}) };
    let reader = Client::connect(cluster.endpoints()).await.unwrap();
    let reading = async {
        let mut reads = 0u64;
        while !stop.is_cancelled() {
            // From the left of every boundary to its right.
            reader.count(drover_client::Interval::all(), None).await.unwrap();
            reader.get(format!("{:08}", reads * 104_729 % 100_000_000)).await.unwrap();
            reads += 1;
        }
        reads
    };
    let splitter = Client::connect(cluster.endpoints()).await.unwrap();
    let before = splitter.routes().await.unwrap();
    let splitting = async {
        for n in 0..SPLITS {
            let done = split(&splitter, &format!("{:08}", (n * 61 + 17) * 1_000_003 % 100_000_000)).await;
            let (left, right) = (done.left.unwrap(), done.right.unwrap());
            assert_eq!((left.group_id, left.shard_id), (right.group_id, right.shard_id), "a split moves nothing");
            assert_eq!(left.end.unwrap(), right.start);
        }
        stop.cancel();
    };
    let (_, (), reads) = tokio::join!(load.run(vec![client; 16], &ledger, &stop), splitting, reading);
    let (acknowledged, refused, unknown) = ledger.tally();
    assert!(acknowledged > 100 && reads > 0, "only {acknowledged} writes and {reads} reads");
    assert_eq!((refused, unknown), (0, 0));
    let routes = splitter.routes().await.unwrap();
    assert_eq!(routes.version.0, before.version.0 + SPLITS);
    assert_eq!(routes.routes.len(), before.routes.len() + SPLITS as usize);
    assert_tiled(&routes);
    for node in cluster.node_ids() {
        ledger.audit(&cluster.all_rows(node).await.unwrap()).assert_clean();
    }
    cluster.assert_replicas_equal().await.unwrap();
}

/// More routes than one answer holds, of a map that changes faster than it could be read page by page.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_map_is_read_as_a_whole_while_routes_are_divided_without_a_pause() {
    let starts: Vec<Vec<u8>> = (1..1_200).map(|n| format!("{n:04}").into_bytes()).collect();
    let cluster = Cluster::builder().nodes(1).data_groups(2).split(Split::At(starts)).start().await.unwrap();
    let splitter = Client::connect(cluster.endpoints()).await.unwrap();
    let first = splitter.routes().await.unwrap();
    assert_eq!(first.routes.len(), 1_200);
    let stop = CancellationToken::new();
    let splitting = async {
        let mut version = first.version;
        let mut routes: Vec<_> = first.routes.iter().map(|route| (route.route_id, route.start.clone())).collect();
        // A piece is cut off from the end of every route, and again and again.
        for suffix in (1u8..b'0').rev() {
            for (id, start) in &mut routes {
                if stop.is_cancelled() {
                    return version;
                }
                let key = [start.as_ref(), &[suffix]].concat();
                let split = splitter.split_route(version, RouteId(*id), key, "test").await.unwrap();
                version = CatalogVersion(split.version);
                *id = split.left.unwrap().route_id;
            }
        }
        panic!("there was nothing left to divide");
    };
    let reading = async {
        for _ in 0..10 {
            let client = Client::connect(cluster.endpoints()).await.unwrap();
            let routes = client.list_routes(true).await.unwrap();
            assert_tiled(&routes);
            assert_eq!(routes.routes.len() as u64, 1_200 + routes.version.0 - first.version.0);
            assert!(routes.routes.iter().all(|route| route.approximate_bytes.is_some() && route.leader == 1));
        }
        stop.cancel();
    };
    let (last, ()) = tokio::join!(splitting, reading);
    assert!(last > first.version, "nothing was divided meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_outlive_every_process_and_the_configuration_is_not_read_again() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    for key in ["b", "bb", "x"] {
        split(&client, key).await;
    }
    let before = client.routes().await.unwrap();
    for node in cluster.nodes() {
        node.kill().unwrap();
    }
    for node in cluster.nodes() {
        node.start().unwrap();
    }
    cluster.wait_ready(PATIENCE).await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    // A node that was killed catches up with what it had not flushed.
    let after = wait_until("the routes as they were", PATIENCE, || async {
        let routes = client.routes().await.map_err(|error| error.to_string())?;
        if routes.version >= before.version { Ok(routes) } else { Err(format!("version {}", routes.version)) }
    })
    .await
    .unwrap();
    let facts = |routes: &Routes| -> Vec<(u64, Bytes, u64, u64)> {
        routes.routes.iter().map(|r| (r.route_id, r.start.clone(), r.group_id, r.shard_id)).collect()
    };
    assert_eq!((after.version, facts(&after)), (before.version, facts(&before)));
    client.put("bbb", "1").await.unwrap();
    let owner = client.route_ownership("bbb").await.unwrap();
    let owned = owner.ownership.unwrap();
    assert_eq!(owned.acquired_version, CatalogVersion::FIRST.0, "a split leaves ownership alone");
}

type Distribution = drover_wire::proto::v1::distribution_client::DistributionClient<tonic::transport::Channel>;

async fn distribution(cluster: &Cluster, node: NodeId) -> Distribution {
    Distribution::connect(format!("http://{}", cluster.node(node).grpc_address())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_of_a_range_are_told_at_exactly_the_version_that_was_asked_for() {
    use drover_wire::proto::v1::GetIntersectingRoutesRequest;
    let cluster = Cluster::builder().nodes(1).data_groups(2).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    for key in ["d", "h"] {
        split(&client, key).await;
    }
    let mut raw = distribution(&cluster, NodeId(1)).await;
    let present = client.routes().await.unwrap().version.0;
    // By the default of the harness groups 2 and 3 meet at "n".
    let request = |start: &str, end: Option<&str>, version, timeout_ms| GetIntersectingRoutesRequest {
        start: Bytes::copy_from_slice(start.as_bytes()),
        end: end.map(|end| Bytes::copy_from_slice(end.as_bytes())),
        version,
        timeout_ms,
    };
    let table: [(&str, Option<&str>, &[&str]); 8] = [
        ("", None, &["", "d", "h", "n"]),
        ("d", Some("h"), &["d"]),
        ("d", Some("h\0"), &["d", "h"]),
        ("c", Some("d"), &[""]),
        ("c", Some("d\0"), &["", "d"]),
        ("e", Some("f"), &["d"]),
        ("z", None, &["n"]),
        ("", Some("a"), &[""]),
    ];
    for (start, end, expect) in table {
        let told = raw.get_intersecting_routes(request(start, end, present, 5_000)).await.unwrap().into_inner().routes;
        let starts: Vec<_> = told.iter().map(|route| std::str::from_utf8(&route.start).unwrap()).collect();
        assert_eq!(starts, expect, "[{start}, {end:?})");
        assert!(told.iter().all(|route| route.group_id == if route.start == "n" { 3 } else { 2 }), "{told:?}");
    }
    let refusals = [
        (request("", None, present - 1, 5_000), Reason::VersionMismatch, "an older version is not kept"),
        (request("", None, present + 1, 50), Reason::VersionMismatch, "one of the future does not come in time"),
        (request("", None, 0, 5_000), Reason::VersionMismatch, "a version is needed"),
        (request("m", Some("b"), present, 5_000), Reason::RangeReversed, "the bounds are reversed"),
        (request("m", Some(""), present, 5_000), Reason::RangeReversed, "an end that is there is a key"),
    ];
    for (request, reason, why) in refusals {
        let error = drover_wire::status_to_error(&raw.get_intersecting_routes(request).await.unwrap_err());
        assert_eq!((error.reason, error.is_unknown()), (reason, false), "{why}: {error}");
    }
    // One that is about to come is waited for.
    let mut waiter = raw.clone();
    let (told, _) =
        tokio::join!(waiter.get_intersecting_routes(request("", None, present + 1, 30_000)), split(&client, "x"));
    assert_eq!(told.unwrap().into_inner().routes.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_follow_what_was_written_to_each_route() {
    use drover_wire::proto::v1::ListRoutesRequest;
    // Sizes are those of files, so what was written shows when it was flushed.
    let cluster = Cluster::builder().data_groups(2).set("storage.flush_interval_ms", 200).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    split(&client, "d").await;
    const WRITTEN: usize = 4 << 20;
    let value = || (0..WRITTEN / 64).map(|_| rand::random::<u8>()).collect::<Vec<u8>>();
    for n in 0..64 {
        client.put(format!("e{n:03}"), value()).await.unwrap();
    }
    // Every node tells it, whoever leads, and in pages as well as at once.
    for node in cluster.node_ids() {
        let mut raw = distribution(&cluster, node).await;
        wait_until("sizes of what was written", PATIENCE, async || {
            let (mut routes, mut start) = (Vec::new(), Some(Bytes::new()));
            while let Some(from) = start {
                let request = ListRoutesRequest { start: from, limit: 2, with_sizes: true, ..Default::default() };
                let page = raw.list_routes(request).await.map_err(|status| status.to_string())?.into_inner();
                routes.extend(page.routes);
                start = page.next;
            }
            let found = |key: &str| routes.iter().find(|route| route.start == key).cloned().unwrap();
            let (empty, full, other) = (found(""), found("d"), found("n"));
            assert!(routes.iter().all(|route| route.leader != 0), "whoever told the size leads: {routes:?}");
            assert!(routes.iter().all(|route| route.acquired_version == Some(CatalogVersion::FIRST.0)), "{routes:?}");
            let bytes = [&empty, &full, &other].map(|route| route.approximate_bytes.unwrap());
            let about = WRITTEN as u64 / 2..WRITTEN as u64 * 3;
            match about.contains(&bytes[1]) && bytes[0] < WRITTEN as u64 / 8 && bytes[2] < WRITTEN as u64 / 8 {
                true => Ok(()),
                false => Err(format!("{bytes:?}")),
            }
        })
        .await
        .unwrap();
        // Nobody asked for sizes.
        let routes = raw.list_routes(ListRoutesRequest::default()).await.unwrap().into_inner().routes;
        let untold = |route: &drover_client::Route| (route.approximate_bytes, route.acquired_version) == (None, None);
        assert!(routes.iter().all(untold), "{routes:?}");
    }
}

/// What reflection tells of a node, in alphabetical order.
const SERVICES: [&str; 8] = [
    "drover.v1.Cluster",
    "drover.v1.Compat",
    "drover.v1.Distribution",
    "drover.v1.Internal",
    "drover.v1.Kv",
    "drover.v1.Txn",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
];

/// Asks for the services by reflection, and for the file that describes one of them.
async fn listed(channel: tonic::transport::Channel) -> Vec<String> {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let requests = [
        ask(MessageRequest::FileContainingSymbol("drover.v1.Kv".to_owned())),
        ask(MessageRequest::ListServices(String::new())),
    ];
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(futures::stream::iter(requests)).await.unwrap().into_inner();
    let file = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(file, MessageResponse::FileDescriptorResponse(file) if !file.file_descriptor_proto.is_empty()));
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("reflection lists no services")
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_gone_when_its_time_to_live_has_passed() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = cluster.client().await.unwrap();
    let written = client.put_ttl("k", "v", std::time::Duration::from_millis(300)).await.unwrap();
    let before = client.get_at("k", written).await.unwrap().unwrap();
    assert_eq!((before.commit_ts, &before.value[..]), (written, &b"v"[..]));
    let expiry = before.expire_at.unwrap();
    wait_until("the value to expire", PATIENCE, async || match client.get("k").await.unwrap() {
        None => Ok(()),
        Some(version) => Err(format!("{version:?}")),
    })
    .await
    .unwrap();
    assert!(client.latest_commit_ts("k").await.unwrap() == Some(written), "its version is there, and expired");
    assert!(client.put("other", "x").await.unwrap() >= expiry, "it lived at least that long");
    let rows = client.scan(drover_client::ScanQuery::new(drover_client::Interval::all())).next_page().await.unwrap();
    assert_eq!(rows.unwrap().entries.len(), 1, "a scan does not show it either");
}

/// Raw calls, so that no client library picks the node.
#[tokio::test(flavor = "multi_thread")]
async fn every_node_takes_every_request_says_what_it_serves_and_whether_it_is_healthy() {
    use drover_wire::proto::v1;
    let cluster = Cluster::builder().start().await.unwrap();
    for (n, node) in cluster.nodes().iter().enumerate() {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", node.grpc_address())).unwrap();
        let channel = channel.connect().await.unwrap();
        let mut kv = v1::kv_client::KvClient::new(channel.clone());
        // One key in each data group, so that at most one of them is led by the node that is asked.
        for key in ["0", "k", "z"] {
            let value = format!("{key}{n}");
            let put = v1::PutRequest { key: key.into(), value: value.clone().into(), ..Default::default() };
            kv.put(put).await.unwrap();
            let got = kv.get(v1::GetRequest { key: key.into(), ..Default::default() }).await.unwrap().into_inner();
            let version = got.version.unwrap();
            assert_eq!(version.value, value);
            let latest = v1::LatestCommitTsRequest { key: key.into(), ..Default::default() };
            let latest = kv.latest_commit_ts(latest).await.unwrap().into_inner();
            assert_eq!(latest.commit_ts, version.commit_ts);
        }
        let never = v1::LatestCommitTsRequest { key: "never".into(), ..Default::default() };
        assert_eq!(kv.latest_commit_ts(never).await.unwrap().into_inner().commit_ts, 0, "there is none");
        assert_eq!(listed(channel.clone()).await, SERVICES);
        for reverse in [false, true] {
            let scanned = kv.scan(v1::ScanRequest { reverse, ..Default::default() }).await.unwrap().into_inner();
            let mut keys: Vec<_> = scanned.entries.into_iter().map(|entry| entry.key).collect();
            if reverse {
                keys.reverse();
            }
            assert_eq!(keys, ["0", "k", "z"], "over the groups in key order, reverse: {reverse}");
        }
        let mut health = HealthClient::new(channel);
        for service in ["", "drover.v1.Kv", "drover.v1.Distribution"] {
            becomes(&mut health, service, ServingStatus::Serving).await;
        }
    }
    // Without a quorum the one that is left serves nothing, and says so.
    cluster.nodes()[0].kill().unwrap();
    cluster.nodes()[1].kill().unwrap();
    let left = cluster.nodes()[2].grpc_address();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{left}")).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    becomes(&mut health, "", ServingStatus::NotServing).await;
}

/// Waits until the standard health service says this of a service; it follows the node's readiness.
async fn becomes(health: &mut HealthClient<tonic::transport::Channel>, service: &str, wanted: ServingStatus) {
    wait_until("what the health service says", PATIENCE, async || {
        let check = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        match health.check(check).await.map_err(|status| status.to_string())?.into_inner().status() {
            status if status == wanted => Ok(()),
            other => Err(format!("{service:?} is {other:?}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_that_cannot_be_are_refused_and_change_nothing() {
    let cluster = Cluster::builder().nodes(1).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    split(&client, "b").await;
    let before = client.routes().await.unwrap();
    let at = |key: &str| RouteId(route_of(&before, key.as_bytes()).route_id);
    let long = "k".repeat(5_000);
    let stale = CatalogVersion(before.version.0 - 1);
    let table = [
        ("an old version", stale, at("c"), "c", Reason::VersionMismatch),
        ("a future version", CatalogVersion(before.version.0 + 1), at("c"), "c", Reason::VersionMismatch),
        ("no such route", before.version, RouteId(999), "c", Reason::UnknownRoute),
        ("the key of another route", before.version, at("a"), "c", Reason::InvalidArgument),
        ("an existing boundary", before.version, at("b"), "b", Reason::InvalidArgument),
        ("the empty key", before.version, at("a"), "", Reason::InvalidArgument),
        ("a key that is too long", before.version, at(&long), &long, Reason::KeyTooLarge),
    ];
    for (case, version, route, key, reason) in table {
        let error = client.split_route(version, route, key.to_owned(), "test").await.unwrap_err();
        assert_eq!(error.reason, reason, "{case}: {error}");
        assert!(!error.is_unknown(), "{case}: {error}");
    }
    assert_eq!(client.routes().await.unwrap(), before);
}

/// The versions of a watch up to `last`, checked to be without a gap, and the routes that they lead to.
async fn follow(watch: &mut RouteWatch, last: CatalogVersion) -> (Vec<u64>, usize) {
    let (mut versions, mut routes) = (Vec::new(), 0);
    loop {
        match watch.next().await.unwrap().unwrap().event.unwrap() {
            RouteEventKind::Snapshot(part) => {
                routes += part.routes.len();
                if !part.more {
                    versions.push(part.version);
                }
            }
            RouteEventKind::Delta(delta) => {
                assert_eq!(Some(delta.version - 1), versions.last().copied().or(Some(delta.version - 1)));
                routes += delta.upserted.len() - 1;
                versions.push(delta.version);
            }
        }
        if versions.last() == Some(&last.0) {
            return (versions, routes);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_starts_with_everything_goes_on_with_changes_and_can_be_resumed_elsewhere() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let first = client.routes().await.unwrap();
    let mut watch = client.watch_routes(None).await.unwrap();
    for key in ["1", "2", "3"] {
        split(&client, key).await;
    }
    let then = CatalogVersion(first.version.0 + 3);
    let (versions, routes) = follow(&mut watch, then).await;
    assert_eq!(versions, (first.version.0..=then.0).collect::<Vec<_>>());
    assert_eq!(routes, first.routes.len() + 3);
    drop(watch);

    // Another node goes on where the first one stopped, without a snapshot.
    for key in ["4", "5"] {
        split(&client, key).await;
    }
    let other = cluster.node(cluster.node_ids()[1]);
    let elsewhere = Client::connect([other.grpc_address()]).await.unwrap();
    let mut watch = elsewhere.watch_routes(Some(then)).await.unwrap();
    let (versions, _) = follow(&mut watch, CatalogVersion(then.0 + 2)).await;
    assert_eq!(versions, [then.0 + 1, then.0 + 2]);
}

/// A node alone knows no catalog. It must not say that there are no routes, least of all again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_knows_no_catalog_says_nothing_of_routes_until_it_knows_one() {
    use drover_wire::proto::v1::distribution_client::DistributionClient;
    use drover_wire::proto::v1::{WatchRoutesRequest, route_event::Event};
    let cluster = Cluster::builder().data_groups(1).prepare().unwrap();
    let alone = cluster.node(NodeId(3));
    alone.start().unwrap();
    let address = format!("http://{}", alone.grpc_address());
    let mut client =
        wait_until("the node to answer", PATIENCE, || DistributionClient::connect(address.clone())).await.unwrap();
    let mut events = client.watch_routes(WatchRoutesRequest::default()).await.unwrap().into_inner();
    let (told, ()) = tokio::join!(events.message(), async {
        for id in [1, 2] {
            cluster.node(NodeId(id)).start().unwrap();
        }
    });
    let Some(Event::Snapshot(first)) = told.unwrap().unwrap().event else {
        panic!("a watch begins with the whole map")
    };
    assert!(first.version >= 1 && !first.routes.is_empty(), "{first:?}");
}
