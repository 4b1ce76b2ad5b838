//! Which address comes next. Pure.

use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::range::RangeSet;

/// Every address that a set offers, once, beginning after the one handed out last and going round: an address that
/// was given back is used again as late as possible. A `last` that is not of the set is no hint.
pub(crate) fn candidates(set: &RangeSet, last: Option<IpAddr>) -> Candidates<'_> {
    let found = last
        .and_then(|last| set.0.iter().enumerate().find_map(|(i, range)| Some((i, range.offset_of(last)?))));
    let left = set.0.iter().fold(0u128, |sum, range| sum.saturating_add(range.len()));
    let mut candidates = Candidates { set, range: 0, offset: 0, left };
    if let Some((range, offset)) = found {
        (candidates.range, candidates.offset) = (range, offset);
        candidates.step();
    }
    candidates
}

/// See [`candidates`].
#[derive(Debug)]
pub(crate) struct Candidates<'a> {
    set: &'a RangeSet,
    range: usize,
    offset: u128,
    /// Addresses not yet looked at, gateways included.
    left: u128,
}

impl Candidates<'_> {
    fn step(&mut self) {
        self.offset += 1;
        if self.set.0.get(self.range).is_none_or(|range| self.offset >= range.len()) {
            self.offset = 0;
            self.range = (self.range + 1) % self.set.0.len();
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        while self.left > 0 {
            self.left -= 1;
            let addr = self.set.0.get(self.range)?.nth(self.offset);
            self.step();
            if let Some(addr) = addr.filter(|addr| !self.set.is_gateway(*addr)) {
                return Some(addr);
            }
        }
        None
    }
}

/// Which set each requested address is of: the first that has it and has none yet. `None` for a set of which any
/// address will do.
///
/// # Errors
/// [`code::ADDRESS_UNAVAILABLE`] for a gateway, and for an address that no set has or that comes second in its set.
pub(crate) fn assign(requested: &[IpAddr], sets: &[RangeSet]) -> Result<Vec<Option<IpAddr>>, CniError> {
    let mut assigned = vec![None; sets.len()];
    for addr in requested {
        let refuse = |why: String| {
            let msg = format!("the requested address {addr} {why}");
            Err(CniError::new(code::ADDRESS_UNAVAILABLE, msg))
        };
        if sets.iter().any(|set| set.is_gateway(*addr)) {
            return refuse("is the gateway".into());
        }
        let mut offering = sets.iter().zip(&mut assigned).filter(|(set, _)| set.offers(*addr));
        match offering.next() {
            Some((_, slot @ None)) => *slot = Some(*addr),
            Some((set, Some(other))) => {
                return refuse(format!("comes second to {other}: a container gets one address of {set}"));
            }
            None => {
                let sets: Vec<String> = sets.iter().map(RangeSet::to_string).collect();
                return refuse(format!("is not in {}", sets.join(", ")));
            }
        }
    }
    Ok(assigned)
}

#[cfg(test)]
mod tests {
    use cni_conf::ipam::IpamConfig;
    use serde_json::{Value, json};

    use super::*;

    fn sets(ranges: Value) -> Vec<RangeSet> {
        IpamConfig::parse(json!({"ipam": {"ranges": ranges}}).as_object().unwrap()).unwrap().ranges
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn goes_round_from_the_last_without_the_gateway() {
        let sets = sets(json!([[{"subnet": "10.0.0.0/29", "gateway": "10.0.0.3"}]]));
        let check = |last: Option<&str>, expected: &[u8]| {
            let found: Vec<IpAddr> = candidates(&sets[0], last.map(ip)).collect();
            let expected: Vec<IpAddr> = expected.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect();
            assert_eq!(found, expected, "after {last:?}");
        };
        check(None, &[1, 2, 4, 5, 6]);
        check(Some("10.0.0.4"), &[5, 6, 1, 2, 4]);
        check(Some("10.0.0.6"), &[1, 2, 4, 5, 6]);
        check(Some("10.0.0.3"), &[4, 5, 6, 1, 2]);
        check(Some("10.9.9.9"), &[1, 2, 4, 5, 6]);
        check(Some("2001:db8::4"), &[1, 2, 4, 5, 6]);
    }

    #[test]
    fn gives_all_sixteen_of_the_slice() {
        let sets = sets(
            json!([[{"subnet": "172.20.56.0/24", "slice": "172.20.56.16/28", "gateway": "172.20.56.1"}]]),
        );
        let found: Vec<IpAddr> = candidates(&sets[0], Some(ip("172.20.56.20"))).collect();
        assert_eq!(found.len(), 16);
        assert_eq!((found[0], found[15]), (ip("172.20.56.21"), ip("172.20.56.20")));
        assert!(found.contains(&ip("172.20.56.16")) && found.contains(&ip("172.20.56.31")));
    }

    #[test]
    fn goes_from_range_to_range() {
        let sets = sets(json!([[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30"}]]));
        let found = |last| candidates(&sets[0], last).collect::<Vec<_>>();
        assert_eq!(found(None), [ip("10.0.0.2"), ip("10.0.1.2")]);
        assert_eq!(found(Some(ip("10.0.0.2"))), [ip("10.0.1.2"), ip("10.0.0.2")]);
    }

    #[test]
    fn a_huge_range_costs_nothing() {
        let sets = sets(json!([[{"subnet": "2001:db8::/64"}], [{"subnet": "fd00::/8"}]]));
        let mut found = candidates(&sets[0], Some(ip("2001:db8::ffff:ffff:ffff:ffff")));
        assert_eq!(found.next(), Some(ip("2001:db8::2")));
        assert_eq!(candidates(&sets[1], None).next(), Some(ip("fd00::2")));
    }

    #[test]
    fn every_requested_address_finds_its_set_or_is_refused() {
        let sets = sets(json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "2001:db8::/64"}]]));
        assert_eq!(assign(&[], &sets), Ok(vec![None, None]));
        assert_eq!(assign(&[ip("2001:db8::7")], &sets), Ok(vec![None, Some(ip("2001:db8::7"))]));
        let refused = |requested: &[&str], part: &str| {
            let requested: Vec<IpAddr> = requested.iter().map(|text| ip(text)).collect();
            let error = assign(&requested, &sets).unwrap_err();
            assert_eq!(error.code, code::ADDRESS_UNAVAILABLE);
            assert!(error.msg.contains(part), "{}", error.msg);
        };
        refused(&["10.0.0.1"], "10.0.0.1 is the gateway");
        refused(&["10.0.1.1"], "10.0.1.1 is not in 10.0.0.0/24, 2001:db8::/64");
        refused(&["10.0.0.255"], "10.0.0.255 is not in");
        refused(&["10.0.0.2", "10.0.0.3"], "10.0.0.3 comes second to 10.0.0.2");
    }
}
