//! Steps of transactions: what apply answers and leaves behind, on a real store.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;

use bytes::Bytes;
use drover_fsm::{Command, TxnRecordName, txn_fingerprint};
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{CatalogVersion, Interval, LogicalKey, ShardId};
use drover_kv::{Expectation, Mutation, OpResult, Outcome, ReadSet, Refusal, TxnWrite, Update};
use drover_mvcc::Stored;
use drover_rafttypes::{ApplyReply, ControlReply, Entry, Payload};
use support::*;

fn replica() -> (tempfile::TempDir, Replica) {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::bootstrapped(dir.path());
    (dir, replica)
}

fn committed(commit_ts: u64) -> OpResult {
    Ok(Outcome::TxnCommitted { commit_ts: ts(commit_ts) })
}

fn aborted(through: u32) -> OpResult {
    Err(Refusal::TxnAborted { through: attempt(through) })
}

fn conflict(name: &str, changed_at: u64) -> OpResult {
    Err(Refusal::Conflict { key: key(name), changed_at: ts(changed_at) })
}

fn is_locked(result: &OpResult) -> bool {
    matches!(result, Err(Refusal::Locked { .. }))
}

/// A millisecond after `raw`: when a lock expires that was set at `raw` and lives for one.
fn after_a_millisecond(raw: u64) -> u64 {
    ms(raw, 1)
}

fn ms(raw: u64, ms: u64) -> u64 {
    Timestamp::new(PhysicalMs::new(ts(raw).physical().unix_ms() + ms).unwrap(), ts(raw).logical()).raw()
}

trait Run {
    fn run(&mut self, now: u64, this: TxnWrite) -> OpResult;
}

impl Run for Replica {
    fn run(&mut self, now: u64, this: TxnWrite) -> OpResult {
        self.write(step(now, this))
    }
}

fn shard_of(name: &str) -> ShardId {
    if name < "m" { ShardId(1) } else { ShardId(2) }
}

/// Value and commit timestamp of the newest version.
fn newest(replica: &Replica, name: &str) -> Option<(Bytes, u64)> {
    match replica.store.snapshot().newest(shard_of(name), &LogicalKey::plain(key(name))).unwrap() {
        Some((at, Stored::Put { value, .. })) => Some((value, at.raw())),
        Some((_, Stored::Tombstone)) | None => None,
    }
}

fn locks(replica: &Replica) -> u64 {
    let mut locks = 0;
    for shard in [1, 2] {
        let snapshot = replica.store.snapshot();
        let count = &mut |_, _| {
            locks += 1;
            std::ops::ControlFlow::Continue(())
        };
        snapshot.scan_locks(ShardId(shard), &Interval::all(), count).unwrap();
    }
    assert_eq!(replica.state.locks, locks, "the count of locks is wrong");
    locks
}

#[test]
fn a_transaction_of_one_group_applies_as_a_whole_and_its_retry_gets_the_first_answer() {
    let (_dir, mut replica) = replica();
    replica.write(at(5, put("b", "old"))).unwrap();
    let mutations = || puts(&[("k", "1"), ("n", "2")]);
    let both = |number| commit(txn(1, number), 9, mutations(), reads(&["b", "absent"], &[("p", "q")]));
    assert_eq!(replica.run(10, both(1)), committed(10));
    assert_eq!((newest(&replica, "k"), newest(&replica, "n")), (Some((key("1"), 10)), Some((key("2"), 10))));
    // A retry is answered before it is validated: by now "b" is another.
    replica.write(at(11, put("b", "new"))).unwrap();
    assert_eq!(replica.run(12, both(1)), committed(10));
    assert_eq!(replica.run(13, both(2)), committed(10));
    assert_eq!(newest(&replica, "k"), Some((key("1"), 10)));
    // The same id with other mutations is refused, and so is one that reads another snapshot.
    let other = commit(txn(1, 3), 9, puts(&[("k", "9")]), reads(&[], &[]));
    assert_eq!(replica.run(14, other), Err(Refusal::TxnReused));
    assert_eq!(replica.run(15, commit(txn(1, 3), 8, mutations(), reads(&[], &[]))), Err(Refusal::TxnReused));
    assert_eq!(locks(&replica), 0);
}

