use std::collections::BTreeMap;

use super::Findings;

/// What somebody saw at one moment of two keys, each of which is written once, by different writers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Names the two keys.
    pub pair: u64,
    /// How it was looked at, for the message.
    pub how: String,
    /// Whether the write of each was there.
    pub seen: [bool; 2],
}

/// Checks that of two independent writes nobody saw only the first after somebody saw only the second: there is one order.
///
/// # Errors
/// The looks that contradict each other.
pub fn no_long_fork(looks: &[Look]) -> Result<(), Findings> {
    let mut only: BTreeMap<u64, [Option<&Look>; 2]> = BTreeMap::new();
    for look in looks {
        let one = match look.seen {
            [true, false] => 0,
            [false, true] => 1,
            [false, false] | [true, true] => continue,
        };
        only.entry(look.pair).or_default()[one].get_or_insert(look);
    }
    let forks = only.values().filter_map(|both| match both {
        [Some(first), Some(second)] => {
            Some(format!("pair {}: {} saw only the first write, {} only the second", first.pair, first.how, second.how))
        }
        _ => None,
    });
    Findings::none_of(forks.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(pair: u64, seen: [bool; 2]) -> Look {
        Look { pair, how: format!("{seen:?}"), seen }
    }

    #[test]
    fn opposite_orders_of_one_pair_are_a_fork_and_those_of_two_pairs_are_none() {
        let one_order = [[false, false], [true, false], [true, true], [true, false]].map(|seen| look(1, seen));
        assert_eq!(no_long_fork(&one_order), Ok(()));
        let other_pair = [look(1, [true, false]), look(2, [false, true])];
        assert_eq!(no_long_fork(&other_pair), Ok(()));
        let fork = [look(1, [true, false]), look(1, [true, true]), look(1, [false, true])];
        assert_eq!(no_long_fork(&fork).unwrap_err().0.len(), 1);
    }
}
