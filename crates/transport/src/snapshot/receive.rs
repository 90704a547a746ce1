use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use drover_keys::{GroupId, NodeId, ReplicaId};
use drover_kv::{Error, Reason};
use drover_rafttypes::{SnapshotDir, SnapshotMeta, Vote, decode_snapshot_meta, encode_vote};
use drover_seams::blocking::aside;
use drover_wire::proto::storage::v1 as pb;
use drover_wire::proto::v1;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tonic::Status;

use super::manifest::{self, Content, ManifestFile};
use super::staging::{PartFile, Staging, StagingError};
use crate::codec;
use crate::service::{NodeService, Snapshot};
use crate::stats::PeerStats;

/// The receiving side of all snapshots.
pub(crate) struct Receiver {
    service: Arc<dyn NodeService>,
    groups: Mutex<HashMap<GroupId, Slot>>,
    /// How long what has arrived is kept when nothing more comes.
    keep: Duration,
}

/// What arrives for one group. One thing at a time: the lock is held while files are written, checked or installed, by
/// the thread that does it, so that a call that goes away in the middle leaves nobody writing behind its back.
type Slot = Arc<tokio::sync::Mutex<Progress>>;

#[derive(Default)]
struct Progress {
    /// Whether this process has taken over the staging folder.
    opened: bool,
    offer: Option<Arc<Offer>>,
    /// When something came last.
    touched: Option<Instant>,
}

/// A snapshot that is being sent.
struct Offer {
    from: NodeId,
    id: String,
    meta: pb::SnapshotMeta,
    files: Vec<ManifestFile>,
    staging: Staging,
}

impl Receiver {
    pub(crate) fn new(service: Arc<dyn NodeService>, keep: Duration) -> Self {
        Self { service, groups: Mutex::default(), keep }
    }

    /// The group's slot.
    ///
    /// # Errors
    /// If there is no replica of the group.
    fn slot(&self, group: GroupId, replica: ReplicaId) -> Result<Slot, Error> {
        if self.service.raft(group, replica).is_none() {
            return Err(no_replica(group, replica));
        }
        Ok(Arc::clone(self.groups.lock().entry(group).or_default()))
    }

    /// The slot of a group for which something was offered.
    fn offered(&self, group: GroupId) -> Result<Slot, Error> {
        self.groups.lock().get(&group).cloned().ok_or_else(not_offered)
    }

    /// Takes note of what is to come. Returns how much of each file is there. An earlier offer for the group ends.
    pub(crate) async fn offer(&self, from: NodeId, request: v1::OfferSnapshotRequest) -> Result<Vec<u64>, Error> {
        let group = GroupId(request.group_id);
        let files = manifest::decode(request.files).map_err(invalid)?;
        let meta = request.meta.ok_or_else(|| invalid("the snapshot has no description"))?;
        codec::leader_vote(request.vote.as_ref()).map_err(invalid)?;
        decode_snapshot_meta(&meta).map_err(invalid)?;
        let slot = self.slot(group, ReplicaId(request.replica_id))?;
        let dir = self.service.snapshot_staging_dir(group);
        let mut progress = Arc::clone(&slot).lock_owned().await;
        let have = blocking(move || {
            let (staging, have) = prepare(dir, !progress.opened, &files).map_err(|e| disk(&e))?;
            progress.opened = true;
            progress.touched = Some(Instant::now());
            progress.offer = Some(Arc::new(Offer { from, id: request.snapshot_id, meta, files, staging }));
            Ok(have)
        })
        .await?;
        tokio::spawn(expire(Arc::downgrade(&slot), self.keep));
        Ok(have)
    }

    /// Writes chunks until their stream ends. Returns how many bytes came.
    pub(crate) async fn receive(
        &self,
        from: NodeId,
        mut chunks: impl Stream<Item = Result<v1::SnapshotChunk, Status>> + Unpin,
        stats: &PeerStats,
        stall: Duration,
    ) -> Result<u64, Error> {
        let mut received = 0;
        let mut part = None;
        loop {
            let chunk = match timeout(stall, chunks.next()).await {
                Ok(None) => return Ok(received),
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(status))) => return Err(unavailable(status.message())),
                Err(_) => return Err(unavailable("no part of the snapshot came for too long")),
            };
            let bytes = chunk.data.len() as u64;
            part = self.write(from, chunk, part).await?;
            received += bytes;
            PeerStats::add(&stats.snapshot_bytes_received, bytes);
        }
    }

    /// Writes one chunk into `part`, or into the file it names. Returns the file that is open then.
    async fn write(
        &self,
        from: NodeId,
        chunk: v1::SnapshotChunk,
        part: Option<PartFile>,
    ) -> Result<Option<PartFile>, Error> {
        let slot = self.offered(GroupId(chunk.group_id))?;
        let mut progress = slot.lock_owned().await;
        let offer = present(&progress, from, &chunk.snapshot_id)?;
        progress.touched = Some(Instant::now());
        let content = place(&offer.files, &chunk)?;
        blocking(move || {
            let _held = progress;
            intact(&chunk)?;
            let mut part = match part {
                Some(part) if part.content == content => part,
                Some(_) | None => offer.staging.append_to(content).map_err(|e| disk(&e))?,
            };
            if part.length != chunk.offset {
                return Err(invalid(format!("a chunk starts at {}, {} was expected", chunk.offset, part.length)));
            }
            part.write(&chunk.data).map_err(|e| disk(&e))?;
            Ok((part.length < content.bytes).then_some(part))
        })
        .await
    }

    /// Checks every file and hands the snapshot to the group's Raft. Returns the vote that it then has.
    pub(crate) async fn install(
        &self,
        from: NodeId,
        request: v1::InstallSnapshotRequest,
        stats: &PeerStats,
    ) -> Result<pb::Vote, Error> {
        let (group, replica) = (GroupId(request.group_id), ReplicaId(request.replica_id));
        let vote = codec::leader_vote(request.vote.as_ref()).map_err(invalid)?;
        let slot = self.slot(group, replica)?;
        let mut progress = slot.lock_owned().await;
        let offer = present(&progress, from, &request.snapshot_id)?;
        let meta = of_leader(&offer.meta, &vote)?;
        let raft = self.service.raft(group, replica).ok_or_else(|| no_replica(group, replica))?;
        let dir = {
            let offer = Arc::clone(&offer);
            blocking(move || offer.staging.assemble(&offer.files).map_err(|e| unassembled(&e))).await?
        };
        let snapshot = Snapshot { meta, snapshot: SnapshotDir::new(dir) };
        let response = raft
            .install_snapshot(vote, snapshot)
            .await
            .map_err(|error| Error::unknown(Reason::ReplicaStopped, format!("group {group} has stopped: {error}")))?;
        progress.offer = None;
        PeerStats::inc(&stats.snapshots_received);
        blocking(move || offer.staging.keep_only(&[]).map_err(|e| disk(&e))).await?;
        Ok(encode_vote(&response.vote))
    }
}

