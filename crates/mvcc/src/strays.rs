//! Rows that lie where nothing should be: what a move has left behind.

use drover_keys::{Interval, JobId, ShardId};

use crate::bounds::PhysicalRange;
use crate::engine::Family;
use crate::error::StoreError;
use crate::tracker::tracker_range;
use crate::view::{Caching, View};

/// Counts the gaps between what is `kept` in which rows lie, over all families, and those between the lists of jobs that are
/// kept (`lists`). Looks at one row of each gap and of each part between two gaps, however many there are.
pub(crate) fn count(
    view: &View<'_>,
    kept: &[(ShardId, Interval)],
    lists: &[(ShardId, JobId)],
) -> Result<u64, StoreError> {
    let kept = sorted(kept.iter().map(|(shard, interval)| PhysicalRange::new(*shard, interval)).collect());
    let lists = sorted(lists.iter().map(|(shard, job)| tracker_range(*shard, *job, 0)).collect());
    let mut strays = 0;
    for (family, ranges) in
        [(Family::Data, &kept), (Family::Locks, &kept), (Family::Records, &kept), (Family::Tracker, &lists)]
    {
        strays += gaps_with_rows(view, family, ranges)?;
    }
    Ok(strays)
}

fn sorted(mut ranges: Vec<PhysicalRange>) -> Vec<PhysicalRange> {
    ranges.sort_by(|a, b| a.lower.cmp(&b.lower));
    ranges
}

fn gaps_with_rows(view: &View<'_>, family: Family, ranges: &[PhysicalRange]) -> Result<u64, StoreError> {
    let everything = PhysicalRange { lower: Vec::new(), upper: None };
    let mut rows = view.rows(family, &everything, Caching::Bypass);
    let mut found = 0;
    rows.seek_to_first();
    while let Some(key) = rows.key() {
        let behind = ranges.partition_point(|range| range.lower.as_slice() <= key);
        let holder = behind.checked_sub(1).map(|at| &ranges[at]).filter(|range| range.is_above(key));
        let next = match holder {
            Some(range) => range.upper.as_deref(),
            None => {
                found += 1;
                ranges.get(behind).map(|range| range.lower.as_slice())
            }
        };
        match next {
            Some(next) => rows.seek(next),
            None => return Ok(found),
        }
    }
    rows.status()?;
    Ok(found)
}
