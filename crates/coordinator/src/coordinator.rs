use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::{CatalogCommand, CatalogCommandKind, CatalogReply, CatalogRow, RequestId, Route};
use drover_fsm::{decode_catalog_reply, decode_catalog_row, encode_catalog_command};
use drover_guards::{self as guards, Guard};
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{CatalogVersion, End, GroupId, Interval};
use drover_kv::{
    Entry, Error, Idempotency, Limits, LockInfo, Outcome, ReadAnswer, ReadOp, Reason, ScanCursor, ScanLimits, ScanPage,
    ScanRequest, TxnRef, Update, Versioned, WriteKind, WriteOp,
};
use drover_raftgroup::SharedTimestamps;
use drover_wire::{CatalogPart, GroupAnswer, GroupOp, IdempotencyKey, Request, ScanPageRequest};
use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::Answer;
use crate::cursor::{Cursor, request_hash};
use crate::dispatch::{Attempts, CallError, Dispatcher};
use crate::retry::Repeat;
use crate::route_cache::RouteCache;
use crate::txn::{Held, Resolution};

/// Settings of a coordinator.
#[derive(Debug, Clone)]
pub struct CoordinatorOptions {
    /// Sizes above which requests are refused.
    pub limits: Limits,
    /// Rows of one page of a scan, unless the caller asks for fewer.
    pub scan_rows: u64,
    /// Bytes of one page of a scan, unless the caller asks for fewer.
    pub scan_bytes: u64,
    /// Longest time to live that a value may be given, in milliseconds.
    pub max_ttl_ms: u64,
    /// How long the locks of a transaction live unless its coordinator keeps them alive. When they have expired, anybody may
    /// roll it back.
    pub txn_lock_ttl: Duration,
}

impl Default for CoordinatorOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            scan_rows: 10_000,
            scan_bytes: 4 << 20,
            max_ttl_ms: 100 * 365 * 24 * 3_600 * 1_000,
            txn_lock_ttl: Duration::from_secs(10),
        }
    }
}

/// Takes clients' requests to the groups that own their keys.
pub struct Coordinator {
    dispatcher: Arc<Dispatcher>,
    timestamps: SharedTimestamps,
    options: CoordinatorOptions,
    /// Raw form of the highest timestamp that this node knows to have been issued.
    issued: AtomicU64,
    /// Room for finding out what became of transactions.
    settling: Arc<Semaphore>,
}

/// Transactions at once about which a node finds out what became of them, after their deadlines. When a group has no quorum, there
/// may be many.
const SETTLED_AT_ONCE: usize = 256;

impl Coordinator {
    /// A coordinator over `dispatcher` and the routes it knows.
    pub fn new(dispatcher: Arc<Dispatcher>, timestamps: SharedTimestamps, options: CoordinatorOptions) -> Self {
        let settling = Arc::new(Semaphore::new(SETTLED_AT_ONCE));
        Self { dispatcher, timestamps, options, issued: AtomicU64::new(0), settling }
    }

    /// What is known of the catalog.
    pub fn routes(&self) -> &Arc<RouteCache> {
        self.dispatcher.routes()
    }

    /// How requests reach the groups.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
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

