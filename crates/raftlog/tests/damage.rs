//! Damaged files, and a disk that is full: errors that say where, no panic, no wrong answer.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use drover_keys::GroupId;
use drover_raftlog::{EngineKind, LogError, LogOptions, NodeLog};
use drover_rafttypes::{Entry, Vote};
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};

const GROUPS: u64 = 2;
const CHILD_DIR: &str = "RAFTLOG_TEST_DIR";

type Contents = Vec<(Option<Vote>, Vec<Entry>)>;

/// Writes `rounds` rounds of a vote and an append to each group, and returns a copy of the files as a kill would leave
/// them, with the contents before the first and after each batch.
async fn history(options: &LogOptions, rounds: u64) -> (tempfile::TempDir, Vec<Contents>) {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path(), options).unwrap();
    let mut now: Contents = vec![(None, Vec::new()); GROUPS as usize];
    let mut after = vec![now.clone()];
    for round in 0..rounds {
        for group in 1..=GROUPS {
            let mut log = node.group(GroupId(group));
            log.save_vote(&vote(round + 1, group)).await.unwrap();
            now[group as usize - 1].0 = Some(vote(round + 1, group));
            after.push(now.clone());
            append(&mut log, entries(group, round * 3..round * 3 + 3)).await;
            now[group as usize - 1].1.extend(entries(group, round * 3..round * 3 + 3));
            after.push(now.clone());
        }
    }
    let left_behind = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), left_behind.path());
    (left_behind, after)
}

async fn contents(node: &NodeLog) -> Result<Contents, std::io::Error> {
    let mut found = Vec::new();
    for group in 1..=GROUPS {
        let mut reader = node.group(GroupId(group)).get_log_reader().await;
        found.push((reader.read_vote().await?, reader.try_get_log_entries(..).await?));
    }
    Ok(found)
}

/// What a store with one damaged file turned out to be.
#[derive(Debug, PartialEq)]
enum Found {
    /// An error, at open or at the first read.
    Refused(String),
    /// The contents after this many batches.
    After(usize),
}

async fn damage(
    original: &Path,
    options: &LogOptions,
    after: &[Contents],
    file: &Path,
    damage: impl Fn(&mut Vec<u8>),
) -> Found {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(original, dir.path());
    let target = dir.path().join(file);
    let mut bytes = std::fs::read(&target).unwrap();
    damage(&mut bytes);
    std::fs::write(&target, bytes).unwrap();
    let node = match open(dir.path(), options) {
        Ok(node) => node,
        Err(error) => return Found::Refused(error.to_string()),
    };
    match contents(&node).await {
        Ok(found) => {
            let batches = after.iter().position(|contents| *contents == found);
            let outline = || found.iter().map(|(vote, log)| (vote.map(|v| v.leader_id.term), log.len()));
            let wrong = || panic!("{}: it was never like this: {:?}", file.display(), outline().collect::<Vec<_>>());
            Found::After(batches.unwrap_or_else(wrong))
        }
        Err(error) => Found::Refused(error.to_string()),
    }
}

fn log_files(dir: &Path, suffixes: &[&str]) -> Vec<(PathBuf, u64)> {
    let ours = |path: &Path| suffixes.iter().any(|suffix| path.to_string_lossy().ends_with(suffix));
    let all = files(dir).into_iter().filter(|(path, bytes)| ours(path) && *bytes > 0);
    all.map(|(path, bytes)| (path.strip_prefix(dir).unwrap().to_owned(), bytes)).collect()
}

#[tokio::test]
async fn raft_engine_refuses_flipped_bytes_wherever_they_lie() {
    let options = LogOptions { reclaim_bytes: 1 << 20, file_bytes: 4 << 10, ..small(EngineKind::RaftEngine) };
    let (dir, after) = history(&options, 16).await;
    let files = log_files(dir.path(), &[".raftlog"]);
    assert!(files.len() > 1, "{files:?}");
    let mut refused = 0;
    for (file, bytes) in files {
        for at in (0..bytes as usize).step_by(23) {
            match damage(dir.path(), &options, &after, &file, |bytes| bytes[at] ^= 0x04).await {
                Found::Refused(error) => {
                    assert!(error.contains("log"), "{error}");
                    refused += 1;
                }
                // It lies in preallocated space, behind everything.
                Found::After(batches) => assert!(
                    batches + 1 == after.len(),
                    "{}: byte {at}: silently back to batch {batches} of {}",
                    file.display(),
                    after.len() - 1
                ),
            }
        }
    }
    assert!(refused > 100, "only {refused} damages were noticed");
}

