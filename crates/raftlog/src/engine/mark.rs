//! How far the log was durable, noted outside of it.
//!
//! What an engine finds behind the last whole batch of its newest file it takes for a write that a crash has cut short, and
//! drops. A file that was cut off later, or whose very last batch was damaged, looks the same, and what is dropped then may have been
//! acknowledged. So every batch carries a number, and once it is durable, before anybody is told, its number goes into a small file
//! beside the log. A log that ends before that number has lost something, and is refused.
//!
//! The note itself is not synced for each batch: a killed process leaves it whole in the page cache, and after a loss of power it
//! may be older than the log, in which case it sees less, but is never wrong: a number is noted only when its batch is durable.
//! (Protocol-aware recovery, Alagappan et al., FAST 2018, tells crashes from damage by such notes beside the log.)
//!
//! File `DURABLE`, 256 bytes, four slots of 64; zeros fill each slot up:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 1 | format, 1 |
//! | 1 | 1 | what is noted: 1 the last batch, 2 the end of the rewritten files |
//! | 8 | 8 | number of this note, from 0, little-endian |
//! | 16 | 8 | batch: its number; rewritten: number of the newest file, 0 if there is none |
//! | 24 | 8 | batch: 0; rewritten: where its last whole batch ends |
//! | 32 | 4 | CRC-32 of the 32 bytes before |
//!
//! Notes of one kind go into its two slots in turn, so that one that was cut short leaves the one before.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{LogError, Place};

const NAME: &str = "DURABLE";
const FORMAT: u8 = 1;
const SLOT_LEN: usize = 64;
const CHECKED_LEN: usize = 32;
const FILE_LEN: usize = 4 * SLOT_LEN;

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Batch = 1,
    Rewritten = 2,
}

/// One note.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Note {
    number: u64,
    values: [u64; 2],
}

/// Up to where the rewritten files were durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RewrittenEnd {
    /// The newest file; zero: there is none.
    pub file: u64,
    /// Where its last whole batch ends.
    pub offset: u64,
}

/// The note beside a log.
#[derive(Debug)]
pub struct Mark {
    file: File,
    path: PathBuf,
    /// Numbers of the notes of each kind that were written last.
    written: [AtomicU64; 2],
    batch: u64,
    rewritten: RewrittenEnd,
}

impl Mark {
    /// Opens the note in `dir`; `None` if there is none.
    ///
    /// # Errors
    /// If it is damaged or cannot be read.
    pub fn open(dir: &Path) -> Result<Option<Mark>, LogError> {
        let path = dir.join(NAME);
        let failed = |doing| move |error| LogError::io(Place::file(&dir.join(NAME)), doing, error);
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open")(error)),
        };
        let bytes = fs::read(&path).map_err(failed("read"))?;
        let damaged = || LogError::corrupt(Place::file(&path), "it does not say up to where the log is durable");
        let [batch, rewritten] = parse(&bytes).ok_or_else(damaged)?;
        Ok(Some(Mark {
            batch: batch.values[0],
            rewritten: RewrittenEnd { file: rewritten.values[0], offset: rewritten.values[1] },
            written: [AtomicU64::new(batch.number), AtomicU64::new(rewritten.number)],
            file,
            path,
        }))
    }

    /// Begins a note for a log without batches in `dir`, durably.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn create(dir: &Path) -> Result<Mark, LogError> {
        let path = dir.join(NAME);
        let create = || {
            let draft = dir.join(format!("{NAME}.new"));
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&draft)?;
            file.write_all_at(&render([Note::default(); 2]), 0)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(|error| LogError::io(Place::file(&path), "create", error))?;
        Ok(Mark { file, path, written: Default::default(), batch: 0, rewritten: RewrittenEnd::default() })
    }

    /// The last batch that was noted when this was opened.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// The end of the rewritten files that was noted when this was opened.
    pub fn rewritten(&self) -> RewrittenEnd {
        self.rewritten
    }

    /// Notes that a batch is durable.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn note_batch(&self, batch: u64) -> Result<(), LogError> {
        self.note(Kind::Batch, [batch, 0])
    }

    /// Notes up to where the rewritten files are durable.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn note_rewritten(&self, end: RewrittenEnd) -> Result<(), LogError> {
        self.note(Kind::Rewritten, [end.file, end.offset])
    }

    fn note(&self, kind: Kind, values: [u64; 2]) -> Result<(), LogError> {
        let number = self.written[kind as usize - 1].fetch_add(1, Ordering::Relaxed) + 1;
        let slot = slot(kind, Note { number, values });
        let written = self.file.write_all_at(&slot, position(kind, number) as u64);
        written.map_err(|error| LogError::io(Place::file(&self.path), "write", error))
    }
}

fn position(kind: Kind, number: u64) -> usize {
    ((kind as usize - 1) * 2 + (number % 2) as usize) * SLOT_LEN
}

