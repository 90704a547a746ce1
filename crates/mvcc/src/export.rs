//! What a moving interval holds, in portions: versions and records as they are stored, then what was written meanwhile.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_keys::{Interval, JobId, ShardId};

use crate::bounds::PhysicalRange;
use crate::cursor::Cursor;
use crate::engine::Family;
use crate::error::StoreError;
use crate::retention::{Rank, Ranker};
use crate::row::{RawRow, RowKind, RowSum, with_shard, without_shard};
use crate::scan::split;
use crate::tracker::{decode_entry, tracker_range};
use crate::value::is_tombstone;
use crate::view::{Caching, View};

/// When a portion ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportBudget {
    /// After this many bytes of rows; a portion holds at least one row all the same, if there is one.
    pub bytes: usize,
    /// After this many bytes of rows were looked at.
    pub scanned_bytes: usize,
}

/// A portion of one kind of row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Portion {
    /// In key order.
    pub rows: Vec<RawRow>,
    /// The last row that was looked at, from which the next portion goes on; it need not be among `rows`.
    pub cursor: Bytes,
    /// There is nothing behind it.
    pub done: bool,
}

/// A portion of what was written since a job's tracker was armed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrackedPortion {
    /// As they are now, each once.
    pub rows: Vec<RawRow>,
    /// The number of the first entry of the list that is not among them.
    pub next: u64,
    /// There is nothing behind it.
    pub done: bool,
}

/// Tells which versions are exported. Of each key: all above the safe point, and the newest at or below it unless that is
/// a tombstone. So two replicas export the same, whatever each has collected.
struct Chooser {
    ranker: Ranker,
    safe_point: Timestamp,
}

impl Chooser {
    fn new(safe_point: Timestamp) -> Self {
        Self { ranker: Ranker::default(), safe_point }
    }

    /// Goes on behind a version that another portion has ended with. It need not be there any more.
    fn behind(&mut self, physical: &[u8]) -> Result<(), StoreError> {
        let (prefix, commit_ts) = split(physical)?;
        self.ranker.rank(prefix, commit_ts, |_| Some(self.safe_point));
        Ok(())
    }

    fn takes(&mut self, physical: &[u8], value: &[u8]) -> Result<bool, StoreError> {
        let (prefix, commit_ts) = split(physical)?;
        Ok(match self.ranker.rank(prefix, commit_ts, |_| Some(self.safe_point)) {
            Rank::Live => guards::on(Guard::TombstonesTravel) || !is_tombstone(value),
            Rank::Base => !is_tombstone(value),
            Rank::Superseded => false,
        })
    }
}

/// The rows of `kind` behind `after` (empty: from the start), until the budget is used up.
pub(crate) fn portion(
    view: &View<'_>,
    kind: RowKind,
    shard: ShardId,
    interval: &Interval,
    safe_point: Timestamp,
    after: &[u8],
    budget: ExportBudget,
) -> Result<Portion, StoreError> {
    let range = PhysicalRange::new(shard, interval);
    let mut chooser = Chooser::new(safe_point);
    let mut rows = view.rows(kind.family(), &range, Caching::Bypass);
    if after.is_empty() {
        rows.seek(&range.lower);
    } else {
        let mut behind = with_shard(shard, after);
        if kind == RowKind::Version {
            chooser.behind(&behind)?;
            if !guards::on(Guard::CursorNamesVersion) {
                behind = [split(&behind)?.0, &[u8::MAX; 8]].concat();
            }
        }
        behind.push(0);
        rows.seek(&behind);
    }
    let mut portion = Portion { rows: Vec::new(), cursor: Bytes::copy_from_slice(after), done: false };
    let (mut bytes, mut scanned) = (0, 0);
    while let Some((key, value)) = rows.entry() {
        let size = key.len() + value.len();
        let takes = kind == RowKind::Record || chooser.takes(key, value)?;
        if takes && bytes + size > budget.bytes && !portion.rows.is_empty() {
            return Ok(portion);
        }
        if takes || guards::on(Guard::ProgressWithoutRows) {
            portion.cursor = Bytes::copy_from_slice(without_shard(key));
        }
        scanned += size;
        if takes {
            bytes += size;
            let value = Some(Bytes::copy_from_slice(value));
            portion.rows.push(RawRow { kind, key: portion.cursor.clone(), value });
        }
        rows.next();
        if bytes >= budget.bytes || (scanned >= budget.scanned_bytes && guards::on(Guard::ScanBudget)) {
            return Ok(portion);
        }
    }
    rows.status()?;
    portion.done = true;
    Ok(portion)
}

/// The rows named by a job's list from entry `from` on, as they are now.
pub(crate) fn tracked(
    view: &View<'_>,
    shard: ShardId,
    job: JobId,
    from: u64,
    budget: ExportBudget,
) -> Result<TrackedPortion, StoreError> {
    let mut portion = TrackedPortion { next: from, done: true, ..TrackedPortion::default() };
    let (mut bytes, mut scanned) = (0, 0);
    let mut seen = std::collections::BTreeSet::new();
    view.each(Family::Tracker, &tracker_range(shard, job, from), Caching::Bypass, |key, entry| {
        if bytes >= budget.bytes || scanned >= budget.scanned_bytes {
            portion.done = false;
            return Ok(ControlFlow::Break(()));
        }
        let (number, kind, row) = decode_entry(key, entry)?;
        portion.next = number + 1;
        scanned += key.len() + entry.len();
        if seen.insert((kind, Bytes::copy_from_slice(row))) {
            let value = view.get(kind.family(), &with_shard(shard, row))?;
            let row = RawRow { kind, key: Bytes::copy_from_slice(row), value };
            bytes += row.bytes();
            portion.rows.push(row);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(portion)
}

/// The sum of everything that is exported of an interval, as far as it has come. Where it goes on it knows by itself: it takes no part in
/// how portions of a copy are cut, which it is there to judge.
pub struct Summing {
    range: PhysicalRange,
    chooser: Chooser,
    kind: RowKind,
    /// The first row that was not looked at.
    next: Vec<u8>,
    sum: RowSum,
}

impl Summing {
    /// Of a shard's interval, with what is to be left out below `safe_point`.
    pub fn new(shard: ShardId, interval: &Interval, safe_point: Timestamp) -> Self {
        let range = PhysicalRange::new(shard, interval);
        let next = range.lower.clone();
        Self { range, chooser: Chooser::new(safe_point), kind: RowKind::Version, next, sum: RowSum::default() }
    }

    /// Looks at `bytes` more, or a little more than that; the sum, if that was all. The view is the same each time.
    pub(crate) fn go_on(&mut self, view: &View<'_>, bytes: usize) -> Result<Option<RowSum>, StoreError> {
        let mut left = bytes;
        loop {
            let mut rows = view.rows(self.kind.family(), &self.range, Caching::Bypass);
            rows.seek(&self.next);
            while let Some((key, value)) = rows.entry() {
                if left == 0 {
                    self.next = key.to_vec();
                    return Ok(None);
                }
                if self.kind == RowKind::Record || self.chooser.takes(key, value)? {
                    self.sum = self.sum.plus(RowSum::of(self.kind, without_shard(key), value));
                }
                left = left.saturating_sub(key.len() + value.len());
                rows.next();
            }
            rows.status()?;
            match self.kind {
                RowKind::Version => (self.kind, self.next) = (RowKind::Record, self.range.lower.clone()),
                RowKind::Record => return Ok(Some(self.sum)),
            }
        }
    }
}
