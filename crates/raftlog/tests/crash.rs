//! Nothing that was reported durable is lost, whenever the process dies.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use common::*;
use drover_keys::GroupId;
use drover_raftlog::{EngineKind, NodeLog};
use openraft::storage::RaftLogStorage;

const G: GroupId = GroupId(3);
const CHILD_DIR: &str = "RAFTLOG_TEST_DIR";
const CHILD_ENGINE: &str = "RAFTLOG_TEST_ENGINE";
const CHILD_GROUPS: u64 = 4;
const PURGE_BEHIND: u64 = 40;

/// Opens what a kill at this moment would leave behind.
fn killed(dir: &tempfile::TempDir, node: NodeLog, engine: EngineKind) -> (tempfile::TempDir, NodeLog) {
    let left_behind = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), left_behind.path());
    drop(node);
    let reopened = open(left_behind.path(), &small(engine)).unwrap();
    (left_behind, reopened)
}

#[tokio::test]
async fn a_truncated_tail_does_not_come_back() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path(), &small(engine)).unwrap();
        let mut log = node.group(G);
        append(&mut log, entries(1, 0..9)).await;
        log.truncate_after(Some(log_id(1, 4))).await.unwrap();
        settle(&node).await;
        let (dir, node) = killed(&dir, node, engine);
        let mut log = node.group(G);
        assert_eq!(ends(&mut log).await, (None, Some(log_id(1, 4))), "{engine:?}");
        append(&mut log, entries(2, 5..7)).await;
        let (_dir, node) = killed(&dir, node, engine);
        let expected = [entries(1, 0..5), entries(2, 5..7)].concat();
        assert_eq!(read_all(&mut node.group(G)).await, expected, "{engine:?}");
    }
}

#[tokio::test]
async fn a_log_truncated_to_nothing_stays_empty() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path(), &small(engine)).unwrap();
        let mut log = node.group(G);
        append(&mut log, entries(1, 0..9)).await;
        log.truncate_after(None).await.unwrap();
        settle(&node).await;
        let (_dir, node) = killed(&dir, node, engine);
        let mut log = node.group(G);
        assert_eq!(ends(&mut log).await, (None, None), "{engine:?}");
        assert_eq!(read_all(&mut log).await, [], "{engine:?}");
    }
}

#[tokio::test]
async fn purged_entries_stay_gone_and_the_log_goes_on_behind_them() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path(), &small(engine)).unwrap();
        let mut log = node.group(G);
        append(&mut log, entries(1, 0..9)).await;
        log.purge(log_id(1, 3)).await.unwrap();
        settle(&node).await;
        let (dir, node) = killed(&dir, node, engine);
        let mut log = node.group(G);
        assert_eq!(ends(&mut log).await, (Some(log_id(1, 3)), Some(log_id(1, 8))), "{engine:?}");
        assert_eq!(read_all(&mut log).await, entries(1, 4..9), "{engine:?}");
        // A snapshot that is ahead of the log.
        log.purge(log_id(4, 90)).await.unwrap();
        append(&mut log, entries(4, 91..93)).await;
        let (_dir, node) = killed(&dir, node, engine);
        let mut log = node.group(G);
        assert_eq!(ends(&mut log).await, (Some(log_id(4, 90)), Some(log_id(4, 92))), "{engine:?}");
        assert_eq!(read_all(&mut log).await, entries(4, 91..93), "{engine:?}");
    }
}

#[tokio::test]
async fn many_groups_in_one_store_do_not_mix() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path(), &small(engine)).unwrap();
        for round in 0..5 {
            for group in 1..=50_u64 {
                let mut log = node.group(GroupId(group));
                log.append(entries(group, round * 3..round * 3 + 3), openraft::storage::IOFlushed::noop())
                    .await
                    .unwrap();
            }
        }
        settle(&node).await;
        let (_dir, node) = killed(&dir, node, engine);
        assert_eq!(node.groups().len(), 51, "and the one that settled");
        for group in 1..=50_u64 {
            assert_eq!(read_all(&mut node.group(GroupId(group))).await, entries(group, 0..15), "{engine:?}");
        }
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_it_reported() {
    for engine in ENGINES {
        for reports in [40, 300] {
            let dir = tempfile::tempdir().unwrap();
            let reported = run_and_kill(dir.path(), engine, reports);
            let node = open(dir.path(), &small(engine)).unwrap();
            for (group, durable) in reported {
                let mut log = node.group(GroupId(group));
                let (purged, last) = ends(&mut log).await;
                let last = last.unwrap().index;
                assert!(last >= durable, "{engine:?}: group {group} ends at {last}, {durable} was durable");
                let first = purged.map_or(0, |id| id.index + 1);
                assert!(first == 0 || first + PURGE_BEHIND <= last + 1, "{engine:?}: group {group} starts at {first}");
                assert_eq!(read_all(&mut log).await, entries(1, first..last + 1), "{engine:?}");
                assert!(saved_vote(&mut log).await.unwrap().leader_id.term > durable, "{engine:?}");
            }
        }
    }
}

/// Lets a child write until it has reported `reports` times, kills it, and returns the last index it reported for each
/// group.
fn run_and_kill(dir: &std::path::Path, engine: EngineKind, reports: usize) -> BTreeMap<u64, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_that_writes_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .env(CHILD_ENGINE, format!("{engine:?}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut reported = BTreeMap::new();
    let mut count = 0;
    for line in lines {
        let line = line.unwrap();
        let Some(report) = line.strip_prefix("durable ") else { continue };
        let (group, index) = report.split_once(' ').unwrap();
        reported.insert(group.parse().unwrap(), index.parse().unwrap());
        count += 1;
        if count == reports {
            // SIGKILL.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert_eq!(reported.len() as u64, CHILD_GROUPS);
    reported
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is started and killed by the test above"]
async fn child_that_writes_until_it_is_killed() {
    let dir = std::env::var_os(CHILD_DIR).expect("the parent sets the directory");
    let named = std::env::var(CHILD_ENGINE).expect("the parent sets the engine");
    let engine = *ENGINES.iter().find(|engine| format!("{engine:?}") == named).unwrap();
    let node = open(dir.as_ref(), &small(engine)).unwrap();
    let writers: Vec<_> = (1..=CHILD_GROUPS)
        .map(|group| {
            let mut log = node.group(GroupId(group));
            tokio::spawn(async move {
                for index in 0_u64.. {
                    log.save_vote(&vote(index + 1, group)).await.unwrap();
                    append(&mut log, entries(1, index..index + 1)).await;
                    report(group, index);
                    if let Some(upto) = index.checked_sub(PURGE_BEHIND) {
                        log.purge(log_id(1, upto)).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

fn report(group: u64, index: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "durable {group} {index}").unwrap();
    out.flush().unwrap();
}
