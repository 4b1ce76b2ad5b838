//! CHECK passes while an attachment is as ADD left it. Otherwise it names the difference.

pub(crate) mod gc;
pub(crate) mod routes;
pub(crate) mod status;

use integration::{AddResult, Pod, Site};
use serde_json::{Value, json};
use std::fs;

/// An attached pod and its facts.
pub(crate) struct Attached {
    site: Site,
    list: Value,
    pub(crate) pod: Pod,
    result: AddResult,
}

impl Attached {
    pub(crate) fn new(change: impl FnOnce(&mut Value)) -> Attached {
        let site = Site::new();
        let mut list = site.list();
        change(&mut list["plugins"][0]);
        let pod = Pod::new();
        let result = site.node.plugin(&list).add(&pod.eth0()).result();
        Attached { site, list, pod, result }
    }

    /// The veth's end in the node.
    fn host(&self) -> &str {
        self.result.host_interface()
    }

    fn check(&self) -> integration::Outcome {
        self.site.node.plugin(&self.list).check(&self.pod.eth0(), &self.result)
    }

    #[track_caller]
    pub(crate) fn passes(&self) {
        let outcome = self.check().expect_ok();
        assert_eq!(outcome.stdout, "");
    }
}

/// A change without the plugin, and the text that CHECK's message must have.
pub(crate) type Tampering = (&'static str, fn(&Attached), &'static [&'static str]);

#[track_caller]
pub(crate) fn fails_after(rows: &[Tampering], change: fn(&mut Value)) {
    for (what, tamper, named) in rows {
        let attached = Attached::new(change);
        attached.passes();
        tamper(&attached);
        let outcome = attached.check();
        assert!(!outcome.ok(), "{what}: CHECK passes");
        assert_eq!(outcome.error_code(), 101, "{what}: {outcome}");
        let text = outcome.error_text();
        for part in *named {
            let part = part.replace("HOST", attached.host());
            assert!(text.contains(&part), "{what}: {part} is not in {text:?}");
        }
    }
}

#[test]
fn what_was_tampered_with_in_the_pod_is_named() {
    let rows: [Tampering; 8] = [
        ("address gone", |a| a.pod.ip("addr del 172.20.56.16/24 dev eth0"), &["eth0", "172.20.56.16/24"]),
        (
            "another prefix",
            |a| a.pod.ip("addr add 172.20.56.16/25 dev eth0\naddr del 172.20.56.16/24 dev eth0"),
            &["172.20.56.16/24"],
        ),
        ("route gone", |a| a.pod.ip("route del default"), &["0.0.0.0/0", "172.20.56.1"]),
        (
            "another gateway",
            |a| a.pod.ip("route replace default via 172.20.56.9"),
            &["0.0.0.0/0", "172.20.56.1"],
        ),
        (
            "another MAC",
            |a| a.pod.ip("link set eth0 address 02:00:00:00:00:66"),
            &["eth0", "02:00:00:00:00:66"],
        ),
        ("down", |a| a.pod.ip("link set eth0 down"), &["interface eth0 is down"]),
        (
            "renamed",
            |a| a.pod.ip("link set eth0 down\nlink set eth0 name eth9"),
            &["interface eth0 is gone from the container"],
        ),
        (
            "another interface in its place",
            |a| a.pod.ip("link del eth0\nlink add eth0 type bridge\nlink set eth0 up"),
            &["the node's end of eth0 is gone"],
        ),
    ];
    fails_after(&rows, |_| {});
}

#[test]
fn what_was_tampered_with_in_the_node_is_named() {
    let rows: [Tampering; 8] = [
        ("no master", |a| a.site.node.ip(&format!("link set {} nomaster", a.host())), &["HOST", "br136"]),
        (
            "another master",
            |a| a.site.node.ip(&format!("link add other type bridge\nlink set {} master other", a.host())),
            &["HOST", "br136"],
        ),
        ("down", |a| a.site.node.ip(&format!("link set {} down", a.host())), &["HOST is down"]),
        (
            "another MAC",
            |a| a.site.node.ip(&format!("link set {} address 02:00:00:00:00:66", a.host())),
            &["HOST", "02:00:00:00:00:66"],
        ),
        (
            "another peer",
            |a| {
                let pod = a.pod.name();
                let mac = a.result.mac();
                a.site.node.ip(&format!(
                    "link del {host}\nlink add {host} master br136 type veth peer name spare\nlink set {host} up\n\
                     link add loose type veth peer name eth0 address {mac} netns {pod}\n",
                    host = a.host()
                ));
                a.pod.ip(
                    "link set eth0 up\naddr add 172.20.56.16/24 dev eth0\nroute add default via 172.20.56.1",
                );
            },
            &["loose", "br136"],
        ),
        ("no bridge", |a| a.site.node.ip("link del br136"), &["br136"]),
        ("bridge down", |a| a.site.node.ip("link set br136 down"), &["br136"]),
        ("no uplink", |a| a.site.node.ip("link set nic0 nomaster"), &["nic0", "br136"]),
    ];
    fails_after(&rows, |_| {});
}

#[test]
fn a_bridge_that_should_be_promiscuous_is_looked_at() {
    let rows: [Tampering; 1] =
        [("not promiscuous", |a| a.site.node.ip("link set br136 promisc off"), &["br136", "romisc"])];
    fails_after(&rows, |conf| conf["promiscMode"] = json!(true));
}

#[test]
fn a_lease_that_is_gone_is_ipams_to_say() {
    let attached = Attached::new(|_| {});
    attached.passes();
    let lease = attached.site.node.data_dir().join(Site::NETWORK).join("172.20.56.16");
    let held = fs::read_to_string(&lease).unwrap();
    assert!(held.contains(attached.pod.id()), "{held}");
    fs::write(&lease, held.replace(attached.pod.id(), "somebody-else")).unwrap();
    assert!(!attached.check().ok(), "another container has the address");
    fs::remove_file(&lease).unwrap();
    let outcome = attached.check();
    assert!(!outcome.ok(), "{outcome}");
    assert!(outcome.error_text().contains(attached.pod.id()), "{outcome}");
}

#[test]
fn what_others_may_change_does_not_fail_it() {
    type Change = (&'static str, fn(&Attached));
    let rows: [Change; 5] = [
        ("more addresses and routes", |a| {
            a.pod.ip("addr add 172.20.56.99/24 dev eth0\nroute add 10.77.0.0/16 via 172.20.56.1");
        }),
        ("MTU", |a| a.pod.ip("link set eth0 mtu 1300")),
        ("another interface", |a| a.pod.ip("link add net1 type bridge\nlink set net1 up")),
        ("traffic control", |a| {
            let line = format!("tc qdisc add dev {} root tbf rate 8mbit burst 64kb latency 50ms", a.host());
            a.site.node.run(&line).expect_ok();
        }),
        ("an uplink that is down", |a| a.site.node.ip("link set nic0 down")),
    ];
    for (what, change) in rows {
        let attached = Attached::new(|_| {});
        change(&attached);
        let outcome = attached.check();
        assert!(outcome.ok(), "{what}: {outcome}");
    }
}

#[test]
fn layer_2_passes_and_fails_as_well() {
    let attached = Attached::new(|conf| {
        conf.as_object_mut().unwrap().remove("ipam");
    });
    attached.passes();
    attached.site.node.ip(&format!("link set {} nomaster", attached.host()));
    assert_eq!(attached.check().error_code(), 101);
}

#[test]
fn an_interface_that_is_meant_to_be_down_passes() {
    Attached::new(|conf| {
        conf.as_object_mut().unwrap().remove("ipam");
        conf["disableContainerInterface"] = json!(true);
    })
    .passes();
}

#[test]
fn a_pod_that_is_gone_fails() {
    let attached = Attached::new(|_| {});
    let mut eth0 = attached.pod.eth0();
    eth0.netns = Some("/run/netns/no-such-pod".into());
    let outcome = attached.site.node.plugin(&attached.list).check(&eth0, &attached.result);
    assert_eq!(outcome.error_code(), 3, "unknown container: {outcome}");
    assert!(outcome.error_text().contains("/run/netns/no-such-pod"), "{outcome}");
}
