//! `vlan-bridgectl repair` after the loss of each part of attached pods. After one call, CHECK and doctor
//! have no finding.

mod kill;

use crate::nat::with_ports;
use integration::{AddResult, Attachment, Ctl, Plugin, Pod, Server, Site, Transport, ask, at};
use serde_json::json;

/// A node with pods of an uplink's network, one of them with a host port, and with a pod behind NAT.
pub struct Scene<'a> {
    pub site: &'a Site,
    /// The node's ends of the pods' veths.
    pub ports: [String; 2],
    /// Their MACs.
    macs: [String; 2],
}

impl Scene<'_> {
    fn ip(&self, line: &str) {
        self.site.node.ip(line);
    }

    fn run(&self, line: &str) {
        self.site.node.run(line).expect_ok();
    }

    fn sysctl(&self, key: &str, value: &str) {
        self.site.node.set_sysctl(key, value);
    }
}

/// A change of a node, and a part of the line that `repair` prints.
pub struct Harm {
    pub what: &'static str,
    pub harm: fn(&Scene<'_>),
    pub told: &'static str,
}

pub const HARMS: &[Harm] = &[
    Harm { what: "nft flush ruleset", harm: |scene| scene.site.node.nft("flush ruleset"), told: "is gone" },
    Harm {
        what: "the NAT table deleted",
        harm: |scene| scene.site.node.nft("delete table inet vlan-bridge"),
        told: "of table inet vlan-bridge is gone",
    },
    Harm {
        what: "host ports flushed",
        harm: |scene| scene.site.node.nft("flush map inet vlan-bridge ports4"),
        told: "host port 8080/tcp is gone",
    },
    Harm {
        what: "the guard's addresses flushed",
        harm: |scene| scene.site.node.nft("flush set bridge vlan-bridge addresses4"),
        told: "is gone from table bridge vlan-bridge",
    },
    Harm {
        what: "one element of the guard's deleted",
        harm: |scene| {
            let element = format!("\"{}\" . {} . 172.20.56.16", scene.ports[0], scene.macs[0]);
            scene.site.node.nft(&format!("delete element bridge vlan-bridge addresses4 {{ {element} }}"));
        },
        told: "172.20.56.16",
    },
    Harm {
        what: "a port out of its bridge",
        harm: |scene| scene.ip(&format!("link set {} nomaster", scene.ports[0])),
        told: "it was in no bridge, and belongs to br136",
    },
    Harm {
        what: "a port down",
        harm: |scene| scene.ip(&format!("link set {} down", scene.ports[0])),
        told: "it was down",
    },
    Harm {
        what: "the bridge down",
        harm: |scene| scene.ip("link set br136 down"),
        told: "ip link set br136 up",
    },
    Harm { what: "the bridge deleted", harm: |scene| scene.ip("link del br136"), told: "ip link add br136" },
    Harm {
        what: "the gateway's bridge deleted",
        harm: |scene| scene.ip("link del cni0"),
        told: "it was in no bridge, and belongs to cni0",
    },
    Harm {
        what: "the gateway's address deleted",
        harm: |scene| scene.ip("addr del 10.22.0.1/24 dev cni0"),
        told: "ip address add 10.22.0.1/24 dev cni0",
    },
    Harm {
        what: "the uplink out of its bridge",
        harm: |scene| scene.ip("link set nic0 nomaster"),
        told: "ip link set nic0 master br136",
    },
    Harm {
        what: "host routes flushed",
        harm: |scene| {
            scene.run("ip route flush proto 117");
            scene.run("ip -6 route flush proto 117");
        },
        told: "routes or neighbour entries to 2 pods",
    },
    Harm {
        what: "neighbour entries flushed",
        harm: |scene| scene.run("ip neigh flush dev br136 nud permanent"),
        told: "routes or neighbour entries to 2 pods",
    },
    Harm {
        what: "a MAC behind another port",
        harm: |scene| scene.run(&format!("bridge fdb replace {} dev nic0 master static", scene.macs[0])),
        told: "was behind another port",
    },
    Harm {
        what: "a MAC that any frame moves",
        harm: |scene| {
            scene.run(&format!("bridge fdb replace {} dev {} master static", scene.macs[0], scene.ports[0]));
        },
        told: "was not pinned to it",
    },
    Harm {
        what: "a port's flags",
        harm: |scene| scene.run(&format!("bridge link set dev {} locked off", scene.ports[0])),
        told: "its flags had changed",
    },
    Harm {
        what: "ARP answered for every address",
        harm: |scene| scene.sysctl("net/ipv4/conf/br136/arp_ignore", "0"),
        told: "arp_ignore=1",
    },
    Harm {
        what: "router advertisements taken",
        harm: |scene| scene.sysctl("net/ipv6/conf/br136/accept_ra", "1"),
        told: "accept_ra=0",
    },
    Harm {
        what: "forwarding off",
        harm: |scene| scene.sysctl("net/ipv4/ip_forward", "0"),
        told: "forwarding of IPv4 was off",
    },
    Harm {
        // The flush above has also removed the policy.
        what: "a FORWARD policy without our rule",
        harm: |scene| scene.run("iptables -P FORWARD DROP"),
        told: "chain FORWARD of table ip filter drops",
    },
];

/// A node with attached pods of each kind, and questions to it.
pub struct Attached<'a> {
    pub ctl: &'a Ctl<'a>,
    pub scene: &'a Scene<'a>,
    /// What CHECK or doctor minds first.
    pub complaint: &'a dyn Fn() -> Option<String>,
    /// Whether traffic takes each path.
    pub works: &'a dyn Fn() -> bool,
}

