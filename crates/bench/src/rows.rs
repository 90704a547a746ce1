use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::task::JoinSet;

use crate::Store;

/// Keys that are read at once when all are verified.
const VERIFY_LANES: u64 = 64;
/// Flaws that are described; the rest is only counted.
const DESCRIBED: usize = 5;

/// What was written to one key. Its first value has number 0.
#[derive(Debug, Default)]
struct Mark {
    /// Number of the last write that was sent.
    sent: AtomicU32,
    /// Number of the last write that was acknowledged.
    acknowledged: AtomicU32,
}

/// Numbered keys, the values that belong to them, and what was written to them so far.
pub struct Rows {
    key: Box<dyn Fn(u64) -> Bytes + Send + Sync>,
    value_bytes: usize,
    marks: Vec<Mark>,
}

/// What a read found that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// No value, although one was written.
    #[error("has no value")]
    Missing,
    /// A value from before a write that was acknowledged when the read began, or of one that nobody sent.
    #[error("has the value of write {found}; {least} was acknowledged, {most} were sent")]
    WrongWrite {
        /// Number of the write whose value was found.
        found: u32,
        /// Number of the last acknowledged write.
        least: u32,
        /// Number of the last write that was sent.
        most: u32,
    },
    /// A value that nobody wrote to this key.
    #[error("has a value that nobody wrote")]
    Foreign,
}

/// How many of them there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flaws {
    /// Acknowledged writes that are not there.
    pub missing: u64,
    /// Values that are others than they may be.
    pub wrong: u64,
    /// The first ones, for people.
    pub described: Vec<String>,
}

impl Flaws {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.missing + self.wrong == 0
    }

    fn count(&mut self, key: &Bytes, flaw: &Flaw) {
        match flaw {
            Flaw::Missing => self.missing += 1,
            Flaw::WrongWrite { found, least, .. } if found < least => self.missing += 1,
            Flaw::WrongWrite { .. } | Flaw::Foreign => self.wrong += 1,
        }
        if self.described.len() < DESCRIBED {
            self.described.push(format!("{} {flaw}", String::from_utf8_lossy(key)));
        }
    }

    /// Takes over those that others have found.
    pub fn add(&mut self, other: &Flaws) {
        self.missing += other.missing;
        self.wrong += other.wrong;
        let room = DESCRIBED.saturating_sub(self.described.len());
        self.described.extend(other.described.iter().take(room).cloned());
    }
}

impl Rows {
    /// The smallest value that can tell where it comes from.
    pub const LEAST_VALUE_BYTES: usize = 12;

    /// So many rows with values of that size; `key` makes a key of its number.
    ///
    /// # Panics
    /// If values are smaller than [`Rows::LEAST_VALUE_BYTES`].
    pub fn new(count: u64, value_bytes: usize, key: impl Fn(u64) -> Bytes + Send + Sync + 'static) -> Arc<Rows> {
        assert!(value_bytes >= Self::LEAST_VALUE_BYTES, "a value names its key and its write");
        let marks = (0..count).map(|_| Mark::default()).collect();
        Arc::new(Rows { key: Box::new(key), value_bytes, marks })
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.marks.len() as u64
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> u64 {
        self.count() * self.value_bytes as u64
    }

    /// Size of each value.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// The key with this number.
    pub fn key(&self, n: u64) -> Bytes {
        (self.key)(n)
    }

    /// What a write of a key puts there: which key, which write, and bytes that do not compress.
    pub fn value(&self, n: u64, write: u32) -> Bytes {
        let mut value = BytesMut::with_capacity(self.value_bytes);
        value.put_u64(n);
        value.put_u32(write);
        value.resize(self.value_bytes, 0);
        let mut random = StdRng::seed_from_u64(n.rotate_left(32) ^ u64::from(write));
        random.fill_bytes(&mut value[Self::LEAST_VALUE_BYTES..]);
        value.freeze()
    }

    /// Number of the next write to a key; `None` if it is not known what became of the last one. To be called by the key's one
    /// writer, before it sends the write.
    pub(crate) fn send(&self, n: u64) -> Option<u32> {
        let mark = &self.marks[n as usize];
        let last = mark.sent.load(Ordering::SeqCst);
        if mark.acknowledged.load(Ordering::SeqCst) != last {
            return None;
        }
        mark.sent.store(last + 1, Ordering::SeqCst);
        Some(last + 1)
    }

    pub(crate) fn acknowledge(&self, n: u64, write: u32) {
        self.marks[n as usize].acknowledged.store(write, Ordering::SeqCst);
    }

    /// Number of the last acknowledged write: a read that begins now finds this or a later one.
    pub(crate) fn acknowledged(&self, n: u64) -> u32 {
        self.marks[n as usize].acknowledged.load(Ordering::SeqCst)
    }

    /// Judges what a read found that has ended now, and had begun when write `least` was acknowledged.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(&self, n: u64, least: u32, found: Option<&Bytes>) -> Result<(), Flaw> {
        let Some(value) = found else { return Err(Flaw::Missing) };
        if value.len() != self.value_bytes {
            return Err(Flaw::Foreign);
        }
        let mut head = &value[..];
        let (number, write) = (head.get_u64(), head.get_u32());
        if number != n || *value != self.value(n, write) {
            return Err(Flaw::Foreign);
        }
        let most = self.marks[n as usize].sent.load(Ordering::SeqCst);
        if !(least..=most).contains(&write) {
            return Err(Flaw::WrongWrite { found: write, least, most });
        }
        Ok(())
    }

