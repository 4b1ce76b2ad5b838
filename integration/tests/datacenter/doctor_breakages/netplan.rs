//! netplan files that break a network of the plugin.

use super::{Breakage, breakage};

pub(crate) const NETPLAN: &[Breakage] = &[
    breakage(
        |scene| {
            scene.ctl.write(
                "/etc/netplan/a.yaml",
                "network:\n  vlans:\n    bond0.136:\n      id: 136\n      link: bond0\n      addresses: [172.20.56.9/24]\n",
            );
        },
        |scene| {
            scene.ctl.write(
                "/etc/netplan/a.yaml",
                "network:\n  bonds:\n    bond0:\n      interfaces: [nic0, nic1]\n",
            )
        },
        [
            "fail",
            "definitions",
            "netplan gives bond0.136 addresses: /etc/netplan/a.yaml",
            "remove bond0.136 from",
        ],
    ),
    breakage(
        |scene| {
            scene.ctl.write(
                "/etc/netplan/a.yaml",
                "network: {vlans: {sub: {match: {name: \"bond0.13?\"}, dhcp4: yes}}}\n",
            );
        },
        |scene| {
            scene
                .ctl
                .write("/etc/netplan/a.yaml", "network: {vlans: {sub: {match: {name: other}, dhcp4: yes}}}\n")
        },
        [
            "fail",
            "definitions",
            "netplan gives bond0.136 addresses: /etc/netplan/a.yaml",
            "remove bond0.136 from",
        ],
    ),
    breakage(
        |scene| scene.ctl.write("/etc/netplan/a.yaml", "network: [\n"),
        |scene| scene.ctl.write("/etc/netplan/a.yaml", "network: {}\n"),
        ["warn", "definitions", "/etc/netplan/a.yaml cannot be parsed: ", "netplan generate"],
    ),
];
