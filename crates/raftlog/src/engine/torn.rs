//! Tells a torn last write of raft-engine from damage.
//!
//! raft-engine recovers its newest files up to the first batch that is wrong and drops the rest. That is right for a
//! batch whose fsync was cut short, and silently loses durable batches if a byte in their midst has flipped. Every batch
//! is synced before the next one is written, so **behind a torn batch there is none that is whole**. Before raft-engine
//! opens the directory, its newest append file and its newest rewrite file are read here; a batch that is wrong with a
//! whole one somewhere behind it is reported as damage.
//!
//! The layout that is read (raft-engine 0.4, file format 2):
//!
//! - file: a magic of 53 bytes, version (8 bytes, big-endian), alignment (8 bytes), then batches without gaps; zeros at
//!   the end are preallocated space;
//! - batch: `length << 8 | compression` (8 bytes, big-endian), offset of its items (8 bytes, big-endian), entries and their
//!   CRC-32 (little-endian) if there are any, items and their CRC-32 xor the file's number.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{LogError, Place};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const FILE_HEADER_LEN: usize = MAGIC.len() + 16;
const FORMAT_VERSION: u64 = 2;
const BATCH_HEADER_LEN: usize = 16;
const CHECKSUM_LEN: usize = 4;

/// Checks the newest file of each kind in `dir`, which need not exist.
///
/// # Errors
/// If a file is damaged before its last batch, or cannot be read.
pub fn check_newest_files(dir: &Path) -> Result<(), LogError> {
    for suffix in [".raftlog", ".rewrite"] {
        let Some((number, path)) = numbered(dir, suffix)?.into_iter().max() else { continue };
        let bytes = fs::read(&path).map_err(|e| LogError::io(Place::file(&path), "read", e))?;
        // The number is xored into checksums with its low half.
        check(&bytes, number as u32).map_err(|damage| {
            let detail = format!("whole batches follow, the next one at byte {}", damage.next_whole);
            LogError::corrupt(Place::at(&path, damage.offset as u64), detail)
        })?;
    }
    Ok(())
}

/// Where the first batch that is wrong begins, oldest file first, to say so after raft-engine has refused the directory.
/// Reads the files whole.
pub fn first_damage(dir: &Path) -> Option<Place> {
    for suffix in [".raftlog", ".rewrite"] {
        let mut files = numbered(dir, suffix).ok()?;
        files.sort();
        for (number, path) in files {
            if let Some(offset) = end_of_whole(&fs::read(&path).ok()?, number as u32) {
                return Some(Place::at(&path, offset as u64));
            }
        }
    }
    None
}

/// The newest file of a kind: its number, its path, and where its last whole batch ends.
///
/// # Errors
/// If it cannot be read.
pub fn newest_end(dir: &Path, suffix: &str) -> Result<Option<(u64, PathBuf, u64)>, LogError> {
    let Some((number, path)) = numbered(dir, suffix)?.into_iter().max() else { return Ok(None) };
    let bytes = fs::read(&path).map_err(|e| LogError::io(Place::file(&path), "read", e))?;
    let end = whole_len(&bytes, number as u32);
    Ok(Some((number, path, end as u64)))
}

/// Where a file stops to be whole batches; `None` if it is whole.
pub(crate) fn end_of_whole(file: &[u8], signature: u32) -> Option<usize> {
    let offset = whole_len(file, signature);
    (offset == 0 || file[offset..].iter().any(|byte| *byte != 0)).then_some(offset)
}

/// How much of a file is its header and whole batches.
fn whole_len(file: &[u8], signature: u32) -> usize {
    if !header_is_whole(file) {
        return 0;
    }
    let mut offset = FILE_HEADER_LEN;
    while let Some(len) = whole_batch(&file[offset..], signature) {
        offset += len;
    }
    offset
}

/// The files of one kind with their numbers, in any order. `dir` need not exist.
fn numbered(dir: &Path, suffix: &str) -> Result<Vec<(u64, PathBuf)>, LogError> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let failed = |e| LogError::io(Place::file(dir), "list", e);
    let mut found = Vec::new();
    for item in fs::read_dir(dir).map_err(failed)? {
        let path = item.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(suffix));
        if let Some(number) = name.and_then(|digits| digits.parse::<u64>().ok()) {
            found.push((number, path));
        }
    }
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Where the batch, or the file's header, that is wrong begins.
    pub(crate) offset: usize,
    /// Where a whole batch begins behind it.
    pub(crate) next_whole: usize,
}

/// Checks the content of a file. `signature` is the low half of its number.
pub(crate) fn check(file: &[u8], signature: u32) -> Result<(), Damage> {
    let mut offset = if header_is_whole(file) { FILE_HEADER_LEN } else { 0 };
    while offset > 0 && offset < file.len() {
        match whole_batch(&file[offset..], signature) {
            Some(len) => offset += len,
            None => break,
        }
    }
    let behind = (offset + 1)..file.len().saturating_sub(BATCH_HEADER_LEN);
    match behind.into_iter().find(|at| whole_batch(&file[*at..], signature).is_some()) {
        Some(next_whole) => Err(Damage { offset, next_whole }),
        None => Ok(()),
    }
}

fn header_is_whole(file: &[u8]) -> bool {
    file.len() >= FILE_HEADER_LEN
        && file.starts_with(MAGIC)
        && be_u64(&file[MAGIC.len()..]) == Some(FORMAT_VERSION)
        && be_u64(&file[MAGIC.len() + 8..]) == Some(0)
}

