//! Sets of addresses as runs of consecutive ones, so that a large set is a short text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// A set of addresses of one or both families: sorted runs that neither touch nor overlap.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Runs(Vec<(IpAddr, IpAddr)>);

/// A string that names no run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address, nor two of one family as FIRST-LAST")]
pub struct NotARun(String);

/// An address as a number.
pub(crate) fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// The address with this number in the family of `like`.
pub(crate) fn address(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        // Every number that is computed from addresses of IPv4 fits.
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

/// The address after this one in its family.
fn after(addr: IpAddr) -> Option<IpAddr> {
    let most = if addr.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
    (bits(addr) < most).then(|| address(bits(addr) + 1, addr))
}

impl Runs {
    /// The empty set.
    pub const EMPTY: Runs = Runs(Vec::new());

    /// Whether the set has no address.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of addresses. The whole of IPv6 counts as one less.
    pub fn len(&self) -> u128 {
        self.0
            .iter()
            .fold(0, |sum, (first, last)| sum.saturating_add((bits(*last) - bits(*first)).saturating_add(1)))
    }

    /// The index of the run that contains the address, or where one would be inserted.
    fn find(&self, addr: IpAddr) -> Result<usize, usize> {
        let at = self.0.partition_point(|(_, last)| *last < addr);
        if self.0.get(at).is_some_and(|(first, _)| *first <= addr) { Ok(at) } else { Err(at) }
    }

    /// Whether the set has the address.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.find(addr).is_ok()
    }

    /// Adds an address.
    pub fn insert(&mut self, addr: IpAddr) {
        self.insert_run(addr, addr);
    }

    /// Adds the addresses of one family from the first to the last, both included.
    pub fn insert_run(&mut self, first: IpAddr, last: IpAddr) {
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return;
        }
        // Runs that touch the new one are merged with it.
        let touches_before = |run: &(IpAddr, IpAddr)| after(run.1).is_some_and(|next| next >= first);
        let from = self.0.partition_point(|run| run.1 < first && !touches_before(run));
        let beyond = after(last);
        let to = self.0.partition_point(|run| run.0 <= last || beyond == Some(run.0));
        let merged = self.0.get(from..to).unwrap_or_default();
        let first = merged.first().map_or(first, |run| run.0.min(first));
        let last = merged.last().map_or(last, |run| run.1.max(last));
        self.0.splice(from..to.max(from), [(first, last)]);
    }

    /// Removes an address.
    pub fn remove(&mut self, addr: IpAddr) {
        self.remove_run(addr, addr);
    }

    /// Removes the addresses of one family from the first to the last, both included.
    pub fn remove_run(&mut self, first: IpAddr, last: IpAddr) {
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return;
        }
        let from = self.0.partition_point(|run| run.1 < first);
        let to = self.0.partition_point(|run| run.0 <= last);
        let cut = self.0.get(from..to).unwrap_or_default();
        let before =
            cut.first().filter(|run| run.0 < first).map(|run| (run.0, address(bits(first) - 1, first)));
        let behind = cut.last().filter(|run| last < run.1).map(|run| (address(bits(last) + 1, last), run.1));
        self.0.splice(from..to, before.into_iter().chain(behind));
    }

    /// The set without the addresses of another.
    pub fn without(&self, other: &Runs) -> Runs {
        let mut rest = self.clone();
        other.iter_runs().for_each(|(first, last)| rest.remove_run(first, last));
        rest
    }

    /// The first address.
    pub fn first(&self) -> Option<IpAddr> {
        self.0.first().map(|run| run.0)
    }

    /// The first address that is in both sets.
    pub fn first_common(&self, other: &Runs) -> Option<IpAddr> {
        self.iter_runs().find_map(|(first, last)| {
            let at = other.0.partition_point(|run| run.1 < first);
            other.0.get(at).map(|run| run.0.max(first)).filter(|addr| *addr <= last)
        })
    }

    /// The runs: first and last address of each.
    pub fn iter_runs(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        self.0.iter().copied()
    }

    /// Every address. A set may be larger than anybody wants to walk through.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.iter().flat_map(|(first, last)| {
            let like = *first;
            RangeInclusive::new(bits(*first), bits(*last)).map(move |bits| address(bits, like))
        })
    }

    /// Adds the run that a string names: `ADDRESS` or `FIRST-LAST`.
    ///
    /// # Errors
    /// Another string.
    pub fn insert_text(&mut self, text: &str) -> Result<(), NotARun> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let bounds = first.parse::<IpAddr>().ok().zip(last.parse::<IpAddr>().ok());
        let bounds = bounds.filter(|(first, last)| first.is_ipv4() == last.is_ipv4() && first <= last);
        let (first, last) = bounds.ok_or_else(|| NotARun(text.chars().take(100).collect()))?;
        self.insert_run(first, last);
        Ok(())
    }

    /// The text of each run.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.iter_runs().map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        )
    }
}

