//! Half-open intervals of route-key space.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;

use crate::text::escape;

/// The exclusive upper bound of an [`Interval`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum End {
    /// Everything strictly below this key.
    Key(Bytes),
    /// No bound.
    Unbounded,
}

impl End {
    /// Whether `key` lies below this bound.
    pub fn is_above(&self, key: &[u8]) -> bool {
        match self {
            End::Key(end) => key < end.as_ref(),
            End::Unbounded => true,
        }
    }

    /// The bound as a key, or `None` if there is none.
    pub fn as_key(&self) -> Option<&Bytes> {
        match self {
            End::Key(key) => Some(key),
            End::Unbounded => None,
        }
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for End {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (End::Key(a), End::Key(b)) => a.cmp(b),
            (End::Key(_), End::Unbounded) => Ordering::Less,
            (End::Unbounded, End::Key(_)) => Ordering::Greater,
            (End::Unbounded, End::Unbounded) => Ordering::Equal,
        }
    }
}

/// Why two bounds are not an interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntervalError {
    /// The start is above the end.
    #[error("range is reversed: start {start:?} is above end {end:?}")]
    Reversed { start: String, end: String },
    /// The start equals the end.
    #[error("range is empty: start and end are both {at:?}")]
    Empty { at: String },
}

/// A non-empty interval `[start, end)` of route keys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Interval {
    start: Bytes,
    end: End,
}

impl Interval {
    /// The interval `[start, end)`.
    ///
    /// # Errors
    /// If it would be empty or reversed.
    pub fn new(start: impl Into<Bytes>, end: End) -> Result<Self, IntervalError> {
        let start = start.into();
        if let End::Key(key) = &end {
            match start.cmp(key) {
                Ordering::Less => {}
                Ordering::Equal => return Err(IntervalError::Empty { at: escape(&start) }),
                Ordering::Greater => {
                    return Err(IntervalError::Reversed { start: escape(&start), end: escape(key) });
                }
            }
        }
        Ok(Self { start, end })
    }

    /// The whole key space.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: End::Unbounded }
    }

    /// The interval that holds `key` alone.
    pub fn point(key: impl Into<Bytes>) -> Self {
        let start: Bytes = key.into();
        let mut next = Vec::with_capacity(start.len() + 1);
        next.extend_from_slice(&start);
        next.push(0);
        Self { start, end: End::Key(next.into()) }
    }

    /// Inclusive lower bound.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// Exclusive upper bound.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && self.end.is_above(key)
    }

    /// Whether all of `other` lies inside.
    pub fn covers(&self, other: &Interval) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether the two share a key.
    pub fn overlaps(&self, other: &Interval) -> bool {
        self.end.is_above(&other.start) && other.end.is_above(&self.start)
    }

    /// The smallest interval that holds both.
    #[must_use]
    pub fn hull(&self, other: &Interval) -> Interval {
        Interval { start: self.start.clone().min(other.start.clone()), end: self.end.clone().max(other.end.clone()) }
    }

    /// The shared part, if there is one.
    pub fn intersection(&self, other: &Interval) -> Option<Interval> {
        if !self.overlaps(other) {
            return None;
        }
        Some(Interval {
            start: self.start.clone().max(other.start.clone()),
            end: self.end.clone().min(other.end.clone()),
        })
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            End::Key(end) => write!(f, "[{}, {})", escape(&self.start), escape(end)),
            End::Unbounded => write!(f, "[{}, ∞)", escape(&self.start)),
        }
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(start: &str, end: Option<&str>) -> Interval {
        let end = end.map_or(End::Unbounded, |e| End::Key(Bytes::copy_from_slice(e.as_bytes())));
        Interval::new(Bytes::copy_from_slice(start.as_bytes()), end).unwrap()
    }

    #[test]
    fn h32_an_empty_end_key_is_not_an_unbounded_end() {
        assert!(matches!(Interval::new("a", End::Key(Bytes::new())), Err(IntervalError::Reversed { .. })));
        assert!(matches!(Interval::new("", End::Key(Bytes::new())), Err(IntervalError::Empty { .. })));
        assert!(interval("a", None).contains(b"zzz"));
    }

    #[test]
    fn overlap_is_about_shared_keys_not_shared_bounds() {
        let table = [
            ("a", Some("c"), "c", None, false),
            ("a", Some("c"), "b", None, true),
            ("a", None, "zz", None, true),
            ("a", Some("b"), "a\0", Some("b"), true),
            ("", None, "q", Some("r"), true),
        ];
        for (s1, e1, s2, e2, expect) in table {
            let (a, b) = (interval(s1, e1), interval(s2, e2));
            assert_eq!(a.overlaps(&b), expect, "{a} {b}");
            assert_eq!(b.overlaps(&a), expect, "{b} {a}");
            assert_eq!(a.intersection(&b).is_some(), expect);
        }
    }

    proptest! {
        #[test]
        fn a_point_holds_its_key_and_no_other(key: Vec<u8>, other: Vec<u8>) {
            let point = Interval::point(key.clone());
            prop_assert!(point.contains(&key));
            prop_assert_eq!(point.contains(&other), key == other);
        }

        #[test]
        fn intersection_holds_exactly_the_keys_of_both(
            a in 0u8..9, b in 1u8..10, c in 0u8..9, d in 1u8..10, key in 0u8..10, open: bool,
        ) {
            prop_assume!(a < b && c < d);
            let x = Interval::new(vec![a], End::Key(vec![b].into())).unwrap();
            let y = Interval::new(vec![c], if open { End::Unbounded } else { End::Key(vec![d].into()) }).unwrap();
            let both = x.contains(&[key]) && y.contains(&[key]);
            prop_assert_eq!(x.intersection(&y).is_some_and(|i| i.contains(&[key])), both);
            prop_assert_eq!(x.intersection(&y).is_some_and(|i| i == x), y.covers(&x));
            let hull = x.hull(&y);
            prop_assert!(hull.covers(&x) && hull.covers(&y));
            let bound = |i: &Interval| [i.start() == x.start() || i.start() == y.start(), i.end() == x.end() || i.end() == y.end()];
            prop_assert_eq!(bound(&hull), [true, true]);
        }
    }
}
