//! A micro-benchmark of a large catalog: `cargo run --release -p drover-catalog --example catalog_bench [ROUTES]`.
//!
//! Prints nanoseconds of a look-up and microseconds of a delta of one split and of a split command, at 100,000 routes
//! unless told otherwise.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::{
    Bootstrap, BootstrapNode, Catalog, CatalogCommand, CatalogCommandKind, RequestId, Route, RouteDelta, RouteMap,
    RouteState,
};
use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, End, GroupId, Interval, NodeId, RouteId, ShardId};

const LOOKUPS: u64 = 2_000_000;
const DELTAS: u64 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let count = std::env::args().nth(1).map_or(Ok(100_000), |n| n.parse())?;
    let start = Instant::now();
    let map = RouteMap::new(CatalogVersion::FIRST, routes(count)?)?;
    print("build and validate", start.elapsed(), 1, "ms", 1e3);

    let keys: Vec<Bytes> = (0..1 << 16).map(|n| key(scatter(n) % count, "/row")).collect();
    let start = Instant::now();
    for n in 0..LOOKUPS {
        black_box(map.route_of(&keys[(scatter(n) % keys.len() as u64) as usize]));
    }
    print("look-up of a random key", start.elapsed(), LOOKUPS, "ns", 1e9);

    let mut grown = map.clone();
    let mut spent = Duration::ZERO;
    for n in 0..DELTAS {
        let delta = split(&grown, &key(scatter(n) % count, &format!("/{n:08}")), RouteId(count + 1 + n))?;
        let start = Instant::now();
        let next = grown.apply(&delta)?;
        spent += start.elapsed();
        grown = next;
    }
    print("delta of one split", spent, DELTAS, "µs", 1e6);

    splits(count)?;

    let start = Instant::now();
    grown.validate()?;
    print("validate", start.elapsed(), 1, "ms", 1e3);
    Ok(())
}

/// The whole way of a command: judged, carried out, its rows listed.
fn splits(count: u64) -> Result<(), Box<dyn Error>> {
    let node = BootstrapNode { address: "n1:1".to_owned(), admin_address: String::new() };
    let bootstrap = Bootstrap {
        routes: routes(count)?,
        groups: BTreeMap::from([(GroupId(1), BTreeSet::from([NodeId(1)]))]),
        nodes: BTreeMap::from([(NodeId(1), node)]),
        ..Bootstrap::default()
    };
    let mut requests = 0u128;
    let mut command = |kind| {
        requests += 1;
        let request_id = RequestId(requests.to_be_bytes());
        CatalogCommand { request_id, actor: "bench".to_owned(), now: PhysicalMs::default(), kind }
    };
    let mut catalog = Catalog::default();
    catalog.apply(&command(CatalogCommandKind::Bootstrap(Box::new(bootstrap))))?;
    let (mut spent, mut rows) = (Duration::ZERO, 0);
    for n in 0..DELTAS {
        let key = key(scatter(n) % count, &format!("/{n:08}"));
        let map = catalog.routes().ok_or("there is no cluster")?;
        let (expected_version, route) = (map.version(), map.route_of(&key).id);
        let command = command(CatalogCommandKind::SplitRange { expected_version, route, key });
        let start = Instant::now();
        let (_, changes) = catalog.apply(&command)?;
        spent += start.elapsed();
        rows += changes.len() as u64;
    }
    print("split command", spent, DELTAS, "µs", 1e6);
    println!("{:<28} {:>10.2}", "rows of a split command", rows as f64 / DELTAS as f64);
    Ok(())
}

fn print(what: &str, elapsed: Duration, times: u64, unit: &str, per_second: f64) {
    println!("{what:<28} {:>10.2} {unit}", elapsed.as_secs_f64() * per_second / times as f64);
}

fn key(n: u64, suffix: &str) -> Bytes {
    format!("tenant/orders/{n:010}{suffix}").into()
}

/// Spreads consecutive numbers (the finalizer of SplitMix64).
fn scatter(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn routes(count: u64) -> Result<Vec<Route>, Box<dyn Error>> {
    let route = |n: u64| {
        let start = if n == 0 { Bytes::new() } else { key(n, "") };
        let end = if n + 1 == count { End::Unbounded } else { End::Key(key(n + 1, "")) };
        let (group, state) = (GroupId(1), RouteState::Active);
        Ok(Route { id: RouteId(n + 1), interval: Interval::new(start, end)?, group, shard: ShardId(n + 1), state })
    };
    (0..count).map(route).collect()
}

fn split(map: &RouteMap, at: &Bytes, id: RouteId) -> Result<RouteDelta, Box<dyn Error>> {
    let old = map.route_of(at);
    let left = Interval::new(old.interval.start().clone(), End::Key(at.clone()))?;
    let right = Interval::new(at.clone(), old.interval.end().clone())?;
    let upserted = vec![Route { interval: left, ..old.clone() }, Route { id, interval: right, ..old.clone() }];
    Ok(RouteDelta { version: CatalogVersion(map.version().0 + 1), removed: vec![], upserted })
}