impl FromIterator<IpAddr> for Runs {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addrs: I) -> Runs {
        let mut runs = Runs::EMPTY;
        addrs.into_iter().for_each(|addr| runs.insert(addr));
        runs
    }
}

impl Extend<IpAddr> for Runs {
    fn extend<I: IntoIterator<Item = IpAddr>>(&mut self, addrs: I) {
        addrs.into_iter().for_each(|addr| self.insert(addr));
    }
}

impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.texts()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn addr(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn texts(runs: &Runs) -> Vec<String> {
        runs.texts().collect()
    }

    #[test]
    fn neighbours_become_one_run_and_a_hole_makes_two() {
        let mut runs: Runs = [3, 1, 2, 9].map(addr).into_iter().collect();
        assert_eq!(texts(&runs), ["10.0.0.1-10.0.0.3", "10.0.0.9"]);
        runs.remove(addr(2));
        assert_eq!(texts(&runs), ["10.0.0.1", "10.0.0.3", "10.0.0.9"]);
        runs.insert_run(addr(0), addr(8));
        assert_eq!((texts(&runs), runs.len()), (vec!["10.0.0.0-10.0.0.9".to_owned()], 10));
    }

    #[test]
    fn the_ends_of_both_families_are_ends() {
        let (v4, v6) = ("255.255.255.255".parse::<IpAddr>().unwrap(), "::".parse::<IpAddr>().unwrap());
        let runs: Runs = [v6, v4].into_iter().collect();
        assert_eq!(texts(&runs), ["255.255.255.255", "::"]);
        let mut all = Runs::EMPTY;
        all.insert_text("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").unwrap();
        assert_eq!(all.len(), u128::MAX);
        assert_eq!((runs.first_common(&all), all.first_common(&runs)), (Some(v6), Some(v6)));
        assert_eq!(texts(&runs.without(&all)), ["255.255.255.255"]);
        all.remove(v6);
        assert_eq!((texts(&runs.without(&all)).len(), all.first_common(&runs)), (2, None));
    }

    #[test]
    fn other_texts_are_no_runs() {
        for text in ["", "-", "10.0.0.2-10.0.0.1", "10.0.0.1-::1", "10.0.0.1-", "10.0.0.0/24"] {
            assert!(Runs::default().insert_text(text).is_err(), "{text}");
        }
    }

    /// Against a plain set, in every order of inserting and removing that a small generator makes.
    #[test]
    fn runs_are_the_set_that_they_stand_for() {
        let mut seed = 1_u32;
        let mut next = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        let (mut runs, mut set) = (Runs::EMPTY, BTreeSet::new());
        for _ in 0..20_000 {
            let (first, longer, what) = (next(40) as u8, next(5) as u8, next(5));
            let last = first + longer;
            let (mut other, some) = (Runs::EMPTY, (first..=last).map(addr).collect::<BTreeSet<_>>());
            other.insert_run(addr(first), addr(last));
            assert_eq!(runs.first_common(&other), set.intersection(&some).next().copied());
            assert_eq!(other.first_common(&runs), set.intersection(&some).next().copied());
            assert!(other.without(&runs).iter().eq(some.difference(&set).copied()));
            match what {
                0 | 1 => {
                    runs.insert_run(addr(first), addr(last));
                    set.extend(some);
                }
                2 => {
                    runs.remove_run(addr(first), addr(last));
                    set.retain(|addr| !some.contains(addr));
                }
                _ => {
                    runs.remove(addr(first));
                    set.remove(&addr(first));
                }
            }
            assert_eq!(runs.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            assert_eq!(runs.first(), set.first().copied());
            assert!(runs.0.windows(2).all(|pair| after(pair[0].1).unwrap() < pair[1].0), "{runs:?}");
        }
    }
}
