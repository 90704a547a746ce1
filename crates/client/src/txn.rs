//! Transactions: reads at one snapshot, writes kept here until the commit, which sends everything at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::{Error, Expectation, Mutation, ReadSet, Reason, TxnId, Update, Versioned};
use drover_wire::proto::v1::session_answer::Answer;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::proto::v1::txn_state::Kind;
use drover_wire::proto::v1::{
    self, ListPreparedRequest, TxnAbortRequest, TxnBeginRequest, TxnHeartbeatRequest, TxnResolveRequest, TxnState,
    TxnStatusRequest,
};
use drover_wire::{decode_txn_id, encode_key_range, encode_txn_id};
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::cluster::of_a_read;
use crate::drive::{Attempted, malformed};
use crate::request::encode_mutation;
use crate::{Class, Client, ScanQuery};

/// How often a transaction is run again, and how soon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransactionOptions {
    /// Runs in all. Each reads a newer snapshot.
    pub max_runs: u32,
    /// Longest pause before the second run; doubles with each further one. Pauses are drawn at random up to it.
    pub first_backoff: Duration,
    /// Longest pause.
    pub max_backoff: Duration,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { max_runs: 100, first_backoff: Duration::from_millis(2), max_backoff: Duration::from_millis(200) }
    }
}

impl TransactionOptions {
    /// The pause behind a run, counted from 1. `random` is drawn from `0.0..1.0`.
    fn backoff(&self, run: u32, random: f64) -> Duration {
        let doublings = run.saturating_sub(1).min(20);
        self.first_backoff.saturating_mul(1 << doublings).min(self.max_backoff).mul_f64(random)
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Nothing is known: no commit has reached the servers, or everything is forgotten.
    Nothing,
    /// It holds locks and is not decided. They live until then at least.
    Prepared { expire_at: Timestamp },
    /// It is committed.
    Committed { commit_ts: Timestamp },
    /// Its attempts so far never commit; none ever does if that is `settled`.
    RolledBack { settled: bool },
}

/// A transaction that holds locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedTransaction {
    /// Its id.
    pub id: TxnId,
    /// The snapshot that it reads.
    pub start_ts: Timestamp,
    /// The key under which its outcome is recorded.
    pub primary: Bytes,
    /// Keys that it has locked.
    pub keys: Vec<Bytes>,
    /// What is known of its outcome.
    pub status: TransactionStatus,
}

/// A transaction under way. Clones are the same transaction.
///
/// What it writes is seen by its own reads and scans, and by nobody else until it is committed. What it has read must not
/// have changed when it commits, or it is run again.
#[derive(Debug, Clone)]
pub struct Transaction {
    client: Client,
    /// When all of it has to be over; `None`: the client's deadline counts for each call.
    due: Option<Instant>,
    id: TxnId,
    inner: Arc<Mutex<Buffer>>,
    /// Held by the read that takes the snapshot.
    first_read: Arc<tokio::sync::Mutex<()>>,
}

/// What a transaction has done so far, for people to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionContents {
    /// The snapshot that it reads, once it has one.
    pub start_ts: Option<Timestamp>,
    /// What it will write, in the order of the first writes: the first key is its primary.
    pub writes: Vec<(Bytes, Update)>,
    /// The keys that it has read.
    pub read_keys: Vec<Bytes>,
    /// The ranges that it has read, in the order of the reads.
    pub read_intervals: Vec<Interval>,
}

impl Transaction {
    fn new(client: Client, start_ts: Option<Timestamp>) -> Self {
        let buffer = Buffer { start_ts, ..Buffer::default() };
        let (id, inner) = (TxnId(rand::random()), Arc::new(Mutex::new(buffer)));
        Self { client, due: None, id, inner, first_read: Arc::default() }
    }

    /// The client, with what is left of the time for a call.
    fn client(&self) -> Client {
        match self.due {
            Some(due) => self.client.with_deadline(due.saturating_duration_since(Instant::now())),
            None => self.client.clone(),
        }
    }

    /// The snapshot to read at. Without one yet, whoever gets the turn takes it with its read; others wait for that.
    async fn read_at(&self) -> (Option<Timestamp>, Option<OwnedMutexGuard<()>>) {
        if let Some(start_ts) = self.start_ts() {
            return (Some(start_ts), None);
        }
        let turn = Arc::clone(&self.first_read).lock_owned().await;
        match self.start_ts() {
            Some(start_ts) => (Some(start_ts), None),
            None => (None, Some(turn)),
        }
    }
}