/// Which of the files that were offered a chunk is a part of.
pub(super) fn place(files: &[ManifestFile], chunk: &v1::SnapshotChunk) -> Result<Content, Error> {
    let file = usize::try_from(chunk.file).ok().and_then(|at| files.get(at));
    let content = file.ok_or_else(|| invalid("the chunk belongs to a file that was not offered"))?.content;
    let end = chunk.offset.checked_add(chunk.data.len() as u64);
    if end.is_none_or(|end| end > content.bytes) {
        return Err(invalid("the chunk reaches beyond the end of its file"));
    }
    Ok(content)
}

/// Refuses a chunk that was damaged on its way.
pub(super) fn intact(chunk: &v1::SnapshotChunk) -> Result<(), Error> {
    if crc32c::crc32c(&chunk.data) == chunk.crc {
        Ok(())
    } else {
        Err(invalid("the checksum of a chunk does not match"))
    }
}

/// The description of a snapshot, if the leader with this vote may send it.
pub(super) fn of_leader(meta: &pb::SnapshotMeta, vote: &Vote) -> Result<SnapshotMeta, Error> {
    let meta = decode_snapshot_meta(meta).map_err(invalid)?;
    if meta.last_log_id.is_some_and(|last| *last.leader_id > vote.leader_id.term) {
        return Err(invalid("the snapshot is newer than the leader that sends it"));
    }
    Ok(meta)
}

fn prepare(dir: PathBuf, fresh: bool, files: &[ManifestFile]) -> std::io::Result<(Staging, Vec<u64>)> {
    let staging = Staging::open(dir, fresh)?;
    staging.keep_only(files)?;
    let have = files.iter().map(|file| staging.have_bytes(file.content)).collect::<std::io::Result<_>>()?;
    Ok((staging, have))
}

/// Removes what has arrived when nothing more has come for a while: the sender has given up, or found another way.
async fn expire(slot: Weak<tokio::sync::Mutex<Progress>>, keep: Duration) {
    let mut wake = Instant::now() + keep;
    loop {
        tokio::time::sleep_until(wake).await;
        let Some(slot) = slot.upgrade() else { return };
        let mut progress = slot.lock_owned().await;
        let (Some(offer), Some(touched)) = (progress.offer.clone(), progress.touched) else { return };
        wake = touched + keep;
        if wake > Instant::now() {
            continue;
        }
        progress.offer = None;
        let removed = blocking(move || {
            let _held = progress;
            offer.staging.keep_only(&[]).map_err(|e| disk(&e))
        });
        if let Err(error) = removed.await {
            tracing::warn!(error = %error.message, "an unfinished snapshot could not be removed");
        }
        return;
    }
}

/// The offer that a message belongs to.
fn present(progress: &Progress, from: NodeId, id: &str) -> Result<Arc<Offer>, Error> {
    let offer = progress.offer.as_ref().filter(|offer| offer.from == from && offer.id == id);
    offer.cloned().ok_or_else(not_offered)
}

fn not_offered() -> Error {
    Error::definite(
        Reason::FailedPrecondition,
        "this snapshot was not offered, or another one since; nothing was changed; offer it again",
    )
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    aside(work).await.unwrap_or_else(|error| Err(Error::definite(Reason::Internal, error.to_string())))
}

fn no_replica(group: GroupId, replica: ReplicaId) -> Error {
    let message = format!("this node does not hold replica {replica} of group {group}; nothing was changed");
    Error::definite(Reason::UnknownGroup, message)
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::definite(Reason::InvalidArgument, format!("{what}; nothing was changed"))
}

fn unavailable(what: impl std::fmt::Display) -> Error {
    Error::definite(Reason::Unavailable, format!("{what}; what has arrived is kept"))
}

fn disk(error: &std::io::Error) -> Error {
    Error::definite(Reason::Unavailable, format!("the staging folder cannot be used: {error}; free or mend the disk"))
}

fn unassembled(error: &StagingError) -> Error {
    let reason = match error {
        StagingError::Io(_) => Reason::Unavailable,
        StagingError::Damaged(_) | StagingError::Incomplete(_) => Reason::FailedPrecondition,
    };
    Error::definite(reason, format!("{error}; nothing was installed"))
}
