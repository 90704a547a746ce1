use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::{Error, Expectation, Reason, TxnId, Update, Versioned};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::buffer::Buffer;
use super::merge::{Merge, page_rows};
use crate::{Client, ScanQuery};

/// A transaction under way. Clones are the same transaction.
///
/// What it writes is seen by its own reads and scans, and by nobody else until it is committed. What it has read must not
/// have changed when it commits, or it is run again.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub(super) client: Client,
    /// When all of it has to be over; `None`: the client's deadline counts for each call.
    pub(super) due: Option<Instant>,
    pub(super) id: TxnId,
    pub(super) inner: Arc<Mutex<Buffer>>,
    /// Held by the read that takes the snapshot.
    pub(super) first_read: Arc<tokio::sync::Mutex<()>>,
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
    pub(super) fn new(client: Client, start_ts: Option<Timestamp>) -> Self {
        let buffer = Buffer { start_ts, ..Buffer::default() };
        let (id, inner) = (TxnId(rand::random()), Arc::new(Mutex::new(buffer)));
        Self { client, due: None, id, inner, first_read: Arc::default() }
    }

    /// The client, with what is left of the time for a call.
    pub(super) fn client(&self) -> Client {
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
}

fn value_of(update: &Update) -> Option<Bytes> {
    match update {
        Update::Put { value, .. } => Some(value.clone()),
        Update::Delete => None,
    }
}
