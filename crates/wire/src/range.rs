use drover_keys::{End, Interval, IntervalError};
use drover_kv::{Error, Reason};

use crate::proto::storage::v1 as pb;
use crate::proto::v1;

/// Why a message is not what its type promises. It is corrupt, malformed or comes from a newer version; nothing was
/// changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field that is always set is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field holds what no encoder writes.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A field contradicts another or does not belong into this request.
    #[error("{0}")]
    Contradiction(&'static str),
    /// The end of a range is present and empty.
    #[error("the end of the range is empty; leave it out for a range without upper bound")]
    EmptyEnd,
    /// The bounds are reversed or equal.
    #[error(transparent)]
    Range(#[from] IntervalError),
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        let reason = match error {
            WireError::EmptyEnd | WireError::Range(_) => Reason::RangeReversed,
            WireError::Missing(_) | WireError::Malformed(_) | WireError::Contradiction(_) => Reason::InvalidArgument,
        };
        Error::definite(reason, format!("{error}; nothing was changed"))
    }
}

/// An interval from its bounds.
///
/// # Errors
/// If the end is present and empty, or the bounds are reversed or equal.
pub(crate) fn interval(start: bytes::Bytes, end: Option<bytes::Bytes>) -> Result<Interval, WireError> {
    let end = match end {
        None => End::Unbounded,
        Some(key) if key.is_empty() => return Err(WireError::EmptyEnd),
        Some(key) => End::Key(key),
    };
    Ok(Interval::new(start, end)?)
}

/// An interval from a client's range. A missing message is the whole key space.
///
/// # Errors
/// If the end is present and empty, or not above the start.
pub fn decode_key_range(range: Option<v1::KeyRange>) -> Result<Interval, WireError> {
    let v1::KeyRange { start, end } = range.unwrap_or_default();
    interval(start, end)
}

/// An interval as a client's range.
pub fn encode_key_range(interval: &Interval) -> v1::KeyRange {
    v1::KeyRange { start: interval.start().clone(), end: interval.end().as_key().cloned() }
}

/// An interval from a stored range.
///
/// # Errors
/// If the range is missing, its end is present and empty, or not above the start.
pub fn decode_range(range: Option<pb::Range>) -> Result<Interval, WireError> {
    let pb::Range { start, end } = range.ok_or(WireError::Missing("range"))?;
    interval(start, end)
}

/// An interval as a stored range.
pub fn encode_range(interval: &Interval) -> pb::Range {
    pb::Range { start: interval.start().clone(), end: interval.end().as_key().cloned() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::strategies;

    fn range(start: &'static str, end: Option<&'static str>) -> Option<v1::KeyRange> {
        Some(v1::KeyRange { start: start.into(), end: end.map(Bytes::from) })
    }

    #[test]
    fn an_absent_end_is_unbounded_and_an_empty_one_is_refused() {
        assert_eq!(decode_key_range(None), Ok(Interval::all()));
        assert_eq!(decode_key_range(range("", None)), Ok(Interval::all()));
        let table = [
            (range("", Some("")), "the end of the range is empty"),
            (range("a", Some("")), "the end of the range is empty"),
            (range("b", Some("a")), "reversed"),
            (range("a", Some("a")), "range is empty"),
        ];
        for (range, words) in table {
            let error = Error::from(decode_key_range(range).unwrap_err());
            assert_eq!(error.reason, Reason::RangeReversed);
            assert!(!error.is_unknown());
            assert!(error.message.contains(words), "{error}");
        }
        assert_eq!(decode_range(None), Err(WireError::Missing("range")));
    }

    proptest! {
        #[test]
        fn intervals_round_trip(interval in strategies::interval()) {
            prop_assert_eq!(decode_key_range(Some(encode_key_range(&interval))).unwrap(), interval.clone());
            prop_assert_eq!(decode_range(Some(encode_range(&interval))).unwrap(), interval);
        }
    }
}
