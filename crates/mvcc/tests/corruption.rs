//! Bad bytes on disk: an error that names the place, or the right answer; nothing else.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use drover_keys::Interval;
use drover_mvcc::{StoreError, Stored, inspect_checkpoint};
use support::*;

const KEYS: u32 = 200;
/// Bytes between flips, coprime to block and restart sizes.
const STRIDE: usize = 211;

fn body(n: u32) -> Stored {
    // Half of it does not compress, so that the file has some length.
    let noise: Vec<u8> = (0..24u32).map(|i| (n.wrapping_mul(2_654_435_761) >> (i % 25)) as u8).collect();
    value(noise)
}

/// A closed store, and its table files.
fn closed_store(root: &Path) -> (PathBuf, Vec<PathBuf>) {
    let env = env();
    let dir = root.join("live");
    let store = env.open(&dir).unwrap();
    for half in 0..2 {
        let mut batch = store.batch();
        for n in 0..KEYS {
            batch.put_version(SHARD, &key(n.to_be_bytes().to_vec()), ts(1 + half), &body(n)).unwrap();
        }
        batch.put_applied_state("applied".into());
        batch.commit().unwrap();
        store.flush().unwrap();
    }
    drop(store);
    let tables = files_ending(&dir, ".sst");
    (dir, tables)
}

/// A copy of a closed store in which `damage` was done to one file.
fn damaged(dir: &Path, file: &Path, damage: impl FnOnce(&Path)) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let copy = root.path().join("live");
    fs::create_dir(&copy).unwrap();
    for path in files_ending(dir, "") {
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    damage(&copy.join(file.file_name().unwrap()));
    (root, copy)
}

/// Opens the store and reads everything in every way. Fails on a wrong answer.
fn read_all(dir: &Path) -> Result<(), StoreError> {
    let store = env().open(dir)?;
    let snapshot = store.snapshot();
    assert_eq!(snapshot.applied_state()?.unwrap(), "applied");
    for n in 0..KEYS {
        let got = snapshot.newest(SHARD, &key(n.to_be_bytes().to_vec()))?;
        assert_eq!(got, Some((ts(2), body(n))), "key {n}");
    }
    for reverse in [false, true] {
        let mut rows = Vec::new();
        snapshot.scan(SHARD, &Interval::all(), ts(1), reverse, &mut |key, at, stored| {
            rows.push((key, at, stored));
            std::ops::ControlFlow::Continue(())
        })?;
        let mut expect: Vec<_> =
            (0..KEYS).map(|n| (Bytes::copy_from_slice(&n.to_be_bytes()), ts(1), body(n))).collect();
        if reverse {
            expect.reverse();
        }
        assert_eq!(rows, expect);
    }
    Ok(())
}

#[test]
fn a_flipped_byte_anywhere_in_a_table_is_found_or_does_no_harm() {
    let root = tempfile::tempdir().unwrap();
    let (dir, tables) = closed_store(root.path());
    let (mut found, mut tried) = (0, 0);
    for table in &tables {
        let good = fs::read(table).unwrap();
        for at in (0..good.len()).step_by(STRIDE) {
            let flip = |path: &Path| {
                let mut bad = good.clone();
                bad[at] ^= 0x40;
                fs::write(path, bad).unwrap();
            };
            tried += 1;
            let (_root, copy) = damaged(&dir, table, flip);
            let inspected = inspect_checkpoint(&copy);
            if let Err(error) = read_all(&copy) {
                found += 1;
                assert!(error.is_corruption(), "{} byte {at}: {error}", table.display());
                // Of faults found while opening RocksDB names the manifest that lists the table.
                let table = table.file_name().unwrap().to_str().unwrap();
                let named = [table, "MANIFEST-"].iter().any(|name| error.to_string().contains(name));
                assert!(named, "{error} names no file");
                assert!(inspected.is_err(), "the check of checkpoints overlooks what reads find: {error}");
            }
        }
    }
    assert!(found * 2 > tried, "of {tried} flips only {found} were found: the test reads too little");
    read_all(&dir).unwrap();
}

#[test]
fn tables_that_are_cut_or_gone_are_corruption() {
    let root = tempfile::tempdir().unwrap();
    let (dir, tables) = closed_store(root.path());
    for table in &tables {
        let good = fs::read(table).unwrap();
        let name = table.file_name().unwrap().to_str().unwrap();
        for keep in [Some(0), Some(1), Some(good.len() / 2), Some(good.len() - 1), None] {
            let (_root, copy) = damaged(&dir, table, |path| match keep {
                Some(keep) => fs::write(path, &good[..keep]).unwrap(),
                None => fs::remove_file(path).unwrap(),
            });
            for error in [inspect_checkpoint(&copy).unwrap_err(), read_all(&copy).unwrap_err()] {
                assert!(error.is_corruption() && error.to_string().contains(name), "{keep:?} bytes left: {error}");
            }
        }
    }
    read_all(&dir).unwrap();
}

#[test]
fn a_pointer_to_the_manifest_that_leads_nowhere_is_an_error_and_the_store_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let (dir, _) = closed_store(root.path());
    let current = dir.join("CURRENT");
    let good = fs::read(&current).unwrap();
    for bad in [Some(""), Some("x"), Some("MANIFEST-999999\n"), None] {
        let (_root, copy) = damaged(&dir, &current, |path| match bad {
            Some(bad) => fs::write(path, bad).unwrap(),
            None => fs::remove_file(path).unwrap(),
        });
        read_all(&copy).unwrap_err();
        fs::write(copy.join("CURRENT"), &good).unwrap();
        read_all(&copy).unwrap();
    }
}
