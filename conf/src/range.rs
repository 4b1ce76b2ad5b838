//! The addresses that a network may assign: ranges within subnets, and sets of ranges.
//!
//! All arithmetic is on `u128`, and addresses are never listed: the range of an IPv6 /64 costs no more than
//! that of a /30.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::family::Family;
use ipnet::IpNet;

use crate::cni::error::CniError;
use crate::section::{Section, parse_cidr, parse_ip};

/// Consecutive addresses within one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The subnet. Assigned addresses have its prefix length.
    pub subnet: IpNet,
    /// The node's part of the subnet, if the configuration has `slice`.
    pub slice: Option<IpNet>,
    /// The first address.
    pub first: IpAddr,
    /// The last address, inclusive.
    pub last: IpAddr,
    /// The subnet's gateway, which is never assigned. A subnet of one address has none by default.
    pub gateway: Option<IpAddr>,
    /// `exclude`: addresses that other machines use, which are never assigned.
    pub exclude: Vec<IpNet>,
    /// With a pool, the range is all of the subnet. These are the first and last address of the node's own
    /// part then: `slice`, or `rangeStart` and `rangeEnd`. None if there is no such part, or no pool.
    pub home: Option<(IpAddr, IpAddr)>,
}

/// Ranges that are alternatives for one address. A set is never empty, and its ranges have one family and do
/// not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet(pub Vec<Range>);

impl Range {
    /// Reads the keys of one range: `subnet`, and `slice` or `rangeStart` and `rangeEnd`, and `gateway` and
    /// `exclude`.
    ///
    /// Defaults are host-local's: every usable address, and the first usable as gateway. A range that
    /// includes the network or broadcast address loses it, with a warning in `warnings`. host-local would
    /// assign it.
    ///
    /// # Errors
    /// Host bits in `subnet` or `slice`; a slice, bound, gateway or exclusion outside the subnet; a range
    /// without addresses.
    pub fn from_section(section: &Section<'_>, warnings: &mut Vec<String>) -> Result<Range, CniError> {
        let subnet = section.cidr("subnet")?;
        let subnet = section.require("subnet", subnet, "the network's subnet such as 172.20.56.0/24")?;
        without_host_bits(section, "subnet", subnet)?;
        let (start, end) = (section.ip("rangeStart")?, section.ip("rangeEnd")?);
        let slice = section.cidr("slice")?;
        let usable = usable(subnet);
        let (from, to) = match slice {
            Some(slice) => {
                check_slice(section, subnet, slice, start.or(end).is_some())?;
                (slice.network(), slice.broadcast())
            }
            None => (start.unwrap_or(usable.0), end.unwrap_or(usable.1)),
        };
        for (key, bound) in [("rangeStart", start), ("rangeEnd", end)] {
            let Some(bound) = bound else { continue };
            inside(section, key, bound, subnet)?;
            if bits(bound) < bits(usable.0) || bits(bound) > bits(usable.1) {
                let path = section.path(key);
                warnings.push(format!(
                    "{path}: {bound} is not a host address of {subnet}, so it is never assigned"
                ));
            }
        }
        if bits(from) > bits(to) {
            return Err(section.error("rangeStart", format_args!("{from} is after rangeEnd {to}")));
        }
        let gateway = gateway(section, subnet, usable)?;
        let (first, last) = (bits(from).max(bits(usable.0)), bits(to).min(bits(usable.1)));
        let (first, last) = (address(first, subnet), address(last, subnet));
        let exclude = excluded(section, Some(subnet))?;
        let range = Range { subnet, slice, first, last, gateway, exclude, home: None };
        if range.is_empty() || (range.len() == 1 && gateway == Some(first)) {
            let key = if slice.is_some() { "slice" } else { "subnet" };
            let found = slice.unwrap_or(subnet);
            let why = format!("{found} has no address to assign besides network, broadcast and gateway");
            return Err(section.error(key, why));
        }
        Ok(range)
    }

    /// Makes the range all of its subnet. What it was becomes home, unless it was all of it.
    pub(crate) fn widen(&mut self) {
        let (own, all) = ((self.first, self.last), usable(self.subnet));
        (self.first, self.last) = all;
        self.home = (self.slice.is_some() || own != all).then_some(own);
    }

