//! What apply answers and leaves behind, on a real store.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use bytes::Bytes;
use drover_fsm::{ApplyError, Command, DecodedEntry, RecordName, apply_batch};
use drover_keys::{CatalogVersion, Interval, LogicalKey, ShardId};
use drover_kv::{Expectation, LockInfo, Outcome, Refusal, Update, Versioned, WriteKind};
use drover_mvcc::Stored;
use drover_rafttypes::{ApplyReply, ControlReply, Entry, Membership, Payload};
use support::*;

fn replica() -> (tempfile::TempDir, Replica) {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::bootstrapped(dir.path());
    (dir, replica)
}

fn written(commit_ts: u64) -> Result<Outcome, Refusal> {
    Ok(Outcome::Written { commit_ts: ts(commit_ts) })
}

fn too_low(floor: u64) -> Result<Outcome, Refusal> {
    Err(Refusal::TimestampTooLow { floor: ts(floor) })
}

fn value(replica: &Replica, shard: u64, name: &str) -> Option<Bytes> {
    match replica.store.snapshot().newest(ShardId(shard), &LogicalKey::plain(key(name))).unwrap() {
        Some((_, Stored::Put { value, .. })) => Some(value),
        Some((_, Stored::Tombstone)) | None => None,
    }
}

#[test]
fn operations_of_one_entry_and_entries_of_one_batch_see_each_other() {
    let (_dir, mut replica) = replica();
    let is = |v: &str| Expectation::Value(key(v));
    let results = replica.writes(vec![
        at(10, put("k", "1")),
        at(11, cas("k", is("1"), "2")),
        at(12, delete_range("a", "m")),
        at(13, cas("k", Expectation::Absent, "3")),
    ]);
    let range = Ok(Outcome::RangeDeleted { commit_ts: ts(12), deleted: 1, resume: None });
    assert_eq!(results, [written(10), written(11), range, written(13)]);

    let next = replica.next_index();
    let command = |ts, kind| Command::Write(vec![at(ts, kind)]);
    let replies = replica.apply(&[
        entry(1, next, &command(20, put("x", "1"))),
        entry(1, next + 1, &command(21, cas("x", Expectation::Version(ts(20)), "2"))),
        entry(1, next + 2, &command(21, put("x", "3"))),
    ]);
    let expect = [written(20), written(21), too_low(21)];
    assert_eq!(replies, expect.map(|result| ApplyReply::Writes(vec![result])));
}

#[test]
fn an_entry_of_another_term_than_it_was_admitted_in_does_nothing() {
    let (_dir, mut replica) = replica();
    let index = replica.next_index();
    let writes = Command::Write(vec![at(10, put("k", "v")), at(11, delete("k"))]);
    let admitted_before = |index, command: &Command| Entry {
        log_id: log_id(2, index),
        payload: Payload::Normal(command.encode(1).unwrap()),
    };
    let replies = replica
        .apply(&[admitted_before(index, &writes), admitted_before(index + 1, &Command::AdvanceSafePoint(ts(5)))]);
    let refusal = Err(Refusal::TermMismatch { admitted_term: 1, entry_term: 2 });
    assert_eq!(replies[0], ApplyReply::Writes(vec![refusal.clone(), refusal]));
    assert!(matches!(&replies[1], ApplyReply::Control(ControlReply::Refused(_))));
    assert_eq!(value(&replica, 1, "k"), None);
    assert_eq!(replica.state.owned[0].safe_point, ts(0));
    assert_eq!(replica.applied.log_id, Some(log_id(2, index + 1)));
}

