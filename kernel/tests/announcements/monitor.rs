//! What the kernel announces.

use vlan_bridge_kernel::monitor::{Announcement, LinkState, Monitor, NftObject, Subsystem};

use crate::{in_namespace, index, ip, run};

/// Everything up to the first announcement that is wanted.
async fn until(monitor: &mut Monitor, wanted: impl Fn(&Announcement) -> bool) -> Vec<Announcement> {
    let mut seen = Vec::new();
    loop {
        seen.push(monitor.next().await.unwrap());
        if seen.last().is_some_and(&wanted) {
            return seen;
        }
    }
}

fn link(announcement: &Announcement) -> Option<&LinkState> {
    match announcement {
        Announcement::Link(link) => Some(link),
        _ => None,
    }
}

/// Announced after everything before it: its link is made for nothing else.
fn is_end(announcement: &Announcement) -> bool {
    link(announcement).is_some_and(|link| link.name == "end")
}

#[test]
fn a_bridge_and_its_port_are_announced() {
    in_namespace(|| async {
        let mut monitor = Monitor::open().unwrap();
        ip(
            "link add name p type veth peer name q\nlink add name br type bridge\nlink set dev p master br up\n\
            link set dev br up\nlink set dev q up",
        );
        let (port, bridge) = (index("p"), index("br"));
        let enslaved = |link: &LinkState| link.index == port && link.master == Some(bridge) && link.carrier;
        let seen = until(&mut monitor, |found| link(found).is_some_and(enslaved)).await;
        let last = link(seen.last().unwrap()).unwrap();
        assert_eq!((&*last.name, &*last.kind, last.up, last.mtu), ("p", "veth", true, 1500));
        assert_eq!(last.parent, Some(index("q")));
        assert!(seen.contains(&Announcement::Port { index: port, bridge: Some(bridge), gone: false }));

        run("ip link set dev p nomaster");
        let left = Announcement::Port { index: port, bridge: Some(bridge), gone: true };
        until(&mut monitor, |found| *found == left).await;
        run("ip link del dev p");
        let removed = |link: &LinkState| link.index == port && link.gone;
        let seen = until(&mut monitor, |found| link(found).is_some_and(removed)).await;
        // The end of the port is not the end of a link.
        assert_eq!(seen.iter().filter_map(link).filter(|link| link.gone).count(), 1, "{seen:#?}");
    });
}

#[test]
fn addresses_neighbours_rules_and_settings_are_announced() {
    in_namespace(|| async {
        ip("link add name d type veth peer name e\nlink set dev d up");
        let index = index("d");
        let mut monitor = Monitor::open().unwrap();
        ip("addr add 10.0.0.5/24 dev d\nneigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev d nud permanent\n\
            rule add from 10.0.0.5 table 7\naddr del 10.0.0.5/24 dev d");
        std::fs::write("/proc/sys/net/ipv4/conf/d/forwarding", "1").unwrap();
        run("ip link add name end type veth");
        let seen = until(&mut monitor, is_end).await;
        let net = "10.0.0.5/24".parse().unwrap();
        let (address, mac) = (Some("10.0.0.9".parse().unwrap()), "02:00:00:00:00:09".parse().ok());
        let family = cni_conf::family::Family::V4;
        for expected in [
            Announcement::Address { index, net, gone: false },
            Announcement::Neighbour { index, address, mac, gone: false },
            Announcement::Rule { family, gone: false },
            Announcement::Address { index, net, gone: true },
            Announcement::Netconf { index: Some(index), family },
        ] {
            assert!(seen.contains(&expected), "{expected:?} in {seen:#?}");
        }
    });
}

#[test]
fn an_entry_of_a_forwarding_database_is_announced() {
    in_namespace(|| async {
        ip("link add name p type veth peer name q\nlink add name br type bridge\nlink set dev q up\n\
             link set dev br up\nlink set dev p master br up");
        let mut monitor = Monitor::open().unwrap();
        let (index, master) = (index("p"), Some(index("br")));
        for (verb, kind, gone) in [
            ("add", "static", false),
            ("del", "static", true),
            ("add", "dynamic", false),
            ("del", "dynamic", true),
        ] {
            run(&format!("bridge fdb {verb} 02:00:00:00:00:09 dev p master {kind}"));
            let mac = "02:00:00:00:00:09".parse().unwrap();
            let learned = kind == "dynamic";
            let expected = Announcement::Fdb { index, master, mac, vlan: None, learned, gone };
            until(&mut monitor, |found| *found == expected).await;
        }
    });
}

#[test]
fn routes_of_daemons_are_not_received_and_default_routes_are() {
    in_namespace(|| async {
        ip("link add name d type veth peer name e\nlink set dev d up\naddr add 10.0.0.5/24 dev d");
        let mut monitor = Monitor::open().unwrap();
        let routes: String = (0..5000)
            .map(|i| format!("route add 10.1.{}.{}/32 dev d proto bgp\n", i / 250, i % 250))
            .collect();
        ip(&format!(
            "{routes}route add default via 10.0.0.1 proto bird\nroute add 10.2.0.0/16 dev d proto static"
        ));
        run("ip link add name end type veth");
        let seen = until(&mut monitor, is_end).await;
        let family = cni_conf::family::Family::V4;
        let oif = Some(index("d"));
        let route = |prefix_length, protocol| Announcement::Route {
            family,
            prefix_length,
            oif,
            protocol,
            gone: false,
        };
        let routes: Vec<_> =
            seen.into_iter().filter(|found| matches!(found, Announcement::Route { .. })).collect();
        assert_eq!(routes, [route(0, 12), route(16, 4)]);
    });
}

#[test]
fn a_change_of_nf_tables_says_who_made_it() {
    in_namespace(|| async {
        let mut monitor = Monitor::open().unwrap();
        run("nft add table inet t { set s { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }; }");
        let is_generation = |found: &Announcement| matches!(found, Announcement::NftGeneration { .. });
        let seen = until(&mut monitor, is_generation).await;
        let Some(Announcement::NftGeneration { process, pid, port, .. }) = seen.last() else {
            panic!("{seen:?}")
        };
        assert_eq!((process.as_str(), pid.is_some()), ("nft", true));
        let nft =
            |object| Announcement::Nft { family: 1, table: "t".into(), object, gone: false, port: *port };
        let expected = [NftObject::Table, NftObject::Set, NftObject::Element].map(nft);
        assert_eq!(seen[..seen.len() - 1], expected);
    });
}

#[test]
fn what_overflows_is_announced_as_lost_and_then_it_goes_on() {
    in_namespace(|| async {
        ip("link add name d type veth peer name e\nlink set dev d up\naddr add 10.0.0.5/24 dev d");
        let mut monitor = Monitor::open().unwrap();
        // A megabyte holds a few thousand.
        let routes: String =
            (0..20000).map(|i| format!("route add 10.1.{}.{}/32 dev d\n", i / 250, i % 250)).collect();
        ip(&routes);
        until(&mut monitor, |found| *found == Announcement::Lost(Subsystem::Route)).await;
        run("ip link add name end type veth");
        until(&mut monitor, is_end).await;
    });
}
