//! Random choices that a seed repeats.

use std::hash::{BuildHasher as _, RandomState};

/// `SplitMix64`.
pub struct Random(u64);

impl Random {
    /// From `TROLLEY_TEST_SEED`, or from a fresh seed. Prints it: the output of a failing test is shown.
    pub fn seeded() -> Self {
        let given = std::env::var("TROLLEY_TEST_SEED").ok();
        let seed = given.map_or_else(
            || RandomState::new().hash_one(0),
            |seed| seed.parse().expect("TROLLEY_TEST_SEED is a number"),
        );
        println!("TROLLEY_TEST_SEED={seed}");
        Self(seed)
    }

    /// An independent generator, for a task.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