#[test]
fn the_first_gate_that_objects_answers() {
    let (_dir, mut replica) = replica();
    replica.writes(vec![once(10, put("k", "1"), "id", 1_000), at(20, cas("k", Expectation::Present, "2"))]);
    let stale = |mut write: drover_fsm::TimedWrite| {
        write.op.observed_version = None;
        write
    };
    let acquired_version = CatalogVersion(1);
    let table = [
        ("not owned, stale, too low", stale(at(1, put("A", ""))), Err(Refusal::RouteMoved { hint: None })),
        ("answered before, stale, too low", stale(once(1, put("k", "1"), "id", 1_000)), written(10)),
        ("stale, too low", stale(at(1, put("k", ""))), Err(Refusal::StaleRoute { acquired_version })),
        ("too low, compare fails", at(20, cas("k", Expectation::Absent, "")), too_low(20)),
        (
            "compare fails",
            at(21, cas("k", Expectation::Absent, "")),
            Ok(Outcome::CompareFailed {
                current: Some(Versioned { value: key("2"), commit_ts: ts(20), expire_at: None }),
            }),
        ),
    ];
    for (case, write, expect) in table {
        assert_eq!(replica.write(write), expect, "{case}");
    }
}

#[test]
fn a_compare_raises_the_read_floor_of_the_whole_group_even_if_it_fails() {
    let (_dir, mut replica) = replica();
    replica.write(at(10, cas("k", Expectation::Present, "v"))).unwrap();
    assert_eq!(replica.state.read_floor, ts(10));
    assert_eq!(replica.write(at(10, put("other", "v"))), too_low(10));
    assert_eq!(replica.write(at(11, put("other", "v"))), written(11));
    assert_eq!(replica.state.read_floor, ts(10), "a blind write validates nothing");
}

#[test]
fn h8_a_blind_write_below_younger_versions_of_other_keys_is_judged_by_its_own_key() {
    let (_dir, mut replica) = replica();
    replica.writes(vec![at(10, put("k", "1")), at(30, put("other", "1"))]);
    assert_eq!(replica.write(at(10, put("k", "2"))), too_low(10));
    assert_eq!(replica.write(at(20, put("k", "2"))), written(20));
    assert_eq!(replica.write(at(20, delete("k"))), too_low(20));
    assert_eq!(replica.state.max_commit_ts, ts(30));
}

#[test]
fn a_range_delete_counts_and_deletes_what_is_live_across_adjacent_intervals_only() {
    let (_dir, mut replica) = replica();
    let minute = 60_000;
    replica.writes(vec![
        at(1, put("b", "")),
        at(2, put("deleted", "")),
        at(3, delete("deleted")),
        at(4, put_ttl("expired", "", 0)),
        at(5, put_ttl("expires", "", minute)),
        at(6, put("n", "")),
        at(7, put("z", "")),
    ]);
    let past_the_first_millisecond = 1 << 16;
    let result = replica.write(at(past_the_first_millisecond, delete_range("b", "p")));
    let commit_ts = ts(past_the_first_millisecond);
    assert_eq!(result, Ok(Outcome::RangeDeleted { commit_ts, deleted: 3, resume: None }));
    let mut tombstones = Vec::new();
    for (shard, part) in [(1, interval("a", "m")), (2, interval("m", ""))] {
        let snapshot = replica.store.snapshot();
        let mut visit = |key: Bytes, at, stored| {
            if at == commit_ts && stored == Stored::Tombstone {
                tombstones.push(key);
            }
            std::ops::ControlFlow::Continue(())
        };
        snapshot.scan(ShardId(shard), &part, commit_ts, false, &mut visit).unwrap();
    }
    assert_eq!(tombstones, ["b", "expires", "n"]);
}

#[test]
fn a_range_delete_is_judged_on_all_of_its_interval() {
    let (_dir, mut replica) = replica();
    replica.writes(vec![at(1, put("a", "")), at(20, put("c", ""))]);
    let moved = Err(Refusal::RouteMoved { hint: None });
    assert_eq!(replica.write(at(30, delete_range("A", "c"))), moved, "starts left of what is owned");
    assert_eq!(replica.write(at(20, delete_range("a", "d"))), too_low(20), "one key is as new");
    assert_eq!(value(&replica, 1, "a"), Some(Bytes::new()), "nothing was deleted");
    replica.write(at(30, delete_range("a", "d"))).unwrap();
    assert_eq!(replica.write(at(30, put("b", ""))), too_low(30), "the delete should have met it");
}