#[tokio::test]
async fn the_error_of_a_flipped_byte_names_file_and_offset() {
    let options = LogOptions { engine: EngineKind::RaftEngine, ..LogOptions::default() };
    let (dir, after) = history(&options, 4).await;
    let (file, _) = log_files(dir.path(), &[".raftlog"]).remove(0);
    let found = damage(dir.path(), &options, &after, &file, |bytes| bytes[300] ^= 1).await;
    let Found::Refused(error) = found else { panic!("{found:?}") };
    assert!(error.contains("0000000000000001.raftlog at byte "), "{error}");
    assert!(error.contains("nothing was changed"), "{error}");
}

#[tokio::test]
async fn a_file_cut_off_is_refused_unless_nothing_is_missing() {
    for engine in ENGINES {
        let options = LogOptions { reclaim_bytes: 1 << 20, file_bytes: 4 << 10, ..small(engine) };
        let (dir, after) = history(&options, 16).await;
        let (mut refused, mut whole) = (0, 0);
        for (file, bytes) in log_files(dir.path(), &[".raftlog", ".log"]) {
            for len in (1..bytes as usize).step_by(1 + bytes as usize / 25) {
                match damage(dir.path(), &options, &after, &file, |bytes| bytes.truncate(len)).await {
                    Found::Refused(_) => refused += 1,
                    // Only preallocated space was cut off.
                    Found::After(batches) => {
                        assert_eq!(batches + 1, after.len(), "{engine:?}: {len} bytes of {}", file.display());
                        whole += 1;
                    }
                }
            }
        }
        assert!(refused > whole, "{engine:?}: {refused} refused, {whole} whole");
    }
}

#[tokio::test]
async fn the_error_of_the_newest_file_that_was_cut_off_names_file_and_offset() {
    let options = LogOptions { engine: EngineKind::RaftEngine, ..LogOptions::default() };
    let (dir, after) = history(&options, 4).await;
    let (file, _) = log_files(dir.path(), &[".raftlog"]).remove(0);
    let found = damage(dir.path(), &options, &after, &file, |content| content.truncate(500)).await;
    let Found::Refused(error) = found else { panic!("{found:?}") };
    assert!(error.contains("0000000000000001.raftlog at byte "), "{error}");
    assert!(error.contains(" with batch ") && error.contains(", and batch 16 was durable"), "{error}");
    assert!(error.contains("nothing that can be read was changed"), "{error}");
}

/// Writes until what one idle group has in old files was rewritten.
#[tokio::test]
async fn a_rewritten_file_cut_off_or_damaged_is_refused_unless_nothing_is_missing() {
    let options = small(EngineKind::RaftEngine);
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path(), &options).unwrap();
    let (mut idle, mut busy) = (node.group(GroupId(1)), node.group(GroupId(2)));
    idle.save_vote(&vote(9, 1)).await.unwrap();
    append(&mut idle, entries(1, 0..40)).await;
    let rewritten = || log_files(dir.path(), &[".rewrite"]).pop();
    let mut next = 0;
    // More than its header.
    while rewritten().is_none_or(|(_, bytes)| bytes < 500) {
        append(&mut busy, entries(2, next..next + 50)).await;
        next += 50;
        busy.purge(log_id(2, next - 10)).await.unwrap();
        assert!(next < 1_000_000, "nothing is ever rewritten");
    }
    drop((idle, busy));
    // Ends what is being rewritten.
    node.close().unwrap();
    let after = {
        let node = open(dir.path(), &options).unwrap();
        vec![contents(&node).await.unwrap()]
    };
    let (file, bytes) = rewritten().unwrap();
    let (mut refused, mut whole) = (0, 0);
    for at in (0..bytes as usize).step_by(1 + bytes as usize / 60) {
        for flip in [false, true] {
            let harm = |content: &mut Vec<u8>| if flip { content[at] ^= 0x20 } else { content.truncate(at) };
            match damage(dir.path(), &options, &after, &file, harm).await {
                Found::Refused(error) => {
                    assert!(error.contains(".rewrite"), "{error}");
                    refused += 1;
                }
                Found::After(_) => whole += 1,
            }
        }
    }
    assert!(refused > whole, "{refused} refused, {whole} whole");
}

#[tokio::test]
async fn a_log_without_its_note_is_refused_and_so_is_a_damaged_note() {
    for engine in ENGINES {
        let options = small(engine);
        let (dir, after) = history(&options, 2).await;
        let note = log_files(dir.path(), &["DURABLE"]).remove(0).0;
        let found = damage(dir.path(), &options, &after, &note, |bytes| bytes.truncate(100)).await;
        assert!(matches!(&found, Found::Refused(error) if error.contains("DURABLE: damaged")), "{engine:?}: {found:?}");
        std::fs::remove_file(dir.path().join(&note)).unwrap();
        let error = open(dir.path(), &options).unwrap_err().to_string();
        assert!(error.contains("is missing beside it"), "{engine:?}: {error}");
    }
}

