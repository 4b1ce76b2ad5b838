//! What we know of a holder beyond host-local's two lines: a small JSON file for each.
//!
//! The file's name says whose it is, so an attachment finds what it holds with one look-up:
//! `<container>:<interface>`, `<container>:` for a lease that names a container alone, and `@<address>` for a
//! lease that cannot be read.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use kernel::open;
use serde_json::{Value, json};

use super::error::StoreError;
use super::files::{Lease, Stamp, replace};
use super::holder::{Holder, Owner, is_container_id};
use super::netns::Netns;

/// Longest record read, in bytes. A path has 4096 at most, and a pod's names some hundreds.
const MAX_RECORD: u64 = 16 << 10;

/// What is known of one holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// What it holds, or was about to hold when its ADD was killed: only the lease says which.
    pub addresses: Vec<IpAddr>,
    /// Which file the lease of each is. One that somebody else gave since, to a holder of the same name, is
    /// another.
    pub(crate) stamps: BTreeMap<IpAddr, Stamp>,
    /// The boot it was seen in first.
    pub boot: String,
    /// The machine that wrote it; empty when it has no identity, or none was noted yet.
    pub machine: String,
    /// Seconds since 1970, by the clock of then.
    pub since: u64,
    /// Whether we did not see the ADD: the lease is host-local's, or our record of it was lost. What is known
    /// is only that it was there in [`Record::boot`].
    pub adopted: bool,
    /// The container's network namespace, when the ADD told one.
    pub netns: Option<Netns>,
    /// `K8S_POD_NAMESPACE` and `K8S_POD_NAME`, where `CNI_ARGS` told them.
    pub pod: Option<(String, String)>,
}

/// What was found in the place of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and never kept")]
pub(super) enum Found {
    Nothing,
    Torn,
    Record(Record),
}

impl Record {
    /// Notes an address and its lease.
    pub(super) fn add(&mut self, addr: IpAddr, stamp: Stamp) {
        if self.stamps.insert(addr, stamp).is_none() {
            self.addresses.push(addr);
        }
    }

    /// Takes an address out.
    pub(super) fn take(&mut self, addr: IpAddr) {
        self.addresses.retain(|other| *other != addr);
        self.stamps.remove(&addr);
    }

    /// Whether it is this lease that the record is about.
    pub(super) fn is_of(&self, lease: &Lease) -> bool {
        self.stamp_of(lease.addr) == Some(lease.stamp)
    }

    /// Which file the lease of an address is.
    pub(super) fn stamp_of(&self, addr: IpAddr) -> Option<Stamp> {
        self.stamps.get(&addr).copied()
    }

    /// Reads a record: none, one, or, with a word in the log, one that is torn.
    pub(super) fn read(path: &Path) -> Found {
        let bytes = match open::read(path, MAX_RECORD) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Found::Nothing,
            Err(error) => {
                log::warn!("cannot read {}: {error}", path.display());
                return Found::Torn;
            }
        };
        if let Some(record) = Record::parse(&bytes) {
            return Found::Record(record);
        }
        log::warn!("{}: not a record, it will be written anew", path.display());
        Found::Torn
    }

    /// Writes it in the place of what was there, which stays when that fails: it names what is held by then.
    pub(super) fn write(&self, path: &Path) -> Result<(), StoreError> {
        replace(path, self.to_json().to_string().as_bytes())
    }

    /// Reads the content of a record.
    pub fn parse(bytes: &[u8]) -> Option<Record> {
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
        let stamps = value.get("leases").and_then(Value::as_object);
        let stamps = stamps.into_iter().flatten().map(|(addr, stamp)| {
            let whole = |key: &str| stamp.get(key).and_then(Value::as_i64);
            let (seconds, nanoseconds) = (whole("seconds")?, whole("nanoseconds")?);
            Some((addr.parse().ok()?, Stamp { inode: number(stamp, "inode")?, seconds, nanoseconds }))
        });
        Some(Record {
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
        if let Some((namespace, name)) = &self.pod {
            value["podNamespace"] = namespace.as_str().into();
            value["podName"] = name.as_str().into();
        }
        value
    }
}

/// The name of the record of a lease's holder.
pub(super) fn file_name(holder: &Holder, addr: IpAddr) -> String {
    match holder {
        Holder::Attachment(owner) => of_owner(owner),
        Holder::Container(id) => of_container(id),
        Holder::Nobody | Holder::Unreadable => format!("@{addr}"),
    }
}

/// Whether a lease looks like one of a record's holder that was cut off.
pub(super) fn is_cut(holder: &Holder, name: &str) -> bool {
    match holder {
        Holder::Nobody | Holder::Unreadable => true,
        Holder::Container(id) => name.starts_with(id.as_str()),
        Holder::Attachment(owner) => name.starts_with(&of_owner(owner)) && name != of_owner(owner),
    }
}

/// The name of an attachment's record. Neither part can hold a colon or a slash.
pub(super) fn of_owner(owner: &Owner) -> String {
    format!("{}:{}", owner.container_id, owner.ifname)
}

/// The name of the record of a lease that names a container alone.
pub(super) fn of_container(id: &str) -> String {
    format!("{id}:")
}

/// Whose record a file name is of.
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
        let record = Record {
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
            pod: Some(("default".into(), "web-0".into())),
        };
        for record in [record, Record { boot: "b".into(), ..Record::default() }] {
            assert_eq!(Record::parse(record.to_json().to_string().as_bytes()), Some(record));
        }
    }

    #[test]
    fn what_is_cut_off_or_foreign_is_no_record() {
        let whole = br#"{"addresses":["10.0.0.2"],"boot":"b1","since":7}"#;
        assert!(Record::parse(whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(Record::parse(&whole[..end]), None, "{end}");
        }
        for bytes in [&b"\xff\xfe"[..], b"[]", b"{}", br#"{"addresses":["x"],"boot":"b"}"#, b"c1\r\neth0"] {
            assert_eq!(Record::parse(bytes), None);
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
            (Holder::Nobody, true),
        ] {
            assert_eq!(is_cut(&holder, "c1:eth0"), cut, "{holder:?}");
        }
    }
}