#[test]
fn an_expiry_is_judged_by_the_commit_timestamp() {
    let (_dir, mut replica) = replica();
    let ms = |n: u64| n << 16;
    replica.write(at(ms(10) + 7, put_ttl("k", "v", 5))).unwrap();
    let expire_at = ms(15) + 0xffff;
    let present = |at_ts| at(at_ts, cas("k", Expectation::Present, "w"));
    let absent = |at_ts| at(at_ts, cas("k", Expectation::Absent, "w"));
    let met = Versioned { value: key("v"), commit_ts: ts(ms(10) + 7), expire_at: Some(ts(expire_at)) };
    assert_eq!(replica.write(absent(expire_at - 1)), Ok(Outcome::CompareFailed { current: Some(met) }));
    assert_eq!(replica.write(present(expire_at)), Ok(Outcome::CompareFailed { current: None }));
    assert_eq!(replica.write(absent(expire_at + 1)), written(expire_at + 1));
}

#[test]
fn a_retry_gets_the_first_answer_and_changes_nothing() {
    let (_dir, mut replica) = replica();
    let increment = |commit_ts| once(commit_ts, cas("k", Expectation::Absent, "1"), "id", 1_000);
    assert_eq!(replica.write(increment(10)), written(10));
    replica.write(at(20, delete("k"))).unwrap();
    let before = replica.digest();
    assert_eq!(replica.write(increment(30)), written(10));
    assert_eq!(replica.digest(), before);

    let failing = |commit_ts| once(commit_ts, cas("k", Expectation::Present, "1"), "fails", 1_000);
    assert_eq!(replica.write(failing(40)), Ok(Outcome::CompareFailed { current: None }));
    replica.write(at(50, put("k", ""))).unwrap();
    assert_eq!(replica.write(failing(60)), Ok(Outcome::CompareFailed { current: None }), "though it would hold now");

    let other = once(70, cas("k", Expectation::Present, "2"), "fails", 1_000);
    assert_eq!(replica.write(other), Err(Refusal::IdempotencyReused));
}

#[test]
fn the_deletion_of_a_range_is_answered_again_wherever_the_leader_cut_the_retry() {
    let (_dir, mut replica) = replica();
    replica.writes(vec![at(1, put("b", "")), at(2, put("d", ""))]);
    let cut = |commit_ts, end: &str, resume: Option<&str>| {
        let kind = WriteKind::DeleteRange { interval: interval("a", end), resume: resume.map(key) };
        once(commit_ts, kind, "id", 1_000)
    };
    let first = Ok(Outcome::RangeDeleted { commit_ts: ts(10), deleted: 1, resume: Some(key("c")) });
    assert_eq!(replica.write(cut(10, "c", Some("c"))), first);
    assert_eq!(replica.write(cut(20, "z", None)), first);
    assert_eq!(value(&replica, 1, "d"), Some(Bytes::new()));
}

#[test]
fn a_refusal_before_the_conditions_is_no_outcome() {
    let (_dir, mut replica) = replica();
    replica.write(at(10, cas("k", Expectation::Absent, "1"))).unwrap();
    assert_eq!(replica.write(once(5, put("k", "2"), "id", 1_000)), too_low(10));
    assert_eq!(replica.write(once(11, put("k", "2"), "id", 1_000)), written(11));
    let late = once(1_001, put("k", "3"), "late", 1_000);
    assert_eq!(replica.write(late), Err(Refusal::IdempotencyExpired { not_after: ts(1_000) }));
}

#[test]
fn a_late_proposal_after_a_settle_never_applies() {
    let (_dir, mut replica) = replica();
    let late = || once(10, put("k", "v"), "id", 1_000);
    assert_eq!(replica.write(once(20, settle("k"), "id", 1_000)), Ok(Outcome::Settled));
    assert_eq!(replica.write(late()), Err(Refusal::IdempotencySettled));
    assert_eq!(value(&replica, 1, "k"), None);
    assert_eq!(replica.write(once(30, settle("k"), "id", 1_000)), Ok(Outcome::Settled));

    replica.write(once(40, put("k", "v"), "applied", 1_000)).unwrap();
    assert_eq!(replica.write(once(2_000, settle("k"), "applied", 1_000)), written(40), "past not_after as well");
    assert_eq!(replica.state.max_commit_ts, ts(40), "a settle writes no version");
}

