//! The driver: batches, flushes, snapshots, digests, restarts.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(clippy::disallowed_methods, reason = "what lies in the folder is part of what is tested")]

mod support;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use drover_fsm::{At, Command, FsmStateMachine, ReadOutcome};
use drover_keys::GroupId;
use drover_kv::{Reason, ScanLimits, ScanRequest};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use support::*;

fn value(machine: &Machine, name: &str) -> Option<String> {
    match machine.handle.get(&key(name), At::Latest, V1).unwrap() {
        ReadOutcome::Version(version) => version.map(|v| String::from_utf8(v.value.to_vec()).unwrap()),
        ReadOutcome::NeedTimestamp => panic!("nothing expires here"),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn digest(machine: &mut Machine) -> drover_mvcc::Digest {
    let index = machine.next_index();
    machine.command(Command::TakeDigest { request_id: 1 }).await;
    machine.handle.digest(index).await.unwrap()
}

/// `ACTIVE` before there is a store.
const NOTHING_YET: &str = "1 0 4a083f0a36828e44\n";

#[tokio::test]
async fn h30_what_was_not_flushed_is_forgotten_and_the_log_id_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let env = env();
    let mut machine = Machine::bootstrapped(&env, dir.path()).await;
    machine.write(10, put("k", "1")).await;
    let flushed = machine.handle.flush().await.unwrap();
    assert_eq!(flushed, Some(log_id(1, 1)));
    machine.write(20, put("k", "2")).await;
    assert_eq!(*machine.handle.applied_log_id().borrow(), Some(log_id(1, 2)));
    assert_eq!(*machine.handle.flushed_log_id().borrow(), Some(log_id(1, 1)));
    drop(machine);
    let mut machine = Machine::open(&env, dir.path());
    assert_eq!(machine.machine.applied_state().await.unwrap().0, Some(log_id(1, 1)));
    assert_eq!(*machine.handle.flushed_log_id().borrow(), Some(log_id(1, 1)));
    assert_eq!(value(&machine, "k").as_deref(), Some("1"));
}

#[tokio::test]
async fn the_snapshot_builder_reports_what_is_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let env = env();
    let mut machine = Machine::bootstrapped(&env, dir.path()).await;
    machine.write(10, put("k", "1")).await;
    let mut builder = machine.machine.get_snapshot_builder().await;
    machine.write(20, put("k", "2")).await;
    let built = builder.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(log_id(1, 2)));
    assert_eq!(*machine.handle.flushed_log_id().borrow(), Some(log_id(1, 2)));
    // The log may be purged up to there: a crash must not forget it.
    drop((machine, builder));
    let mut machine = Machine::open(&env, dir.path());
    assert_eq!(machine.machine.applied_state().await.unwrap().0, built.meta.last_log_id);
}

#[tokio::test]
async fn replicas_with_the_same_log_have_the_same_digest_and_others_do_not() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let env = env();
    let mut digests = Vec::new();
    for (dir, last) in dirs.iter().zip(["v", "v", "w"]) {
        let mut machine = Machine::bootstrapped(&env, dir.path()).await;
        machine.write(10, put("k", "1")).await;
        machine.write(20, put("k", last)).await;
        digests.push(digest(&mut machine).await);
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
    assert_eq!(digests[0].rows, digests[2].rows);
}

#[tokio::test]
async fn h24_a_digest_shows_the_state_at_its_entry_and_nothing_later() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let env = env();
    let write = |commit_ts| Command::Write(vec![at(commit_ts, put("k", "v"))]);
    let take = Command::TakeDigest { request_id: 7 };
    let mut machine = Machine::open(&env, dirs[0].path());
    // One stream, all of it ready: only the digest's entry ends the batch.
    let entries = [bootstrap(), write(10), take.clone(), write(20), take.clone()];
    let entries = entries.iter().zip(0..).map(|(command, index)| entry(1, index, command));
    machine.apply(entries.collect()).await.unwrap();
    let mut other = Machine::bootstrapped(&env, dirs[1].path()).await;
    other.command(write(10)).await;
    other.command(take).await;
    assert_eq!(machine.handle.digest(2).await.unwrap(), other.handle.digest(2).await.unwrap());
    assert_ne!(machine.handle.digest(4).await.unwrap(), machine.handle.digest(2).await.unwrap());
    assert_eq!(machine.handle.digest(3).await.unwrap_err().reason, Reason::FailedPrecondition);
}

