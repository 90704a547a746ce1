//! The file that says which replicas this node holds.
//!
//! ```text
//! magic "DROVERRP" (8) | version = 1 (1) | count (4, BE) | for each: group (8, BE) | replica (8, BE) | state (1) | crc (4, BE)
//! ```
//!
//! States: 1 founding, 2 held, 3 being removed, 4 gone. `crc` is the CRC-32C of everything before it, in every version. The file
//! is replaced as a whole. It is written before a replica is opened for the first time, and before its data is removed:
//! whatever lies in `groups/` without a record was never opened.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use drover_keys::{GroupId, ReplicaId};
use parking_lot::Mutex;

use super::DataDirError;
use crate::durable;

const MAGIC: &[u8; 8] = b"DROVERRP";
const VERSION: u8 = 1;
const ENTRY: usize = 17;

/// What a node knows of a replica that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaRecord {
    /// Its number within the group.
    pub id: ReplicaId,
    /// How it came here, and whether it stays.
    pub state: RecordState,
}

/// How a replica came to a node, and whether it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// The group was created with it.
    Founding,
    /// The group got it later.
    Held,
    /// The group goes on without it; its data is being removed.
    Removing,
    /// Nothing is left of it. Its number is kept: it is never opened again.
    Gone,
}

/// Which replicas a node holds, durably.
#[derive(Debug)]
pub struct ReplicaRecords {
    path: PathBuf,
    records: Mutex<BTreeMap<GroupId, ReplicaRecord>>,
}

impl ReplicaRecords {
    /// Reads the file, or writes it with `founding`, the replicas that the cluster is created with, if there is none.
    /// `used` tells that replicas were opened in this directory before, so that there must be one.
    ///
    /// # Errors
    /// If it is damaged, from a newer build or missing, or cannot be read or written.
    pub(super) fn open(
        path: PathBuf,
        founding: impl IntoIterator<Item = (GroupId, ReplicaId)>,
        used: bool,
    ) -> Result<Self, DataDirError> {
        let records = match fs::read(&path) {
            Ok(bytes) => decode(&bytes).map_err(|what| DataDirError::Replicas { path: path.clone(), what })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && used => {
                return Err(DataDirError::Replicas { path, what: "it is missing, and there are replicas" });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let record = |(group, id)| (group, ReplicaRecord { id, state: RecordState::Founding });
                let records = founding.into_iter().map(record).collect();
                write(&path, &records)?;
                records
            }
            Err(source) => return Err(DataDirError::Io { doing: "read", path, source }),
        };
        Ok(Self { path, records: Mutex::new(records) })
    }

    /// Those that are here, or are being removed.
    pub fn here(&self) -> BTreeMap<GroupId, ReplicaRecord> {
        let mut records = self.all();
        records.retain(|_, record| record.state != RecordState::Gone);
        records
    }

    /// All of them, those that are gone included.
    pub fn all(&self) -> BTreeMap<GroupId, ReplicaRecord> {
        self.records.lock().clone()
    }

    /// Notes what is known of a replica now.
    ///
    /// # Errors
    /// If the file cannot be written; then nothing has changed.
    pub fn set(&self, group: GroupId, record: ReplicaRecord) -> Result<(), DataDirError> {
        self.put(group, Some(record))
    }

    /// Notes what is known of a replica now: nothing, if there is no record.
    ///
    /// # Errors
    /// If the file cannot be written; then nothing has changed.
    pub fn put(&self, group: GroupId, record: Option<ReplicaRecord>) -> Result<(), DataDirError> {
        let mut records = self.records.lock();
        let mut next = records.clone();
        match record {
            Some(record) => drop(next.insert(group, record)),
            None => drop(next.remove(&group)),
        }
        write(&self.path, &next)?;
        *records = next;
        Ok(())
    }
}

fn write(path: &Path, records: &BTreeMap<GroupId, ReplicaRecord>) -> Result<(), DataDirError> {
    durable::write(path, &encode(records)).map_err(|source| DataDirError::Io {
        doing: "write",
        path: path.to_owned(),
        source,
    })
}

/// The content of the file.
pub(crate) fn encode(records: &BTreeMap<GroupId, ReplicaRecord>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    out.extend_from_slice(&u32::try_from(records.len()).unwrap_or(u32::MAX).to_be_bytes());
    for (group, record) in records {
        out.extend_from_slice(&group.0.to_be_bytes());
        out.extend_from_slice(&record.id.0.to_be_bytes());
        out.push(match record.state {
            RecordState::Founding => 1,
            RecordState::Held => 2,
            RecordState::Removing => 3,
            RecordState::Gone => 4,
        });
    }
    out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
    out
}

