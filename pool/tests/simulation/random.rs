//! Random numbers that a seed determines.

use std::time::Duration;

/// `splitmix64` by Sebastiano Vigna, which is in the public domain.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `most`, which is not 0.
    pub(crate) fn below(&mut self, most: usize) -> usize {
        (self.number() % most as u64) as usize
    }

    /// Both bounds included.
    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    pub(crate) fn time(&mut self, least: Duration, most: Duration) -> Duration {
        let span = (most - least).as_nanos() as u64;
        least + Duration::from_nanos(self.number() % (span + 1))
    }

    pub(crate) fn millis(&mut self, least: u64, most: u64) -> Duration {
        self.time(Duration::from_millis(least), Duration::from_millis(most))
    }

    pub(crate) fn seconds(&mut self, least: u64, most: u64) -> Duration {
        self.time(Duration::from_secs(least), Duration::from_secs(most))
    }

    pub(crate) fn per_mille(&mut self, share: usize) -> bool {
        share > 0 && self.below(1000) < share
    }

    pub(crate) fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}