    /// Whether an address lies in this range. The gateway may lie in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        Family::of(addr) == Family::of(self.first)
            && bits(self.first) <= bits(addr)
            && bits(addr) <= bits(self.last)
    }

    /// How many addresses the range spans, the gateway included. The range of all IPv6 addresses counts as
    /// one less, because the number must fit into `u128`.
    pub fn len(&self) -> u128 {
        bits(self.last).checked_sub(bits(self.first)).map_or(0, |span| span.saturating_add(1))
    }

    /// Whether the range spans no address. A range from a configuration never is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The address at an offset from the first. None beyond the last.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        let at = bits(self.first).checked_add(offset)?;
        (at <= bits(self.last)).then(|| address(at, self.subnet))
    }

    /// The offset of an address from the first. None if it is not in the range.
    pub fn offset_of(&self, addr: IpAddr) -> Option<u128> {
        self.contains(addr).then(|| bits(addr) - bits(self.first))
    }

    /// An address of this range with the subnet's prefix length.
    pub fn with_prefix(&self, addr: IpAddr) -> IpNet {
        IpNet::new(addr, self.subnet.prefix_len()).unwrap_or_else(|_| addr.into())
    }

    /// Whether two ranges share an address.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

impl RangeSet {
    /// Checks what must hold within one set.
    ///
    /// # Errors
    /// No range, mixed families, overlaps. `path` is named in the message.
    pub fn new(path: &str, ranges: Vec<Range>) -> Result<RangeSet, CniError> {
        let Some(head) = ranges.first() else {
            return Err(CniError::config(format!("{path}: an empty list: must hold at least one range")));
        };
        for (i, range) in ranges.iter().enumerate() {
            if Family::of(range.first) != Family::of(head.first) {
                let (a, b) = (head.subnet, range.subnet);
                return Err(CniError::config(format!(
                    "{path}: {a} and {b} are of different families: a container gets one address of each set"
                )));
            }
            if let Some(other) = ranges[..i].iter().find(|other| other.overlaps(range)) {
                return Err(CniError::config(format!("{path}: {other} and {range} overlap")));
            }
        }
        let set = RangeSet(ranges);
        if set.capacity() == 0 {
            return Err(CniError::config(format!("{path}: {set}: every address is excluded or a gateway")));
        }
        Ok(set)
    }

    /// The range that holds an address.
    pub fn range_of(&self, addr: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(addr))
    }

    /// Whether an address is the gateway of a range of the set. Gateways are never assigned.
    pub fn is_gateway(&self, addr: IpAddr) -> bool {
        self.0.iter().any(|range| range.gateway == Some(addr))
    }

    /// Whether an address may be assigned.
    pub fn offers(&self, addr: IpAddr) -> bool {
        self.range_of(addr).is_some() && self.refused_until(addr).is_none()
    }

    /// The last address of the reserved block around this address, in any range: a gateway or an exclusion.
    /// None if this address is not reserved.
    pub fn refused_until(&self, addr: IpAddr) -> Option<IpAddr> {
        let gateways = self.0.iter().filter_map(|range| range.gateway).map(IpNet::from);
        let excluded = self.0.iter().flat_map(|range| range.exclude.iter().copied());
        let around = gateways.chain(excluded).filter(|net| net.contains(&addr));
        around.map(|net| net.broadcast()).max()
    }

    /// How many addresses may be assigned.
    pub fn capacity(&self) -> u128 {
        self.0.iter().fold(0, |sum, range| sum.saturating_add(self.capacity_of(range)))
    }

    /// How many addresses of one of the set's ranges may be assigned.
    pub fn capacity_of(&self, range: &Range) -> u128 {
        let gateways = self.0.iter().filter_map(|range| range.gateway).map(IpNet::from);
        let excluded = self.0.iter().flat_map(|range| range.exclude.iter().copied());
        let mut blocks: Vec<(u128, u128)> = gateways
            .chain(excluded)
            .filter(|net| Family::of_net(net) == Family::of(range.first))
            .map(|net| {
                (bits(net.network()).max(bits(range.first)), bits(net.broadcast()).min(bits(range.last)))
            })
            .collect();
        blocks.sort_unstable();
        let (mut refused, mut next) = (0, bits(range.first));
        for (first, last) in blocks {
            let first = first.max(next);
            if first <= last {
                refused += last - first + 1;
                next = last.saturating_add(1);
            }
        }
        range.len().saturating_sub(refused)
    }

    /// The family of its addresses. A set has at least one range.
    pub fn family(&self) -> Family {
        self.0.first().map_or(Family::V6, |range| Family::of(range.first))
    }
}