    pub(crate) fn check(&self, n: u64, least: u32, found: Option<&Bytes>, flaws: &mut Flaws) {
        if let Err(flaw) = self.judge(n, least, found) {
            flaws.count(&self.key(n), &flaw);
        }
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("count", &self.count()).field("value_bytes", &self.value_bytes).finish()
    }
}

/// Reads every row back when nobody writes any more, and compares it with what was acknowledged. `on_row` is told of each.
///
/// # Errors
/// The first read that failed.
pub async fn verify<S: Store>(
    store: &S,
    rows: &Arc<Rows>,
    on_row: impl Fn() + Clone + Send + 'static,
) -> Result<Flaws, String> {
    let mut lanes = JoinSet::new();
    for lane in 0..VERIFY_LANES.min(rows.count()) {
        let (store, rows, on_row) = (store.clone(), Arc::clone(rows), on_row.clone());
        lanes.spawn(async move {
            let mut flaws = Flaws::default();
            for n in (lane..rows.count()).step_by(VERIFY_LANES as usize) {
                let least = rows.acknowledged(n);
                let found = store.get(vec![rows.key(n)]).await.map_err(|error| error.to_string())?;
                rows.check(n, least, found[0].as_ref(), &mut flaws);
                on_row();
            }
            Ok::<_, String>(flaws)
        });
    }
    let mut all = Flaws::default();
    while let Some(lane) = lanes.join_next().await {
        all.add(&lane.map_err(|error| error.to_string())??);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Arc<Rows> {
        Rows::new(2, 40, |n| Bytes::from(format!("k{n}")))
    }

    #[test]
    fn what_is_read_is_the_last_acknowledged_write_or_one_under_way() {
        let rows = rows();
        assert_eq!(rows.judge(0, 0, Some(&rows.value(0, 0))), Ok(()));
        let first = rows.send(0).unwrap();
        // It may have been applied before it is acknowledged.
        assert_eq!(rows.judge(0, 0, Some(&rows.value(0, first))), Ok(()));
        assert_eq!(rows.judge(0, 0, Some(&rows.value(0, 0))), Ok(()));
        rows.acknowledge(0, first);
        let older = Flaw::WrongWrite { found: 0, least: 1, most: 1 };
        assert_eq!(rows.judge(0, rows.acknowledged(0), Some(&rows.value(0, 0))), Err(older));
        // A read that began before the acknowledgement may have been answered before it, too.
        assert_eq!(rows.judge(0, 0, Some(&rows.value(0, 0))), Ok(()));
        let never = Flaw::WrongWrite { found: 2, least: 1, most: 1 };
        assert_eq!(rows.judge(0, 1, Some(&rows.value(0, 2))), Err(never));
    }

    #[test]
    fn a_value_that_is_gone_or_of_another_key_or_damaged_is_told() {
        let rows = rows();
        let mut damaged = rows.value(0, 0).to_vec();
        damaged[30] ^= 1;
        let table = [
            (None, Flaw::Missing),
            (Some(rows.value(1, 0)), Flaw::Foreign),
            (Some(damaged.into()), Flaw::Foreign),
            (Some(Bytes::from_static(b"short")), Flaw::Foreign),
        ];
        for (found, flaw) in table {
            assert_eq!(rows.judge(0, 0, found.as_ref()), Err(flaw));
        }
    }

    #[test]
    fn an_older_value_is_a_missing_write_and_one_from_nowhere_is_wrong() {
        let mut flaws = Flaws::default();
        for flaw in [Flaw::Missing, Flaw::WrongWrite { found: 1, least: 2, most: 2 }, Flaw::Foreign] {
            flaws.count(&Bytes::from_static(b"k"), &flaw);
        }
        flaws.count(&Bytes::from_static(b"k"), &Flaw::WrongWrite { found: 3, least: 2, most: 2 });
        assert_eq!((flaws.missing, flaws.wrong, flaws.is_empty()), (2, 2, false));
        assert_eq!(flaws.described[0], "k has no value");
    }

    #[test]
    fn a_key_is_left_alone_once_it_is_not_known_what_became_of_a_write() {
        let rows = rows();
        assert_eq!((rows.send(1), rows.send(1)), (Some(1), None));
        rows.acknowledge(1, 1);
        assert_eq!(rows.send(1), Some(2));
    }
}