/// Reads the content of the file.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<BTreeMap<GroupId, ReplicaRecord>, &'static str> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return Err("its checksum does not match");
    }
    let rest = body.strip_prefix(MAGIC).ok_or("it does not start with DROVERRP")?;
    let (&version, rest) = rest.split_first().ok_or("it has no version")?;
    if version != VERSION {
        return Err("a newer build wrote it");
    }
    let (count, rest) = rest.split_first_chunk().ok_or("it has no count")?;
    let (entries, rest) = rest.as_chunks::<ENTRY>();
    if u32::try_from(entries.len()) != Ok(u32::from_be_bytes(*count)) || !rest.is_empty() {
        return Err("its length does not match");
    }
    let mut records = BTreeMap::new();
    for entry in entries {
        let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|n| entry[at + n]));
        let state = match entry[16] {
            1 => RecordState::Founding,
            2 => RecordState::Held,
            3 => RecordState::Removing,
            4 => RecordState::Gone,
            _ => return Err("a replica is in a state that this build does not know"),
        };
        let group = GroupId(number(0));
        if records.last_key_value().is_some_and(|(last, _)| *last >= group) {
            return Err("its groups are not in ascending order");
        }
        records.insert(group, ReplicaRecord { id: ReplicaId(number(8)), state });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAIR: [(GroupId, ReplicaId); 2] = [(GroupId(1), ReplicaId(2)), (GroupId(3), ReplicaId(1))];

    fn open(dir: &Path, used: bool) -> Result<ReplicaRecords, DataDirError> {
        ReplicaRecords::open(dir.join("replicas"), PAIR, used)
    }

    #[test]
    fn golden_bytes() {
        let held = ReplicaRecord { id: ReplicaId(0x0102), state: RecordState::Held };
        let leaving = ReplicaRecord { id: ReplicaId(9), state: RecordState::Removing };
        let records = BTreeMap::from([(GroupId(2), held), (GroupId(258), leaving)]);
        let mut expect = b"DROVERRP\x01\0\0\0\x02".to_vec();
        expect.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 2, 2]);
        expect.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 9, 3]);
        expect.extend_from_slice(&crc32c::crc32c(&expect).to_be_bytes());
        assert_eq!(encode(&records), expect);
        assert_eq!(decode(&expect), Ok(records));
    }

    #[test]
    fn the_founding_replicas_are_written_once_and_the_configuration_is_not_asked_again() {
        let temp = tempfile::tempdir().unwrap();
        let records = open(temp.path(), false).unwrap();
        assert!(records.all().values().all(|record| record.state == RecordState::Founding));
        assert_eq!(records.all().into_iter().map(|(group, r)| (group, r.id)).collect::<Vec<_>>(), PAIR);
        let gone = ReplicaRecord { id: ReplicaId(2), state: RecordState::Gone };
        records.set(GroupId(1), gone).unwrap();
        let held = ReplicaRecord { id: ReplicaId(7), state: RecordState::Held };
        records.set(GroupId(5), held).unwrap();
        let again = open(temp.path(), true).unwrap();
        assert_eq!(again.all(), records.all());
        assert_eq!(again.all()[&GroupId(5)], held);
        assert_eq!(again.all()[&GroupId(1)], gone);
        assert!(!again.here().contains_key(&GroupId(1)) && again.here().contains_key(&GroupId(5)));
    }

    #[test]
    fn a_file_that_is_gone_or_damaged_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("replicas");
        let error = open(temp.path(), true).unwrap_err().to_string();
        assert!(error.contains("missing") && !path.exists(), "{error}");
        drop(open(temp.path(), false).unwrap());
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            fs::write(&path, &bad).unwrap();
            assert!(matches!(open(temp.path(), true), Err(DataDirError::Replicas { .. })), "byte {at}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
    }

    proptest! {
        #[test]
        fn records_come_back(records in proptest::collection::btree_map(any::<u64>(), (any::<u64>(), 0usize..4), 0..8)) {
            let states = [RecordState::Founding, RecordState::Held, RecordState::Removing, RecordState::Gone];
            let record = |(group, (id, state)): (u64, (u64, usize))| {
                (GroupId(group), ReplicaRecord { id: ReplicaId(id), state: states[state] })
            };
            let records: BTreeMap<_, _> = records.into_iter().map(record).collect();
            prop_assert_eq!(decode(&encode(&records)), Ok(records));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
