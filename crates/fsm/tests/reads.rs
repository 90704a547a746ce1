//! The read door, over a real store filled through the log.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use bytes::Bytes;
use drover_fsm::{
    At, Bounded, Command, ReadError, ReadOutcome, RecordName, RecordPlace, VERSION_BYTES, ValidationLimits,
};
use drover_keys::{CatalogVersion, End, Interval};
use drover_kv::{
    Limits, Reason, RefreshRequest, Refusal, ScanLimits, ScanPage, ScanRequest, TxnCommit, TxnWrite, Versioned,
    WriteKind,
};
use proptest::prelude::*;
use support::*;

async fn filled(writes: Vec<drover_fsm::TimedWrite>) -> (tempfile::TempDir, Machine) {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = Machine::bootstrapped(&env(), &dir.path().join("group")).await;
    machine.command(Command::Write(writes)).await;
    (dir, machine)
}

fn version(value: &str, commit_ts: u64) -> Option<Versioned> {
    Some(Versioned { value: key(value), commit_ts: ts(commit_ts), expire_at: None })
}

fn found(version: Option<Versioned>) -> Result<ReadOutcome, ReadError> {
    Ok(ReadOutcome::Version(version))
}

fn request(interval: Interval, read_ts: u64) -> ScanRequest {
    ScanRequest {
        interval,
        read_ts: ts(read_ts),
        reverse: false,
        keys_only: false,
        count_only: false,
        limits: ScanLimits::default(),
    }
}

fn keys(page: &ScanPage) -> Vec<&[u8]> {
    page.entries.iter().map(|entry| entry.key.as_ref()).collect()
}

fn reason<T: std::fmt::Debug>(result: Result<T, ReadError>) -> Reason {
    match result {
        Err(ReadError::Failed(error)) => error.reason,
        other => panic!("not an error: {other:?}"),
    }
}

#[tokio::test]
async fn a_key_is_read_at_its_newest_version_or_as_of_a_timestamp() {
    let (_dir, machine) = filled(vec![at(10, put("k", "1")), at(20, put("k", "2")), at(30, delete("k"))]).await;
    let get = |at| machine.handle.get(&key("k"), at, V1);
    let table = [(9, None), (10, version("1", 10)), (19, version("1", 10)), (20, version("2", 20)), (30, None)];
    for (read_ts, expect) in table {
        assert_eq!(get(At::Ts(ts(read_ts))), found(expect), "at {read_ts}");
    }
    assert_eq!(get(At::Latest), found(None));
    assert_eq!(machine.handle.latest_commit_ts(&key("k"), V1), Ok(Some(ts(30))));
    assert_eq!(machine.handle.latest_commit_ts(&key("l"), V1), Ok(None));
}

#[tokio::test]
async fn a_latest_read_that_meets_an_expiry_asks_what_time_it_is() {
    let (_dir, machine) = filled(vec![at(10, put_ttl("k", "v", 0))]).await;
    assert_eq!(machine.handle.get(&key("k"), At::Latest, V1), Ok(ReadOutcome::NeedTimestamp));
    let met = Versioned { value: key("v"), commit_ts: ts(10), expire_at: Some(ts(0xffff)) };
    assert_eq!(machine.handle.get(&key("k"), At::Ts(ts(0xfffe)), V1), found(Some(met)));
    assert_eq!(machine.handle.get(&key("k"), At::Ts(ts(0xffff)), V1), found(None));
}

#[tokio::test]
async fn h2_every_read_is_judged_by_owner_and_route_version_on_all_it_touches() {
    let (_dir, machine) = filled(vec![at(10, put("k", "1"))]).await;
    let handle = &machine.handle;
    let moved = ReadError::Refused(Refusal::RouteMoved { hint: None });
    let stale = ReadError::Refused(Refusal::StaleRoute { acquired_version: CatalogVersion(1) });
    let latest = At::Latest;
    assert_eq!(handle.get(&key("A"), latest, V1), Err(moved.clone()));
    assert_eq!(handle.get(&key("A"), At::Ts(ts(10)), V1), Err(moved.clone()));
    assert_eq!(handle.get(&key("k"), latest, None), Err(stale.clone()));
    assert_eq!(handle.batch_get(&[key("k"), key("A")], ts(10), V1, &Limits::default()), Err(moved.clone()));
    assert_eq!(handle.batch_get(&[key("k")], ts(10), None, &Limits::default()), Err(stale.clone()));
    assert_eq!(handle.latest_commit_ts(&key("A"), V1), Err(moved.clone()));
    assert_eq!(handle.latest_commit_ts(&key("k"), None), Err(stale.clone()));
    for reverse in [false, true] {
        let scan = |start, observed| {
            handle.scan(&ScanRequest { reverse, ..request(interval(start, "p"), 10) }, observed).map(|page| page.count)
        };
        assert_eq!(scan("A", V1), Err(moved.clone()), "the part that is owned is not enough");
        assert_eq!(scan("a", None), Err(stale.clone()));
        assert_eq!(scan("a", V1), Ok(1));
    }
    assert_eq!(handle.bound_delete_range(&interval("A", "p"), ts(10), 1, 1, V1), Err(moved));
}

