//! What the fuzz targets run of this crate's private decoders. No part of the API.

use crate::home;

/// Whether the bytes are an `ACTIVE` file.
///
/// # Panics
/// If a number that was read does not survive being written and read again.
pub fn active(bytes: &[u8]) -> bool {
    let Some(number) = home::parse_active(bytes) else { return false };
    assert_eq!(home::render_active(number).as_bytes(), bytes);
    true
}

/// `ACTIVE` files.
pub fn actives() -> Vec<Vec<u8>> {
    [1, u64::MAX].map(|number| home::render_active(number).into_bytes()).into()
}
