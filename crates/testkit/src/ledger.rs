//! What became of writes to keys that are each written once: the acknowledged ones must be found, the refused ones must
//! not be, and the others may be either.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use bytes::Bytes;

/// What the writer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet, or that it is not certain.
    Unknown,
    /// It is done.
    Acknowledged,
    /// It was not done and never will be.
    Refused,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    value: Bytes,
    fate: Fate,
}

/// The writes of all clients. Every key is written by one client, once (retries with an idempotency key count as one).
#[derive(Debug, Default)]
pub struct Ledger {
    records: Mutex<BTreeMap<Bytes, Record>>,
}

impl Ledger {
    /// Without writes.
    pub fn new() -> Self {
        Self::default()
    }

    /// To be called before the write is sent.
    ///
    /// # Panics
    /// If the key was written before.
    pub fn attempt(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let record = Record { value: value.into(), fate: Fate::Unknown };
        let before = self.lock().insert(key.into(), record);
        assert!(before.is_none(), "a key of a ledger is written once");
    }

    /// To be called when the write has ended.
    ///
    /// # Panics
    /// If the key was not attempted.
    pub fn end(&self, key: &[u8], fate: Fate) {
        self.lock().get_mut(key).expect("the write was attempted").fate = fate;
    }

    /// How many writes met each fate: acknowledged, refused, unknown.
    pub fn tally(&self) -> (usize, usize, usize) {
        let records = self.lock();
        let count = |fate| records.values().filter(|record| record.fate == fate).count();
        (count(Fate::Acknowledged), count(Fate::Refused), count(Fate::Unknown))
    }

    /// Compares the ledger with what was found: all rows of the keys it is about, from one consistent read.
    pub fn audit(&self, found: &BTreeMap<Bytes, Bytes>) -> Audit {
        let records = self.lock();
        let mut audit = Audit::default();
        for (key, record) in records.iter() {
            match (record.fate, found.get(key)) {
                (Fate::Acknowledged, Some(value)) if *value == record.value => audit.found += 1,
                (Fate::Acknowledged, None) => audit.lost.push(key.clone()),
                (Fate::Refused, Some(_)) => audit.risen.push(key.clone()),
                (Fate::Refused, None) | (Fate::Unknown, None) => {}
                (Fate::Unknown, Some(value)) if *value == record.value => audit.unknown_found += 1,
                (Fate::Acknowledged | Fate::Unknown, Some(_)) => audit.changed.push(key.clone()),
            }
        }
        audit.strange = found.keys().filter(|key| !records.contains_key(*key)).cloned().collect();
        audit
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Bytes, Record>> {
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Acknowledged writes that are there.
    pub found: usize,
    /// Writes of unknown fate that are there.
    pub unknown_found: usize,
    /// Acknowledged writes that are not there.
    pub lost: Vec<Bytes>,
    /// Refused writes that are there.
    pub risen: Vec<Bytes>,
    /// Writes that are there with another value.
    pub changed: Vec<Bytes>,
    /// Keys that nobody wrote.
    pub strange: Vec<Bytes>,
}

impl Audit {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        [&self.lost, &self.risen, &self.changed, &self.strange].into_iter().all(Vec::is_empty)
    }

    /// Fails the test unless every promise was kept.
    ///
    /// # Panics
    /// With the keys concerned.
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}");
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} acknowledged writes found, {} of unknown fate found", self.found, self.unknown_found)?;
        let faults = [
            ("acknowledged but lost", &self.lost),
            ("refused but there", &self.risen),
            ("there with another value", &self.changed),
            ("there but never written", &self.strange),
        ];
        for (name, keys) in faults.into_iter().filter(|(_, keys)| !keys.is_empty()) {
            let first: Vec<String> = keys.iter().take(5).map(|key| drover_keys::escape(key)).collect();
            write!(f, "; {} {name}, the first: {}", keys.len(), first.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(fate: Fate, found: &[(&'static str, &'static str)]) -> Audit {
        let ledger = Ledger::new();
        ledger.attempt("k", "v");
        ledger.end(b"k", fate);
        ledger.audit(&found.iter().map(|(key, value)| (Bytes::from(*key), Bytes::from(*value))).collect())
    }

    #[test]
    fn each_fate_has_its_faults() {
        let there = &[("k", "v")][..];
        let changed = &[("k", "w")][..];
        let table = [
            (Fate::Acknowledged, there, true),
            (Fate::Acknowledged, &[], false),
            (Fate::Acknowledged, changed, false),
            (Fate::Refused, &[], true),
            (Fate::Refused, there, false),
            (Fate::Refused, changed, false),
            (Fate::Unknown, &[], true),
            (Fate::Unknown, there, true),
            (Fate::Unknown, changed, false),
            (Fate::Unknown, &[("other", "v")], false),
        ];
        for (fate, found, clean) in table {
            let audit = audit(fate, found);
            assert_eq!(audit.is_clean(), clean, "{fate:?} {found:?}: {audit}");
        }
    }

    #[test]
    fn a_write_that_was_never_heard_of_again_is_of_unknown_fate() {
        let ledger = Ledger::new();
        ledger.attempt("k", "v");
        assert_eq!(ledger.tally(), (0, 0, 1));
    }
}
