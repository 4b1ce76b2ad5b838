//! The state of a bond, from `/proc/net/bonding`.

/// The state of a bond as the bonding driver prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BondState {
    /// Milliseconds between two checks of the members' carrier (miimon); 0 if off.
    pub(crate) mii_interval: u32,
    /// The same for ARP monitoring.
    pub(crate) arp_interval: u32,
    /// In active-backup mode: the member that sends.
    pub(crate) active: Option<String>,
    /// In LACP mode: the switch's MAC, the partner of the active members; zeros without a partner.
    pub(crate) partner: Option<String>,
    /// In LACP mode: the ID of the active aggregator.
    pub(crate) aggregator: Option<String>,
    /// The member NICs.
    pub(crate) members: Vec<BondMember>,
}

/// A NIC of a bond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BondMember {
    /// Interface name.
    pub(crate) name: String,
    /// MII status up.
    pub(crate) up: bool,
    /// `10000 Mbps`, or `Unknown`.
    pub(crate) speed: String,
    /// `full`, `half`, or `Unknown`.
    pub(crate) duplex: String,
    /// In LACP mode: the ID of its aggregator.
    pub(crate) aggregator: Option<String>,
}

/// The partner's MAC if no switch answers LACP.
const NO_PARTNER: &str = "00:00:00:00:00:00";

impl BondState {
    /// Parses the driver's text.
    pub(crate) fn parse(text: &str) -> BondState {
        let mut sections = text.split("Slave Interface: ");
        let head = sections.next().unwrap_or_default();
        let number = |key: &str| value(head, key).and_then(|text| text.parse().ok()).unwrap_or(0);
        let text = |section: &str, key: &str| value(section, key).unwrap_or_default().to_owned();
        let members = sections.map(|section| BondMember {
            name: section.lines().next().unwrap_or_default().trim().to_owned(),
            up: value(section, "MII Status:") == Some("up"),
            speed: text(section, "Speed:"),
            duplex: text(section, "Duplex:"),
            aggregator: value(section, "Aggregator ID:").map(str::to_owned),
        });
        BondState {
            mii_interval: number("MII Polling Interval (ms):"),
            arp_interval: number("ARP Polling Interval (ms):"),
            active: value(head, "Currently Active Slave:").map(str::to_owned),
            partner: value(head, "Partner Mac Address:").map(str::to_owned),
            aggregator: value(head, "Aggregator ID:").map(str::to_owned),
            members: members.collect(),
        }
    }

    /// The members whose link is up.
    pub(crate) fn ready(&self) -> impl Iterator<Item = &BondMember> {
        self.members.iter().filter(|member| member.up)
    }

    /// What a member does in the bond, in one word or two.
    pub(crate) fn role(&self, member: &BondMember) -> &'static str {
        let is_active = match &self.active {
            Some(active) => *active == member.name,
            None => self.aggregator.is_none() || self.aggregator == member.aggregator,
        };
        match (member.up, is_active) {
            (false, _) => "down",
            (true, true) => "active",
            (true, false) if self.active.is_some() => "backup",
            (true, false) => "not aggregated",
        }
    }

    /// Whether LACP has no partner.
    pub(crate) fn lacks_partner(&self) -> bool {
        self.partner.as_deref() == Some(NO_PARTNER)
    }
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.trim().strip_prefix(key)?.trim()))
}

#[cfg(test)]
impl BondState {
    /// A bond of nic0 and nic1 in LACP mode that lacks nothing.
    pub(crate) fn healthy() -> BondState {
        let member = |name: &str| BondMember {
            name: name.into(),
            up: true,
            speed: "10000 Mbps".into(),
            duplex: "full".into(),
            aggregator: Some("1".into()),
        };
        BondState {
            mii_interval: 100,
            arp_interval: 0,
            active: None,
            partner: Some("02:00:00:00:00:07".into()),
            aggregator: Some("1".into()),
            members: vec![member("nic0"), member("nic1")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Bonding Mode: IEEE 802.3ad Dynamic link aggregation\nMII Status: up\n\
        MII Polling Interval (ms): 50\n\n802.3ad info\nActive Aggregator Info:\n\tAggregator ID: 1\n\
        \tPartner Mac Address: 02:00:00:00:00:07\n\nSlave Interface: nic0\nMII Status: up\nSpeed: 10000 Mbps\n\
        Duplex: full\nAggregator ID: 1\n\nSlave Interface: nic1\nMII Status: down\nSpeed: Unknown\nDuplex: Unknown\n\
        Aggregator ID: 2\n";

    #[test]
    fn the_drivers_text_is_read() {
        let bond = BondState::parse(TEXT);
        assert_eq!((bond.mii_interval, bond.arp_interval, bond.lacks_partner()), (50, 0, false));
        assert_eq!(bond.aggregator.as_deref(), Some("1"));
        assert_eq!(bond.ready().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["nic0"]);
        assert_eq!(
            (bond.members[1].speed.as_str(), bond.members[1].aggregator.as_deref()),
            ("Unknown", Some("2"))
        );
        let roles: Vec<&str> = bond.members.iter().map(|member| bond.role(member)).collect();
        assert_eq!(roles, ["active", "down"]);
        let backup =
            TEXT.replace("down", "up").replace("MII Polling", "Currently Active Slave: nic1\nMII Polling");
        let bond = BondState::parse(&backup);
        let roles: Vec<&str> = bond.members.iter().map(|member| bond.role(member)).collect();
        assert_eq!(roles, ["backup", "active"]);
        assert!(BondState::parse(&TEXT.replace("02:00:00:00:00:07", NO_PARTNER)).lacks_partner());
        assert_eq!(BondState::parse("Bonding Mode: x\n"), BondState::default());
    }
}
