//! Writes that are collected in memory, seen by the reads that follow them, and written as one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{Interval, JobId, LogicalKey, ShardId, key_prefix, split_versioned_key};
use rocksdb::WriteBatch;

use crate::bounds::PhysicalRange;
use crate::cursor::{MergedCursor, OverlayCursor};
use crate::engine::{Family, handle};
use crate::error::StoreError;
use crate::lock::{LockVisit, show_lock};
use crate::meta::{APPLIED_KEY, MetaKey, catalog_key};
use crate::record::{RecordKind, record_key};
use crate::row::{RawRow, RowKind, RowSum, with_shard, without_shard};
use crate::scan::{self, Visit, decode_value, version_key, version_stamp};
use crate::store::GroupStore;
use crate::tracker::{Tracking, encode_entry, tracker_key, tracker_range};
use crate::value::Stored;
use crate::view::{Caching, View};

/// Longer than any key: they are limited to a few KiB.
const HIGHEST_KEY_BYTES: usize = 64 << 10;

/// Rows of a family without versions; `None` deletes.
type Overlay = BTreeMap<Vec<u8>, Option<Bytes>>;

/// What applying entries reads and writes. Reads see the committed state with the batch's own writes on top. Dropped
/// without [`Batch::commit`] it leaves no trace.
///
/// Reads fail with [`StoreError::Corruption`] or a kind for the disk; writes touch memory only.
pub struct Batch<'a> {
    store: &'a GroupStore,
    base: View<'a>,
    /// Physical key to stored value. Versions are added or overwritten, never deleted.
    data: BTreeMap<Vec<u8>, Vec<u8>>,
    locks: Overlay,
    records: Overlay,
    meta: Overlay,
    tracker: Overlay,
    /// Ranges that are emptied before anything of the batch is written.
    emptied: Vec<(Family, PhysicalRange)>,
    tracking: Vec<Tracking>,
    /// No version of the committed state is younger.
    youngest: Timestamp,
    bytes: usize,
}

impl std::fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("store", self.store).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.store.writer_done();
    }
}

impl<'a> Batch<'a> {
    pub(crate) fn new(store: &'a GroupStore) -> Self {
        Self {
            store,
            base: View::latest(store.db()),
            data: BTreeMap::new(),
            locks: Overlay::new(),
            records: Overlay::new(),
            meta: Overlay::new(),
            tracker: Overlay::new(),
            emptied: Vec::new(),
            tracking: Vec::new(),
            youngest: Timestamp::MAX,
            bytes: 0,
        }
    }

    /// Bytes of keys and values collected so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest version of a row, tombstones and expired ones included.
    pub fn newest(&self, shard: ShardId, key: &LogicalKey) -> Result<Option<(Timestamp, Stored)>, StoreError> {
        self.visible(shard, key, Timestamp::MAX)
    }

    /// The newest version of a row at or below `at`, tombstones and expired ones included.
    pub fn visible(
        &self,
        shard: ShardId,
        key: &LogicalKey,
        at: Timestamp,
    ) -> Result<Option<(Timestamp, Stored)>, StoreError> {
        let prefix = key_prefix(shard, key);
        let own = self.own_version(&prefix, at)?;
        if own.as_ref().is_some_and(|(commit_ts, _)| *commit_ts == at) {
            return Ok(own);
        }
        let base = self.base.version(&prefix, at)?;
        Ok(match (own, base) {
            (Some(own), Some(base)) => Some(if own.0 >= base.0 { own } else { base }),
            (own, base) => own.or(base),
        })
    }

