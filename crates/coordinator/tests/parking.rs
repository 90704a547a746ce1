//! What requests do while their range changes hands.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_coordinator::{Answer, CoordinatorOptions, ParkingLimits};
use drover_fsm::moving::MoveStep;
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, End, Interval};
use drover_kv::{Error, Expectation, Outcome, ReadOp, Reason, TxnStatus, Update, WriteKind, WriteOp};
use drover_raftgroup::GroupOptions;
use drover_wire::{CommitRequest, IdempotencyKey, ReadOptions, Request, ScanPageRequest, WriteOptions};
use support::*;
use tokio::task::JoinHandle;

type Answered = JoinHandle<Result<Answer, Error>>;

fn send(fixture: &Fixture, request: Request, deadline: Instant) -> Answered {
    let coordinator = Arc::clone(&fixture.coordinator);
    tokio::spawn(async move { coordinator.handle(request, deadline).await })
}

fn write(kind: WriteKind) -> Request {
    Request::Write { kind, options: WriteOptions::default() }
}

fn put_request(key: &'static str, value: &'static str) -> Request {
    write(WriteKind::Put { key: key.into(), value: value.into(), ttl_ms: None })
}

fn named(key: &'static str, value: &'static str, name: &'static str) -> Request {
    let kind = WriteKind::Put { key: key.into(), value: value.into(), ttl_ms: None };
    let idempotency = IdempotencyKey { key: name.into(), not_after: Some(Timestamp::MAX) };
    Request::Write { kind, options: WriteOptions { idempotency: Some(idempotency), timeout_ms: None } }
}