#[tokio::test]
async fn an_unknown_entry_stops_the_stream_and_what_came_before_it_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = Machine::bootstrapped(&env(), dir.path()).await;
    let good = entry(1, 1, &Command::Write(vec![at(10, put("k", "1"))]));
    let error = machine.apply(vec![good, raw_entry(1, 2, &[8, 9, 16, 1])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(*machine.handle.failure().borrow(), Some(error.to_string()), "whoever runs the replica is told why");
    assert_eq!(*machine.handle.applied_log_id().borrow(), Some(log_id(1, 0)));
    assert_eq!(value(&machine, "k"), None);
}

#[tokio::test]
async fn a_snapshot_replaces_an_empty_store_and_survives_a_restart() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let env = env();
    let mut source = Machine::bootstrapped(&env, dirs[0].path()).await;
    source.write(10, put("k", "1")).await;
    let snapshot = source.machine.get_current_snapshot().await.unwrap().unwrap();
    source.write(20, put("k", "2")).await;

    let mut target = Machine::open(&env, dirs[1].path());
    assert!(target.machine.get_current_snapshot().await.unwrap().is_none());
    let mut applied = target.handle.applied_log_id();
    target.machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    assert_eq!(*applied.borrow_and_update(), Some(log_id(1, 1)));
    assert_eq!(value(&target, "k").as_deref(), Some("1"));
    target.write(20, put("k", "2")).await;
    assert_eq!(digest(&mut target).await, digest(&mut source).await);
    target.handle.flush().await.unwrap();
    drop(target);
    let target = Machine::open(&env, dirs[1].path());
    assert_eq!(value(&target, "k").as_deref(), Some("2"));
    assert_eq!(names(dirs[1].path()), ["ACTIVE", "snapshots", "store-2"]);
}

#[tokio::test]
async fn a_lagging_replica_jumps_and_its_old_store_goes_when_nobody_holds_it() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let env = env();
    let mut source = Machine::bootstrapped(&env, dirs[0].path()).await;
    let mut target = Machine::bootstrapped(&env, dirs[1].path()).await;
    target.write(10, put("k", "old")).await;
    source.write(10, put("k", "old")).await;
    source.write(20, put("k", "new")).await;
    let held = target.handle.store();
    let snapshot = source.machine.get_current_snapshot().await.unwrap().unwrap();
    target.machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    assert_eq!(value(&target, "k").as_deref(), Some("new"));
    let newest = held.snapshot().newest(drover_keys::ShardId(1), &drover_keys::LogicalKey::plain("k")).unwrap();
    assert_eq!(newest.map(|(at, _)| at), Some(ts(10)), "a reader of the old store goes on reading it");
    drop(held);
    let env_again = env.clone();
    drop(target);
    let target = Machine::open(&env_again, dirs[1].path());
    assert_eq!(names(dirs[1].path()), ["ACTIVE", "snapshots", "store-2"]);
    assert_eq!(value(&target, "k").as_deref(), Some("new"));
}

#[tokio::test]
async fn a_snapshot_that_is_not_what_it_says_changes_nothing() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let env = env();
    let mut source = Machine::bootstrapped(&env, dirs[0].path()).await;
    source.write(10, put("k", "source")).await;
    let mut target = Machine::bootstrapped(&env, dirs[1].path()).await;
    target.write(10, put("k", "target")).await;
    target.write(20, put("l", "target")).await;

    let older = source.machine.get_current_snapshot().await.unwrap().unwrap();
    assert!(target.machine.install_snapshot(&older.meta, older.snapshot).await.is_err(), "it would go back");

    source.write(20, put("k", "source")).await;
    source.write(30, put("k", "source")).await;
    let mut wrong = source.machine.get_current_snapshot().await.unwrap().unwrap();
    wrong.meta.last_log_id = Some(log_id(1, 9));
    assert!(target.machine.install_snapshot(&wrong.meta, wrong.snapshot).await.is_err(), "another log id");

    let (mut foreign, _) = FsmStateMachine::open(env.clone(), dirs[2].path(), GroupId(99)).unwrap();
    let blank = |index| openraft::Entry { log_id: log_id(1, index), payload: drover_rafttypes::Payload::Blank };
    foreign.apply(futures::stream::iter([Ok((blank(9), None))])).await.unwrap();
    let foreign = foreign.get_current_snapshot().await.unwrap().unwrap();
    let error = target.machine.install_snapshot(&foreign.meta, foreign.snapshot).await.unwrap_err();
    assert!(error.to_string().contains("belongs to group 99"), "{error}");

    let damaged = source.machine.get_current_snapshot().await.unwrap().unwrap();
    let table = names(damaged.snapshot.path()).into_iter().find(|name| name.ends_with(".sst")).unwrap();
    let path = damaged.snapshot.path().join(table);
    let copy: Vec<u8> = fs::read(&path).unwrap().into_iter().map(|byte| byte ^ 0x40).collect();
    fs::remove_file(&path).unwrap();
    fs::write(&path, copy).unwrap();
    assert!(target.machine.install_snapshot(&damaged.meta, damaged.snapshot).await.is_err(), "a damaged file");

    assert_eq!(value(&target, "k").as_deref(), Some("target"));
    assert_eq!(names(dirs[1].path()), ["ACTIVE", "snapshots", "store-1"]);
}

