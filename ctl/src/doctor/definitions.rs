//! Other programs' configuration of the networks' interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cni_conf::uplink::UplinkPort;
use vlan_bridge::ownership::is_ours;

use super::finding::{Finding, counted};
use crate::definitions::{Applies, Definition, Management};
use crate::facts::Facts;

const CHECK: &str = "definitions";
/// The directory for the operator's files of systemd-networkd.
const NETWORKD: &str = "/etc/systemd/network";
/// A name like those of the pods' host veths, which do not exist before the first pod.
const VETH_EXAMPLE: &str = "veth00000000000";

/// The role of an interface in a vlan-bridge network.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A NIC of a bond.
    Member,
    /// The bond or NIC below a VLAN sub-interface. It may have addresses.
    Master,
    /// A bridge port that the operator created.
    Port,
    /// A sub-interface that the plugins created.
    MadePort,
    /// A bridge that the operator created.
    Bridge,
    /// A bridge that the plugins created.
    MadeBridge,
    /// The host end of a pod's veth. One stands for all.
    Veth,
}

impl Role {
    fn is_made(self) -> bool {
        matches!(self, Role::MadePort | Role::MadeBridge | Role::Veth)
    }

    /// The kind of an interface that does not exist yet.
    fn kind(self) -> &'static str {
        match self {
            Role::MadeBridge => "bridge",
            Role::Veth => "veth",
            _ => "vlan",
        }
    }
}

/// Definitions that give the interfaces of a network addresses, or take them out of their bridge or bond.
pub(super) fn conflicts(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.definitions.invalid.iter().map(invalid).collect();
    for (interface, role) in roles(facts) {
        let device = facts.device(interface, role.kind());
        let mut matching = facts.definitions.matching(&device);
        // A udev rule of NetworkManager excludes veths.
        matching.retain(|(definition, _)| role != Role::Veth || definition.is_networkd_network());
        findings.extend(
            matching
                .iter()
                .filter_map(|(definition, matching)| conflict(interface, role, definition, *matching)),
        );
        let programs: BTreeSet<&str> = matching.iter().map(|(definition, _)| definition.program).collect();
        // netplan generates the files of networkd and NetworkManager.
        if programs.len() > 1 && !programs.contains("netplan") {
            let programs: Vec<&str> = programs.into_iter().collect();
            let paths: Vec<String> =
                matching.iter().map(|(definition, _)| definition.path.display().to_string()).collect();
            let seen = format!("{} both configure {interface}: {}", programs.join(" and "), paths.join(", "));
            let why = "the program that starts last wins, and may remove the interface from its bond";
            findings.push(Finding::warn(CHECK, seen, why).fix("keep one of them"));
        }
    }
    if findings.is_empty() {
        let seen = match facts.definitions.all.len() {
            0 => "no definitions of interfaces".to_owned(),
            number => format!("{} of interfaces, no conflicts", counted(number, "definition")),
        };
        findings.push(Finding::ok(CHECK, seen));
    }
    findings
}

fn invalid((path, error): &(PathBuf, String)) -> Finding {
    let seen = format!("{} cannot be parsed: {error}", path.display());
    Finding::warn(CHECK, seen, "nobody knows which interfaces it configures").fix("netplan generate")
}

fn conflict(interface: &str, role: Role, definition: &Definition, matching: Applies) -> Option<Finding> {
    let Definition { program, path, .. } = definition;
    let path = path.display();
    let shown = if role == Role::Veth { "pods' interfaces on the node" } else { interface };
    let finding = if definition.addresses && role != Role::Master {
        let seen = format!("{program} gives {shown} addresses: {path}");
        let why = match role {
            Role::MadeBridge => {
                "only the plugins may give it addresses: another one answers to pods, or replaces the gateway's"
            }
            Role::Veth => {
                "a bridge port must have none, and the program takes it out of the bridge to configure one"
            }
            _ => "it must have none: the node would answer on the pods' VLAN",
        };
        match matching {
            Applies::Yes => Finding::fail(CHECK, seen, why),
            _ => Finding::warn(CHECK, format!("{seen}, if its [Match] applies"), why),
        }
    } else if definition.is_networkd_network()
        && definition.management == Management::Whole
        && !matches!(role, Role::Master | Role::Bridge)
    {
        let (seen, why) = match role {
            Role::MadeBridge => (
                format!("{program} manages {shown}: {path}"),
                "it removes addresses and routes that it did not configure",
            ),
            _ => (
                format!("{program} manages {shown} without its bridge or bond: {path}"),
                "it takes the interface out of its bridge or bond (KeepMaster=no is the default)",
            ),
        };
        Finding::warn(CHECK, seen, why)
    } else if role.is_made() && definition.names(interface) {
        let seen = format!("{program} also creates {interface}, which vlan-bridge created: {path}");
        Finding::warn(CHECK, seen, "at the next boot the two programs create the interface differently")
    } else {
        return None;
    };
    Some(fixes(interface, role, definition).into_iter().fold(finding, Finding::fix))
}

/// The fixes, in the syntax of the program.
fn fixes(interface: &str, role: Role, definition: &Definition) -> Vec<String> {
    let path = definition.path.display();
    let take_out = format!("remove {interface} from {path}");
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

/// A .network file that is read before the conflicting one.
fn networkd(interface: &str, role: Role, path: &Path) -> Vec<String> {
    let of = if role == Role::Veth { "pods" } else { interface };
    let name = format!("00-vlan-bridge-{of}.network");
    let other = path.file_name().unwrap_or_default().to_string_lossy();
    if *other <= *name {
        let shown = path.display();
        return vec![format!(
            "remove {interface} from {shown}; a file that is read later cannot override it"
        )];
    }
    let (matched, body) = match role {
        Role::Veth => ("veth???????????\\nDriver=veth", "[Link]\\nUnmanaged=yes"),
        Role::MadePort | Role::MadeBridge => (interface, "[Link]\\nUnmanaged=yes"),
        _ => (interface, "[Network]\\nKeepMaster=yes\\nLinkLocalAddressing=no\\nIPv6AcceptRA=no"),
    };
    vec![format!(
        "mkdir -p {NETWORKD} && printf '[Match]\\nName={matched}\\n\\n{body}\\n' > {NETWORKD}/{name} && networkctl reload   \
         # read before {}",
        path.display()
    )]
}

/// systemd-networkd removes foreign routes and rules (since 249).
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
    let seen = format!("systemd-networkd removes foreign routes and rules: {} is on", keys.join(" and "));
    let why = "its restart may remove the node's routes to its pods, and all rules that `ip rule` added";
    let lines: String = keys.iter().map(|key| format!("{key}=no\\n")).collect();
    let folder = "/etc/systemd/networkd.conf.d";
    vec![Finding::warn(CHECK, seen, why).fix(format!(
        "mkdir -p {folder} && printf '[Network]\\n{lines}' > {folder}/vlan-bridge.conf && systemctl restart systemd-networkd"
    ))]
}

/// The command that adds a source rule and the default route of its table to the configuration of the
/// program that manages the interface; none if no program does.
pub(super) fn policy_routing_fix(
    facts: &Facts,
    interface: &str,
    [address, router]: [&str; 2],
    table: u32,
) -> Option<String> {
    let matching = facts.definitions.matching(&facts.device(interface, "vlan"));
    let definition = matching
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
        roles.insert(facts.attachments().next().map_or(VETH_EXAMPLE, |link| &link.name), Role::Veth);
    }
    roles
}
