//! Facts about a holder beyond host-local's two lines, in a small JSON file for each holder.
//!
//! The file's name identifies the holder, so an attachment finds its leases with one lookup:
//! `<container>:<interface>`, `<container>:` for a lease that names only a container, and `@<address>` for a
//! lease that cannot be read.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use cni_conf::cni::args::PodName;
use kernel::open;
use serde_json::{Value, json};

use super::error::StoreError;
use super::files::{Lease, Stamp, replace};
use super::holder::{Holder, Owner, is_container_id};
use super::netns::Netns;

/// Longest record read, in bytes. A path has at most 4096, and a pod's names have some hundreds.
const MAX_RECORD: u64 = 16 << 10;

/// The record of one holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HolderRecord {
    /// Its addresses. If its ADD was killed, some of them may have no lease. Only the lease decides.
    pub addresses: Vec<IpAddr>,
    /// The stamp of each lease's file. If another program has assigned the address again to a holder of the
    /// same name, the stamp differs.
    pub(crate) stamps: BTreeMap<IpAddr, Stamp>,
    /// The boot in which the lease was seen first.
    pub boot: String,
    /// The machine that wrote it. Empty if the machine has no identity, or if the record is older than this
    /// field.
    pub machine: String,
    /// Seconds since 1970, by the clock at that time.
    pub since: u64,
    /// Whether the plugin did not see the ADD: host-local wrote the lease, or the record was lost. The lease
    /// existed in [`HolderRecord::boot`], and no more is known.
    pub adopted: bool,
    /// The container's network namespace, if the ADD had one.
    pub netns: Option<Netns>,
    /// The pod, if `CNI_ARGS` named it.
    pub pod: Option<PodName>,
}

/// The result of reading a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and never kept")]
pub(super) enum RecordFile {
    Nothing,
    Torn,
    Readable(HolderRecord),
}

impl HolderRecord {
    /// Adds an address and its lease.
    pub(super) fn add(&mut self, addr: IpAddr, stamp: Stamp) {
        if self.stamps.insert(addr, stamp).is_none() {
            self.addresses.push(addr);
        }
    }

    /// Removes an address.
    pub(super) fn take(&mut self, addr: IpAddr) {
        self.addresses.retain(|other| *other != addr);
        self.stamps.remove(&addr);
    }

    /// Whether the record describes this lease.
    pub(super) fn is_of(&self, lease: &Lease) -> bool {
        self.stamp_of(lease.addr) == Some(lease.stamp)
    }

    /// The stamp of an address's lease.
    pub(super) fn stamp_of(&self, addr: IpAddr) -> Option<Stamp> {
        self.stamps.get(&addr).copied()
    }

    /// Reads a record: none, one, or a torn one, which is logged.
    pub(super) fn read(path: &Path) -> RecordFile {
        let bytes = match open::read(path, MAX_RECORD) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return RecordFile::Nothing,
            Err(error) => {
                log::warn!("cannot read {}: {error}", path.display());
                return RecordFile::Torn;
            }
        };
        if let Some(record) = HolderRecord::parse(&bytes) {
            return RecordFile::Readable(record);
        }
        log::warn!("{}: not a record, it will be rewritten", path.display());
        RecordFile::Torn
    }

    /// Replaces the record. If this fails, the old record stays, which names the leases at that time.
    pub(super) fn write(&self, path: &Path) -> Result<(), StoreError> {
        replace(path, self.to_json().to_string().as_bytes())
    }

    /// Parses the content of a record.
    pub fn parse(bytes: &[u8]) -> Option<HolderRecord> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64);
        let addresses = value.get("addresses")?.as_array()?;
        let addresses = addresses.iter().map(|addr| addr.as_str()?.parse().ok());
        let netns = value.get("netns").and_then(|netns| {
            let id = (number(netns, "device")?, number(netns, "inode")?);
            let anchor = (number(netns, "anchorDevice")?, number(netns, "anchorInode")?);
            let mount_namespace = number(netns, "mountNamespace")?;
            Some(Netns { path: text(netns, "path")?, id, mount_namespace, anchor })
        });
        let pod = text(&value, "podNamespace").zip(text(&value, "podName"));
        let pod = pod.map(|(namespace, name)| PodName { namespace, name, uid: None });
        let stamps = value.get("leases").and_then(Value::as_object);
        let stamps = stamps.into_iter().flatten().map(|(addr, stamp)| {
            let whole = |key: &str| stamp.get(key).and_then(Value::as_i64);
            let (seconds, nanoseconds) = (whole("seconds")?, whole("nanoseconds")?);
            Some((addr.parse().ok()?, Stamp { inode: number(stamp, "inode")?, seconds, nanoseconds }))
        });
        Some(HolderRecord {
            addresses: addresses.collect::<Option<_>>()?,
            stamps: stamps.collect::<Option<_>>()?,
            boot: text(&value, "boot")?,
            machine: text(&value, "machine").unwrap_or_default(),
            since: number(&value, "since").unwrap_or(0),
            adopted: value.get("adopted").and_then(Value::as_bool).unwrap_or(false),
            netns,
            pod,
        })
    }

    fn to_json(&self) -> Value {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let mut value = json!({"addresses": addresses, "boot": self.boot, "since": self.since});
        for (addr, Stamp { inode, seconds, nanoseconds }) in &self.stamps {
            let stamp = json!({"inode": inode, "seconds": seconds, "nanoseconds": nanoseconds});
            value["leases"][addr.to_string()] = stamp;
        }
        if !self.machine.is_empty() {
            value["machine"] = self.machine.as_str().into();
        }
        if self.adopted {
            value["adopted"] = true.into();
        }
        if let Some(Netns { path, id, mount_namespace, anchor }) = &self.netns {
            value["netns"] = json!({"path": path, "device": id.0, "inode": id.1,
                "mountNamespace": mount_namespace, "anchorDevice": anchor.0, "anchorInode": anchor.1});
        }
        if let Some(PodName { namespace, name, .. }) = &self.pod {
            value["podNamespace"] = namespace.as_str().into();
            value["podName"] = name.as_str().into();
        }
        value
    }
}