#[test]
fn what_was_read_and_has_changed_is_a_conflict() {
    let (_dir, mut replica) = replica();
    replica.write(at(5, put("b", "1"))).unwrap();
    replica.write(at(6, put("c", "1"))).unwrap();
    replica.write(at(7, put_ttl("d", "1", 1))).unwrap();
    let expires = newest(&replica, "d").unwrap().1;
    let expires = ms(expires, 1) | 0xffff;
    // Since a snapshot at 10: "b" is written, "c" deleted, "e" appears, "d" expires.
    replica.write(at(11, put("b", "2"))).unwrap();
    replica.write(at(12, delete("c"))).unwrap();
    replica.write(at(13, put("e", "1"))).unwrap();
    type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], Option<OpResult>);
    let table: [Row<'_>; 8] = [
        (&["b"], &[], Some(conflict("b", 11))),
        (&["c"], &[], Some(conflict("c", 12))),
        (&["e"], &[], Some(conflict("e", 13))),
        (&[], &[("e", "f")], Some(conflict("e", 13))),
        (&["k"], &[("bb", "c")], None),
        (&["k"], &[("a", "z")], Some(conflict("b", 11))),
        (&["d"], &[], Some(conflict("d", expires))),
        (&[], &[("d", "dd")], Some(conflict("d", expires))),
    ];
    for (n, (keys, intervals, expect)) in (1u8..).zip(table) {
        let now = expires + u64::from(n);
        let this = commit(txn(n, 1), 10, puts(&[("z", "x")]), reads(keys, intervals));
        assert_eq!(replica.run(now, this), expect.unwrap_or_else(|| committed(now)), "{keys:?} {intervals:?}");
    }
    // Of these, one has written.
    assert_eq!(newest(&replica, "z"), Some((key("x"), expires + 5)));
}

#[test]
fn a_transaction_that_read_something_raises_the_floor_and_one_that_only_writes_does_not() {
    let (_dir, mut replica) = replica();
    assert_eq!(replica.run(10, commit(txn(1, 1), 9, puts(&[("k", "1")]), reads(&[], &[]))), committed(10));
    assert_eq!(replica.state.read_floor, ts(0));
    assert_eq!(replica.run(12, commit(txn(2, 1), 9, puts(&[("k", "1")]), reads(&["b"], &[]))), committed(12));
    assert_eq!(replica.state.read_floor, ts(12));
    let late = commit(txn(3, 1), 9, puts(&[("q", "1")]), reads(&[], &[]));
    assert_eq!(replica.run(12, late), Err(Refusal::TimestampTooLow { floor: ts(12) }));
}

#[test]
fn a_prepare_tells_when_the_first_value_under_its_locks_expires() {
    let (_dir, mut replica) = replica();
    let put =
        |key: &str, ttl_ms| Mutation { key: key.to_owned().into(), update: Update::Put { value: "v".into(), ttl_ms } };
    let written = [put("a", Some(5)), put("b", Some(3)), put("c", None)];
    replica.run(5, commit(txn(9, 1), 4, written.to_vec(), ReadSet::default())).unwrap();
    let locked = |replica: &mut Replica, id, start_ts, keys: &[&str]| {
        let mutations = keys.iter().map(|key| put(key, None)).collect();
        match replica.run(10, prepare(txn(id, 1), start_ts, keys[0], mutations)) {
            Ok(Outcome::TxnLocked { changes_at, .. }) => changes_at,
            other => panic!("{other:?}"),
        }
    };
    let first = locked(&mut replica, 1, 9, &["a", "b"]);
    assert_eq!(first, locked(&mut replica, 1, 9, &["a", "b"]), "asked again, it says the same");
    assert!(first.is_some_and(|at| at > ts(9)));
    assert_eq!(locked(&mut replica, 2, 9, &["c", "d"]), None);
}

