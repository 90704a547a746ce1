use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use drover_catalog::RouteMap;
use drover_hlc::Timestamp;
use drover_keys::{End, GroupId, Interval};
use drover_kv::{
    Entry, Error, Idempotency, Limits, Outcome, ReadAnswer, ReadOp, Reason, ScanLimits, ScanPage, ScanRequest,
    Versioned, WriteKind, WriteOp,
};
use drover_raftgroup::SharedTimestamps;
use drover_wire::{GroupAnswer, GroupOp, IdempotencyKey, Request, ScanPageRequest};

use crate::answer::Answer;
use crate::cursor::{Cursor, request_hash};
use crate::dispatch::Dispatcher;
use crate::retry::Repeat;

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
}

impl Default for CoordinatorOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            scan_rows: 10_000,
            scan_bytes: 4 << 20,
            max_ttl_ms: 100 * 365 * 24 * 3_600 * 1_000,
        }
    }
}

/// Takes clients' requests to the groups that own their keys.
pub struct Coordinator {
    routes: ArcSwap<RouteMap>,
    dispatcher: Arc<Dispatcher>,
    timestamps: SharedTimestamps,
    options: CoordinatorOptions,
    /// Raw form of the highest timestamp that this node knows to have been issued.
    issued: AtomicU64,
}

impl Coordinator {
    /// A coordinator that routes by `routes`.
    pub fn new(
        routes: RouteMap,
        dispatcher: Arc<Dispatcher>,
        timestamps: SharedTimestamps,
        options: CoordinatorOptions,
    ) -> Self {
        Self { routes: ArcSwap::from_pointee(routes), dispatcher, timestamps, options, issued: AtomicU64::new(0) }
    }

    /// The route map in use.
    pub fn routes(&self) -> Arc<RouteMap> {
        self.routes.load_full()
    }

    /// How requests reach the groups.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    /// The group that owns `key` by the route map in use.
    pub fn group_of(&self, key: &[u8]) -> GroupId {
        self.routes.load().route_of(key).group
    }

