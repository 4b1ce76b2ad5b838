//! Which machine we are, and which of those that a store names.
//!
//! A store is one machine's. Where several share a directory all the same, or one was copied from another
//! machine, what the others hold is left alone. A machine is known by `/etc/machine-id`. A node without a
//! disk of its own may have a new one in each boot; its hardware tells then that it is the same: the side
//! directory has a file for each machine that wrote here, with the identity of its hardware.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cni_conf::cni::env::is_identifier;
use kernel::open;

use super::boot_time::BootTime;
use super::error::StoreError;
use super::files::{self, remove, replace};
use super::record::Record;

/// What tells one piece of hardware from another: of a PC and of a virtual machine, and of a board with a
/// device tree.
const HARDWARE: [&str; 4] = [
    "/sys/class/dmi/id/product_uuid",
    "/sys/class/dmi/id/product_serial",
    "/sys/class/dmi/id/board_serial",
    "/sys/firmware/devicetree/base/serial-number",
];
/// What boards say whose maker left it at that: all of a kind say the same.
const NONSENSE: [&str; 3] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
];
/// The files of machines are called this and the machine's identity.
const FILE: &str = "machine.";
/// Longest identity of a machine. A real one has 32 digits.
const MAX_ID: usize = 128;
const MAX_FILE: u64 = 4096;

/// Whose a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// This machine's, of this boot.
    Present,
    /// This machine's, of an earlier boot.
    Past,
    /// Another machine's.
    Elsewhere,
}

/// This machine, in this boot.
#[derive(Debug, Clone)]
pub(super) struct Here {
    /// `/etc/machine-id`; empty when there is none.
    pub(super) id: String,
    /// Where the files of machines are.
    dir: PathBuf,
    /// Other identities that this machine had, once somebody asks.
    former: OnceLock<BTreeSet<String>>,
}

impl Here {
    /// As a store in this side directory sees it.
    pub(super) fn see(dir: &Path) -> Here {
        let text = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        Here { id: identity(&text).to_owned(), dir: dir.to_owned(), former: OnceLock::new() }
    }

    /// Whether this is our identity, as far as we have one.
    pub(super) fn is(&self, id: &str) -> bool {
        self.id.is_empty() || self.id == id
    }

    /// Whose a record is. One without a machine is of before machines were noted, or of one without an
    /// identity: it is taken for ours. With one boot and two identities there are two, containers that play
    /// nodes.
    pub(super) fn age(&self, boot_time: &BootTime, record: &Record) -> Age {
        let past = boot_time.is_after(&record.boot);
        // Who has no identity, in a container with the node's folders say, runs on the same kernel at least.
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

    /// Notes this machine's hardware, and forgets machines that no record names.
    pub(super) fn note(&self, needed: &BTreeSet<&str>) -> Result<(), StoreError> {
        for id in self.named()?.iter().filter(|id| **id != self.id && !needed.contains(id.as_str())) {
            remove(&self.file(id))?;
        }
        if self.id.is_empty() {
            log::info!("/etc/machine-id names no machine: a dataDir that several share is not found out");
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

/// The identity in the text of `/etc/machine-id`. In a first boot systemd writes `uninitialized` until it has
/// one.
fn identity(text: &str) -> &str {
    let text = text.trim();
    let is_one = text != "uninitialized" && text.len() <= MAX_ID && is_identifier(text);
    if is_one { text } else { "" }
}

/// What the firmware tells of this machine and no other; `None` when it tells nothing.
fn hardware() -> Option<String> {
    let told = HARDWARE.map(|path| fs::read_to_string(path).unwrap_or_default());
    one_of_its_kind(&told)
}

/// A serial number alone is often a text such as `Default string`.
fn one_of_its_kind(told: &[String; 4]) -> Option<String> {
    let [uuid, serial, board, tree] =
        told.each_ref().map(|text| text.trim_matches(['\0', '\n', ' ']).to_lowercase());
    let has_uuid = uuid.len() == 36 && !NONSENSE.contains(&uuid.as_str());
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
        let told = |uuid: &str, serial: &str, tree: &str| {
            one_of_its_kind(&[uuid.into(), serial.into(), String::new(), tree.into()])
        };
        let uuid = "4C4C4544-0043-3010-8052-B4C04F564231\n";
        assert_eq!(told(uuid, "C0R\n", "").as_deref(), Some("4c4c4544-0043-3010-8052-b4c04f564231 c0r "));
        assert_eq!(told("", "", "10000000abcdef01\0").as_deref(), Some("10000000abcdef01"));
        for (uuid, serial) in
            [("", ""), ("", "Default string"), (NONSENSE[0], "1"), (NONSENSE[2], "1"), ("x", "")]
        {
            assert_eq!(told(uuid, serial, "0000000000000000\0"), None, "{uuid} {serial}");
        }
    }

    #[test]
    fn a_record_is_ours_of_an_earlier_boot_or_of_another_machine() {
        let dir = std::env::temp_dir().join(format!("ipam-machine-{}", std::process::id()));
        let boot_time = BootTime { boot: "now".into(), uptime: 0 };
        let here = |id: &str, former: &[&str]| {
            let former: BTreeSet<String> = former.iter().map(|id| (*id).to_owned()).collect();
            Here { id: id.into(), dir: dir.clone(), former: OnceLock::from(former) }
        };
        let age = |here: &Here, machine: &str, boot: &str| {
            let record = Record { machine: machine.into(), boot: boot.into(), ..Record::default() };
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
