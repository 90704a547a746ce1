use bytes::Bytes;
use drover_keys::Interval;
use drover_kv::{Error, WriteKind};

use crate::drive::malformed;
use crate::{Class, Client, WriteAnswer, WriteOptions};

/// How far a range delete has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeProgress {
    /// Keys deleted so far.
    pub deleted: u64,
    /// Batches done so far.
    pub batches: u64,
    /// Where the next batch starts, for servers only; `None` at the end.
    pub cursor: Option<Bytes>,
}

pub(crate) async fn run(
    client: &Client,
    interval: Interval,
    mut progress: impl FnMut(&RangeProgress),
) -> Result<RangeProgress, Error> {
    let mut so_far = RangeProgress::default();
    loop {
        let kind = WriteKind::DeleteRange { interval: interval.clone(), resume: None };
        let options = WriteOptions { idempotency: None, cursor: so_far.cursor.take().unwrap_or_default() };
        match client.write(kind, options).await.map_err(|error| after(error, &so_far))? {
            WriteAnswer::RangeDeleted { deleted, cursor, .. } => {
                so_far.deleted += deleted;
                so_far.batches += 1;
                so_far.cursor = cursor;
            }
            _ => return Err(malformed(Class::NamedWrite, "an answer to something else than a range delete")),
        }
        progress(&so_far);
        if so_far.cursor.is_none() {
            return Ok(so_far);
        }
    }
}

fn after(error: Error, so_far: &RangeProgress) -> Error {
    let RangeProgress { deleted, batches, .. } = so_far;
    match batches {
        0 => error,
        _ => {
            let message = format!("{}; {deleted} keys were deleted by the {batches} batches before", error.message);
            Error { message, ..error }
        }
    }
}
