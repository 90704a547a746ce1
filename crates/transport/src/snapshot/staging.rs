use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::manifest::{Content, ManifestFile, checksum};

const CONTENT: &str = "content-";
const INSTALL: &str = "install-";

/// Why what was received cannot be installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StagingError {
    /// The disk failed.
    #[error("the staging folder cannot be used: {0}")]
    Io(#[from] io::Error),
    /// A file is not what was offered. It is removed, and will be sent anew.
    #[error("{0} does not have the content that was offered; it will be sent again")]
    Damaged(PathBuf),
    /// A file has not arrived as a whole.
    #[error("{0} has not arrived completely")]
    Incomplete(PathBuf),
}

/// The folder in which the snapshots of one group arrive. Everything blocks.
#[derive(Debug)]
pub(super) struct Staging {
    dir: PathBuf,
    /// Content that was checked when it was complete.
    checked: Checked,
}

type Checked = Arc<Mutex<BTreeSet<Content>>>;

/// Bytes that are left to the operating system before they are brought to the disk. Much at once would hold up the log, which
/// lies on the same disk.
const SYNC_BYTES: u64 = 2 << 20;

impl Staging {
    /// Takes over the folder. `fresh`: installations that an earlier process left behind are removed.
    pub(super) fn open(dir: PathBuf, fresh: bool) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let staging = Self { dir, checked: Checked::default() };
        if fresh {
            for path in staging.entries(INSTALL)? {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(staging)
    }

    fn entries(&self, prefix: &str) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    }

    pub(super) fn path_of(&self, content: Content) -> PathBuf {
        self.dir.join(format!("{CONTENT}{:032x}-{}", content.checksum, content.bytes))
    }

    /// Removes all content but that of these files.
    pub(super) fn keep_only(&self, files: &[ManifestFile]) -> io::Result<()> {
        let keep: BTreeSet<PathBuf> = files.iter().map(|file| self.path_of(file.content)).collect();
        for path in self.entries(CONTENT)? {
            if !keep.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// How many bytes of a content are there. One that is too long is removed.
    pub(super) fn have_bytes(&self, content: Content) -> io::Result<u64> {
        let path = self.path_of(content);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= content.bytes => Ok(metadata.len()),
            Ok(_) => {
                fs::remove_file(&path)?;
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Opens a content to go on at its end.
    pub(super) fn append_to(&self, content: Content) -> io::Result<PartFile> {
        let file = OpenOptions::new().create(true).append(true).open(self.path_of(content))?;
        let length = file.metadata()?.len();
        let (path, checked) = (self.path_of(content), Arc::clone(&self.checked));
        Ok(PartFile { file, path, length, content, synced: length, checked })
    }

    /// Puts the files under their names into a new folder. Every one was or is checked against its checksum.
    pub(super) fn assemble(&self, files: &[ManifestFile]) -> Result<PathBuf, StagingError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let target = self.dir.join(format!("{INSTALL}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&target)?;
        let result = self.assemble_in(&target, files);
        if result.is_err() {
            fs::remove_dir_all(&target)?;
        }
        result.map(|()| target)
    }

    fn assemble_in(&self, target: &Path, files: &[ManifestFile]) -> Result<(), StagingError> {
        let mut folders = BTreeSet::from([target.to_owned()]);
        for file in files {
            let source = self.path_of(file.content);
            if file.content.bytes == 0 {
                File::create(&source)?;
            }
            if self.have_bytes(file.content)? < file.content.bytes {
                return Err(StagingError::Incomplete(file.name.clone()));
            }
            if !self.checked.lock().contains(&file.content) && checksum(&source)? != file.content {
                fs::remove_file(&source)?;
                return Err(StagingError::Damaged(file.name.clone()));
            }
            let path = target.join(&file.name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
                folders.insert(parent.to_owned());
            }
            fs::hard_link(&source, &path)?;
        }
        for folder in folders {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// A file that grows.
#[derive(Debug)]
pub(super) struct PartFile {
    file: File,
    path: PathBuf,
    pub(super) length: u64,
    pub(super) content: Content,
    /// How much of it is on the disk.
    synced: u64,
    checked: Checked,
}

impl PartFile {
    /// Appends. A file that is complete is made durable and checked, one after the other as they come: all at once, at the
    /// end, would take disk and processor away from everything else.
    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)?;
        self.length += data.len() as u64;
        let complete = self.length == self.content.bytes;
        if complete || self.length - self.synced >= SYNC_BYTES {
            self.file.sync_all()?;
            self.synced = self.length;
        }
        if complete && checksum(&self.path)? != self.content {
            fs::remove_file(&self.path)?;
            let what =
                format!("{} does not have the content that was offered; it will be sent again", self.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if complete {
            self.checked.lock().insert(self.content);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_128;

    use super::*;

    fn file(name: &str, data: &[u8]) -> ManifestFile {
        let content = Content { checksum: xxh3_128(data), bytes: data.len() as u64 };
        ManifestFile { name: name.into(), content }
    }

    #[test]
    fn only_complete_and_undamaged_files_are_assembled() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::open(dir.path().join("s"), true).unwrap();
        let files = [file("a", b"hello"), file("sub/same", b"hello"), file("empty", b"")];
        let mut part = staging.append_to(files[0].content).unwrap();
        part.write(b"hel").unwrap();
        assert!(matches!(staging.assemble(&files), Err(StagingError::Incomplete(_))));
        drop(part);
        assert_eq!(staging.have_bytes(files[0].content).unwrap(), 3);
        let mut part = staging.append_to(files[0].content).unwrap();
        let error = part.write(b"LO").unwrap_err();
        assert!(error.to_string().contains("sent again"), "{error}");
        assert_eq!(staging.have_bytes(files[0].content).unwrap(), 0);
        // One that an earlier process has left behind is checked when it is needed.
        fs::write(staging.path_of(files[0].content), b"helLO").unwrap();
        assert!(matches!(staging.assemble(&files), Err(StagingError::Damaged(_))));
        assert_eq!(staging.have_bytes(files[0].content).unwrap(), 0, "what is damaged is sent again");
        staging.append_to(files[0].content).unwrap().write(b"hello").unwrap();
        let folder = staging.assemble(&files).unwrap();
        assert_eq!(fs::read(folder.join("a")).unwrap(), b"hello");
        assert_eq!(fs::read(folder.join("sub/same")).unwrap(), b"hello");
        assert_eq!(fs::read(folder.join("empty")).unwrap(), b"");
        assert_eq!(staging.entries(INSTALL).unwrap(), [folder], "failed attempts leave nothing");
    }

    #[test]
    fn what_is_not_offered_any_more_and_old_installations_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::open(dir.path().to_owned(), true).unwrap();
        let (old, kept) = (file("old", b"old"), file("kept", b"kept"));
        staging.append_to(old.content).unwrap().write(b"old").unwrap();
        staging.append_to(kept.content).unwrap().write(b"ke").unwrap();
        fs::create_dir(dir.path().join("install-77")).unwrap();
        let again = Staging::open(dir.path().to_owned(), false).unwrap();
        assert!(dir.path().join("install-77").exists(), "another transfer of this process may be using it");
        again.keep_only(std::slice::from_ref(&kept)).unwrap();
        assert_eq!(again.have_bytes(old.content).unwrap(), 0);
        assert_eq!(again.have_bytes(kept.content).unwrap(), 2);
        Staging::open(dir.path().to_owned(), true).unwrap();
        assert!(!dir.path().join("install-77").exists());
    }
}
