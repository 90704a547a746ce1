//! What the tests of the log store share. Each test binary uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use drover_keys::GroupId;
use drover_raftlog::{EngineKind, GroupLog, LogError, LogOptions, NodeLog};
use drover_rafttypes::{CommandBytes, Entry, LogId, Payload, TypeConfig, Vote, decode_log_id};
use drover_wire::proto::storage::v1 as pb;
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};

pub const ENGINES: [EngineKind; 2] = [EngineKind::RaftEngine, EngineKind::RocksDb];

/// Small files and no cache to speak of, so that rotation, reclaiming and reads from disk happen all the time.
pub fn small(engine: EngineKind) -> LogOptions {
    LogOptions {
        engine,
        cache_bytes_per_group: 256,
        read_bytes: 1 << 10,
        file_bytes: 8 << 10,
        reclaim_bytes: 16 << 10,
        ..LogOptions::default()
    }
}

pub fn open(dir: &Path, options: &LogOptions) -> Result<NodeLog, LogError> {
    NodeLog::open(&dir.join("log"), options.clone())
}

pub fn log_id(term: u64, index: u64) -> LogId {
    decode_log_id(&pb::LogId { term, index })
}

/// An entry whose content tells its term and index, of about `bytes` bytes.
pub fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let mut command = format!("{term}-{index}-").into_bytes();
    command.resize(command.len().max(bytes), b'.');
    Entry { log_id: log_id(term, index), payload: Payload::Normal(CommandBytes(Bytes::from(command))) }
}

pub fn entries(term: u64, range: Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(term, index, 64)).collect()
}

pub fn vote(term: u64, node: u64) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for: node }, committed: false }
}

/// Appends and waits until it is durable.
pub async fn append(log: &mut GroupLog, entries: Vec<Entry>) {
    log.blocking_append(entries).await.expect("the append is durable");
}

pub async fn read(log: &mut GroupLog, range: Range<u64>) -> Vec<Entry> {
    log.get_log_reader().await.try_get_log_entries(range).await.expect("entries can be read")
}

pub async fn read_all(log: &mut GroupLog) -> Vec<Entry> {
    read(log, 0..u64::MAX).await
}

/// First purged and last log id.
pub async fn ends(log: &mut GroupLog) -> (Option<LogId>, Option<LogId>) {
    let state: openraft::storage::LogState<TypeConfig> = log.get_log_state().await.expect("the state can be read");
    (state.last_purged_log_id, state.last_log_id)
}

pub async fn saved_vote(log: &mut GroupLog) -> Option<Vote> {
    log.get_log_reader().await.read_vote().await.expect("the vote can be read")
}

/// Waits until everything issued before for any group is durable.
pub async fn settle(node: &NodeLog) {
    node.group(GroupId(u64::MAX)).save_vote(&vote(1, 1)).await.expect("the store works");
}

/// What a killed process would leave behind: the files as they are at one moment. The engines may be moving files
/// about in the background, so it copies until nothing has changed meanwhile.
pub fn copy_dir(from: &Path, to: &Path) {
    loop {
        let before = listing(from);
        std::fs::remove_dir_all(to).or_else(ignore_missing).unwrap();
        std::fs::create_dir_all(to).unwrap();
        for (path, ..) in &before {
            let target = to.join(path.strip_prefix(from).unwrap());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(path, target).map(drop).or_else(ignore_missing).unwrap();
        }
        if listing(from) == before {
            return;
        }
    }
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn listing(dir: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        match path.metadata() {
            Ok(meta) if meta.is_dir() => found.extend(listing(&path)),
            Ok(meta) => found.push((path, meta.len(), meta.modified().unwrap())),
            Err(error) => ignore_missing(error).unwrap(),
        }
    }
    found.sort();
    found
}

/// All files below `dir`, with their sizes.
pub fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    listing(dir).into_iter().map(|(path, bytes, _)| (path, bytes)).collect()
}