/// What a transaction has done so far.
#[derive(Debug, Default)]
struct Buffer {
    start_ts: Option<Timestamp>,
    writes: BTreeMap<Bytes, Update>,
    /// In the order of their first writes: the first is the primary.
    order: Vec<Bytes>,
    /// Nothing is ever committed, so nobody asks what was read.
    reads_only: bool,
    read_keys: BTreeSet<Bytes>,
    read_intervals: Vec<Interval>,
    /// A read has failed in a way that a newer snapshot may mend.
    stale: Option<Error>,
}

impl Buffer {
    fn read_key(&mut self, key: &Bytes) {
        if !self.reads_only {
            self.read_keys.insert(key.clone());
        }
    }

    fn read_interval(&mut self, interval: Interval) {
        if !self.reads_only {
            self.read_intervals.push(interval);
        }
    }

    fn write(&mut self, key: Bytes, update: Update) {
        if self.writes.insert(key.clone(), update).is_none() {
            self.order.push(key);
        }
    }
}

/// What a run came to.
enum Ran {
    Committed(Timestamp),
    /// It may come through with a newer snapshot.
    Conflict(Error),
    Failed(Error),
}

impl Client {
    /// Runs a transaction until it is committed: `work` reads and writes through the handle it is given. If something it has
    /// read was changed before the commit, it is run again with a newer snapshot, up to the limits of
    /// [`TransactionOptions::default`] and the deadline of the client. It may therefore be run several times, and must not have
    /// effects of its own.
    ///
    /// # Errors
    /// What `work` returns, without a commit; `TXN_CONFLICT` if the runs or the time were not enough; as for writes otherwise. After
    /// an unknown error the message names the transaction and its primary, for [`Client::transaction_status`].
    pub async fn transaction<T, E, W, F>(&self, work: W) -> Result<T, E>
    where
        W: Fn(Transaction) -> F,
        F: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.transaction_with(TransactionOptions::default(), work).await
    }

    /// As [`Client::transaction`], with other limits.
    ///
    /// # Errors
    /// As [`Client::transaction`].
    pub async fn transaction_with<T, E, W, F>(&self, options: TransactionOptions, work: W) -> Result<T, E>
    where
        W: Fn(Transaction) -> F,
        F: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let due = self.due();
        for run in 1.. {
            let transaction = Transaction { due: Some(due), ..Transaction::new(self.clone(), None) };
            let conflict = match work(transaction.clone()).await {
                Ok(done) => match transaction.commit_run().await {
                    Ran::Committed(_) => return Ok(done),
                    Ran::Failed(error) => return Err(error.into()),
                    Ran::Conflict(error) => error,
                },
                Err(error) => match transaction.inner.lock().stale.take() {
                    Some(stale) => stale,
                    None => return Err(error),
                },
            };
            let pause = options.backoff(run, rand::rng().random());
            if run >= options.max_runs || Instant::now() + pause >= due {
                let message = format!("{} (after {run} runs)", conflict.message);
                return Err(Error { message, ..conflict }.into());
            }
            tokio::time::sleep(pause).await;
        }
        unreachable!("the runs have no end")
    }

    /// Begins a transaction that the caller commits. Nothing happens on the servers before that.
    pub fn begin(&self) -> Transaction {
        Transaction::new(self.clone(), None)
    }

    /// As [`Client::begin`], with a snapshot of the past: what was written to the keys that it reads since then is a conflict.
    /// A snapshot in the future, or one that is too old, is refused by the first read or the commit.
    pub fn begin_at(&self, at: Timestamp) -> Transaction {
        Transaction::new(self.clone(), Some(at))
    }

    /// Reads at one timestamp: `at`, or that of the first read. What was read is not remembered.
    pub fn snapshot(&self, at: Option<Timestamp>) -> Snapshot {
        let transaction = Transaction::new(self.clone(), at);
        transaction.inner.lock().reads_only = true;
        Snapshot(transaction)
    }

    /// What became of a transaction whose first write was to `primary`.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn transaction_status(&self, id: TxnId, primary: impl Into<Bytes>) -> Result<TransactionStatus, Error> {
        let primary = primary.into();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let request = TxnStatusRequest { txn_id: encode_txn_id(id), primary: primary.clone(), timeout_ms };
            let mut txn = node.txn();
            async move { txn.status(request).await }
        });
        asked.await.and_then(|state| decode_status(Class::Read, &state)).map_err(of_a_read)
    }

    /// Makes sure that a transaction never commits, unless it has: what became of it. `start_ts` is its snapshot.
    ///
    /// # Errors
    /// As for writes; it may be sent again.
    pub async fn abort_transaction(
        &self,
        id: TxnId,
        primary: impl Into<Bytes>,
        start_ts: Timestamp,
    ) -> Result<TransactionStatus, Error> {
        let primary = primary.into();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let (txn_id, primary) = (encode_txn_id(id), primary.clone());
            let request = TxnAbortRequest { txn_id, primary, start_ts: start_ts.raw(), timeout_ms };
            let mut txn = node.txn();
            async move { txn.abort(request).await }
        });
        asked.await.and_then(|state| decode_status(Class::NamedWrite, &state))
    }

    /// Keeps the locks of a transaction alive whose commit is under way; what is known of it.
    ///
    /// # Errors
    /// As for writes; it may be sent again.
    pub async fn keep_transaction_alive(
        &self,
        id: TxnId,
        primary: impl Into<Bytes>,
    ) -> Result<TransactionStatus, Error> {
        let primary = primary.into();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let request = TxnHeartbeatRequest { txn_id: encode_txn_id(id), primary: primary.clone(), timeout_ms };
            let mut txn = node.txn();
            async move { txn.heartbeat(request).await }
        });
        asked.await.and_then(|state| decode_status(Class::NamedWrite, &state))
    }

    /// One page of the transactions that hold locks, and the cursor of the next page if there may be one.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn prepared_transactions(
        &self,
        cursor: Option<Bytes>,
    ) -> Result<(Vec<PreparedTransaction>, Option<Bytes>), Error> {
        let cursor = cursor.unwrap_or_default();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let request = ListPreparedRequest { limit_locks: 0, cursor: cursor.clone(), timeout_ms };
            let mut txn = node.txn();
            async move { txn.list_prepared(request).await }
        });
        let page = asked.await.map_err(of_a_read)?;
        let decode = |txn: v1::PreparedTxn| {
            Ok(PreparedTransaction {
                id: decode_txn_id(&txn.txn_id).map_err(|_| malformed(Class::Read, "a transaction without id"))?,
                start_ts: Timestamp::from_raw(txn.start_ts),
                primary: txn.primary,
                keys: txn.keys,
                status: decode_status(Class::Read, &txn.state.unwrap_or_default())?,
            })
        };
        let transactions = page.transactions.into_iter().map(decode).collect::<Result<_, Error>>();
        Ok((transactions.map_err(of_a_read)?, (!page.cursor.is_empty()).then_some(page.cursor)))
    }

    /// Settles a transaction that holds locks: what became of it. `force`: rolls it back although its time is not over.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if it holds no lock, or may still be at work; as for writes otherwise.
    pub async fn resolve_transaction(&self, id: TxnId, force: bool) -> Result<TransactionStatus, Error> {
        let asked = self.ask_nodes(|node, timeout_ms| {
            let request = TxnResolveRequest { txn_id: encode_txn_id(id), force, timeout_ms };
            let mut txn = node.txn();
            async move { txn.resolve(request).await }
        });
        asked.await.and_then(|state| decode_status(Class::NamedWrite, &state))
    }
}

