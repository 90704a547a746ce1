//! The folder of a group replica, and which store in it is the live one.
//!
//! ```text
//! ACTIVE            number of the live store, decimal; absent: 1
//! store-N/          a store; every other one than the live one is left over and removed at start
//! snapshots/N/      checkpoints being sent; all removed at start
//! ```
//!
//! A received snapshot becomes `store-(N+1)` first; replacing `ACTIVE` by a rename is the moment at which it counts. A
//! crash before leaves the old store live, a crash after the new one.

#![expect(clippy::disallowed_methods, reason = "the folder is what this is about; apply never looks at it")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drover_mvcc::{GroupStore, StoreEnv};

const ACTIVE: &str = "ACTIVE";
const SNAPSHOTS: &str = "snapshots";
const STORE_PREFIX: &str = "store-";
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
    /// If the file system or the store fails, or `ACTIVE` is not a number.
    pub fn open(env: StoreEnv, root: &Path) -> io::Result<(Self, Arc<StoreHome>)> {
        fs::create_dir_all(root)?;
        let dir = Self { env, root: root.to_owned(), next_snapshot: AtomicU64::new(1) };
        let number = dir.active()?;
        dir.remove_leftovers(number.unwrap_or(FIRST))?;
        if let Some(number) = number
            && !dir.store_path(number).is_dir()
        {
            let why = format!("{} is missing; rebuild this replica from another one", dir.store_path(number).display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let home = dir.open_store(number.unwrap_or(FIRST))?;
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
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        parse_active(&text).map(Some).ok_or_else(|| {
            let why = format!("{} holds {text:?}, which is not a number; nothing was changed", path.display());
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
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            // A suffix marks what an interrupted removal left of a store.
            let number = name.to_str().and_then(|name| name.strip_prefix(STORE_PREFIX)?.split('.').next());
            if let Some(number) = number.and_then(|n| n.parse().ok()).filter(|&number: &u64| number != live) {
                self.env.destroy(&self.store_path(number)).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }
}

/// The number in an `ACTIVE` file.
pub(crate) fn parse_active(text: &str) -> Option<u64> {
    text.trim_end().parse().ok()
}

/// The content of an `ACTIVE` file.
pub(crate) fn render_active(number: u64) -> String {
    format!("{number}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_active() {
        for (number, golden) in [(1, "1\n"), (42, "42\n"), (u64::MAX, "18446744073709551615\n")] {
            assert_eq!(render_active(number), golden);
            assert_eq!(parse_active(golden), Some(number));
        }
        // As somebody may have written it by hand.
        assert_eq!(parse_active("7"), Some(7));
    }

    #[test]
    fn what_is_not_a_number_is_not_taken_for_one() {
        for text in ["", "\n", "seven", "-1\n", "1 2\n", " 1\n", "18446744073709551616\n"] {
            assert_eq!(parse_active(text), None, "{text:?}");
        }
    }
}
