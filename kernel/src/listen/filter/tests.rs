//! The program, run by this kernel.

use std::hash::{BuildHasher, RandomState};

use super::*;
use crate::bpf::run;
use crate::listen::message::Frame;
use crate::listen::message::tests::{samples, silent};
use crate::probe::tagged;

#[test]
fn what_says_something_passes_and_the_rest_does_not() {
    for (frame, message) in samples() {
        for tag in [None, Some(100)] {
            let frame = tagged(frame.clone(), tag);
            assert_eq!(run(&program(), &frame), Some(frame), "{message:?} {tag:?}");
        }
    }
    for (name, frame) in silent() {
        assert_eq!(run(&program(), &frame), None, "{name}");
    }
}

#[test]
fn a_frame_is_truncated_to_the_buffer() {
    for (mut frame, message) in samples() {
        frame.resize(1514, 0);
        assert_eq!(run(&program(), &frame).map(|left| left.len()), Some(SNAPSHOT), "{message:?}");
    }
}

/// Whatever is read must pass; what must not pass may.
#[test]
fn a_frame_that_can_be_read_passes_whatever_is_in_it() {
    let seed = RandomState::new().hash_one(0) | 1;
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let samples = samples();
    let mut read = 0;
    for _ in 0..2000 {
        let (sample, _) = &samples[random.below(samples.len())];
        let mut frame = tagged(sample.clone(), (random.below(2) == 0).then_some(7));
        for _ in 0..random.below(4) {
            let at = random.below(frame.len());
            frame[at] = random.below(256) as u8;
        }
        frame.truncate(random.below(2 * frame.len()));
        if !frame.is_empty() && Frame::read(&frame, false, None).is_some() {
            read += 1;
            assert_eq!(run(&program(), &frame), Some(frame));
        }
        let noise: Vec<u8> = (0..random.below(128)).map(|_| random.below(256) as u8).collect();
        let _ = Frame::read(&noise, false, None);
    }
    assert!(read > 100, "{read}");
}

/// xorshift64
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}