#[test]
fn a_transaction_of_two_groups_is_prepared_decided_and_resolved() {
    let (_dir, mut here) = replica();
    let (_dir, mut there) = replica();
    let this = txn(1, 1);
    let expire_at = ts(after_a_millisecond(10));
    for _ in 0..2 {
        assert_eq!(
            here.run(10, prepare(this, 9, "k", puts(&[("k", "1"), ("n", "2")]))),
            Ok(Outcome::TxnLocked { expire_at, changes_at: None })
        );
        assert_eq!(
            there.run(10, prepare(this, 9, "k", puts(&[("b", "3")]))),
            Ok(Outcome::TxnLocked { expire_at, changes_at: None })
        );
    }
    assert_eq!((locks(&here), locks(&there)), (2, 1));
    assert_eq!(newest(&here, "k"), None);
    // Meanwhile others go on, with younger timestamps and reads.
    there.write(at(20, cas("q", Expectation::Present, "x"))).unwrap();
    assert_eq!(there.state.read_floor, ts(20));
    let point = || decide(this, 9, 15, &["k", "n"], &["b"]);
    for now in [21, 22] {
        assert_eq!(here.run(now, point()), committed(15));
    }
    assert_eq!(locks(&here), 0);
    assert_eq!((newest(&here, "k"), newest(&here, "n")), (Some((key("1"), 15)), Some((key("2"), 15))));
    // What was decided passes every floor.
    for now in [23, 24] {
        assert_eq!(there.run(now, resolve(this, 9, Some(15), &["b"])), Ok(Outcome::TxnResolved));
    }
    assert_eq!((newest(&there, "b"), locks(&there)), (Some((key("3"), 15)), 0));
    assert_eq!(there.state.max_commit_ts, ts(15));
    // A retry of the whole, wherever its keys are by now, gets the same answer.
    assert_eq!(here.run(25, prepare(txn(1, 2), 9, "k", puts(&[("k", "1"), ("n", "2")]))), committed(15));
    assert_eq!((locks(&here), locks(&there)), (0, 0));
}

#[test]
fn h48_a_lock_becomes_a_version_below_every_floor() {
    let (_dir, mut replica) = replica();
    replica.run(10, prepare(txn(1, 1), 9, "b", puts(&[("b", "primary")]))).unwrap();
    // Of a transaction whose primary is elsewhere.
    replica.run(11, prepare(txn(2, 1), 9, "q", puts(&[("c", "secondary")]))).unwrap();
    // Both get their commit timestamps. Before they come to the log something younger is validated there.
    replica.run(50, commit(txn(3, 1), 40, puts(&[("k", "x")]), reads(&["l"], &[]))).unwrap();
    assert_eq!(replica.write(at(20, put("d", "new"))), Err(Refusal::TimestampTooLow { floor: ts(50) }));
    assert_eq!(replica.run(51, decide(txn(1, 1), 9, 20, &["b"], &[])), committed(20));
    assert_eq!(replica.run(52, resolve(txn(2, 1), 9, Some(21), &["c"])), Ok(Outcome::TxnResolved));
    let versions = (newest(&replica, "b"), newest(&replica, "c"));
    assert_eq!(versions, (Some((key("primary"), 20)), Some((key("secondary"), 21))));
    assert_eq!(locks(&replica), 0);
}

#[test]
fn a_prepare_fails_on_a_younger_version_and_on_a_foreign_lock_and_locks_nothing() {
    let (_dir, mut replica) = replica();
    replica.write(at(10, put("k", "1"))).unwrap();
    assert_eq!(replica.run(11, prepare(txn(1, 1), 9, "b", puts(&[("b", ""), ("k", "")]))), conflict("k", 10));
    assert_eq!(locks(&replica), 0);
    replica.run(12, prepare(txn(2, 1), 10, "k", puts(&[("k", "")]))).unwrap();
    assert!(is_locked(&replica.run(13, prepare(txn(1, 1), 11, "b", puts(&[("b", ""), ("k", "")])))));
    assert_eq!(locks(&replica), 1);
    // In one entry as well, for what is written, read and scanned.
    for (n, this) in (3u8..).zip([
        commit(txn(3, 1), 12, puts(&[("k", "")]), reads(&[], &[])),
        commit(txn(4, 1), 12, puts(&[("b", "")]), reads(&["k"], &[])),
        commit(txn(5, 1), 12, puts(&[("b", "")]), reads(&[], &[("h", "l")])),
    ]) {
        assert!(is_locked(&replica.run(20 + u64::from(n), this)), "{n}");
    }
    let beside = commit(txn(6, 1), 12, puts(&[("b", "")]), reads(&["j"], &[("l", "m")]));
    assert_eq!(replica.run(30, beside), committed(30));
}

