use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use drover_catalog::job::JobProgress;
use drover_catalog::{CatalogCommand, CatalogCommandKind, CatalogReply, CatalogRow, RequestId};
use drover_fsm::{decode_catalog_reply, decode_catalog_row, encode_catalog_command};
use drover_guards::{self as guards, Guard};
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{GroupId, JobId};
use drover_kv::{Error, Idempotency, Limits, ReadAnswer, ReadOp, Reason, WriteKind};
use drover_raftgroup::SharedTimestamps;
use drover_wire::{CatalogPart, GroupAnswer, GroupOp, IdempotencyKey, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::Answer;
use crate::dispatch::Dispatcher;
use crate::options::CoordinatorOptions;
use crate::parking::Parking;
use crate::retry::Repeat;
use crate::route_cache::RouteCache;

/// Takes clients' requests to the groups that own their keys.
pub struct Coordinator {
    dispatcher: Arc<Dispatcher>,
    timestamps: SharedTimestamps,
    options: CoordinatorOptions,
    /// Raw form of the highest timestamp that this node knows to have been issued.
    issued: AtomicU64,
    /// Room for finding out what became of transactions.
    settling: Arc<Semaphore>,
    parking: Parking,
}

/// Transactions at once about which a node finds out what became of them, after their deadlines. When a group has no quorum, there
/// may be many.
const SETTLED_AT_ONCE: usize = 256;

impl Coordinator {
    /// A coordinator over `dispatcher` and the routes it knows.
    pub fn new(dispatcher: Arc<Dispatcher>, timestamps: SharedTimestamps, options: CoordinatorOptions) -> Self {
        let settling = Arc::new(Semaphore::new(SETTLED_AT_ONCE));
        let parking = Parking::new(options.parking);
        Self { dispatcher, timestamps, options, issued: AtomicU64::new(0), settling, parking }
    }

    /// What is known of the catalog.
    pub fn routes(&self) -> &Arc<RouteCache> {
        self.dispatcher.routes()
    }

    /// How requests reach the groups.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    /// Writes that wait for ranges that are held back.
    pub fn parking(&self) -> &Parking {
        &self.parking
    }

    /// The group that owns `key` by the route map in use.
    pub fn group_of(&self, key: &[u8]) -> GroupId {
        self.routes().current().route_of(key).group
    }

    /// Runs a command of the catalog. An attempt after an unknown one gets the first answer, by the request's id.
    ///
    /// # Errors
    /// What the catalog refused; otherwise as for writes.
    pub async fn catalog(
        &self,
        request_id: RequestId,
        actor: String,
        kind: CatalogCommandKind,
        deadline: Instant,
    ) -> Result<CatalogReply, Error> {
        // The leader puts its own time in.
        let command = CatalogCommand { request_id, actor, now: PhysicalMs::default(), kind };
        let op = GroupOp::Catalog { command: encode_catalog_command(&command)? };
        match self.dispatcher.call(GroupId::DEFAULT, op, Repeat::Recognised, deadline).await? {
            GroupAnswer::Catalog(reply) => decode_catalog_reply(reply),
            other => Err(misfit(&other)),
        }
    }

    /// What a command of the catalog would be answered with now, and whether it would change something: not if it was carried
    /// out before, or there is nothing to do. Nothing is changed.
    ///
    /// # Errors
    /// What the catalog would refuse; all are definite.
    pub async fn judge_catalog(
        &self,
        request_id: RequestId,
        actor: String,
        kind: CatalogCommandKind,
        deadline: Instant,
    ) -> Result<(CatalogReply, bool), Error> {
        let command = CatalogCommand { request_id, actor, now: PhysicalMs::default(), kind };
        let op = GroupOp::JudgeCatalog { command: encode_catalog_command(&command)? };
        match self.dispatcher.call(GroupId::DEFAULT, op, Repeat::Read, deadline).await? {
            GroupAnswer::Judged { reply, changes } => Ok((decode_catalog_reply(reply)?, changes)),
            other => Err(misfit(&other)),
        }
    }

    /// How far those of these jobs are of which something is known.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn job_progress(&self, jobs: Vec<JobId>, deadline: Instant) -> Result<Vec<JobProgress>, Error> {
        let op = GroupOp::JobProgress { jobs };
        match self.dispatcher.call(GroupId::DEFAULT, op, Repeat::Read, deadline).await? {
            GroupAnswer::JobProgress(jobs) => Ok(jobs),
            other => Err(misfit(&other)),
        }
    }

    /// Rows of the catalog as of now, at most `limit`.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn read_catalog(
        &self,
        part: CatalogPart,
        limit: u32,
        deadline: Instant,
    ) -> Result<Vec<CatalogRow>, Error> {
        let op = GroupOp::ReadCatalog { part, limit };
        match self.dispatcher.call(GroupId::DEFAULT, op, Repeat::Read, deadline).await? {
            GroupAnswer::CatalogRows(rows) => {
                rows.into_iter().map(|(key, value)| decode_catalog_row(&key, value)).collect()
            }
            other => Err(misfit(&other)),
        }
    }

    /// Runs one request.
    ///
    /// # Errors
    /// Each says whether anything happened; see [`Reason`].
    pub async fn handle(self: &Arc<Self>, request: Request, deadline: Instant) -> Result<Answer, Error> {
        match request {
            Request::Get { key, options } => {
                self.options.limits.check_key(&key)?;
                let read_ts = self.admit(options.read_ts, deadline).await?;
                let op = ReadOp::Get { key: key.clone(), read_ts };
                match self.read(&key, op, deadline).await? {
                    ReadAnswer::Get { version, read_ts } => Ok(Answer::Get { version, read_ts }),
                    other => Err(misfit(&other)),
                }
            }
            Request::BatchGet { keys, options } => {
                let read_ts = self.snapshot(options.read_ts, deadline).await?;
                let versions = self.batch_get(keys, read_ts, deadline).await?;
                Ok(Answer::BatchGet { versions, read_ts })
            }
            Request::Write { kind, options } => {
                let idempotency = self.idempotency(options.idempotency)?;
                self.write(kind, idempotency, deadline).await.map(Answer::Written)
            }
            Request::Scan(scan) => self.scan(scan, deadline).await,
            Request::DeleteRange { interval, cursor, options } => {
                let idempotency = self.idempotency(options.idempotency)?;
                self.delete_range(&interval, cursor, idempotency, deadline).await
            }
            Request::LatestCommitTs { key, options: _ } => {
                self.options.limits.check_key(&key)?;
                let op = ReadOp::LatestCommitTs { key: key.clone() };
                match self.read(&key, op, deadline).await? {
                    ReadAnswer::LatestCommitTs(commit_ts) => Ok(Answer::LatestCommitTs(commit_ts)),
                    other => Err(misfit(&other)),
                }
            }
            Request::Settle { key, idempotency_key, not_after, timeout_ms: _ } => {
                let key_to_settle = IdempotencyKey { key: idempotency_key, not_after: Some(not_after) };
                let idempotency = self.idempotency(Some(key_to_settle))?;
                self.write(WriteKind::Settle { key }, idempotency, deadline).await.map(Answer::Settled)
            }
            // A commit remembers far more than the others: every one of them would have to take as much room.
            Request::Commit(commit) => Box::pin(self.commit(commit, deadline)).await.map(Answer::Committed),
        }
    }

    /// Checks a timestamp that comes from a client: it must have been issued.
    pub(crate) async fn admit(
        &self,
        read_ts: Option<Timestamp>,
        deadline: Instant,
    ) -> Result<Option<Timestamp>, Error> {
        let Some(at) = read_ts else { return Ok(None) };
        if at.raw() > self.issued.load(Ordering::SeqCst)
            && at > self.fresh(deadline).await?
            && guards::on(Guard::ReadTimestampIssued)
        {
            let message =
                format!("the read timestamp {at} is above every timestamp that has been issued; nothing was read");
            return Err(Error::definite(Reason::TimestampInFuture, message));
        }
        Ok(Some(at))
    }

    pub(crate) async fn snapshot(&self, read_ts: Option<Timestamp>, deadline: Instant) -> Result<Timestamp, Error> {
        match self.admit(read_ts, deadline).await? {
            Some(at) => Ok(at),
            None => self.fresh(deadline).await,
        }
    }

    /// A timestamp above all that were issued before.
    ///
    /// # Errors
    /// Definite.
    pub async fn fresh(&self, deadline: Instant) -> Result<Timestamp, Error> {
        let at = self.timestamps.timestamps(1, deadline).await?;
        self.note_issued(at);
        Ok(at)
    }

    pub(crate) fn note_issued(&self, at: Timestamp) {
        self.issued.fetch_max(at.raw(), Ordering::SeqCst);
    }

    pub(crate) fn options(&self) -> &CoordinatorOptions {
        &self.options
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// Room for finding out what became of one transaction; `None` if there was none until `deadline`.
    pub(crate) async fn room_to_settle(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.settling).acquire_owned();
        tokio::time::timeout_at(deadline.into(), room).await.ok()?.ok()
    }

    pub(crate) fn lock_ttl_ms(&self) -> u64 {
        u64::try_from(self.options.txn_lock_ttl.as_millis()).unwrap_or(u64::MAX)
    }

    fn idempotency(&self, key: Option<IdempotencyKey>) -> Result<Option<Idempotency>, Error> {
        let Some(IdempotencyKey { key, not_after }) = key else { return Ok(None) };
        let limit = self.options.limits.idempotency_key_bytes;
        if key.len() > limit {
            let message =
                format!("the idempotency key has {} bytes, the limit is {limit} bytes; nothing was changed", key.len());
            return Err(Error::definite(Reason::InvalidArgument, message));
        }
        // A value chosen here would differ from attempt to attempt, and a retry would not be recognised.
        let not_after = not_after.ok_or_else(|| {
            let message = "an idempotency key needs not_after, the same in every attempt; nothing was changed";
            Error::definite(Reason::InvalidArgument, message)
        })?;
        Ok(Some(Idempotency { key, not_after }))
    }
}