#[tokio::test]
async fn a_read_routed_by_a_map_from_before_the_ownership_is_stale() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = Machine::open(&env(), &dir.path().join("group"));
    let acquired_version = CatalogVersion(5);
    machine.command(Command::GrantRange(vec![drover_fsm::Grant { acquired_version, ..grant("a", "", 1) }])).await;
    let get = |version| machine.handle.get(&key("k"), At::Latest, Some(CatalogVersion(version)));
    assert_eq!(get(4), Err(ReadError::Refused(Refusal::StaleRoute { acquired_version })));
    assert_eq!(get(5), found(None));
}

#[tokio::test]
async fn a_snapshot_below_the_safe_point_is_refused_and_the_latest_value_is_not() {
    let (_dir, mut machine) = filled(vec![at(10, put("k", "1"))]).await;
    machine.command(Command::AdvanceSafePoint(ts(20))).await;
    let handle = &machine.handle;
    assert_eq!(reason(handle.get(&key("k"), At::Ts(ts(19)), V1)), Reason::SnapshotTooOld);
    assert_eq!(reason(handle.batch_get(&[key("k")], ts(19), V1, &Limits::default())), Reason::SnapshotTooOld);
    assert_eq!(reason(handle.scan(&request(interval("a", ""), 19), V1)), Reason::SnapshotTooOld);
    assert_eq!(handle.get(&key("k"), At::Ts(ts(20)), V1), found(version("1", 10)));
    assert_eq!(handle.get(&key("k"), At::Latest, V1), found(version("1", 10)));
}

#[tokio::test]
async fn several_keys_are_answered_in_their_order_from_one_snapshot() {
    let (_dir, machine) = filled(vec![at(10, put("k", "1")), at(20, put("n", "2")), at(30, put("k", "3"))]).await;
    let got = machine.handle.batch_get(&[key("n"), key("x"), key("k"), key("n")], ts(25), V1, &Limits::default());
    assert_eq!(got, Ok(vec![version("2", 20), None, version("1", 10), version("2", 20)]));
}

#[tokio::test]
async fn several_keys_whose_values_exceed_the_limit_of_an_answer_are_refused_and_not_read_to_the_end() {
    let value = "v".repeat(1_000);
    let (_dir, machine) = filled(vec![at(10, put("k", &value)), at(20, put("n", "2"))]).await;
    let limits = |batch_bytes| Limits { batch_bytes, ..Limits::default() };
    let get = |keys: &[&'static str], batch_bytes| {
        let keys: Vec<_> = keys.iter().copied().map(key).collect();
        machine.handle.batch_get(&keys, ts(25), V1, &limits(batch_bytes)).map(|versions| versions.len())
    };
    assert_eq!(get(&["k", "k", "x"], 2_000), Ok(3), "what is not there takes no room");
    assert_eq!(reason(get(&["k", "k"], 1_999)), Reason::BatchTooLarge);
    assert_eq!(
        reason(get(&["k", "k", "A"], 1_999)),
        Reason::BatchTooLarge,
        "it stops before a key that it does not own"
    );
    assert_eq!(get(&["n", "n"], 2 * VERSION_BYTES), Ok(2));
    assert_eq!(reason(get(&["n", "n"], 2 * VERSION_BYTES - 1)), Reason::BatchTooLarge, "a small value counts too");
}

#[tokio::test]
async fn a_scan_runs_over_adjacent_intervals_in_both_directions() {
    let names = ["b", "k", "l\0", "m", "n", "z"];
    let writes = names.iter().zip(10..).map(|(name, commit_ts)| at(commit_ts, put(name, "v")));
    let (_dir, machine) = filled(writes.collect()).await;
    let mut scan = request(interval("k", "z"), 100);
    assert_eq!(keys(&machine.handle.scan(&scan, V1).unwrap()), [&b"k"[..], b"l\0", b"m", b"n"]);
    scan.reverse = true;
    assert_eq!(keys(&machine.handle.scan(&scan, V1).unwrap()), [&b"n"[..], b"m", b"l\0", b"k"]);
    scan.limits.rows = 2;
    let page = machine.handle.scan(&scan, V1).unwrap();
    assert_eq!(keys(&page), [b"n", b"m"]);
    assert!(page.cursor.is_some());
    let old = request(interval("a", ""), 12);
    assert_eq!(keys(&machine.handle.scan(&old, V1).unwrap()), [&b"b"[..], b"k", b"l\0"]);
}

