//! The rows of a group, in memory, in the bytes in which the product stores them: what a RocksDB store is to apply.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use drover_fsm::codec::txn::{Lock, TxnMarker};
use drover_fsm::moving::MovedRows;
use drover_hlc::Timestamp;
use drover_keys::{DataKey, Interval, JobId, LogicalKey, ShardId, shard_prefix};
use drover_kv::TxnId;
use drover_mvcc::{GcRules, RawRow, RowKind, RowSum, Stored, Tracking};

/// Bytes of the shard in front of a physical key.
const SHARD_BYTES: usize = 8;
/// How the store names the record of a participant (`drover_mvcc::RecordKind::TxnMarker`).
const MARKER_TAG: u8 = 3;

/// One kind of row and its key without the shard.
pub type RowName = (RowKind, Bytes);

/// Rows, locks and trackers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Rows {
    rows: BTreeMap<(ShardId, RowName), Bytes>,
    locks: BTreeMap<(ShardId, Bytes), Lock>,
    /// Which rows were written, in the order of the log.
    lists: BTreeMap<(ShardId, JobId), Vec<RowName>>,
    /// What is listed at present.
    tracking: Vec<Tracking>,
}

/// A portion of a copy.
pub struct Portion {
    /// What it holds.
    pub rows: Vec<RawRow>,
    /// From where the next one goes on.
    pub cursor: Bytes,
    /// There is nothing behind it.
    pub done: bool,
}

fn version_key(key: &Bytes, at: Timestamp) -> Bytes {
    let key = DataKey { shard: ShardId(0), key: LogicalKey::plain(key.clone()), commit_ts: at.raw() };
    Bytes::from(key.encode()).slice(SHARD_BYTES..)
}

/// A version as it travels.
pub fn version_row(key: &Bytes, at: Timestamp, value: &Stored) -> RawRow {
    RawRow { kind: RowKind::Version, key: version_key(key, at), value: Some(value.encode().into()) }
}

fn marker_key(key: &Bytes, id: TxnId) -> Bytes {
    let mut name = shard_prefix(ShardId(0), key);
    name.push(MARKER_TAG);
    name.extend_from_slice(&id.0);
    Bytes::from(name).slice(SHARD_BYTES..)
}

/// The route key and the commit timestamp of a version.
fn version_of(name: &Bytes) -> (Bytes, Timestamp) {
    let physical = [&[0; SHARD_BYTES][..], name].concat();
    let DataKey { key, commit_ts, .. } = DataKey::decode(&physical).expect("the model writes these keys itself");
    (key.route_key, Timestamp::from_raw(commit_ts))
}

impl Rows {
    /// The versions of a key, newest first.
    pub fn versions(&self, shard: ShardId, key: &Bytes) -> impl Iterator<Item = (Timestamp, Stored)> {
        let all = self
            .rows
            .range((shard, (RowKind::Version, Bytes::new()))..)
            .take_while(move |((of, (kind, _)), _)| *of == shard && *kind == RowKind::Version);
        all.filter_map(move |((_, (_, name)), value)| {
            let (of, at) = version_of(name);
            (of == *key).then(|| (at, Stored::decode(value).expect("the model writes these values itself")))
        })
    }

    /// The newest version of a key at or below `at`.
    pub fn visible(&self, shard: ShardId, key: &Bytes, at: Timestamp) -> Option<(Timestamp, Stored)> {
        self.versions(shard, key).find(|(commit_ts, _)| *commit_ts <= at)
    }

    /// The lock on a key.
    pub fn lock(&self, shard: ShardId, key: &Bytes) -> Option<&Lock> {
        self.locks.get(&(shard, key.clone()))
    }

    /// The oldest snapshot that a transaction with a lock in an interval reads.
    pub fn oldest_lock(&self, shard: ShardId, interval: &Interval) -> Option<Timestamp> {
        self.locks_in(shard, interval).map(|lock| lock.start_ts).min()
    }