#[test]
fn records_go_only_at_or_below_the_horizon_and_what_they_answered_is_refused_then() {
    let (_dir, mut replica) = replica();
    let young = || once(11, put("n", "v"), "young", 200);
    let old = || once(10, put("k", "v"), "old", 100);
    replica.writes(vec![old(), young()]);
    let names = [("k", "old"), ("n", "young"), ("k", "unknown"), ("A", "not owned")];
    let remove = || {
        let name = |(route_key, id): (&str, &str)| RecordName { route_key: key(route_key), idempotency_key: key(id) };
        Command::RemoveRecords(names.map(name).into())
    };
    assert_eq!(replica.control(remove()), ControlReply::AlreadyDone);
    assert_eq!(replica.control(Command::AdvanceRecordHorizon(ts(100))), ControlReply::Done);
    assert_eq!(replica.control(Command::AdvanceRecordHorizon(ts(99))), ControlReply::AlreadyDone);
    assert_eq!(replica.write(old()), written(10), "until an entry removes it");
    assert_eq!(replica.control(remove()), ControlReply::Done);
    let expired = Err(Refusal::IdempotencyExpired { not_after: ts(100) });
    assert_eq!(replica.write(old()), expired);
    assert_eq!(replica.write(once(12, settle("k"), "old", 100)), expired);
    assert_eq!(replica.write(young()), written(11));
}

#[test]
fn a_request_routed_by_a_map_from_before_the_ownership_is_stale() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(&env(), &dir.path().join("store"));
    let acquired_version = CatalogVersion(5);
    replica.control(Command::GrantRange(vec![drover_fsm::Grant { acquired_version, ..grant("a", "", 1) }]));
    let routed_by = |version, commit_ts| {
        let mut write = at(commit_ts, put("k", "v"));
        write.op.observed_version = Some(CatalogVersion(version));
        write
    };
    let stale = Err(Refusal::StaleRoute { acquired_version });
    assert_eq!(replica.write(routed_by(4, 10)), stale);
    assert_eq!(replica.write(routed_by(5, 11)), written(11));
}

#[test]
fn h3_a_write_at_or_below_the_floor_of_the_ownership_is_refused() {
    let (_dir, mut replica) = replica();
    let mut state = (*replica.state).clone();
    state.owned[0].floor_ts = ts(50);
    replica.state = state.into();
    assert_eq!(replica.write(at(50, put("k", ""))), too_low(50));
    assert_eq!(replica.write(at(50, put("n", ""))), written(50), "the other interval has no floor");
    assert_eq!(replica.write(at(51, put("k", ""))), written(51));
}

#[test]
fn a_write_under_the_safe_point_is_refused() {
    let (_dir, mut replica) = replica();
    assert_eq!(replica.control(Command::AdvanceSafePoint(ts(50))), ControlReply::Done);
    assert_eq!(replica.write(at(50, put("k", ""))), too_low(50));
    assert_eq!(replica.write(at(51, put("k", ""))), written(51));
}

#[test]
fn a_lock_blocks_every_write_to_its_key_and_range_deletes_over_it() {
    let (_dir, mut replica) = replica();
    let held = step(5, prepare(txn(1, 1), 4, "k", puts(&[("k", "v")])));
    let Ok(Outcome::TxnLocked { expire_at, .. }) = replica.write(held) else { panic!("it is locked") };
    let lock = LockInfo { key: key("k"), txn: txn(1, 1), primary: key("k"), start_ts: ts(4), expire_at };
    let locked = || Err(Refusal::Locked { lock: Box::new(lock.clone()) });
    let update = Update::Delete;
    let swap = WriteKind::CompareAndSet { key: key("k"), expect: Expectation::Absent, update };
    let table = [
        (at(10, put("k", "")), locked()),
        (once(11, delete("k"), "id", 1_000), locked()),
        (at(12, swap), locked()),
        (at(13, delete_range("b", "z")), locked()),
        (at(14, delete_range("l", "z")), Ok(Outcome::RangeDeleted { commit_ts: ts(14), deleted: 0, resume: None })),
        (at(15, put("l", "")), written(15)),
    ];
    for (write, expect) in table {
        assert_eq!(replica.write(write.clone()), expect, "{write:?}");
    }
    assert_eq!(replica.write(step(16, rollback(txn(1, 1), 4, "k", None))), Ok(Outcome::TxnRolledBack));
    assert_eq!(replica.write(once(16, delete("k"), "id", 1_000)), written(16), "a lock is no outcome");
}

