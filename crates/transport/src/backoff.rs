use std::time::Duration;

/// Waits between attempts to connect: they double up to a bound, and each is a random part of that.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min_ms: u64,
    max_ms: u64,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(min_ms: u64, max_ms: u64) -> Self {
        Self { min_ms: min_ms.max(1), max_ms: max_ms.max(min_ms).max(1), failures: 0 }
    }

    /// The next wait. `random` is uniform over all numbers.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let ceiling = self.min_ms.saturating_mul(1 << self.failures.min(20)).min(self.max_ms);
        self.failures = self.failures.saturating_add(1);
        let half = ceiling.div_ceil(2);
        Duration::from_millis(half + random % (ceiling - half + 1))
    }

    /// After a success, or when the peer has moved.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_the_bound_and_never_beyond(
            min in 1u64..500, factor in 1u64..100, random in prop::collection::vec(any::<u64>(), 1..40),
        ) {
            let max = min * factor;
            let mut backoff = Backoff::new(min, max);
            for (n, random) in random.into_iter().enumerate() {
                let wait = backoff.next(random).as_millis() as u64;
                let ceiling = min.saturating_mul(1 << n.min(20)).min(max);
                prop_assert!(wait <= ceiling && wait >= ceiling / 2, "{wait} of {ceiling}");
            }
            backoff.reset();
            prop_assert!(backoff.next(u64::MAX).as_millis() as u64 <= min);
        }
    }
}
