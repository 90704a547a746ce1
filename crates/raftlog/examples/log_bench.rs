//! Compares the engines of the log store through [`NodeLog`], with every append made durable.
//!
//! `cargo run -p drover-raftlog --example log_bench [seconds per row] [directory]`
//!
//! The directory must be on a real disk: on tmpfs an fsync costs nothing.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_keys::GroupId;
use drover_raftlog::{EngineKind, GroupLog, LogOptions, NodeLog};
use drover_rafttypes::{CommandBytes, Entry, LogId, Payload, TypeConfig, decode_log_id};
use drover_wire::proto::storage::v1 as pb;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::TypeConfigExt;
use tokio::sync::Mutex;

const ENTRY_BYTES: usize = 256;
/// Entries of a group that are kept when it purges, and how often it does.
const KEEP: u64 = 10_000;
const PURGE_EVERY: u64 = 1_000;

const FILL_GROUPS: u64 = 16;
const FILL_ENTRIES: u64 = 1_000_000;
const FILL_APPEND: u64 = 300;

fn log_id(index: u64) -> LogId {
    decode_log_id(&pb::LogId { term: 1, index })
}

/// An entry that does not compress.
fn entry(index: u64) -> Entry {
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut command = Vec::with_capacity(ENTRY_BYTES);
    while command.len() < ENTRY_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        command.extend_from_slice(&state.to_le_bytes());
    }
    Entry { log_id: log_id(index), payload: Payload::Normal(CommandBytes(Bytes::from(command))) }
}

struct Group {
    log: GroupLog,
    next: u64,
}

impl Group {
    /// Appends one entry; the receiver tells when it is durable.
    async fn append(&mut self) -> impl Future<Output = ()> + use<> {
        let (tx, rx) = TypeConfig::oneshot();
        self.log.append([entry(self.next)], IOFlushed::signal(tx)).await.unwrap();
        self.next += 1;
        if self.next.is_multiple_of(PURGE_EVERY) && self.next > KEEP {
            self.log.purge(log_id(self.next - KEEP)).await.unwrap();
        }
        async move { rx.await.unwrap().unwrap() }
    }
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn disk_bytes(dir: &Path) -> u64 {
    let of = |item: std::fs::DirEntry| {
        let meta = item.metadata().unwrap();
        if meta.is_dir() { disk_bytes(&item.path()) } else { meta.len() }
    };
    std::fs::read_dir(dir).unwrap().map(|item| of(item.unwrap())).sum()
}

fn reopen(dir: &Path, engine: EngineKind) -> Duration {
    let started = Instant::now();
    let node = NodeLog::open(dir, options(engine)).unwrap();
    let took = started.elapsed();
    node.close().unwrap();
    took
}

fn options(engine: EngineKind) -> LogOptions {
    LogOptions { engine, ..LogOptions::default() }
}

async fn single_appends(dir: &Path, engine: EngineKind, groups: u64, writers: u64, time: Duration) {
    let node = NodeLog::open(dir, options(engine)).unwrap();
    let logs: Arc<Vec<Mutex<Group>>> =
        Arc::new((1..=groups).map(|id| Mutex::new(Group { log: node.group(GroupId(id)), next: 0 })).collect());
    let (started, cpu_before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let logs = logs.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut at = writer as usize;
                while started.elapsed() < time {
                    let begun = Instant::now();
                    let durable = logs[at % logs.len()].lock().await.append().await;
                    durable.await;
                    latencies.push(begun.elapsed());
                    at += 1;
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let (took, cpu) = (started.elapsed(), cpu().saturating_sub(cpu_before));
    let stats = node.stats();
    drop(logs);
    node.close().unwrap();
    latencies.sort_unstable();
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_micros();
    let appends = stats.appends as f64;
    let disk = disk_bytes(dir);
    println!(
        "| {engine:?} | {groups} | {writers} | {:.0} | {:.3} | {} | {} | {:.1} | {:.1} | {:.0} |",
        appends / took.as_secs_f64(),
        stats.fsyncs as f64 / appends,
        quantile(0.5),
        quantile(0.99),
        cpu.as_micros() as f64 / appends,
        disk as f64 / 1e6,
        reopen(dir, engine).as_secs_f64() * 1e3,
    );
}

async fn fill(dir: &Path, engine: EngineKind) {
    let node = NodeLog::open(dir, options(engine)).unwrap();
    let (started, cpu_before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (1..=FILL_GROUPS)
        .map(|id| {
            let mut log = node.group(GroupId(id));
            tokio::spawn(async move {
                let mut next = 0;
                while next < FILL_ENTRIES / FILL_GROUPS {
                    log.blocking_append((next..next + FILL_APPEND).map(entry)).await.unwrap();
                    next += FILL_APPEND;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (took, cpu) = (started.elapsed(), cpu().saturating_sub(cpu_before));
    let stats = node.stats();
    node.close().unwrap();
    println!(
        "| {engine:?} | {:.0} | {:.1} | {:.2} | {:.0} | {:.0} | {:.0} |",
        stats.entries as f64 / took.as_secs_f64(),
        stats.entry_bytes as f64 / took.as_secs_f64() / 1e6,
        cpu.as_micros() as f64 / stats.entries as f64,
        stats.entry_bytes as f64 / 1e6,
        disk_bytes(dir) as f64 / 1e6,
        reopen(dir, engine).as_secs_f64() * 1e3,
    );
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let time = Duration::from_secs_f64(args.next().map_or(3.0, |seconds| seconds.parse().unwrap()));
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let parent = tempfile::tempdir_in(parent).unwrap();
    let engines = [EngineKind::RaftEngine, EngineKind::RocksDb];
    let mut run = 0;
    let mut fresh = || {
        run += 1;
        parent.path().join(run.to_string())
    };
    println!(
        "| engine | groups | writers | appends/s | fsyncs/append | p50 µs | p99 µs | CPU µs/append | disk MB | reopen ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for writers in [1, 64] {
        for groups in [1, 4, 16, 64] {
            for engine in engines {
                single_appends(&fresh(), engine, groups, writers, time).await;
            }
        }
    }
    println!();
    println!("| engine | entries/s | MB/s | CPU µs/entry | log MB | disk MB | reopen ms |");
    println!("|---|---|---|---|---|---|---|");
    for engine in engines {
        fill(&fresh(), engine).await;
    }
}
