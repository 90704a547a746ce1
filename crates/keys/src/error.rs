/// Why bytes are not a key. Nothing was changed; the bytes are corrupt or come from a newer format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ended inside a field.
    #[error("key ends inside {field} at byte {at}")]
    Truncated { field: &'static str, at: usize },
    /// A byte that no encoder writes stands at this place.
    #[error("byte {found:#04x} at {at} cannot stand in {field}")]
    Invalid { field: &'static str, at: usize, found: u8 },
    /// Bytes are left after the last field.
    #[error("{count} bytes left over after {field}")]
    Trailing { field: &'static str, count: usize },
}
