//! The version of the layout of a store as a whole: a file `FORMAT` beside RocksDB's files, so that it can be judged
//! before anything is opened, and the same number inside, so that a lost or foreign file is noticed.
//!
//! ```text
//! FORMAT: "drover-store 1\n"
//! ```
//!
//! The file is written before the database is created and after a checkpoint is complete: a directory with RocksDB files
//! and no `FORMAT` is not a store.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::StoreError;
use crate::install::sync_dir;

/// The format this build writes, and the newest it reads.
pub(crate) const CURRENT: u32 = 1;
const FILE: &str = "FORMAT";
const MAGIC: &str = "drover-store ";
/// RocksDB's pointer to its manifest: present when there is a database.
const DATABASE_MARK: &str = "CURRENT";

/// What a directory holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing, or a store whose creation was cut short.
    Nothing,
    /// A store this build can read.
    Store,
}

/// Judges a directory without opening the database.
pub(crate) fn check(dir: &Path) -> Result<Contents, StoreError> {
    let foreign = |message: &str| StoreError::NotAStore { path: dir.to_owned(), message: message.to_owned() };
    let has_database = dir.join(DATABASE_MARK).exists();
    let file = dir.join(FILE);
    match fs::read(&file) {
        Ok(bytes) => {
            let found = parse(&bytes).ok_or_else(|| foreign("its FORMAT file is damaged"))?;
            check_version(dir, found)?;
            match has_database {
                true => Ok(Contents::Store),
                // Nothing was ever flushed if creation was cut short. With tables there was a database, and to create
                // one over it would lose them without a word.
                false if has_tables(dir)? => {
                    let message = format!("{} holds tables, but its {DATABASE_MARK} file is missing", dir.display());
                    Err(StoreError::Corruption { message })
                }
                false => Ok(Contents::Nothing),
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && has_database => {
            Err(foreign("its FORMAT file is missing"))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Contents::Nothing),
        Err(e) => Err(StoreError::io("reading", &file, &e)),
    }
}

fn has_tables(dir: &Path) -> Result<bool, StoreError> {
    let failed = |e| StoreError::io("listing", dir, &e);
    for entry in fs::read_dir(dir).map_err(failed)? {
        if Path::new(&entry.map_err(failed)?.file_name()).extension().is_some_and(|e| e == "sst") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses versions this build does not know.
pub(crate) fn check_version(dir: &Path, found: u32) -> Result<(), StoreError> {
    match found {
        CURRENT => Ok(()),
        newer if newer > CURRENT => Err(StoreError::NewerFormat { path: dir.to_owned(), found: newer, known: CURRENT }),
        older => {
            Err(StoreError::NotAStore { path: dir.to_owned(), message: format!("format {older} was never written") })
        }
    }
}

/// Writes the file, durably.
pub(crate) fn write(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(FILE);
    let temporary = dir.join("FORMAT.tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(current().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    });
    written.map_err(|e| StoreError::io("writing", &path, &e))?;
    sync_dir(dir)
}

/// The content of the file that this build writes.
pub(crate) fn current() -> String {
    format!("{MAGIC}{CURRENT}\n")
}

/// The version that a file names.
pub(crate) fn parse(bytes: &[u8]) -> Option<u32> {
    std::str::from_utf8(bytes).ok()?.strip_prefix(MAGIC)?.strip_suffix('\n')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_file_holds_golden_bytes_and_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check(dir.path()), Ok(Contents::Nothing));
        write(dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("FORMAT")).unwrap(), b"drover-store 1\n");
        assert_eq!(check(dir.path()), Ok(Contents::Nothing));
        fs::write(dir.path().join("CURRENT"), "x").unwrap();
        assert_eq!(check(dir.path()), Ok(Contents::Store));
    }

    #[test]
    fn newer_damaged_and_missing_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("CURRENT"), "x").unwrap();
        assert!(check(dir.path()).unwrap_err().to_string().contains("FORMAT file is missing"));
        fs::write(dir.path().join("FORMAT"), "drover-store 2\n").unwrap();
        let newer = check(dir.path()).unwrap_err();
        assert!(matches!(newer, StoreError::NewerFormat { found: 2, known: 1, .. }), "{newer}");
        assert!(newer.to_string().contains("run a newer build"), "{newer}");
        for bad in ["drover-store 0\n", "drover-store 1", "", "drover-store x\n", "drover-store 99999999999\n"] {
            fs::write(dir.path().join("FORMAT"), bad).unwrap();
            assert!(matches!(check(dir.path()), Err(StoreError::NotAStore { .. })), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
