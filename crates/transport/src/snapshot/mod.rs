//! Snapshots from node to node.
//!
//! The sender lists the files of the snapshot with their sizes and XXH3-128 checksums and *offers* them. The receiver
//! answers how much of each it has already, the sender sends the rest in chunks, and then asks to *install*: the
//! receiver checks every file against its checksum and hands the folder to the group's Raft.
//!
//! The receiver keeps what arrives under the name of its *content*: `content-<checksum>-<bytes>`. So a transfer goes on
//! where it broke off, whichever node, process or newer snapshot the next one comes from, as long as the files are the
//! same, and RocksDB's immutable files are. What the present offer does not list is removed.

mod manifest;
mod receive;
mod send;
mod staging;

pub(crate) use receive::Receiver;
pub(crate) use send::{TransferLocks, send};

/// Whether the files of an offer are read, for fuzzing.
///
/// # Panics
/// If they do not survive being written and read again.
pub(crate) fn survives(files: Vec<drover_wire::proto::v1::SnapshotFile>) -> bool {
    let Ok(files) = manifest::decode(files) else { return false };
    assert_eq!(manifest::decode(manifest::encode(&files)), Ok(files));
    true
}

/// Whether a chunk belongs to one of the files that an offer lists, and is not damaged, for fuzzing.
///
/// # Panics
/// If a chunk is taken that reaches beyond the end of its file.
pub(crate) fn takes_chunk(
    files: Vec<drover_wire::proto::v1::SnapshotFile>,
    chunk: &drover_wire::proto::v1::SnapshotChunk,
) -> bool {
    let files = manifest::decode(files).expect("files that are offered in a proper way");
    let Ok(content) = receive::place(&files, chunk) else { return false };
    assert!(u128::from(chunk.offset) + chunk.data.len() as u128 <= u128::from(content.bytes));
    receive::intact(chunk).is_ok()
}

/// Whether a snapshot with this description is installed for whoever asks, for fuzzing.
pub(crate) fn installs(
    meta: &drover_wire::proto::storage::v1::SnapshotMeta,
    request: &drover_wire::proto::v1::InstallSnapshotRequest,
) -> bool {
    let Ok(vote) = crate::codec::leader_vote(request.vote.as_ref()) else { return false };
    receive::of_leader(meta, &vote).is_ok()
}
