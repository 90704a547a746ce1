//! The compatibility version of this build, as a stamp in the binary.
//!
//! ```text
//! "drover compatibility version: " | major.minor, padded with spaces to 16 bytes
//! ```
//!
//! The stamp is read where it stands, so that a rehearsal of an upgrade can make a second build from the same source by
//! writing another version over it.

use drover_catalog::Version;

const LABEL: &[u8; 30] = b"drover compatibility version: ";
const STAMP_BYTES: usize = 46;

#[used]
static STAMP: [u8; STAMP_BYTES] = stamp(concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR")));

const fn stamp(version: &str) -> [u8; STAMP_BYTES] {
    let mut stamp = [b' '; STAMP_BYTES];
    let mut at = 0;
    while at < LABEL.len() {
        stamp[at] = LABEL[at];
        at += 1;
    }
    let version = version.as_bytes();
    let mut digit = 0;
    while digit < version.len() {
        stamp[at + digit] = version[digit];
        digit += 1;
    }
    stamp
}

/// The version of this build.
///
/// # Errors
/// If somebody has written something over the stamp that is no version.
pub fn version() -> Result<Version, String> {
    // Kept from the optimiser, which knows what the source says.
    parse(std::hint::black_box(&STAMP))
}

fn parse(stamp: &[u8; STAMP_BYTES]) -> Result<Version, String> {
    let text = stamp.strip_prefix(LABEL).and_then(|text| std::str::from_utf8(text).ok());
    text.ok_or_else(|| "the version stamp of this build is damaged".to_owned())?.trim_end().parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_says_what_cargo_says_until_another_version_is_written_over_it() {
        let own = version().unwrap();
        assert_eq!(own.to_string(), concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR")));
        assert!(own > Version::default());
        assert_eq!(parse(&stamp("12.345")), Ok(Version::new(12, 345)));
        assert!(parse(&stamp("next")).is_err());
        assert!(parse(&[b' '; STAMP_BYTES]).is_err());
    }
}
