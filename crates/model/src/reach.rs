//! What a request touches.

use bytes::Bytes;
use drover_keys::Interval;

use crate::catalog::{beside, key};

/// What a request touches: one of the keys, or both of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The key in the range that moves.
    Key,
    /// The key beside it.
    Beside,
    /// Everything from the key beside it to the key: an interval over the bound of the range that moves.
    Both,
}

/// Both keys. Their places are those in [`crate::ghost::Ghost`].
pub fn keys() -> [Bytes; 2] {
    [key(), beside()]
}

impl Reach {
    /// The places of its keys.
    pub fn places(self) -> &'static [usize] {
        match self {
            Reach::Key => &[0],
            Reach::Beside => &[1],
            Reach::Both => &[0, 1],
        }
    }

    /// The interval by which the gates judge it.
    pub fn footprint(self) -> Interval {
        match self {
            Reach::Key => Interval::point(key()),
            Reach::Beside => Interval::point(beside()),
            Reach::Both => {
                let end = Interval::point(key()).end().clone();
                Interval::new(beside(), end).expect("the key beside lies left of the key")
            }
        }
    }
}