/// Every kind of write to the range that moves, alone and together with another one; `n` tells transactions apart. Those read
/// no snapshot yet.
fn writes(n: u8) -> Vec<Request> {
    let value = || Update::Put { value: "v".into(), ttl_ms: None };
    let cas = WriteKind::CompareAndSet { key: "z".into(), expect: Expectation::Present, update: value() };
    let range = |start| Interval::new(start, End::Key("y".into())).unwrap();
    let delete =
        |start| Request::DeleteRange { interval: range(start), cursor: None, options: WriteOptions::default() };
    let commit = |id, keys: &[&'static str]| {
        let mutations = keys.iter().map(|key| set(key, "committed")).collect();
        Request::Commit(request(id, Timestamp::ZERO, mutations, &[]))
    };
    vec![
        put_request("z", "put"),
        write(WriteKind::Delete { key: "xx".into() }),
        write(cas),
        delete("x"),
        commit(n, &["x1", "x2"]),
        commit(n + 1, &["x3", "n"]),
        // In two groups, with the range on the side of the primary, and on the other one.
        commit(n + 2, &["x4", "a"]),
        commit(n + 3, &["b", "x5"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_meets_a_fence_waits_and_succeeds_when_it_is_lifted() {
    let fixture = Fixture::new().await;
    fixture.put("z", "before").await.unwrap();
    fixture.begin_move().await;
    fixture.tell(RIGHT, false);
    // Whether the coordinator hears of the fence, and of its end: at once, late, or never.
    let (mut epoch, news) =
        (1, [(true, false, true), (false, true, true), (true, false, false), (false, false, false)]);
    for (id, (early, late, lifted)) in (10..).step_by(10).zip(news) {
        for mut request in writes(id) {
            if let Request::Commit(commit) = &mut request {
                commit.start_ts = fixture.now().await;
            }
            let case = format!("{early} {late} {lifted}: {request:?}");
            fixture.fence(epoch).await;
            if early {
                fixture.tell(RIGHT, true);
            }
            let waiting = send(&fixture, request, soon());
            fixture.parked(1).await;
            if late {
                fixture.tell(RIGHT, true);
            }
            assert!(!waiting.is_finished(), "{case}");
            epoch += 1;
            fixture.lift(epoch).await;
            if lifted {
                fixture.tell(RIGHT, false);
            }
            waiting.await.unwrap().unwrap_or_else(|error| panic!("{case}: {error}"));
            if !lifted {
                fixture.tell(RIGHT, false);
            }
            fixture.unlocked().await;
            fixture.parked(0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_goes_with_its_range_and_applies_once_whatever_is_sent_again() {
    let fixture = Fixture::new().await;
    let first = send(&fixture, named("z", "first", "one"), soon()).await.unwrap().unwrap();
    fixture.begin_move().await;
    fixture.tell(RIGHT, false);
    fixture.fence(1).await;
    fixture.tell(RIGHT, true);
    let again = send(&fixture, named("z", "first", "one"), soon());
    let second = send(&fixture, named("z", "second", "two"), soon());
    let blind = send(&fixture, put_request("x", "blind"), soon());
    fixture.parked(3).await;
    fixture.fence_reads(1).await;
    assert!(!again.is_finished() && !second.is_finished() && !blind.is_finished());
    let version = fixture.tell(LEFT, false);
    // The group that the catalog names holds them until it owns the range.
    fixture.held(3).await;
    assert!(!again.is_finished() && !second.is_finished() && !blind.is_finished());
    fixture.activate(1, version).await;
    assert_eq!(again.await.unwrap(), Ok(first.clone()), "it has happened before the move");
    let second = second.await.unwrap().unwrap();
    assert!(matches!(second, Answer::Written(Outcome::Written { .. })), "{second:?}");
    blind.await.unwrap().unwrap();
    for (request, answer) in [(named("z", "first", "one"), first), (named("z", "second", "two"), second)] {
        assert_eq!(fixture.coordinator.handle(request, soon()).await, Ok(answer));
    }
    let now = fixture.now().await;
    assert_eq!(fixture.coordinator_value("z", now).await.unwrap(), "second");
    assert_eq!(fixture.coordinator_value("x", now).await.unwrap(), "blind");
}

#[tokio::test(flavor = "multi_thread")]
async fn h20_a_commit_that_is_sent_again_after_its_range_has_moved_gets_its_first_answer() {
    let fixture = Fixture::new().await;
    let keys = [
        ("two groups, one now", ["a", "z1"]),
        ("one group, two now", ["n", "z2"]),
        ("one group, and two now, where the primary is elsewhere", ["z3", "o"]),
        ("one group, and another one now", ["y", "z4"]),
        ("two groups, one now, where the primary has come", ["z5", "b"]),
    ];
    let mut commits = Vec::new();
    for (id, (case, keys)) in (1..).zip(keys) {
        let first = request(id, fixture.now().await, keys.map(|key| set(key, "first")).to_vec(), &["read"]);
        let commit_ts = fixture.commit(first.clone()).await.unwrap();
        commits.push((case, keys, first, commit_ts));
    }
    fixture.unlocked().await;
    fixture.begin_move().await;
    fixture.tell(RIGHT, false);
    fixture.fence(1).await;
    fixture.fence_reads(1).await;
    let version = fixture.tell(LEFT, false);
    fixture.activate(1, version).await;
    for request in [put_request("read", "changed"), put_request("z1", "later"), put_request("n", "later")] {
        fixture.coordinator.handle(request, soon()).await.unwrap();
    }
    for (case, keys, first, commit_ts) in commits {
        for number in [1, 2] {
            let again = CommitRequest { number, ..first.clone() };
            assert_eq!(fixture.commit(again).await, Ok(commit_ts), "{case}, sent as number {number}");
        }
        for key in keys {
            let value = fixture.coordinator_value(key, fixture.now().await).await.unwrap();
            let expect = if ["z1", "n"].contains(&key) { "later" } else { "first" };
            assert_eq!(value, expect, "{case}: {key}");
        }
    }
}

fn scan(reverse: bool) -> Request {
    Request::Scan(ScanPageRequest {
        interval: Interval::new("w", End::Unbounded).unwrap(),
        reverse,
        keys_only: false,
        count_only: false,
        limits: drover_kv::ScanLimits::default(),
        cursor: None,
        options: ReadOptions::default(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_wait_out_the_cutover_and_see_what_was_acknowledged_before_it() {
    let fixture = Fixture::new().await;
    for key in ["a", "w", "x"] {
        fixture.put(key, "copied").await.unwrap();
    }
    fixture.begin_move().await;
    fixture.tell(RIGHT, false);
    fixture.put("z", "acknowledged").await.unwrap();
    let snapshot = fixture.now().await;
    fixture.fence(1).await;
    let fenced = fixture.tell(RIGHT, true);
    // Writes wait, reads do not.
    let late = send(&fixture, put_request("z", "late"), soon());
    fixture.parked(1).await;
    assert_eq!(fixture.coordinator_value("z", snapshot).await.unwrap(), "acknowledged");
    fixture.fence_reads(1).await;
    let at = |read_ts| ReadOptions { read_ts, timeout_ms: None };
    let keys = || ["z", "a", "w", "x"].map(Into::into).to_vec();
    let reads = [
        Request::Get { key: "x".into(), options: at(None) },
        Request::Get { key: "z".into(), options: at(Some(snapshot)) },
        Request::LatestCommitTs { key: "x".into(), options: at(None) },
        Request::BatchGet { keys: keys(), options: at(Some(snapshot)) },
        scan(false),
        scan(true),
    ];
    let mut wanted = fixture.coordinator.routes().wanted();
    let waiting: Vec<_> = reads.into_iter().map(|read| send(&fixture, read, soon())).collect();
    // They were turned away, and wait for a newer map.
    wanted.wait_for(|wanted| *wanted > fenced).await.unwrap();
    assert!(waiting.iter().all(|read| !read.is_finished()));
    let version = fixture.tell(LEFT, false);
    fixture.held(7).await;
    assert!(!late.is_finished() && waiting.iter().all(|read| !read.is_finished()));
    fixture.activate(1, version).await;
    late.await.unwrap().unwrap();
    let value = |version: Option<drover_kv::Versioned>| version.map(|version| version.value);
    for read in waiting {
        match read.await.unwrap().unwrap() {
            Answer::Get { version, read_ts } => {
                let expect = if read_ts == Some(snapshot) { "acknowledged" } else { "copied" };
                assert_eq!(value(version).unwrap(), expect);
            }
            Answer::LatestCommitTs(at) => assert!(at.unwrap() < snapshot),
            Answer::BatchGet { versions, .. } => {
                let values: Vec<_> = versions.into_iter().map(|version| value(version).unwrap()).collect();
                assert_eq!(values, ["acknowledged", "copied", "copied", "copied"]);
            }
            Answer::Scan { entries, .. } => {
                let mut keys: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
                keys.sort();
                assert_eq!(keys, ["w", "x", "z"]);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h45_a_transaction_of_two_groups_that_meets_a_fence_is_committed_when_the_range_has_moved() {
    for primary in ["a", "z"] {
        let fixture = Fixture::new().await;
        fixture.begin_move().await;
        fixture.tell(RIGHT, false);
        fixture.fence(1).await;
        // The coordinator has not heard of the fence: the prepares find out.
        let start_ts = fixture.now().await;
        let other = if primary == "a" { "z" } else { "a" };
        let commit = request(7, start_ts, vec![set(primary, "1"), set(other, "1")], &["b", "y"]);
        let committing = send(&fixture, Request::Commit(commit), soon());
        fixture.parked(1).await;
        fixture.tell(RIGHT, true);
        fixture.unlocked().await;
        fixture.fence_reads(1).await;
        let version = fixture.tell(LEFT, false);
        fixture.activate(1, version).await;
        let Answer::Committed(commit_ts) = committing.await.unwrap().unwrap() else { panic!("another answer") };
        fixture.unlocked().await;
        for key in ["a", "z"] {
            assert_eq!(fixture.coordinator_value(key, commit_ts).await.unwrap(), "1", "{primary}: {key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_transaction_passes_a_fence_whatever_the_map_says() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let holder = fixture.prepare(7, start_ts, &["a", "z"]).await;
    fixture.begin_move().await;
    fixture.fence(1).await;
    fixture.tell(RIGHT, true);
    let commit_ts = fixture.now().await;
    fixture.decide(holder, start_ts, &["a"], commit_ts).await;
    // A reader resolves the lock that the fence waits for.
    assert_eq!(fixture.coordinator_value("z", commit_ts).await.unwrap(), "prepared");
    fixture.unlocked().await;
    fixture.fence_reads(1).await;
    let version = fixture.tell(LEFT, false);
    fixture.activate(1, version).await;
    assert_eq!(fixture.coordinator_value("z", fixture.now().await).await.unwrap(), "prepared");
}

async fn fenced(parking: ParkingLimits) -> Fixture {
    let options = CoordinatorOptions { parking, ..CoordinatorOptions::default() };
    let fixture = Fixture::with(options, GroupOptions::default()).await;
    fixture.begin_move().await;
    fixture.fence(1).await;
    fixture.tell(RIGHT, true);
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn h44_a_full_queue_refuses_and_what_was_unknown_before_stays_unknown() {
    let fixture = fenced(ParkingLimits { requests: 0, bytes: 1_000 }).await;
    let error = send(&fixture, put_request("z", "1"), soon()).await.unwrap().unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::Unavailable, false), "{error}");
    assert!(error.retry_after_ms.is_some() && error.is_transient(), "{error}");
    let start_ts = fixture.now().await;
    for (id, mutations) in [(1, vec![set("z", "1")]), (2, vec![set("z", "1"), set("a", "1")])] {
        let commit = request(id, start_ts, mutations, &[]);
        let error = fixture.commit(commit.clone()).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::Unavailable, false), "{error}");
        // Of an earlier attempt this coordinator knows nothing.
        let error = fixture.commit(CommitRequest { number: 2, ..commit }).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::Unavailable, true), "{error}");
    }
    // What is not held back goes on.
    fixture.put("n", "1").await.unwrap();
    assert_eq!(fixture.coordinator_value("z", fixture.now().await).await, None);
    fixture.lift(2).await;
    fixture.tell(RIGHT, false);
    send(&fixture, put_request("z", "1"), soon()).await.unwrap().unwrap();
    for id in [1, 2] {
        assert!(matches!(fixture.outcome(id, "z").await, TxnStatus::RolledBack { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_deadline_the_caller_or_the_node() {
    let fixture = fenced(ParkingLimits { requests: 10, bytes: 1_000 }).await;
    let shortly = || Instant::now() + Duration::from_millis(100);
    let start_ts = fixture.now().await;
    let error = send(&fixture, put_request("z", "1"), shortly()).await.unwrap().unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::Timeout, false), "{error}");
    let second = CommitRequest { number: 2, ..request(1, start_ts, vec![set("z", "1")], &[]) };
    let error = send(&fixture, Request::Commit(second), shortly()).await.unwrap().unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::TimeoutIndefinite, true), "{error}");
    let gone = send(&fixture, put_request("z", "1"), soon());
    fixture.parked(1).await;
    gone.abort();
    fixture.parked(0).await;
    let waiting = send(&fixture, put_request("z", "1"), soon());
    fixture.parked(1).await;
    fixture.coordinator.parking().close();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::ShuttingDown, false), "{error}");
    assert_eq!(fixture.coordinator.parking().size(), (0, 0));
}

/// The left group holds the copy of the range, and the catalog names it from the version on.
async fn handed_over(hold_arriving: Duration) -> (Fixture, CatalogVersion) {
    let options = GroupOptions { hold_arriving, ..GroupOptions::default() };
    let fixture = Fixture::with(CoordinatorOptions::default(), options).await;
    fixture.begin_move().await;
    fixture.fence(1).await;
    fixture.fence_reads(1).await;
    let version = fixture.tell(LEFT, false);
    (fixture, version)
}

/// A read and a write of the range at the left group itself.
fn ask(fixture: &Fixture, version: CatalogVersion, deadline: Instant) -> [JoinHandle<Result<(), Error>>; 2] {
    let (left, op) = (Arc::clone(fixture.left()), ReadOp::Get { key: "z".into(), read_ts: None });
    let read = async move { left.read(op, Some(version), deadline).await.map(|_| ()) };
    let (left, kind) = (Arc::clone(fixture.left()), WriteKind::Delete { key: "z".into() });
    let op = WriteOp { kind, observed_version: Some(version), idempotency: None };
    let write = async move { left.write(op, deadline).await.map(|_| ()) };
    [tokio::spawn(read), tokio::spawn(write)]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_for_longer_than_it_makes_sense_or_than_its_caller_waits() {
    let day = Duration::from_secs(86_400);
    let table =
        [(Duration::from_millis(50), day, Reason::CutoverPending), (day, Duration::from_millis(50), Reason::Timeout)];
    for (hold, allowed, reason) in table {
        let (fixture, version) = handed_over(hold).await;
        for answer in ask(&fixture, version, Instant::now() + allowed) {
            let error = answer.await.unwrap().unwrap_err();
            assert_eq!((error.reason, error.is_unknown()), (reason, false), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_for_a_range_is_judged_anew_when_the_copy_goes() {
    let (fixture, version) = handed_over(Duration::from_secs(86_400)).await;
    let held = ask(&fixture, version, soon());
    fixture.held(2).await;
    move_step(fixture.left(), 2, MoveStep::Retire).await;
    for answer in held {
        let error = answer.await.unwrap().unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::RouteMoved, false), "{error}");
    }
}
