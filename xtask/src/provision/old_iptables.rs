//! iptables 1.8.7 of Debian 11, only unpacked. Programs on a node may bring their own iptables, and each
//! reads the rules of the others.

use super::{apt, once, release, unpack};
use anyhow::Result;
use std::path::PathBuf;

/// Its packages: the program, and each library that it is linked with and that this machine may have in
/// another version or not at all.
const PACKAGES: [&str; 8] = [
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libxtables12",
];

/// The folder that it is unpacked in.
pub(super) fn old_iptables() -> Result<PathBuf> {
    const RELEASE: &str = "bullseye";
    once("iptables-1.8.7", |dir| {
        // Named with its release, because apt also knows this machine's own packages.
        let packages: Vec<String> = PACKAGES.iter().map(|name| format!("{name}/{RELEASE}")).collect();
        unpack(&apt::download(&packages, &release::options(RELEASE, "deb", RELEASE)?)?, dir)
    })
}