#[test]
fn a_rollback_waits_until_the_lock_has_expired() {
    let (_dir, mut replica) = replica();
    let this = txn(1, 1);
    replica.run(10, prepare(this, 9, "k", puts(&[("k", "1")]))).unwrap();
    let expires = after_a_millisecond(10);
    let not_yet = |at| Err(Refusal::NotExpired { expire_at: ts(at) });
    // What was met elsewhere says nothing if the primary lives.
    assert_eq!(replica.run(expires - 1, rollback(this, 9, "k", Some(1))), not_yet(expires));
    // A heartbeat keeps it alive.
    let longer = Outcome::TxnLocked { expire_at: ts(ms(expires, 5)), changes_at: None };
    assert_eq!(replica.run(expires, heartbeat(this, "k", 5)), Ok(longer.clone()));
    assert_eq!(replica.run(expires + 1, heartbeat(this, "k", 1)), Ok(longer), "it is never shortened");
    assert_eq!(replica.run(expires + 2, rollback(this, 9, "k", Some(1))), not_yet(ms(expires, 5)));
    assert_eq!(locks(&replica), 1);
    assert_eq!(replica.run(ms(expires, 5), rollback(this, 9, "k", Some(1))), Ok(Outcome::TxnRolledBack));
    assert_eq!((locks(&replica), newest(&replica, "k")), (0, None));
    assert_eq!(replica.run(ms(expires, 6), heartbeat(this, "k", 5)), aborted(1));
    assert_eq!(replica.run(ms(expires, 6), decide(this, 9, 20, &["k"], &[])), aborted(1));
    // A second rollback is the same one.
    assert_eq!(replica.run(ms(expires, 7), rollback(this, 9, "k", Some(u64::MAX))), Ok(Outcome::TxnRolledBack));
    // Asked for, it does not wait.
    let other = txn(2, 1);
    let now = ms(expires, 8);
    replica.run(now, prepare(other, 9, "k", puts(&[("k", "1")]))).unwrap();
    assert_eq!(replica.run(now + 1, rollback(other, 9, "k", None)), Ok(Outcome::TxnRolledBack));
    assert_eq!(locks(&replica), 0);
}

#[test]
fn a_prepare_of_the_primary_after_a_rollback_is_refused() {
    let (_dir, mut replica) = replica();
    let this = txn(1, 1);
    // A reader has met the expired lock of another group; the primary's prepare is still on its way.
    assert_eq!(
        replica.run(20, rollback(this, 9, "k", Some(21))),
        Err(Refusal::NotExpired { expire_at: ts(21) }),
        "the lock that was met lives"
    );
    assert_eq!(replica.run(21, rollback(this, 9, "k", Some(21))), Ok(Outcome::TxnRolledBack));
    assert_eq!(replica.run(22, prepare(this, 9, "k", puts(&[("k", "1")]))), aborted(1));
    assert_eq!(replica.run(23, decide(this, 9, 15, &["k"], &["b"])), aborted(1));
    assert_eq!(replica.run(24, commit(this, 9, puts(&[("k", "1")]), reads(&[], &[]))), aborted(1));
    assert_eq!((locks(&replica), newest(&replica, "k")), (0, None));
    // The client tries again, and comes through.
    replica.run(25, prepare(txn(1, 2), 9, "k", puts(&[("k", "1")]))).unwrap();
    assert_eq!(replica.run(26, decide(txn(1, 2), 9, 25, &["k"], &[])), committed(25));
    // Given up for good.
    assert_eq!(replica.run(27, rollback(txn(1, 2), 9, "k", None)), committed(25), "it is too late for that");
}

