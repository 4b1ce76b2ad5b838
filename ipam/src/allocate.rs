//! Chooses addresses. Nothing here does I/O.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::range::RangeSet;

/// Whether an address of a range may be assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It may be assigned.
    Yes,
    /// No address up to and including this one may be assigned.
    NotUntil(IpAddr),
}

/// Whether an address of a set may be assigned without a request for it. The quarantined ones may not.
pub(crate) fn offer(set: &RangeSet, quarantined: &BTreeSet<IpAddr>, addr: IpAddr) -> Offer {
    match set.refused_until(addr) {
        Some(last) => Offer::NotUntil(last),
        None if quarantined.contains(&addr) => Offer::NotUntil(addr),
        None => Offer::Yes,
    }
}

/// The requested address of each set: an address belongs to the first set that contains it and has no request
/// yet. `None` for a set without a request.
///
/// # Errors
/// [`code::ADDRESS_UNAVAILABLE`] for a gateway, an excluded address, an address outside all sets, and a
/// second address of a set.
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
        if let Some(set) =
            sets.iter().find(|set| set.range_of(*addr).is_some() && set.refused_until(*addr).is_some())
        {
            return refuse(format!("is excluded from {set}"));
        }
        let mut offering = sets.iter().zip(&mut assigned).filter(|(set, _)| set.offers(*addr));
        match offering.next() {
            Some((_, slot @ None)) => *slot = Some(*addr),
            Some((set, Some(other))) => {
                return refuse(format!(
                    "is the second one of {set} after {other}: a container gets one address of each set"
                ));
            }
            None => {
                let sets: Vec<String> = sets.iter().map(RangeSet::to_string).collect();
                return refuse(format!("is not in {}", sets.join(", ")));
            }
        }
    }
    Ok(assigned)
}

/// The requested addresses. A set without a request gets an address that the attachment held before.
pub(crate) fn prefer_held(
    wanted: &[Option<IpAddr>],
    held: &[IpAddr],
    sets: &[RangeSet],
) -> Vec<Option<IpAddr>> {
    let before = |set: &RangeSet| held.iter().copied().find(|addr| set.offers(*addr));
    wanted.iter().zip(sets).map(|(wanted, set)| wanted.or_else(|| before(set))).collect()
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
    fn every_requested_address_finds_its_set_or_is_refused() {
        let sets = sets(json!([[{"subnet": "10.0.0.0/24", "exclude": ["10.0.0.8/31"]}],
            [{"subnet": "2001:db8::/64"}]]));
        assert_eq!(assign(&[], &sets), Ok(vec![None, None]));
        assert_eq!(assign(&[ip("2001:db8::7")], &sets), Ok(vec![None, Some(ip("2001:db8::7"))]));
        let refused = |requested: &[&str], part: &str| {
            let requested: Vec<IpAddr> = requested.iter().map(|text| ip(text)).collect();
            let error = assign(&requested, &sets).unwrap_err();
            assert_eq!(error.code, code::ADDRESS_UNAVAILABLE);
            assert!(error.msg.contains(part), "{}", error.msg);
        };
        refused(&["10.0.0.1"], "10.0.0.1 is the gateway");
        refused(&["10.0.0.9"], "10.0.0.9 is excluded from 10.0.0.0/24");
        refused(&["10.0.1.1"], "10.0.1.1 is not in 10.0.0.0/24, 2001:db8::/64");
        refused(&["10.0.0.255"], "10.0.0.255 is not in");
        refused(&["10.0.0.2", "10.0.0.3"], "10.0.0.3 is the second one of 10.0.0.0/24 after 10.0.0.2");
    }

    #[test]
    fn held_addresses_are_preferred_without_a_request() {
        let sets = sets(json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "2001:db8::/64"}]]));
        let held = [ip("10.9.9.9"), ip("2001:db8::7"), ip("10.0.0.7")];
        assert_eq!(prefer_held(&[None, None], &held, &sets), [Some(ip("10.0.0.7")), Some(ip("2001:db8::7"))]);
        assert_eq!(prefer_held(&[Some(ip("10.0.0.9")), None], &[], &sets), [Some(ip("10.0.0.9")), None]);
    }
}
