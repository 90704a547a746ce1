//! The identity file.
//!
//! ```text
//! magic "DROVERID" (8) | version = 1 (1) | directory format (4, BE) | cluster (16) | node (8, BE) | store (16) | crc (4, BE)
//! ```
//!
//! `crc` is the CRC-32C of everything before it, in every version, so that damage and a newer version are told apart.

use drover_keys::{ClusterId, NodeId, StoreId};

/// Format of the directory as a whole that this build writes. A directory with a higher one is refused.
pub const DIRECTORY_FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"DROVERID";
const VERSION: u8 = 1;

/// Whose data directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Format of the directory.
    pub format: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The directory itself.
    pub store: StoreId,
}

/// Why an identity is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are not an identity.
    #[error("its identity file is damaged ({what}); the node must be replaced by a new one")]
    Damaged {
        /// How it shows.
        what: &'static str,
    },
    /// A newer build wrote it.
    #[error("it has format {found}, which is newer than the {known} this build knows; start the newer build")]
    Newer {
        /// Its format.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// It belongs to another cluster.
    #[error("it belongs to cluster {found}, and the configuration (cluster.id) says {expected}")]
    OtherCluster {
        /// Its cluster.
        found: ClusterId,
        /// The configured one.
        expected: ClusterId,
    },
    /// It belongs to another node.
    #[error("it belongs to node {found}, and the configuration (node.id) says node {expected}")]
    OtherNode {
        /// Its node.
        found: NodeId,
        /// The configured one.
        expected: NodeId,
    },
}

impl Identity {
    /// The content of the identity file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(57);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.format.to_be_bytes());
        out.extend_from_slice(&self.cluster.0);
        out.extend_from_slice(&self.node.0.to_be_bytes());
        out.extend_from_slice(&self.store.0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads the content of an identity file.
    ///
    /// # Errors
    /// If it is damaged, or the file or the directory has a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let damaged = |what| IdentityError::Damaged { what };
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(damaged("too short"))?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(damaged("wrong checksum"));
        }
        let rest = body.strip_prefix(MAGIC).ok_or(damaged("wrong magic"))?;
        let (&version, rest) = rest.split_first().ok_or(damaged("no version"))?;
        match version {
            VERSION => {}
            0 => return Err(damaged("version 0")),
            found => return Err(IdentityError::Newer { found: found.into(), known: VERSION.into() }),
        }
        let (format, rest) = rest.split_first_chunk().ok_or(damaged("no format"))?;
        let (cluster, rest) = rest.split_first_chunk().ok_or(damaged("no cluster id"))?;
        let (node, rest) = rest.split_first_chunk().ok_or(damaged("no node id"))?;
        let (store, rest) = rest.split_first_chunk().ok_or(damaged("no store id"))?;
        if !rest.is_empty() {
            return Err(damaged("too long"));
        }
        let format = u32::from_be_bytes(*format);
        match format {
            0 => Err(damaged("format 0")),
            1..=DIRECTORY_FORMAT => Ok(Self {
                format,
                cluster: ClusterId(*cluster),
                node: NodeId(u64::from_be_bytes(*node)),
                store: StoreId(*store),
            }),
            found => Err(IdentityError::Newer { found, known: DIRECTORY_FORMAT }),
        }
    }

    /// Refuses the directory of another cluster or node.
    pub(super) fn check_owner(&self, cluster: ClusterId, node: NodeId) -> Result<(), IdentityError> {
        if self.cluster != cluster {
            return Err(IdentityError::OtherCluster { found: self.cluster, expected: cluster });
        }
        if self.node != node {
            return Err(IdentityError::OtherNode { found: self.node, expected: node });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Identity {
        Identity { format: 1, cluster: ClusterId([0xc1; 16]), node: NodeId(0x0203), store: StoreId([0x5e; 16]) }
    }

    #[test]
    fn golden_bytes() {
        let expect = [
            b"DROVERID".as_slice(),
            &[1],
            &[0, 0, 0, 1],
            &[0xc1; 16],
            &[0, 0, 0, 0, 0, 0, 2, 3],
            &[0x5e; 16],
            // Computed by hand from the definition of CRC-32C.
            &[0x01, 0x52, 0x0a, 0x14],
        ]
        .concat();
        assert_eq!(sample().encode(), expect);
        assert_eq!(Identity::decode(&expect), Ok(sample()));
    }

    #[test]
    fn a_newer_file_is_told_from_a_damaged_one() {
        let mut bytes = sample().encode();
        bytes[8] = 2;
        assert_eq!(Identity::decode(&bytes), Err(IdentityError::Damaged { what: "wrong checksum" }));
        bytes.truncate(40);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        assert_eq!(Identity::decode(&bytes), Err(IdentityError::Newer { found: 2, known: 1 }));
    }

    proptest! {
        #[test]
        fn identities_come_back(cluster: [u8; 16], node: u64, store: [u8; 16]) {
            let identity =
                Identity { format: 1, cluster: ClusterId(cluster), node: NodeId(node), store: StoreId(store) };
            prop_assert_eq!(Identity::decode(&identity.encode()), Ok(identity));
        }

        #[test]
        fn a_changed_bit_or_a_changed_length_is_noticed(bit in 0usize..57 * 8, cut in 0usize..57) {
            let good = sample().encode();
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let noticed = matches!(Identity::decode(&bad), Err(IdentityError::Damaged { .. }));
            prop_assert!(noticed);
            prop_assert!(Identity::decode(&good[..cut]).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Identity::decode(&bytes);
        }
    }
}
