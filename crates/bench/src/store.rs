use std::fmt::Display;

use bytes::Bytes;
use drover_client::Client;

/// Something that keeps values under keys. Clones share connections.
pub trait Store: Clone + Send + Sync + 'static {
    /// Why a request failed.
    type Error: Display + Send;

    /// Writes a key; returns when that is acknowledged.
    fn put(&self, key: Bytes, value: Bytes) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Reads a key, as of now.
    fn get(&self, key: Bytes) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;
}

impl Store for Client {
    type Error = drover_client::Error;

    async fn put(&self, key: Bytes, value: Bytes) -> Result<(), Self::Error> {
        Client::put(self, key, value).await.map(drop)
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, Self::Error> {
        Ok(Client::get(self, key).await?.map(|version| version.value))
    }
}
