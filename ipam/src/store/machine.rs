//! The identity of this machine, and the machines that a store names.
//!
//! A store belongs to one machine. If several machines share a directory anyway, or if it is a copy of
//! another machine's, the leases of other machines stay. `/etc/machine-id` identifies a machine. A node
//! without a disk may have a new one in each boot. Its hardware then shows that it is the same machine: the
//! side directory has a file with the hardware's identity for each machine that wrote there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cni_conf::cni::env::is_identifier;
use kernel::open;

use super::boot_time::BootTime;
use super::error::StoreError;
use super::files::{self, remove, replace};
use super::record::HolderRecord;

/// Files that identify hardware: of a PC or a virtual machine, and of a board with a device tree.
const HARDWARE: [&str; 4] = [
    "/sys/class/dmi/id/product_uuid",
    "/sys/class/dmi/id/product_serial",
    "/sys/class/dmi/id/board_serial",
    "/sys/firmware/devicetree/base/serial-number",
];
/// Placeholders of makers that set no UUID. They are equal on all boards of a kind.
const PLACEHOLDERS: [&str; 3] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
];
/// The prefix of a machine's file. The machine's identity follows.
const FILE: &str = "machine.";
/// Longest identity of a machine. A real one has 32 digits.
const MAX_ID: usize = 128;
const MAX_FILE: u64 = 4096;

/// The machine and boot of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// This machine, this boot.
    Present,
    /// This machine, an earlier boot.
    Past,
    /// Another machine.
    Elsewhere,
}

/// This machine, in this boot.
#[derive(Debug, Clone)]
pub(super) struct ThisMachine {
    /// `/etc/machine-id`. Empty if there is none.
    pub(super) id: String,
    /// The folder of the machines' files.
    dir: PathBuf,
    /// Earlier identities of this machine, read on first use.
    former: OnceLock<BTreeSet<String>>,
}

impl ThisMachine {
    /// This machine, with the machines' files of a side directory.
    pub(super) fn see(dir: &Path) -> ThisMachine {
        let text = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        ThisMachine { id: identity(&text).to_owned(), dir: dir.to_owned(), former: OnceLock::new() }
    }

    /// Whether this is the machine's identity. Every identity matches a machine without one.
    pub(super) fn is(&self, id: &str) -> bool {
        self.id.is_empty() || self.id == id
    }

    /// The machine and boot of a record. A record without a machine is older than this field, or was written
    /// on a machine without an identity. It counts as this machine's. Two identities in one boot are two
    /// nodes, for example containers that act as nodes.
    pub(super) fn age(&self, boot_time: &BootTime, record: &HolderRecord) -> Age {
        let past = boot_time.is_after(&record.boot);
        // This process may have no identity, for example in a container with the node's folders. A record of
        // this boot then comes from the same kernel at least.
        let unnamed = record.machine.is_empty() || (self.id.is_empty() && !past);
        let named = !unnamed && record.machine != self.id;
        match past {
            _ if named && !(past && self.former().contains(&record.machine)) => Age::Elsewhere,
            true => Age::Past,
            false => Age::Present,
        }
    }

    fn former(&self) -> &BTreeSet<String> {
        self.former.get_or_init(|| {
            let (Some(hardware), Ok(named)) = (hardware(), self.named()) else { return BTreeSet::new() };
            let same = |id: &String| {
                open::read(&self.file(id), MAX_FILE).is_ok_and(|seen| seen == hardware.as_bytes())
            };
            named.into_iter().filter(same).collect()
        })
    }

    /// Records this machine's hardware, and removes the files of machines that no record names.
    pub(super) fn note(&self, needed: &BTreeSet<&str>) -> Result<(), StoreError> {
        for id in self.named()?.iter().filter(|id| **id != self.id && !needed.contains(id.as_str())) {
            remove(&self.file(id))?;
        }
        if self.id.is_empty() {
            log::info!(
                "/etc/machine-id is missing or not set: a dataDir that several machines share cannot be detected"
            );
            return Ok(());
        }
        let Some(hardware) = hardware() else { return Ok(()) };
        let path = self.file(&self.id);
        match open::read(&path, MAX_FILE) {
            Ok(seen) if seen == hardware.as_bytes() => Ok(()),
            _ => replace(&path, hardware.as_bytes()),
        }
    }