    /// Runs one request.
    ///
    /// # Errors
    /// Each says whether anything happened; see [`Reason`].
    pub async fn handle(&self, request: Request, deadline: Instant) -> Result<Answer, Error> {
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
        }
    }

    /// Checks a timestamp that comes from a client: it must have been issued.
    async fn admit(&self, read_ts: Option<Timestamp>, deadline: Instant) -> Result<Option<Timestamp>, Error> {
        let Some(at) = read_ts else { return Ok(None) };
        if at.raw() > self.issued.load(Ordering::SeqCst) && at > self.fresh(deadline).await? {
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

    async fn fresh(&self, deadline: Instant) -> Result<Timestamp, Error> {
        let at = self.timestamps.timestamps(1, deadline).await?;
        self.issued.fetch_max(at.raw(), Ordering::SeqCst);
        Ok(at)
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

    async fn read(&self, key: &Bytes, op: ReadOp, deadline: Instant) -> Result<ReadAnswer, Error> {
        let (group, version) = {
            let routes = self.routes.load();
            (routes.route_of(key).group, routes.version())
        };
        self.read_group(group, GroupOp::Read { op, observed_version: Some(version) }, deadline).await
    }

    async fn read_group(&self, group: GroupId, op: GroupOp, deadline: Instant) -> Result<ReadAnswer, Error> {
        match self.dispatcher.call(group, op, Repeat::Read, deadline).await? {
            GroupAnswer::Read(answer) => Ok(answer),
            other => Err(misfit(&other)),
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
        let (group, version) = {
            let routes = self.routes.load();
            (routes.route_of(kind.record_key()).group, routes.version())
        };
        let repeat = if idempotency.is_some() { Repeat::Recognised } else { Repeat::Never };
        let op = GroupOp::Write(WriteOp { kind, observed_version: Some(version), idempotency });
        match self.dispatcher.call(group, op, repeat, deadline).await? {
            GroupAnswer::Written(outcome) => {
                if let Outcome::Written { commit_ts } | Outcome::RangeDeleted { commit_ts, .. } = &outcome {
                    self.issued.fetch_max(commit_ts.raw(), Ordering::SeqCst);
                }
                Ok(outcome)
            }
            other => Err(misfit(&other)),
        }
    }

    fn check_ttl(&self, kind: &WriteKind) -> Result<(), Error> {
        let ttl_ms = match kind {
            WriteKind::Put { ttl_ms, .. } => *ttl_ms,
            WriteKind::CompareAndSet { update: drover_kv::Update::Put { ttl_ms, .. }, .. } => *ttl_ms,
            WriteKind::CompareAndSet { .. }
            | WriteKind::Delete { .. }
            | WriteKind::DeleteRange { .. }
            | WriteKind::Settle { .. } => None,
        };
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
        let mut by_group: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        let version = {
            let routes = self.routes.load();
            for (place, key) in keys.iter().enumerate() {
                by_group.entry(routes.route_of(key).group).or_default().push(place);
            }
            routes.version()
        };
        let calls = by_group.into_iter().map(|(group, places)| {
            let keys = places.iter().map(|place| keys[*place].clone()).collect();
            let op = ReadOp::BatchGet { keys, read_ts };
            async move {
                let op = GroupOp::Read { op, observed_version: Some(version) };
                match self.read_group(group, op, deadline).await? {
                    ReadAnswer::BatchGet { versions } if versions.len() == places.len() => Ok((places, versions)),
                    other => Err(misfit(&other)),
                }
            }
        });
        let mut versions = vec![None; keys.len()];
        for (places, found) in futures::future::try_join_all(calls).await? {
            for (place, version) in places.into_iter().zip(found) {
                versions[place] = version;
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
        let read_ts = self.snapshot(read_ts, deadline).await?;
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
        let mut rest = remaining(&scan.interval, start, scan.reverse)?;
        while let Some(interval) = rest {
            let (group, version, part) = {
                let routes = self.routes.load();
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
            let ReadAnswer::Scan(found) = self.read_group(group, op, deadline).await? else {
                return Err(Error::definite(Reason::Internal, "a scan was answered with something else"));
            };
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
                page.cursor = Some(drover_kv::ScanCursor(next));
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
        let part = {
            let routes = self.routes.load();
            let route = routes.route_of(rest.start());
            route
                .interval
                .intersection(&rest)
                .ok_or_else(|| Error::definite(Reason::Internal, "the route of a key does not contain it"))?
        };
        let kind = WriteKind::DeleteRange { interval: part.clone(), resume: None };
        match self.write(kind, idempotency, deadline).await? {
            Outcome::RangeDeleted { commit_ts, deleted, resume } => {
                let next = match resume {
                    Some(next) => Some(next),
                    None => beyond(&rest, &part, false)?.map(|rest| rest.start().clone()),
                };
                let cursor = next.map(|next| Cursor { request: hash, read_ts: Timestamp::ZERO, next }.encode());
                Ok(Answer::RangeDeleted { deleted, cursor, commit_ts })
            }
            other => Err(misfit(&other)),
        }
    }
}

fn misfit<T: std::fmt::Debug>(answer: &T) -> Error {
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
    fn a_cursor_outside_of_its_range_is_refused() {
        let whole = interval("b", Some("y"));
        assert_eq!(remaining(&whole, Some("y".into()), false).unwrap(), None);
        assert_eq!(remaining(&whole, Some("b".into()), true).unwrap(), None);
        for (next, reverse) in [("a", false), ("z", false), ("a", true), ("z", true)] {
            let error = remaining(&whole, Some(next.into()), reverse).unwrap_err();
            assert_eq!(error.reason, Reason::CursorInvalid, "{next} {reverse}");
        }
    }
}
