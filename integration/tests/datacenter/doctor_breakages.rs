//! Each way to break a node that the doctor checks.

mod netplan;

use crate::doctor::{LIST, MODULES, Scene};
use integration::poll;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

pub(crate) use netplan::NETPLAN;

/// One way to break a node, and the finding of the doctor: verdict, check, a part of the text, a part of a
/// command.
pub(crate) struct Breakage {
    pub(crate) harm: fn(&Scene<'_>),
    pub(crate) told: [&'static str; 4],
    /// `vlan-bridgectl repair` fixes the finding.
    pub(crate) is_repaired: bool,
    /// The commands that fix it, or that remove what is left after repair.
    pub(crate) fix: fn(&Scene<'_>),
}

const fn breakage(harm: fn(&Scene<'_>), fix: fn(&Scene<'_>), told: [&'static str; 4]) -> Breakage {
    Breakage { harm, told, is_repaired: false, fix }
}

const fn repaired(harm: fn(&Scene<'_>), told: [&'static str; 4]) -> Breakage {
    Breakage { harm, told, is_repaired: true, fix: |_| () }
}

pub(crate) const BREAKAGES: &[Breakage] = &[
    breakage(
        |scene| scene.ip("link set nic1 down"),
        |scene| {
            scene.ip("link set nic1 up");
            poll(Duration::from_secs(30), "both members", || scene.node.active_members() == 2);
        },
        ["warn", "member", "nic1 of bond0 has no link", "ip link set nic1 up"],
    ),
    breakage(
        |scene| scene.datacenter.tor_a().bridge("vlan del vid 136 dev lag-1"),
        |scene| scene.datacenter.tor_a().bridge("vlan add vid 136 dev lag-1"),
        ["fail", "vlan", "the gateway 172.20.56.1 does not answer br136", "allow the VLAN"],
    ),
    breakage(
        |scene| scene.ip("link set nic0 mtu 1400"),
        |scene| scene.ip("link set nic0 mtu 1500"),
        ["fail", "mtu", "bond0 has MTU 1500, nic0 below it has 1400", "ip link set nic0 mtu 1500"],
    ),
    breakage(
        |scene| scene.ip("addr add 172.20.56.9/24 dev br136"),
        |scene| scene.ip("addr del 172.20.56.9/24 dev br136"),
        ["warn", "addresses", "br136 has the address 172.20.56.9/24", "ip addr del 172.20.56.9/24 dev br136"],
    ),
    breakage(
        |scene| scene.ip("addr add 10.9.0.1/24 dev nic0"),
        |scene| scene.ip("addr del 10.9.0.1/24 dev nic0"),
        ["warn", "addresses", "nic0 has the address 10.9.0.1/24", "ip addr del 10.9.0.1/24 dev nic0"],
    ),
    breakage(
        |scene| scene.ip("route add default dev br136 metric 9"),
        |scene| scene.ip("route del default dev br136 metric 9"),
        ["fail", "addresses", "a default route uses br136", "ip route del default dev br136"],
    ),
    repaired(
        |scene| scene.node.set_sysctl("net/ipv6/conf/bond0.136/accept_ra", "2"),
        [
            "fail",
            "accept_ra",
            "bond0.136 accepts router advertisements",
            "sysctl -w net.ipv6.conf.bond0/136.accept_ra=0",
        ],
    ),
    repaired(
        |scene| scene.node.set_sysctl("net/ipv6/conf/br136/accept_ra", "2"),
        [
            "fail",
            "accept_ra",
            "br136 accepts router advertisements",
            "sysctl -w net.ipv6.conf.br136.accept_ra=0",
        ],
    ),
    breakage(
        |scene| scene.node.set_sysctl("net/ipv4/conf/all/log_martians", "1"),
        |scene| scene.node.set_sysctl("net/ipv4/conf/all/log_martians", "0"),
        ["warn", "settings", "log_martians is on", "sysctl -w net.ipv4.conf.all.log_martians=0"],
    ),
    Breakage {
        // Pods from before the policy have no rule.
        harm: |scene| {
            scene.node.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
            scene.node.nft("table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}");
        },
        told: [
            "fail",
            "forward",
            "chain FORWARD of table ip filter drops",
            "sysctl -w net.bridge.bridge-nf-call-iptables=0",
        ],
        is_repaired: true,
        fix: |scene| scene.node.nft("delete table ip filter"),
    },
    Breakage {
        // A rule of an earlier release after iptables 1.8.7 or older has saved and restored it.
        harm: |scene| {
            scene.node.nft(
                "table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy accept;\n \
                            accept comment \"vlan-bridge: pods\"\n }\n}",
            );
        },
        told: [
            "fail",
            "forward",
            "in chain FORWARD of table ip filter accepts everything",
            "vlan-bridgectl repair",
        ],
        is_repaired: true,
        fix: |scene| scene.node.nft("delete table ip filter"),
    },
    repaired(
        |scene| scene.node.nft("delete table inet vlan-bridge-uplinks"),
        ["fail", "forward", "table inet vlan-bridge-uplinks has no rule for br136", "vlan-bridgectl repair"],
    ),
    repaired(
        // The state of pods that a release without such a table attached.
        |scene| {
            scene.node.nft("delete table inet vlan-bridge-uplinks");
            let folder = format!("/run/vlan-bridge/uplinks/{}", scene.node.cookie());
            fs::remove_dir_all(folder).unwrap();
        },
        ["fail", "forward", "table inet vlan-bridge-uplinks has no rule for br136", "vlan-bridgectl repair"],
    ),
    repaired(
        |scene| scene.node.nft("flush ruleset"),
        ["fail", "guard", "no guard for veth", "vlan-bridgectl repair"],
    ),
    repaired(
        |scene| scene.node.nft("delete table bridge vlan-bridge"),
        ["fail", "guard", "no guard for veth", "vlan-bridgectl repair"],
    ),
    repaired(
        |scene| scene.ip("link set bond0.136 nomaster"),
        ["fail", "bridge", "bond0.136 is not a port of br136", "ip link set bond0.136 master br136 up"],
    ),
    repaired(|scene| scene.ip("link set bond0.136 down"), ["fail", "bridge", "bond0.136 is down", ""]),
    repaired(|scene| scene.ip("link del bond0.136"), ["fail", "bridge", "bond0.136", ""]),
    repaired(
        |scene| scene.ip("link del br136"),
        ["fail", "ports", "1 pod is in no bridge", "vlan-bridgectl repair"],
    ),
    repaired(
        |scene| scene.ip("link set br136 down"),
        ["fail", "bridge", "br136 is down", "ip link set br136 up"],
    ),
    breakage(
        |scene| {
            let mut list = scene.list();
            list["name"] = json!("taken");
            list["plugins"][0]["bridge"] = json!("br137");
            scene.ctl.write("/etc/cni/net.d/90-taken.conflist", &list.to_string());
        },
        |scene| fs::remove_file(scene.ctl.path("/etc/cni/net.d/90-taken.conflist")).unwrap(),
        ["fail", "status", "not ready for network taken: ", "fix this: "],
    ),
    breakage(
        |scene| scene.ip("link set br136 down"),
        |scene| {
            scene.ip("link set br136 up");
            // The routes to the pods are gone with the interface.
            scene.apply_fixes("hostaccess", 2);
        },
        ["fail", "bridge", "br136 is down", "ip link set br136 up"],
    ),
    breakage(
        |scene| scene.ctl.write(MODULES, "bonding\n#8021q\nveth\nbridge\n"),
        |scene| scene.ctl.write(MODULES, "bonding\n8021q\nveth\nbridge\n"),
        [
            "warn",
            "modules",
            "8021q present, but in no file of modules-load.d",
            "> /etc/modules-load.d/vlan-bridge.conf",
        ],
    ),
    breakage(
        |scene| scene.ctl.write("/etc/network/interfaces", "auto nic0\niface nic0 inet dhcp\n"),
        |scene| {
            scene.ctl.write("/etc/network/interfaces", "iface bond0.51 inet static\n address 10.51.0.11/24\n")
        },
        ["fail", "definitions", "ifupdown gives nic0 addresses: /etc/network/interfaces", "remove nic0 from"],
    ),
    breakage(
        |scene| {
            scene.ctl.write("/etc/sysconfig/network-scripts/ifcfg-nic1", "DEVICE=nic1\nIPADDR=10.0.0.1\n")
        },
        |scene| scene.ctl.write("/etc/sysconfig/network-scripts/ifcfg-nic1", "DEVICE=nic1\nMASTER=bond0\n"),
        ["fail", "definitions", "ifcfg gives nic1 addresses", "ifcfg-nic1"],
    ),
    breakage(
        |scene| {
            scene.ctl.write("/etc/systemd/network/all.network", "[Match]\nName=br*\n[Network]\nDHCP=yes\n")
        },
        |scene| {
            scene.ctl.write("/etc/systemd/network/all.network", "[Match]\nName=eth*\n[Network]\nDHCP=yes\n")
        },
        ["fail", "definitions", "systemd-networkd gives br136 addresses", "all.network"],
    ),
    breakage(
        |scene| {
            scene.ctl.write(
                "/etc/NetworkManager/system-connections/b.nmconnection",
                "[connection]\ninterface-name=br136\n[ipv4]\nmethod=disabled\n[ipv6]\nmethod=disabled\n",
            );
        },
        |scene| scene.ctl.write("/etc/NetworkManager/system-connections/b.nmconnection", ""),
        [
            "warn",
            "definitions",
            "NetworkManager also creates br136, which vlan-bridge created",
            "remove br136 from",
        ],
    ),
    breakage(
        |scene| {
            scene.ctl.write("/etc/cni/net.d/05-other.conf", "{\"name\": \"other\", \"type\": \"bridge\"}")
        },
        |scene| fs::remove_file(scene.ctl.path("/etc/cni/net.d/05-other.conf")).unwrap(),
        ["warn", "lists", "05-other.conf sorts before /etc/cni/net.d/10-vlan136.conflist", "move "],
    ),
    breakage(
        |scene| scene.ctl.write("/etc/cni/net.d/90-torn.conflist", "{"),
        |scene| fs::remove_file(scene.ctl.path("/etc/cni/net.d/90-torn.conflist")).unwrap(),
        ["fail", "lists", "90-torn.conflist: ", "rm /etc/cni/net.d/90-torn.conflist"],
    ),
    breakage(
        |scene| scene.ctl.write("/etc/cni/net.d/90-again.conflist", &scene.ctl.read(LIST)),
        |scene| fs::remove_file(scene.ctl.path("/etc/cni/net.d/90-again.conflist")).unwrap(),
        ["fail", "lists", "both describe network vlan136", "remove one"],
    ),
    breakage(
        |scene| {
            let mut list = scene.list();
            list["name"] = json!("second");
            list["plugins"][0]["uplink"]["vlan"] = json!(5000);
            scene.ctl.write("/etc/cni/net.d/90-second.conflist", &list.to_string());
        },
        |scene| fs::remove_file(scene.ctl.path("/etc/cni/net.d/90-second.conflist")).unwrap(),
        ["fail", "lists", "90-second.conflist: uplink.vlan: 5000", "vlan-bridgectl install"],
    ),
    breakage(
        |scene| scene.ctl.program("containerd", "containerd x v1.6.20"),
        |scene| fs::remove_file(scene.ctl.path("bin/containerd")).unwrap(),
        ["fail", "lists", "10-vlan136.conflist: cniVersion 1.1.0", "vlan-bridgectl install"],
    ),
    breakage(
        |scene| set_mode(scene, 0o644),
        |scene| set_mode(scene, 0o755),
        ["fail", "plugins", "/opt/cni/bin/vlan-bridge-ipam is not executable", "chmod 0755"],
    ),
    breakage(
        |scene| {
            let path = scene.ctl.path("/opt/cni/bin/vlan-bridge-ipam");
            fs::rename(&path, path.with_extension("kept")).unwrap();
        },
        |scene| {
            let path = scene.ctl.path("/opt/cni/bin/vlan-bridge-ipam");
            fs::rename(path.with_extension("kept"), &path).unwrap();
        },
        ["fail", "plugins", "vlan-bridge-ipam is not in /opt/cni/bin", "vlan-bridgectl install"],
    ),
    breakage(
        |scene| {
            let path = scene.ctl.path("/opt/cni/bin/vlan-bridge-ipam");
            fs::rename(&path, path.with_extension("kept")).unwrap();
            scene.ctl.write("/opt/cni/bin/vlan-bridge-ipam", "#!/bin/sh\necho other 1.0\n");
            set_mode(scene, 0o755);
        },
        |scene| {
            let path = scene.ctl.path("/opt/cni/bin/vlan-bridge-ipam");
            fs::rename(path.with_extension("kept"), &path).unwrap();
        },
        ["fail", "plugins", "vlan-bridge-ipam is another program", "vlan-bridgectl install"],
    ),
    breakage(
        |scene| scene.lease(25, "nobody-knows\r\neth0"),
        |scene| scene.free(25),
        [
            "warn",
            "ipam",
            "172.20.56.25 is held by",
            "vlan-bridge-ipam release 172.20.56.25 --network vlan136",
        ],
    ),
    breakage(
        |scene| (17..32).for_each(|last| scene.lease(last, "crowd\r\neth0")),
        |scene| (17..32).for_each(|last| scene.free(last)),
        ["fail", "ipam", "16 used", "give the node a larger slice"],
    ),
    breakage(
        |scene| scene.datacenter.router().ip("addr add 172.20.56.16/24 dev trunk.136"),
        |scene| scene.datacenter.router().ip("addr del 172.20.56.16/24 dev trunk.136"),
        ["fail", "duplicates", "172.20.56.16 is in use by", "ipam.exclude"],
    ),
    breakage(
        |scene| scene.datacenter.router().ip("addr add 172.20.56.20/24 dev trunk.136"),
        |scene| scene.datacenter.router().ip("addr del 172.20.56.20/24 dev trunk.136"),
        ["fail", "duplicates", "172.20.56.20 is in use by", "compare the nodes' slices"],
    ),
    breakage(
        |scene| {
            ["n1-0", "n1-1"].iter().for_each(|port| {
                scene.datacenter.tor_a().ip(&format!("link set {port} nomaster\nlink set {port} up"))
            })
        },
        |scene| {
            for port in ["n1-0", "n1-1"] {
                scene
                    .datacenter
                    .tor_a()
                    .ip(&format!("link set {port} down\nlink set {port} master lag-1\nlink set {port} up"));
            }
            poll(Duration::from_secs(60), "LACP", || scene.node.active_members() == 2);
            scene.node.wait_for("10.51.0.1");
        },
        ["fail", "bond", "bond0 has no LACP partner", "one LACP group"],
    ),
];

/// The same on a trunk with services, where br_netfilter is on. That check also has a line for the node's
/// other addresses.
pub(crate) const TRUNK_BREAKAGES: &[Breakage] = &[
    breakage(
        |scene| {
            for name in ["all", "default", "br0", "br0.136", "bond0", "bond0.51"] {
                scene.node.set_sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "1");
            }
        },
        |scene| scene.apply_fixes("rp_filter", 2),
        [
            "fail",
            "rp_filter",
            "br0 has strict rp_filter, and its pods use services or host ports",
            "sysctl -w net.ipv4.conf.br0.rp_filter=2",
        ],
    ),
    repaired(
        |scene| scene.node.set_sysctl("net/ipv4/conf/br0/rp_filter", "1"),
        [
            "fail",
            "rp_filter",
            "br0 has strict rp_filter, and its pods use services or host ports",
            "br0.rp_filter=2",
        ],
    ),
    repaired(
        |scene| scene.ip("addr flush dev br0"),
        [
            "fail",
            "rp_filter",
            "br0 has no address, and its pods use services or host ports",
            "addr add 192.0.0.8/32 dev br0",
        ],
    ),
    breakage(
        |scene| scene.ip("addr flush dev br0"),
        |scene| scene.apply_fixes("rp_filter", 2),
        [
            "fail",
            "rp_filter",
            "br0 has no address, and its pods use services or host ports",
            "ip addr add 192.0.0.8/32 dev br0",
        ],
    ),
];

fn set_mode(scene: &Scene<'_>, mode: u32) {
    let path = scene.ctl.path("/opt/cni/bin/vlan-bridge-ipam");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
