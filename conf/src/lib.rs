//! What comes in and goes out on the CNI wire, as checked types. No I/O.
//!
//! A plugin is handed environment variables and a JSON document and answers with another: [`request`] turns
//! the first two into a [`request::Request`], [`cni::result`] and [`cni::error`] make the third, in the
//! specification version of the caller. [`network`], [`uplink`], [`host_access`], [`guard`] and [`ports`]
//! hold the keys of `vlan-bridge`, [`ipam`] and [`range`] those of the `ipam` section, and [`ipam_plugin`]
//! says whose that is. Every key is read through [`section::Section`], so that a message always names the
//! key, the value found and what would be right.

pub mod cni;
pub mod detection;
pub mod family;
pub mod guard;
pub mod host_access;
pub mod ifname;
pub mod ipam;
pub mod ipam_plugin;
pub mod network;
pub mod ports;
pub mod range;
pub mod request;
pub mod section;
pub mod uplink;
pub mod vlans;