#[test]
fn a_prepare_that_comes_after_the_resolution_locks_nothing() {
    let (_dir, mut replica) = replica();
    let (done, undone) = (txn(1, 1), txn(2, 1));
    let late = |this| prepare(this, 9, "elsewhere", puts(&[("b", "1")]));
    replica.run(10, late(done)).unwrap();
    replica.run(11, resolve(done, 9, Some(10), &["b"])).unwrap();
    assert_eq!(replica.run(12, late(done)), committed(10));
    let late = |this| prepare(this, 12, "elsewhere", puts(&[("c", "1")]));
    replica.run(13, resolve(undone, 12, None, &["c"])).unwrap();
    assert_eq!(replica.run(14, late(undone)), aborted(1));
    assert_eq!(locks(&replica), 0);
    // Of two rollbacks the higher is remembered; the next attempt may go on.
    replica.run(15, resolve(txn(2, 3), 12, None, &["c"])).unwrap();
    replica.run(16, resolve(txn(2, 2), 12, None, &["c"])).unwrap();
    assert_eq!(replica.run(17, late(txn(2, 3))), aborted(3));
    assert!(replica.run(18, late(txn(2, 4))).is_ok());
    assert_eq!(locks(&replica), 1);
}

#[test]
fn the_id_of_a_committed_transaction_names_no_other_one_wherever_that_is_noticed() {
    let (_dir, mut replica) = replica();
    let this = txn(1, 1);
    // Committed elsewhere, and resolved here.
    replica.run(10, prepare(this, 9, "elsewhere", puts(&[("b", "1"), ("c", "1")]))).unwrap();
    replica.run(11, resolve(this, 9, Some(10), &["b", "c"])).unwrap();
    assert_eq!(replica.run(12, prepare(this, 9, "elsewhere", puts(&[("b", "1"), ("c", "1")]))), committed(10));
    // A stranger with the same id, whose primary is that key, and one whose primary is elsewhere. (The helper tells content by
    // the snapshot.)
    assert_eq!(replica.run(13, prepare(txn(1, 1), 8, "b", puts(&[("b", "2")]))), Err(Refusal::TxnReused));
    assert_eq!(replica.run(14, prepare(txn(1, 2), 8, "far", puts(&[("b", "2")]))), Err(Refusal::TxnReused));
    assert_eq!((locks(&replica), newest(&replica, "b")), (0, Some((key("1"), 10))));
}

#[test]
fn h28_a_step_that_was_admitted_in_another_term_does_nothing() {
    let (_dir, mut replica) = replica();
    let this = txn(1, 1);
    let steps = [
        commit(txn(2, 1), 9, puts(&[("b", "1")]), reads(&["c"], &[])),
        prepare(this, 9, "k", puts(&[("k", "1")])),
        decide(this, 9, 15, &["k"], &[]),
    ];
    // Its leader had looked at what was pending in term 1; it is appended in term 2, where other reads were served.
    let refusal = Err(Refusal::TermMismatch { admitted_term: 1, entry_term: 2 });
    replica.term = 2;
    for (now, this) in (20..).zip(steps) {
        let command = Command::Write(vec![step(now, this.clone())]).encode(1).unwrap();
        let entry = Entry { log_id: log_id(2, replica.next_index()), payload: Payload::Normal(command) };
        assert_eq!(replica.apply(&[entry]), [ApplyReply::Writes(vec![refusal.clone()])], "{this:?}");
        if let TxnWrite::Prepare(_) = &this {
            assert_eq!(locks(&replica), 0);
            // So that the decision would find what it needs.
            replica.run(now, this).unwrap();
        }
    }
    assert_eq!((locks(&replica), newest(&replica, "b"), newest(&replica, "k")), (1, None, None));
}

#[test]
fn what_lies_under_one_key_is_looked_at_and_removed_in_bounded_steps() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut machine = runtime.block_on(Machine::bootstrapped(&env(), &dir.path().join("group")));
    // A counter that every transaction writes first: all outcomes lie under it.
    let commits = (0..25u8).map(|id| {
        let (at, mutations) = (20 + u64::from(id), puts(&[("hot", "1")]));
        step(at, commit(txn(id, 1), 10 + u64::from(id), mutations, reads(&[], &[])))
    });
    runtime.block_on(machine.command(Command::Write(commits.collect())));
    runtime.block_on(machine.command(Command::AdvanceTxnHorizon(ts(50))));
    let (mut from, mut sizes, mut gone) = (None, Vec::new(), BTreeSet::new());
    loop {
        let found = machine.handle.expired_txn_records(from.as_ref(), ts(50), 10).unwrap();
        sizes.push(found.names.len());
        gone.extend(found.names.iter().map(|name| name.id));
        // What was looked at goes before the next look.
        runtime.block_on(machine.command(Command::RemoveTxnRecords(found.names)));
        from = found.resume;
        if from.is_none() {
            break;
        }
    }
    assert_eq!((sizes, gone.len()), (vec![10, 10, 5], 25));
    let left = machine.handle.expired_txn_records(None, ts(50), 10).unwrap();
    assert_eq!((left.names, left.resume), (vec![], None));
}

