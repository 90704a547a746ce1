//! What the fuzz targets run of this crate's private decoders. No part of the API.

use crate::home;

/// Whether the bytes are an `ACTIVE` file.
///
/// # Panics
/// If a number that was read does not survive being written and read again.
pub fn active(bytes: &[u8]) -> bool {
    let Some(number) = std::str::from_utf8(bytes).ok().and_then(home::parse_active) else { return false };
    assert_eq!(home::parse_active(&home::render_active(number)), Some(number));
    true
}

/// `ACTIVE` files.
pub fn actives() -> Vec<Vec<u8>> {
    [1, u64::MAX].map(|number| home::render_active(number).into_bytes()).into()
}
