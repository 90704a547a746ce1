use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::{Error, Expectation, Idempotency, Limits, Reason, Update, Versioned, WriteKind};
use drover_wire::decode_version;
use drover_wire::proto::v1;
use drover_wire::proto::v1::session_answer::Answer;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::proto::v1::settle_response::Verdict;
use tokio::time::Instant;

use crate::drive::{Attempted, Inner, malformed};
use crate::node::{Node, normalize};
use crate::range_delete::{self, RangeProgress};
use crate::request::{read_options, write_call};
use crate::topology::Topology;
use crate::{Class, ClientBuilder, Scan, ScanQuery, refresh};

/// A connection to a cluster. Cheap to clone; clones share connections. Must be used inside a tokio runtime.
///
/// All methods retry within the deadline and return [`Error`]s that say whether anything was changed.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    deadline: Duration,
}

/// What a compare-and-set came to. Both are answers, not errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareAndSet {
    /// The expectation held and the update was written.
    Written { commit_ts: Timestamp },
    /// The expectation did not hold; `current` is what it met (the timestamps without the value if the answer to an
    /// earlier attempt was lost). Nothing was written.
    Failed { current: Option<Versioned> },
}

/// The answer to [`Client::write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteAnswer {
    /// A put or a delete was written.
    Written { commit_ts: Timestamp },
    /// What a compare-and-set came to.
    Compared(CompareAndSet),
    /// One batch of a range delete; `cursor` continues it.
    RangeDeleted { deleted: u64, cursor: Option<Bytes>, commit_ts: Option<Timestamp> },
    /// A settle.
    Settled(Settled),
}

/// What became of an operation whose outcome was unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It applied at `commit_ts`.
    Applied { commit_ts: Timestamp },
    /// It was a compare-and-set and its expectation did not hold. Nothing was written.
    CompareFailed,
    /// It did not apply and never will.
    Never,
}

/// The answer to [`Client::batch_get`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchGot {
    /// One item for each key, in their order.
    pub versions: Vec<Option<Versioned>>,
    /// The snapshot they were read at.
    pub read_ts: Timestamp,
}

/// What [`Client::write`] can be told besides the write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The name of the intention, from [`Client::new_idempotency`], if the caller wants to settle it or to repeat it in
    /// another call. Without it the client makes one if it may have to retry.
    pub idempotency: Option<Idempotency>,
    /// Continues a range delete.
    pub cursor: Bytes,
}

/// Takes the one kind of answer that fits a call.
macro_rules! expect_answer {
    ($answer:expr, $variant:ident) => {
        match $answer {
            Answer::$variant(answer) => Ok(answer),
            _ => Err(malformed(Class::Read, concat!("an answer to something else than ", stringify!($variant)))),
        }
    };
}

fn optional_ts(raw: u64) -> Option<Timestamp> {
    (raw != 0).then(|| Timestamp::from_raw(raw))
}

impl Client {
    /// Connects with default settings. `endpoints` as in [`ClientBuilder::endpoints`].
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect<I: IntoIterator<Item = S>, S: Into<String>>(endpoints: I) -> Result<Client, Error> {
        Self::builder().endpoints(endpoints).connect().await
    }

