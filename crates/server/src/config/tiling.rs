//! Whether intervals cover every key exactly once.

use drover_keys::{End, Interval, escape};

/// Why intervals do not tile the key space. `index` counts from 0 in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TilingError {
    /// There is none.
    #[error("there is no route; every key needs one")]
    Empty,
    /// The lowest one does not start at the start of the key space.
    #[error("no route covers the keys below '{start}', where the lowest one starts; its start must be ''")]
    FirstStart {
        /// The lowest interval.
        index: usize,
        /// Its start.
        start: String,
    },
    /// Keys between two neighbours belong to neither.
    #[error("no route covers the keys from '{from}' to '{to}', where this one starts")]
    Gap {
        /// The upper neighbour.
        index: usize,
        /// End of the lower neighbour.
        from: String,
        /// Start of the upper neighbour.
        to: String,
    },
    /// Keys belong to two intervals.
    #[error("{interval} overlaps {other}")]
    Overlap {
        /// The upper neighbour.
        index: usize,
        /// The upper neighbour.
        interval: String,
        /// The lower neighbour.
        other: String,
    },
    /// The highest one does not reach the end of the key space.
    #[error("no route covers the keys from '{end}' on, where the highest one ends; it must have no end")]
    LastEnd {
        /// The highest interval.
        index: usize,
        /// Its end.
        end: String,
    },
}

/// The places, in key order, where a key does not lie in exactly one of the intervals, in whatever order they are given.
pub fn check(intervals: &[&Interval]) -> Vec<TilingError> {
    let mut sorted: Vec<(usize, &Interval)> = intervals.iter().copied().enumerate().collect();
    sorted.sort_by(|(_, a), (_, b)| a.start().cmp(b.start()));
    // The one that reaches furthest so far.
    let Some((&(mut highest), rest)) = sorted.split_first() else { return vec![TilingError::Empty] };
    let mut errors = Vec::new();
    if !highest.1.start().is_empty() {
        errors.push(TilingError::FirstStart { index: highest.0, start: escape(highest.1.start()) });
    }
    for &(index, upper) in rest {
        match highest.1.end() {
            End::Key(end) if end < upper.start() => {
                errors.push(TilingError::Gap { index, from: escape(end), to: escape(upper.start()) });
            }
            End::Key(end) if end == upper.start() => {}
            End::Key(_) | End::Unbounded => {
                let (interval, other) = (upper.to_string(), highest.1.to_string());
                errors.push(TilingError::Overlap { index, interval, other });
            }
        }
        let reaches_further = match (highest.1.end(), upper.end()) {
            (End::Unbounded, _) => false,
            (End::Key(_), End::Unbounded) => true,
            (End::Key(end), End::Key(further)) => further > end,
        };
        if reaches_further {
            highest = (index, upper);
        }
    }
    if let End::Key(end) = highest.1.end() {
        errors.push(TilingError::LastEnd { index: highest.0, end: escape(end) });
    }
    errors
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(start: &[u8], end: Option<&[u8]>) -> Interval {
        Interval::new(start.to_vec(), end.map_or(End::Unbounded, |e| End::Key(e.to_vec().into()))).unwrap()
    }

    fn verdict(intervals: &[Interval]) -> Vec<TilingError> {
        check(&intervals.iter().collect::<Vec<_>>())
    }

    #[test]
    fn each_defect_is_named_with_the_interval_that_shows_it() {
        let (low, mid, high) = (interval(b"", Some(b"b")), interval(b"b", Some(b"c")), interval(b"c", None));
        let tiled = [high.clone(), low.clone(), mid.clone()];
        assert_eq!(verdict(&tiled), []);
        assert_eq!(verdict(&[]), [TilingError::Empty]);
        let first_start = |index| TilingError::FirstStart { index, start: "b".into() };
        assert_eq!(verdict(&[high.clone(), mid.clone()]), [first_start(1)]);
        let gap = TilingError::Gap { index: 0, from: "b".into(), to: "c".into() };
        assert_eq!(verdict(&[high.clone(), low.clone()]), [gap]);
        let last_end = |index, end: &str| TilingError::LastEnd { index, end: end.into() };
        assert_eq!(verdict(&[low.clone(), mid.clone()]), [last_end(1, "c")]);
        // One that lies within another leaves no gap behind itself.
        let within = [interval(b"b", Some(b"x")), interval(b"d", Some(b"e")), interval(b"y", Some(b"z"))];
        let overlap = TilingError::Overlap { index: 1, interval: "[d, e)".into(), other: "[b, x)".into() };
        let gap = TilingError::Gap { index: 2, from: "x".into(), to: "y".into() };
        assert_eq!(verdict(&within), [first_start(0), overlap, gap, last_end(2, "z")]);
        for double in [mid.clone(), interval(b"a", Some(b"aa")), Interval::all(), interval(b"d", None)] {
            let mut intervals = tiled.to_vec();
            intervals.push(double.clone());
            assert!(matches!(verdict(&intervals)[..], [TilingError::Overlap { .. }, ..]), "{double}");
        }
    }

    proptest! {
        #[test]
        fn accepts_exactly_what_covers_every_key_once(bounds in proptest::collection::vec((0u8..5, 1u8..7), 0..5)) {
            // 6 stands for "no end"; an end must be above its start.
            let intervals: Vec<Interval> = bounds
                .iter()
                .filter(|(start, end)| start < end)
                .map(|&(start, end)| {
                    let start: &[u8] = if start == 0 { &[] } else { &[start] };
                    interval(start, (end < 6).then_some(&[end][..]))
                })
                .collect();
            let keys = (0u8..8).flat_map(|k| [vec![k], vec![k, 0]]).chain([vec![]]);
            let once = keys.into_iter().all(|key| intervals.iter().filter(|i| i.contains(&key)).count() == 1);
            prop_assert_eq!(verdict(&intervals).is_empty(), once);
        }
    }
}