/// A commit that has read `intervals`, as the log holds it and as a leader sees it before.
fn has_read(id: u8, start_ts: u64, intervals: &[(&str, &str)]) -> (TxnWrite, TxnCommit) {
    let step = commit(txn(id, 1), start_ts, puts(&[("y", "1")]), reads(&[], intervals));
    let TxnWrite::Commit(seen) = step.clone() else { unreachable!("a commit is a commit") };
    (step, seen)
}

#[tokio::test]
async fn what_a_transaction_may_have_read_is_counted_by_the_rows_that_it_saw_and_the_keys_that_are_looked_at() {
    // One that expires at 0xffff, and one that does so long after.
    let early = vec![at(10, put_ttl("b4", "v", 0)), at(10, put_ttl("b5", "v", 1_000)), at(10, put("b3", "v"))];
    let deleted = vec![at(10, put("b1", "v")), at(10, put("b2", "v")), at(12, delete("b1")), at(12, delete("b2"))];
    let other_shard = vec![at(13, put("n1", "v"))];
    let (_dir, mut machine) = filled([early, deleted, other_shard].concat()).await;
    let (all, late) = ([("b", "z")], 0x2_0000);
    let twice = [("b", "c"), ("b", "z")];
    // Snapshot, ranges, rows that are visible then, keys that have versions.
    type Case<'a> = (&'a str, u64, &'a [(&'a str, &'a str)], u64, u64);
    let table: [Case<'_>; 4] = [
        ("tombstones are no rows", 15, &all, 4, 6),
        ("nor is what had expired", late, &all, 3, 6),
        ("all ranges count together", late, &twice, 5, 11),
        ("a range of deleted keys holds none", late, &[("b1", "b3")], 0, 2),
    ];
    for (case, start_ts, intervals, rows, keys) in table {
        let (_, commit) = has_read(1, start_ts, intervals);
        let request = RefreshRequest {
            id: commit.txn.id,
            start_ts: ts(start_ts),
            commit_ts: ts(start_ts + 1),
            reads: commit.reads.clone(),
        };
        let judge = |max_rows, max_keys| {
            let limits = ValidationLimits { max_rows, max_keys };
            let bounded = machine.handle.bounded_reads(&commit, limits, V1);
            assert_eq!(bounded, machine.handle.refresh(&request, limits, V1), "{case}: both ways count the same");
            bounded
        };
        assert_eq!(judge(rows, keys), Ok(()), "{case}");
        assert_eq!(reason(judge(rows, keys - 1)), Reason::BatchTooLarge, "{case}");
        if rows > 0 {
            assert_eq!(reason(judge(rows - 1, keys)), Reason::BatchTooLarge, "{case}");
        }
    }
    // Single keys that were read are no part of it.
    let keys = RefreshRequest {
        id: txn(1, 1).id,
        start_ts: ts(late),
        commit_ts: ts(late + 1),
        reads: reads(&["b1", "b3", "b5", "n1"], &[]),
    };
    let none = ValidationLimits { max_rows: 0, max_keys: 0 };
    assert_eq!(machine.handle.refresh(&keys, none, V1), Ok(()));
    // Apply looks no further than the first change, and not at all if the outcome is recorded.
    machine.write(0x3_0000, put("b3", "new")).await;
    let (_, changed) = has_read(1, late, &all);
    let up_to_there = ValidationLimits { max_rows: 0, max_keys: 2 };
    assert_eq!(machine.handle.bounded_reads(&changed, up_to_there, V1), Ok(()));
    assert_eq!(reason(machine.handle.bounded_reads(&changed, none, V1)), Reason::BatchTooLarge);
    let (step, committed) = has_read(2, 0x3_0000, &all);
    assert_eq!(reason(machine.handle.bounded_reads(&committed, none, V1)), Reason::BatchTooLarge);
    machine.write(0x3_0001, WriteKind::Txn(Box::new(step))).await;
    assert_eq!(machine.handle.bounded_reads(&committed, none, V1), Ok(()));
    // A record that lets this attempt through does not answer it.
    let rolled_back = rollback(txn(3, 1), 0x3_0002, "y", Some(0));
    machine.write(0x3_0003, WriteKind::Txn(Box::new(rolled_back))).await;
    let attempted = |number| TxnCommit { txn: txn(3, number), ..committed.clone() };
    assert_eq!(machine.handle.bounded_reads(&attempted(1), none, V1), Ok(()));
    assert_eq!(reason(machine.handle.bounded_reads(&attempted(2), none, V1)), Reason::BatchTooLarge);
}