#[test]
fn h41_a_higher_attempt_takes_the_place_of_the_lower_one_for_good() {
    let (_dir, mut here) = replica();
    let (_dir, mut there) = replica();
    let (first, second) = (txn(1, 1), txn(1, 2));
    let mutations = || puts(&[("k", "1")]);
    let elsewhere = || puts(&[("b", "1")]);
    here.run(10, prepare(first, 9, "k", mutations())).unwrap();
    there.run(10, prepare(first, 9, "k", elsewhere())).unwrap();
    // Another coordinator works on the same request without knowing that the first cannot commit any more.
    let mut blind = prepare(second, 9, "k", elsewhere());
    if let TxnWrite::Prepare(prepare) = &mut blind {
        prepare.supersedes = false;
    }
    assert!(is_locked(&there.run(11, blind)));
    // It settles that at the primary, and goes on.
    here.run(12, prepare(second, 9, "k", mutations())).unwrap();
    there.run(13, prepare(second, 9, "k", elsewhere())).unwrap();
    assert_eq!((locks(&here), locks(&there)), (1, 1));
    // Whatever still comes of the first attempt does nothing.
    let through = Err(Refusal::TxnAborted { through: second.attempt.before() });
    assert_eq!(here.run(14, decide(first, 9, 13, &["k"], &["b"])), through);
    assert_eq!(here.run(15, prepare(first, 9, "k", mutations())), through);
    assert_eq!(there.run(15, prepare(first, 9, "k", elsewhere())), through);
    assert_eq!(here.run(16, heartbeat(first, "k", 9)), through);
    assert_eq!(here.run(17, rollback(first, 9, "k", None)), Ok(Outcome::TxnRolledBack));
    there.run(18, resolve(first, 9, None, &["b"])).unwrap();
    there.run(19, resolve(first, 9, Some(13), &["b"])).unwrap();
    assert_eq!((locks(&here), locks(&there)), (1, 1));
    assert_eq!(newest(&there, "b"), None);
    assert_eq!(here.run(20, decide(second, 9, 19, &["k"], &["b"])), committed(19));
    there.run(21, resolve(second, 9, Some(19), &["b"])).unwrap();
    assert_eq!((newest(&here, "k"), newest(&there, "b")), (Some((key("1"), 19)), Some((key("1"), 19))));
}

#[test]
fn a_retry_in_one_group_removes_the_locks_of_the_attempt_before() {
    let (_dir, mut replica) = replica();
    let mutations = || puts(&[("k", "1"), ("n", "2")]);
    let mut first = prepare(txn(1, 1), 9, "k", puts(&[("k", "1")]));
    if let TxnWrite::Prepare(prepare) = &mut first {
        prepare.fingerprint = txn_fingerprint(ts(9), &mutations());
    }
    replica.run(10, first).unwrap();
    let other = commit(txn(1, 2), 9, puts(&[("k", "other")]), reads(&[], &[]));
    assert_eq!(replica.run(11, other), Err(Refusal::TxnReused));
    assert_eq!(replica.run(11, commit(txn(1, 2), 9, mutations(), reads(&[], &[]))), committed(11));
    assert_eq!(locks(&replica), 0);
    assert_eq!(replica.run(12, decide(txn(1, 1), 9, 10, &["k"], &["n"])), Err(Refusal::TxnReused));
    assert_eq!(newest(&replica, "k"), Some((key("1"), 11)));
}

