use std::collections::VecDeque;

use bytes::Bytes;
use drover_keys::Interval;

/// Puts rows of the snapshot and own writes in order.
#[derive(Debug)]
pub(super) struct Merge {
    /// Own writes in the interval, in scan order; `None` deletes.
    pub own: VecDeque<(Bytes, Option<Bytes>)>,
    pub rows: Vec<(Bytes, Bytes)>,
    pub reverse: bool,
    /// Zero: none.
    pub limit: usize,
}

impl Merge {
    pub fn is_full(&self) -> bool {
        self.limit > 0 && self.rows.len() >= self.limit
    }

    /// Takes the next row of the snapshot.
    pub fn row(&mut self, key: Bytes, value: Bytes) {
        while !self.is_full()
            && let Some((own, written)) =
                self.own.pop_front_if(|(own, _)| *own == key || before(self.reverse, own, &key))
        {
            let replaced = own == key;
            self.rows.extend(written.map(|value| (own, value)));
            if replaced {
                return;
            }
        }
        if !self.is_full() {
            self.rows.push((key, value));
        }
    }

    /// There are no more rows in the snapshot.
    pub fn finish(&mut self) {
        while !self.is_full()
            && let Some((own, written)) = self.own.pop_front()
        {
            self.rows.extend(written.map(|value| (own, value)));
        }
    }

    /// What was looked at: up to the last row if the limit ended the scan, otherwise everything.
    pub fn seen(&self, interval: &Interval) -> Interval {
        let Some((last, _)) = self.rows.last().filter(|_| self.is_full()) else { return interval.clone() };
        let seen = match self.reverse {
            false => Interval::new(interval.start().clone(), Interval::point(last.clone()).end().clone()),
            true => Interval::new(last.clone(), interval.end().clone()),
        };
        seen.unwrap_or_else(|_| interval.clone())
    }
}

/// Rows of the snapshot that are enough for `limit` rows in all, if each of `own` writes may hide one.
pub(super) fn page_rows(limit: usize, own: usize) -> u64 {
    u64::try_from(limit.saturating_add(own)).unwrap_or(u64::MAX)
}

fn before(reverse: bool, a: &Bytes, b: &Bytes) -> bool {
    if reverse { a > b } else { a < b }
}

#[cfg(test)]
mod tests {
    use drover_keys::End;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map that both were applied to.
        #[test]
        fn a_scan_shows_the_snapshot_with_own_writes_on_top(
            rows in proptest::collection::btree_map(0u8..20, 0u8..3, 0..12),
            own in proptest::collection::btree_map(0u8..20, proptest::option::of(3u8..6), 0..8),
            reverse: bool,
            limit in 0usize..8,
        ) {
            let bytes = |n: &u8| Bytes::copy_from_slice(&[*n]);
            let mut model = rows.clone();
            for (key, value) in &own {
                match value {
                    Some(value) => drop(model.insert(*key, *value)),
                    None => drop(model.remove(key)),
                }
            }
            let mut expect: Vec<(Bytes, Bytes)> = model.iter().map(|(k, v)| (bytes(k), bytes(v))).collect();
            let mut own: Vec<_> = own.iter().map(|(k, v)| (bytes(k), v.as_ref().map(bytes))).collect();
            let mut rows: Vec<_> = rows.iter().map(|(k, v)| (bytes(k), bytes(v))).collect();
            if reverse {
                expect.reverse();
                own.reverse();
                rows.reverse();
            }
            if limit > 0 {
                expect.truncate(limit);
            }
            let mut merge = Merge { own: own.into(), rows: Vec::new(), reverse, limit };
            for (key, value) in rows {
                if !merge.is_full() {
                    merge.row(key, value);
                }
            }
            merge.finish();
            prop_assert_eq!(&merge.rows, &expect);
            // What was seen holds every row that was returned, and, if the limit ended it, none beyond.
            let whole = Interval::all();
            let seen = merge.seen(&whole);
            prop_assert!(merge.rows.iter().all(|(key, _)| seen.contains(key)));
            let full = limit > 0 && expect.len() == limit;
            prop_assert_eq!(full, seen != whole || (reverse && expect.last().is_some_and(|(k, _)| k.is_empty())));
        }
    }

    #[test]
    fn a_limit_beyond_everything_that_there_is_is_none() {
        assert_eq!([page_rows(1, 0), page_rows(2, 3)], [1, 5]);
        for limit in [usize::MAX - 1, usize::MAX] {
            assert_eq!(page_rows(limit, 2), u64::MAX);
            let own = [("b".into(), Some("own".into())), ("c".into(), None)];
            let mut merge = Merge { own: own.into(), rows: Vec::new(), reverse: false, limit };
            for key in ["a", "c", "d"] {
                merge.row(key.into(), "old".into());
            }
            merge.finish();
            let rows = [("a", "old"), ("b", "own"), ("d", "old")];
            assert_eq!(merge.rows, rows.map(|(key, value)| (Bytes::from(key), Bytes::from(value))));
            assert_eq!(merge.seen(&Interval::all()), Interval::all());
        }
    }

    #[test]
    fn what_a_limited_scan_has_seen_ends_with_its_last_row() {
        let merge = |reverse| Merge {
            own: Default::default(),
            rows: vec![("c".into(), "1".into()), ("d".into(), "1".into())],
            reverse,
            limit: 2,
        };
        let interval = Interval::new("a", End::Key("z".into())).unwrap();
        assert_eq!(merge(false).seen(&interval), Interval::new("a", End::Key("d\0".into())).unwrap());
        assert_eq!(merge(true).seen(&interval), Interval::new("d", End::Key("z".into())).unwrap());
        assert_eq!(Merge { limit: 3, ..merge(false) }.seen(&interval), interval);
    }
}
