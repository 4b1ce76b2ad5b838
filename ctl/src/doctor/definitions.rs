//! What other programs are told to do with the interfaces of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cni_conf::uplink::UplinkPort;
use vlan_bridge::ownership::is_ours;

use super::finding::{Finding, counted};
use crate::definitions::{Definition, Management, Match};
use crate::facts::Facts;

const CHECK: &str = "definitions";
/// Where an operator's files of systemd-networkd are.
const NETWORKD: &str = "/etc/systemd/network";
/// What the host's ends of pods' interfaces are called, none of which is there before the first pod.
const A_VETH: &str = "veth00000000000";

/// What an interface is to a network of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A NIC of a bond.
    Member,
    /// The bond or NIC, where its VLANs are the ports: it may well have addresses.
    Master,
    /// A port of a bridge of ours that the operator made.
    Port,
    /// A sub-interface that the plugins made.
    MadePort,
    /// A bridge that the operator made.
    Bridge,
    /// A bridge that the plugins made.
    MadeBridge,
    /// The node's end of a pod's interface; all of them are alike.
    Veth,
}

impl Role {
    fn is_made(self) -> bool {
        matches!(self, Role::MadePort | Role::MadeBridge | Role::Veth)
    }

    /// The kind of one that is not there yet.
    fn kind(self) -> &'static str {
        match self {
            Role::MadeBridge => "bridge",
            Role::Veth => "veth",
            _ => "vlan",
        }
    }
}

/// Definitions that give the interfaces of a network what they must not have, or take from them what they
/// need.
pub(super) fn fights(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (interface, role) in roles(facts) {
        let device = facts.device(interface, role.kind());
        let mut about = facts.definitions.matching(&device);
        // NetworkManager has a rule of udev's that keeps it from veths.
        about.retain(|(definition, _)| role != Role::Veth || definition.is_networkd_network());
        findings.extend(
            about.iter().filter_map(|(definition, about)| fight(interface, role, definition, *about)),
        );
        let programs: BTreeSet<&str> = about.iter().map(|(definition, _)| definition.program).collect();
        // netplan writes what networkd and NetworkManager read.
        if programs.len() > 1 && !programs.contains("netplan") {
            let programs: Vec<&str> = programs.into_iter().collect();
            let paths: Vec<String> =
                about.iter().map(|(definition, _)| definition.path.display().to_string()).collect();
            let seen = format!("{} both define {interface}: {}", programs.join(" and "), paths.join(", "));
            let why = "whichever starts last wins, and may take the interface out of its bond";
            findings.push(Finding::warn(CHECK, seen, why).fix("keep one of them"));
        }
    }
    if findings.is_empty() {
        let seen = match facts.definitions.all.len() {
            0 => "no definitions of interfaces".to_owned(),
            number => format!("{} of interfaces, none that fights", counted(number, "definition")),
        };
        findings.push(Finding::ok(CHECK, seen));
    }
    findings
}

fn fight(interface: &str, role: Role, definition: &Definition, about: Match) -> Option<Finding> {
    let Definition { program, path, .. } = definition;
    let path = path.display();
    let shown = if role == Role::Veth { "pods' interfaces on the node" } else { interface };
    let finding = if definition.addresses && role != Role::Master {
        let seen = format!("{program} gives {shown} addresses: {path}");
        let why = match role {
            Role::MadeBridge => {
                "it must carry none but what the plugins give it: others answer, or take the gateway's away"
            }
            Role::Veth => "a bridge's port must carry none, and what asks for one takes it out of the bridge",
            _ => "it must carry none: answers to the pods' VLAN would be the node's",
        };
        match about {
            Match::Yes => Finding::fail(CHECK, seen, why),
            _ => Finding::warn(CHECK, format!("{seen}, if its [Match] is about it"), why),
        }
    } else if definition.is_networkd_network()
        && definition.management == Management::Whole
        && !matches!(role, Role::Master | Role::Bridge)
    {
        let (seen, why) = match role {
            Role::MadeBridge => (
                format!("{program} manages {shown}: {path}"),
                "it takes away addresses and routes there that it did not give",
            ),
            _ => (
                format!("{program} manages {shown} and names no bridge or bond for it: {path}"),
                "it takes the interface out of the one that it is in (KeepMaster=no is the default)",
            ),
        };
        Finding::warn(CHECK, seen, why)
    } else if role.is_made() && definition.names(interface) {
        let seen = format!("{program} defines {interface}, which vlan-bridge made: {path}");
        Finding::warn(CHECK, seen, "two programs that make one interface undo each other at the next boot")
    } else {
        return None;
    };
    Some(cures(interface, role, definition).into_iter().fold(finding, Finding::fix))
}

/// What fixes it, in the form of the program that it is about.
fn cures(interface: &str, role: Role, definition: &Definition) -> Vec<String> {
    let path = definition.path.display();
    let take_out = format!("take {interface} out of {path}");
    if definition.is_networkd_network() {
        return networkd(interface, role, &definition.path);
    }
    let Some(profile) = &definition.profile else { return vec![take_out] };
    let own = match role {
        Role::MadePort | Role::MadeBridge | Role::Veth => format!(
            "printf '[keyfile]\\nunmanaged-devices+=interface-name:{interface}\\n' \
             > /etc/NetworkManager/conf.d/vlan-bridge-{interface}.conf && nmcli general reload conf"
        ),
        _ => format!("nmcli connection modify '{profile}' ipv4.method disabled ipv6.method disabled"),
    };
    vec![take_out, own]
}