    /// Settings, then [`ClientBuilder::connect`].
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) async fn start(settings: ClientBuilder) -> Result<Client, Error> {
        let mut nodes: Vec<Arc<Node>> = Vec::with_capacity(settings.endpoints.len());
        for address in &settings.endpoints {
            if !nodes.iter().any(|node| node.address() == normalize(address)) {
                nodes.push(Node::new(address, None, settings.connect_timeout)?);
            }
        }
        if nodes.is_empty() {
            return Err(Error::definite(Reason::InvalidArgument, "no endpoint is given; name at least one node"));
        }
        let learned = refresh::learn_at_once(&nodes, &settings);
        let (topology, complete) = tokio::time::timeout(settings.connect_timeout, learned).await.map_err(|_| {
            Error::definite(Reason::Unavailable, "no endpoint answered in time; nothing was sent or changed")
        })??;
        let client = Self::over(settings, topology);
        if !complete {
            client.inner.refresh.notify_one();
        }
        Ok(client)
    }

    fn over(settings: ClientBuilder, topology: Topology) -> Client {
        let deadline = settings.deadline;
        let inner = Arc::new(Inner::new(settings, topology));
        tokio::spawn(refresh::keep_learning(Arc::downgrade(&inner), inner.refresh.clone()));
        Client { inner, deadline }
    }

    /// This client with another deadline for each call. Connections are shared.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Client {
        Client { inner: self.inner.clone(), deadline }
    }

    /// How long a call waits in all.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(crate) fn due(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.deadline).unwrap_or(now + Duration::from_secs(86_400))
    }

    pub(crate) async fn read(&self, call: Call, key: Bytes) -> Result<Answer, Error> {
        self.inner.drive(Attempted::read(call, key), self.due()).await
    }

    /// Whether a request keeps to the limits that the user of this library has set, if any.
    pub(crate) fn check(&self, check: impl FnOnce(&Limits) -> Result<(), Error>) -> Result<(), Error> {
        self.inner.settings.limits.as_ref().map_or(Ok(()), check)
    }

    fn check_key(&self, key: &Bytes) -> Result<(), Error> {
        self.check(|limits| limits.check_key(key))
    }

    /// The newest value of a key; `None` if it has none. Linearizable.
    ///
    /// # Errors
    /// Definite; nothing is changed by a read.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Versioned>, Error> {
        self.get_as_of(key.into(), None).await
    }

    /// The value of a key as of `at`.
    ///
    /// # Errors
    /// `SNAPSHOT_TOO_OLD` below the safe point, `TIMESTAMP_IN_FUTURE` above all that was issued. Definite.
    pub async fn get_at(&self, key: impl Into<Bytes>, at: Timestamp) -> Result<Option<Versioned>, Error> {
        self.get_as_of(key.into(), Some(at)).await
    }

    async fn get_as_of(&self, key: Bytes, at: Option<Timestamp>) -> Result<Option<Versioned>, Error> {
        self.check_key(&key)?;
        let call = Call::Get(v1::GetRequest { key: key.clone(), options: read_options(at) });
        let answer = expect_answer!(self.read(call, key).await?, Get)?;
        Ok(answer.version.map(decode_version))
    }

    /// The values of several keys as of one timestamp: `at`, or the latest.
    ///
    /// # Errors
    /// As [`get_at`](Self::get_at). Definite.
    pub async fn batch_get(&self, keys: Vec<Bytes>, at: Option<Timestamp>) -> Result<BatchGot, Error> {
        keys.iter().try_for_each(|key| self.check_key(key))?;
        self.check(|limits| limits.check_batch(keys.iter().map(Bytes::len).sum()))?;
        let first = keys.first().cloned().unwrap_or_default();
        let expected = keys.len();
        let call = Call::BatchGet(v1::BatchGetRequest { keys, options: read_options(at) });
        let answer = expect_answer!(self.read(call, first).await?, BatchGet)?;
        if answer.versions.len() != expected {
            return Err(malformed(Class::Read, "another number of values than keys were asked for"));
        }
        let versions = answer.versions.into_iter().map(|maybe| maybe.version.map(decode_version)).collect();
        Ok(BatchGot { versions, read_ts: Timestamp::from_raw(answer.read_ts) })
    }

    /// Writes a key; returns the commit timestamp.
    ///
    /// # Errors
    /// Unknown if the write may have happened.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Timestamp, Error> {
        self.write_one(WriteKind::Put { key: key.into(), value: value.into(), ttl_ms: None }).await
    }

    /// Writes a key that expires `ttl` after its commit. Whole milliseconds, at least one.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_ttl(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> Result<Timestamp, Error> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.write_one(WriteKind::Put { key: key.into(), value: value.into(), ttl_ms: Some(ttl_ms) }).await
    }

    /// Deletes a key; returns the commit timestamp. Deleting an absent key succeeds.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Timestamp, Error> {
        self.write_one(WriteKind::Delete { key: key.into() }).await
    }

    async fn write_one(&self, kind: WriteKind) -> Result<Timestamp, Error> {
        match self.write(kind, WriteOptions::default()).await? {
            WriteAnswer::Written { commit_ts } => Ok(commit_ts),
            _ => Err(malformed(Class::NamedWrite, "an answer to something else than a put or a delete")),
        }
    }

    /// Writes a key if its value is as expected.
    ///
    /// # Errors
    /// As [`put`](Self::put). A failed comparison is an answer.
    pub async fn compare_and_set(
        &self,
        key: impl Into<Bytes>,
        expect: Expectation,
        update: Update,
    ) -> Result<CompareAndSet, Error> {
        let kind = WriteKind::CompareAndSet { key: key.into(), expect, update };
        match self.write(kind, WriteOptions::default()).await? {
            WriteAnswer::Compared(compared) => Ok(compared),
            _ => Err(malformed(Class::NamedWrite, "an answer to something else than a compare-and-set")),
        }
    }

    /// Any write, under a name of the caller's choice.
    ///
    /// # Errors
    /// Unknown if the write may have happened; with [`WriteOptions::idempotency`] given it can then be
    /// [settled](Self::settle), or sent again by the same call.
    pub async fn write(&self, kind: WriteKind, options: WriteOptions) -> Result<WriteAnswer, Error> {
        self.check(|limits| limits.check_write(&kind))?;
        let foreign_key = options.idempotency.is_some();
        let idempotency = options.idempotency.or_else(|| self.inner.names_writes().then(|| self.new_idempotency()));
        let class = match idempotency {
            Some(_) => Class::NamedWrite,
            None => Class::BlindWrite,
        };
        let key = if options.cursor.is_empty() { kind.record_key().clone() } else { options.cursor.clone() };
        let call = write_call(&kind, options.cursor, idempotency.as_ref());
        let answer = self.inner.drive(Attempted { call, key, class, foreign_key }, self.due()).await?;
        self.decode_written(answer)
    }

    fn decode_written(&self, answer: Answer) -> Result<WriteAnswer, Error> {
        let seen = |raw: u64| {
            let timestamp = Timestamp::from_raw(raw);
            self.inner.saw(timestamp);
            timestamp
        };
        Ok(match answer {
            Answer::Put(put) => WriteAnswer::Written { commit_ts: seen(put.commit_ts) },
            Answer::Delete(delete) => WriteAnswer::Written { commit_ts: seen(delete.commit_ts) },
            Answer::CompareAndSet(cas) if cas.succeeded => {
                WriteAnswer::Compared(CompareAndSet::Written { commit_ts: seen(cas.commit_ts) })
            }
            Answer::CompareAndSet(cas) => {
                WriteAnswer::Compared(CompareAndSet::Failed { current: cas.current.map(decode_version) })
            }
            Answer::DeleteRange(batch) => WriteAnswer::RangeDeleted {
                deleted: batch.deleted,
                cursor: Some(batch.cursor).filter(|cursor| !cursor.is_empty()),
                commit_ts: optional_ts(batch.commit_ts),
            },
            Answer::Settle(settled) => WriteAnswer::Settled(decode_settled(&settled)?),
            Answer::Error(_)
            | Answer::Get(_)
            | Answer::BatchGet(_)
            | Answer::Scan(_)
            | Answer::LatestCommitTs(_)
            | Answer::Commit(_) => {
                return Err(malformed(Class::NamedWrite, "an answer to something else than the write"));
            }
        })
    }

    /// A new name for one intention, valid for the deadline and the settle window from now on.
    pub fn new_idempotency(&self) -> Idempotency {
        self.inner.new_idempotency(self.deadline)
    }

    /// Tells what became of the operation that was sent to `key` under `idempotency`, or makes sure that it never
    /// applies. For a range delete `key` is the start of the range, or its cursor.
    ///
    /// # Errors
    /// `IDEMPOTENCY_EXPIRED` if the record may be gone: read the key instead. Any other error leaves the operation
    /// unsettled: call this again.
    pub async fn settle(&self, key: impl Into<Bytes>, idempotency: &Idempotency) -> Result<Settled, Error> {
        let kind = WriteKind::Settle { key: key.into() };
        let options = WriteOptions { idempotency: Some(idempotency.clone()), ..WriteOptions::default() };
        match self.write(kind, options).await? {
            WriteAnswer::Settled(settled) => Ok(settled),
            _ => Err(malformed(Class::NamedWrite, "an answer to something else than a settle")),
        }
    }

    /// Starts a scan; see [`Scan`].
    pub fn scan(&self, query: ScanQuery) -> Scan {
        Scan::new(self.clone(), query)
    }

    /// How many keys of the interval have a value as of `at`, or the latest snapshot. The deadline holds for each of
    /// the pages that this takes.
    ///
    /// # Errors
    /// As [`get_at`](Self::get_at). Definite.
    pub async fn count(&self, interval: Interval, at: Option<Timestamp>) -> Result<u64, Error> {
        let mut scan = self.scan(ScanQuery { at, ..ScanQuery::new(interval) }.count_only());
        let mut rows = 0;
        while let Some(page) = scan.next_page().await? {
            rows += page.count;
        }
        Ok(rows)
    }

    /// Deletes every key of the interval, in batches that are atomic each; the whole is not. `progress` is called after
    /// each batch; keys written meanwhile behind the present batch stay. The deadline holds for each batch.
    ///
    /// # Errors
    /// Certainty is that of the batch that failed; the batches before it, which `progress` was told of and the message
    /// counts, are done. Calling it again goes on.
    pub async fn delete_range(
        &self,
        interval: Interval,
        progress: impl FnMut(&RangeProgress),
    ) -> Result<RangeProgress, Error> {
        range_delete::run(self, interval, progress).await
    }

    /// The commit timestamp of the newest version of a key, deletions included; `None` if no version is known.
    ///
    /// # Errors
    /// Definite.
    pub async fn latest_commit_ts(&self, key: impl Into<Bytes>) -> Result<Option<Timestamp>, Error> {
        let key = key.into();
        self.check_key(&key)?;
        let call = Call::LatestCommitTs(v1::LatestCommitTsRequest { key: key.clone(), options: read_options(None) });
        let answer = expect_answer!(self.read(call, key).await?, LatestCommitTs)?;
        Ok(optional_ts(answer.commit_ts))
    }
}

fn decode_settled(settled: &v1::SettleResponse) -> Result<Settled, Error> {
    match settled.verdict() {
        Verdict::Applied if settled.succeeded => {
            Ok(Settled::Applied { commit_ts: Timestamp::from_raw(settled.commit_ts) })
        }
        Verdict::Applied => Ok(Settled::CompareFailed),
        Verdict::Never => Ok(Settled::Never),
        Verdict::Unspecified => Err(malformed(Class::NamedWrite, "a verdict that this client does not know")),
    }
}
