use std::path::{Path, PathBuf};

/// A folder with the files of one snapshot, removed when dropped.
#[derive(Debug)]
pub struct SnapshotDir {
    path: PathBuf,
}

impl SnapshotDir {
    /// Takes over `path`, which exists and belongs to nobody else.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where the files are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        // A folder left behind wastes space and is removed at the next start; there is nobody to tell here.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