    async fn snapshot(&self, read_ts: Option<Timestamp>, deadline: Instant) -> Result<Timestamp, Error> {
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

    /// Runs an operation on the group that owns its key, by a new routing decision after each refusal for its route.
    /// `operation` makes it from the map and the route of the decision.
    async fn routed(
        &self,
        key: &[u8],
        repeat: Repeat,
        deadline: Instant,
        operation: impl Fn(CatalogVersion, &Route) -> GroupOp + Send + Sync,
    ) -> Result<GroupAnswer, Error> {
        let mut attempts = Attempts::default();
        let mut patience = Patience::default();
        loop {
            let (group, version, op) = {
                let routes = self.routes().current();
                let route = routes.route_of(key);
                (route.group, routes.version(), operation(routes.version(), route))
            };
            let call = self.dispatcher.call_routed(group, op, repeat, &mut attempts, deadline);
            match call.await {
                Ok(answer) => return Ok(answer),
                Err(CallError::Failed(error)) => return Err(error),
                Err(CallError::Misrouted(_)) => self.newer_routes(version, &mut patience, &attempts, deadline).await?,
                Err(CallError::Blocked(error)) => self.unblock(&error, &mut patience, &attempts, deadline).await?,
            }
        }
    }

    /// Sees to the lock that `error` names. If its holder may still be at work, waits a little.
    pub(crate) async fn unblock(
        &self,
        error: &Error,
        patience: &mut Patience,
        attempts: &Attempts,
        deadline: Instant,
    ) -> Result<(), Error> {
        let resolution = match &error.lock {
            // Whoever comes upon the same attempt again may have thousands of its locks before him.
            Some(lock) if patience.met == Some(lock.txn) => self.resolve_around(lock, deadline).await,
            Some(lock) => self.resolve_held(Held::one(LockInfo::clone(lock)), false, deadline).await,
            None => Err(error.clone()),
        };
        match resolution {
            Ok(Resolution::Resolved(_)) => patience.met = error.lock.as_ref().map(|lock| lock.txn),
            // If nobody can tell now, somebody may soon.
            Ok(Resolution::Pending(_)) | Err(_) => {
                let wake = Instant::now() + patience.next();
                tokio::time::sleep_until(wake.min(deadline).into()).await;
            }
        }
        if Instant::now() >= deadline { Err(attempts.at_deadline()) } else { Ok(()) }
    }

    /// Waits for a map newer than `version`, for a while: the refusal may have come from a replica that lags, so that the
    /// same map is right the next time.
    pub(crate) async fn newer_routes(
        &self,
        version: CatalogVersion,
        patience: &mut Patience,
        attempts: &Attempts,
        deadline: Instant,
    ) -> Result<(), Error> {
        let until = deadline.min(Instant::now() + patience.next());
        self.routes().newer_than(version, until).await;
        if Instant::now() >= deadline { Err(attempts.at_deadline()) } else { Ok(()) }
    }

    pub(crate) async fn read(&self, key: &Bytes, op: ReadOp, deadline: Instant) -> Result<ReadAnswer, Error> {
        let op = match op {
            // A latest read that had to wait for a lock goes on as one of a fresh snapshot: younger locks do not concern it.
            ReadOp::Get { key: latest, read_ts: None } => match self.read_latest(&latest, deadline).await? {
                Some(answer) => return Ok(answer),
                None => ReadOp::Get { key: latest, read_ts: Some(self.fresh(deadline).await?) },
            },
            op => op,
        };
        let operation = |version, _: &Route| GroupOp::Read { op: op.clone(), observed_version: Some(version) };
        match self.routed(key, Repeat::Read, deadline, operation).await? {
            GroupAnswer::Read(answer) => Ok(answer),
            other => Err(misfit(&other)),
        }
    }

    /// The newest value of a key; `None` if a lock was in the way, which has been seen to.
    async fn read_latest(&self, key: &Bytes, deadline: Instant) -> Result<Option<ReadAnswer>, Error> {
        let (mut attempts, mut patience) = (Attempts::default(), Patience::default());
        loop {
            let (group, version) = {
                let routes = self.routes().current();
                (routes.route_of(key).group, routes.version())
            };
            let op = ReadOp::Get { key: key.clone(), read_ts: None };
            let op = GroupOp::Read { op, observed_version: Some(version) };
            match self.dispatcher.call_routed(group, op, Repeat::Read, &mut attempts, deadline).await {
                Ok(GroupAnswer::Read(answer)) => return Ok(Some(answer)),
                Ok(other) => return Err(misfit(&other)),
                Err(CallError::Failed(error)) => return Err(error),
                Err(CallError::Misrouted(_)) => self.newer_routes(version, &mut patience, &attempts, deadline).await?,
                Err(CallError::Blocked(error)) => {
                    self.unblock(&error, &mut patience, &attempts, deadline).await?;
                    return Ok(None);
                }
            }
        }
    }

    async fn write(
        &self,
        kind: WriteKind,
        idempotency: Option<Idempotency>,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        self.options.limits.check_write(&kind)?;
        self.check_ttl(&kind)?;
        let repeat = if idempotency.is_some() { Repeat::Recognised } else { Repeat::Never };
        self.routed_write(kind, idempotency, repeat, deadline).await
    }

    /// Runs a write that was checked.
    pub(crate) async fn routed_write(
        &self,
        kind: WriteKind,
        idempotency: Option<Idempotency>,
        repeat: Repeat,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        let key = kind.record_key().clone();
        let operation = |version, route: &Route| {
            let (kind, idempotency) = (within_route(&kind, route), idempotency.clone());
            GroupOp::Write(WriteOp { kind, observed_version: Some(version), idempotency })
        };
        match self.routed(&key, repeat, deadline, operation).await? {
            GroupAnswer::Written(outcome) => {
                if let Outcome::Written { commit_ts } | Outcome::RangeDeleted { commit_ts, .. } = &outcome {
                    self.note_issued(*commit_ts);
                }
                Ok(outcome)
            }
            other => Err(misfit(&other)),
        }
    }

    fn check_ttl(&self, kind: &WriteKind) -> Result<(), Error> {
        match kind {
            WriteKind::Put { ttl_ms, .. } => self.check_ttl_ms(*ttl_ms),
            WriteKind::CompareAndSet { update, .. } => self.check_update(update),
            WriteKind::Delete { .. } | WriteKind::DeleteRange { .. } | WriteKind::Settle { .. } | WriteKind::Txn(_) => {
                Ok(())
            }
        }
    }

    pub(crate) fn check_update(&self, update: &Update) -> Result<(), Error> {
        match update {
            Update::Put { ttl_ms, .. } => self.check_ttl_ms(*ttl_ms),
            Update::Delete => Ok(()),
        }
    }

    fn check_ttl_ms(&self, ttl_ms: Option<u64>) -> Result<(), Error> {
        match ttl_ms {
            Some(ms) if ms > self.options.max_ttl_ms => {
                let limit = self.options.max_ttl_ms;
                let message =
                    format!("a time to live of {ms} ms is above the limit of {limit} ms; nothing was changed");
                Err(Error::definite(Reason::InvalidArgument, message))
            }
            _ => Ok(()),
        }
    }

    /// Reads keys group by group, all groups at once, at one snapshot.
    async fn batch_get(
        &self,
        keys: Vec<Bytes>,
        read_ts: Timestamp,
        deadline: Instant,
    ) -> Result<Vec<Option<Versioned>>, Error> {
        for key in &keys {
            self.options.limits.check_key(key)?;
        }
        self.options.limits.check_batch(keys.iter().map(Bytes::len).sum())?;
        let (mut versions, mut bytes) = (vec![None; keys.len()], 0);
        let mut patience = Patience::default();
        let mut attempts: BTreeMap<GroupId, Attempts> = BTreeMap::new();
        let mut open: Vec<usize> = (0..keys.len()).collect();
        while !open.is_empty() {
            let mut by_group: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
            let routed_by = {
                let routes = self.routes().current();
                for place in open.drain(..) {
                    by_group.entry(routes.route_of(&keys[place]).group).or_default().push(place);
                }
                routes.version()
            };
            let calls = by_group.into_iter().map(|(group, places)| {
                let keys = places.iter().map(|place| keys[*place].clone()).collect();
                let op = ReadOp::BatchGet { keys, read_ts };
                let mut tried = attempts.remove(&group).unwrap_or_default();
                async move {
                    let op = GroupOp::Read { op, observed_version: Some(routed_by) };
                    let answer = self.dispatcher.call_routed(group, op, Repeat::Read, &mut tried, deadline).await;
                    (group, places, tried, answer)
                }
            });
            let (mut misrouted, mut blocked) = (None, None);
            for (group, places, tried, answer) in futures::future::join_all(calls).await {
                match answer {
                    Ok(GroupAnswer::Read(ReadAnswer::BatchGet { versions: found })) if found.len() == places.len() => {
                        bytes += found.iter().flatten().map(|version| version.value.len()).sum::<usize>();
                        self.options.limits.check_answer(bytes)?;
                        for (place, version) in places.into_iter().zip(found) {
                            versions[place] = version;
                        }
                    }
                    Ok(other) => return Err(misfit(&other)),
                    Err(CallError::Failed(error)) => return Err(error),
                    Err(CallError::Misrouted(_)) => {
                        open.extend(places);
                        attempts.insert(group, tried);
                        misrouted = Some(group);
                    }
                    Err(CallError::Blocked(error)) => {
                        open.extend(places);
                        attempts.insert(group, tried);
                        blocked = Some((group, error));
                    }
                }
            }
            if let Some((group, error)) = blocked {
                self.unblock(&error, &mut patience, &attempts[&group], deadline).await?;
            } else if let Some(group) = misrouted {
                self.newer_routes(routed_by, &mut patience, &attempts[&group], deadline).await?;
            }
        }
        Ok(versions)
    }

    /// One page of a scan: the groups in key order, until the page is full.
    async fn scan(&self, scan: ScanPageRequest, deadline: Instant) -> Result<Answer, Error> {
        self.options.limits.check_interval(&scan.interval)?;
        let hash = request_hash(&scan.interval, &[scan.reverse, scan.keys_only, scan.count_only]);
        let cursor = scan.cursor.as_ref().map(|token| Cursor::decode(token, hash)).transpose()?;
        let read_ts = match (&cursor, scan.options.read_ts) {
            (Some(cursor), at) if at.is_none_or(|at| at == cursor.read_ts) => Some(cursor.read_ts),
            (Some(_), _) => {
                let message = "the cursor belongs to another read timestamp; leave read_ts out or send the same";
                return Err(Error::definite(Reason::CursorInvalid, message));
            }
            (None, at) => at,
        };
        // A cursor comes from a client like any timestamp: it is checked like one.
        let read_ts = match &cursor {
            Some(cursor) if !guards::on(Guard::CursorChecked) => cursor.read_ts,
            _ => self.snapshot(read_ts, deadline).await?,
        };
        let start = cursor.map(|cursor| cursor.next);
        let page = self.collect(&scan, start, read_ts, deadline).await?;
        let cursor = page.cursor.map(|next| Cursor { request: hash, read_ts, next: next.0 }.encode());
        Ok(Answer::Scan { entries: page.entries, count: page.count, cursor, read_ts })
    }

    async fn collect(
        &self,
        scan: &ScanPageRequest,
        start: Option<Bytes>,
        read_ts: Timestamp,
        deadline: Instant,
    ) -> Result<ScanPage, Error> {
        let mut page = ScanPage::default();
        let mut left = ScanLimits {
            rows: within(scan.limits.rows, if scan.count_only { u64::MAX } else { self.options.scan_rows }),
            bytes: within(scan.limits.bytes, self.options.scan_bytes),
        };
        let mut patience = Patience::default();
        let mut attempts = Attempts::default();
        let mut rest = remaining(&scan.interval, start, scan.reverse)?;
        while let Some(interval) = rest.clone() {
            let (group, version, part) = {
                let routes = self.routes().current();
                let route = if scan.reverse {
                    routes.intersecting(&interval).next_back()
                } else {
                    routes.intersecting(&interval).next()
                };
                let route = route.ok_or_else(|| Error::definite(Reason::Internal, "the route map has a gap"))?;
                let part = route
                    .interval
                    .intersection(&interval)
                    .ok_or_else(|| Error::definite(Reason::Internal, "a route that intersects shares no key"))?;
                (route.group, routes.version(), part)
            };
            let request = ScanRequest {
                interval: part.clone(),
                read_ts,
                reverse: scan.reverse,
                keys_only: scan.keys_only,
                count_only: scan.count_only,
                limits: left,
            };
            let op = GroupOp::Read { op: ReadOp::Scan(request), observed_version: Some(version) };
            let found = match self.dispatcher.call_routed(group, op, Repeat::Read, &mut attempts, deadline).await {
                Ok(GroupAnswer::Read(ReadAnswer::Scan(found))) => found,
                Ok(other) => return Err(misfit(&other)),
                Err(CallError::Failed(error)) => return Err(error),
                Err(CallError::Misrouted(_)) => {
                    self.newer_routes(version, &mut patience, &attempts, deadline).await?;
                    continue;
                }
                Err(CallError::Blocked(error)) => {
                    self.unblock(&error, &mut patience, &attempts, deadline).await?;
                    continue;
                }
            };
            if let Some(first) = not_fitting(&page, &found, left) {
                page.cursor = Some(ScanCursor::before(first.key.clone(), scan.reverse));
                return Ok(page);
            }
            left.rows = left.rows.saturating_sub(found.count);
            left.bytes = left.bytes.saturating_sub(found.entries.iter().map(size).sum());
            page.count += found.count;
            page.entries.extend(found.entries);
            if found.cursor.is_some() {
                page.cursor = found.cursor;
                return Ok(page);
            }
            rest = beyond(&interval, &part, scan.reverse)?;
            if let Some(next) = &rest
                && (left.rows == 0 || left.bytes == 0)
            {
                let next = match (scan.reverse, next.end()) {
                    (false, _) => next.start().clone(),
                    (true, End::Key(end)) => end.clone(),
                    (true, End::Unbounded) => return Err(Error::definite(Reason::Internal, "a scan went backwards")),
                };
                page.cursor = Some(ScanCursor(next));
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// One batch of a range delete.
    async fn delete_range(
        &self,
        interval: &Interval,
        cursor: Option<Bytes>,
        idempotency: Option<Idempotency>,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        self.options.limits.check_interval(interval)?;
        let hash = request_hash(interval, &[]);
        let start = cursor.map(|token| Cursor::decode(&token, hash)).transpose()?.map(|cursor| cursor.next);
        let Some(rest) = remaining(interval, start, false)? else {
            return Ok(Answer::RangeDeleted { deleted: 0, cursor: None, commit_ts: Timestamp::ZERO });
        };
        let kind = WriteKind::DeleteRange { interval: rest, resume: None };
        match self.write(kind, idempotency, deadline).await? {
            Outcome::RangeDeleted { commit_ts, deleted, resume } => {
                let cursor = resume.map(|next| Cursor { request: hash, read_ts: Timestamp::ZERO, next }.encode());
                Ok(Answer::RangeDeleted { deleted, cursor, commit_ts })
            }
            other => Err(misfit(&other)),
        }
    }
}

/// What of a write concerns one route. A range delete says where it goes on in its recorded outcome, so that a retry that
/// was routed by another map is not taken for more, or less, than what was done.
fn within_route(kind: &WriteKind, route: &Route) -> WriteKind {
    match kind {
        WriteKind::DeleteRange { interval, resume } => match route.interval.intersection(interval) {
            Some(part) if part.end() != interval.end() => {
                WriteKind::DeleteRange { resume: part.end().as_key().cloned(), interval: part }
            }
            Some(_) | None => WriteKind::DeleteRange { interval: interval.clone(), resume: resume.clone() },
        },
        WriteKind::Put { .. }
        | WriteKind::Delete { .. }
        | WriteKind::CompareAndSet { .. }
        | WriteKind::Settle { .. }
        | WriteKind::Txn(_) => kind.clone(),
    }
}

/// Pauses between routing decisions, which grow, so that coordinators do not come back in step.
#[derive(Debug)]
pub(crate) struct Patience {
    pause: Duration,
    /// Whose lock was the last that stood in the way and was resolved.
    met: Option<TxnRef>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { pause: Duration::from_millis(5), met: None }
    }
}

impl Patience {
    const LONGEST: Duration = Duration::from_millis(200);

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pause.mul_f64(rand::rng().random_range(0.5..1.5));
        self.pause = (self.pause * 2).min(Self::LONGEST);
        pause
    }
}

pub(crate) fn misfit<T: std::fmt::Debug>(answer: &T) -> Error {
    tracing::error!(?answer, "a group gave an answer that does not fit the request");
    Error::unknown(Reason::Internal, "a group gave an answer that does not fit the request; it may have happened")
}

/// The smaller of a wish and a limit, where zero is no wish.
fn within(wish: u64, limit: u64) -> u64 {
    if wish == 0 { limit } else { wish.min(limit) }
}

fn size(entry: &Entry) -> u64 {
    (entry.key.len() + entry.version.value.len()) as u64
}

/// The first row of what a further group has found, if it does not fit behind the rows of `page`. In each group it fits
/// whatever its size, so that a scan goes on; a page needs that only once.
fn not_fitting<'a>(page: &ScanPage, found: &'a ScanPage, left: ScanLimits) -> Option<&'a Entry> {
    found.entries.first().filter(|first| !page.entries.is_empty() && size(first) > left.bytes)
}

