//! Compare-and-set on versions that are known already, so that each request is one call, as it is for who keeps what the last
//! answer told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::target::{Kept, Target};
use super::txn::Ran;
use super::{PREFILL_PARALLEL, key};

/// In place of a version that has to be read first.
const UNKNOWN: u64 = u64::MAX;

/// The version of each key, by its number. Clones share them.
#[derive(Clone)]
pub struct Versions(Arc<[AtomicU64]>);

impl Versions {
    /// Reads the versions of `0..keys`.
    pub async fn read(target: &Target, keys: u64) -> anyhow::Result<Versions> {
        let reads = stream::iter((0..keys).map(|number| target.version(number as usize, key(number))));
        let versions: Vec<u64> = reads.buffered(PREFILL_PARALLEL as usize).try_collect().await?;
        Ok(Versions(versions.into_iter().map(AtomicU64::new).collect()))
    }

    /// Writes a key if its version is the known one; when that was sent. Not kept if somebody else wrote it meanwhile: its
    /// version is read again before the next time, which is not measured.
    pub async fn compare_and_set(
        &self,
        target: &Target,
        client: usize,
        number: u64,
        value: Bytes,
    ) -> (Instant, anyhow::Result<Ran>) {
        let known = &self.0[number as usize];
        if known.load(Ordering::Relaxed) == UNKNOWN {
            match target.version(client, key(number)).await {
                Ok(version) => known.store(version, Ordering::Relaxed),
                Err(error) => return (Instant::now(), Err(error)),
            }
        }
        let version = known.load(Ordering::Relaxed);
        let begun = Instant::now();
        let result = target.compare_and_set(client, key(number), version, value).await;
        let kept = match result {
            Ok(Some(written)) => {
                // Whoever has found out more meanwhile knows better.
                let _ = known.compare_exchange(version, written, Ordering::Relaxed, Ordering::Relaxed);
                Ok(Kept::Yes)
            }
            Ok(None) => {
                known.store(UNKNOWN, Ordering::Relaxed);
                Ok(Kept::No)
            }
            Err(error) => {
                known.store(UNKNOWN, Ordering::Relaxed);
                Err(error)
            }
        };
        (begun, kept.map(|kept| Ran { kept, runs: 1 }))
    }
}
