//! The folder of a group replica, and which store in it is the live one.
//!
//! ```text
//! ACTIVE            version of this file, 1; number of the live store, 0 before there is one; XXH3 (64 bits) of what stands before
//! store-N/          a store; every other one than the live one is left over and removed at start
//! snapshots/N/      checkpoints being sent; all removed at start
//! ```
//!
//! A received snapshot becomes `store-(N+1)` first; replacing `ACTIVE` by a rename is the moment at which it counts. A
//! crash before leaves the old store live, a crash after the new one. Nothing is removed before it is certain that what `ACTIVE`
//! names is there: a damaged or missing file must not cost the store itself.

#![expect(clippy::disallowed_methods, reason = "the folder is what this is about; apply never looks at it")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drover_mvcc::{GroupStore, StoreEnv};
use xxhash_rust::xxh3::xxh3_64;

const ACTIVE: &str = "ACTIVE";
const SNAPSHOTS: &str = "snapshots";
const STORE_PREFIX: &str = "store-";
const VERSION: &str = "1";
/// In place of the number of a store that is yet to be made.
const NONE: u64 = 0;
/// The store of a replica that never installed a snapshot.
const FIRST: u64 = 1;

/// One open store and its folder. The folder is removed after the last user of a retired store is gone.
pub struct StoreHome {
    /// `None` only while dropping.
    store: Option<Arc<GroupStore>>,
    env: StoreEnv,
    dir: PathBuf,
    number: u64,
    retired: AtomicBool,
}

impl StoreHome {
    /// The store.
    pub fn store(&self) -> &Arc<GroupStore> {
        self.store.as_ref().expect("the store is taken out in drop only")
    }

    /// Says that another store is live now.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

impl Drop for StoreHome {
    fn drop(&mut self) {
        drop(self.store.take());
        if self.retired.load(Ordering::Acquire)
            && let Err(error) = self.env.destroy(&self.dir)
        {
            let dir = self.dir.display();
            tracing::warn!(%dir, %error, "a replaced store was not removed; the next start will try again");
        }
    }
}

/// The folder of a group replica.
pub struct GroupDir {
    env: StoreEnv,
    root: PathBuf,
    next_snapshot: AtomicU64,
}

impl GroupDir {
    /// Opens the folder, creating it if need be, removes what is left over, and opens the live store.
    ///
    /// # Errors
    /// If the file system or the store fails, `ACTIVE` is damaged, or it or the store that it names is missing. Nothing was changed
    /// in the last two cases.
    pub fn open(env: StoreEnv, root: &Path) -> io::Result<(Self, Arc<StoreHome>)> {
        fs::create_dir_all(root)?;
        let dir = Self { env, root: root.to_owned(), next_snapshot: AtomicU64::new(1) };
        let rebuild = "nothing was changed, replace this replica: drover group remove-replica, then add-replica";
        let number = match dir.active()? {
            Some(number) if number == NONE || dir.store_path(number).is_dir() => number,
            Some(number) => {
                let why = format!("{} is missing; {rebuild}", dir.store_path(number).display());
                return Err(io::Error::new(io::ErrorKind::NotFound, why));
            }
            None if dir.stores()?.is_empty() => {
                dir.activate(NONE)?;
                NONE
            }
            None => {
                let why = format!("{} is missing beside a store; {rebuild}", dir.root.join(ACTIVE).display());
                return Err(io::Error::new(io::ErrorKind::NotFound, why));
            }
        };
        dir.remove_leftovers(number)?;
        if number != NONE {
            let home = dir.open_store(number)?;
            return Ok((dir, home));
        }
        let home = dir.open_store(FIRST)?;
        dir.activate(FIRST)?;
        Ok((dir, home))
    }

    /// A path for one checkpoint, on the same file system as the store. Nothing is there yet.
    pub fn snapshot_path(&self) -> PathBuf {
        let number = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
        self.root.join(SNAPSHOTS).join(number.to_string())
    }

