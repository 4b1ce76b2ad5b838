//! What a runtime says of an ADD.

use cni_conf::cni::env::Environment;

pub fn environment() -> Environment {
    let set = |name: &str| match name {
        "CNI_COMMAND" => Some("ADD".into()),
        "CNI_CONTAINERID" => Some("c".into()),
        "CNI_NETNS" => Some("/run/netns/c".into()),
        "CNI_IFNAME" => Some("eth0".into()),
        "CNI_PATH" => Some("/opt/cni/bin".into()),
        _ => None,
    };
    Environment::parse(set).unwrap()
}