#[test]
fn h42_records_stay_until_the_horizon_has_passed_and_all_is_resolved() {
    let (_dir, mut replica) = replica();
    let (one, two, gone) = (txn(1, 1), txn(2, 1), txn(3, 1));
    replica.run(20, commit(one, 9, puts(&[("b", "1")]), reads(&[], &[]))).unwrap();
    replica.run(21, prepare(two, 10, "k", puts(&[("k", "1")]))).unwrap();
    replica.run(22, decide(two, 10, 22, &["k"], &["far"])).unwrap();
    replica.run(23, rollback(gone, 10, "n", None)).unwrap();
    replica.run(24, resolve(gone, 10, None, &["p"])).unwrap();
    let name = |name: &str, of: drover_kv::TxnRef, marker| TxnRecordName { route_key: key(name), id: of.id, marker };
    let all = || {
        let names = vec![name("b", one, false), name("k", two, false), name("n", gone, false), name("p", gone, true)];
        Command::RemoveTxnRecords(names)
    };
    let tell = |replica: &mut Replica, now| {
        [
            replica.run(now, prepare(one, 9, "b", puts(&[("b", "1")]))),
            replica.run(now + 1, prepare(two, 10, "k", puts(&[("k", "1")]))),
            replica.run(now + 2, prepare(gone, 10, "n", puts(&[("n", "1")]))),
            replica.run(now + 3, prepare(gone, 10, "elsewhere", puts(&[("p", "1")]))),
        ]
    };
    let known = [Err(Refusal::TxnReused), committed(22), aborted(1), aborted(1)];
    assert_eq!(replica.control(all()), ControlReply::AlreadyDone, "the horizon has not moved");
    assert_eq!(tell(&mut replica, 30), known);
    assert_eq!(replica.control(Command::AdvanceTxnHorizon(ts(9))), ControlReply::Done);
    assert_eq!(replica.control(all()), ControlReply::Done);
    // Whoever asks for what is forgotten is refused.
    let old = |start, oldest| Err(Refusal::TxnTooOld { start_ts: ts(start), oldest: ts(oldest) });
    assert_eq!(tell(&mut replica, 40), [old(9, 9), committed(22), aborted(1), aborted(1)]);
    assert_eq!(replica.control(Command::AdvanceTxnHorizon(ts(10))), ControlReply::Done);
    assert_eq!(replica.control(all()), ControlReply::Done);
    assert_eq!(tell(&mut replica, 50), [old(9, 10), committed(22), old(10, 10), old(10, 10)], "one is not resolved");
    assert_eq!(replica.run(60, finish(two, "k")), Ok(Outcome::TxnResolved));
    assert_eq!(replica.control(all()), ControlReply::Done);
    assert_eq!(tell(&mut replica, 70), [old(9, 10), old(10, 10), old(10, 10), old(10, 10)]);
    assert_eq!(replica.control(all()), ControlReply::AlreadyDone);
    // Nor can it be given up: for all that is known it was committed. Whoever has met a lock of it may.
    assert_eq!(replica.run(80, rollback(two, 10, "k", None)), old(10, 10));
    assert_eq!(replica.run(81, rollback(two, 10, "k", Some(80))), Ok(Outcome::TxnRolledBack));
    assert_eq!(replica.run(82, rollback(two, 10, "k", None)), old(10, 10), "and no record is left of that");
    assert_eq!(locks(&replica), 0);
}

#[test]
fn only_the_attempt_that_was_committed_declares_its_locks_resolved() {
    let (_dir, mut replica) = replica();
    let (first, second) = (txn(1, 1), txn(1, 2));
    replica.run(20, prepare(first, 10, "k", puts(&[("k", "1")]))).unwrap();
    replica.run(21, prepare(second, 10, "k", puts(&[("k", "1")]))).unwrap();
    assert_eq!(replica.run(22, decide(second, 10, 22, &["k"], &["far"])), committed(22));
    replica.control(Command::AdvanceTxnHorizon(ts(10)));
    let forget = |replica: &mut Replica| {
        let name = TxnRecordName { route_key: key("k"), id: first.id, marker: false };
        replica.control(Command::RemoveTxnRecords(vec![name]))
    };
    // The one that was superseded takes the answer to its own decision for its own success.
    assert_eq!(replica.run(23, decide(first, 10, 21, &["k"], &["far"])), committed(22));
    replica.run(24, finish(first, "k")).unwrap();
    assert_eq!(forget(&mut replica), ControlReply::AlreadyDone, "a lock elsewhere waits for the outcome");
    replica.run(25, finish(second, "k")).unwrap();
    assert_eq!(forget(&mut replica), ControlReply::Done);
}