    /// Makes a checked checkpoint the live store, durably, and opens it. `live` stays usable until its last user is
    /// gone.
    ///
    /// # Errors
    /// If the file system or the store fails. The caller must stop then: which store is live is decided at the next
    /// start, and both are complete.
    pub fn install(&self, checkpoint: &Path, live: &StoreHome) -> io::Result<Arc<StoreHome>> {
        let number = live.number + 1;
        let path = self.store_path(number);
        self.env.destroy(&path).map_err(io::Error::other)?;
        self.env.install(checkpoint, &path).map_err(io::Error::other)?;
        let home = self.open_store(number)?;
        // Should this fail, nobody knows which store is live after a restart: both folders stay.
        self.activate(number)?;
        live.retire();
        Ok(home)
    }

    fn open_store(&self, number: u64) -> io::Result<Arc<StoreHome>> {
        let dir = self.store_path(number);
        let store = self.env.open(&dir).map_err(io::Error::other)?;
        let env = self.env.clone();
        Ok(Arc::new(StoreHome { store: Some(store), env, dir, number, retired: AtomicBool::new(false) }))
    }

    fn store_path(&self, number: u64) -> PathBuf {
        self.root.join(format!("{STORE_PREFIX}{number}"))
    }

    fn active(&self) -> io::Result<Option<u64>> {
        let path = self.root.join(ACTIVE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        parse_active(&bytes).map(Some).ok_or_else(|| {
            let text = String::from_utf8_lossy(&bytes);
            let why = format!(
                "{} is damaged or of a newer version: it holds {text:?}; nothing was changed, replace this replica: drover group remove-replica, \
                 then add-replica",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }

    fn activate(&self, number: u64) -> io::Result<()> {
        let draft = self.root.join(format!("{ACTIVE}.new"));
        let mut file = File::create(&draft)?;
        file.write_all(render_active(number).as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, self.root.join(ACTIVE))?;
        File::open(&self.root)?.sync_all()
    }

    fn remove_leftovers(&self, live: u64) -> io::Result<()> {
        let snapshots = self.root.join(SNAPSHOTS);
        match fs::remove_dir_all(&snapshots) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&snapshots)?,
        }
        for number in self.stores()?.into_iter().filter(|number| *number != live) {
            self.env.destroy(&self.store_path(number)).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// The numbers of the stores that are there, whole or in part.
    fn stores(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            // A suffix marks what an interrupted removal left of a store.
            let number = name.to_str().and_then(|name| name.strip_prefix(STORE_PREFIX)?.split('.').next());
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        Ok(numbers)
    }
}

/// The number in an `ACTIVE` file.
pub(crate) fn parse_active(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number = text.strip_prefix(VERSION)?.strip_prefix(' ')?.split(' ').next()?.parse().ok()?;
    (text == render_active(number)).then_some(number)
}

/// The content of an `ACTIVE` file.
pub(crate) fn render_active(number: u64) -> String {
    let content = format!("{VERSION} {number}");
    let checksum = xxh3_64(content.as_bytes());
    format!("{content} {checksum:016x}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes_of_active() {
        for (number, golden) in [
            (NONE, "1 0 4a083f0a36828e44\n"),
            (FIRST, "1 1 6b3259cebf5537e1\n"),
            (u64::MAX, "1 18446744073709551615 8d69d690c74817c0\n"),
        ] {
            assert_eq!(render_active(number), golden);
            assert_eq!(parse_active(golden.as_bytes()), Some(number));
        }
    }

    #[test]
    fn what_is_not_an_active_file_is_not_taken_for_one() {
        let newer = render_active(7).replacen('1', "2", 1);
        for text in ["", "\n", "7\n", "1 7\n", "1 7 0000000000000000\n", "1 seven 0\n", &newer] {
            assert_eq!(parse_active(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_survive_writing_and_reading(number: u64) {
            prop_assert_eq!(parse_active(render_active(number).as_bytes()), Some(number));
        }

        #[test]
        fn a_flipped_bit_or_a_cut_is_noticed(number: u64, at: prop::sample::Index, bit in 0..8_u32) {
            let mut bytes = render_active(number).into_bytes();
            let at = at.index(bytes.len());
            prop_assert_eq!(parse_active(&bytes[..at]), None);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(parse_active(&bytes), None);
        }
    }
}
