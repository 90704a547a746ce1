//! What is wrong between the nodes, as a value. Several nemeses break the network at once, each under its own name, and heal
//! only what they broke.

use std::collections::{BTreeMap, BTreeSet};

/// From whom to whom nothing comes through.
pub type Cut = BTreeSet<(u64, u64)>;

/// What becomes of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseKind {
    /// They are lost.
    Loss,
    /// They reset their connection.
    Reset,
    /// They come up to so many milliseconds late, each after a time of its own, and so out of their order.
    Delay {
        /// The longest.
        most_ms: u32,
    },
}

/// Packets that come to a node from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    /// To whom.
    pub node: u64,
    /// What becomes of them.
    pub kind: NoiseKind,
    /// How many of a thousand.
    pub permille: u32,
}

/// Everything that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    cuts: BTreeMap<String, Cut>,
    noise: BTreeMap<String, Vec<Noise>>,
}

impl Faults {
    /// Nothing comes through between these any more.
    pub fn cut(&mut self, owner: &str, pairs: Cut) {
        self.cuts.insert(owner.to_owned(), pairs);
    }

    /// Packets are lost, or reset their connections.
    pub fn disturb(&mut self, owner: &str, noise: Vec<Noise>) {
        self.noise.insert(owner.to_owned(), noise);
    }

    /// Takes back what one nemesis did.
    pub fn heal(&mut self, owner: &str) {
        self.cuts.remove(owner);
        self.noise.remove(owner);
    }

    /// Takes back everything.
    pub fn heal_all(&mut self) {
        *self = Self::default();
    }

    /// Whether nothing comes from one to the other.
    pub fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cuts.values().any(|cut| cut.contains(&(from, to)))
    }

    /// Who is not heard by a node.
    pub fn unheard(&self, by: u64) -> BTreeSet<u64> {
        self.cuts.values().flatten().filter(|(_, to)| *to == by).map(|(from, _)| *from).collect()
    }

    /// How late packets that come to a node are at most, in milliseconds.
    pub fn delay_at(&self, node: u64) -> u32 {
        let delay = |noise: Noise| match noise.kind {
            NoiseKind::Delay { most_ms } => most_ms,
            NoiseKind::Loss | NoiseKind::Reset => 0,
        };
        self.noise_at(node).into_iter().map(delay).max().unwrap_or(0)
    }

    /// What becomes of packets that come to a node.
    pub fn noise_at(&self, node: u64) -> Vec<Noise> {
        self.noise.values().flatten().filter(|noise| noise.node == node).copied().collect()
    }
}

/// Both directions between every node of one side and every node of the other.
pub fn halves(one: &[u64], other: &[u64]) -> Cut {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    pairs.filter(|(a, b)| a != b).flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

/// Each node hears only its neighbours in the ring: with five nodes everybody sees a majority, and no two the same one.
pub fn ring(nodes: &[u64]) -> Cut {
    let count = nodes.len();
    let reach = (count / 2) / 2;
    let mut cut = Cut::new();
    for (i, a) in nodes.iter().enumerate() {
        for (j, b) in nodes.iter().enumerate() {
            let distance = i.abs_diff(j).min(count - i.abs_diff(j));
            if distance > reach.max(1) {
                cut.insert((*a, *b));
            }
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_nemesis_heals_another_may_still_have_broken() {
        let mut faults = Faults::default();
        faults.cut("a", halves(&[1], &[2, 3]));
        faults.cut("b", Cut::from([(2, 1)]));
        assert!(faults.is_cut(1, 2) && faults.is_cut(2, 1) && faults.is_cut(3, 1) && !faults.is_cut(2, 3));
        faults.heal("a");
        assert!(!faults.is_cut(1, 2) && faults.is_cut(2, 1));
        assert_eq!(faults.unheard(1), BTreeSet::from([2]));
        faults.heal("b");
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn in_a_ring_of_five_everybody_hears_a_majority_and_nobody_all() {
        let nodes = [1, 2, 3, 4, 5];
        let cut = ring(&nodes);
        for node in nodes {
            let hears = nodes.iter().filter(|other| !cut.contains(&(**other, node))).count();
            assert_eq!(hears, 3, "node {node}: {cut:?}");
        }
        assert!(cut.iter().all(|(a, b)| cut.contains(&(*b, *a))));
    }
}
