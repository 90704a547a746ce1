use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use drover_keys::{GroupId, NodeId, ReplicaId};
use drover_kv::Reason;
use drover_rafttypes::{TypeConfig, Vote, decode_vote, encode_snapshot_meta, encode_vote};
use drover_seams::blocking;
use drover_wire::proto::v1;
use drover_wire::status_to_error;
use openraft::raft::SnapshotResponse;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::manifest::{self, ManifestFile};
use crate::CallError;
use crate::connection::Connection;
use crate::peer::Peer;
use crate::pool::PeerPool;
use crate::service::Snapshot;
use crate::stats::PeerStats;

/// Lets one snapshot of a group at a time go to a peer.
#[derive(Debug, Default)]
pub(crate) struct TransferLocks {
    locks: Mutex<HashMap<(NodeId, GroupId), TransferLock>>,
}

type TransferLock = Arc<tokio::sync::Mutex<()>>;

impl TransferLocks {
    async fn acquire(&self, node: NodeId, group: GroupId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = Arc::clone(self.locks.lock().entry((node, group)).or_default());
        lock.lock_owned().await
    }
}

/// What is needed to send one snapshot.
struct Transfer<'a> {
    pool: &'a PeerPool,
    peer: &'a Peer,
    connection: Arc<Connection>,
    group: GroupId,
    replica: ReplicaId,
    id: String,
}

/// Sends a snapshot and has it installed. Dropping the future ends the transfer; what has arrived is kept there.
///
/// # Errors
/// If the peer cannot be reached, refuses it, or nothing moves for too long.
pub(crate) async fn send(
    pool: &PeerPool,
    node: NodeId,
    (group, replica): (GroupId, ReplicaId),
    vote: Vote,
    snapshot: Snapshot,
) -> Result<SnapshotResponse<TypeConfig>, CallError> {
    let peer = &*pool.peer(node)?;
    let _only_one = pool.transfers.acquire(node, group).await;
    let dir = snapshot.snapshot.path().to_owned();
    let files = {
        let dir = dir.clone();
        let listed = blocking::aside(move || manifest::read(&dir)).await;
        let unreadable = |error: io::Error| {
            CallError::not_sent(node, Reason::Internal, format!("the snapshot cannot be read: {error}"))
        };
        listed.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(unreadable)?
    };
    let connect = Duration::from_millis(pool.options().tuning.connect_timeout_ms);
    let connection = peer.connection(Instant::now() + connect).await?;
    let id = format!("{:032x}", rand::random::<u128>());
    let transfer = Transfer { pool, peer, connection, group, replica, id };
    let have = transfer.offer(vote, &snapshot, &files).await?;
    transfer.chunks(dir, missing(&files, &have)).await?;
    let response = transfer.install(vote).await?;
    PeerStats::inc(&peer.stats.snapshots_sent);
    Ok(response)
}

/// What is left to be read of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rest {
    file: u32,
    name: PathBuf,
    from: u64,
    bytes: u64,
}

/// What the receiver lacks. Content that occurs twice is sent once.
fn missing(files: &[ManifestFile], have: &[u64]) -> Vec<Rest> {
    let mut seen = HashSet::new();
    let lacks = |(at, (file, have)): (usize, (&ManifestFile, &u64))| {
        let bytes = file.content.bytes;
        let wanted = *have < bytes && seen.insert(file.content);
        wanted.then(|| Rest { file: at as u32, name: file.name.clone(), from: *have, bytes })
    };
    files.iter().zip(have).enumerate().filter_map(lacks).collect()
}

