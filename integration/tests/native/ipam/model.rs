//! Random sequences of calls, compared with a model of the store: after each call the files match the model.
//!
//! proptest makes sequences of [`Step`]s, and shortens a failing one. It then prints the seed, and [`SEED`]
//! repeats the run.

mod calls;
mod expected;
mod owners;
mod rig;

use integration::note;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use rig::Rig;
use std::io::Read;
use std::sync::atomic::{AtomicU32, Ordering};

/// The number of steps, and the longest sequence. The variable of this name changes the number.
const STEPS: u32 = 10_000;
const STEPS_VARIABLE: &str = "IPAM_MODEL_STEPS";
const SEQUENCE: usize = 80;
/// The number of attempts to shorten a failing sequence.
const SHORTER: u32 = 2000;
/// The variable with the seed of a run to repeat.
const SEED: &str = "IPAM_MODEL_SEED";

/// Attachments there are: `eth0` and `net1` of each container.
const OWNERS: u8 = 8;
/// More system calls than any ADD makes.
const SYSCALLS: usize = 260;

/// The called plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Us,
    HostLocal,
}

/// A call that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Del,
    Check,
    /// GC that keeps the owners with these bits.
    Gc(u8),
}

/// The events of a store. Requested addresses are numbered over both sets.
#[derive(Debug, Clone, Copy)]
enum Step {
    Add {
        owner: u8,
        by: By,
        ask: Option<usize>,
    },
    Del {
        owner: u8,
        by: By,
    },
    Check {
        owner: u8,
    },
    Gc {
        keep: u8,
    },
    Status,
    List,
    /// `vlan-bridge-ipam check`
    Reclaim,
    /// SIGKILL as the call enters a system call.
    Kill {
        verb: Verb,
        owner: u8,
        ask: Option<usize>,
        at: usize,
    },
    /// DEL and ADD by host-local, without our plugin between them: a restarted container.
    Restart {
        owner: u8,
        ask: Option<usize>,
    },
    /// The owner's process ends, and with it the namespace that its ADD named.
    Die {
        owner: u8,
    },
    /// An operator removes a lease by hand.
    Remove {
        addr: usize,
    },
    Reboot,
}

fn step() -> impl Strategy<Value = Step> {
    let owner = || 0..OWNERS;
    let ask = || prop_oneof![3 => Just(None), 1 => (0..owners::ADDRESSES).prop_map(Some)];
    let verb = prop_oneof![
        4 => Just(Verb::Add),
        3 => Just(Verb::Del),
        1 => Just(Verb::Check),
        1 => any::<u8>().prop_map(Verb::Gc),
    ];
    prop_oneof![
        28 => (owner(), ask()).prop_map(|(owner, ask)| Step::Add { owner, by: By::Us, ask }),
        4 => (owner(), ask()).prop_map(|(owner, ask)| Step::Add { owner, by: By::HostLocal, ask }),
        16 => owner().prop_map(|owner| Step::Del { owner, by: By::Us }),
        3 => owner().prop_map(|owner| Step::Del { owner, by: By::HostLocal }),
        6 => owner().prop_map(|owner| Step::Check { owner }),
        3 => any::<u8>().prop_map(|keep| Step::Gc { keep }),
        2 => Just(Step::Status),
        3 => Just(Step::List),
        1 => Just(Step::Reclaim),
        14 => (verb, owner(), ask(), 0..SYSCALLS).prop_map(|(verb, owner, ask, at)| Step::Kill { verb, owner, ask, at }),
        2 => (owner(), ask()).prop_map(|(owner, ask)| Step::Restart { owner, ask }),
        6 => owner().prop_map(|owner| Step::Die { owner }),
        2 => (0..owners::ADDRESSES).prop_map(|addr| Step::Remove { addr }),
        3 => Just(Step::Reboot),
    ]
}

#[test]
fn whatever_happens_no_address_has_two_owners_and_none_is_lost() {
    let seed = seed();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let steps = std::env::var(STEPS_VARIABLE).map_or(STEPS, |text| text.parse().expect("a number of steps"));
    let config =
        Config { cases: 1, max_shrink_iters: SHORTER, failure_persistence: None, ..Config::default() };
    let rig = Rig::new();
    let taken = AtomicU32::new(0);
    let outcome = rig.on_a_machine_of_its_own(|machine| {
        let mut source = TestRunner::new_with_rng(config.clone(), rng);
        // Of any length, so that a failing one can be shortened.
        let sequences = vec(step(), 0..=SEQUENCE);
        while taken.load(Ordering::Relaxed) < steps {
            let mut runner = TestRunner::new_with_rng(config.clone(), source.new_rng());
            runner.run(&sequences, |steps| {
                let mut run = machine.begin();
                for step in &steps {
                    run.take(*step).map_err(TestCaseError::fail)?;
                    taken.fetch_add(1, Ordering::Relaxed);
                }
                run.end().map_err(TestCaseError::fail)
            })?;
        }
        Ok(())
    });
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    match outcome {
        Ok(()) => note(&format!("{} steps, seed {hex}", taken.into_inner())),
        Err(TestError::Fail(why, steps)) => {
            let steps: String = steps.iter().map(|step| format!("  {step:?}\n")).collect();
            panic!("{why}\nof\n{steps}{SEED}={hex} repeats it")
        }
        Err(TestError::Abort(why)) => panic!("{why}; {SEED}={hex} repeats it"),
    }
}

/// The seed to repeat, or a new one.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    match std::env::var(SEED) {
        Ok(text) => {
            assert_eq!(text.len(), 2 * seed.len(), "{SEED} has 64 hexadecimal digits");
            for (i, byte) in seed.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&text[2 * i..][..2], 16).expect("hexadecimal digits");
            }
        }
        Err(_) => {
            let mut random = std::fs::File::open("/dev/urandom").unwrap();
            random.read_exact(&mut seed).unwrap();
        }
    }
    seed
}