impl Transaction {
    /// Its name, for [`Client::transaction_status`] after a commit with an unknown outcome.
    pub fn id(&self) -> TxnId {
        self.id
    }

    /// What it has read and written so far.
    pub fn contents(&self) -> TransactionContents {
        let inner = self.inner.lock();
        TransactionContents {
            start_ts: inner.start_ts,
            writes: inner.order.iter().map(|key| (key.clone(), inner.writes[key].clone())).collect(),
            read_keys: inner.read_keys.iter().cloned().collect(),
            read_intervals: inner.read_intervals.clone(),
        }
    }

    /// The snapshot that it reads, once it has one: it takes it with its first read.
    pub fn start_ts(&self) -> Option<Timestamp> {
        self.inner.lock().start_ts
    }

    /// The value of a key: its own write, or what the snapshot shows.
    ///
    /// # Errors
    /// Definite.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        let mut values = self.batch_get([key.into()]).await?;
        Ok(values.pop().flatten())
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// Definite.
    pub async fn batch_get(
        &self,
        keys: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let mut found: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
        {
            let inner = self.inner.lock();
            for key in &keys {
                if let Some(update) = inner.writes.get(key) {
                    found.insert(key.clone(), value_of(update));
                }
            }
        }
        let foreign: Vec<Bytes> = keys.iter().filter(|key| !found.contains_key(*key)).cloned().collect();
        if !foreign.is_empty() {
            let (start_ts, _turn) = self.read_at().await;
            let got = self.noting_stale(self.client().batch_get(foreign.clone(), start_ts).await)?;
            let mut inner = self.inner.lock();
            inner.start_ts.get_or_insert(got.read_ts);
            for (key, version) in foreign.into_iter().zip(got.versions) {
                inner.read_key(&key);
                found.insert(key, version.map(|version| version.value));
            }
        }
        Ok(keys.into_iter().map(|key| found.get(&key).cloned().flatten()).collect())
    }

