use bytes::Bytes;
use drover_client::{Client, CompareAndSet, Expectation, IdempotencyKeys, Timestamp, Update};

use super::System;
use super::etcd::Etcd;
use crate::cli::{Global, connect};

/// Whether a request did what it was sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Yes.
    Yes,
    /// An answer, but not the hoped-for one: a lost comparison, an absent key.
    No,
}

/// The system that is measured. Cheap to clone; clones share connections.
#[derive(Clone)]
pub enum Target {
    Drover(Client),
    Etcd(Etcd),
}

impl Target {
    pub async fn connect(global: &Global, system: System, keyed: bool) -> anyhow::Result<Target> {
        match system {
            System::Drover => {
                let keys = if keyed { IdempotencyKeys::On } else { IdempotencyKeys::Off };
                let builder = Client::builder().endpoints(&global.endpoints).deadline(global.timeout);
                let client = connect(builder.connect_timeout(global.timeout).idempotency_keys(keys)).await?;
                Ok(Target::Drover(client))
            }
            System::Etcd => Ok(Target::Etcd(Etcd::connect(&global.endpoints, global.timeout).await?)),
        }
    }

    /// Writes a key; the `client`'s number spreads clients over etcd's endpoints.
    pub async fn put(&self, client: usize, key: Bytes, value: Bytes) -> anyhow::Result<Kept> {
        match self {
            Target::Drover(drover) => drover.put(key, value).await.map(drop)?,
            Target::Etcd(etcd) => etcd.put(client, key, value).await?,
        }
        Ok(Kept::Yes)
    }

    /// Reads a key, linearizably.
    pub async fn get(&self, client: usize, key: Bytes) -> anyhow::Result<Kept> {
        let found = match self {
            Target::Drover(drover) => drover.get(key).await?.is_some(),
            Target::Etcd(etcd) => etcd.get(client, key).await?,
        };
        Ok(if found { Kept::Yes } else { Kept::No })
    }

    /// The version of a key, linearizably: of etcd the revision of its last change, zero if it has no value.
    pub async fn version(&self, client: usize, key: Bytes) -> anyhow::Result<u64> {
        match self {
            Target::Drover(drover) => Ok(drover.get(key).await?.map_or(0, |version| version.commit_ts.raw())),
            Target::Etcd(etcd) => Ok(etcd.revision(client, key).await?.try_into()?),
        }
    }

    /// Writes a key if this is still its version; its new version if so.
    pub async fn compare_and_set(
        &self,
        client: usize,
        key: Bytes,
        version: u64,
        value: Bytes,
    ) -> anyhow::Result<Option<u64>> {
        match self {
            Target::Drover(drover) => {
                let expect = match version {
                    0 => Expectation::Absent,
                    version => Expectation::Version(Timestamp::from_raw(version)),
                };
                match drover.compare_and_set(key, expect, Update::Put { value, ttl_ms: None }).await? {
                    CompareAndSet::Written { commit_ts } => Ok(Some(commit_ts.raw())),
                    CompareAndSet::Failed { .. } => Ok(None),
                }
            }
            Target::Etcd(etcd) => {
                let written = etcd.put_if_revision(client, key, version.try_into()?, value).await?;
                Ok(written.map(u64::try_from).transpose()?)
            }
        }
    }
}