#[tokio::test]
async fn what_a_crash_left_over_is_removed_and_a_lost_store_is_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let env = env();
    let mut machine = Machine::bootstrapped(&env, dir.path()).await;
    machine.handle.flush().await.unwrap();
    let snapshot = machine.machine.get_current_snapshot().await.unwrap().unwrap();
    std::mem::forget(snapshot);
    drop(machine);
    fs::create_dir(dir.path().join("store-7")).unwrap();
    fs::create_dir(dir.path().join("store-8.gone")).unwrap();
    fs::write(dir.path().join("ACTIVE.new"), "7").unwrap();
    drop(Machine::open(&env, dir.path()));
    assert_eq!(names(&dir.path().join("snapshots")), [""; 0]);
    assert_eq!(names(dir.path()), ["ACTIVE", "ACTIVE.new", "snapshots", "store-1"]);
    fs::rename(dir.path().join("store-1"), dir.path().join("elsewhere")).unwrap();
    let error = FsmStateMachine::open(env, dir.path(), GROUP).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("store-1 is missing"), "{error}");
}

/// What it says decides which store is removed.
#[tokio::test]
async fn a_damaged_or_missing_note_of_the_live_store_costs_no_store() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let env = env();
    let mut source = Machine::bootstrapped(&env, dirs[0].path()).await;
    source.write(10, put("k", "1")).await;
    let snapshot = source.machine.get_current_snapshot().await.unwrap().unwrap();
    let mut target = Machine::open(&env, dirs[1].path());
    target.machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    drop(target);
    let note = dirs[1].path().join("ACTIVE");
    let whole = fs::read(&note).unwrap();
    let opened = || FsmStateMachine::open(env.clone(), dirs[1].path(), GROUP);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&note, damaged).unwrap();
        assert_eq!(opened().err().unwrap().kind(), ErrorKind::InvalidData, "byte {at}");
    }
    fs::remove_file(&note).unwrap();
    let error = opened().err().unwrap();
    assert!(error.to_string().contains("ACTIVE is missing beside a store"), "{error}");
    fs::write(&note, whole).unwrap();
    assert_eq!(value(&Machine::open(&env, dirs[1].path()), "k").as_deref(), Some("1"), "nothing was changed");
}

/// The first note is written before the first store, the second one behind it.
#[tokio::test]
async fn a_folder_whose_first_store_was_never_finished_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let env = env();
    drop(Machine::open(&env, dir.path()));
    let first = fs::read_to_string(dir.path().join("ACTIVE")).unwrap();
    assert!(first.starts_with("1 1 "), "{first}");
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join("store-1")).unwrap();
    fs::write(other.path().join("store-1/CURRENT"), "half").unwrap();
    fs::write(other.path().join("ACTIVE"), NOTHING_YET).unwrap();
    let mut machine = Machine::bootstrapped(&env, other.path()).await;
    machine.write(10, put("k", "1")).await;
    assert_eq!(fs::read_to_string(other.path().join("ACTIVE")).unwrap(), first);
}

#[tokio::test]
async fn the_folder_of_another_group_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let env = env();
    let machine = Machine::bootstrapped(&env, dir.path()).await;
    machine.handle.flush().await.unwrap();
    drop(machine);
    let error = FsmStateMachine::open(env, dir.path(), GroupId(4)).err().unwrap();
    assert!(error.to_string().contains("belongs to group 3"), "{error}");
}

/// Readers run while ownership state, versions and the store itself change under them: each answer is the right one or
/// a refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn readers_see_the_right_version_or_a_refusal_while_everything_moves() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let env = env();
    let mut machine = Machine::bootstrapped(&env, dirs[0].path()).await;
    let mut follower = Machine::bootstrapped(&env, dirs[1].path()).await;
    machine.write(10, put("k", "10")).await;
    follower.write(10, put("k", "10")).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = [&machine, &follower]
        .map(|m| {
            let (handle, stop) = (m.handle.clone(), stop.clone());
            tokio::task::spawn_blocking(move || {
                let mut answers = 0u64;
                while answers == 0 || !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let newest = handle.latest_commit_ts(&key("k"), V1).unwrap().unwrap().raw();
                    let read_ts = newest.saturating_sub(15);
                    let expect = read_ts / 10 * 10;
                    let request = ScanRequest {
                        interval: interval("k", "l"),
                        read_ts: ts(read_ts),
                        reverse: false,
                        keys_only: false,
                        count_only: false,
                        limits: ScanLimits::default(),
                    };
                    if let Ok(page) = handle.scan(&request, V1)
                        && expect >= 10
                    {
                        assert_eq!(page.entries[0].version.commit_ts, ts(expect));
                        answers += 1;
                    }
                }
                answers
            })
        })
        .into();
    for round in 2..200u64 {
        let write = Command::Write(vec![at(round * 10, put("k", &format!("{}", round * 10)))]);
        for m in [&mut machine, &mut follower] {
            m.command(write.clone()).await;
            m.command(Command::AdvanceSafePoint(ts(round * 10 - 16))).await;
        }
        if round % 20 == 0 {
            let store = machine.handle.store();
            tokio::task::spawn_blocking(move || store.compact()).await.unwrap().unwrap();
            let snapshot = machine.machine.get_current_snapshot().await.unwrap().unwrap();
            follower.machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}