    /// Up to `limit` rows of an interval (zero: all), in key order or from the highest down, its own writes among them.
    ///
    /// # Errors
    /// Definite.
    pub async fn scan(&self, interval: Interval, reverse: bool, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let (start_ts, _turn) = self.read_at().await;
        let own = {
            let inner = self.inner.lock();
            let own = inner.writes.iter().filter(|(key, _)| interval.contains(key));
            let mut own: Vec<(Bytes, Option<Bytes>)> =
                own.map(|(key, update)| (key.clone(), value_of(update))).collect();
            if reverse {
                own.reverse();
            }
            own
        };
        let mut query = ScanQuery { at: start_ts, reverse, ..ScanQuery::new(interval.clone()) };
        if limit > 0 {
            // Own deletions may hide as many.
            query = query.page(page_rows(limit, own.len()), 0);
        }
        let mut scan = self.client().scan(query);
        let mut merge = Merge { own: own.into(), rows: Vec::new(), reverse, limit };
        let mut finished = false;
        while !merge.is_full() && !finished {
            match self.noting_stale(scan.next_page().await)? {
                Some(page) => {
                    self.inner.lock().start_ts.get_or_insert(page.read_ts);
                    for entry in page.entries {
                        merge.row(entry.key, entry.version.value);
                    }
                }
                None => finished = true,
            }
        }
        if finished {
            merge.finish();
        }
        let seen = merge.seen(&interval);
        self.inner.lock().read_interval(seen);
        Ok(merge.rows)
    }