/// The file name of the record of a lease's holder.
pub(super) fn file_name(holder: &Holder, addr: IpAddr) -> String {
    match holder {
        Holder::Attachment(owner) => of_owner(owner),
        Holder::Container(id) => of_container(id),
        Holder::Empty | Holder::Unreadable => format!("@{addr}"),
    }
}

/// Whether a lease looks like a truncated lease of the record's holder.
pub(super) fn is_cut(holder: &Holder, name: &str) -> bool {
    match holder {
        Holder::Empty | Holder::Unreadable => true,
        Holder::Container(id) => name.starts_with(id.as_str()),
        Holder::Attachment(owner) => name.starts_with(&of_owner(owner)) && name != of_owner(owner),
    }
}

/// The file name of an attachment's record. Neither part can contain a colon or a slash.
pub(super) fn of_owner(owner: &Owner) -> String {
    format!("{}:{}", owner.container_id, owner.ifname)
}

/// The file name of the record of a lease that names only a container.
pub(super) fn of_container(id: &str) -> String {
    format!("{id}:")
}

/// The holder that a record's file name identifies.
pub(super) fn holder_of(name: &str) -> Option<Holder> {
    if name.starts_with('@') {
        return Some(Holder::Unreadable);
    }
    let (id, ifname) = name.split_once(':').filter(|(id, _)| is_container_id(id))?;
    Some(match ifname {
        "" => Holder::Container(id.to_owned()),
        _ => Holder::Attachment(Owner { container_id: id.to_owned(), ifname: ifname.to_owned() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was_written() {
        let stamp = Stamp { inode: u64::MAX, seconds: -1, nanoseconds: 999_999_999 };
        let record = HolderRecord {
            addresses: vec!["10.0.0.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
            stamps: BTreeMap::from([("10.0.0.2".parse().unwrap(), stamp)]),
            boot: "b1".into(),
            machine: "m1".into(),
            since: 7,
            adopted: true,
            netns: Some(Netns {
                path: "/run/netns/x".into(),
                id: (4, 99),
                mount_namespace: 5,
                anchor: (6, 7),
            }),
            pod: PodName::parse("default/web-0"),
        };
        for record in [record, HolderRecord { boot: "b".into(), ..HolderRecord::default() }] {
            assert_eq!(HolderRecord::parse(record.to_json().to_string().as_bytes()), Some(record));
        }
    }

    #[test]
    fn what_is_cut_off_or_foreign_is_no_record() {
        let whole = br#"{"addresses":["10.0.0.2"],"boot":"b1","since":7}"#;
        assert!(HolderRecord::parse(whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(HolderRecord::parse(&whole[..end]), None, "{end}");
        }
        for bytes in [&b"\xff\xfe"[..], b"[]", b"{}", br#"{"addresses":["x"],"boot":"b"}"#, b"c1\r\neth0"] {
            assert_eq!(HolderRecord::parse(bytes), None);
        }
    }

    #[test]
    fn names_say_whose() {
        let addr = "10.0.0.2".parse().unwrap();
        let owner = |id: &str, ifname: &str| {
            Holder::Attachment(Owner { container_id: id.into(), ifname: ifname.into() })
        };
        for (holder, expected) in [
            (owner("c1", "eth0"), "c1:eth0"),
            (Holder::Container("c1".into()), "c1:"),
            (Holder::Unreadable, "@10.0.0.2"),
        ] {
            assert_eq!(file_name(&holder, addr), expected);
        }
        assert_eq!(holder_of("c1:eth0"), Some(owner("c1", "eth0")));
        assert_eq!(holder_of("c1:"), Some(Holder::Container("c1".into())));
        assert_eq!(holder_of("@10.0.0.2"), Some(Holder::Unreadable));
        assert_eq!(holder_of(".draft"), None);
        for (holder, cut) in [
            (Holder::Container("c".into()), true),
            (owner("c1", "eth"), true),
            (owner("c1", "eth0"), false),
            (owner("c2", "eth0"), false),
            (Holder::Empty, true),
        ] {
            assert_eq!(is_cut(&holder, "c1:eth0"), cut, "{holder:?}");
        }
    }
}
