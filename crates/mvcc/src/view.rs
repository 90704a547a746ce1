//! Reads of one database, now or as of a snapshot: what batches and snapshots have in common.

use bytes::Bytes;
use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use parking_lot::Mutex;
use rocksdb::{DBPinnableSlice, ReadOptions};

use crate::bounds::PhysicalRange;
use crate::cursor::Cursor;
use crate::engine::{Db, Family, RawIter, Snapshot, handle};
use crate::error::StoreError;
use crate::scan::{decode_value, version_key};
use crate::value::Stored;

/// Whether a scan leaves the blocks it reads in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    Fill,
    /// For scans over everything, which would push out what point reads need.
    Bypass,
}

/// A database and the state of it that is read.
pub(crate) struct View<'a> {
    /// An iterator for point reads, made by the first and kept for the next ones. Declared first: it refers to the
    /// snapshot.
    point: Mutex<Option<RawIter<'a>>>,
    snapshot: Option<Snapshot<'a>>,
    db: &'a Db,
}

impl<'a> View<'a> {
    /// Everything committed until now, and nothing later.
    pub fn frozen(db: &'a Db) -> Self {
        let snapshot = guards::on(Guard::SnapshotsHeld).then(|| db.snapshot());
        Self { point: Mutex::new(None), snapshot, db }
    }

    /// The present state. Nobody else may write while it is in use, or reads disagree with each other.
    pub fn latest(db: &'a Db) -> Self {
        Self { point: Mutex::new(None), snapshot: None, db }
    }

    fn read_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        if let Some(snapshot) = &self.snapshot {
            options.set_snapshot(snapshot);
        }
        options
    }

    /// One row of a family without versions.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let cf = handle(self.db, family);
        let found: Option<DBPinnableSlice<'_>> = match &self.snapshot {
            Some(_) => self.db.get_pinned_cf_opt(cf, key, &self.read_options())?,
            None => self.db.get_pinned_cf(cf, key)?,
        };
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The newest version at or below `at` of the row whose versions start with `prefix`.
    pub fn version(&self, prefix: &[u8], at: Timestamp) -> Result<Option<(Timestamp, Stored)>, StoreError> {
        let kept = self.point.lock().take();
        let mut rows = kept.unwrap_or_else(|| self.point_iterator());
        let target = version_key(prefix, at);
        rows.seek(&target);
        let found = match rows.item() {
            Some((key, value)) if key.len() == target.len() && key.starts_with(prefix) => {
                let (_, commit_ts) = crate::scan::split(key)?;
                Some((commit_ts, decode_value(key, value)?))
            }
            Some(_) => None,
            None => {
                rows.status()?;
                None
            }
        };
        *self.point.lock() = Some(rows);
        Ok(found)
    }

    /// Over versions of single rows: filters answer for the row, and the end of its versions is the end.
    fn point_iterator(&self) -> RawIter<'a> {
        let mut options = self.read_options();
        options.set_prefix_same_as_start(true);
        self.db.raw_iterator_cf_opt(handle(self.db, Family::Data), options)
    }

    /// Over all rows of `range`, in key order.
    pub fn rows(&self, family: Family, range: &PhysicalRange, caching: Caching) -> RawIter<'a> {
        let mut options = self.read_options();
        options.set_total_order_seek(true);
        options.set_iterate_lower_bound(range.lower.clone());
        if let Some(upper) = &range.upper {
            options.set_iterate_upper_bound(upper.clone());
        }
        options.fill_cache(caching == Caching::Fill);
        self.db.raw_iterator_cf_opt(handle(self.db, family), options)
    }

    /// Shows every row of `range` until `visit` breaks or fails.
    pub fn each<B>(
        &self,
        family: Family,
        range: &PhysicalRange,
        caching: Caching,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<std::ops::ControlFlow<B>, StoreError>,
    ) -> Result<Option<B>, StoreError> {
        let mut rows = self.rows(family, range, caching);
        rows.seek_to_first();
        while let Some((key, value)) = rows.entry() {
            if let std::ops::ControlFlow::Break(result) = visit(key, value)? {
                return Ok(Some(result));
            }
            rows.next();
        }
        rows.status()?;
        Ok(None)
    }
}