    /// Writes a key when the transaction is committed.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.inner.lock().write(key.into(), Update::Put { value: value.into(), ttl_ms: None });
    }

    /// Writes a key that expires `ttl` after the commit. Whole milliseconds, at least one.
    pub fn put_ttl(&self, key: impl Into<Bytes>, value: impl Into<Bytes>, ttl: Duration) {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.inner.lock().write(key.into(), Update::Put { value: value.into(), ttl_ms: Some(ttl_ms) });
    }

    /// Writes or deletes a key when the transaction is committed.
    pub fn write(&self, key: impl Into<Bytes>, update: Update) {
        self.inner.lock().write(key.into(), update);
    }

    /// Deletes a key when the transaction is committed.
    pub fn delete(&self, key: impl Into<Bytes>) {
        self.inner.lock().write(key.into(), Update::Delete);
    }

    /// Forgets everything that was to be written.
    pub fn discard(&self) {
        let mut inner = self.inner.lock();
        inner.writes.clear();
        inner.order.clear();
    }

    /// Writes a key if its value is as expected; whether it was. The key counts as read.
    ///
    /// # Errors
    /// Definite. [`Expectation::Version`] is refused for a key that this transaction has written: it has no version yet.
    pub async fn update_if(&self, key: impl Into<Bytes>, expect: Expectation, update: Update) -> Result<bool, Error> {
        let key = key.into();
        let own = self.inner.lock().writes.get(&key).map(value_of);
        let holds = match (&expect, own) {
            (Expectation::Version(_), Some(_)) => {
                let message = "a key that the transaction has written has no version yet; nothing was changed";
                return Err(Error::definite(Reason::InvalidArgument, message));
            }
            (Expectation::Version(wanted), None) => {
                self.version(&key).await?.is_some_and(|version| version.commit_ts == *wanted)
            }
            (Expectation::Absent, own) => self.or_get(own, &key).await?.is_none(),
            (Expectation::Present, own) => self.or_get(own, &key).await?.is_some(),
            (Expectation::Value(wanted), own) => self.or_get(own, &key).await?.as_ref() == Some(wanted),
        };
        if holds {
            self.inner.lock().write(key, update);
        }
        Ok(holds)
    }

    async fn or_get(&self, own: Option<Option<Bytes>>, key: &Bytes) -> Result<Option<Bytes>, Error> {
        match own {
            Some(value) => Ok(value),
            None => self.get(key.clone()).await,
        }
    }

    async fn version(&self, key: &Bytes) -> Result<Option<Versioned>, Error> {
        let (start_ts, _turn) = self.read_at().await;
        let mut got = self.noting_stale(self.client().batch_get(vec![key.clone()], start_ts).await)?;
        let mut inner = self.inner.lock();
        inner.start_ts.get_or_insert(got.read_ts);
        inner.read_key(key);
        Ok(got.versions.pop().flatten())
    }

    /// Takes note of a read that failed because its snapshot is too old: another run may come through.
    fn noting_stale<T>(&self, read: Result<T, Error>) -> Result<T, Error> {
        read.inspect_err(|error| {
            if error.reason == Reason::SnapshotTooOld {
                self.inner.lock().stale = Some(error.clone());
            }
        })
    }

    /// Commits; the commit timestamp, which is that of the snapshot if nothing was written (zero if nothing was read either).
    ///
    /// # Errors
    /// `TXN_CONFLICT` if what was read has changed; as for writes otherwise. After an unknown error the message names the
    /// transaction and its primary, for [`Client::transaction_status`].
    pub async fn commit(self) -> Result<Timestamp, Error> {
        match self.commit_run().await {
            Ran::Committed(commit_ts) => Ok(commit_ts),
            Ran::Conflict(error) | Ran::Failed(error) => Err(error),
        }
    }

    async fn commit_run(&self) -> Ran {
        if let Some(stale) = self.inner.lock().stale.take() {
            return Ran::Conflict(stale);
        }
        let (mut start_ts, mutations, reads) = {
            let inner = self.inner.lock();
            let mutation = |key: &Bytes| Mutation { key: key.clone(), update: inner.writes[key].clone() };
            let reads =
                ReadSet { keys: inner.read_keys.iter().cloned().collect(), intervals: inner.read_intervals.clone() };
            (inner.start_ts, inner.order.iter().map(mutation).collect::<Vec<_>>(), reads)
        };
        if mutations.is_empty() {
            return Ran::Committed(start_ts.unwrap_or_default());
        }
        if let Err(error) = self.client.check(|limits| limits.check_txn(&mutations, &reads)) {
            return Ran::Failed(error);
        }
        if start_ts.is_none() {
            match self.client().begin_timestamp().await {
                Ok(begun) => start_ts = Some(begun),
                Err(error) => return Ran::Failed(error),
            }
        }
        let (id, primary) = (self.id, mutations[0].key.clone());
        let call = Call::Commit(v1::TxnCommitRequest {
            txn_id: encode_txn_id(id),
            attempt: 1,
            start_ts: start_ts.unwrap_or_default().raw(),
            mutations: mutations.iter().map(encode_mutation).collect(),
            read_keys: reads.keys,
            read_ranges: reads.intervals.iter().map(encode_key_range).collect(),
            timeout_ms: 0,
        });
        let attempted = Attempted { call, key: primary.clone(), class: Class::NamedWrite, foreign_key: false };
        match self.client.inner.drive(attempted, self.client().due()).await {
            Ok(Answer::Commit(answer)) => Ran::Committed(Timestamp::from_raw(answer.commit_ts)),
            Ok(_) => Ran::Failed(malformed(Class::NamedWrite, "an answer to something else than a commit")),
            Err(error) if error.is_unknown() => {
                let message = format!("{}; transaction {id}, primary {}", error.message, drover_keys::escape(&primary));
                Ran::Failed(Error { message, ..error })
            }
            Err(error) if is_conflict(error.reason) => Ran::Conflict(error),
            Err(error) => Ran::Failed(error),
        }
    }
}

