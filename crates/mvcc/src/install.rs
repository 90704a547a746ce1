//! Replacing and removing whole stores, so that a crash at any point leaves the old store or the new one.
//!
//! ```text
//! replace:  LIVE -> LIVE.old;  CHECKPOINT -> LIVE;  remove LIVE.old
//! remove:   LIVE -> LIVE.gone; remove LIVE.gone
//! ```
//!
//! Each arrow is a rename followed by an fsync of the parent. [`recover`] runs before every other operation on a
//! directory: `LIVE.old` without `LIVE` means that the new store never arrived, and the old one comes back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::format;

/// A point between two durable steps of [`replace`], where a crash can cut it short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The checkpoint's files are on disk.
    Synced,
    /// The old store has its other name; there is no store under the live name.
    OldAside,
    /// The new store has the live name.
    NewInPlace,
}

/// Completes what a crash cut short.
pub(crate) fn recover(live: &Path) -> Result<(), StoreError> {
    remove_tree(&sibling(live, "gone"))?;
    let old = sibling(live, "old");
    if !exists(&old)? {
        return Ok(());
    }
    if exists(live)? { remove_tree(&old) } else { rename(&old, live) }
}

/// Puts `checkpoint` in the place of `live`. `reached` is told of each step, and may cut the work short there.
pub(crate) fn replace(
    checkpoint: &Path,
    live: &Path,
    mut reached: impl FnMut(Step) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    recover(live)?;
    if format::check(checkpoint)? == format::Contents::Nothing {
        let message = "it holds no database".to_owned();
        return Err(StoreError::NotAStore { path: checkpoint.to_owned(), message });
    }
    sync_tree(checkpoint)?;
    reached(Step::Synced)?;
    let old = sibling(live, "old");
    if exists(live)? {
        rename(live, &old)?;
        reached(Step::OldAside)?;
    }
    rename(checkpoint, live)?;
    reached(Step::NewInPlace)?;
    remove_tree(&old)
}

/// Removes the store at `live`, if there is one.
pub(crate) fn remove(live: &Path) -> Result<(), StoreError> {
    recover(live)?;
    if exists(live)? {
        let gone = sibling(live, "gone");
        rename(live, &gone)?;
        remove_tree(&gone)?;
    }
    Ok(())
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| StoreError::io("syncing", dir, &e))
}

/// The directory a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sibling(live: &Path, suffix: &str) -> PathBuf {
    let mut name = live.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|e| StoreError::io("looking at", path, &e))
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| StoreError::io("renaming", from, &e))?;
    sync_dir(parent(to))?;
    if parent(from) == parent(to) { Ok(()) } else { sync_dir(parent(from)) }
}

fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("removing", path, &e)),
        _ => Ok(()),
    }
}

/// Makes the files of a flat directory durable.
fn sync_tree(dir: &Path) -> Result<(), StoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |e| StoreError::io("syncing", &path, &e)
    };
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        File::open(&path).and_then(|f| f.sync_all()).map_err(failed(&path))?;
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that passes for a store, with `name` in it.
    fn store(path: &Path, name: &str) {
        fs::create_dir(path).unwrap();
        fs::write(path.join("CURRENT"), name).unwrap();
        format::write(path).unwrap();
    }

    fn name_of(path: &Path) -> Option<String> {
        fs::read_to_string(path.join("CURRENT")).ok()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_replacement_cut_short_anywhere_recovers_to_the_old_store_or_the_new_one() {
        let table = [(Step::Synced, "old"), (Step::OldAside, "old"), (Step::NewInPlace, "new")];
        for (stop, expect) in table {
            let root = tempfile::tempdir().unwrap();
            let (live, checkpoint) = (root.path().join("live"), root.path().join("received"));
            store(&live, "old");
            store(&checkpoint, "new");
            let crash = StoreError::Engine { message: "crash".into() };
            let got = replace(&checkpoint, &live, |step| if step == stop { Err(crash.clone()) } else { Ok(()) });
            assert_eq!(got, Err(crash), "{stop:?}");
            recover(&live).unwrap();
            assert_eq!(name_of(&live).as_deref(), Some(expect), "{stop:?}");
            // And it can be done again, or is done.
            if expect == "old" {
                replace(&checkpoint, &live, |_| Ok(())).unwrap();
            }
            assert_eq!(name_of(&live).as_deref(), Some("new"));
            assert_eq!(names(root.path()), ["live"]);
        }
    }

    #[test]
    fn a_directory_that_is_no_store_replaces_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (live, checkpoint) = (root.path().join("live"), root.path().join("received"));
        store(&live, "old");
        fs::create_dir(&checkpoint).unwrap();
        assert!(matches!(replace(&checkpoint, &live, |_| Ok(())), Err(StoreError::NotAStore { .. })));
        assert_eq!(name_of(&live).as_deref(), Some("old"));
    }

    #[test]
    fn a_removal_cut_short_does_not_bring_the_store_back() {
        let root = tempfile::tempdir().unwrap();
        let live = root.path().join("live");
        store(&root.path().join("live.gone"), "old");
        recover(&live).unwrap();
        assert_eq!(names(root.path()), [""; 0]);
        store(&live, "x");
        remove(&live).unwrap();
        remove(&live).unwrap();
        assert_eq!(names(root.path()), [""; 0]);
    }
}
