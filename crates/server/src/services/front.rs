//! Where every client request passes, whichever call or session message it came in: admission, deadline, figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::{CatalogCommandKind, CatalogReply, RequestId};
use drover_coordinator::{Answer, Coordinator};
use drover_keys::NodeId;
use drover_kv::{Error, Reason};
use drover_wire::{Request, WireError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::disk::DiskState;
use crate::metrics::Metrics;

/// What a [`Front`] is made of.
pub struct FrontParts {
    /// Runs the requests.
    pub coordinator: Arc<Coordinator>,
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// Requests at once; above it they are refused.
    pub max_requests: usize,
    /// How long a request may take if its caller does not say.
    pub default_deadline: Duration,
    /// How long a commit may take, whatever its caller says.
    pub max_commit: Duration,
    /// Free space.
    pub disk: watch::Receiver<DiskState>,
}

/// Admits client requests and runs them.
pub struct Front {
    parts: FrontParts,
    room: Arc<Semaphore>,
    draining: AtomicBool,
    drained: CancellationToken,
}

impl Front {
    /// A front that takes requests at once.
    pub fn new(parts: FrontParts) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(parts.max_requests));
        Arc::new(Self { parts, room, draining: AtomicBool::new(false), drained: CancellationToken::new() })
    }

    /// The coordinator.
    pub fn coordinator(&self) -> &Arc<Coordinator> {
        &self.parts.coordinator
    }

    /// From now on requests are refused; completes when those that were admitted are answered.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        // What waits for a range has not begun, and another node takes it.
        self.parts.coordinator.parking().close();
        let all = u32::try_from(self.parts.max_requests).unwrap_or(u32::MAX);
        if let Ok(finished) = self.room.acquire_many(all).await {
            // Kept for good: a request that was about to be admitted finds no room.
            finished.forget();
        }
        self.drained.cancel();
    }

    /// Whether requests are refused because the node is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Cancelled when every admitted request is answered: streams may end.
    pub fn drained(&self) -> CancellationToken {
        self.drained.clone()
    }

    /// Runs one request. `transport_deadline` is what gRPC says, if it says anything.
    ///
    /// # Errors
    /// Each says whether anything happened.
    pub async fn run(
        &self,
        request: Result<Request, WireError>,
        transport_deadline: Option<Duration>,
    ) -> Result<Answer, Error> {
        let arrived = Instant::now();
        let request = request?;
        let timer = self.parts.metrics.requests.start(method(&request));
        let answer = match self.admit(&request) {
            Ok(room) => {
                let mut allowed = self.allowed(request.timeout_ms().unwrap_or(0), transport_deadline);
                if matches!(request, Request::Commit(_)) {
                    // It may hold locks for as long.
                    allowed = allowed.min(self.parts.max_commit);
                }
                let deadline = arrived + allowed;
                match request {
                    // It goes on to its end when its caller goes away, and takes room for as long.
                    Request::Commit(_) => {
                        let coordinator = Arc::clone(&self.parts.coordinator);
                        let committing = tokio::spawn(async move {
                            let answer = coordinator.handle(request, deadline).await;
                            drop(room);
                            answer
                        });
                        committing.await.unwrap_or_else(|error| {
                            let message = format!("the task that commits has ended: {error}; ask for its status");
                            Err(Error::unknown(Reason::Internal, message))
                        })
                    }
                    request => {
                        let answer = self.parts.coordinator.handle(request, deadline).await;
                        drop(room);
                        answer
                    }
                }
            }
            Err(error) => Err(error),
        };
        timer.finish(answer.as_ref().map(|_| ()).map_err(|error| error.reason));
        answer
    }

    fn admit(&self, request: &Request) -> Result<OwnedSemaphorePermit, Error> {
        if self.is_draining() {
            return Err(stopping());
        }
        if writes(request) && self.parts.disk.borrow().full {
            return Err(disk_full());
        }
        Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            let limit = self.parts.max_requests;
            let message = format!("this node works on {limit} requests already; nothing happened, try again later");
            Error::definite(Reason::Overloaded, message).retry_after_ms(20)
        })
    }

    /// Has the catalog carry out what somebody asks for.
    ///
    /// # Errors
    /// What the catalog refused; [`Reason::ShuttingDown`]; [`Reason::DiskFull`], unless it is upkeep; otherwise as for writes.
    pub async fn change_catalog(
        &self,
        id: RequestId,
        actor: String,
        kind: CatalogCommandKind,
        deadline: Instant,
    ) -> Result<CatalogReply, Error> {
        match kind.is_upkeep() {
            // Taken even where disks are full: it may be what makes room.
            true if self.is_draining() => return Err(stopping()),
            true => {}
            false => self.may_write()?,
        }
        self.parts.coordinator.catalog(id, actor, kind, deadline).await
    }

    /// Refuses what would write something, while this node cannot help with that.
    ///
    /// # Errors
    /// [`Reason::ShuttingDown`], [`Reason::DiskFull`]; definite.
    pub fn may_write(&self) -> Result<(), Error> {
        match (self.is_draining(), self.parts.disk.borrow().full) {
            (true, _) => Err(stopping()),
            (false, true) => Err(disk_full()),
            (false, false) => Ok(()),
        }
    }

    /// When a call ends whose caller allows `timeout_ms` (zero: does not say) and gRPC `transport`.
    pub fn deadline(&self, timeout_ms: u32, transport: Option<Duration>) -> Instant {
        Instant::now() + self.allowed(timeout_ms, transport)
    }

    fn allowed(&self, timeout_ms: u32, transport: Option<Duration>) -> Duration {
        let asked = (timeout_ms != 0).then(|| Duration::from_millis(u64::from(timeout_ms)));
        let limit = asked.or(transport).unwrap_or(self.parts.default_deadline);
        limit.min(transport.unwrap_or(limit))
    }

    /// The node that is believed to lead the group of the key that a request is about.
    pub fn leader_hint(&self, key: &Bytes) -> Option<NodeId> {
        let coordinator = &self.parts.coordinator;
        coordinator.dispatcher().believed_leader(coordinator.group_of(key))
    }
}

