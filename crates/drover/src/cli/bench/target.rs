use anyhow::bail;
use bytes::Bytes;
use drover_client::{Client, CompareAndSet, Expectation, IdempotencyKeys, Timestamp, Update};

use super::System;
use super::etcd::Etcd;
use crate::cli::Global;

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
                let client = builder.connect_timeout(global.timeout).idempotency_keys(keys).connect().await?;
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

    /// The version of a key, for a compare-and-set.
    pub async fn version(&self, key: Bytes) -> anyhow::Result<Option<Timestamp>> {
        match self {
            Target::Drover(drover) => Ok(drover.get(key).await?.map(|version| version.commit_ts)),
            Target::Etcd(_) => bail!("compare-and-set is measured on Drover only"),
        }
    }

    /// Writes a key if its version is still this one.
    pub async fn compare_and_set(&self, key: Bytes, version: Option<Timestamp>, value: Bytes) -> anyhow::Result<Kept> {
        let Target::Drover(drover) = self else { bail!("compare-and-set is measured on Drover only") };
        let expect = version.map_or(Expectation::Absent, Expectation::Version);
        match drover.compare_and_set(key, expect, Update::Put { value, ttl_ms: None }).await? {
            CompareAndSet::Written { .. } => Ok(Kept::Yes),
            CompareAndSet::Failed { .. } => Ok(Kept::No),
        }
    }
}
