use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::{Error, Update};

/// What a transaction has done so far.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub start_ts: Option<Timestamp>,
    pub writes: BTreeMap<Bytes, Update>,
    /// In the order of their first writes: the first is the primary.
    pub order: Vec<Bytes>,
    /// Nothing is ever committed, so nobody asks what was read.
    pub reads_only: bool,
    pub read_keys: BTreeSet<Bytes>,
    pub read_intervals: Vec<Interval>,
    /// A read has failed in a way that a newer snapshot may mend.
    pub stale: Option<Error>,
}

impl Buffer {
    pub fn read_key(&mut self, key: &Bytes) {
        if !self.reads_only {
            self.read_keys.insert(key.clone());
        }
    }

    pub fn read_interval(&mut self, interval: Interval) {
        if !self.reads_only {
            self.read_intervals.push(interval);
        }
    }

    pub fn write(&mut self, key: Bytes, update: Update) {
        if self.writes.insert(key.clone(), update).is_none() {
            self.order.push(key);
        }
    }
}