#[test]
fn memberships_are_kept_with_the_log_id_they_came_at() {
    let (dir, mut replica) = replica();
    let membership = Membership::new_with_defaults(vec![[1, 2].into()], [3]);
    let index = replica.next_index();
    let entry = Entry { log_id: log_id(1, index), payload: Payload::Membership(membership.clone()) };
    assert_eq!(replica.apply(&[entry]), [ApplyReply::None]);
    replica.write(at(10, put("k", ""))).unwrap();
    assert_eq!(replica.applied.membership.stored().log_id(), &Some(log_id(1, index)));
    replica.store.flush().unwrap();
    let env = replica.env.clone();
    let before = replica.applied.clone();
    drop(replica);
    let reopened = Replica::open(&env, &dir.path().join("store"));
    assert_eq!(reopened.applied, before);
    assert_eq!(reopened.applied.membership.stored().membership(), &membership);
}

#[test]
fn an_entry_of_the_future_stops_the_replica_and_writes_nothing() {
    let (_dir, replica) = replica();
    let future = raw_entry(1, replica.next_index(), &[8, 9, 16, 1]);
    assert!(matches!(DecodedEntry::decode(future), Err(ApplyError::UnknownFormat { format: 9, .. })));
    let unknown = raw_entry(1, replica.next_index(), &[8, 1, 16, 1, 0xa2, 6, 0]);
    assert!(matches!(DecodedEntry::decode(unknown), Err(ApplyError::UnknownEntry { .. })));
}

#[test]
fn a_damaged_record_stops_the_replica_and_nothing_of_the_batch_is_written() {
    let (_dir, mut replica) = replica();
    let mut batch = replica.store.batch();
    batch.put_record(ShardId(1), b"k", drover_mvcc::RecordKind::Idempotency, b"id", "\u{7f}".into()).unwrap();
    batch.commit().unwrap();
    let index = replica.next_index();
    let entries: Vec<DecodedEntry> = [at(10, put("k", "1")), once(11, put("k", "2"), "id", 100)]
        .into_iter()
        .zip(index..)
        .map(|(write, index)| DecodedEntry::decode(entry(1, index, &Command::Write(vec![write]))).unwrap())
        .collect();
    let result = apply_batch(&replica.store, &replica.state, &replica.catalog, &replica.applied, &entries);
    assert!(matches!(result.err(), Some(ApplyError::Corrupt { what: "idempotency record", .. })));
    assert_eq!(value(&replica, 1, "k"), None);
    assert_eq!(replica.write(at(10, put("l", "1"))), written(10));
}

#[test]
fn h22_user_keys_of_any_bytes_reach_no_control_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(&env(), &dir.path().join("store"));
    let mut all = grant("", "", 1);
    all.interval = Interval::all();
    replica.control(Command::GrantRange(vec![all]));
    let (state, applied) = (replica.state.clone(), replica.applied.clone());
    let kinds = (0..=255u8).flat_map(|byte| [vec![byte], vec![0, 0, 0, 0, 0, 0, 0, 1, byte], vec![byte; 3]]);
    let writes = kinds.zip(10..).map(|(name, commit_ts)| at(commit_ts, WriteKind::Delete { key: name.into() }));
    replica.writes(writes.collect());
    assert_eq!(
        replica.write(at(5_000, delete_range("", ""))).unwrap(),
        Outcome::RangeDeleted { commit_ts: ts(5_000), deleted: 0, resume: None }
    );
    replica.store.compact().unwrap();
    let env = replica.env.clone();
    drop(replica);
    let reopened = Replica::open(&env, &dir.path().join("store"));
    assert_eq!(reopened.state.owned, state.owned);
    assert_eq!(reopened.applied.log_id.unwrap().index, applied.log_id.unwrap().index + 2);
}
