//! Order-preserving escape of byte strings, so that a composite key can be compared byte by byte.
//!
//! `0x00` becomes `0x00 0xff`, and `0x00 0x01` ends the string (the scheme of FoundationDB's tuple layer and of
//! CockroachDB's key encoding). The encoding of a string is never a prefix of the encoding of another.

use crate::DecodeError;

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xff;
const TERMINATOR: u8 = 0x01;

/// Appends the encoding of `raw` to `out`.
pub fn encode_into(raw: &[u8], out: &mut Vec<u8>) {
    encode_open_into(raw, out);
    out.extend_from_slice(&[ESCAPE, TERMINATOR]);
}

/// Appends the escaped bytes of `raw` without the terminator: the least prefix of every string that starts with `raw`.
pub fn encode_open_into(raw: &[u8], out: &mut Vec<u8>) {
    out.reserve(raw.len() + 2);
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&b| b == ESCAPE) {
        out.extend_from_slice(&rest[..=at]);
        out.push(ESCAPED_ZERO);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Reads one string from the front of `input`; returns it and the number of bytes it took.
///
/// # Errors
/// If `input` does not start with a complete encoding.
pub fn decode(input: &[u8]) -> Result<(Vec<u8>, usize), DecodeError> {
    let mut raw = Vec::with_capacity(input.len());
    let mut at = 0;
    loop {
        let Some(skip) = input[at..].iter().position(|&b| b == ESCAPE) else {
            return Err(DecodeError::Truncated { field: "memcomparable string", at: input.len() });
        };
        raw.extend_from_slice(&input[at..at + skip]);
        at += skip + 1;
        match input.get(at) {
            Some(&ESCAPED_ZERO) => raw.push(0),
            Some(&TERMINATOR) => return Ok((raw, at + 1)),
            Some(&found) => return Err(DecodeError::Invalid { field: "memcomparable escape", at, found }),
            None => return Err(DecodeError::Truncated { field: "memcomparable escape", at }),
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_into(raw, &mut out);
        out
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(encode(b""), [0, 1]);
        assert_eq!(encode(b"ab"), [b'a', b'b', 0, 1]);
        assert_eq!(encode(b"\0"), [0, 0xff, 0, 1]);
        assert_eq!(encode(b"a\0\xff"), [b'a', 0, 0xff, 0xff, 0, 1]);
    }

    #[test]
    fn truncated_and_foreign_bytes_are_refused() {
        for bad in [&b""[..], b"a", b"a\0", b"a\0\x02", b"\0\xff"] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }

    fn bytes_with_zeros() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..12)
    }

    proptest! {
        #[test]
        fn round_trips_and_leaves_the_rest(raw in bytes_with_zeros(), tail in bytes_with_zeros()) {
            let mut buf = encode(&raw);
            let len = buf.len();
            buf.extend_from_slice(&tail);
            prop_assert_eq!(decode(&buf).unwrap(), (raw, len));
        }

        #[test]
        fn order_is_kept_whatever_follows(
            a in bytes_with_zeros(), b in bytes_with_zeros(), x in bytes_with_zeros(), y in bytes_with_zeros(),
        ) {
            prop_assume!(a != b);
            let (mut ea, mut eb) = (encode(&a), encode(&b));
            ea.extend_from_slice(&x);
            eb.extend_from_slice(&y);
            prop_assert_eq!(ea.cmp(&eb), a.cmp(&b));
        }

        #[test]
        fn arbitrary_input_never_panics(input: Vec<u8>) {
            let _ = decode(&input);
        }
    }
}
