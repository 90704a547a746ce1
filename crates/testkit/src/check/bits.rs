/// A set of operation numbers.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Bits(Box<[u64]>);

impl Bits {
    /// The empty set of numbers below `capacity`.
    pub fn new(capacity: usize) -> Self {
        Self(vec![0; capacity.div_ceil(64)].into())
    }

    pub fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub fn remove(&mut self, number: usize) {
        self.0[number / 64] &= !(1 << (number % 64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_equal_exactly_if_they_hold_the_same_numbers() {
        let of = |numbers: &[usize]| {
            let mut bits = Bits::new(130);
            numbers.iter().for_each(|number| bits.insert(*number));
            bits
        };
        assert!(of(&[0, 63, 64, 129]) == of(&[129, 64, 63, 0, 0]));
        assert!(of(&[0, 64]) != of(&[1, 64]));
        assert!(of(&[0]) != of(&[64]));
        let mut bits = of(&[0, 63, 64, 129]);
        bits.remove(64);
        assert!(bits == of(&[0, 63, 129]));
    }
}
