//! Runtimes, lists, plugins and their answers to STATUS, and definitions of other programs.

use serde_json::json;

use super::super::{configuration, definitions, runtimes};
use super::{LIST, at, complaints, list, list_file, told};
use crate::definitions::ForeignRouting;
use crate::facts::Facts;

fn in_folder(facts: &mut Facts) -> &mut Vec<crate::lists::ListFile> {
    &mut facts.folders[0].1
}

fn without_pods(facts: &mut Facts) {
    facts.links.retain(|link| !vlan_bridge::ownership::is_attachment(link));
}

#[test]
fn the_runtimes() {
    let unclear = |facts: &mut Facts| facts.unclear_runtime = Some("/etc/x.toml: line 3".into());
    told(runtimes::all, unclear, "fail", &["/etc/x.toml: line 3", "fix that file"]);
    told(
        runtimes::all,
        |facts| facts.without_loopback = vec!["containerd"],
        "fail",
        &["containerd 1.7.1 has no plugin loopback in /opt/cni/bin", "containernetworking-plugins"],
    );
    let without_cri = |facts: &mut Facts| facts.runtimes[0].serves_cri = false;
    assert_eq!(complaints(runtimes::all, without_cri), [""; 0]);
}

#[test]
fn the_lists() {
    let fail = |change: fn(&mut Facts), words: &[&str]| told(configuration::lists, change, "fail", words);
    fail(
        |facts| facts.refused = vec![(LIST.into(), "mtu: 7 is wrong".into())],
        &["10-v.conflist: mtu: 7 is wrong", "vlan-bridgectl install --network FILE"],
    );
    fail(
        |facts| {
            in_folder(facts).push(super::ListFile {
                content: Err("not JSON".into()),
                ..list_file("/etc/cni/net.d/90-x.conf", json!(0))
            })
        },
        &["/etc/cni/net.d/90-x.conf: not JSON", "fix: rm /etc/cni/net.d/90-x.conf"],
    );
    fail(
        |facts| in_folder(facts)[0].misnamed = Some("/etc/cni/net.d/10-v.conf".into()),
        &["no runtime accepts it", "fix: mv /etc/cni/net.d/10-v.conflist /etc/cni/net.d/10-v.conf"],
    );
    fail(
        |facts| in_folder(facts)[0].content.as_mut().unwrap()["cniVersion"] = "1.1.0".into(),
        &["cniVersion 1.1.0", "accepts at most 1.0.0", "vlan-bridgectl install --network"],
    );
    fail(
        |facts| in_folder(facts).push(list_file("/etc/cni/net.d/20-v.conflist", list())),
        &["10-v.conflist and /etc/cni/net.d/20-v.conflist both describe network v", "remove one of them"],
    );
    fail(
        |facts| {
            without_pods(facts);
            in_folder(facts).clear();
        },
        &["no network list with vlan-bridge in /etc/cni/net.d", "fix: vlan-bridgectl install --network FILE"],
    );
    let other = json!({"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "bridge"}]});
    told(
        configuration::lists,
        |facts| in_folder(facts).insert(0, list_file("/etc/cni/net.d/05-other.conflist", other)),
        "warn",
        &[
            "05-other.conflist sorts before /etc/cni/net.d/10-v.conflist",
            "move /etc/cni/net.d/05-other.conflist",
        ],
    );
    told(
        configuration::lists,
        |facts| in_folder(facts).clear(),
        "warn",
        &["and 2 pods are attached", "vlan-bridgectl doctor --conf-dir DIR"],
    );
}

#[test]
fn the_plugins() {
    let fail = |change: fn(&mut Facts), words: &[&str]| told(configuration::plugins, change, "fail", words);
    fail(
        |facts| (facts.plugins[1].path, facts.plugins[1].version) = (None, None),
        &["vlan-bridge-ipam is not in /opt/cni/bin", "the next ADD or DEL fails", "vlan-bridgectl install"],
    );
    fail(
        |facts| facts.plugins[0].executable = false,
        &["/opt/cni/bin/vlan-bridge is not executable", "fix: chmod 0755 /opt/cni/bin/vlan-bridge"],
    );
    fail(
        |facts| facts.plugins[0].version = Some(Err("it prints nothing".into())),
        &["is another program, or does not run: it prints nothing", "fix: vlan-bridgectl install"],
    );
    let warn = |change: fn(&mut Facts), words: &[&str]| told(configuration::plugins, change, "warn", words);
    warn(
        |facts| facts.plugins[0].version = Some(Ok("0.0.1".into())),
        &["/opt/cni/bin/vlan-bridge is 0.0.1, vlan-bridgectl", "an upgrade was not completed"],
    );
    warn(
        |facts| facts.plugins[0].path = Some("/elsewhere/vlan-bridge".into()),
        &["/elsewhere/vlan-bridge is in no directory of containerd", "fix: vlan-bridgectl install"],
    );
}

#[test]
fn the_answer_to_status_is_in_the_fix() {
    told(
        configuration::status,
        |facts| facts.networks[0].status = Some(Err("bond0 is down (code 51)".into())),
        "fail",
        &[
            "the plugin is not ready for network v: bond0 is down (code 51)",
            "fix: fix this: bond0 is down (code 51) (docs/errors.md explains the code)",
        ],
    );
    let not_asked = |facts: &mut Facts| facts.networks.iter_mut().for_each(|network| network.status = None);
    assert_eq!(complaints(configuration::status, not_asked), [""; 0]);
}

#[test]
fn other_programs_definitions() {
    told(
        definitions::conflicts,
        |facts| facts.definitions.invalid = vec![("/etc/netplan/1.yaml".into(), "line 2".into())],
        "warn",
        &["/etc/netplan/1.yaml cannot be parsed: line 2", "fix: netplan generate"],
    );
    let foreign = |keeps_routes, keeps_rules| {
        move |facts: &mut Facts| {
            facts.definitions.foreign = ForeignRouting { runs: true, keeps_routes, keeps_rules };
        }
    };
    told(
        definitions::foreign,
        foreign(false, true),
        "warn",
        &["ManageForeignRoutes is on", "ManageForeignRoutes=no", "systemctl restart systemd-networkd"],
    );
    told(definitions::foreign, foreign(true, false), "warn", &["ManageForeignRoutingPolicyRules=no"]);
    assert_eq!(complaints(definitions::foreign, foreign(true, true)), [""; 0]);
    // A node without the bond has no conflict with it.
    let renamed = |facts: &mut Facts| at(facts, "eth0").name = "eth1".into();
    assert_eq!(complaints(definitions::conflicts, renamed), [""; 0]);
}