/// What a cursor leaves of an interval; `None` if nothing.
fn remaining(interval: &Interval, next: Option<Bytes>, reverse: bool) -> Result<Option<Interval>, Error> {
    let Some(next) = next else { return Ok(Some(interval.clone())) };
    let rest = if reverse {
        Interval::new(interval.start().clone(), End::Key(next))
    } else {
        Interval::new(next, interval.end().clone())
    };
    match rest {
        Ok(rest) if interval.covers(&rest) => Ok(Some(rest)),
        Err(drover_keys::IntervalError::Empty { .. }) => Ok(None),
        Ok(_) | Err(_) => {
            Err(Error::definite(Reason::CursorInvalid, "the cursor points outside of the range; nothing happened"))
        }
    }
}

/// What is left of `interval` after its part `part` was dealt with; `None` if nothing.
fn beyond(interval: &Interval, part: &Interval, reverse: bool) -> Result<Option<Interval>, Error> {
    let edge = if reverse {
        (part.start() != interval.start()).then(|| part.start().clone())
    } else {
        match part.end() {
            End::Key(end) if part.end() != interval.end() => Some(end.clone()),
            End::Key(_) | End::Unbounded => None,
        }
    };
    match edge {
        None => Ok(None),
        Some(edge) => remaining(interval, Some(edge), reverse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: &'static str, end: Option<&'static str>) -> Interval {
        Interval::new(start, end.map_or(End::Unbounded, |end| End::Key(end.into()))).unwrap()
    }

    #[test]
    fn what_is_left_of_a_range_is_what_lies_beyond_the_part_in_the_direction_of_the_scan() {
        let whole = interval("b", Some("y"));
        assert_eq!(beyond(&whole, &interval("b", Some("m")), false).unwrap(), Some(interval("m", Some("y"))));
        assert_eq!(beyond(&whole, &interval("m", Some("y")), false).unwrap(), None);
        assert_eq!(beyond(&whole, &interval("m", Some("y")), true).unwrap(), Some(interval("b", Some("m"))));
        assert_eq!(beyond(&whole, &interval("b", Some("m")), true).unwrap(), None);
        assert_eq!(beyond(&interval("b", None), &interval("b", None), false).unwrap(), None);
    }

    #[test]
    fn the_first_row_of_a_further_group_fits_only_if_its_bytes_are_left() {
        let page = |sizes: &[usize]| {
            let version = |bytes| Versioned { value: vec![7; bytes].into(), commit_ts: issued(), expire_at: None };
            let entries = sizes.iter().map(|bytes| Entry { key: "k".into(), version: version(bytes - 1) });
            ScanPage { entries: entries.collect(), count: sizes.len() as u64, cursor: None }
        };
        let left = ScanLimits { rows: 1, bytes: 10 };
        let table = [
            ("the first row of a page", page(&[]), page(&[11, 1]), None),
            ("a row that fits", page(&[5]), page(&[10, 1]), None),
            ("a row that does not fit", page(&[5]), page(&[11, 1]), Some(11)),
            ("nothing found", page(&[5]), page(&[]), None),
        ];
        for (case, page, found, expect) in table {
            assert_eq!(not_fitting(&page, &found, left).map(size), expect, "{case}");
        }
    }

    #[test]
    fn a_range_delete_stops_at_the_end_of_its_route_and_says_where_it_goes_on() {
        let delete = |interval, resume| WriteKind::DeleteRange { interval, resume };
        let route = |interval| Route {
            id: drover_keys::RouteId(1),
            interval,
            group: GroupId(2),
            shard: drover_keys::ShardId(1),
            state: drover_catalog::RouteState::Active,
        };
        let whole = delete(interval("b", Some("y")), None);
        let table = [
            (interval("a", Some("m")), delete(interval("b", Some("m")), Some("m".into()))),
            (interval("a", Some("y")), delete(interval("b", Some("y")), None)),
            (interval("b", None), delete(interval("b", Some("y")), None)),
        ];
        for (covered, expect) in table {
            assert_eq!(within_route(&whole, &route(covered)), expect);
        }
        let unbounded = within_route(&delete(interval("b", None), None), &route(interval("a", Some("m"))));
        assert_eq!(unbounded, delete(interval("b", Some("m")), Some("m".into())));
    }

    #[test]
    fn a_cursor_outside_of_its_range_is_refused() {
        let whole = interval("b", Some("y"));
        assert_eq!(remaining(&whole, Some("y".into()), false).unwrap(), None);
        assert_eq!(remaining(&whole, Some("b".into()), true).unwrap(), None);
        for (next, reverse) in [("a", false), ("z", false), ("a", true), ("z", true)] {
            let error = remaining(&whole, Some(next.into()), reverse).unwrap_err();
            assert_eq!(error.reason, Reason::CursorInvalid, "{next} {reverse}");
        }
    }

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
        use drover_transport::{LeaseTerms, PeerIdentities, PeerOptions, PeerPool, Tuning};
        let dir = tempfile::tempdir().unwrap();
        let options = PeerOptions {
            cluster_id: ClusterId([1; 16]),
            node_id: NodeId(1),
            store_id: StoreId([1; 16]),
            version: "test".to_owned(),
            grpc_address: String::new(),
            admin_address: String::new(),
            lease: LeaseTerms::default(),
            tuning: Tuning::default(),
        };
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
