//! The time within which an ADD of a shared pool has to end. Later another node may have the address: the
//! pool takes it back from a node that seems to be lost.

use std::time::Duration;

use cni_conf::cni::error::{CniError, code};
use cni_conf::network::Network;
use kernel::since_boot;
use vlan_bridge_pool::document::LONGEST_ADD;

/// When an ADD of a shared pool began, since the boot. None without a pool.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<Duration>);

impl Deadline {
    /// The deadline of an ADD that begins now.
    pub fn begin(network: &Network) -> Deadline {
        let pool = network.addresses.as_ref().and_then(|ipam| ipam.pool.as_ref());
        Deadline(pool.map(|_| since_boot()))
    }

    /// Checks that the ADD may still use its address. It may not if it was stopped, or if the machine slept.
    pub fn check(self) -> Result<(), CniError> {
        self.check_at(since_boot())
    }

    fn check_at(self, now: Duration) -> Result<(), CniError> {
        match self.0.map(|begun| now.saturating_sub(begun)).filter(|passed| *passed > LONGEST_ADD) {
            None => Ok(()),
            Some(passed) => Err(CniError::new(
                code::TRY_AGAIN_LATER,
                format!(
                    "the ADD has taken {} s, and an address of a shared pool must be in use within {} s: another \
                     node may have it by now",
                    passed.as_secs(),
                    LONGEST_ADD.as_secs()
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_add_of_a_pool_is_ever_late() {
        let at = |seconds| Duration::from_secs(seconds);
        let begun = Deadline(Some(at(100)));
        assert_eq!(begun.check_at(at(340)), Ok(()));
        let late = begun.check_at(at(341)).unwrap_err();
        assert_eq!(late.code, code::TRY_AGAIN_LATER);
        assert!(late.msg.starts_with("the ADD has taken 241 s"), "{}", late.msg);
        assert_eq!(Deadline(None).check_at(at(10_000)), Ok(()));
    }
}