    fn own_version(&self, prefix: &[u8], at: Timestamp) -> Result<Option<(Timestamp, Stored)>, StoreError> {
        if self.data.is_empty() {
            return Ok(None);
        }
        let Some((key, value)) = self.data.range(version_key(prefix, at)..).next() else { return Ok(None) };
        match split_versioned_key(key) {
            Ok((head, raw)) if head == prefix => Ok(Some((Timestamp::from_raw(raw), decode_value(key, value)?))),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Shows, for each plain key of `interval` in ascending order, the newest version at or below `at`, tombstones and
    /// expired ones included, until `visit` breaks.
    pub fn scan_visible(
        &self,
        shard: ShardId,
        interval: &Interval,
        at: Timestamp,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let range = PhysicalRange::new(shard, interval);
        let under = self.base.rows(Family::Data, &range, Caching::Fill);
        scan::forward(&mut MergedCursor { over: OverlayCursor::new(&self.data), under }, &range, at, visit)
    }

    /// Says that no committed version is younger than this: what is written above it replaces nothing, and is not looked for.
    pub fn set_youngest(&mut self, youngest: Timestamp) {
        self.youngest = youngest;
    }

    /// Adds a version; reads only if its row is tracked and it is no younger than all others. A version of the same row and timestamp is replaced.
    pub fn put_version(
        &mut self,
        shard: ShardId,
        key: &LogicalKey,
        at: Timestamp,
        value: &Stored,
    ) -> Result<(), StoreError> {
        let mut row = key_prefix(shard, key);
        row.extend_from_slice(&version_stamp(at));
        let stored = value.encode();
        if self.is_tracked(shard, &key.route_key) {
            let old = match at > self.youngest {
                true => self.data.get(&row).map(|own| Bytes::copy_from_slice(own)),
                false => self.stored(RowKind::Version, &row)?,
            };
            self.track(shard, &key.route_key, RowKind::Version, &row, old.as_deref(), Some(&stored));
        }
        self.put_data(row, stored);
        Ok(())
    }

    fn put_data(&mut self, row: Vec<u8>, stored: Vec<u8>) {
        self.bytes += row.len() + stored.len();
        self.data.insert(row, stored);
    }

    /// Lists, from now on, every row written into these intervals; the lists go on where they are said to stand.
    pub fn set_tracking(&mut self, tracking: Vec<Tracking>) {
        self.tracking = tracking;
    }

    /// How far the lists have come.
    pub fn tracking(&self) -> &[Tracking] {
        &self.tracking
    }

    fn is_tracked(&self, shard: ShardId, route_key: &[u8]) -> bool {
        self.tracking.iter().any(|tracking| tracking.covers(shard, route_key))
    }

    fn track_record(
        &mut self,
        shard: ShardId,
        route_key: &[u8],
        row: &[u8],
        new: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        if self.is_tracked(shard, route_key) {
            let old = self.stored(RowKind::Record, row)?;
            self.track(shard, route_key, RowKind::Record, row, old.as_deref(), new);
        }
        Ok(())
    }

    /// Lists a row that is about to be written, for every job in whose interval it lies.
    fn track(
        &mut self,
        shard: ShardId,
        route_key: &[u8],
        kind: RowKind,
        row: &[u8],
        old: Option<&[u8]>,
        new: Option<&[u8]>,
    ) {
        let key = without_shard(row);
        let change = RowSum::of_change(kind, key, old, new);
        for tracking in self.tracking.iter_mut().filter(|tracking| tracking.covers(shard, route_key)) {
            self.tracker.insert(tracker_key(shard, tracking.job, tracking.rows), Some(encode_entry(kind, key)));
            tracking.rows += 1;
            tracking.bytes += (key.len() + new.map_or(0, <[u8]>::len)) as u64;
            tracking.change = tracking.change.plus(change);
            self.bytes += row.len();
        }
    }

    /// The stored bytes of a row.
    fn stored(&self, kind: RowKind, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match kind {
            RowKind::Record => self.get(Family::Records, &self.records, row),
            RowKind::Version => match self.data.get(row) {
                Some(own) => Ok(Some(Bytes::copy_from_slice(own))),
                None => self.base.get(Family::Data, row),
            },
        }
    }

    /// Takes in a row that was checked with [`RawRow::check`], as it is; what that adds to the sum of the shard's rows. One that
    /// `is_new` is known not to be there, and is not looked for.
    pub fn import(&mut self, shard: ShardId, row: &RawRow, is_new: bool) -> Result<RowSum, StoreError> {
        let key = with_shard(shard, &row.key);
        let old = if is_new { None } else { self.stored(row.kind, &key)? };
        let change = RowSum::of_change(row.kind, &row.key, old.as_deref(), row.value.as_deref());
        match (row.kind, &row.value) {
            (RowKind::Version, Some(value)) => self.put_data(key, value.to_vec()),
            (RowKind::Version, None) => {
                return Err(StoreError::bad_row(Family::Data.name(), &key, "a version that is to be taken away"));
            }
            (RowKind::Record, value) => {
                self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
                self.records.insert(key, value.clone());
            }
        }
        Ok(change)
    }

    /// Takes away all rows, locks and records of an interval, and of a shard the whole with [`Interval::all`]. Nothing may
    /// be read or written there in this batch any more.
    pub fn empty(&mut self, shard: ShardId, interval: &Interval) {
        let range = PhysicalRange::new(shard, interval);
        let is_outside = |key: &Vec<u8>| *key < range.lower || !range.is_above(key);
        self.data.retain(|key, _| is_outside(key));
        self.locks.retain(|key, _| is_outside(key));
        self.records.retain(|key, _| is_outside(key));
        self.emptied.extend([Family::Data, Family::Locks, Family::Records].map(|family| (family, range.clone())));
    }

    /// Takes away a job's list.
    pub fn empty_tracker(&mut self, shard: ShardId, job: JobId) {
        let range = tracker_range(shard, job, 0);
        self.tracker.retain(|key, _| *key < range.lower || !range.is_above(key));
        self.emptied.push((Family::Tracker, range));
    }

    /// The lock on a row.
    pub fn lock(&self, shard: ShardId, key: &LogicalKey) -> Result<Option<Bytes>, StoreError> {
        self.get(Family::Locks, &self.locks, &key_prefix(shard, key))
    }

    /// Shows the locks on rows whose route key lies in `interval`, in key order, until `visit` breaks.
    pub fn scan_locks(&self, shard: ShardId, interval: &Interval, visit: &mut LockVisit<'_>) -> Result<(), StoreError> {
        let range = PhysicalRange::new(shard, interval);
        let mut own = self.locks.range(range.lower.clone()..).take_while(|(key, _)| range.is_above(key)).peekable();
        let broken = self.base.each(Family::Locks, &range, Caching::Fill, |key, value| {
            while let Some((key, lock)) = own.next_if(|(own, _)| own.as_slice() < key) {
                if show_lock(key, lock.clone(), visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            // Own changes stand for what they replace.
            match own.peek().is_some_and(|(own, _)| own.as_slice() == key) {
                true => Ok(ControlFlow::Continue(())),
                false => show_lock(key, Some(Bytes::copy_from_slice(value)), visit),
            }
        })?;
        if broken.is_none() {
            for (key, lock) in own {
                if show_lock(key, lock.clone(), visit)?.is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Locks a row, or replaces its lock.
    pub fn put_lock(&mut self, shard: ShardId, key: &LogicalKey, lock: Bytes) {
        self.bytes += lock.len();
        self.locks.insert(key_prefix(shard, key), Some(lock));
    }

    /// Unlocks a row.
    pub fn delete_lock(&mut self, shard: ShardId, key: &LogicalKey) {
        self.locks.insert(key_prefix(shard, key), None);
    }

    /// The record of this name.
    pub fn record(
        &self,
        shard: ShardId,
        route_key: &[u8],
        kind: RecordKind,
        name: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        self.get(Family::Records, &self.records, &record_key(shard, route_key, kind, name))
    }

    /// Writes a record, or replaces it.
    pub fn put_record(
        &mut self,
        shard: ShardId,
        route_key: &[u8],
        kind: RecordKind,
        name: &[u8],
        record: Bytes,
    ) -> Result<(), StoreError> {
        let row = record_key(shard, route_key, kind, name);
        self.track_record(shard, route_key, &row, Some(&record))?;
        self.bytes += record.len();
        self.records.insert(row, Some(record));
        Ok(())
    }

    /// Removes a record, if it is there.
    pub fn delete_record(
        &mut self,
        shard: ShardId,
        route_key: &[u8],
        kind: RecordKind,
        name: &[u8],
    ) -> Result<(), StoreError> {
        let row = record_key(shard, route_key, kind, name);
        self.track_record(shard, route_key, &row, None)?;
        self.records.insert(row, None);
        Ok(())
    }

    /// A control row.
    pub fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StoreError> {
        self.get(Family::Meta, &self.meta, key.as_bytes())
    }

    /// Replaces a control row.
    pub fn put_meta(&mut self, key: MetaKey, value: Bytes) {
        self.meta.insert(key.as_bytes().to_vec(), Some(value));
    }

    /// Writes a row of the catalog, or removes it.
    pub fn put_catalog_row(&mut self, name: &[u8], value: Option<Bytes>) {
        self.bytes += name.len() + value.as_ref().map_or(0, Bytes::len);
        self.meta.insert(catalog_key(name), value);
    }

    /// Notes what is applied with this batch: an encoded `AppliedState`.
    pub fn put_applied_state(&mut self, state: Bytes) {
        self.meta.insert(APPLIED_KEY.to_vec(), Some(state));
    }

    fn get(&self, family: Family, overlay: &Overlay, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match overlay.get(key) {
            Some(own) => Ok(own.clone()),
            None => self.base.get(family, key),
        }
    }

    /// Writes everything at once. Visible to snapshots taken from now on; durable after the next flush.
    ///
    /// # Errors
    /// Those of the disk, from this write or from a flush in the background before it. Nothing of the batch is visible
    /// then.
    pub fn commit(self) -> Result<(), StoreError> {
        let db = self.store.db();
        let mut batch = WriteBatch::with_capacity_bytes(self.bytes + 64 * self.data.len());
        for (family, range) in &self.emptied {
            // The highest shard has no end; no key is longer than this and as high.
            let end = range.upper.clone().unwrap_or_else(|| vec![u8::MAX; HIGHEST_KEY_BYTES]);
            batch.delete_range_cf(handle(db, *family), &range.lower, &end);
        }
        let data = handle(db, Family::Data);
        for (key, value) in &self.data {
            batch.put_cf(data, key, value);
        }
        let overlays = [
            (Family::Locks, &self.locks),
            (Family::Records, &self.records),
            (Family::Meta, &self.meta),
            (Family::Tracker, &self.tracker),
        ];
        for (family, overlay) in overlays {
            let cf = handle(db, family);
            for (key, value) in overlay {
                match value {
                    Some(value) => batch.put_cf(cf, key, value),
                    None => batch.delete_cf(cf, key),
                }
            }
        }
        self.store.write(batch)
    }
}
