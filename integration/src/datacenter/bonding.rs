//! The state of a bond in `/proc/net/bonding`.

/// 802.1AX port state: in sync, collecting and distributing, which together mean that frames pass.
const PASSING: u32 = 0x08 | 0x10 | 0x20;

/// The number of a bond's members that can carry traffic or stand by. In an LACP bond these are the members
/// of the active aggregate that both ends accept.
pub(super) fn ready_members(text: &str) -> usize {
    let mut sections = text.split("Slave Interface: ");
    let head = sections.next().unwrap_or_default();
    let ready = sections.filter(|section| is_ready(section)).count();
    match value(head, "Number of ports: ").and_then(|count| count.parse::<usize>().ok()) {
        Some(in_aggregate) => ready.min(in_aggregate),
        None => ready,
    }
}

fn is_ready(section: &str) -> bool {
    let states = section.lines().filter_map(|line| line.trim().strip_prefix("port state: "));
    value(section, "MII Status: ") == Some("up")
        && states.map(|state| state.parse().unwrap_or(0)).all(|state: u32| state & PASSING == PASSING)
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(key))
}

#[cfg(test)]
mod tests {
    use super::ready_members;

    #[test]
    fn members_without_carrier_do_not_count() {
        let text = "Bonding Mode: x\nMII Status: up\n\nSlave Interface: nic0\nMII Status: up\n\n\
                    Slave Interface: nic1\nMII Status: down\n";
        assert_eq!(ready_members(text), 1);
    }

    #[test]
    fn both_ends_of_an_lacp_link_must_have_taken_it_in() {
        let text = "MII Status: up\n802.3ad info\nActive Aggregator Info:\n\tNumber of ports: 2\n\n\
                    Slave Interface: nic0\nMII Status: up\nactor:\n    port state: 63\npartner:\n    port state: 63\n\n\
                    Slave Interface: nic1\nMII Status: up\nactor:\n    port state: 63\npartner:\n    port state: 7\n";
        assert_eq!(ready_members(text), 1);
        assert_eq!(ready_members(&text.replace("state: 7", "state: 61")), 2);
        assert_eq!(ready_members(&text.replace("state: 7", "state: 61").replace("ports: 2", "ports: 1")), 1);
    }
}