    fn locks_in<'a>(&'a self, shard: ShardId, interval: &'a Interval) -> impl Iterator<Item = &'a Lock> {
        let inside = move |(of, key): &(ShardId, Bytes)| *of == shard && interval.contains(key);
        self.locks.iter().filter(move |(key, _)| inside(key)).map(|(_, lock)| lock)
    }

    /// What a participant remembers of a transaction.
    pub fn marker(&self, shard: ShardId, key: &Bytes, id: TxnId) -> Option<TxnMarker> {
        let bytes = self.rows.get(&(shard, (RowKind::Record, marker_key(key, id))))?;
        Some(TxnMarker::decode(bytes.clone()).expect("the model writes these records itself"))
    }

    /// Writes a version.
    pub fn put_version(&mut self, shard: ShardId, key: &Bytes, at: Timestamp, value: &Stored) {
        self.put(shard, key, (RowKind::Version, version_key(key, at)), value.encode().into());
    }

    /// Writes what a participant remembers of a transaction.
    pub fn put_marker(&mut self, shard: ShardId, key: &Bytes, id: TxnId, marker: &TxnMarker) {
        self.put(shard, key, (RowKind::Record, marker_key(key, id)), marker.encode());
    }

    /// Every row passes here, and is listed for every job in whose interval it lies: as `drover_mvcc::Batch` does it.
    fn put(&mut self, shard: ShardId, route_key: &Bytes, name: RowName, value: Bytes) {
        let old = self.rows.insert((shard, name.clone()), value.clone());
        let change = RowSum::of_change(name.0, &name.1, old.as_deref(), Some(&value));
        for tracking in self.tracking.iter_mut().filter(|tracking| tracking.covers(shard, route_key)) {
            self.lists.entry((shard, tracking.job)).or_default().push(name.clone());
            tracking.rows += 1;
            tracking.bytes += (name.1.len() + value.len()) as u64;
            tracking.change = tracking.change.plus(change);
        }
    }

    /// Sets a lock. Whether there was none.
    pub fn put_lock(&mut self, shard: ShardId, key: &Bytes, lock: Lock) -> bool {
        self.locks.insert((shard, key.clone()), lock).is_none()
    }

    /// Takes a lock away. Whether there was one.
    pub fn unlock(&mut self, shard: ShardId, key: &Bytes) -> bool {
        self.locks.remove(&(shard, key.clone())).is_some()
    }

    /// What is listed at present, and how far it has come.
    pub fn tracking(&self) -> &[Tracking] {
        &self.tracking
    }

    /// Garbage collection has done all that it may.
    pub fn collect(&mut self, rules: &GcRules) {
        for rule in rules.0.iter().filter(|rule| !rule.pinned) {
            let mut kept: Option<Bytes> = None;
            self.rows.retain(|(shard, (kind, name)), value| {
                if *shard != rule.shard || *kind != RowKind::Version {
                    return true;
                }
                let (key, at) = version_of(name);
                if at > rule.safe_point || !rule.interval.contains(&key) {
                    return true;
                }
                let is_newest = kept.replace(key.clone()).as_ref() != Some(&key);
                is_newest && Stored::decode(value) != Ok(Stored::Tombstone)
            });
        }
    }

