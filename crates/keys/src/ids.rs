//! Newtypes for identifiers. All are opaque numbers; none is ever reused.

use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    };
}

id!(
    /// One process, `drover server`.
    NodeId
);
id!(
    /// One Raft group. [`GroupId::DEFAULT`] also holds catalog, timestamp oracle and node registry.
    GroupId
);
id!(
    /// A physical keyspace inside a group's store.
    ShardId
);
id!(
    /// A name for people of one interval in the catalog.
    RouteId
);
id!(
    /// Version of the route catalog. Zero stands for "no version" on the wire and is never a real version.
    CatalogVersion
);

id!(
    /// One replica of a group. Never reused within the group: a node that leaves and comes back is another replica.
    ReplicaId
);
id!(
    /// One migration of a range.
    JobId
);
id!(
    /// Counts the changes of course of a migration. A step of an older course is refused.
    JobEpoch
);

impl GroupId {
    /// The default group.
    pub const DEFAULT: GroupId = GroupId(1);
}

impl CatalogVersion {
    /// The version that bootstrap writes.
    pub const FIRST: CatalogVersion = CatalogVersion(1);
}

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                if s.len() != 32 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(format!("{s:?} is not {}: 32 hexadecimal digits", $what));
                }
                let n = u128::from_str_radix(s, 16).map_err(|e| e.to_string())?;
                Ok(Self(n.to_be_bytes()))
            }
        }
    };
}

id128!(
    /// Identity of a cluster, chosen when it is created. Nodes of different clusters refuse each other.
    ClusterId,
    "a cluster id"
);
id128!(
    /// Identity of one data directory, random, written when the directory is created. A wiped disk gets a new one, so
    /// a node that lost its vote and log is recognised before it can vote again.
    StoreId,
    "a store id"
);
