//! A data centre in network namespaces, and the tools to drive CNI plugins in it and to see what they did.
//!
//! Everything here uses the running kernel and programs that Debian packages (iproute2, nftables, ping).
//! Nothing touches the machine's own network namespace: tests make only named namespaces. Every value of this
//! crate removes what it made when it is dropped, also after a panic. The next run removes what a killed run
//! left.
//!
//! | to have | see |
//! |---|---|
//! | switches, a router and bonded nodes, on a kernel with bonding and 802.1q | [`DataCenter`] |
//! | one node with a plain NIC, on any kernel | [`Site`] |
//! | nodes that share a pool of addresses, on any kernel | [`PoolSite`] |
//! | a container | [`Pod`] |
//! | plugins run as a runtime runs them | [`Node::client`], [`Client`] |
//! | a real container runtime on a node | [`Containerd`], [`Podman`] |
//! | firewalld on a node | [`Firewalld`] |
//! | etcd, with certificates, and nodes that reach it | [`Etcd`] |
//! | the result of an ADD | [`Outcome::result`], [`AddResult`] |
//! | a list of `examples/` | [`Node::example`] |
//! | a plugin run with any environment and stdin | [`Node::plugin`], [`Plugin`] |
//! | `vlan-bridgectl` on a node with files of its own | [`Ctl`] |
//! | frames on an interface, tags included | [`Capture`] |
//! | a TCP or UDP exchange, and the address that the server saw | [`Server`], [`ask`], [`Namespace::asks`] |
//! | a program in a terminal of its own, and what it shows | [`TerminalProgram`], [`TerminalScreen`] |
//! | the agent's metrics | [`Scrape`] |
//! | proof that nothing was touched or left | [`Snapshot`] |
//! | a program killed at one of its system calls | [`run_killed_at`] |
//! | to remove kernel modules while no other test needs them | [`ModulesTaken`] |
//! | to wait for something | [`poll`], the only place that sleeps |
//!
//! ```no_run
//! use integration::{BondMode, Capture, DataCenter, Pod};
//!
//! let datacenter = DataCenter::new();
//! let node = datacenter.node(BondMode::Lacp);
//! let trunk = Capture::start(datacenter.tor_a(), "router");
//! let (client, pod) = (node.client(&node.list136()), Pod::new());
//! let result = client.add(&pod.eth0()).result();
//! assert_eq!(result.cidr(), "172.20.56.16/24");
//! assert!(pod.pings("172.20.56.1"));
//! assert!(trunk.frames().iter().any(|frame| frame.concerns("172.20.56.16") && frame.vlans == [136]));
//! client.del(&pod.eth0()).expect_ok();
//! ```
//!
//! If the test network cannot be built, it panics with the reason, because no test can run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test rig fails by panicking, which is what the test harness reports"
)]

mod agent;
mod announcements;
mod capture;
mod client;
mod ctl;
mod datacenter;
mod dice;
mod etcd;
mod exchange;
mod firewalld;
mod grants;
mod growth;
mod icmpv6;
mod kill;
mod mac;
mod metrics;
mod modules;
mod names;
mod namespace;
mod node;
mod patch;
mod ping;
mod plugin;
mod pod;
mod pool_site;
mod process;
mod programs;
mod result;
mod runtime;
mod scratch;
mod screen;
mod site;
mod snapshot;
mod terminal;
mod wait;

pub use agent::Agent;
pub use announcements::Announcements;
pub use capture::{Capture, Frame, arp_announcement, frame_from};
pub use client::Client;
pub use ctl::{Ctl, Finding};
pub use datacenter::{BondMode, BondedNode, DataCenter, Member, VLANS};
pub use dice::Dice;
pub use etcd::{Authority, Etcd};
pub use exchange::{Protocol, Server, Transport, ask, at, has_sctp, ip};
pub use firewalld::Firewalld;
pub use grants::GrantFiles;
pub use growth::{growth, median, median_ms};
pub use kill::run_killed_at;
pub use mac::mac_bytes;
pub use metrics::{Answer, Scrape, connect};
pub use modules::ModulesTaken;
pub use namespace::Namespace;
pub use node::Node;
pub use patch::{merge, set_keys};
pub use ping::Pings;
pub use plugin::{Call, Plugin};
pub use pod::{Attachment, Pod, eth0};
pub use pool_site::PoolSite;
pub use process::{Background, Outcome, not_tried, note, run, run_all, run_quickly, run_with, writes};
pub use programs::{client, kubernetes, old_iptables, peer, peers, plugin, product, promtool};
pub use result::{AddResult, Interface, Ip, Route};
pub use runtime::{Containerd, Cri, Host, IMAGE, Podman, Port, Release, Sandbox, User, greets};
pub use scratch::Scratch;
pub use screen::TerminalScreen;
pub use site::Site;
pub use snapshot::Snapshot;
pub use terminal::TerminalProgram;
pub use wait::{pause, poll};