/// A file that is read before the one that fights.
fn networkd(interface: &str, role: Role, path: &Path) -> Vec<String> {
    let of = if role == Role::Veth { "pods" } else { interface };
    let name = format!("00-vlan-bridge-{of}.network");
    let other = path.file_name().unwrap_or_default().to_string_lossy();
    if *other <= *name {
        let shown = path.display();
        return vec![format!("take {interface} out of {shown}; no file that is read later can overrule it")];
    }
    let (matched, body) = match role {
        Role::Veth => ("veth???????????\\nDriver=veth", "[Link]\\nUnmanaged=yes"),
        Role::MadePort | Role::MadeBridge => (interface, "[Link]\\nUnmanaged=yes"),
        _ => (interface, "[Network]\\nKeepMaster=yes\\nLinkLocalAddressing=no\\nIPv6AcceptRA=no"),
    };
    vec![format!(
        "mkdir -p {NETWORKD} && printf '[Match]\\nName={matched}\\n\\n{body}\\n' > {NETWORKD}/{name} && networkctl reload   \
         # it is read before {}",
        path.display()
    )]
}

/// systemd-networkd takes away routes and rules that are not its own (since 249).
pub(super) fn foreign(facts: &Facts) -> Vec<Finding> {
    let foreign = facts.definitions.foreign;
    let has_routes = facts.networks.iter().any(|network| network.config.network.host_access.is_some());
    if !foreign.runs || !has_routes || foreign.keeps_routes && foreign.keeps_rules {
        return Vec::new();
    }
    let mut keys = Vec::new();
    if !foreign.keeps_routes {
        keys.push("ManageForeignRoutes");
    }
    if !foreign.keeps_rules {
        keys.push("ManageForeignRoutingPolicyRules");
    }
    let seen = format!("systemd-networkd removes what others configured: {} is on", keys.join(" and "));
    let why = "at its restart the node's routes to its pods may go, and each rule that `ip rule` made";
    let lines: String = keys.iter().map(|key| format!("{key}=no\\n")).collect();
    let folder = "/etc/systemd/networkd.conf.d";
    vec![Finding::warn(CHECK, seen, why).fix(format!(
        "mkdir -p {folder} && printf '[Network]\\n{lines}' > {folder}/vlan-bridge.conf && systemctl restart systemd-networkd"
    ))]
}

/// A rule for what comes from an address, and the default route of its table, as the program that has the
/// interface writes them; none where nothing was told of it.
pub(super) fn way_back(
    facts: &Facts,
    interface: &str,
    [address, router]: [&str; 2],
    table: u32,
) -> Option<String> {
    let about = facts.definitions.matching(&facts.device(interface, "vlan"));
    let definition = about
        .iter()
        .map(|(definition, _)| *definition)
        .find(|it| it.is_networkd_network() || it.profile.is_some());
    match definition {
        Some(Definition { profile: Some(profile), .. }) => Some(format!(
            "nmcli connection modify '{profile}' +ipv4.routes '0.0.0.0/0 {router} table={table}' \
             +ipv4.routing-rules 'priority 100 from {address} table {table}' && nmcli connection up '{profile}'"
        )),
        Some(definition) => {
            let name = definition.path.file_name().unwrap_or_default().to_string_lossy();
            let folder = format!("{NETWORKD}/{name}.d");
            Some(format!(
                "mkdir -p {folder} && printf '[Route]\\nGateway={router}\\nTable={table}\\n\\n[RoutingPolicyRule]\\nFrom={address}\\nTable={table}\\n' \
                 > {folder}/vlan-bridge.conf && networkctl reload"
            ))
        }
        None => None,
    }
}

fn roles(facts: &Facts) -> BTreeMap<&str, Role> {
    let mut roles = BTreeMap::new();
    let is_made = |name: &str| facts.link(name).is_none_or(is_ours);
    for network in &facts.networks {
        let (bridge, uplink) = (network.config.network.bridge.as_str(), &network.config.network.uplink);
        if is_made(bridge) {
            roles.insert(bridge, Role::MadeBridge);
        } else if uplink.is_some() {
            roles.insert(bridge, Role::Bridge);
        }
        let Some(uplink) = uplink else { continue };
        let whole = !matches!(uplink.port, UplinkPort::SubInterface { .. });
        roles.insert(uplink.master.as_str(), if whole { Role::Port } else { Role::Master });
        let members = facts.bonds.get(&uplink.master).map(|bond| bond.members.as_slice()).unwrap_or_default();
        roles.extend(members.iter().map(|member| (member.name.as_str(), Role::Member)));
        let port = uplink.port_name();
        if port != uplink.master {
            roles.insert(port, if is_made(port) { Role::MadePort } else { Role::Port });
        }
    }
    if !facts.networks.is_empty() {
        roles.insert(facts.attachments().next().map_or(A_VETH, |link| &link.name), Role::Veth);
    }
    roles
}
