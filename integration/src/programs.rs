//! The paths of the programs under test. `cargo xtask test` builds and fetches them and passes the paths in
//! the environment.

use std::path::PathBuf;

/// The folder of the product's binaries (`VLAN_BRIDGE_BIN`).
pub fn product() -> PathBuf {
    from_environment("VLAN_BRIDGE_BIN", "the folder with vlan-bridge, vlan-bridge-ipam and vlan-bridgectl")
}

/// The folder of the reference plugins (`CNI_PEERS`).
pub fn peers() -> PathBuf {
    from_environment("CNI_PEERS", "the folder with the reference plugins")
}

/// The client over libcni (`CNI_CLIENT`).
pub fn client() -> PathBuf {
    from_environment("CNI_CLIENT", "the client built over libcni")
}

/// cnitool (`CNITOOL`).
pub(crate) fn cnitool() -> PathBuf {
    from_environment("CNITOOL", "the tool of libcni's authors to try plugins with")
}

/// The folder of the container runtimes' unpacked packages and of the image for them (`CNI_RUNTIMES`).
pub(crate) fn runtimes() -> PathBuf {
    from_environment("CNI_RUNTIMES", "the folder with containerd, containerd-sid, podman and pod.tar")
}

/// The folder of the unpacked iptables 1.8.7 (`IPTABLES_OLD`).
pub fn old_iptables() -> PathBuf {
    from_environment("IPTABLES_OLD", "the folder with the unpacked packages of iptables 1.8.7")
}

/// The folder of firewalld's unpacked packages (`FIREWALLD`).
pub(crate) fn firewalld() -> PathBuf {
    from_environment("FIREWALLD", "the folder with the unpacked packages of firewalld")
}

/// The folder of etcd and etcdctl (`ETCD`).
pub(crate) fn etcd() -> PathBuf {
    from_environment("ETCD", "the folder with etcd and etcdctl")
}

/// Prometheus' tool that checks and tests rules (`PROMTOOL`).
pub fn promtool() -> PathBuf {
    from_environment("PROMTOOL", "promtool of the unpacked package of Prometheus")
}

/// The archive of the product's own image (`VLAN_BRIDGE_IMAGE`).
pub(crate) fn image() -> PathBuf {
    from_environment("VLAN_BRIDGE_IMAGE", "the archive of the image with the product's binaries")
}

/// The folder of Kubernetes' programs and etcd (`CNI_KUBERNETES`).
pub fn kubernetes() -> PathBuf {
    from_environment(
        "CNI_KUBERNETES",
        "the folder with Kubernetes' programs, which `cargo xtask test-k8s` builds",
    )
}

/// One of the reference plugins.
pub fn peer(name: &str) -> PathBuf {
    peers().join(name)
}

/// A plugin by its `type`: ours first, then the reference's, as a runtime searches its path.
pub fn plugin(name: &str) -> PathBuf {
    let own = product().join(name);
    if own.exists() { own } else { peer(name) }
}

/// The plugin folders, in the form of `CNI_PATH`.
pub(crate) fn search_path() -> String {
    format!("{}:{}", product().display(), peers().display())
}

fn from_environment(name: &str, what: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(path) => path.into(),
        None => panic!("{name} is not set: it names {what}. Run the tests with `cargo xtask test`"),
    }
}
