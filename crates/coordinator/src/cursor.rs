//! Resume tokens.
//!
//! ```text
//! token = version (1) | request hash (8, BE) | read_ts (8, BE) | next key | CRC-32C of all before (4, BE)
//! ```
//!
//! The hash names the request that the token continues, so a token that is sent with another request is refused. A
//! range delete has no snapshot; its `read_ts` is zero.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::{Error, Reason};
use xxhash_rust::xxh3::Xxh3;

const VERSION: u8 = 1;
const HEADER: usize = 1 + 8 + 8;
const TRAILER: usize = 4;

/// Where a scan or a range delete goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Hash of the request it belongs to: see [`request_hash`].
    pub request: u64,
    /// Snapshot of the scan; zero for a range delete.
    pub read_ts: Timestamp,
    /// Everything at or above (forward) or strictly below (reverse) this key is still to come.
    pub next: Bytes,
}

/// What tells one scan or range delete from another.
pub fn request_hash(interval: &Interval, flags: &[bool]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(interval.start().len() as u64).to_be_bytes());
    hash.update(interval.start());
    match interval.end().as_key() {
        Some(end) => {
            hash.update(&[1]);
            hash.update(end);
        }
        None => hash.update(&[0]),
    }
    for flag in flags {
        hash.update(&[u8::from(*flag)]);
    }
    hash.digest()
}

impl Cursor {
    /// The token.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(HEADER + self.next.len() + TRAILER);
        out.push(VERSION);
        out.extend_from_slice(&self.request.to_be_bytes());
        out.extend_from_slice(&self.read_ts.raw().to_be_bytes());
        out.extend_from_slice(&self.next);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out.into()
    }

    /// Reads a token that continues the request with this hash.
    ///
    /// # Errors
    /// [`Reason::CursorInvalid`], definite.
    pub fn decode(token: &Bytes, request: u64) -> Result<Self, Error> {
        let cursor = Self::parse(token).ok_or_else(|| invalid("it was not issued by this service or was damaged"))?;
        if cursor.request != request {
            return Err(invalid("it belongs to a request with another range or other options"));
        }
        Ok(cursor)
    }

    fn parse(token: &Bytes) -> Option<Self> {
        let (body, crc) = token.split_last_chunk::<TRAILER>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let (version, rest) = body.split_first()?;
        let (request, rest) = rest.split_first_chunk::<8>()?;
        let (read_ts, next) = rest.split_first_chunk::<8>()?;
        (*version == VERSION).then(|| Self {
            request: u64::from_be_bytes(*request),
            read_ts: Timestamp::from_raw(u64::from_be_bytes(*read_ts)),
            next: Bytes::copy_from_slice(next),
        })
    }
}

fn invalid(why: &str) -> Error {
    let message = format!("the cursor cannot be used: {why}; nothing happened, start the scan again without a cursor");
    Error::definite(Reason::CursorInvalid, message)
}

#[cfg(test)]
mod tests {
    use drover_keys::End;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let cursor = Cursor { request: 0x0102, read_ts: Timestamp::from_raw(3), next: "k".into() };
        let mut expect = vec![1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, b'k'];
        let crc = crc32c::crc32c(&expect);
        expect.extend_from_slice(&crc.to_be_bytes());
        assert_eq!(cursor.encode(), expect);
    }

    #[test]
    fn requests_that_differ_in_range_or_flags_have_different_hashes() {
        let bounded = Interval::new("a", End::Key("b".into())).unwrap();
        let open = Interval::new("a", End::Unbounded).unwrap();
        let hashes = [
            request_hash(&bounded, &[false, false]),
            request_hash(&open, &[false, false]),
            request_hash(&bounded, &[true, false]),
            request_hash(&bounded, &[false, true]),
        ];
        for (i, a) in hashes.iter().enumerate() {
            assert!(hashes.iter().skip(i + 1).all(|b| a != b));
        }
    }

    proptest! {
        #[test]
        fn tokens_round_trip_for_their_request_only(request: u64, other: u64, ts: u64, next: Vec<u8>) {
            let cursor = Cursor { request, read_ts: Timestamp::from_raw(ts), next: next.into() };
            prop_assert_eq!(Cursor::decode(&cursor.encode(), request).unwrap(), cursor.clone());
            prop_assert_eq!(Cursor::decode(&cursor.encode(), other).is_ok(), request == other);
        }

        #[test]
        fn a_flipped_bit_is_noticed(request: u64, next: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let cursor = Cursor { request, read_ts: Timestamp::from_raw(7), next: next.into() };
            let mut token = cursor.encode().to_vec();
            let at = at.index(token.len());
            token[at] ^= 1 << bit;
            prop_assert!(Cursor::decode(&token.into(), request).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(token: Vec<u8>, request: u64) {
            let _ = Cursor::decode(&token.into(), request);
        }
    }
}
