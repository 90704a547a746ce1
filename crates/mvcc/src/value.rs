//! The stored form of one version: a header byte, the expiry timestamp if there is one, the client's bytes.
//!
//! ```text
//! 0x11 | value                    put without expiry
//! 0x12 | expire_at (8, BE) | value   put with expiry
//! 0x13                            tombstone
//! ```
//!
//! The high half of the header byte is the format (1), the low half the kind. A header byte that was retired is never
//! used again; one that is not in the table is corruption or a newer format, and is refused.

use bytes::Bytes;
use drover_hlc::Timestamp;

const PUT: u8 = 0x11;
const PUT_EXPIRING: u8 = 0x12;
const TOMBSTONE: u8 = 0x13;

/// One version of a key, as the state machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A value.
    Put {
        /// The client's bytes.
        value: Bytes,
        /// Reads at or above this timestamp treat the version as absent.
        expire_at: Option<Timestamp>,
    },
    /// The key was deleted.
    Tombstone,
}

impl Stored {
    /// Whether a read at `at` treats this version as an absent key: a tombstone, or expired (`expire_at <= at`).
    pub fn is_absent_at(&self, at: Timestamp) -> bool {
        match self {
            Stored::Put { expire_at, .. } => expire_at.is_some_and(|expiry| expiry <= at),
            Stored::Tombstone => true,
        }
    }

    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Stored::Put { value, expire_at: None } => framed(PUT, &[], value),
            Stored::Put { value, expire_at: Some(expiry) } => framed(PUT_EXPIRING, &expiry.raw().to_be_bytes(), value),
            Stored::Tombstone => vec![TOMBSTONE],
        }
    }

    /// Reads stored bytes; the error says what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&PUT, value)) => Ok(Stored::Put { value: Bytes::copy_from_slice(value), expire_at: None }),
            Some((&PUT_EXPIRING, rest)) => {
                let (expiry, value) = rest.split_first_chunk().ok_or("value ends inside its expiry timestamp")?;
                let expire_at = Some(Timestamp::from_raw(u64::from_be_bytes(*expiry)));
                Ok(Stored::Put { value: Bytes::copy_from_slice(value), expire_at })
            }
            Some((&TOMBSTONE, [])) => Ok(Stored::Tombstone),
            Some((&TOMBSTONE, rest)) => Err(format!("{} bytes after a tombstone", rest.len())),
            Some((header, _)) => Err(format!("unknown value header {header:#04x}")),
            None => Err("value without a header".to_owned()),
        }
    }
}

/// Whether stored bytes are a tombstone, without reading the rest.
pub(crate) fn is_tombstone(bytes: &[u8]) -> bool {
    bytes == [TOMBSTONE]
}

fn framed(header: u8, expiry: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + expiry.len() + value.len());
    out.push(header);
    out.extend_from_slice(expiry);
    out.extend_from_slice(value);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(value: &'static str, expiry: Option<u64>) -> Stored {
        Stored::Put { value: value.into(), expire_at: expiry.map(Timestamp::from_raw) }
    }

    #[test]
    fn golden_bytes() {
        let table: [(Stored, &[u8]); 5] = [
            (put("ab", None), b"\x11ab"),
            (put("", None), b"\x11"),
            (put("ab", Some(0x0102)), b"\x12\0\0\0\0\0\0\x01\x02ab"),
            (put("", Some(u64::MAX)), b"\x12\xff\xff\xff\xff\xff\xff\xff\xff"),
            (Stored::Tombstone, b"\x13"),
        ];
        for (stored, bytes) in table {
            assert_eq!(stored.encode(), bytes, "{stored:?}");
            assert_eq!(Stored::decode(bytes), Ok(stored));
        }
    }

    #[test]
    fn foreign_headers_and_cut_values_are_refused() {
        for bad in [&b""[..], b"\0", b"\x10", b"\x14", b"\x21x", b"\x13x", b"\x12", b"\x12\0\0\0\0\0\0\0"] {
            assert!(Stored::decode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_version_is_absent_from_its_expiry_on() {
        let at = Timestamp::from_raw;
        assert!(!put("x", Some(5)).is_absent_at(at(4)));
        assert!(put("x", Some(5)).is_absent_at(at(5)));
        assert!(!put("x", None).is_absent_at(Timestamp::MAX));
        assert!(Stored::Tombstone.is_absent_at(Timestamp::ZERO));
    }

    proptest! {
        #[test]
        fn round_trips(value: Vec<u8>, expiry: Option<u64>) {
            let stored = Stored::Put { value: value.into(), expire_at: expiry.map(Timestamp::from_raw) };
            prop_assert_eq!(Stored::decode(&stored.encode()), Ok(stored));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_decode_only_to_themselves(bytes: Vec<u8>) {
            if let Ok(stored) = Stored::decode(&bytes) {
                prop_assert_eq!(is_tombstone(&bytes), stored == Stored::Tombstone);
                prop_assert_eq!(stored.encode(), bytes);
            }
        }
    }
}
