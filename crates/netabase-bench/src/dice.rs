//! Numbers that look random and follow from a seed (splitmix64).

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Makes the sequence that belongs to these numbers in this order.
    pub(crate) fn new(seeds: &[u64]) -> Self {
        Self(seeds.iter().fold(0, |state, seed| mix((state ^ seed).wrapping_add(GAMMA))))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// Returns a number below `end`; zero if that is zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// Returns `count` different numbers below `end`, or all of them if there are fewer.
    pub(crate) fn sample(&mut self, count: usize, end: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..end).collect();
        let count = count.min(end);
        for chosen in 0..count {
            numbers.swap(chosen, chosen + self.index(end - chosen));
        }
        numbers.truncate(count);
        numbers
    }

    /// Returns a place in something with so many; zero if it is empty.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).unwrap_or(u64::MAX))).unwrap_or(0)
    }

    /// Returns whether one of so many comes up.
    pub(crate) fn one_in(&mut self, sides: u64) -> bool {
        self.below(sides) == 0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// Returns one of several; none if there are none.
    pub(crate) fn pick<'a, T>(&mut self, several: &'a [T]) -> Option<&'a T> {
        several.get(self.index(several.len()))
    }

    pub(crate) fn below_u32(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(end.into())).unwrap_or(0)
    }
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_different_numbers_and_follows_from_the_seed() {
        let mut sample = Dice::new(&[7]).sample(10, 30);
        assert_eq!(sample, Dice::new(&[7]).sample(10, 30));
        assert_ne!(sample, Dice::new(&[8]).sample(10, 30));
        sample.sort_unstable();
        sample.dedup();
        assert!(sample.len() == 10 && sample.iter().all(|number| *number < 30));
        assert_eq!(Dice::new(&[7]).sample(5, 3).len(), 3);
    }
}
