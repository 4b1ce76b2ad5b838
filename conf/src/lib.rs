//! The input and output of the CNI protocol as checked types. Nothing here does I/O.
//!
//! A plugin gets environment variables and a JSON document, and answers with another document. [`request`]
//! parses the first two into a [`request::Request`]. [`cni::result`] and [`cni::error`] write the answer, in
//! the caller's version of the specification. [`network`], [`uplink`], [`host_access`], [`guard`] and
//! [`ports`] have the keys of `vlan-bridge`, [`ipam`] and [`range`] those of the `ipam` section, [`pool`]
//! those of its pool, and [`ipam_plugin`] the plugin of that section. [`section::Section`] reads every key,
//! so a message always names the key, the value and the right form.

pub mod cni;
pub mod detection;
pub mod family;
pub mod guard;
pub mod host_access;
pub mod ifname;
pub mod ipam;
pub mod ipam_plugin;
pub mod network;
pub mod pool;
pub mod ports;
pub mod range;
pub mod request;
pub mod section;
pub mod uplink;
pub mod vlans;
