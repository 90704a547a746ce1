//! A micro-benchmark of one store: `cargo run -p drover-mvcc --example mvcc_bench [DIR]`.
//!
//! Keys of 16 bytes, values of 128 bytes, one thread. Prints microseconds per operation. Figures and the machine they
//! come from are in `docs/design/0001-storage-format.md`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use drover_hlc::Timestamp;
use drover_keys::{Interval, LogicalKey, ShardId};
use drover_mvcc::{GroupStore, RecordKind, StoreEnv, StoreEnvOptions, Stored};

const SHARD: ShardId = ShardId(1);
const KEYS: u64 = 200_000;
const READS: u64 = 200_000;
const VALUE_BYTES: usize = 128;
const HOT_VERSIONS: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let root = match std::env::args().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let env = StoreEnv::new(StoreEnvOptions::default())?;
    idle_groups(&env, root.path())?;
    memtable(&env, root.path())?;
    let store = env.open(&root.path().join("bench"))?;
    for batch_rows in [1, 10, 100, 1_000] {
        measure(&format!("blind puts, {batch_rows} a batch"), KEYS, || puts(&store, batch_rows, false))?;
    }
    measure("puts that read the newest version first, 100 a batch", KEYS, || puts(&store, 100, true))?;
    reads("before compaction", &store)?;
    let start = Instant::now();
    store.compact()?;
    println!("{:<58} {:>9.1} ms", "compaction", start.elapsed().as_secs_f64() * 1e3);
    reads("compacted, cached", &store)?;
    hot_key(&store)?;
    measure("digest, per row", 5 * KEYS + HOT_VERSIONS, || {
        let digest = store.snapshot().digest(&[], &[])?;
        println!("  {} rows", digest.rows);
        Ok(())
    })
}

type Outcome = Result<(), Box<dyn Error>>;

fn measure(what: &str, operations: u64, work: impl FnOnce() -> Outcome) -> Outcome {
    let start = Instant::now();
    work()?;
    println!("{what:<58} {:>9.2} µs each", start.elapsed().as_secs_f64() * 1e6 / operations as f64);
    Ok(())
}

fn key(n: u64) -> LogicalKey {
    LogicalKey::plain(format!("user{n:012}"))
}

/// Each number below [`KEYS`] once, in an order far from theirs, the same each time. The factor has no divisor in common
/// with [`KEYS`].
fn shuffled(n: u64) -> u64 {
    n * 104_729 % KEYS
}

fn puts(store: &Arc<GroupStore>, batch_rows: u64, read_first: bool) -> Outcome {
    let mut at = store.applied_state()?.map_or(0, |b| u64::from_be_bytes(b.as_ref().try_into().unwrap_or_default()));
    let value = Stored::Put { value: vec![7; VALUE_BYTES].into(), expire_at: None };
    for first in (0..KEYS).step_by(batch_rows as usize) {
        let mut batch = store.batch();
        for n in first..(first + batch_rows).min(KEYS) {
            at += 1;
            let key = key(shuffled(n));
            if read_first {
                batch.newest(SHARD, &key)?;
            }
            batch.put_version(SHARD, &key, Timestamp::from_raw(at), &value)?;
        }
        batch.put_applied_state(at.to_be_bytes().to_vec().into());
        batch.commit()?;
    }
    Ok(())
}

/// Reads of rows that were never flushed.
fn memtable(env: &StoreEnv, root: &Path) -> Outcome {
    let store = env.open(&root.join("memtable"))?;
    let mut batch = store.batch();
    let value = Stored::Put { value: vec![7; VALUE_BYTES].into(), expire_at: None };
    for n in 0..READS / 4 {
        batch.put_version(SHARD, &key(n), Timestamp::from_raw(1), &value)?;
    }
    batch.commit()?;
    let snapshot = store.snapshot();
    measure("memtable: point get, one snapshot", READS, || {
        for n in 0..READS {
            snapshot.visible(SHARD, &key(shuffled(n) / 4), Timestamp::MAX)?;
        }
        Ok(())
    })?;
    measure("memtable: point get, a snapshot each", READS, || {
        for n in 0..READS {
            store.snapshot().visible(SHARD, &key(shuffled(n) / 4), Timestamp::MAX)?;
        }
        Ok(())
    })?;
    measure("memtable: look-up of an absent record, a snapshot each", READS, || {
        for n in 0..READS {
            store.snapshot().record(SHARD, &n.to_be_bytes(), RecordKind::Idempotency, b"operation")?;
        }
        Ok(())
    })
}

fn reads(when: &str, store: &Arc<GroupStore>) -> Outcome {
    let snapshot = store.snapshot();
    for n in 0..KEYS {
        snapshot.visible(SHARD, &key(n), Timestamp::MAX)?;
    }
    measure(&format!("{when}: point get, one snapshot"), READS, || {
        for n in 0..READS {
            snapshot.visible(SHARD, &key(shuffled(n)), Timestamp::MAX)?;
        }
        Ok(())
    })?;
    measure(&format!("{when}: point get, a snapshot each"), READS, || {
        for n in 0..READS {
            store.snapshot().visible(SHARD, &key(shuffled(n)), Timestamp::MAX)?;
        }
        Ok(())
    })?;
    measure(&format!("{when}: get of an absent key, a snapshot each"), READS, || {
        for n in 0..READS {
            store.snapshot().visible(SHARD, &key(KEYS + n), Timestamp::MAX)?;
        }
        Ok(())
    })?;
    for reverse in [false, true] {
        measure(&format!("{when}: scan of all keys, reverse {reverse}, per key"), KEYS, || scan(store, reverse, KEYS))?;
    }
    Ok(())
}

fn scan(store: &Arc<GroupStore>, reverse: bool, expect: u64) -> Outcome {
    let mut rows = 0;
    store.snapshot().scan(SHARD, &Interval::all(), Timestamp::MAX, reverse, &mut |_, _, _| {
        rows += 1;
        ControlFlow::Continue(())
    })?;
    assert_eq!(rows, expect);
    Ok(())
}

fn hot_key(store: &Arc<GroupStore>) -> Outcome {
    let hot = LogicalKey::plain("hot");
    let mut batch = store.batch();
    for at in 1..=HOT_VERSIONS {
        batch.put_version(SHARD, &hot, Timestamp::from_raw(at), &Stored::Tombstone)?;
    }
    batch.commit()?;
    store.flush()?;
    let snapshot = store.snapshot();
    measure("one of 100,000 versions", READS, || {
        for n in 0..READS {
            snapshot.visible(SHARD, &hot, Timestamp::from_raw(shuffled(n) % HOT_VERSIONS))?;
        }
        Ok(())
    })
}

fn idle_groups(env: &StoreEnv, root: &Path) -> Outcome {
    const GROUPS: u32 = 8;
    let before = resident_kib()?;
    let start = Instant::now();
    let stores: Result<Vec<_>, _> = (0..GROUPS).map(|n| env.open(&root.join(format!("idle-{n}")))).collect();
    let stores = stores?;
    let open_ms = start.elapsed().as_secs_f64() * 1e3 / f64::from(GROUPS);
    let after = resident_kib()?;
    println!("{GROUPS} idle groups: {open_ms:.1} ms to create each, {} KiB resident, {before} before", after - before);
    drop(stores);
    Ok(())
}

fn resident_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse()?)
}
