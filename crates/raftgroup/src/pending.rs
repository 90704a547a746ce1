//! The registry of writes that are on their way: registered before their timestamp is asked for, removed when this
//! replica has applied their entry, or when it is certain that nothing was or will be proposed.
//!
//! A registry belongs to one leadership. A new one starts empty: the entries of earlier terms are applied before the
//! new leader proves its first read.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// One log entry's worth of registered writes.
#[derive(Debug)]
pub struct Slot {
    /// Raw form of the first operation's commit timestamp; zero while it is unknown.
    first_ts: AtomicU64,
    gone: AtomicBool,
    changed: Notify,
}

impl Slot {
    /// Makes the timestamps known: operation `i` of the entry has `first` plus `i`.
    fn assign(&self, first: Timestamp) {
        self.first_ts.store(first.raw(), Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    fn leave(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

/// A write that a read has to wait for.
#[derive(Debug, Clone)]
pub struct PendingWrite {
    slot: Arc<Slot>,
    /// Place of the operation in its entry.
    offset: u64,
}

impl PendingWrite {
    /// Whether a read at `at` (`None`: latest) need not wait for this write any longer: it is applied, or its
    /// timestamp turned out to be above `at`.
    fn is_settled(&self, at: Option<Timestamp>) -> bool {
        if self.slot.gone.load(Ordering::SeqCst) {
            return true;
        }
        let first = self.slot.first_ts.load(Ordering::SeqCst);
        match at {
            None => false,
            Some(_) if first == 0 => false,
            Some(at) => first.saturating_add(self.offset) > at.raw(),
        }
    }

    /// Waits until a read at `at` need not wait for this write any longer.
    pub async fn settled(&self, at: Option<Timestamp>) {
        loop {
            let changed = self.slot.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_settled(at) {
                return;
            }
            changed.await;
        }
    }
}

/// What one operation writes, as far as readers are concerned.
#[derive(Debug, Clone)]
pub enum Footprint {
    /// One route key.
    Key(Bytes),
    /// These route keys, all at the same timestamp.
    Keys(Vec<Bytes>),
    /// Every key of an interval.
    Range(Interval),
}

#[derive(Debug, Default)]
struct Inner {
    keys: BTreeMap<Bytes, Vec<PendingWrite>>,
    ranges: Vec<(Interval, PendingWrite)>,
}

impl Inner {
    fn remove_key(&mut self, key: &Bytes, slot: &Arc<Slot>) {
        if let Some(writes) = self.keys.get_mut(key) {
            writes.retain(|write| !Arc::ptr_eq(&write.slot, slot));
            if writes.is_empty() {
                self.keys.remove(key);
            }
        }
    }
}

/// Pending writes of one leadership of one group.
#[derive(Debug, Default)]
pub struct PendingRegistry {
    inner: Mutex<Inner>,
}

/// Registered writes of one entry. They stay registered until [`PendingRegistry::remove`]; a ticket that is dropped
/// leaves them where they are, because a dropped future proves nothing about the log.
#[derive(Debug)]
#[must_use = "pending keys block readers until they are removed"]
pub struct Ticket {
    slot: Arc<Slot>,
    footprints: Vec<Footprint>,
}

impl PendingRegistry {
    /// Enters the writes of one entry, in the order in which they will stand in it. Their timestamps must be asked for
    /// after this call.
    pub fn register(&self, footprints: Vec<Footprint>) -> Ticket {
        let slot = Arc::new(Slot { first_ts: AtomicU64::new(0), gone: AtomicBool::new(false), changed: Notify::new() });
        let mut inner = self.inner.lock();
        for (offset, footprint) in (0..).zip(&footprints) {
            let write = PendingWrite { slot: Arc::clone(&slot), offset };
            match footprint {
                Footprint::Key(key) => inner.keys.entry(key.clone()).or_default().push(write),
                Footprint::Keys(keys) => {
                    for key in keys {
                        inner.keys.entry(key.clone()).or_default().push(write.clone());
                    }
                }
                Footprint::Range(interval) => inner.ranges.push((interval.clone(), write)),
            }
        }
        drop(inner);
        Ticket { slot, footprints }
    }

    /// Makes the timestamps of a ticket's writes known.
    pub fn assign(&self, ticket: &Ticket, first: Timestamp) {
        ticket.slot.assign(first);
    }

    /// Removes the writes of a ticket: this replica has applied the entry, or nothing was or will be proposed.
    pub fn remove(&self, ticket: Ticket) {
        let mut inner = self.inner.lock();
        let mut had_range = false;
        for footprint in &ticket.footprints {
            match footprint {
                Footprint::Key(key) => inner.remove_key(key, &ticket.slot),
                Footprint::Keys(keys) => keys.iter().for_each(|key| inner.remove_key(key, &ticket.slot)),
                Footprint::Range(_) => had_range = true,
            }
        }
        if had_range {
            inner.ranges.retain(|(_, write)| !Arc::ptr_eq(&write.slot, &ticket.slot));
        }
        drop(inner);
        ticket.slot.leave();
    }

    /// The writes that are pending right now and that a read of `interval` at `at` (`None`: latest) has to wait for.
    pub fn blocking(&self, interval: &Interval, at: Option<Timestamp>) -> Vec<PendingWrite> {
        let inner = self.inner.lock();
        let over = |pending: &Interval| pending.overlaps(interval);
        let ranges = inner.ranges.iter().filter(|(pending, _)| over(pending)).map(|(_, write)| write);
        let bounds =
            (Bound::Included(interval.start()), interval.end().as_key().map_or(Bound::Unbounded, Bound::Excluded));
        let keys = inner.keys.range::<Bytes, _>(bounds).flat_map(|(_, writes)| writes);
        ranges.chain(keys).filter(|write| !write.is_settled(at)).cloned().collect()
    }

    /// As [`PendingRegistry::blocking`], for one key: a look-up instead of a walk.
    pub fn blocking_key(&self, key: &[u8], at: Option<Timestamp>) -> Vec<PendingWrite> {
        let inner = self.inner.lock();
        let ranges = inner.ranges.iter().filter(|(pending, _)| pending.contains(key)).map(|(_, write)| write);
        let keys = inner.keys.get(key).into_iter().flatten();
        ranges.chain(keys).filter(|write| !write.is_settled(at)).cloned().collect()
    }

    /// How many keys and ranges are pending.
    pub fn len(&self) -> usize {
        let inner = self.inner.lock();
        inner.keys.len() + inner.ranges.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::End;
    use futures::FutureExt;

    use super::*;

    fn ts(n: u64) -> Timestamp {
        Timestamp::from_raw(n)
    }

    fn key(k: &'static str) -> Footprint {
        Footprint::Key(Bytes::from_static(k.as_bytes()))
    }

    fn range(a: &'static str, b: &'static str) -> Interval {
        Interval::new(a, End::Key(b.into())).unwrap()
    }

    #[test]
    fn a_read_waits_for_the_pending_writes_of_its_keys_and_no_others() {
        let registry = PendingRegistry::default();
        let ticket = registry.register(vec![key("b"), key("d"), Footprint::Range(range("m", "p"))]);
        let several =
            registry.register(vec![Footprint::Keys(vec!["r".into(), "s".into()]), Footprint::Keys(Vec::new())]);
        for (k, waits) in [("r", true), ("s", true), ("t", false)] {
            assert_eq!(!registry.blocking_key(k.as_bytes(), None).is_empty(), waits, "{k}");
        }
        registry.remove(several);
        for (k, waits) in
            [("a", false), ("b", true), ("c", false), ("d", true), ("n", true), ("p", false), ("r", false)]
        {
            assert_eq!(!registry.blocking_key(k.as_bytes(), None).is_empty(), waits, "{k}");
            assert_eq!(!registry.blocking(&Interval::point(k), None).is_empty(), waits, "{k}");
        }
        assert_eq!(registry.blocking(&range("a", "n"), None).len(), 3);
        registry.remove(ticket);
        assert!(registry.is_empty());
        assert!(registry.blocking(&Interval::all(), None).is_empty());
    }

    #[test]
    fn a_snapshot_read_waits_while_the_timestamp_is_unknown_or_not_above_its_own() {
        let registry = PendingRegistry::default();
        let ticket = registry.register(vec![key("a"), key("b")]);
        assert_eq!(registry.blocking(&Interval::all(), Some(ts(5))).len(), 2);
        registry.assign(&ticket, ts(5));
        // "a" is written at 5, "b" at 6.
        for (k, at, waits) in [("a", 4, false), ("a", 5, true), ("b", 5, false), ("b", 6, true)] {
            assert_eq!(!registry.blocking_key(k.as_bytes(), Some(ts(at))).is_empty(), waits, "{k} at {at}");
        }
        assert_eq!(registry.blocking(&Interval::all(), None).len(), 2, "a latest read waits for both");
        registry.remove(ticket);
    }

    #[tokio::test]
    async fn waiting_ends_when_the_write_is_removed_or_turns_out_to_be_younger() {
        let registry = PendingRegistry::default();
        let ticket = registry.register(vec![key("a")]);
        let snapshot = registry.blocking_key(b"a", Some(ts(5))).remove(0);
        let latest = registry.blocking_key(b"a", None).remove(0);
        let (mut snapshot, mut latest) = (Box::pin(snapshot.settled(Some(ts(5)))), Box::pin(latest.settled(None)));
        assert!(snapshot.as_mut().now_or_never().is_none());
        registry.assign(&ticket, ts(6));
        assert!(snapshot.as_mut().now_or_never().is_some());
        assert!(latest.as_mut().now_or_never().is_none());
        registry.remove(ticket);
        assert!(latest.as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_dropped_ticket_leaves_its_keys_pending() {
        let registry = PendingRegistry::default();
        drop(registry.register(vec![key("a")]));
        assert_eq!(registry.blocking_key(b"a", None).len(), 1);
    }

    #[test]
    fn two_entries_on_one_key_are_waited_for_separately() {
        let registry = PendingRegistry::default();
        let first = registry.register(vec![key("a")]);
        let second = registry.register(vec![key("a")]);
        registry.remove(first);
        assert_eq!(registry.blocking_key(b"a", None).len(), 1);
        registry.remove(second);
        assert!(registry.is_empty());
    }
}
