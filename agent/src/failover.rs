//! When the path from a bridge to its switches has changed: a bond sends through another member, a member or
//! an uplink has its carrier back, or the uplink has joined its bridge. Switches then send frames for pods to
//! the old port until the pods speak. Pure: announcements go in, the uplinks to announce on come out.

use std::collections::BTreeMap;

use kernel::monitor::LinkState;
use vlan_bridge::watched::Watched;

/// An uplink whose pods must be announced, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failover {
    /// The bridge.
    pub(crate) bridge: String,
    /// The bridge's port that leads to the switches.
    pub(crate) uplink: String,
    /// What has happened.
    pub(crate) cause: String,
}

/// What was last known of the links that lead from bridges to switches.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    known: BTreeMap<u32, Known>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    carrier: bool,
    active: Option<u32>,
    master: Option<u32>,
}

impl Paths {
    /// Takes over what a pass has seen of links that were not known yet, and forgets those that are gone.
    pub(crate) fn learn(&mut self, watched: &Watched) {
        let links = || {
            let uplinks = watched.bridges.iter().flat_map(|known| &known.uplinks);
            uplinks.flat_map(|uplink| [Some(&uplink.port), uplink.parent.as_ref()]).flatten()
        };
        let masters: Vec<u32> = links().map(|link| link.index).collect();
        self.known.retain(|index, known| {
            masters.contains(index) || known.master.is_some_and(|master| masters.contains(&master))
        });
        for link in links() {
            let seen = Known { carrier: link.carrier, active: None, master: link.master };
            self.known.entry(link.index).or_insert(seen);
        }
    }

    /// Takes an announced link in, and returns the uplinks whose path has changed with it.
    pub(crate) fn announced(&mut self, watched: &Watched, link: &LinkState) -> Vec<Failover> {
        let before = self.known.get(&link.index).copied();
        let now =
            Known { carrier: link.carrier && !link.gone, active: link.active_slave, master: link.master };
        let mut failovers = Vec::new();
        let mut is_on_a_path = false;
        for known in &watched.bridges {
            for uplink in &known.uplinks {
                let is_port = link.index == uplink.port.index;
                let lower = uplink.parent.as_ref().unwrap_or(&uplink.port).index;
                let is_lower = link.index == lower;
                let is_member = link.master == Some(lower) && !is_port;
                if !(is_port || is_lower || is_member) {
                    continue;
                }
                is_on_a_path = true;
                let cause = if is_port && has_joined(before, &now, known.bridge.index) {
                    format!("{} is a port of {} again", link.name, known.bridge.name)
                } else if is_lower && has_another_member(before, &now) {
                    format!("{} sends through another member", link.name)
                } else if now.carrier && before.is_none_or(|before| !before.carrier) {
                    format!("{} has its carrier back", link.name)
                } else {
                    continue;
                };
                let (bridge, uplink) = (known.bridge.name.clone(), uplink.port.name.clone());
                failovers.push(Failover { bridge, uplink, cause });
            }
        }
        if is_on_a_path {
            self.known.insert(link.index, now);
        }
        failovers
    }
}

fn has_joined(before: Option<Known>, now: &Known, bridge: u32) -> bool {
    now.master == Some(bridge) && before.is_some_and(|before| before.master != Some(bridge))
}

/// The first announcement after the start shows the member for the first time. Then it may be another one: to
/// announce the pods once too often does no harm.
fn has_another_member(before: Option<Known>, now: &Known) -> bool {
    now.active.is_some() && before.is_none_or(|before| before.active != now.active)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{BOND, BR, NIC0, NIC1, UPLINK, announced, watched};

    fn bond(active: u32) -> LinkState {
        LinkState { active_slave: Some(active), ..announced(BOND, "bond0", None) }
    }

    fn causes(paths: &mut Paths, link: &LinkState) -> Vec<String> {
        paths.announced(&watched(), link).into_iter().map(|failover| failover.cause).collect()
    }

    fn paths() -> Paths {
        let mut paths = Paths::default();
        paths.learn(&watched());
        causes(&mut paths, &bond(NIC0));
        paths
    }

    #[test]
    fn another_active_member_changes_the_path() {
        let mut paths = paths();
        assert!(causes(&mut paths, &bond(NIC0)).is_empty());
        let expected = Failover {
            bridge: "br136".into(),
            uplink: "bond0.136".into(),
            cause: "bond0 sends through another member".into(),
        };
        assert_eq!(paths.announced(&watched(), &bond(NIC1)), [expected]);
        assert!(causes(&mut paths, &bond(NIC1)).is_empty());
        let none = LinkState { active_slave: None, carrier: false, ..bond(NIC1) };
        assert!(causes(&mut paths, &none).is_empty());
        assert_eq!(causes(&mut paths, &bond(NIC1)).len(), 1);
    }

    #[test]
    fn a_carrier_that_is_back_changes_the_path() {
        let mut paths = paths();
        for (index, name, master) in
            [(BOND, "bond0", None), (UPLINK, "bond0.136", Some(BR)), (NIC1, "nic1", Some(BOND))]
        {
            let active_slave = (index == BOND).then_some(NIC0);
            let up = LinkState { active_slave, ..announced(index, name, master) };
            causes(&mut paths, &up);
            let down = LinkState { carrier: false, ..up.clone() };
            assert!(causes(&mut paths, &down).is_empty(), "{name}");
            assert_eq!(causes(&mut paths, &up), [format!("{name} has its carrier back")]);
            assert!(causes(&mut paths, &up).is_empty(), "{name}");
        }
    }

    #[test]
    fn an_uplink_that_joins_its_bridge_again_changes_the_path() {
        let mut paths = paths();
        let port = |master| announced(UPLINK, "bond0.136", master);
        assert!(causes(&mut paths, &port(Some(BR))).is_empty());
        assert!(causes(&mut paths, &port(None)).is_empty());
        assert_eq!(causes(&mut paths, &port(Some(BR))), ["bond0.136 is a port of br136 again"]);
    }

    #[test]
    fn links_of_other_programs_change_no_path_and_are_not_remembered() {
        let mut paths = paths();
        for index in 100..200 {
            let link = announced(index, "veth7", Some(77));
            assert!(causes(&mut paths, &link).is_empty());
        }
        assert_eq!(paths.known.len(), 2);
        paths.learn(&Watched::default());
        assert!(paths.known.is_empty());
    }
}
