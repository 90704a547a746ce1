//! Copies of a store: how they are made and how they are judged before use.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_keys::DataKey;
use rocksdb::checkpoint::Checkpoint;

use crate::bounds::PhysicalRange;
use crate::engine::{self, Db, Family, handle};
use crate::env::{EnvResources, StoreEnvOptions};
use crate::error::StoreError;
use crate::format::{self, Contents};
use crate::meta::{APPLIED_KEY, FORMAT_KEY};
use crate::record::decode_record_key;
use crate::scan::decode_value;
use crate::view::{Caching, View};

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The encoded `AppliedState`; `None` if nothing was applied.
    pub applied_state: Option<Bytes>,
    /// Rows over all families.
    pub rows: u64,
    /// Table files.
    pub files: u64,
    /// Bytes of table files.
    pub bytes: u64,
}

/// How fast a checkpoint is read through, in bytes of keys and values per second.
const INSPECT_RATE: u64 = 256 << 20;
/// How many of these bytes are read between two pauses.
const INSPECT_STRIDE: u64 = 4 << 20;

/// Reads every row of the store or checkpoint in `dir`, at a pace that leaves disk and processor to others, without changing it: each block against its checksum, each key
/// and value against its format. Must not be written to meanwhile.
///
/// # Errors
/// [`StoreError::Corruption`] for the first fault, [`StoreError::NotAStore`], [`StoreError::NewerFormat`], and those of
/// the disk.
pub fn inspect_checkpoint(dir: &Path) -> Result<CheckpointInfo, StoreError> {
    let (db, applied_state) = open_closed(dir, &bare_resources()?)?;
    let mut rows = 0;
    let (began, mut read, mut pause_at) = (Instant::now(), 0, INSPECT_STRIDE);
    let view = View::latest(&db);
    let everything = PhysicalRange { lower: Vec::new(), upper: None };
    for family in Family::ALL {
        view.each(family, &everything, Caching::Bypass, |key, value| {
            rows += 1;
            check_row(family, key, value)?;
            read += (key.len() + value.len()) as u64;
            if read >= pause_at {
                pause_at = read + INSPECT_STRIDE;
                let due = Duration::from_secs_f64(read as f64 / INSPECT_RATE as f64);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            Ok(ControlFlow::<()>::Continue(()))
        })?;
    }
    let files = db.live_files()?;
    let bytes = files.iter().map(|file| file.size as u64).sum();
    Ok(CheckpointInfo { applied_state, rows, files: files.len() as u64, bytes })
}

fn check_row(family: Family, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    match family {
        Family::Data => {
            DataKey::decode(key).map_err(|e| StoreError::bad_row(family.name(), key, e))?;
            decode_value(key, value).map(|_| ())
        }
        Family::Records => decode_record_key(key).map(|_| ()).map_err(|e| StoreError::bad_row(family.name(), key, e)),
        Family::Locks | Family::Meta | Family::Tracker => Ok(()),
    }
}

/// Makes a checkpoint in `dir` and returns the applied state inside.
pub(crate) fn create(db: &Db, dir: &Path, resources: &EnvResources) -> Result<Option<Bytes>, StoreError> {
    // Flushes whatever was written since the caller's flush, over all families at once.
    Checkpoint::new(db)?.create_checkpoint(dir)?;
    format::write(dir)?;
    // From the copy, not from the store: commits may have gone on.
    open_closed(dir, resources).map(|(_, applied)| applied)
}

/// Opens a store that nobody writes to; checks its format.
fn open_closed(dir: &Path, resources: &EnvResources) -> Result<(Db, Option<Bytes>), StoreError> {
    if format::check(dir)? == Contents::Nothing {
        return Err(StoreError::NotAStore { path: dir.to_owned(), message: "it holds no database".to_owned() });
    }
    let db = engine::open_read_only(dir, resources)?;
    let row = |key: &[u8]| -> Result<Option<Bytes>, StoreError> {
        Ok(db.get_pinned_cf(handle(&db, Family::Meta), key)?.map(|value| Bytes::copy_from_slice(&value)))
    };
    let inside = row(FORMAT_KEY)?.ok_or_else(|| StoreError::Corruption {
        message: format!("the format number is missing from the meta family of {}", dir.display()),
    })?;
    check_format(dir, &inside)?;
    let applied = row(APPLIED_KEY)?;
    Ok((db, applied))
}

/// Judges the format number inside a database.
pub(crate) fn check_format(dir: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let number = bytes.try_into().map_err(|_| StoreError::Corruption {
        message: format!("the format number in the meta family of {} has {} bytes, not 4", dir.display(), bytes.len()),
    })?;
    format::check_version(dir, u32::from_be_bytes(number))
}

/// An inspection shares nothing with the node's stores.
fn bare_resources() -> Result<EnvResources, StoreError> {
    EnvResources::new(StoreEnvOptions { block_cache_bytes: 8 << 20, ..StoreEnvOptions::default() })
}
