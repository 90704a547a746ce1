use std::sync::Arc;
use std::time::Instant;

use drover_hlc::Timestamp;
use drover_kv::Error;
use futures::future::BoxFuture;

/// Where a group gets timestamps from. The only implementation outside tests asks the cluster's oracle.
pub trait TimestampSource: Send + Sync + 'static {
    /// `count` consecutive timestamps, given by their first, from a request that is sent after this call.
    ///
    /// # Errors
    /// Definite: no timestamp was used. Transient ones are retried inside, until `deadline`.
    fn timestamps(&self, count: u32, deadline: Instant) -> BoxFuture<'static, Result<Timestamp, Error>>;
}

/// A shared source.
pub type SharedTimestamps = Arc<dyn TimestampSource>;
