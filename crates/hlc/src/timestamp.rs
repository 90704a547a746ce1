use std::fmt;
use std::str::FromStr;

const LOGICAL_BITS: u32 = 16;
const PHYSICAL_BITS: u32 = 48;

/// Milliseconds since the Unix epoch, at most 48 bits: the physical half of a [`Timestamp`]. The two are not mixed up: neither
/// is taken for the other, nor compared with it.
///
/// ```compile_fail,E0308
/// # use drover_hlc::{PhysicalMs, Timestamp};
/// let at: Timestamp = PhysicalMs::MAX;
/// ```
///
/// ```compile_fail,E0308
/// # use drover_hlc::{PhysicalMs, Timestamp};
/// let is_over = Timestamp::MAX > PhysicalMs::MAX;
/// ```
///
/// ```
/// # use drover_hlc::{PhysicalMs, Timestamp};
/// let at = Timestamp::new(PhysicalMs::MAX, 0);
/// assert_eq!(at.physical(), PhysicalMs::MAX);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysicalMs(u64);

impl PhysicalMs {
    /// The largest value, in the year 10889.
    pub const MAX: PhysicalMs = PhysicalMs((1 << PHYSICAL_BITS) - 1);

    /// Milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// If the value needs more than 48 bits.
    pub fn new(unix_ms: u64) -> Result<Self, TimestampError> {
        if unix_ms > Self::MAX.0 { Err(TimestampError::PhysicalOverflow { unix_ms }) } else { Ok(Self(unix_ms)) }
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_ms(self) -> u64 {
        self.0
    }

    /// This instant and `ms` more, at most [`PhysicalMs::MAX`].
    #[must_use]
    pub fn saturating_add_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms).min(Self::MAX.0))
    }

    /// This instant less `ms`, at least zero.
    #[must_use]
    pub fn saturating_sub_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

/// Why numbers are not a timestamp. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// The physical half needs more than 48 bits.
    #[error("{unix_ms} ms does not fit into 48 bits")]
    PhysicalOverflow { unix_ms: u64 },
    /// The text is not `MILLISECONDS.LOGICAL` and not a plain number.
    #[error("{text:?} is not a timestamp: write MILLISECONDS.LOGICAL or one 64-bit number")]
    Text { text: String },
}

/// A point of the cluster's time line: physical milliseconds, then a counter. Zero means "before everything".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Before every timestamp that is ever issued.
    pub const ZERO: Timestamp = Timestamp(0);
    /// Above every timestamp that is ever issued.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// The timestamp with these halves.
    pub fn new(physical: PhysicalMs, logical: u16) -> Self {
        Self((physical.0 << LOGICAL_BITS) | u64::from(logical))
    }

    /// The timestamp whose 64-bit form is `raw`.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The 64-bit form, which sorts like the timestamp.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The physical half.
    pub fn physical(self) -> PhysicalMs {
        PhysicalMs(self.0 >> LOGICAL_BITS)
    }

    /// The counter.
    pub fn logical(self) -> u16 {
        self.0 as u16
    }

    /// The next timestamp; carries into the physical half when the counter is full. `None` above [`Timestamp::MAX`].
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// The timestamp just below; `None` below zero.
    pub fn prev(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// The timestamp `n` steps above; `None` if there is none.
    pub fn checked_add(self, n: u64) -> Option<Self> {
        self.0.checked_add(n).map(Self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.physical().0, self.logical())
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || TimestampError::Text { text: text.to_owned() };
        match text.split_once('.') {
            Some((physical, logical)) => {
                let physical = PhysicalMs::new(physical.parse().map_err(|_| bad())?)?;
                Ok(Self::new(physical, logical.parse().map_err(|_| bad())?))
            }
            None => text.parse().map(Self).map_err(|_| bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tells whether a type has a trait: the method of the type itself is only there if it has, and goes before that of the
    /// trait.
    struct Has<T>(std::marker::PhantomData<T>);

    trait Lacks {
        fn becomes_a_timestamp(&self) -> bool {
            false
        }

        fn becomes_milliseconds(&self) -> bool {
            false
        }

        fn is_compared_with_a_timestamp(&self) -> bool {
            false
        }
    }

    impl<T> Lacks for Has<T> {}

    impl<T: Into<Timestamp>> Has<T> {
        fn becomes_a_timestamp(&self) -> bool {
            true
        }
    }

    impl<T: Into<PhysicalMs>> Has<T> {
        fn becomes_milliseconds(&self) -> bool {
            true
        }
    }

    impl<T: PartialEq<Timestamp>> Has<T> {
        fn is_compared_with_a_timestamp(&self) -> bool {
            true
        }
    }

    #[test]
    fn h4_milliseconds_are_not_taken_for_a_timestamp_nor_compared_with_one() {
        let (ms, timestamp) = (Has::<PhysicalMs>(Default::default()), Has::<Timestamp>(Default::default()));
        let raw = Has::<u64>(Default::default());
        assert!(timestamp.becomes_a_timestamp() && timestamp.is_compared_with_a_timestamp());
        assert!(!ms.becomes_a_timestamp() && !ms.is_compared_with_a_timestamp());
        assert!(ms.becomes_milliseconds() && !timestamp.becomes_milliseconds());
        assert!(!raw.becomes_a_timestamp() && !raw.becomes_milliseconds(), "a number is neither of them");
    }

    #[test]
    fn the_counter_carries_into_the_milliseconds() {
        let full = Timestamp::new(PhysicalMs::new(5).unwrap(), u16::MAX);
        assert_eq!(full.next().unwrap(), Timestamp::new(PhysicalMs::new(6).unwrap(), 0));
        assert_eq!(Timestamp::MAX.next(), None);
    }

    #[test]
    fn milliseconds_that_do_not_fit_are_refused() {
        assert!(PhysicalMs::new(1 << 48).is_err());
        assert!("281474976710656.0".parse::<Timestamp>().is_err());
        assert!("1.70000".parse::<Timestamp>().is_err());
    }

    proptest! {
        #[test]
        fn halves_order_and_text_round_trip(a: u64, b: u64) {
            let (x, y) = (Timestamp::from_raw(a), Timestamp::from_raw(b));
            prop_assert_eq!(Timestamp::new(x.physical(), x.logical()), x);
            prop_assert_eq!(x.to_string().parse::<Timestamp>().unwrap(), x);
            prop_assert_eq!((x.physical(), x.logical()).cmp(&(y.physical(), y.logical())), a.cmp(&b));
        }
    }
}
