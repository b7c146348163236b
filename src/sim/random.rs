//! The one source of chance of a simulated run: xoshiro256++ seeded by splitmix64.
//!
//! Hand-written, thirty lines, because the numbers are part of the contract: a seed that fails today must fail in the same
//! way after an update of any library. Both algorithms are in the public domain (Blackman and Vigna, 2018; Steele,
//! Lea and Flood, 2014). Not for secrets.

/// A stream of numbers that one seed decides.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

/// One step of splitmix64: also a good way to make an independent seed out of another one and a number.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Random {
    /// The stream of that seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| split_mix(&mut state)))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number from 0 to `bound - 1`. The bias of the multiplication is below 2^-32 for our small bounds.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below 0");
        ((u128::from(self.any()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "{low} to {high} is no range");
        low + self.below(high - low + 1)
    }

    /// True in `per_mille` of 1,000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Any order of them, each as likely as every other (Fisher and Yates).
    pub fn shuffle<T>(&mut self, of: &mut [T]) {
        for last in (1..of.len()).rev() {
            of.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_stream_for_ever() {
        let first = |seed| {
            let mut random = Random::new(seed);
            [random.any(), random.any(), random.any()]
        };
        // The published reference streams of xoshiro256++ seeded by splitmix64(0) and splitmix64(42).
        assert_eq!(first(0)[0], 5_987_356_902_031_041_503);
        assert_eq!(first(42)[0], 15_021_278_609_987_233_951);
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_its_ends() {
        let mut random = Random::new(1);
        let drawn: Vec<u64> = (0..1_000).map(|_| random.between(3, 6)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&6)));
        let hits = (0..10_000).filter(|_| random.chance(200)).count();
        assert!((1_800..2_200).contains(&hits), "{hits} of 10,000 at 200 per mille");
        assert!(!random.chance(0));
    }
}
