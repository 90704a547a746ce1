use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::Error;

use super::Transaction;

/// Reads at one timestamp.
#[derive(Debug, Clone)]
pub struct Snapshot(pub(super) Transaction);

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
