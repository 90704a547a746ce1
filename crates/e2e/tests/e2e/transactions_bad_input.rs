//! Commits that are wrong, late or not one's own: each is answered as `docs/errors.md` says, and does what is said there.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use drover_client::{Client, NodeId};
use drover_hlc::Timestamp;
use drover_keys::GroupId;
use drover_kv::{Certainty, Error, Reason, TxnId};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::wait::wait_until;
use drover_wire::proto::v1;
use drover_wire::proto::v1::txn_client::TxnClient;
use drover_wire::proto::v1::txn_state::Kind;
use drover_wire::{encode_txn_id, status_to_error};
use tonic::transport::Channel;

/// Keys of the one data group, and of the other.
const LEFT: &str = "a";
const RIGHT: &str = "z";

struct Fixture {
    cluster: Cluster,
    txn: TxnClient<Channel>,
    client: Client,
}

impl Fixture {
    /// One node is enough where nothing is about replication.
    async fn new(settings: &[(&str, i64)]) -> Self {
        let builder = Cluster::builder().nodes(1).data_groups(2);
        let builder = settings.iter().fold(builder, |builder, (path, value)| builder.set(path, *value));
        Self::over(builder.start().await.unwrap()).await
    }

    /// Talks to node 1.
    async fn over(cluster: Cluster) -> Self {
        let txn = TxnClient::connect(format!("http://{}", cluster.endpoints()[0])).await.unwrap();
        let client = cluster.client().await.unwrap().with_deadline(PATIENCE);
        Self { cluster, txn, client }
    }

    async fn begin(&mut self) -> Timestamp {
        let begun = self.txn.begin(v1::TxnBeginRequest::default()).await.unwrap().into_inner();
        Timestamp::from_raw(begun.start_ts)
    }

    async fn commit(&mut self, request: v1::TxnCommitRequest) -> Result<Timestamp, Error> {
        let answer = self.txn.commit(request).await.map_err(|status| status_to_error(&status))?;
        Ok(Timestamp::from_raw(answer.into_inner().commit_ts))
    }

    async fn status(&mut self, id: u8, primary: &'static str) -> Result<v1::TxnState, Error> {
        let request = v1::TxnStatusRequest { txn_id: txn_id(id), primary: primary.into(), timeout_ms: 1_000 };
        self.txn.status(request).await.map(tonic::Response::into_inner).map_err(|status| status_to_error(&status))
    }

    async fn abort(&mut self, id: u8, primary: &'static str, start_ts: Timestamp) -> v1::TxnState {
        let (txn_id, primary) = (txn_id(id), primary.into());
        let request = v1::TxnAbortRequest { txn_id, primary, start_ts: start_ts.raw(), timeout_ms: 0 };
        self.txn.abort(request).await.unwrap().into_inner()
    }

    async fn value(&self, key: &'static str) -> Option<Bytes> {
        self.client.get(key).await.unwrap().map(|version| version.value)
    }

    /// That nothing was ever written, and no lock is left.
    async fn assert_untouched(&self, case: &str) {
        let rows = self.cluster.all_rows(NodeId(1)).await.unwrap();
        assert!(rows.is_empty(), "{case}: {:?}", rows.keys().collect::<Vec<_>>());
        self.unlocked().await;
    }

