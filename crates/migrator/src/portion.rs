//! How large the portions of a copy are. Pure.

use std::time::Duration;

/// Portions are no smaller than this, if the node's settings do not say less.
pub(crate) const LEAST: usize = 256 << 10;
/// A portion that took less leaves room for a larger one.
const QUICK: Duration = Duration::from_millis(8);
/// One that took more was too large.
const SLOW: Duration = Duration::from_millis(24);

/// Bytes of rows in a portion: as many as a group takes in within a bounded time, as tools that change tables in use size their
/// batches (`pt-online-schema-change --chunk-time`).
///
/// Whoever commits or reads behind a portion waits for all of it: for its way into the log of each replica, and for its rows to be
/// applied. Large portions make a copy fast where nobody waits; where clients keep the machines busy they are what clients wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortionSize {
    bytes: usize,
    max: usize,
}

impl PortionSize {
    /// Small ones until it is known how long they take. `max`: never larger.
    pub(crate) fn new(max: usize) -> Self {
        Self { bytes: LEAST.min(max), max }
    }

    /// Bytes of the next portion.
    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }

    /// A portion has taken that long: whether the next ones are to have another size. A portion of `filled` bytes that is smaller than
    /// it might have been says nothing of larger ones.
    pub(crate) fn took(&mut self, filled: usize, worked: Duration) -> bool {
        let bytes = match worked {
            worked if worked > SLOW => (self.bytes / 2).max(LEAST.min(self.max)),
            worked if worked < QUICK && filled >= self.bytes / 2 => self.bytes.saturating_mul(2).min(self.max),
            _ => self.bytes,
        };
        std::mem::replace(&mut self.bytes, bytes) != bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    #[test]
    fn portions_grow_while_they_are_quick_and_shrink_when_they_are_slow() {
        // Size, the largest one allowed, bytes that came, milliseconds that they took, the next size.
        let table = [
            (256, 1_024, 256, 7, 512),
            (256, 1_024, 128, 7, 512),
            (256, 1_024, 127, 7, 256),
            (256, 1_024, 256, 8, 256),
            (256, 1_024, 256, 24, 256),
            (256, 1_024, 256, 900, 256),
            (512, 1_024, 600, 1, 1_024),
            (1_024, 1_024, 1_024, 1, 1_024),
            (768, 1_024, 1_024, 1, 1_024),
            (1_024, 1_024, 1_024, 24, 1_024),
            (1_024, 1_024, 1_024, 25, 512),
            (512, 1_024, 1, 25, 256),
            (16, 16, 16, 1, 16),
            (16, 16, 16, 900, 16),
        ];
        for (bytes, max, filled, ms, expect) in table {
            let mut size = PortionSize { bytes: bytes * KIB, max: max * KIB };
            let changed = size.took(filled * KIB, Duration::from_millis(ms));
            assert_eq!(
                (size.bytes(), changed),
                (expect * KIB, expect != bytes),
                "{bytes} KiB, {filled} came in {ms} ms"
            );
        }
    }

    #[test]
    fn nothing_is_larger_than_it_may_be() {
        assert_eq!(PortionSize::new(4 << 20).bytes(), LEAST);
        assert_eq!(PortionSize::new(1).bytes(), 1);
        let mut tiny = PortionSize::new(1);
        assert!(!tiny.took(1, Duration::ZERO) && !tiny.took(1, Duration::from_secs(1)));
    }
}