#[test]
fn h51_the_safe_point_stays_behind_the_snapshots_of_transactions_with_locks() {
    let (_dir, mut replica) = replica();
    let safe_points = |replica: &Replica| replica.state.owned.iter().map(|o| o.safe_point.raw()).collect::<Vec<_>>();
    replica.run(20, prepare(txn(1, 1), 15, "k", puts(&[("k", "1")]))).unwrap();
    replica.run(20, prepare(txn(2, 1), 12, "k", puts(&[("j", "1")]))).unwrap();
    assert_eq!(replica.control(Command::AdvanceSafePoint(ts(10))), ControlReply::Done);
    assert_eq!(safe_points(&replica), [10, 10]);
    assert_eq!(replica.control(Command::AdvanceSafePoint(ts(18))), ControlReply::Done);
    assert_eq!(safe_points(&replica), [12, 18]);
    replica.run(21, resolve(txn(2, 1), 12, None, &["j"])).unwrap();
    assert_eq!(replica.control(Command::AdvanceSafePoint(ts(18))), ControlReply::Done);
    assert_eq!(safe_points(&replica), [15, 18]);
    assert_eq!(replica.run(22, decide(txn(1, 1), 15, 22, &["k"], &[])), committed(22));
    assert_eq!(replica.control(Command::AdvanceSafePoint(ts(18))), ControlReply::Done);
    assert_eq!(safe_points(&replica), [18, 18]);
    // From below it nothing can be validated.
    let old = Err(Refusal::TxnTooOld { start_ts: ts(17), oldest: ts(18) });
    assert_eq!(replica.run(23, prepare(txn(3, 1), 17, "b", puts(&[("b", "")]))), old);
    assert_eq!(replica.run(24, commit(txn(3, 1), 17, puts(&[("b", "")]), reads(&[], &[]))), old);
    assert_eq!(replica.run(25, commit(txn(3, 1), 18, puts(&[("b", "")]), reads(&[], &[]))), committed(25));
}

#[test]
fn every_step_is_judged_by_owner_and_route_version_on_all_that_it_touches() {
    let (_dir, mut replica) = replica();
    let moved = Err(Refusal::RouteMoved { hint: None });
    let steps = [
        commit(txn(1, 1), 9, puts(&[("k", ""), ("A", "")]), reads(&[], &[])),
        commit(txn(1, 1), 9, puts(&[("k", "")]), reads(&["A"], &[])),
        commit(txn(1, 1), 9, puts(&[("k", "")]), reads(&[], &[("A", "c")])),
        prepare(txn(1, 1), 9, "k", puts(&[("k", ""), ("A", "")])),
        decide(txn(1, 1), 9, 10, &["k", "A"], &[]),
        resolve(txn(1, 1), 9, None, &["k", "A"]),
        rollback(txn(1, 1), 9, "A", None),
        heartbeat(txn(1, 1), "A", 1),
        finish(txn(1, 1), "A"),
    ];
    for this in steps {
        assert_eq!(replica.run(10, this.clone()), moved, "{this:?}");
    }
    let steps = [
        commit(txn(1, 1), 9, puts(&[("k", "")]), reads(&[], &[])),
        prepare(txn(1, 1), 9, "k", puts(&[("k", "")])),
        decide(txn(1, 1), 9, 10, &["k"], &[]),
        resolve(txn(1, 1), 9, None, &["k"]),
        rollback(txn(1, 1), 9, "k", None),
        heartbeat(txn(1, 1), "k", 1),
        finish(txn(1, 1), "k"),
    ];
    for this in steps {
        let mut stale = step(10, this);
        for observed in [None, Some(CatalogVersion(0))] {
            stale.op.observed_version = observed;
            let refused = Err(Refusal::StaleRoute { acquired_version: CatalogVersion(1) });
            assert_eq!(replica.write(stale.clone()), refused, "{stale:?}");
        }
    }
    assert_eq!(locks(&replica), 0);
}