    /// Waits until no lock is left: those of a commit that failed go after it was answered.
    async fn unlocked(&self) {
        wait_until("all locks to be gone", PATIENCE, || async {
            let (left, _) = self.client.prepared_transactions(None).await.map_err(|error| error.to_string())?;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await
        .unwrap();
    }
}

fn txn_id(id: u8) -> Bytes {
    encode_txn_id(TxnId([id; 16]))
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> v1::Mutation {
    let update = v1::mutation::Update::Put(v1::PutUpdate { value: value.into(), ttl_ms: 0 });
    v1::Mutation { key: key.into(), update: Some(update) }
}

fn delete(key: impl Into<Bytes>) -> v1::Mutation {
    v1::Mutation { key: key.into(), update: Some(v1::mutation::Update::Delete(v1::DeleteUpdate::default())) }
}

fn request(id: u8, start_ts: Timestamp, mutations: Vec<v1::Mutation>) -> v1::TxnCommitRequest {
    let (txn_id, start_ts) = (txn_id(id), start_ts.raw());
    v1::TxnCommitRequest { txn_id, attempt: 1, start_ts, mutations, ..v1::TxnCommitRequest::default() }
}

fn both(value: &'static str) -> Vec<v1::Mutation> {
    vec![put(LEFT, value), put(RIGHT, value)]
}

/// A definite refusal: what it said.
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>, reason: Reason, case: &str) -> String {
    let error = answer.expect_err(case);
    assert_eq!((error.reason, error.certainty), (reason, Certainty::Definite), "{case}: {error}");
    error.message
}

#[tokio::test]
async fn an_id_that_nobody_knows_is_told_so_and_a_commit_under_it_begins_there() {
    let mut this = Fixture::new(&[]).await;
    let start_ts = this.begin().await;
    // Of a client that has lost its memory, or of another cluster.
    assert_eq!(this.status(1, LEFT).await.unwrap().kind(), Kind::Nothing);
    let heartbeat = v1::TxnHeartbeatRequest { txn_id: txn_id(1), primary: LEFT.into(), timeout_ms: 0 };
    assert_eq!(this.txn.heartbeat(heartbeat).await.unwrap().into_inner().kind(), Kind::Nothing);
    let resolve = v1::TxnResolveRequest { txn_id: txn_id(1), force: true, timeout_ms: 0 };
    let resolved = this.txn.resolve(resolve).await.map_err(|status| status_to_error(&status));
    let message = refused(resolved, Reason::FailedPrecondition, "resolve");
    assert!(message.contains("holds no lock"), "{message}");
    // What is no id, no attempt, or a snapshot that this cluster has not issued.
    let good = request(1, start_ts, both("1"));
    let table = [
        ("no id", Reason::InvalidArgument, v1::TxnCommitRequest { txn_id: Bytes::new(), ..good.clone() }),
        ("a short id", Reason::InvalidArgument, v1::TxnCommitRequest { txn_id: "short".into(), ..good.clone() }),
        ("no attempt", Reason::InvalidArgument, v1::TxnCommitRequest { attempt: 0, ..good.clone() }),
        ("no snapshot", Reason::InvalidArgument, v1::TxnCommitRequest { start_ts: 0, ..good.clone() }),
        (
            "a snapshot of another cluster",
            Reason::TimestampInFuture,
            v1::TxnCommitRequest { start_ts: Timestamp::MAX.raw(), ..good.clone() },
        ),
    ];
    for (case, reason, request) in table {
        refused(this.commit(request).await, reason, case);
        this.assert_untouched(case).await;
    }
    // No server has to know an id before: `Begin` only draws one. A retry of what never came is the first attempt.
    let commit_ts = this.commit(v1::TxnCommitRequest { attempt: 7, ..good }).await.unwrap();
    let status = this.status(1, LEFT).await.unwrap();
    assert_eq!((status.kind(), status.commit_ts, status.settled), (Kind::Committed, commit_ts.raw(), true));
    assert_eq!((this.value(LEFT).await, this.value(RIGHT).await), (Some("1".into()), Some("1".into())));
}

#[tokio::test]
async fn a_finished_transaction_gets_its_first_answer_again_and_changes_nothing() {
    let mut this = Fixture::new(&[]).await;
    for (id, mutations) in [(1, vec![put(LEFT, "1")]), (2, both("1"))] {
        let start_ts = this.begin().await;
        let commit = request(id, start_ts, mutations);
        let commit_ts = this.commit(commit.clone()).await.unwrap();
        this.unlocked().await;
        this.client.put(LEFT, "later").await.unwrap();
        for attempt in [1, 2, 9] {
            let again = v1::TxnCommitRequest { attempt, ..commit.clone() };
            assert_eq!(this.commit(again).await.unwrap(), commit_ts, "{id}, {attempt}");
        }
        let aborted = this.abort(id, LEFT, start_ts).await;
        assert_eq!((aborted.kind(), aborted.commit_ts), (Kind::Committed, commit_ts.raw()), "too late to give it up");
        assert_eq!(this.value(LEFT).await.unwrap(), "later");
    }
    // Given up: no attempt of it commits any more, whatever it writes.
    let start_ts = this.begin().await;
    let aborted = this.abort(3, LEFT, start_ts).await;
    assert_eq!((aborted.kind(), aborted.settled), (Kind::RolledBack, true));
    for (case, mutations) in [("one group", vec![put(LEFT, "lost")]), ("several groups", both("lost"))] {
        for attempt in [1, 2] {
            let commit = v1::TxnCommitRequest { attempt, ..request(3, start_ts, mutations.clone()) };
            let message = refused(this.commit(commit).await, Reason::TxnAborted, case);
            assert!(!message.is_empty());
        }
    }
    this.unlocked().await;
    assert_eq!((this.value(LEFT).await, this.value(RIGHT).await), (Some("later".into()), Some("1".into())));
}

#[tokio::test]
async fn the_id_of_somebody_elses_transaction_is_refused_and_changes_nothing() {
    let mut this = Fixture::new(&[]).await;
    for (id, mutations) in [(1, vec![put(LEFT, "theirs")]), (2, both("theirs"))] {
        let start_ts = this.begin().await;
        let commit_ts = this.commit(request(id, start_ts, mutations.clone())).await.unwrap();
        this.unlocked().await;
        let later = this.begin().await;
        let table = [
            ("another value", start_ts, vec![put(LEFT, "ours")]),
            ("a delete", start_ts, vec![delete(LEFT)]),
            ("another key as well", start_ts, vec![put(LEFT, "theirs"), put("b", "ours")]),
            ("a key of another group as well", start_ts, vec![put(LEFT, "theirs"), put("y", "ours")]),
            ("another snapshot", later, mutations),
        ];
        for (case, start_ts, mutations) in table {
            for attempt in [1, 2] {
                let commit = v1::TxnCommitRequest { attempt, ..request(id, start_ts, mutations.clone()) };
                refused(this.commit(commit).await, Reason::TxnReused, case);
            }
        }
        this.unlocked().await;
        let status = this.status(id, LEFT).await.unwrap();
        assert_eq!((status.kind(), status.commit_ts), (Kind::Committed, commit_ts.raw()));
        let values = (this.value(LEFT).await, this.value("b").await, this.value("y").await);
        assert_eq!(values, (Some("theirs".into()), None, None));
    }
    // It was committed with two keys; the other one does not take it for another transaction's either.
    let start_ts = this.begin().await;
    refused(this.commit(request(2, start_ts, vec![put(RIGHT, "ours"), put("b", "ours")])).await, Reason::TxnReused, "");
    this.unlocked().await;
    assert_eq!((this.value(RIGHT).await, this.value("b").await), (Some("theirs".into()), None));
}

#[tokio::test]
async fn a_snapshot_below_the_safe_point_is_too_old_for_what_is_written_and_for_what_was_read() {
    let mut this = Fixture::new(&[]).await;
    let old = Timestamp::from_raw(1);
    for key in [LEFT, RIGHT] {
        let refused = || async {
            match this.client.snapshot(Some(old)).get(key).await {
                Err(error) if error.reason == Reason::SnapshotTooOld => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        wait_until("the safe point to pass", PATIENCE, refused).await.unwrap();
    }
    let reads = |commit: v1::TxnCommitRequest| {
        let range = v1::KeyRange { start: "x".into(), end: None };
        v1::TxnCommitRequest { read_keys: vec![LEFT.into()], read_ranges: vec![range], ..commit }
    };
    let table = [
        ("one group", request(1, old, vec![put(LEFT, "lost")])),
        ("several groups", request(2, old, both("lost"))),
        ("a group that was only read", reads(request(3, old, vec![put(RIGHT, "lost")]))),
    ];
    for (case, request) in table {
        let message = refused(this.commit(request).await, Reason::TxnTooOld, case);
        assert!(message.contains("this attempt changed nothing"), "{case}: {message}");
        this.assert_untouched(case).await;
    }
}

#[tokio::test]
async fn a_key_that_is_written_twice_is_refused_and_named() {
    let mut this = Fixture::new(&[]).await;
    let start_ts = this.begin().await;
    let table = [
        ("the same twice", vec![put("k", "1"), put("k", "1")]),
        ("two values", vec![put("k", "1"), put(RIGHT, "1"), put("k", "2")]),
        ("a put and a delete", vec![put("k", "1"), delete("k")]),
        ("a delete and a put", vec![put(LEFT, "1"), delete("k"), put("k", "1")]),
        ("two deletes", vec![delete("k"), delete("k")]),
    ];
    for (case, mutations) in table {
        let message = refused(this.commit(request(1, start_ts, mutations)).await, Reason::InvalidArgument, case);
        assert_eq!(message, "the transaction writes k more than once; nothing was changed", "{case}");
    }
    let nothing = v1::Mutation { key: "k".into(), update: None };
    refused(this.commit(request(1, start_ts, vec![nothing])).await, Reason::InvalidArgument, "neither put nor delete");
    refused(this.commit(request(1, start_ts, vec![put("", "1")])).await, Reason::KeyEmpty, "an empty key");
    let reversed = v1::KeyRange { start: "z".into(), end: Some("a".into()) };
    let reversed = v1::TxnCommitRequest { read_ranges: vec![reversed], ..request(1, start_ts, both("1")) };
    refused(this.commit(reversed).await, Reason::RangeReversed, "a range from its end");
    this.assert_untouched("written twice").await;
    assert_eq!(this.status(1, "k").await.unwrap().kind(), Kind::Nothing);
}

#[tokio::test]
async fn a_transaction_beyond_the_limits_is_refused_with_the_limit() {
    let mut this = Fixture::new(&[]).await;
    let start_ts = this.begin().await;
    let many = |count: u32| (0..count).map(|n| put(format!("{n:06}"), "")).collect::<Vec<_>>();
    let message = refused(this.commit(request(1, start_ts, many(100_001))).await, Reason::BatchTooLarge, "mutations");
    assert_eq!(message, "the transaction writes 100001 keys, the limit is 100000; nothing was changed");
    let read_keys = (0..100_001u32).map(|n| format!("{n:06}").into()).collect();
    let read = v1::TxnCommitRequest { read_keys, ..request(1, start_ts, both("1")) };
    let message = refused(this.commit(read).await, Reason::BatchTooLarge, "reads");
    assert_eq!(message, "the transaction has read 100001 keys, the limit is 100000; nothing was changed");
    // 64 MiB, in values each of which is legal.
    let large: Vec<v1::Mutation> = (0..8).map(|n| put(format!("{n}"), vec![7; 8 << 20])).collect();
    let message = refused(this.commit(request(1, start_ts, large)).await, Reason::BatchTooLarge, "bytes");
    assert!(message.contains("the limit is 16777216 bytes; nothing was changed"), "{message}");
    this.assert_untouched("beyond the limits").await;
    // The limits are settings.
    let settings = [("txn.max_mutations", 3), ("txn.max_reads", 2), ("limits.batch_bytes", 9 << 20)];
    let mut this = Fixture::new(&settings).await;
    let start_ts = this.begin().await;
    let message = refused(this.commit(request(1, start_ts, many(4))).await, Reason::BatchTooLarge, "mutations");
    assert_eq!(message, "the transaction writes 4 keys, the limit is 3; nothing was changed");
    let range = || v1::KeyRange { start: "x".into(), end: None };
    let read = |read_keys: &[&'static str]| v1::TxnCommitRequest {
        read_keys: read_keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect(),
        read_ranges: vec![range()],
        ..request(1, start_ts, both("1"))
    };
    let message = refused(this.commit(read(&["b", "c"])).await, Reason::BatchTooLarge, "reads");
    assert_eq!(message, "the transaction has read 3 keys, the limit is 2; nothing was changed");
    let large = vec![put("k", vec![7; 8 << 20]), put("l", vec![7; 1 << 20])];
    let message = refused(this.commit(request(1, start_ts, large)).await, Reason::BatchTooLarge, "bytes");
    assert!(message.contains("the limit is 9437184 bytes; nothing was changed"), "{message}");
    this.assert_untouched("beyond the limits").await;
    this.commit(v1::TxnCommitRequest { mutations: many(3), ..read(&["b"]) }).await.unwrap();
    assert_eq!(this.cluster.all_rows(NodeId(1)).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_transaction_whose_ranges_hold_too_much_is_refused_with_the_limit_and_what_was_deleted_is_no_row() {
    let settings = [("txn.max_reads", 1), ("txn.max_validated_rows", 3), ("txn.max_validated_keys", 8)];
    let mut this = Fixture::new(&settings).await;
    let queue = v1::KeyRange { start: "b/".into(), end: Some("b0".into()) };
    let rows = "hold more than 3 rows in one group, the limit; nothing was changed; read less in one transaction";
    let keys = "hold more than 8 keys in one group, deleted and expired ones included, the limit; nothing was changed; read \
                smaller ranges, or wait until what was deleted is collected";
    // Jobs that are added, how many of the oldest are taken then, and what is said to who has read all of the queue.
    let steps: [(u32, u32, Option<&str>); 4] = [(5, 5, None), (3, 0, None), (1, 0, Some(rows)), (0, 4, Some(keys))];
    let (mut added, mut taken, mut id) = (0, 0, 0);
    for (step, (more, fewer, refusal)) in (1..).zip(steps) {
        for n in added..added + more {
            this.client.put(format!("b/{n:04}"), "job").await.unwrap();
        }
        for n in taken..taken + fewer {
            this.client.delete(format!("b/{n:04}")).await.unwrap();
        }
        (added, taken) = (added + more, taken + fewer);
        // What was read is validated in apply, or by a refresh.
        for written in [&[LEFT][..], &[LEFT, RIGHT]] {
            id += 1;
            let (case, start_ts) = (format!("step {step}, {written:?}"), this.begin().await);
            let mutations = written.iter().map(|key| put(*key, case.clone())).collect();
            let before = this.value(LEFT).await;
            let answer = this
                .commit(v1::TxnCommitRequest { read_ranges: vec![queue.clone()], ..request(id, start_ts, mutations) });
            match (answer.await, refusal) {
                (answer, Some(part)) => {
                    let message = refused(answer, Reason::BatchTooLarge, &case);
                    assert!(message.contains(part), "{case}: {message}");
                    this.unlocked().await;
                    assert_eq!(this.value(LEFT).await, before, "{case}");
                }
                (answer, None) => {
                    answer.expect(&case);
                    assert_eq!(this.value(LEFT).await.as_deref(), Some(case.as_bytes()));
                }
            }
        }
    }
}

/// Commits transactions of one snapshot, each under an id of its own, until one is refused as too old; that error.
async fn refused_in_the_end(this: &Fixture, name: &str, start_ts: Timestamp, keys: &[&'static str]) -> Error {
    let tried = AtomicU32::new(0);
    let refused = wait_until("a snapshot to be too old", PATIENCE, || {
        let number = tried.fetch_add(1, Ordering::Relaxed);
        let mut id = format!("{name:0>8}").into_bytes();
        id.extend_from_slice(format!("{number:08}").as_bytes());
        let mutations = keys.iter().map(|key| put(*key, format!("{number}"))).collect();
        let commit = v1::TxnCommitRequest { txn_id: id.into(), ..request(0, start_ts, mutations) };
        let mut txn = this.txn.clone();
        async move {
            match txn.commit(commit).await.map_err(|status| status_to_error(&status)) {
                Err(error) if error.reason == Reason::TxnTooOld => Ok(error),
                other => Err(format!("{other:?}")),
            }
        }
    });
    refused.await.unwrap()
}

#[tokio::test]
async fn a_transaction_older_than_is_configured_is_refused_and_a_younger_one_is_not() {
    let mut this = Fixture::new(&[("txn.max_age_ms", 5_000)]).await;
    let start_ts = this.begin().await;
    let groups: [(&str, &[&str]); 3] = [("left", &[LEFT]), ("right", &[RIGHT]), ("both", &[LEFT, RIGHT])];
    for (name, keys) in groups {
        let error = refused_in_the_end(&this, name, start_ts, keys).await;
        assert_eq!(error.certainty, Certainty::Definite, "{name}: {error}");
        assert!(error.message.contains("this attempt changed nothing"), "{name}: {error}");
    }
    // Once too old, always: also for what only reads in a group.
    let read = v1::TxnCommitRequest { read_keys: vec![LEFT.into()], ..request(1, start_ts, vec![put("y", "lost")]) };
    refused(this.commit(read).await, Reason::TxnTooOld, "a group that was only read");
    assert_eq!(this.value("y").await, None);
    for (id, mutations) in [(2, vec![put(LEFT, "young")]), (3, both("young"))] {
        let start_ts = this.begin().await;
        this.commit(request(id, start_ts, mutations)).await.unwrap();
    }
    assert_eq!((this.value(LEFT).await, this.value(RIGHT).await), (Some("young".into()), Some("young".into())));
    this.unlocked().await;
}

#[tokio::test]
async fn a_transaction_just_within_the_limits_comes_through_in_one_group_and_in_two() {
    let mut this = Fixture::new(&[]).await;
    let keys = |side: &str, count: u32| (0..count).map(|n| put(format!("{side}{n:06}"), "1")).collect::<Vec<_>>();
    for (id, mutations) in [(1, keys("0", 100_000)), (2, [keys("1", 50_000), keys("z", 50_000)].concat())] {
        let start_ts = this.begin().await;
        let commit = v1::TxnCommitRequest { timeout_ms: 60_000, ..request(id, start_ts, mutations) };
        this.commit(commit).await.unwrap();
        this.unlocked().await;
    }
    assert_eq!(this.cluster.all_rows(NodeId(1)).await.unwrap().len(), 200_000);
}

/// Locks that live for longer than any test, of a coordinator that is gone.
async fn with_locks_left_behind(settings: &[(&str, i64)]) -> Fixture {
    let settings = [settings, &[("txn.lock_ttl_ms", 600_000)]].concat();
    let mut this = Fixture::new(&settings).await;
    let node = &this.cluster.nodes()[0];
    node.crash_at(Some("txn.prepared"));
    node.restart().unwrap();
    this.cluster.wait_ready(PATIENCE).await.unwrap();
    let start_ts = this.begin().await;
    let error = this.commit(request(1, start_ts, both("held"))).await.unwrap_err();
    assert!(error.is_unknown(), "{error}");
    let node = &this.cluster.nodes()[0];
    assert!(!node.wait_exit(PATIENCE).await.unwrap().success());
    node.crash_at(None);
    node.start().unwrap();
    this.cluster.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(this.status(1, LEFT).await.unwrap().kind(), Kind::Prepared);
    this
}

#[tokio::test]
async fn a_commit_takes_no_longer_than_is_configured_whatever_its_caller_allows() {
    let mut this = with_locks_left_behind(&[("txn.max_deadline_ms", 500)]).await;
    let start_ts = this.begin().await;
    // In one group it waits for the lock, which lives for ten minutes, as long as it may. Its caller would wait for an hour.
    let patient = v1::TxnCommitRequest { timeout_ms: 3_600_000, ..request(2, start_ts, vec![put(LEFT, "lost")]) };
    refused(this.commit(patient).await, Reason::Timeout, "one group");
    // In several groups it does not wait at all.
    let patient = v1::TxnCommitRequest { timeout_ms: 3_600_000, ..request(3, start_ts, both("lost")) };
    refused(this.commit(patient).await, Reason::TxnConflict, "several groups");
    let resolve = |force| v1::TxnResolveRequest { txn_id: txn_id(1), force, timeout_ms: 0 };
    let early = this.txn.resolve(resolve(false)).await.map_err(|status| status_to_error(&status));
    refused(early, Reason::FailedPrecondition, "its coordinator may be at work");
    assert_eq!(this.txn.resolve(resolve(true)).await.unwrap().into_inner().kind(), Kind::RolledBack);
    this.assert_untouched("nobody came through").await;
    assert!(matches!(this.status(2, LEFT).await.unwrap().kind(), Kind::Nothing | Kind::RolledBack));
}

/// A cluster whose oracle and right group are on node 1, and whose left group is on the others.
async fn apart(settings: &[(&str, i64)]) -> Fixture {
    let group = |id: i64, replicas: &[i64]| {
        let replicas = replicas.iter().map(|node| toml::Value::Integer(*node)).collect::<Vec<_>>();
        let fields = [("id".to_owned(), id.into()), ("replicas".to_owned(), replicas.into())];
        toml::Value::Table(fields.into_iter().collect())
    };
    let groups = vec![group(1, &[1]), group(2, &[2, 3, 4]), group(3, &[1])];
    let builder = Cluster::builder().nodes(4).data_groups(2).set("bootstrap.groups", groups);
    let builder = settings.iter().fold(builder, |builder, (path, value)| builder.set(path, *value));
    Fixture::over(builder.start().await.unwrap()).await
}

impl Fixture {
    /// Lets the leader of the left group go on without a quorum; the nodes that were stopped.
    async fn stop_followers(&self) -> Vec<NodeId> {
        self.client.put("left", "led").await.unwrap();
        let leader = self.cluster.leader(GroupId(2), PATIENCE).await.unwrap();
        let followers: Vec<NodeId> = [2, 3, 4].map(NodeId).into_iter().filter(|node| *node != leader).collect();
        for node in &followers {
            self.cluster.node(*node).stop().unwrap();
        }
        followers
    }

    fn resume(&self, nodes: &[NodeId]) {
        nodes.iter().for_each(|node| self.cluster.node(*node).resume().unwrap());
    }

    /// Waits until it is known what became of a transaction.
    async fn outcome(&mut self, id: u8, primary: &'static str) -> v1::TxnState {
        let known = wait_until("an outcome", PATIENCE, || {
            let mut txn = self.txn.clone();
            async move {
                let request = v1::TxnStatusRequest { txn_id: txn_id(id), primary: primary.into(), timeout_ms: 1_000 };
                let state = txn.status(request).await.map_err(|status| status.to_string())?.into_inner();
                match state.kind() {
                    Kind::Committed | Kind::RolledBack => Ok(state),
                    other => Err(format!("{other:?}")),
                }
            }
        });
        known.await.unwrap()
    }
}

#[tokio::test]
async fn the_outcome_of_a_commit_whose_deadline_passed_in_the_middle_is_unknown_and_its_status_tells_it_later() {
    let mut this = apart(&[]).await;
    let start_ts = this.begin().await;
    let stopped = this.stop_followers().await;
    // It is in the log of a leader that reaches nobody.
    let commit =
        v1::TxnCommitRequest { timeout_ms: 1_500, ..request(1, start_ts, vec![put(LEFT, "1"), put("b", "1")]) };
    let error = this.commit(commit.clone()).await.unwrap_err();
    assert_eq!((error.reason, error.certainty), (Reason::TimeoutIndefinite, Certainty::Unknown), "{error}");
    assert!(error.message.contains(&TxnId([1; 16]).to_string()), "{error}");
    this.resume(&stopped);
    let outcome = this.outcome(1, LEFT).await;
    let value = match outcome.kind() {
        Kind::Committed => Some(Bytes::from("1")),
        _ => None,
    };
    assert_eq!((this.value(LEFT).await, this.value("b").await), (value.clone(), value));
    // The same request again: its first attempt stays what it was, and a further one may commit.
    let again = this.commit(commit.clone()).await;
    let further = this.commit(v1::TxnCommitRequest { attempt: 2, timeout_ms: 0, ..commit }).await;
    match outcome.kind() {
        Kind::Committed => {
            let commit_ts = Timestamp::from_raw(outcome.commit_ts);
            assert_eq!((again, further), (Ok(commit_ts), Ok(commit_ts)));
        }
        _ => {
            refused(again, Reason::TxnAborted, "rolled back");
            further.unwrap();
        }
    }
    assert_eq!((this.value(LEFT).await, this.value("b").await), (Some("1".into()), Some("1".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_if_the_decision_of_a_commit_over_several_groups_reaches_nobody() {
    let mut this = apart(&[("txn.lock_ttl_ms", 600_000)]).await;
    let start_ts = this.begin().await;
    // A later transaction has locked what this one has read, and its coordinator is lost: the refresh waits for it.
    let node = this.cluster.node(NodeId(2));
    node.crash_at(Some("txn.prepared"));
    node.restart().unwrap();
    this.cluster.wait_ready(PATIENCE).await.unwrap();
    let later = this.begin().await;
    let node = this.cluster.node(NodeId(2));
    let mut through = TxnClient::connect(format!("http://{}", node.grpc_address())).await.unwrap();
    through.commit(request(9, later, vec![put("r", "held"), put("b", "held")])).await.unwrap_err();
    assert!(!node.wait_exit(PATIENCE).await.unwrap().success());
    node.crash_at(None);
    node.start().unwrap();
    this.cluster.wait_ready(PATIENCE).await.unwrap();
    let read_keys = vec!["r".into()];
    let commit = v1::TxnCommitRequest { read_keys, timeout_ms: 8_000, ..request(1, start_ts, both("1")) };
    let mut txn = this.txn.clone();
    let committing = tokio::spawn(async move { txn.commit(commit).await.map_err(|status| status_to_error(&status)) });
    wait_until("everything to be locked", PATIENCE, || async {
        let (prepared, _) = this.client.prepared_transactions(None).await.map_err(|error| error.to_string())?;
        let keys = prepared.iter().find(|txn| txn.id == TxnId([1; 16])).map_or(0, |txn| txn.keys.len());
        if keys == 2 { Ok(()) } else { Err(format!("{prepared:?}")) }
    })
    .await
    .unwrap();
    // The decision goes into the log of a leader that reaches nobody.
    let stopped = this.stop_followers().await;
    assert_eq!(this.abort(9, "r", later).await.kind(), Kind::RolledBack);
    let error = committing.await.unwrap().unwrap_err();
    assert_eq!((error.reason, error.certainty), (Reason::TimeoutIndefinite, Certainty::Unknown), "{error}");
    this.resume(&stopped);
    // Its locks would live for ten minutes; nobody meets them.
    let outcome = this.outcome(1, LEFT).await;
    let value = (outcome.kind() == Kind::Committed).then(|| Bytes::from("1"));
    assert_eq!((this.value(LEFT).await, this.value(RIGHT).await), (value.clone(), value));
    assert_eq!(this.value("b").await, None);
    this.unlocked().await;
}

#[tokio::test]
async fn a_commit_whose_deadline_passes_before_its_decision_has_changed_nothing() {
    let mut this = apart(&[]).await;
    let start_ts = this.begin().await;
    let stopped = this.stop_followers().await;
    for (id, mutations) in [(1, vec![put(LEFT, "1"), put(RIGHT, "1")]), (2, vec![put("y", "1"), put("b", "1")])] {
        let commit = v1::TxnCommitRequest { timeout_ms: 1_000, ..request(id, start_ts, mutations) };
        refused(this.commit(commit).await, Reason::Timeout, "a prepare does not come through");
    }
    this.resume(&stopped);
    for (id, primary) in [(1, LEFT), (2, "y")] {
        assert_eq!(this.outcome(id, primary).await.kind(), Kind::RolledBack);
    }
    this.unlocked().await;
    for key in [LEFT, RIGHT, "b", "y"] {
        assert_eq!(this.value(key).await, None, "{key}");
    }
    this.commit(request(3, start_ts, both("1"))).await.unwrap();
}
