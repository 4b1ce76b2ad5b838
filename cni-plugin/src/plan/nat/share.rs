//! Host ports that one container has on several networks; podman, for example, publishes the same ports on
//! each network. As with the reference `portmap`, a port leads to the first network that had it, and to the
//! next one when the first is detached.

use std::collections::BTreeMap;

use kernel::nft::Element;

use super::ruleset::{ADDRESS_PORTS, PORTS};
use super::{elements, localhost};
use crate::record::NatRecord;

/// The maps that have an element for each host port.
pub(super) const PORT_MAPS: [&str; 6] =
    [PORTS[0], PORTS[1], ADDRESS_PORTS[0], ADDRESS_PORTS[1], localhost::PORTS, localhost::ADDRESS_PORTS];

/// Whether an element is for a host port.
pub fn is_port(element: &Element) -> bool {
    PORT_MAPS.contains(&element.set)
}

/// Whether both are attachments of one container.
pub fn are_siblings(one: &NatRecord, other: &NatRecord) -> bool {
    one.pod.container_id == other.pod.container_id && one.pod.netns == other.pod.netns
}

/// Notes the attachment that gets the holder's ports when the holder is removed. Returns false if that is
/// noted already.
pub fn follow(holder: &mut NatRecord, follower: &NatRecord) -> bool {
    let veth = follower.pod.attachment().host_interface();
    let is_new = !holder.followers.contains(&veth);
    if is_new {
        holder.followers.push(veth);
    }
    is_new
}

/// The elements of several attachments. For a port that siblings share there is one element. It belongs to
/// the first sibling, unless another one is known to precede it. The others follow.
pub fn shared_elements(records: &mut [NatRecord]) -> Vec<Element> {
    let mut all: Vec<Element> = Vec::new();
    let mut taken: BTreeMap<(&'static str, Vec<u8>), (usize, usize)> = BTreeMap::new();
    for index in 0..records.len() {
        for element in elements(&records[index]) {
            let key = (element.set, element.key.clone());
            let of_sibling = |(_, first): &&(usize, usize)| {
                is_port(&element) && are_siblings(&records[*first], &records[index])
            };
            let Some(&(place, first)) = taken.get(&key).filter(of_sibling) else {
                taken.entry(key).or_insert((all.len(), index));
                all.push(element);
                continue;
            };
            let (holder, next) = (&records[first], &records[index]);
            let is_before = |one: &NatRecord, other: &NatRecord| {
                one.followers.contains(&other.pod.attachment().host_interface())
            };
            if is_before(next, holder) && !is_before(holder, next) {
                all[place] = element;
                taken.insert(key, (place, index));
            } else {
                let next = next.clone();
                follow(&mut records[first], &next);
            }
        }
    }
    all
}