pub(crate) fn misfit<T: std::fmt::Debug>(answer: &T) -> Error {
    tracing::error!(?answer, "a group gave an answer that does not fit the request");
    Error::unknown(Reason::Internal, "a group gave an answer that does not fit the request; it may have happened")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drover_keys::Interval;
    use drover_kv::ScanLimits;
    use drover_wire::ScanPageRequest;

    use super::*;
    use crate::cursor::{Cursor, request_hash};

    /// Issues always the same timestamp.
    struct Standing(Timestamp);

    impl drover_raftgroup::TimestampSource for Standing {
        fn timestamps(
            &self,
            _count: u32,
            _deadline: Instant,
        ) -> futures::future::BoxFuture<'static, Result<Timestamp, Error>> {
            Box::pin(std::future::ready(Ok(self.0)))
        }
    }

    fn issued() -> Timestamp {
        Timestamp::from_raw(1_000)
    }

    /// What a coordinator without any group answers. A request that is admitted waits for routes until its deadline.
    async fn refused(request: Request) -> Reason {
        use drover_keys::{ClusterId, NodeId, StoreId};
        use drover_transport::{PeerIdentities, PeerOptions, PeerPool};
        let dir = tempfile::tempdir().unwrap();
        let options = PeerOptions::new(ClusterId([1; 16]), NodeId(1), StoreId([1; 16]));
        let peers = PeerPool::new(options, PeerIdentities::open(dir.path().join("peers")).unwrap());
        let dispatcher = Arc::new(Dispatcher::new(NodeId(1), Arc::default(), peers, RouteCache::unknown()));
        let coordinator = Coordinator::new(dispatcher, Arc::new(Standing(issued())), CoordinatorOptions::default());
        let coordinator = Arc::new(coordinator);
        let deadline = Instant::now() + Duration::from_millis(50);
        coordinator.handle(request, deadline).await.unwrap_err().reason
    }

    fn scan(cursor: Option<Timestamp>, read_ts: Option<Timestamp>) -> Request {
        let request = request_hash(&Interval::all(), &[false, false, false]);
        Request::Scan(ScanPageRequest {
            interval: Interval::all(),
            reverse: false,
            keys_only: false,
            count_only: false,
            limits: ScanLimits::default(),
            cursor: cursor.map(|read_ts| Cursor { request, read_ts, next: "k".into() }.encode()),
            options: drover_wire::ReadOptions { read_ts, timeout_ms: None },
        })
    }

    #[tokio::test]
    async fn a_read_timestamp_that_was_not_issued_is_refused() {
        for (at, reason) in [(issued(), Reason::Timeout), (issued().next().unwrap(), Reason::TimestampInFuture)] {
            let options = drover_wire::ReadOptions { read_ts: Some(at), timeout_ms: None };
            assert_eq!(refused(Request::Get { key: "k".into(), options }).await, reason, "{at}");
            assert_eq!(refused(Request::BatchGet { keys: vec!["k".into()], options }).await, reason, "{at}");
            assert_eq!(refused(scan(None, Some(at))).await, reason, "{at}");
        }
    }

    #[tokio::test]
    async fn a_cursor_whose_snapshot_was_not_issued_is_refused() {
        assert_eq!(refused(scan(Some(issued()), None)).await, Reason::Timeout);
        for at in [issued().next().unwrap(), Timestamp::MAX] {
            assert_eq!(refused(scan(Some(at), None)).await, Reason::TimestampInFuture, "{at}");
            assert_eq!(refused(scan(Some(at), Some(at))).await, Reason::TimestampInFuture, "{at}");
        }
    }
}