    /// The machines that have a file.
    fn named(&self) -> Result<Vec<String>, StoreError> {
        let names = files::names(&self.dir)?.into_iter();
        Ok(names.filter_map(|name| name.strip_prefix(FILE).map(str::to_owned)).collect())
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{FILE}{id}"))
    }
}

/// The identity in the content of `/etc/machine-id`. During a first boot, systemd writes `uninitialized`
/// until it has one.
fn identity(text: &str) -> &str {
    let text = text.trim();
    let is_one = text != "uninitialized" && text.len() <= MAX_ID && is_identifier(text);
    if is_one { text } else { "" }
}

/// The firmware's identity of this machine. `None` if the firmware has no unique one.
fn hardware() -> Option<String> {
    let values = HARDWARE.map(|path| fs::read_to_string(path).unwrap_or_default());
    unique(&values)
}

/// A serial number alone is not enough: it is often a placeholder such as `Default string`.
fn unique(values: &[String; 4]) -> Option<String> {
    let [uuid, serial, board, tree] =
        values.each_ref().map(|text| text.trim_matches(['\0', '\n', ' ']).to_lowercase());
    let has_uuid = uuid.len() == 36 && !PLACEHOLDERS.contains(&uuid.as_str());
    match (has_uuid, tree.trim_matches('0').is_empty()) {
        (true, _) => Some(format!("{uuid} {serial} {board}")),
        (false, false) => Some(tree),
        (false, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_an_identity_has_none() {
        for none in ["", "\n", "uninitialized\n", "../x", "a b", &"x".repeat(200)] {
            assert_eq!(identity(none), "", "{none:?}");
        }
        assert_eq!(identity("3d1219c7c4c5404aaa1f6d2a48adfda4\n"), "3d1219c7c4c5404aaa1f6d2a48adfda4");
    }

    #[test]
    fn hardware_that_says_what_its_whole_kind_says_is_none() {
        let values = |uuid: &str, serial: &str, tree: &str| {
            unique(&[uuid.into(), serial.into(), String::new(), tree.into()])
        };
        let uuid = "4C4C4544-0043-3010-8052-B4C04F564231\n";
        assert_eq!(values(uuid, "C0R\n", "").as_deref(), Some("4c4c4544-0043-3010-8052-b4c04f564231 c0r "));
        assert_eq!(values("", "", "10000000abcdef01\0").as_deref(), Some("10000000abcdef01"));
        for (uuid, serial) in
            [("", ""), ("", "Default string"), (PLACEHOLDERS[0], "1"), (PLACEHOLDERS[2], "1"), ("x", "")]
        {
            assert_eq!(values(uuid, serial, "0000000000000000\0"), None, "{uuid} {serial}");
        }
    }

    #[test]
    fn a_record_is_ours_of_an_earlier_boot_or_of_another_machine() {
        let dir = std::env::temp_dir().join(format!("ipam-machine-{}", std::process::id()));
        let boot_time = BootTime { boot: "now".into(), uptime: 0 };
        let here = |id: &str, former: &[&str]| {
            let former: BTreeSet<String> = former.iter().map(|id| (*id).to_owned()).collect();
            ThisMachine { id: id.into(), dir: dir.clone(), former: OnceLock::from(former) }
        };
        let age = |here: &ThisMachine, machine: &str, boot: &str| {
            let record =
                HolderRecord { machine: machine.into(), boot: boot.into(), ..HolderRecord::default() };
            here.age(&boot_time, &record)
        };
        let me = here("me", &[]);
        assert_eq!([age(&me, "me", "now"), age(&me, "me", "then")], [Age::Present, Age::Past]);
        assert_eq!([age(&me, "", "now"), age(&me, "", "then")], [Age::Present, Age::Past]);
        assert_eq!([age(&me, "it", "now"), age(&me, "it", "then")], [Age::Elsewhere, Age::Elsewhere]);
        let again = here("me", &["it"]);
        assert_eq!([age(&again, "it", "now"), age(&again, "it", "then")], [Age::Elsewhere, Age::Past]);
        let nobody = here("", &[]);
        assert_eq!([age(&nobody, "it", "now"), age(&nobody, "it", "then")], [Age::Present, Age::Elsewhere]);
    }
}
