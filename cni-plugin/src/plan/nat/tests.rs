use cni_conf::section::Section;
use serde_json::json;

use super::*;
use crate::record::PodInterface;

fn record() -> NatRecord {
    let keys = json!({"ports": [
        {"hostPort": 8080, "containerPort": 80},
        {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.0.2.7"},
        {"hostPort": 54, "containerPort": 5353, "protocol": "udp", "hostIP": "::"},
    ]});
    let section = Section::new(keys.as_object().unwrap(), "");
    NatRecord {
        pod: PodInterface {
            network: "local".into(),
            container_id: "0a1b".into(),
            ifname: "eth0".into(),
            netns: "/run/netns/p".into(),
            device: "cni0".into(),
            bridge: None,
            mac: None,
            addresses: vec!["10.22.0.2/16".parse().unwrap(), "fd00:22::2/64".parse().unwrap()],
        },
        masquerade: true,
        direct: false,
        gateway: true,
        ports: PortMapping::parse_list(&section, "ports").unwrap(),
        sources: Vec::new(),
        localhost: Some("10.22.0.1".parse().unwrap()),
        services: Vec::new(),
        followers: Vec::new(),
    }
}

#[test]
fn an_attachment_has_an_element_for_each_address_and_port() {
    let elements = elements(&record());
    let sets: Vec<&str> = elements.iter().map(|element| element.set).collect();
    assert_eq!(
        sets,
        [
            "masquerade4",
            "hairpin4",
            "closed4",
            "masquerade6",
            "hairpin6",
            "closed6",
            "ports4",
            "ports6",
            "localhost-ports",
            "address-ports4",
            "ports6"
        ]
    );
    assert!(elements.iter().all(|element| element.comment == "veth135e6cbfc22 local eth0 0a1b"));
    // tcp . 8080 : 10.22.0.2 . 80
    assert_eq!(elements[6].key, [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
    assert_eq!(elements[6].value, Some(Value::Bytes(vec![10, 22, 0, 2, 0, 80, 0, 0])));
    // tcp . 8080 : 10.22.0.1
    assert_eq!(elements[8].key, elements[6].key);
    assert_eq!(elements[8].value, Some(Value::Bytes(vec![10, 22, 0, 1])));
    // 192.0.2.7 . udp . 53 : 10.22.0.2 . 5353
    assert_eq!(elements[9].key, [192, 0, 2, 7, 17, 0, 0, 0, 0, 53, 0, 0]);
}

/// A name does not say what is a bridge's side of a VLAN.
#[test]
fn a_bridge_is_taken_along_where_the_device_is_its_side_of_a_vlan() {
    let names = |record: &NatRecord, set: &str| -> Vec<String> {
        let elements = device_elements(record).into_iter().filter(|element| element.set == set);
        elements.map(|element| nft::interface_name(&element.key[..16])).collect()
    };
    let mut dotted = record();
    dotted.pod.device = "br0.7".into();
    assert_eq!(names(&dotted, ruleset::BRIDGES), ["br0.7"]);
    let mut trunk = dotted;
    trunk.pod.bridge = Some("br0".into());
    assert_eq!(names(&trunk, ruleset::BRIDGES), ["br0.7", "br0"]);
    assert_eq!(names(&trunk, ruleset::DEVICES), ["br0.7"]);
    assert!(names(&trunk, ruleset::UPLINKS).is_empty());
    let uplink = NatRecord { sources: vec!["10.51.0.11".parse().unwrap()], ..trunk };
    assert_eq!(names(&uplink, ruleset::UPLINKS), ["br0.7"]);
    assert!(names(&uplink, ruleset::DEVICES).is_empty());
}

#[test]
fn a_masqueraded_pod_is_closed_unless_it_asks_for_routes() {
    let closed =
        |record: &NatRecord| elements(record).iter().filter(|one| one.set.starts_with("closed")).count();
    assert_eq!(closed(&record()), 2);
    assert_eq!(closed(&NatRecord { direct: true, ..record() }), 0);
    assert_eq!(closed(&NatRecord { masquerade: false, ..record() }), 0);
}

#[test]
fn localhost_leads_to_ports_of_all_addresses_and_its_own() {
    let of = |host: &str| {
        let keys = json!({"ports": [{"hostPort": 80, "containerPort": 80, "hostIP": host}]});
        let ports = PortMapping::parse_list(&Section::new(keys.as_object().unwrap(), ""), "ports").unwrap();
        let record = NatRecord { ports, ..record() };
        let sets = elements(&record).into_iter().map(|element| element.set);
        sets.filter(|set| set.starts_with("localhost")).collect::<Vec<_>>()
    };
    assert_eq!(of(""), ["localhost-ports"]);
    assert_eq!(of("0.0.0.0"), ["localhost-ports"]);
    assert_eq!(of("127.0.0.5"), ["localhost-address-ports"]);
    for host in ["192.0.2.7", "::", "2001:db8::1"] {
        assert!(of(host).is_empty(), "{host}");
    }
}

#[test]
fn pods_of_one_network_and_subnet_share_their_chains() {
    let one = record();
    let mut two = record();
    two.pod.addresses = vec!["10.22.0.3/16".parse().unwrap()];
    assert_eq!(chains(&one)[..2], chains(&two)[..]);
    for chain in chains(&one) {
        let (_, rules) = SUBNET_CHAINS.iter().find(|(prefix, _)| chain.name.starts_with(prefix)).unwrap();
        assert_eq!(chain.rules(), *rules);
    }
    two.pod.network = "other".into();
    assert_ne!(chains(&one)[0].name, chains(&two)[0].name);
    assert!(chains(&NatRecord { masquerade: false, ports: Vec::new(), ..one }).is_empty());
}

#[test]
fn a_comment_tells_whose_an_element_is() {
    let id = "f".repeat(64);
    for network in ["local", &"n".repeat(100), &"n".repeat(180)] {
        let attachment = Attachment::new(network, &id, "eth0");
        let comment = element_comment(&attachment);
        assert_eq!(veth_of(&comment), Some(attachment.host_interface().as_str()));
        assert!(is_of_network(&comment, network), "{comment}");
        assert!(!is_of_network(&comment, "loc") && !is_of_network(&comment, "other"), "{comment}");
    }
    assert!(!is_of_network("", "local") && !is_of_network("x", "local") && veth_of("").is_none());
    assert_eq!(describe("veth1 local eth0 0a1b"), "container 0a1b, interface eth0, network local");
}

#[test]
fn the_frame_counts_its_own_rules() {
    let uses = ruleset::uses();
    let of = |name: &str| uses.iter().find(|(chain, _)| chain == name).unwrap().1;
    assert_eq!((of("raw"), of("host-ports"), of("prerouting"), of("postrouting")), (2, 10, 1, 4));
    assert_eq!((of("from-localhost"), of("output"), of("to-localhost")), (2, 2, 2));
}

/// A record of the same container on another network.
fn sibling(ifname: &str) -> NatRecord {
    let NatRecord { pod, .. } = record();
    let addresses = vec!["10.33.0.2/24".parse().unwrap()];
    let pod = PodInterface { network: "other".into(), ifname: ifname.into(), addresses, ..pod };
    NatRecord { pod, ..record() }
}

#[test]
fn siblings_have_one_element_of_a_port_and_follow_who_has_it() {
    let veth = |record: &NatRecord| record.pod.attachment().host_interface();
    let holders = |records: &mut [NatRecord]| -> Vec<String> {
        let elements = share::shared_elements(records).into_iter().filter(share::is_port);
        let mut holders: Vec<String> =
            elements.filter(|element| element.set == PORTS[0]).map(|it| it.comment).collect();
        holders.dedup();
        holders
    };
    let (first, second, third) = (record(), sibling("eth1"), sibling("eth2"));
    let mut records = [first.clone(), second.clone(), third.clone()];
    assert_eq!(holders(&mut records), [element_comment(&first.pod.attachment())]);
    assert_eq!(records[0].followers, [veth(&second), veth(&third)]);
    // Whatever order they are found in.
    records.rotate_left(1);
    assert_eq!(holders(&mut records), [element_comment(&first.pod.attachment())]);
    let mut strangers = [first, second];
    strangers[1].pod.netns = "/run/netns/q".into();
    assert_eq!(holders(&mut strangers).len(), 2, "the kernel says who has it");
    assert!(strangers.iter().all(|record| record.followers.is_empty()));
}
