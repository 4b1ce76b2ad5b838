//! The pod's addresses and routes from an IPAM result, and the bridge's gateway addresses.

use std::net::IpAddr;

use cni_conf::cni::result::{AddResult, Route};
use cni_conf::family::Family;
use cni_conf::network::Network;
use ipnet::IpNet;
use kernel::link::Address;

/// Completes an IPAM result as the reference plugin does: adds the gateway if the bridge is one, the
/// default route through it, and the index of the container's interface for each address.
pub fn complete(network: &Network, mut answer: AddResult, container_interface: usize) -> AddResult {
    for ip in &mut answer.ips {
        ip.interface = Some(container_interface);
        if network.is_gateway && ip.gateway.is_none() {
            ip.gateway = first_host(&ip.address);
        }
    }
    if network.is_default_gateway {
        for ip in &answer.ips {
            let default = default_route(&ip.address);
            if !answer.routes.iter().any(|route| route.dst == default) {
                answer.routes.push(Route::to(default, ip.gateway));
            }
        }
    }
    if !network.dns.is_empty() {
        answer.dns = network.dns.clone();
    }
    answer
}

fn default_route(family_of: &IpNet) -> IpNet {
    match family_of {
        IpNet::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn first_host(net: &IpNet) -> Option<IpAddr> {
    net.trunc().hosts().next().map(|first| match (net, first) {
        // ipnet counts the all-zeroes address of an IPv6 subnet, the subnet-router anycast address, as a
        // host.
        (IpNet::V6(v6), IpAddr::V6(first)) if v6.prefix_len() < 127 => {
            IpAddr::V6((u128::from(first) | 1).into())
        }
        _ => first,
    })
}

/// A route in the form in which it is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRoute {
    /// The route with its gateway filled in.
    pub route: Route,
    /// No subnet of the pod contains the gateway, so the route needs the `onlink` flag.
    pub onlink: bool,
}

/// The routes of the pod. A route without a gateway gets the gateway of the first address of its family, as
/// with the reference plugin. A route with scope link (253) or narrower gets none.
pub fn routes(result: &AddResult) -> Vec<PodRoute> {
    const SCOPE_LINK: u8 = 253;
    result
        .routes
        .iter()
        .map(|route| {
            let mut route = route.clone();
            let direct = route.scope.is_some_and(|scope| scope >= SCOPE_LINK);
            if route.gw.is_none() && !direct {
                route.gw = gateway_for(result, &route.dst);
            }
            let onlink = route.gw.is_some_and(|gw| !reachable(result, gw));
            PodRoute { route, onlink }
        })
        .collect()
}

fn gateway_for(result: &AddResult, dst: &IpNet) -> Option<IpAddr> {
    let same_family = |ip: &IpAddr| Family::of(*ip) == Family::of_net(dst);
    result.ips.iter().filter_map(|ip| ip.gateway).find(same_family)
}

fn reachable(result: &AddResult, gw: IpAddr) -> bool {
    let link_local = matches!(gw, IpAddr::V6(gw) if gw.is_unicast_link_local());
    link_local || result.ips.iter().any(|ip| ip.address.contains(&gw))
}

/// A change to the addresses of a bridge that is a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayStep {
    /// `ip address add`.
    Add(IpNet),
    /// `ip address del`, by `forceAddress`.
    Remove(IpNet),
}

