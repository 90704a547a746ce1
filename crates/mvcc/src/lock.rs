//! Rows of the locks family, as scans give them.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_keys::memcomparable;

use crate::engine::Family;
use crate::error::StoreError;

const SHARD_BYTES: usize = 8;

/// Is shown route key and content of a lock.
pub type LockVisit<'a> = dyn FnMut(Bytes, Bytes) -> ControlFlow<()> + 'a;

/// Shows the lock stored under `key`; what was deleted is passed over.
pub(crate) fn show_lock(
    key: &[u8],
    lock: Option<Bytes>,
    visit: &mut LockVisit<'_>,
) -> Result<ControlFlow<()>, StoreError> {
    let Some(lock) = lock else { return Ok(ControlFlow::Continue(())) };
    let rest = key.get(SHARD_BYTES..).unwrap_or_default();
    let (route_key, _) =
        memcomparable::decode(rest).map_err(|error| StoreError::bad_row(Family::Locks.name(), key, error))?;
    Ok(visit(route_key.into(), lock))
}