#[tokio::test]
async fn the_error_of_an_older_file_that_was_cut_off_names_file_and_offset() {
    let kind = EngineKind::RaftEngine;
    let options = LogOptions { reclaim_bytes: 1 << 20, file_bytes: 4 << 10, ..small(kind) };
    let (dir, after) = history(&options, 16).await;
    let files = log_files(dir.path(), &[".raftlog"]);
    assert!(files.len() > 1, "{files:?}");
    let (file, bytes) = &files[0];
    let found = damage(dir.path(), &options, &after, file, |content| content.truncate(*bytes as usize / 2)).await;
    let Found::Refused(error) = found else { panic!("{found:?}") };
    assert!(error.contains("0000000000000001.raftlog at byte "), "{error}");
}

#[tokio::test]
async fn rocksdb_never_gives_a_wrong_answer_for_a_flipped_byte_in_its_write_ahead_log() {
    let options = small(EngineKind::RocksDb);
    let (dir, after) = history(&options, 8).await;
    for (file, bytes) in log_files(dir.path(), &[".log"]) {
        for at in (0..bytes as usize).step_by(1 + bytes as usize / 25) {
            // The contents of some earlier batch, or an error: what `damage` checks.
            damage(dir.path(), &options, &after, &file, |bytes| bytes[at] ^= 0x04).await;
        }
    }
}

/// Its recovery takes that for a torn write, one of the reasons why it is not the default; what was noted tells better.
#[tokio::test]
async fn a_damaged_length_in_the_write_ahead_log_of_rocksdb_is_refused() {
    let options = small(EngineKind::RocksDb);
    let (dir, after) = history(&options, 8).await;
    let (wal, _) = log_files(dir.path(), &[".log"]).remove(0);
    // The high byte of the first record's length, behind its checksum.
    let found = damage(dir.path(), &options, &after, &wal, |bytes| bytes[5] ^= 0x40).await;
    assert!(matches!(&found, Found::Refused(error) if error.contains("with batch 0")), "{found:?}");
}

/// The child may write files of this size only, and is not killed for trying more: to it the disk is full.
const LIMIT_KIB: u32 = 64;

#[test]
fn a_full_disk_is_an_error_that_harms_nothing_durable() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("trap '' XFSZ; ulimit -f {LIMIT_KIB}; exec \"$0\" \"$@\"");
        // Through pipes: the limit is on files, and what the tests print may go into one.
        let child = Command::new("bash")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .args(["child_that_fills_its_disk", "--exact", "--ignored", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .env("RAFTLOG_TEST_ENGINE", format!("{engine:?}"))
            .process_group(0)
            .output()
            .unwrap();
        assert!(child.status.success(), "{engine:?}: {child:?}");
        let durable: u64 = std::fs::read_to_string(dir.path().join("durable")).unwrap().parse().unwrap();
        assert!(durable > 0, "{engine:?}");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let options = LogOptions { engine, ..LogOptions::default() };
            let node = open(dir.path(), &options).unwrap();
            let mut log = node.group(GroupId(1));
            let found = read_all(&mut log).await;
            assert!(found.len() as u64 >= durable, "{engine:?}: {} entries of {durable}", found.len());
            assert_eq!(found, entries(1, 0..found.len() as u64), "{engine:?}");
            append(&mut log, entries(1, found.len() as u64..found.len() as u64 + 1)).await;
        });
    }
}

#[tokio::test]
#[ignore = "is started by the test above, with a limit on file sizes"]
async fn child_that_fills_its_disk() {
    let dir = PathBuf::from(std::env::var_os(CHILD_DIR).expect("the parent sets the directory"));
    let named = std::env::var("RAFTLOG_TEST_ENGINE").expect("the parent sets the engine");
    let engine = *ENGINES.iter().find(|engine| format!("{engine:?}") == named).unwrap();
    let node = open(&dir, &LogOptions { engine, ..LogOptions::default() }).unwrap();
    let mut log = node.group(GroupId(1));
    let mut durable = 0_u64;
    while log.blocking_append(entries(1, durable..durable + 1)).await.is_ok() {
        durable += 1;
        assert!(durable < 10_000, "the disk never fills");
    }
    let failure = node.failure().unwrap();
    assert!(matches!(*failure, LogError::DiskFull { .. }), "{failure:?}");
    // What the operating system said: here it is the limit on files.
    assert!(failure.to_string().contains("File too large"), "{failure}");
    std::fs::write(dir.join("durable"), durable.to_string()).unwrap();
}