fn slot(kind: Kind, note: Note) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    (slot[0], slot[1]) = (FORMAT, kind as u8);
    slot[8..16].copy_from_slice(&note.number.to_le_bytes());
    slot[16..24].copy_from_slice(&note.values[0].to_le_bytes());
    slot[24..32].copy_from_slice(&note.values[1].to_le_bytes());
    let checksum = crc32fast::hash(&slot[..CHECKED_LEN]);
    slot[CHECKED_LEN..CHECKED_LEN + 4].copy_from_slice(&checksum.to_le_bytes());
    slot
}

/// The whole file, with one note of each kind in both of its slots.
fn render(notes: [Note; 2]) -> [u8; FILE_LEN] {
    let mut file = [0; FILE_LEN];
    for (kind, note) in [Kind::Batch, Kind::Rewritten].into_iter().zip(notes) {
        for turn in 0..2 {
            file[position(kind, turn)..][..SLOT_LEN].copy_from_slice(&slot(kind, note));
        }
    }
    file
}

/// The newest note of each kind.
fn parse(file: &[u8]) -> Option<[Note; 2]> {
    if file.len() != FILE_LEN {
        return None;
    }
    let newest = |kind| {
        let slots = (0..2).map(|turn| &file[position(kind, turn)..][..SLOT_LEN]);
        slots.filter_map(|slot| parse_slot(kind, slot)).max_by_key(|note| note.number)
    };
    Some([newest(Kind::Batch)?, newest(Kind::Rewritten)?])
}

fn parse_slot(kind: Kind, bytes: &[u8]) -> Option<Note> {
    let word = |at: usize| bytes[at..].first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    let note = Note { number: word(8)?, values: [word(16)?, word(24)?] };
    (bytes == slot(kind, note)).then_some(note)
}

/// Whether the bytes are a note.
pub(crate) fn is_mark(bytes: &[u8]) -> bool {
    parse(bytes).is_some()
}

/// A note as it is written.
pub(crate) fn example() -> Vec<u8> {
    let mut file = render([Note { number: 6, values: [300, 0] }, Note { number: 2, values: [7, 4096] }]).to_vec();
    let newer = slot(Kind::Batch, Note { number: 7, values: [301, 0] });
    file[position(Kind::Batch, 7)..][..SLOT_LEN].copy_from_slice(&newer);
    file
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let slot = slot(Kind::Rewritten, Note { number: 2, values: [7, 4096] });
        let golden = b"\x01\x02\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0";
        assert_eq!(slot[..32], golden[..]);
        assert_eq!(slot[32..36], crc32fast::hash(golden).to_le_bytes());
        assert_eq!(slot[36..], [0; 28]);
        assert_eq!(
            parse(&example()),
            Some([Note { number: 7, values: [301, 0] }, Note { number: 2, values: [7, 4096] }])
        );
    }

    #[test]
    fn what_was_noted_last_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Mark::open(dir.path()).unwrap().is_none());
        let mark = Mark::create(dir.path()).unwrap();
        for batch in 1..=5 {
            mark.note_batch(batch * 10).unwrap();
            let end = RewrittenEnd { file: batch, offset: batch * 100 };
            mark.note_rewritten(end).unwrap();
            let found = Mark::open(dir.path()).unwrap().unwrap();
            assert_eq!((found.batch(), found.rewritten()), (batch * 10, end));
        }
        let mark = Mark::open(dir.path()).unwrap().unwrap();
        mark.note_batch(60).unwrap();
        assert_eq!(Mark::open(dir.path()).unwrap().unwrap().batch(), 60);
    }

    proptest! {
        #[test]
        fn notes_survive_writing_and_reading(number: u64, values: [u64; 2]) {
            let note = Note { number, values };
            for kind in [Kind::Batch, Kind::Rewritten] {
                prop_assert_eq!(parse_slot(kind, &slot(kind, note)), Some(note));
            }
            prop_assert_eq!(parse_slot(Kind::Batch, &slot(Kind::Rewritten, note)), None);
        }

        /// A note cut short leaves the one before; more damage than that is noticed.
        #[test]
        fn one_damaged_slot_leaves_the_note_before(at in 0..FILE_LEN, bit in 0..8_u32) {
            let mut bytes = example();
            bytes[at] ^= 1 << bit;
            let found = parse(&bytes).unwrap();
            prop_assert!(found[0].values[0] == 301 || found[0].values[0] == 300);
            prop_assert_eq!(found[1].values, [7, 4096]);
            bytes[(at + SLOT_LEN) % (2 * SLOT_LEN) + at / (2 * SLOT_LEN) * 2 * SLOT_LEN] ^= 1 << bit;
            prop_assert_eq!(parse(&bytes), None);
            prop_assert_eq!(parse(&bytes[..at]), None);
        }
    }
}