/// Attaches the pods, and calls `test`.
pub fn with_attached_pods(test: impl FnOnce(&Attached<'_>)) {
    let (site, pods, local) = (Site::new(), [Pod::new(), Pod::new()], Pod::new());
    site.give_node_its_own_network();
    site.router.set_sysctl("net/ipv4/conf/all/rp_filter", "0");
    site.node.run("iptables -P FORWARD DROP").expect_ok();
    let ctl = Ctl::new(&site.node);
    ctl.run("install --cni-version 1.1.0").expect_ok();
    let mut conf = site.conf();
    conf["capabilities"] = json!({"portMappings": true});
    conf["macspoofchk"] = json!(true);
    let nat = json!({"type": "vlan-bridge", "isDefaultGateway": true, "ipMasq": true,
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
    let lists = [site.node.list(Site::NETWORK, &[conf]), site.node.list("local", &[nat])];
    for list in &lists {
        let name = list["name"].as_str().unwrap();
        ctl.write(&format!("/etc/cni/net.d/10-{name}.conflist"), &list.to_string());
    }
    let [uplink, gateway] = lists.each_ref().map(|list| site.node.plugin(list));
    let attached: [(&Plugin<'_>, Attachment); 3] = [
        (&uplink, with_ports(&pods[0], &[(8080, "tcp", 80, "")])),
        (&uplink, pods[1].eth0()),
        (&gateway, local.eth0()),
    ];
    let results: Vec<AddResult> = attached.iter().map(|(plugin, eth0)| plugin.add(eth0).result()).collect();
    let scene = Scene {
        site: &site,
        ports: [0, 1].map(|index| results[index].host_interface().to_owned()),
        macs: [0, 1].map(|index| results[index].mac().to_owned()),
    };
    let complaint = || {
        let mut checks =
            attached.iter().zip(&results).map(|((plugin, eth0), result)| plugin.check(eth0, result));
        let failed = checks.find(|outcome| !outcome.ok()).map(|outcome| outcome.to_string());
        failed.or_else(|| ctl.failures().first().map(|finding| format!("{finding:?}")))
    };
    let _server = Server::start(&pods[0], Transport::Tcp, 80);
    let works = || {
        let to = at(Site::NODE[0], 8080);
        ask(&site.router, Transport::Tcp, to).is_some()
            && pods.iter().all(|pod| pod.pings(Site::GATEWAY) && pod.pings(Site::NODE[0]))
            && local.pings("10.22.0.1")
    };
    assert!(works(), "not even before");
    assert_eq!(complaint(), None);
    test(&Attached { ctl: &ctl, scene: &scene, complaint: &complaint, works: &works });
}

#[test]
fn repair_puts_back_what_was_taken_away_and_doctor_finds_no_failure() {
    with_attached_pods(|Attached { ctl, scene, complaint, works }| {
        let nothing = ctl.run("repair").expect_ok();
        assert_eq!(nothing.stdout, "nothing to repair\n");
        for Harm { what, harm, told } in HARMS {
            harm(scene);
            assert!(complaint().is_some(), "{what}: neither CHECK nor doctor minds");
            let repaired = ctl.run("repair");
            assert!(repaired.ok() && repaired.stdout.contains(told), "{what}: {repaired}");
            assert_eq!(complaint(), None, "{what}");
            assert!(works(), "{what}: {repaired}");
            let again = ctl.run("repair").expect_ok();
            assert_eq!(again.stdout, "nothing to repair\n", "{what}");
        }
    });
}

/// repair names the faults that the operator must fix, and its exit status shows them.
#[test]
fn repair_says_what_is_left() {
    let (site, pod) = (Site::new(), Pod::new());
    let ctl = Ctl::new(&site.node);
    ctl.run("install --cni-version 1.1.0").expect_ok();
    ctl.write("/etc/cni/net.d/10-vlan136.conflist", &site.list().to_string());
    site.node.plugin(&site.list()).add(&pod.eth0()).expect_ok();
    site.node.ip("link set nic0 down");
    let told = ctl.run("repair");
    assert!(!told.ok() && told.stdout.contains("nic0"), "{told}");
}

/// repair reports each part that it could not restore, with the reason, and restores the others.
#[test]
fn repair_says_what_it_could_not_do() {
    let (site, pod, local) = (Site::new(), Pod::new(), Pod::new());
    let (node, ctl) = (&site.node, Ctl::new(&site.node));
    node.plugin(&site.list()).add(&pod.eth0()).expect_ok();
    let nat = json!({"type": "vlan-bridge", "isDefaultGateway": true,
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
    node.plugin(&node.list("local", &[nat])).add(&local.eth0()).expect_ok();
    node.ip("link del br136\nlink add br136 type veth peer name other\nlink del cni0");
    let told = ctl.run("repair -o json");
    assert!(!told.ok(), "{told}");
    assert!(told.stderr.contains("bridge br136: not restored: "), "{told}");
    assert!(told.stderr.contains("is not a bridge but veth"), "{told}");
    assert!(
        told.json()["repaired"].to_string().contains("it was in no bridge, and belongs to cni0"),
        "{told}"
    );
    assert!(local.pings("10.22.0.1"));
}