    /// The rows of an interval that a copy holds: of each key all versions above the safe point, and the newest at or below it
    /// unless that is a tombstone; all records.
    fn exported<'a>(
        &'a self,
        kind: RowKind,
        shard: ShardId,
        interval: &'a Interval,
        safe_point: Timestamp,
    ) -> impl Iterator<Item = RawRow> + 'a {
        let mut base: Option<Bytes> = None;
        let of_kind = self.rows.iter().filter(move |((of, (row, _)), _)| *of == shard && *row == kind);
        of_kind.filter_map(move |((_, (_, name)), value)| {
            let row = RawRow { kind, key: name.clone(), value: Some(value.clone()) };
            let Some(at) = row.check(interval).ok()? else { return Some(row) };
            if at > safe_point {
                return Some(row);
            }
            let (key, _) = version_of(name);
            let is_base = base.replace(key.clone()).as_ref() != Some(&key);
            (is_base && Stored::decode(value) != Ok(Stored::Tombstone)).then_some(row)
        })
    }

    /// At most `limit` rows of one kind behind `after`.
    pub fn export(
        &self,
        kind: RowKind,
        shard: ShardId,
        interval: &Interval,
        safe_point: Timestamp,
        after: &Bytes,
        limit: usize,
    ) -> Portion {
        let mut rows: Vec<RawRow> = self
            .exported(kind, shard, interval, safe_point)
            .filter(|row| after.is_empty() || row.key > *after)
            .collect();
        let done = rows.len() <= limit;
        rows.truncate(limit);
        let cursor = rows.last().map_or(after.clone(), |row| row.key.clone());
        Portion { rows, cursor, done }
    }

    /// The rows that a job's list names from entry `from` on, as they are now; how far that is.
    pub fn export_tracked(&self, shard: ShardId, job: JobId, from: u64, limit: usize) -> (Vec<RawRow>, u64, bool) {
        let list = self.lists.get(&(shard, job)).map_or(&[][..], Vec::as_slice);
        let behind = list.get(from as usize..).unwrap_or_default();
        let mut rows: Vec<RawRow> = Vec::new();
        for (kind, key) in behind.iter().take(limit) {
            let value = self.rows.get(&(shard, (*kind, key.clone()))).cloned();
            if !rows.iter().any(|row| (row.kind, &row.key) == (*kind, key)) {
                rows.push(RawRow { kind: *kind, key: key.clone(), value });
            }
        }
        (rows, from + behind.len().min(limit) as u64, behind.len() <= limit)
    }

    /// The sum of everything that is exported of an interval.
    pub fn sum(&self, shard: ShardId, interval: &Interval, safe_point: Timestamp) -> RowSum {
        let both = [RowKind::Version, RowKind::Record].into_iter();
        let rows = both.flat_map(|kind| self.exported(kind, shard, interval, safe_point));
        rows.fold(RowSum::default(), |sum, row| {
            sum.plus(RowSum::of_change(row.kind, &row.key, None, row.value.as_deref()))
        })
    }

    /// Whether a shard holds anything.
    pub fn holds(&self, shard: ShardId) -> bool {
        self.rows.keys().any(|(of, _)| *of == shard) || self.locks.keys().any(|(of, _)| *of == shard)
    }
}

impl MovedRows for Rows {
    type Error = Infallible;

    fn empty(&mut self, shard: ShardId, interval: &Interval) {
        let inside = |(of, (kind, key)): &(ShardId, RowName)| {
            let row = RawRow { kind: *kind, key: key.clone(), value: Some(Stored::Tombstone.encode().into()) };
            *of == shard && row.check(interval).is_ok()
        };
        self.rows.retain(|row, _| !inside(row));
        self.locks.retain(|(of, key), _| *of != shard || !interval.contains(key));
    }

    fn empty_tracker(&mut self, shard: ShardId, job: JobId) {
        self.lists.remove(&(shard, job));
    }

    fn import(&mut self, shard: ShardId, row: &RawRow, is_new: bool) -> Result<RowSum, Infallible> {
        let name = (shard, (row.kind, row.key.clone()));
        let old = match &row.value {
            Some(value) => self.rows.insert(name, value.clone()),
            None => self.rows.remove(&name),
        };
        // As in `drover_mvcc::Batch`, where it is not looked for.
        let old = old.filter(|_| !is_new);
        Ok(RowSum::of_change(row.kind, &row.key, old.as_deref(), row.value.as_deref()))
    }

    fn is_locked(&self, shard: ShardId, interval: &Interval) -> Result<bool, Infallible> {
        Ok(self.locks_in(shard, interval).next().is_some())
    }

    fn set_tracking(&mut self, ranges: Vec<Tracking>) {
        self.tracking = ranges;
    }
}