/// Length of the batch at the start of `bytes`, if it is one and undamaged.
fn whole_batch(bytes: &[u8], signature: u32) -> Option<usize> {
    let (items, len) = extent(bytes)?;
    let entries = &bytes[BATCH_HEADER_LEN..items];
    let whole = (entries.is_empty() || sealed(entries, 0)) && sealed(&bytes[items..len], signature);
    whole.then_some(len)
}

/// Where the items of the batch at the start of `bytes` begin, and its length, as its header says; if that can be.
fn extent(bytes: &[u8]) -> Option<(usize, usize)> {
    let header = be_u64(bytes)?;
    let (compression, len) = (header & 0xff, usize::try_from(header >> 8).ok()?);
    let items = usize::try_from(be_u64(&bytes[8..])?).ok()?;
    let plausible = compression <= 1 && items >= BATCH_HEADER_LEN && items < len && len <= bytes.len();
    plausible.then_some((items, len))
}

/// Whether `bytes` ends with the checksum of what stands before it.
fn sealed(bytes: &[u8], signature: u32) -> bool {
    bytes
        .split_last_chunk::<CHECKSUM_LEN>()
        .is_some_and(|(content, checksum)| crc32fast::hash(content) == u32::from_le_bytes(*checksum) ^ signature)
}

/// A file with a batch for each content, as [`check`] reads it.
pub(crate) fn file_of(contents: &[&[u8]], signature: u32) -> Vec<u8> {
    let mut file = [MAGIC, &FORMAT_VERSION.to_be_bytes(), &0_u64.to_be_bytes()].concat();
    for items in contents {
        let len = (BATCH_HEADER_LEN + items.len() + CHECKSUM_LEN) as u64;
        file.extend_from_slice(&(len << 8).to_be_bytes());
        file.extend_from_slice(&(BATCH_HEADER_LEN as u64).to_be_bytes());
        file.extend_from_slice(items);
        file.extend_from_slice(&[0; CHECKSUM_LEN]);
    }
    seal(&mut file, signature);
    file
}

/// Puts the right checksums into the batches of a file, as far as their headers can be followed.
pub(crate) fn seal(file: &mut [u8], signature: u32) {
    let mut rest = file.get_mut(FILE_HEADER_LEN..).unwrap_or_default();
    while let Some((items, len)) = extent(rest) {
        let (batch, behind) = rest.split_at_mut(len);
        let (entries, items) = batch[BATCH_HEADER_LEN..].split_at_mut(items - BATCH_HEADER_LEN);
        for (part, signature) in [(entries, 0), (items, signature)] {
            if let Some((content, checksum)) = part.split_last_chunk_mut::<CHECKSUM_LEN>() {
                *checksum = (crc32fast::hash(content) ^ signature).to_le_bytes();
            }
        }
        rest = behind;
    }
}

fn be_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use drover_keys::GroupId;
    use drover_rafttypes::{CommandBytes, Entry, Payload, decode_log_id};
    use drover_wire::proto::storage::v1 as pb;

    use super::*;
    use crate::engine::noted::RawEngine;
    use crate::engine::{Change, RaftEngineLog};
    use crate::options::LogOptions;
    use crate::record::{Records, Window};

    /// A file of raft-engine with five batches, and where each begins; the last item is the end.
    fn five_batches() -> (Vec<u8>, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let engine = RaftEngineLog::open(&path, &LogOptions::default()).unwrap();
        let mut starts = vec![FILE_HEADER_LEN];
        for index in 0..5 {
            let log_id = decode_log_id(&pb::LogId { term: 1, index });
            // The middle one is large enough to be compressed.
            let bytes = if index == 2 { 20_000 } else { 50 };
            let entry = Entry { log_id, payload: Payload::Normal(CommandBytes(vec![index as u8; bytes].into())) };
            let window = Window { last: Some(log_id), ..Window::default() };
            let changes =
                [(GroupId(1), Change::Append(Records::encode(&[entry]))), (GroupId(1), Change::Window(window))];
            let len = engine.write(&changes, index + 1).unwrap() as usize;
            starts.push(starts.last().unwrap() + len);
        }
        let (number, file) = numbered(&path, ".raftlog").unwrap().pop().unwrap();
        assert_eq!(number, 1);
        // Without close: preallocated zeros stand at the end.
        (fs::read(file).unwrap(), starts)
    }

    #[test]
    fn a_flipped_byte_before_the_last_batch_is_damage_and_in_it_a_torn_write() {
        let (file, starts) = five_batches();
        assert_eq!(check(&file, 1), Ok(()));
        for at in (0..starts[5]).filter(|at| *at < 200 || *at % 7 == 0 || *at > starts[4]) {
            let mut flipped = file.clone();
            flipped[at] ^= 0x10;
            let batch = starts.iter().rposition(|start| *start <= at);
            let expected = match batch {
                None => Err(Damage { offset: 0, next_whole: starts[0] }),
                Some(4) => Ok(()),
                Some(batch) => Err(Damage { offset: starts[batch], next_whole: starts[batch + 1] }),
            };
            assert_eq!(check(&flipped, 1), expected, "byte {at}");
        }
    }

    #[test]
    fn a_file_cut_off_anywhere_is_a_torn_write() {
        let (file, starts) = five_batches();
        for len in (0..starts[5] + 10).step_by(11) {
            assert_eq!(check(&file[..len], 1), Ok(()), "{len} bytes");
        }
    }

    #[test]
    fn batches_of_another_file_do_not_count() {
        let (file, starts) = five_batches();
        let mut torn = file[..starts[3] + 5].to_vec();
        torn.extend_from_slice(&file[starts[3]..starts[5]]);
        assert!(check(&torn, 1).is_err());
        assert_eq!(check(&torn, 2), Ok(()));
    }
}