impl Transfer<'_> {
    fn error(&self, what: &str, error: impl std::fmt::Display) -> CallError {
        CallError::unknown(
            self.peer.node,
            Reason::Unavailable,
            format!("snapshot of group {}: {what}: {error}", self.group),
        )
    }

    fn refused(&self, what: &str, status: &tonic::Status) -> CallError {
        self.error(what, status_to_error(status))
    }

    async fn offer(&self, vote: Vote, snapshot: &Snapshot, files: &[ManifestFile]) -> Result<Vec<u64>, CallError> {
        let request = v1::OfferSnapshotRequest {
            group_id: self.group.0,
            replica_id: self.replica.0,
            vote: Some(encode_vote(&vote)),
            meta: Some(encode_snapshot_meta(&snapshot.meta)),
            files: manifest::encode(files),
            snapshot_id: self.id.clone(),
        };
        let mut client = self.connection.client();
        let limit = Duration::from_millis(self.pool.options().tuning.snapshot_stall_ms);
        let answer = timeout(limit, client.offer_snapshot(self.connection.request(request))).await;
        let response = answer.map_err(|e| self.error("offer", e))?.map_err(|s| self.refused("offer", &s))?;
        let have = response.into_inner().have_bytes;
        if have.len() != files.len() {
            return Err(self.error("offer", "the answer does not fit the files"));
        }
        Ok(have)
    }

    async fn chunks(&self, dir: PathBuf, rests: Vec<Rest>) -> Result<(), CallError> {
        if rests.is_empty() {
            return Ok(());
        }
        let tuning = &self.pool.options().tuning;
        let stall = Duration::from_millis(tuning.snapshot_stall_ms);
        let chunk_bytes = tuning.snapshot_chunk_bytes.max(1);
        let (read, mut pieces) = mpsc::channel::<io::Result<(u32, u64, Bytes)>>(2);
        // Ends by itself when the other end is dropped.
        tokio::spawn(read_files(dir, rests, chunk_bytes, read));
        let (out, chunks) = mpsc::channel(2);
        let feed = async move {
            while let Some(piece) = pieces.recv().await {
                let (file, offset, data) = piece.map_err(|e| self.error("read", e))?;
                self.pool.snapshot_rate.pass(data.len()).await;
                let bytes = data.len() as u64;
                let crc = crc32c::crc32c(&data);
                let (group_id, snapshot_id) = (self.group.0, self.id.clone());
                let chunk = v1::SnapshotChunk { group_id, snapshot_id, file, offset, data, crc };
                match timeout(stall, out.send(chunk)).await {
                    Ok(Ok(())) => PeerStats::add(&self.peer.stats.snapshot_bytes_sent, bytes),
                    // The call has ended: its answer tells why.
                    Ok(Err(_)) => return Ok(()),
                    Err(error) => return Err(self.error("send", error)),
                }
            }
            Ok(())
        };
        let mut client = self.connection.client();
        let call = client.send_snapshot(self.connection.request(ReceiverStream::new(chunks)));
        let call = async { call.await.map(|_| ()).map_err(|s| self.refused("send", &s)) };
        tokio::pin!(feed, call);
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            fed = &mut feed => fed?,
        }
        timeout(stall, call).await.map_err(|e| self.error("send", e))?
    }

    async fn install(&self, vote: Vote) -> Result<SnapshotResponse<TypeConfig>, CallError> {
        let request = v1::InstallSnapshotRequest {
            group_id: self.group.0,
            replica_id: self.replica.0,
            vote: Some(encode_vote(&vote)),
            snapshot_id: self.id.clone(),
        };
        let limit = Duration::from_millis(self.pool.options().tuning.snapshot_install_ms);
        let mut client = self.connection.client();
        let answer = timeout(limit, client.install_snapshot(self.connection.request(request))).await;
        let response = answer.map_err(|e| self.error("install", e))?.map_err(|s| self.refused("install", &s))?;
        let vote = response.into_inner().vote.ok_or_else(|| self.error("install", "the answer has no vote"))?;
        Ok(SnapshotResponse::new(decode_vote(&vote)))
    }
}

/// Reads what is missing, piece by piece, until nobody wants it any more.
async fn read_files(
    dir: PathBuf,
    rests: Vec<Rest>,
    chunk_bytes: usize,
    out: mpsc::Sender<io::Result<(u32, u64, Bytes)>>,
) {
    for rest in rests {
        let (path, from) = (dir.join(&rest.name), rest.from);
        let mut file = pooled(move || open_at(&path, from)).await;
        let mut offset = from;
        while offset < rest.bytes {
            let length = (rest.bytes - offset).min(chunk_bytes as u64);
            let read = match file {
                Ok(open) => pooled(move || read_piece(open, length as usize)).await,
                Err(error) => Err(error),
            };
            let (piece, next) = match read {
                Ok((open, data)) => (Ok((rest.file, offset, data)), Some(open)),
                Err(error) => (Err(error), None),
            };
            let taken = out.send(piece).await.is_ok();
            match next {
                Some(open) if taken => file = Ok(open),
                Some(_) | None => return,
            }
            offset += length;
        }
    }
}

async fn pooled<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    blocking::aside(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn open_at(path: &Path, from: u64) -> io::Result<File> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    Ok(file)
}

fn read_piece(mut file: File, length: usize) -> io::Result<(File, Bytes)> {
    let mut data = BytesMut::zeroed(length);
    file.read_exact(&mut data)?;
    Ok((file, data.freeze()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::manifest::Content;
    use super::*;

    fn file(name: &str, checksum: u128, bytes: u64) -> ManifestFile {
        ManifestFile { name: name.into(), content: Content { checksum, bytes } }
    }

    #[test]
    fn only_what_the_receiver_lacks_is_sent_and_equal_content_once() {
        let files = [file("a", 1, 10), file("b", 2, 10), file("c", 3, 0), file("d", 1, 10), file("e", 5, 4)];
        let rest = |at, name: &str, from, bytes| Rest { file: at, name: name.into(), from, bytes };
        assert_eq!(missing(&files, &[0, 10, 0, 0, 3]), [rest(0, "a", 0, 10), rest(4, "e", 3, 4)]);
        assert_eq!(missing(&files, &[11, 10, 0, 10, 4]), [], "a receiver that claims too much gets nothing");
    }

    proptest! {
        #[test]
        fn the_pieces_of_a_file_are_the_file(
            content: Vec<u8>, from in 0usize..100, chunk_bytes in 1usize..40,
        ) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("f"), &content).unwrap();
            let from = from.min(content.len());
            let rest = Rest { file: 3, name: "f".into(), from: from as u64, bytes: content.len() as u64 };
            let (out, mut pieces) = mpsc::channel(200);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(read_files(dir.path().to_owned(), vec![rest], chunk_bytes, out));
            let mut read = Vec::new();
            while let Some(piece) = pieces.blocking_recv() {
                let (file, offset, data) = piece.unwrap();
                prop_assert_eq!((file, offset), (3, (from + read.len()) as u64));
                prop_assert!(!data.is_empty() && data.len() <= chunk_bytes);
                read.extend_from_slice(&data);
            }
            prop_assert_eq!(&read[..], &content[from..]);
        }
    }
}
