//! Helpers for the tests of the plans.

use std::collections::BTreeMap;

use cni_conf::cni::env::Environment;
use cni_conf::network::Network;
use cni_conf::request::Request;
use kernel::link::{Address, Kind, Link};
use kernel::nft::{Change, Expr, Verdict};

/// A configuration with these keys, parsed as the binary does.
pub fn network(keys: &str) -> Network {
    let config = format!(r#"{{"cniVersion": "1.1.0", "name": "net", "type": "vlan-bridge", {keys}}}"#);
    let env = Environment::parse(|name| match name {
        "CNI_COMMAND" => Some("STATUS".into()),
        "CNI_PATH" => Some("/opt/cni/bin".into()),
        _ => None,
    });
    let request = Request::parse(env.unwrap(), config.into_bytes()).unwrap();
    Network::parse(&request).unwrap().0
}

/// An interface that is up and nothing else.
pub fn link(index: u32, name: &str, kind: Kind) -> Link {
    Link {
        index,
        name: name.into(),
        kind,
        mac: "02:00:00:00:00:99".parse().ok(),
        mtu: 9000,
        up: true,
        carrier: true,
        oper_up: true,
        accept_ra: Some(0),
        arp_ignore: Some(1),
        rp_filter: Some(1),
        disable_ipv6: Some(0),
        ..Link::default()
    }
}

/// An address that an operator gave to an interface.
pub fn address(interface: u32, net: &str) -> Address {
    Address {
        interface,
        net: net.parse().unwrap(),
        link_local: false,
        tentative: false,
        duplicate: false,
        secondary: false,
        deprecated: false,
        dynamic: false,
    }
}

/// What the kernel would show after these changes: of each chain the number of its rules, and its use count.
#[derive(Debug, Default)]
pub struct Chains(pub BTreeMap<String, (usize, usize)>);

impl Chains {
    /// The chains that these changes make.
    pub fn of(changes: &[Change]) -> Chains {
        let mut chains = Chains::default();
        for change in changes {
            match change {
                Change::AddChain { name, .. } => drop(chains.0.insert(name.clone(), (0, 0))),
                Change::AddRule { chain, exprs, .. } => {
                    let own = chains.0.entry(chain.clone()).or_default();
                    *own = (own.0 + 1, own.1 + 1);
                    for expr in exprs {
                        if let Expr::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) = expr {
                            chains.0.entry(to.clone()).or_default().1 += 1;
                        }
                    }
                }
                _ => {}
            }
        }
        chains
    }
}
