//! Binary search that touches little memory.

use bytes::Bytes;

/// The first bytes of ascending keys, side by side. A search compares these, and looks at a key itself only where they
/// are not enough.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyIndex {
    /// What all keys start with.
    prefix: Bytes,
    /// Of each key the eight bytes after the prefix, filled up with zeros: never descending.
    heads: Box<[u64]>,
}

/// Whether a search counts a key that is equal to the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Equal {
    /// It does.
    Counts,
    /// It does not.
    DoesNotCount,
}

impl KeyIndex {
    /// The index of `keys`, which ascend.
    pub(super) fn of<'a>(keys: impl DoubleEndedIterator<Item = &'a Bytes> + Clone) -> Self {
        let (Some(first), Some(last)) = (keys.clone().next(), keys.clone().next_back()) else { return Self::default() };
        let common = first.iter().zip(last.iter()).take_while(|(a, b)| a == b).count();
        Self { prefix: first.slice(..common), heads: keys.map(|key| head(&key[common..])).collect() }
    }

    /// How many of the keys are below `bound`, or equal to it if that counts. `key` gives the n-th of the keys.
    pub(super) fn count_below<'a>(&self, bound: &[u8], equal: Equal, key: impl Fn(usize) -> &'a Bytes) -> usize {
        let Some(rest) = bound.strip_prefix(self.prefix.as_ref()) else {
            return if bound < self.prefix.as_ref() { 0 } else { self.heads.len() };
        };
        let head = head(rest);
        let mut low = self.heads.partition_point(|h| *h < head);
        let mut high = low + self.heads[low..].partition_point(|h| *h == head);
        while low < high {
            let middle = low.midpoint(high);
            let key = key(middle).as_ref();
            if key < bound || (equal == Equal::Counts && key == bound) { low = middle + 1 } else { high = middle }
        }
        low
    }
}

fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let length = key.len().min(8);
    head[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        // Few letters and a common start, so that heads are often equal and keys often prefixes of each other.
        let tail = proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..12);
        (proptest::bool::weighted(0.9), tail).prop_map(|(with, tail)| {
            let start: &[u8] = if with { b"tenant/" } else { b"" };
            [start, &tail].concat()
        })
    }

    proptest! {
        #[test]
        fn a_search_counts_what_a_walk_counts(
            keys in proptest::collection::btree_set(any_key(), 0..60), bound in any_key(),
        ) {
            let keys: Vec<Bytes> = keys.into_iter().map(Bytes::from).collect();
            let index = KeyIndex::of(keys.iter());
            for bound in keys.iter().map(|key| key.to_vec()).chain([bound]) {
                let below = keys.iter().filter(|key| ***key < *bound).count();
                let up_to = keys.iter().filter(|key| ***key <= *bound).count();
                prop_assert_eq!(index.count_below(&bound, Equal::DoesNotCount, |n| &keys[n]), below);
                prop_assert_eq!(index.count_below(&bound, Equal::Counts, |n| &keys[n]), up_to);
            }
        }
    }
}