fn stopping() -> Error {
    Error::definite(Reason::ShuttingDown, "this node is stopping; nothing happened, ask another node")
}

/// What a write is told while there is no space.
pub fn disk_full() -> Error {
    Error::definite(
        Reason::DiskFull,
        "the disk of this node is too full to take writes; nothing happened; free space, or write through another node",
    )
}

fn writes(request: &Request) -> bool {
    match request {
        Request::Write { .. } | Request::DeleteRange { .. } | Request::Settle { .. } => true,
        Request::Commit(commit) => !commit.mutations.is_empty(),
        Request::Get { .. } | Request::BatchGet { .. } | Request::Scan(_) | Request::LatestCommitTs { .. } => false,
    }
}

fn method(request: &Request) -> &'static str {
    use drover_kv::WriteKind;
    match request {
        Request::Get { .. } => "Get",
        Request::BatchGet { .. } => "BatchGet",
        Request::Write { kind: WriteKind::Put { .. }, .. } => "Put",
        Request::Write { kind: WriteKind::Delete { .. }, .. } => "Delete",
        Request::Write { .. } => "CompareAndSet",
        Request::Scan(_) => "Scan",
        Request::DeleteRange { .. } => "DeleteRange",
        Request::LatestCommitTs { .. } => "LatestCommitTs",
        Request::Settle { .. } => "Settle",
        Request::Commit(_) => "Commit",
    }
}

/// The time that a caller allows, from the `grpc-timeout` header. A header that is not one is ignored, as gRPC says.
pub fn grpc_timeout(metadata: &tonic::metadata::MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3_600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_header_is_read_as_grpc_defines_it() {
        let table = [
            ("5S", Some(Duration::from_secs(5))),
            ("20m", Some(Duration::from_millis(20))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("1H", Some(Duration::from_secs(3_600))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("5x", None),
            ("-5S", None),
            ("+5S", None),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
        ];
        for (text, expect) in table {
            let mut metadata = tonic::metadata::MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(grpc_timeout(&metadata), expect, "{text}");
        }
        assert_eq!(grpc_timeout(&tonic::metadata::MetadataMap::new()), None);
    }
}
