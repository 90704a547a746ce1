use std::fmt::Display;

use bytes::Bytes;
use drover_client::Client;

/// Something that keeps values under keys. Clones share connections.
pub trait Store: Clone + Send + Sync + 'static {
    /// Why a request failed.
    type Error: Display + Send;

    /// Writes keys, all at one moment or none; returns when that is acknowledged. One key is written as a single one.
    fn put(&self, rows: Vec<(Bytes, Bytes)>) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Reads keys, all as of one moment: now. In their order.
    fn get(&self, keys: Vec<Bytes>) -> impl Future<Output = Result<Vec<Option<Bytes>>, Self::Error>> + Send;
}

impl Store for Client {
    type Error = drover_client::Error;

    async fn put(&self, rows: Vec<(Bytes, Bytes)>) -> Result<(), Self::Error> {
        if let [(key, value)] = &rows[..] {
            return Client::put(self, key.clone(), value.clone()).await.map(drop);
        }
        let txn = self.begin();
        rows.into_iter().for_each(|(key, value)| txn.put(key, value));
        txn.commit().await.map(drop)
    }

    async fn get(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, Self::Error> {
        if let [key] = &keys[..] {
            return Ok(vec![Client::get(self, key.clone()).await?.map(|version| version.value)]);
        }
        let got = self.batch_get(keys, None).await?;
        Ok(got.versions.into_iter().map(|version| version.map(|version| version.value)).collect())
    }
}
