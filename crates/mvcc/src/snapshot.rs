//! Reads of one consistent state of a store.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{Interval, JobId, LogicalKey, ShardId, key_prefix};
use self_cell::self_cell;

use crate::bounds::PhysicalRange;
use crate::digest::{self, Digest, DigestScope};
use crate::engine::Family;
use crate::error::StoreError;
use crate::export::{self, ExportBudget, Portion, Summing, TrackedPortion};
use crate::lock::{LockVisit, show_lock};
use crate::meta::{APPLIED_KEY, MetaKey};
use crate::record::{RecordKind, RecordPlace, RecordRow, decode_record_key, record_key};
use crate::row::{RowKind, RowSum};
use crate::scan::{self, Visit};
use crate::store::GroupStore;
use crate::strays;
use crate::value::Stored;
use crate::view::{Caching, View};

self_cell!(
    struct OwnedView {
        owner: Arc<GroupStore>,
        #[not_covariant]
        dependent: View,
    }
);

/// Everything that was committed when it was taken, and nothing later. Keeps the store open.
///
/// Garbage collection does not respect snapshots: after reading at a timestamp, compare it with the *present* safe point
/// once more.
///
/// All methods block on the disk if what they need is not in memory; all fail with [`StoreError::Corruption`] or a kind
/// for the disk.
pub struct StoreSnapshot {
    view: OwnedView,
}

impl std::fmt::Debug for StoreSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSnapshot").field("store", self.view.borrow_owner()).finish_non_exhaustive()
    }
}

impl StoreSnapshot {
    pub(crate) fn new(store: Arc<GroupStore>) -> Self {
        Self { view: OwnedView::new(store, |store| View::frozen(store.db())) }
    }

    fn view<R>(&self, read: impl for<'a> FnOnce(&View<'a>) -> R) -> R {
        self.view.with_dependent(|_, view| read(view))
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
        self.view(|view| view.version(&key_prefix(shard, key), at))
    }

    /// Shows, for each plain key of `interval` in ascending (or, with `reverse`, descending) order, the newest version at
    /// or below `at`, tombstones and expired ones included, until `visit` breaks.
    pub fn scan(
        &self,
        shard: ShardId,
        interval: &Interval,
        at: Timestamp,
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let range = PhysicalRange::new(shard, interval);
        self.view(|view| {
            let mut rows = view.rows(Family::Data, &range, Caching::Fill);
            if reverse { scan::reverse(&mut rows, at, visit) } else { scan::forward(&mut rows, &range, at, visit) }
        })
    }

    /// The lock on a row.
    pub fn lock(&self, shard: ShardId, key: &LogicalKey) -> Result<Option<Bytes>, StoreError> {
        self.view(|view| view.get(Family::Locks, &key_prefix(shard, key)))
    }

    /// Shows the locks on rows whose route key lies in `interval`, in key order, until `visit` breaks.
    pub fn scan_locks(&self, shard: ShardId, interval: &Interval, visit: &mut LockVisit<'_>) -> Result<(), StoreError> {
        let range = PhysicalRange::new(shard, interval);
        let show = |key: &[u8], value: &[u8]| show_lock(key, Some(Bytes::copy_from_slice(value)), visit);
        self.view(|view| view.each(Family::Locks, &range, Caching::Fill, show)).map(|_| ())
    }

    /// The record of this name.
    pub fn record(
        &self,
        shard: ShardId,
        route_key: &[u8],
        kind: RecordKind,
        name: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        self.view(|view| view.get(Family::Records, &record_key(shard, route_key, kind, name)))
    }

    /// Shows the records filed under route keys of `interval`, in the order `(route key, kind, name)`, until `visit` breaks:
    /// all of them, or those at `from` and behind it.
    pub fn scan_records(
        &self,
        shard: ShardId,
        interval: &Interval,
        from: Option<&RecordPlace>,
        visit: &mut dyn FnMut(RecordRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut range = PhysicalRange::new(shard, interval);
        if let Some(RecordPlace { route_key, kind, name }) = from {
            range.lower = range.lower.max(record_key(shard, route_key, *kind, name));
        }
        self.view(|view| {
            view.each(Family::Records, &range, Caching::Bypass, |key, value| {
                let (route_key, kind, name) =
                    decode_record_key(key).map_err(|e| StoreError::bad_row(Family::Records.name(), key, e))?;
                Ok(visit(RecordRow {
                    route_key: route_key.into(),
                    kind,
                    name: Bytes::copy_from_slice(name),
                    value: Bytes::copy_from_slice(value),
                }))
            })
        })?;
        Ok(())
    }

    /// The rows of one kind in `interval`, as they are stored, behind the row `after` (empty: from the first), until the
    /// budget is used up. Of versions, those that nobody may read at or above `safe_point` are left out: what one replica has
    /// collected and another has not makes no difference.
    pub fn export(
        &self,
        kind: RowKind,
        shard: ShardId,
        interval: &Interval,
        safe_point: Timestamp,
        after: &[u8],
        budget: ExportBudget,
    ) -> Result<Portion, StoreError> {
        self.view(|view| export::portion(view, kind, shard, interval, safe_point, after, budget))
    }

    /// The rows that were written since a job's tracker was armed, from entry `from` of its list on, as they are now.
    pub fn export_tracked(
        &self,
        shard: ShardId,
        job: JobId,
        from: u64,
        budget: ExportBudget,
    ) -> Result<TrackedPortion, StoreError> {
        self.view(|view| export::tracked(view, shard, job, from, budget))
    }

    /// The sum of all that [`StoreSnapshot::export`] gives for an interval. Reads all of it.
    pub fn sum(&self, shard: ShardId, interval: &Interval, safe_point: Timestamp) -> Result<RowSum, StoreError> {
        let mut summing = Summing::new(shard, interval, safe_point);
        loop {
            if let Some(sum) = self.sum_on(&mut summing, usize::MAX)? {
                return Ok(sum);
            }
        }
    }

    /// Adds up `bytes` more of that; the sum, if that was all.
    pub fn sum_on(&self, summing: &mut Summing, bytes: usize) -> Result<Option<RowSum>, StoreError> {
        self.view(|view| summing.go_on(view, bytes))
    }

    /// A control row.
    pub fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StoreError> {
        self.view(|view| view.get(Family::Meta, key.as_bytes()))
    }

    /// The encoded `AppliedState`; `None` if nothing was applied.
    pub fn applied_state(&self) -> Result<Option<Bytes>, StoreError> {
        self.view(|view| view.get(Family::Meta, APPLIED_KEY))
    }

    /// How many places outside of the intervals `kept`, and of the lists of the jobs `lists`, hold rows, although nothing should
    /// be there. Cheap: it looks at a few rows for each interval.
    pub fn strays(&self, kept: &[(ShardId, Interval)], lists: &[(ShardId, JobId)]) -> Result<u64, StoreError> {
        self.view(|view| strays::count(view, kept, lists))
    }

    /// Hash and number of all logical rows: data, locks, records, catalog, and the control rows named by `meta`. Replicas that
    /// applied the same entries agree on it, whatever each has collected: in the intervals of `scopes` only those
    /// versions count that no rule at or below the scope's safe point permits to collect. Elsewhere all count. Reads the
    /// whole store.
    ///
    /// # Panics
    /// If intervals of `scopes` overlap.
    pub fn digest(&self, scopes: &[DigestScope], meta: &[MetaKey]) -> Result<Digest, StoreError> {
        self.view(|view| digest::compute(view, scopes, meta))
    }
}
