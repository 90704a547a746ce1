//! Keys of the group's control state, which has a column family of its own: no user key can reach it.
//!
//! ```text
//! 0x01 store format: u32, BE      0x02 applied state      0x03 group state
//! 0x04 | name                     one row of the catalog, in the default group
//! ```
//!
//! A tag that was retired is never used again.

/// The store's own format.
pub(crate) const FORMAT_KEY: &[u8] = &[0x01];
/// The encoded `drover.storage.v1.AppliedState`.
pub(crate) const APPLIED_KEY: &[u8] = &[0x02];

/// Under it stand the rows of the catalog.
pub(crate) const CATALOG_TAG: u8 = 0x04;

/// The key of a catalog row.
pub(crate) fn catalog_key(name: &[u8]) -> Vec<u8> {
    [&[CATALOG_TAG], name].concat()
}

/// Names of what the state machine keeps beside the rows. The store does not look into the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaKey {
    /// The encoded `drover.storage.v1.GroupState`.
    GroupState,
}

impl MetaKey {
    pub(crate) fn as_bytes(self) -> &'static [u8] {
        match self {
            MetaKey::GroupState => &[0x03],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_what_stores_on_disk_hold() {
        assert_eq!(catalog_key(b"n"), [4, b'n']);
        assert_eq!((FORMAT_KEY, APPLIED_KEY, MetaKey::GroupState.as_bytes()), (&[1u8][..], &[2u8][..], &[3u8][..]));
    }
}
