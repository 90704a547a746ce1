//! What a start has made so far, which is taken back if it is refused.

use std::path::{Path, PathBuf};

use anyhow::Context;
use drover_server::datadir::DirLock;
use drover_server::durable;

/// Files and directories that were not there before. Dropping it removes them again, unless they are to be kept.
#[derive(Debug, Default)]
pub struct Made {
    /// In the order in which they were made.
    paths: Vec<PathBuf>,
    /// Given up after everything is removed: nobody else comes in between.
    lock: Option<DirLock>,
}

impl Made {
    /// Makes a directory and those above it that are missing.
    ///
    /// # Errors
    /// If that does not succeed.
    pub fn dir(&mut self, dir: &Path) -> anyhow::Result<()> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|path| is_missing(path)).collect();
        self.paths.extend(missing.iter().rev().map(|path| path.to_path_buf()));
        durable::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
    }

    /// Writes a file that was not there.
    ///
    /// # Errors
    /// If that does not succeed.
    pub fn file(&mut self, path: &Path, text: &str) -> anyhow::Result<()> {
        self.paths.push(path.to_owned());
        durable::write(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Locks a directory until this is dropped.
    ///
    /// # Errors
    /// If another process holds it.
    pub fn lock(&mut self, dir: &Path) -> anyhow::Result<()> {
        let file = dir.join(DirLock::FILE);
        let missing = is_missing(&file);
        self.lock = Some(DirLock::acquire(dir)?);
        self.paths.extend(missing.then_some(file));
        Ok(())
    }

    /// Everything stays from here on.
    pub fn keep(&mut self) {
        self.paths.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.paths.drain(..).rev() {
            // Something that somebody else has put into a directory keeps it.
            let _ = if path.is_dir() { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) };
        }
    }
}

fn is_missing(path: &Path) -> bool {
    !path.as_os_str().is_empty() && path.symlink_metadata().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(dir: &Path) -> Vec<String> {
        let mut found: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(Result::unwrap)
            .flat_map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                let below = if entry.path().is_dir() { tree(&entry.path()) } else { Vec::new() };
                below.into_iter().map(|below| format!("{name}/{below}")).chain([name.clone()]).collect::<Vec<_>>()
            })
            .collect();
        found.sort();
        found
    }

    /// A start in `dir/a/b`, where `dir/a` is there already with a file of somebody else.
    fn make(dir: &Path, made: &mut Made) {
        let home = dir.join("a/b/c");
        made.dir(&home).unwrap();
        made.dir(&home).unwrap();
        made.lock(&home).unwrap();
        made.file(&home.join("plan"), "text").unwrap();
    }

    #[test]
    fn what_was_made_is_gone_unless_it_is_kept_and_nothing_else_is() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("a")).unwrap();
        std::fs::write(temp.path().join("a/mine"), "").unwrap();
        let before = tree(temp.path());
        let mut made = Made::default();
        make(temp.path(), &mut made);
        assert_eq!(tree(temp.path()), ["a", "a/b", "a/b/c", "a/b/c/LOCK", "a/b/c/plan", "a/mine"]);
        drop(made);
        assert_eq!(tree(temp.path()), before);

        // What somebody else has put there meanwhile stays.
        let mut made = Made::default();
        make(temp.path(), &mut made);
        std::fs::write(temp.path().join("a/b/theirs"), "").unwrap();
        drop(made);
        assert_eq!(tree(temp.path()), ["a", "a/b", "a/b/theirs", "a/mine"]);

        let mut made = Made::default();
        make(temp.path(), &mut made);
        made.keep();
        drop(made);
        assert_eq!(tree(temp.path()), ["a", "a/b", "a/b/c", "a/b/c/LOCK", "a/b/c/plan", "a/b/theirs", "a/mine"]);
    }

    #[test]
    fn a_lock_that_another_process_holds_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let held = DirLock::acquire(temp.path()).unwrap();
        let mut made = Made::default();
        assert!(made.lock(temp.path()).is_err());
        drop(made);
        assert_eq!(tree(temp.path()), ["LOCK"]);
        drop(held);
    }
}