/// Whether the transaction may come through with a newer snapshot.
fn is_conflict(reason: Reason) -> bool {
    matches!(reason, Reason::TxnConflict | Reason::TxnAborted | Reason::TxnTooOld)
}

impl Client {
    async fn begin_timestamp(&self) -> Result<Timestamp, Error> {
        let asked = self.ask_nodes(|node, timeout_ms| {
            let mut txn = node.txn();
            async move { txn.begin(TxnBeginRequest { timeout_ms }).await }
        });
        asked.await.map(|begun| Timestamp::from_raw(begun.start_ts)).map_err(of_a_read)
    }
}

/// Reads at one timestamp.
#[derive(Debug, Clone)]
pub struct Snapshot(Transaction);

impl Snapshot {
    /// The timestamp, once it is known.
    pub fn read_ts(&self) -> Option<Timestamp> {
        self.0.start_ts()
    }

    /// As [`Transaction::get`].
    ///
    /// # Errors
    /// `SNAPSHOT_TOO_OLD`, `TIMESTAMP_IN_FUTURE`; definite.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        self.0.get(key).await
    }

    /// As [`Transaction::batch_get`].
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn batch_get(
        &self,
        keys: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        self.0.batch_get(keys).await
    }

    /// As [`Transaction::scan`].
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn scan(&self, interval: Interval, reverse: bool, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Error> {
        self.0.scan(interval, reverse, limit).await
    }
}

fn value_of(update: &Update) -> Option<Bytes> {
    match update {
        Update::Put { value, .. } => Some(value.clone()),
        Update::Delete => None,
    }
}

fn decode_status(class: Class, state: &TxnState) -> Result<TransactionStatus, Error> {
    match state.kind() {
        Kind::Nothing => Ok(TransactionStatus::Nothing),
        Kind::Prepared => Ok(TransactionStatus::Prepared { expire_at: Timestamp::from_raw(state.expire_at) }),
        Kind::Committed => Ok(TransactionStatus::Committed { commit_ts: Timestamp::from_raw(state.commit_ts) }),
        Kind::RolledBack => Ok(TransactionStatus::RolledBack { settled: state.settled }),
        Kind::Unspecified => Err(malformed(class, "a transaction in no state")),
    }
}

/// Puts rows of the snapshot and own writes in order.
#[derive(Debug)]
struct Merge {
    /// Own writes in the interval, in scan order; `None` deletes.
    own: std::collections::VecDeque<(Bytes, Option<Bytes>)>,
    rows: Vec<(Bytes, Bytes)>,
    reverse: bool,
    /// Zero: none.
    limit: usize,
}

impl Merge {
    fn is_full(&self) -> bool {
        self.limit > 0 && self.rows.len() >= self.limit
    }

    /// Takes the next row of the snapshot.
    fn row(&mut self, key: Bytes, value: Bytes) {
        while !self.is_full()
            && let Some((own, written)) =
                self.own.pop_front_if(|(own, _)| *own == key || before(self.reverse, own, &key))
        {
            let replaced = own == key;
            self.rows.extend(written.map(|value| (own, value)));
            if replaced {
                return;
            }
        }
        if !self.is_full() {
            self.rows.push((key, value));
        }
    }

    /// There are no more rows in the snapshot.
    fn finish(&mut self) {
        while !self.is_full()
            && let Some((own, written)) = self.own.pop_front()
        {
            self.rows.extend(written.map(|value| (own, value)));
        }
    }

    /// What was looked at: up to the last row if the limit ended the scan, otherwise everything.
    fn seen(&self, interval: &Interval) -> Interval {
        let Some((last, _)) = self.rows.last().filter(|_| self.is_full()) else { return interval.clone() };
        let seen = match self.reverse {
            false => Interval::new(interval.start().clone(), Interval::point(last.clone()).end().clone()),
            true => Interval::new(last.clone(), interval.end().clone()),
        };
        seen.unwrap_or_else(|_| interval.clone())
    }
}

/// Rows of the snapshot that are enough for `limit` rows in all, if each of `own` writes may hide one.
fn page_rows(limit: usize, own: usize) -> u64 {
    u64::try_from(limit.saturating_add(own)).unwrap_or(u64::MAX)
}

fn before(reverse: bool, a: &Bytes, b: &Bytes) -> bool {
    if reverse { a > b } else { a < b }
}

