use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::error::DataDirError;

/// The right of this process to use a directory. Ends when dropped, and with the process however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Name of the file that carries the lock.
    pub const FILE: &str = "LOCK";

    /// Takes the lock of an existing directory without waiting.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] if another process holds it.
    pub fn acquire(dir: &Path) -> Result<Self, DataDirError> {
        let path = dir.join(Self::FILE);
        let failed = |source: io::Error| DataDirError::Io { doing: "lock", path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut user = String::new();
                // The id is a courtesy: its absence changes nothing.
                let known = file.read_to_string(&mut user).is_ok() && !user.trim().is_empty();
                return Err(DataDirError::InUse { root: dir.to_owned(), user: known.then(|| user.trim().to_owned()) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
