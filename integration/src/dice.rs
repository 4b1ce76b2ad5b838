//! Random numbers for tests.

use crate::note;
use std::fs::File;
use std::io::Read;

/// Random numbers, the same for the same seed (xorshift).
#[derive(Clone, Debug)]
pub struct Dice(u32);

impl Dice {
    /// A seed, which the test's log shows with these words.
    pub fn seed(of: &str) -> u32 {
        let mut seed = [0; 4];
        let mut random = File::open("/dev/urandom").expect("the kernel has random numbers");
        random.read_exact(&mut seed).expect("the kernel has random numbers");
        let seed = u32::from_ne_bytes(seed);
        note(&format!("{of}: seed {seed}"));
        seed
    }

    /// The numbers of a seed.
    pub fn of(seed: u32) -> Dice {
        // Zero would stay zero.
        Dice(seed | 1)
    }

    /// A number below that of the sides.
    pub fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % sides
    }

    /// One of these, if there is one.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let sides = u32::try_from(from.len()).ok().filter(|sides| *sides > 0)?;
        from.get(self.roll(sides) as usize)
    }
}