#[cfg(test)]
mod tests {
    use drover_keys::End;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map that both were applied to.
        #[test]
        fn a_scan_shows_the_snapshot_with_own_writes_on_top(
            rows in proptest::collection::btree_map(0u8..20, 0u8..3, 0..12),
            own in proptest::collection::btree_map(0u8..20, proptest::option::of(3u8..6), 0..8),
            reverse: bool,
            limit in 0usize..8,
        ) {
            let bytes = |n: &u8| Bytes::copy_from_slice(&[*n]);
            let mut model = rows.clone();
            for (key, value) in &own {
                match value {
                    Some(value) => drop(model.insert(*key, *value)),
                    None => drop(model.remove(key)),
                }
            }
            let mut expect: Vec<(Bytes, Bytes)> = model.iter().map(|(k, v)| (bytes(k), bytes(v))).collect();
            let mut own: Vec<_> = own.iter().map(|(k, v)| (bytes(k), v.as_ref().map(bytes))).collect();
            let mut rows: Vec<_> = rows.iter().map(|(k, v)| (bytes(k), bytes(v))).collect();
            if reverse {
                expect.reverse();
                own.reverse();
                rows.reverse();
            }
            if limit > 0 {
                expect.truncate(limit);
            }
            let mut merge = Merge { own: own.into(), rows: Vec::new(), reverse, limit };
            for (key, value) in rows {
                if !merge.is_full() {
                    merge.row(key, value);
                }
            }
            merge.finish();
            prop_assert_eq!(&merge.rows, &expect);
            // What was seen holds every row that was returned, and, if the limit ended it, none beyond.
            let whole = Interval::all();
            let seen = merge.seen(&whole);
            prop_assert!(merge.rows.iter().all(|(key, _)| seen.contains(key)));
            let full = limit > 0 && expect.len() == limit;
            prop_assert_eq!(full, seen != whole || (reverse && expect.last().is_some_and(|(k, _)| k.is_empty())));
        }
    }

    #[test]
    fn a_limit_beyond_everything_that_there_is_is_none() {
        assert_eq!([page_rows(1, 0), page_rows(2, 3)], [1, 5]);
        for limit in [usize::MAX - 1, usize::MAX] {
            assert_eq!(page_rows(limit, 2), u64::MAX);
            let own = [("b".into(), Some("own".into())), ("c".into(), None)];
            let mut merge = Merge { own: own.into(), rows: Vec::new(), reverse: false, limit };
            for key in ["a", "c", "d"] {
                merge.row(key.into(), "old".into());
            }
            merge.finish();
            let rows = [("a", "old"), ("b", "own"), ("d", "old")];
            assert_eq!(merge.rows, rows.map(|(key, value)| (Bytes::from(key), Bytes::from(value))));
            assert_eq!(merge.seen(&Interval::all()), Interval::all());
        }
    }

    #[test]
    fn pauses_between_runs_are_drawn_up_to_a_bound_that_doubles_up_to_the_longest() {
        let ms = Duration::from_millis;
        let options =
            TransactionOptions { first_backoff: ms(2), max_backoff: ms(100), ..TransactionOptions::default() };
        let table = [
            (1, 0.0, 0),
            (1, 0.5, 1),
            (2, 0.5, 2),
            (3, 0.25, 2),
            (6, 0.5, 32),
            (7, 0.5, 50),
            (1_000, 0.5, 50),
            (u32::MAX, 0.0, 0),
        ];
        for (run, random, expect_ms) in table {
            assert_eq!(options.backoff(run, random), ms(expect_ms), "{run}, {random}");
        }
    }

    #[test]
    fn what_a_limited_scan_has_seen_ends_with_its_last_row() {
        let merge = |reverse| Merge {
            own: Default::default(),
            rows: vec![("c".into(), "1".into()), ("d".into(), "1".into())],
            reverse,
            limit: 2,
        };
        let interval = Interval::new("a", End::Key("z".into())).unwrap();
        assert_eq!(merge(false).seen(&interval), Interval::new("a", End::Key("d\0".into())).unwrap());
        assert_eq!(merge(true).seen(&interval), Interval::new("d", End::Key("z".into())).unwrap());
        assert_eq!(Merge { limit: 3, ..merge(false) }.seen(&interval), interval);
    }
}
