use std::sync::Arc;

use drover_client::Client;
use tokio::task::JoinSet;

use crate::{Rows, Store};

/// Bytes of values in one batch.
const BATCH_BYTES: usize = 256 << 10;
/// Batches, or single writes, under way at once.
const BATCH_LANES: u64 = 8;
const LANES: u64 = 256;

/// Writes the first value of every row in batches: transactions that read nothing and write 256 KiB, eight at a time. `on_bytes`
/// is told of each batch that is written.
///
/// # Errors
/// The first one that failed.
pub async fn load(
    client: &Client,
    rows: &Arc<Rows>,
    on_bytes: impl Fn(u64) + Clone + Send + 'static,
) -> Result<(), String> {
    let batch = (BATCH_BYTES / rows.value_bytes()).max(1) as u64;
    in_lanes(BATCH_LANES, |lane| {
        let (client, rows, on_bytes) = (client.clone(), Arc::clone(rows), on_bytes.clone());
        async move {
            for first in (lane * batch..rows.count()).step_by((BATCH_LANES * batch) as usize) {
                let numbers = first..(first + batch).min(rows.count());
                let bytes = (numbers.end - numbers.start) * rows.value_bytes() as u64;
                let txn = client.begin();
                numbers.for_each(|n| txn.put(rows.key(n), rows.value(n, 0)));
                txn.commit().await.map_err(|error| error.to_string())?;
                on_bytes(bytes);
            }
            Ok(())
        }
    })
    .await
}

/// Writes the first value of every row, each by itself, 256 at a time. `on_bytes` is told of each.
///
/// # Errors
/// The first one that failed.
pub async fn fill<S: Store>(
    store: &S,
    rows: &Arc<Rows>,
    on_bytes: impl Fn(u64) + Clone + Send + 'static,
) -> Result<(), String> {
    in_lanes(LANES, |lane| {
        let (store, rows, on_bytes) = (store.clone(), Arc::clone(rows), on_bytes.clone());
        async move {
            for n in (lane..rows.count()).step_by(LANES as usize) {
                store.put(vec![(rows.key(n), rows.value(n, 0))]).await.map_err(|error| error.to_string())?;
                on_bytes(rows.value_bytes() as u64);
            }
            Ok(())
        }
    })
    .await
}

async fn in_lanes<F: Future<Output = Result<(), String>> + Send + 'static>(
    lanes: u64,
    work: impl Fn(u64) -> F,
) -> Result<(), String> {
    let mut tasks: JoinSet<_> = (0..lanes).map(work).collect();
    while let Some(lane) = tasks.join_next().await {
        lane.map_err(|error| error.to_string())??;
    }
    Ok(())
}
