//! Logical keys: what a row is called, before version and shard.

use bytes::Bytes;

/// Which kind of row stands under a route key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyFamily(pub u8);

impl KeyFamily {
    /// Plain key-value pairs; the suffix is empty.
    pub const PLAIN: KeyFamily = KeyFamily(0);
}

/// `(route_key, family, suffix)`; the route key alone decides ownership.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogicalKey {
    /// Decides the owner.
    pub route_key: Bytes,
    /// Kind of row.
    pub family: KeyFamily,
    /// Distinguishes rows of one kind under one route key; empty for [`KeyFamily::PLAIN`].
    pub suffix: Bytes,
}

impl LogicalKey {
    /// The plain key-value pair called `route_key`.
    pub fn plain(route_key: impl Into<Bytes>) -> Self {
        Self { route_key: route_key.into(), family: KeyFamily::PLAIN, suffix: Bytes::new() }
    }
}
