//! Binary keys as text for people: printable ASCII stands for itself, everything else is `\xNN`, a backslash is `\\`.

use std::fmt::Write;

/// Renders `raw` so that [`unescape`] gives it back.
pub fn escape(raw: &[u8]) -> String {
    let mut out = String::with_capacity(raw.len());
    for &byte in raw {
        match byte {
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(byte as char),
            _ => write!(out, "\\x{byte:02x}").expect("writing to a string cannot fail"),
        }
    }
    out
}

/// Reads text with the escapes `\xNN`, `\\`, `\n`, `\r`, `\t` and `\0`; other characters stand for their UTF-8 bytes.
///
/// # Errors
/// A sentence that names the place of an incomplete or unknown escape.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next().map(|(_, b)| b) {
            Some(b'\\') => out.push(b'\\'),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'0') => out.push(0),
            Some(b'x') => {
                let mut digit = || bytes.next().and_then(|(_, b)| (b as char).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
                    _ => return Err(format!("\\x at byte {at} needs two hexadecimal digits")),
                }
            }
            Some(_) | None => {
                return Err(format!("unknown escape at byte {at}: use \\xNN, \\\\, \\n, \\r, \\t or \\0"));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_escapes_name_their_place() {
        assert!(unescape("ab\\x1").unwrap_err().contains("byte 2"));
        assert!(unescape("\\q").unwrap_err().contains("byte 0"));
        assert!(unescape("a\\").unwrap_err().contains("byte 1"));
    }

    proptest! {
        #[test]
        fn escaped_bytes_come_back(raw: Vec<u8>) {
            prop_assert_eq!(unescape(&escape(&raw)).unwrap(), raw);
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = unescape(&text);
        }
    }
}
