//! The identities of the peers' data directories, kept in a file.
//!
//! A node whose disk was replaced under its old id has forgotten its votes and its log; taking it for the old one could
//! lose committed entries. So every node remembers the store id of each peer it has met, before the first message.
//!
//! Format: `b"DRPI"`, a version byte (1), the number of peers (4 bytes), for each peer in ascending order its node id
//! (8) and store id (16), then the CRC-32C of all that (4). Numbers are big-endian. The file is replaced by renaming.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use drover_guards::{self as guards, Guard};
use drover_keys::{NodeId, StoreId};
use parking_lot::Mutex;

const MAGIC: &[u8; 4] = b"DRPI";
const VERSION: u8 = 1;
const HEADER: usize = 9;
const ENTRY: usize = 24;
const CRC: usize = 4;

/// Why the file of peer identities cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It is not what this build writes.
    #[error("{path} is damaged or from a newer version: {what}; restore it, or remove it to learn the peers anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// What is known of a peer's data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// It is the one that is remembered (perhaps as of now).
    Same,
    /// It is another one.
    Replaced { known: StoreId },
}

/// The store ids of the peers, durably.
#[derive(Debug)]
pub struct PeerIdentities {
    path: PathBuf,
    known: Mutex<BTreeMap<NodeId, StoreId>>,
}

impl PeerIdentities {
    /// Reads the file, or starts without peers if there is none.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, IdentityError> {
        let path = path.into();
        let known = match fs::read(&path) {
            Ok(bytes) => decode(&bytes).map_err(|what| IdentityError::Damaged { path: path.clone(), what })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(IdentityError::Io { path, source }),
        };
        Ok(Self { path, known: Mutex::new(known) })
    }

    /// The store id that is remembered for a peer.
    pub fn get(&self, node: NodeId) -> Option<StoreId> {
        self.known.lock().get(&node).copied()
    }

    /// Forgets a peer, so that it may come back with another data directory. For an operator who has made sure that
    /// the old one's votes are no longer needed.
    ///
    /// # Errors
    /// If the file cannot be written; then nothing has changed.
    pub fn forget(&self, node: NodeId) -> Result<(), IdentityError> {
        let mut known = self.known.lock();
        let mut next = known.clone();
        if next.remove(&node).is_some() {
            self.write(&next)?;
            *known = next;
        }
        Ok(())
    }

    /// Compares a peer's store id with the remembered one; remembers it durably if there is none. Blocks on the disk
    /// the first time.
    pub(crate) fn meet(&self, node: NodeId, store: StoreId) -> Result<Identity, IdentityError> {
        let mut known = self.known.lock();
        match known.get(&node) {
            Some(same) if *same == store || !guards::on(Guard::WipedPeerRefused) => Ok(Identity::Same),
            Some(other) => Ok(Identity::Replaced { known: *other }),
            None => {
                let mut next = known.clone();
                next.insert(node, store);
                self.write(&next)?;
                *known = next;
                Ok(Identity::Same)
            }
        }
    }

    fn write(&self, known: &BTreeMap<NodeId, StoreId>) -> Result<(), IdentityError> {
        replace_file(&self.path, &encode(known)).map_err(|source| IdentityError::Io { path: self.path.clone(), source })
    }
}

fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(parent)?.sync_all()
}

pub(crate) fn encode(known: &BTreeMap<NodeId, StoreId>) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + ENTRY * known.len() + CRC);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&(known.len() as u32).to_be_bytes());
    for (node, store) in known {
        out.extend_from_slice(&node.0.to_be_bytes());
        out.extend_from_slice(&store.0);
    }
    out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Result<BTreeMap<NodeId, StoreId>, &'static str> {
    let Some((body, crc)) = bytes.split_last_chunk::<CRC>() else { return Err("it is too short") };
    let Some((header, entries)) = body.split_first_chunk::<HEADER>() else { return Err("it is too short") };
    if !header.starts_with(MAGIC) {
        return Err("it does not start with DRPI");
    }
    if header[4] != VERSION {
        return Err("its version is unknown");
    }
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return Err("its checksum does not match");
    }
    let count = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) as usize;
    let (chunks, rest) = entries.as_chunks::<ENTRY>();
    if chunks.len() != count || !rest.is_empty() {
        return Err("its length does not match");
    }
    let mut known = BTreeMap::new();
    for chunk in chunks {
        let (node, store) = chunk.split_first_chunk::<8>().expect("24 bytes start with 8");
        let node = NodeId(u64::from_be_bytes(*node));
        let store = StoreId(store.try_into().expect("24 bytes less 8 are 16"));
        if known.last_key_value().is_some_and(|(last, _)| *last >= node) {
            return Err("its peers are not in ascending order");
        }
        known.insert(node, store);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn store(byte: u8) -> StoreId {
        StoreId([byte; 16])
    }

    #[test]
    fn the_file_keeps_its_bytes() {
        let known = BTreeMap::from([(NodeId(2), store(0xaa)), (NodeId(258), store(0xbb))]);
        let mut golden = b"DRPI\x01\0\0\0\x02".to_vec();
        golden.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2]);
        golden.extend_from_slice(&[0xaa; 16]);
        golden.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2]);
        golden.extend_from_slice(&[0xbb; 16]);
        golden.extend_from_slice(&crc32c::crc32c(&golden).to_be_bytes());
        assert_eq!(encode(&known), golden);
        assert_eq!(golden[57..], [0xf6, 0x85, 0xae, 0x08]);
        assert_eq!(decode(&golden), Ok(known));
    }

    #[test]
    fn peers_that_do_not_ascend_are_refused() {
        let good = encode(&BTreeMap::from([(NodeId(1), store(1)), (NodeId(3), store(3))]));
        for (second, ascends) in [(0, false), (1, false), (2, true)] {
            let mut file = good[..good.len() - CRC].to_vec();
            file[HEADER + ENTRY + 7] = second;
            file.extend_from_slice(&crc32c::crc32c(&file).to_be_bytes());
            assert_eq!(decode(&file).is_ok(), ascends, "1, then {second}");
        }
    }

    #[test]
    fn a_peer_is_remembered_over_a_restart_and_a_replaced_disk_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers");
        let peers = PeerIdentities::open(&path).unwrap();
        assert_eq!(peers.meet(NodeId(2), store(1)).unwrap(), Identity::Same);
        drop(peers);
        let peers = PeerIdentities::open(&path).unwrap();
        assert_eq!(peers.get(NodeId(2)), Some(store(1)));
        assert_eq!(peers.meet(NodeId(2), store(1)).unwrap(), Identity::Same);
        assert_eq!(peers.meet(NodeId(2), store(9)).unwrap(), Identity::Replaced { known: store(1) });
        peers.forget(NodeId(2)).unwrap();
        drop(peers);
        let peers = PeerIdentities::open(&path).unwrap();
        assert_eq!(peers.meet(NodeId(2), store(9)).unwrap(), Identity::Same);
    }

    #[test]
    fn a_damaged_file_is_refused_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers");
        PeerIdentities::open(&path).unwrap().meet(NodeId(2), store(1)).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            assert!(matches!(PeerIdentities::open(&path), Err(IdentityError::Damaged { .. })), "byte {at}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
    }

    proptest! {
        #[test]
        fn identities_round_trip(known in prop::collection::btree_map(any::<u64>(), any::<[u8; 16]>(), 0..8)) {
            let known = known.into_iter().map(|(node, store)| (NodeId(node), StoreId(store))).collect();
            prop_assert_eq!(decode(&encode(&known)).unwrap(), known);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