/// Plans the gateways of a result as addresses of the bridge. The bridge can have one IPv4 address. It can
/// have several IPv6 addresses if their subnets do not overlap.
pub fn gateway_addresses(
    device: &str,
    force: bool,
    result: &AddResult,
    present: &[Address],
) -> Result<Vec<GatewayStep>, String> {
    let mut steps = Vec::new();
    for ip in &result.ips {
        let Some(gateway) = ip.gateway else { continue };
        let Ok(wanted) = IpNet::new(gateway, ip.address.prefix_len()) else { continue };
        let conflicts = |other: &IpNet| match (wanted, other) {
            (IpNet::V4(_), IpNet::V4(_)) => true,
            (IpNet::V6(_), IpNet::V6(_)) => other.contains(&wanted.addr()) || wanted.contains(&other.addr()),
            _ => false,
        };
        if present.iter().any(|address| address.net == wanted) || steps.contains(&GatewayStep::Add(wanted)) {
            continue;
        }
        for other in present.iter().map(|address| address.net).filter(conflicts) {
            if !force {
                return Err(format!(
                    "{device} already has an IP address different from {wanted}: {other}; set forceAddress to replace it"
                ));
            }
            steps.push(GatewayStep::Remove(other));
        }
        steps.push(GatewayStep::Add(wanted));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use cni_conf::cni::version::Version;

    use super::*;
    use crate::plan::testing::address;

    fn result(json: &str) -> AddResult {
        AddResult::from_json(&serde_json::from_str(json).unwrap(), Version::V1_1_0).unwrap()
    }

    fn planned(json: &str) -> Vec<(String, Option<String>, bool)> {
        routes(&result(json))
            .into_iter()
            .map(|planned| {
                (planned.route.dst.to_string(), planned.route.gw.map(|gw| gw.to_string()), planned.onlink)
            })
            .collect()
    }

    #[test]
    fn a_route_without_a_gateway_takes_the_one_of_its_family() {
        let json = r#"{"ips": [{"address": "172.20.56.16/24", "gateway": "172.20.56.1"},
                                {"address": "2001:db8::16/64", "gateway": "2001:db8::1"}],
                       "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.0.0.0/8", "gw": "172.20.56.2"}]}"#;
        let expected = [("0.0.0.0/0", "172.20.56.1"), ("::/0", "2001:db8::1"), ("10.0.0.0/8", "172.20.56.2")];
        let expected = expected.map(|(dst, gw)| (dst.to_owned(), Some(gw.to_owned()), false));
        assert_eq!(planned(json), expected);
    }

    #[test]
    fn a_gateway_that_no_address_covers_is_on_the_link() {
        let json = r#"{"ips": [{"address": "172.20.56.16/32", "gateway": "172.20.56.1"}],
                       "routes": [{"dst": "0.0.0.0/0"}]}"#;
        assert_eq!(planned(json), [("0.0.0.0/0".to_owned(), Some("172.20.56.1".to_owned()), true)]);
        let json = r#"{"ips": [{"address": "2001:db8::16/128", "gateway": "fe80::1"}], "routes": [{"dst": "::/0"}]}"#;
        assert_eq!(planned(json), [("::/0".to_owned(), Some("fe80::1".to_owned()), false)]);
    }

    #[test]
    fn a_route_of_scope_link_stays_without_a_gateway() {
        let json = r#"{"ips": [{"address": "172.20.56.16/24", "gateway": "172.20.56.1"}],
                       "routes": [{"dst": "10.51.0.11/32", "scope": 253}]}"#;
        assert_eq!(planned(json), [("10.51.0.11/32".to_owned(), None, false)]);
    }

    #[test]
    fn the_first_host_of_a_subnet_is_its_gateway() {
        let first = |net: &str| first_host(&net.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(first("10.22.3.4/16").as_deref(), Some("10.22.0.1"));
        assert_eq!(first("2001:db8::77/64").as_deref(), Some("2001:db8::1"));
    }

    fn steps(force: bool, present: &[&str]) -> Result<Vec<GatewayStep>, String> {
        let result = result(
            r#"{"ips": [{"address": "10.22.0.2/16", "gateway": "10.22.0.1"},
                        {"address": "2001:db8::2/64", "gateway": "2001:db8::1"}]}"#,
        );
        let present: Vec<Address> = present.iter().map(|net| address(1, net)).collect();
        gateway_addresses("cni0", force, &result, &present)
    }

    #[test]
    fn gateway_addresses_are_added_once_and_replaced_only_by_force() {
        let (v4, v6) = ("10.22.0.1/16".parse().unwrap(), "2001:db8::1/64".parse().unwrap());
        assert_eq!(steps(false, &[]).unwrap(), [GatewayStep::Add(v4), GatewayStep::Add(v6)]);
        assert_eq!(steps(false, &["10.22.0.1/16", "2001:db8::1/64", "2001:db8:1::1/64"]).unwrap(), []);
        let refused = steps(false, &["192.168.0.1/24"]).unwrap_err();
        assert!(
            refused.starts_with("cni0 already has an IP address different from 10.22.0.1/16"),
            "{refused}"
        );
        let old = GatewayStep::Remove("192.168.0.1/24".parse().unwrap());
        assert_eq!(steps(true, &["192.168.0.1/24", "2001:db8::1/64"]).unwrap(), [old, GatewayStep::Add(v4)]);
    }
}
