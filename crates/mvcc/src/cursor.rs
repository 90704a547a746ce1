//! Positions in ordered rows: of RocksDB, of a batch that is not written yet, and of the two as one.

use std::collections::{BTreeMap, btree_map};

use crate::engine::RawIter;
use crate::error::StoreError;

/// A position in rows that are sorted by key.
pub(crate) trait Cursor {
    /// Moves to the first row at or above `target`.
    fn seek(&mut self, target: &[u8]);
    /// Moves to the next row. Must stand on one.
    fn next(&mut self);
    /// Key and stored value of the row it stands on.
    fn entry(&self) -> Option<(&[u8], &[u8])>;
    /// Why it stands nowhere, if that is because of a failure.
    fn status(&self) -> Result<(), StoreError>;
}

impl Cursor for RawIter<'_> {
    fn seek(&mut self, target: &[u8]) {
        RawIter::seek(self, target);
    }

    fn next(&mut self) {
        RawIter::next(self);
    }

    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.item()
    }

    fn status(&self) -> Result<(), StoreError> {
        Ok(RawIter::status(self)?)
    }
}

/// A position in the rows of a batch.
pub(crate) struct OverlayCursor<'b> {
    rows: &'b BTreeMap<Vec<u8>, Vec<u8>>,
    rest: btree_map::Range<'b, Vec<u8>, Vec<u8>>,
    current: Option<(&'b Vec<u8>, &'b Vec<u8>)>,
}

impl<'b> OverlayCursor<'b> {
    pub fn new(rows: &'b BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        Self { rows, rest: rows.range::<Vec<u8>, _>(..), current: None }
    }
}

impl Cursor for OverlayCursor<'_> {
    fn seek(&mut self, target: &[u8]) {
        self.rest = self.rows.range::<[u8], _>((std::ops::Bound::Included(target), std::ops::Bound::Unbounded));
        self.current = self.rest.next();
    }

    fn next(&mut self) {
        self.current = self.rest.next();
    }

    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.current.map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    fn status(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Two cursors as one; where both have a key, `over` hides `under`.
pub(crate) struct MergedCursor<O, U> {
    pub over: O,
    pub under: U,
}

enum Side {
    Over,
    Under,
    Both,
}

impl<O: Cursor, U: Cursor> MergedCursor<O, U> {
    fn side(&self) -> Option<Side> {
        match (self.over.entry(), self.under.entry()) {
            (None, None) => None,
            (Some(_), None) => Some(Side::Over),
            (None, Some(_)) => Some(Side::Under),
            (Some((over, _)), Some((under, _))) => Some(match over.cmp(under) {
                std::cmp::Ordering::Less => Side::Over,
                std::cmp::Ordering::Greater => Side::Under,
                std::cmp::Ordering::Equal => Side::Both,
            }),
        }
    }
}

impl<O: Cursor, U: Cursor> Cursor for MergedCursor<O, U> {
    fn seek(&mut self, target: &[u8]) {
        self.over.seek(target);
        self.under.seek(target);
    }

    fn next(&mut self) {
        match self.side() {
            Some(Side::Over) => self.over.next(),
            Some(Side::Under) => self.under.next(),
            Some(Side::Both) => {
                self.over.next();
                self.under.next();
            }
            None => {}
        }
    }

    fn entry(&self) -> Option<(&[u8], &[u8])> {
        // A failed side must not pass for an exhausted one.
        self.status().ok()?;
        match self.side()? {
            Side::Over | Side::Both => self.over.entry(),
            Side::Under => self.under.entry(),
        }
    }

    fn status(&self) -> Result<(), StoreError> {
        self.over.status()?;
        self.under.status()
    }
}