impl fmt::Display for Range {
    /// The slice. Without one, and with a pool: the subnet if the range is all of it, otherwise the first and
    /// last address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slice.filter(|_| self.home.is_none()) {
            Some(slice) => slice.fmt(f),
            None if (self.first, self.last) == usable(self.subnet) => self.subnet.fmt(f),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(Range::to_string).collect();
        f.write_str(&ranges.join(", "))
    }
}

fn without_host_bits(section: &Section<'_>, key: &str, net: IpNet) -> Result<(), CniError> {
    if net.addr() == net.network() {
        return Ok(());
    }
    Err(section.error(key, format_args!("{net} has host bits set: {} would be right", net.trunc())))
}

fn check_slice(section: &Section<'_>, subnet: IpNet, slice: IpNet, bounds: bool) -> Result<(), CniError> {
    without_host_bits(section, "slice", slice)?;
    if bounds {
        let why = format!("{slice} excludes rangeStart and rangeEnd: remove it or them");
        return Err(section.error("slice", why));
    }
    if !subnet.contains(&slice) {
        return Err(section.error("slice", format_args!("{slice} is not within subnet {subnet}")));
    }
    Ok(())
}

fn inside(section: &Section<'_>, key: &str, addr: IpAddr, subnet: IpNet) -> Result<(), CniError> {
    if subnet.contains(&addr) {
        return Ok(());
    }
    Err(section.error(key, format_args!("{addr} is not within subnet {subnet}")))
}

/// `exclude`: addresses and CIDRs, all within the subnet if there is one.
///
/// # Errors
/// Any other value, and host bits.
pub(crate) fn excluded(section: &Section<'_>, subnet: Option<IpNet>) -> Result<Vec<IpNet>, CniError> {
    let mut nets = Vec::new();
    for (i, text) in section.strings("exclude")?.iter().enumerate() {
        let key = format!("exclude[{i}]");
        let net = parse_cidr(text).or_else(|| parse_ip(text).map(IpNet::from));
        let right = "an address or an address with a prefix length";
        let net = net.ok_or_else(|| section.wrong(&key, &text.as_str().into(), right))?;
        without_host_bits(section, &key, net)?;
        if let Some(subnet) = subnet.filter(|subnet| !subnet.contains(&net)) {
            return Err(section.error(&key, format_args!("{net} is not within subnet {subnet}")));
        }
        nets.push(net);
    }
    Ok(nets)
}

fn gateway(
    section: &Section<'_>,
    subnet: IpNet,
    usable: (IpAddr, IpAddr),
) -> Result<Option<IpAddr>, CniError> {
    let Some(gateway) = section.ip("gateway")? else {
        return Ok((usable.0 != usable.1).then_some(usable.0));
    };
    // A v6 router may be known by its link-local address alone.
    if let (IpAddr::V6(v6), IpNet::V6(_)) = (gateway, subnet)
        && v6.is_unicast_link_local()
    {
        return Ok(Some(gateway));
    }
    inside(section, "gateway", gateway, subnet)?;
    if subnet.prefix_len() < 31 && gateway.is_ipv4() && (gateway < usable.0 || gateway > usable.1) {
        return Err(section.error("gateway", format_args!("{gateway} is not a host address of {subnet}")));
    }
    Ok(Some(gateway))
}

/// First and last address of a subnet that a host can have. IPv4 loses the network and broadcast address,
/// IPv6 the subnet-router anycast address. Point-to-point subnets (RFC 3021, RFC 6164) and single addresses
/// lose none.
fn usable(subnet: IpNet) -> (IpAddr, IpAddr) {
    let (first, last) = (subnet.network(), subnet.broadcast());
    if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
        return (first, last);
    }
    let broadcast = u128::from(first.is_ipv4());
    (address(bits(first) + 1, subnet), address(bits(last) - broadcast, subnet))
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of the subnet's family that these bits stand for.
fn address(bits: u128, subnet: IpNet) -> IpAddr {
    match (subnet, u32::try_from(bits)) {
        (IpNet::V4(_), Ok(bits)) => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(bits).into(),
    }
}

#[cfg(test)]
mod tests;