#[tokio::test]
async fn a_range_delete_is_cut_in_front_of_the_key_that_is_too_many() {
    let (_dir, machine) = filled(vec![
        at(10, put("b", "")),
        at(11, delete("c")),
        at(12, put_ttl("d", "", 0)),
        at(13, put("k", "")),
        at(14, put("n", "")),
    ])
    .await;
    let bound = |max_keys, max_scanned| {
        machine.handle.bound_delete_range(&interval("a", "z"), ts(1 << 16), max_keys, max_scanned, V1).unwrap()
    };
    let cut = |end| Bounded { interval: interval("a", end), resume: Some(key(end)) };
    let table = [
        (bound(9, 99), Bounded { interval: interval("a", "z"), resume: None }),
        (bound(3, 5), Bounded { interval: interval("a", "z"), resume: None }),
        (bound(2, 99), cut("n")),
        (bound(1, 99), cut("k")),
        (bound(9, 1), cut("c")),
        (bound(0, 0), cut("c")),
        (bound(9, 4), cut("n")),
    ];
    for (got, expect) in table {
        assert_eq!(got, expect);
    }
}

#[tokio::test]
async fn records_that_may_go_are_named_up_to_a_limit() {
    let (_dir, machine) = filled(vec![
        once(10, put("k", ""), "b", 100),
        once(11, put("k", ""), "a", 101),
        once(12, put("n", ""), "c", 50),
        once(13, settle("n"), "d", 100),
    ])
    .await;
    let look = |from: Option<&RecordPlace>, horizon, scanned| {
        machine.handle.expired_records(from, ts(horizon), scanned).unwrap()
    };
    let name = |route, id| RecordName { route_key: key(route), idempotency_key: key(id) };
    let all = look(None, 100, 9);
    assert_eq!((all.names, all.resume), (vec![name("k", "b"), name("n", "c"), name("n", "d")], None));
    // A look that is cut short says where to go on, also in the middle of a route key.
    let (mut seen, mut from, mut looks) = (Vec::new(), None, 0);
    loop {
        let part = look(from.as_ref(), 100, 1);
        seen.extend(part.names);
        (from, looks) = (part.resume, looks + 1);
        if from.is_none() {
            break;
        }
    }
    assert_eq!((seen, looks), (vec![name("k", "b"), name("n", "c"), name("n", "d")], 4));
    assert_eq!(look(None, 49, 9).names, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pages_put_together_are_the_whole_scan_in_both_directions(
        names in proptest::collection::btree_set("[b-z]\0{0,1}[b-z]{0,1}", 1..40),
        dead in proptest::collection::vec(any::<bool>(), 40),
        rows in 0u64..4,
        page_bytes in 0u64..9,
        reverse: bool,
    ) {
        let rows = if rows == 0 && page_bytes == 0 { 1 } else { rows };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut writes = Vec::new();
        let mut expect: Vec<Bytes> = Vec::new();
        for ((name, dead), commit_ts) in names.iter().zip(&dead).zip(1u64..) {
            writes.push(at(commit_ts * 2, put(name, "v")));
            if *dead {
                writes.push(at(commit_ts * 2 + 1, delete(name)));
            } else {
                expect.push(key(name));
            }
        }
        if reverse {
            expect.reverse();
        }
        let (_dir, machine) = runtime.block_on(filled(writes));
        let mut scan = ScanRequest { reverse, ..request(interval("a", ""), 1_000) };
        scan.limits = ScanLimits { rows, bytes: page_bytes };
        let mut got: Vec<Bytes> = Vec::new();
        loop {
            let page = machine.handle.scan(&scan, V1).unwrap();
            prop_assert!(rows == 0 || page.count <= rows);
            got.extend(page.entries.into_iter().map(|entry| entry.key));
            let Some(cursor) = page.cursor else { break };
            let (start, end) = match reverse {
                true => (scan.interval.start().clone(), End::Key(cursor.0)),
                false => (cursor.0, scan.interval.end().clone()),
            };
            scan.interval = Interval::new(start, end).unwrap();
        }
        prop_assert_eq!(got, expect);
    }
}
