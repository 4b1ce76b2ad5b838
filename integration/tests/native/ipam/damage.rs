//! Every kind of file of a store, damaged in every way, before every verb. The call works or gives a reason,
//! no live lease is lost, and no address is assigned twice.

use crate::ipam::{Ipam, NETWORK};
use integration::{Outcome, eth0, plugin, run_quickly};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

/// 10.1.0.2 and so on.
const CAPACITY: usize = 5;
/// The offset of 10.1.0.2 in the table's file, and the fields of its head: cursor, left, longest free, last
/// freed, free.
const TABLE: &str = "ranges/10.1.0.1-10.1.0.6";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The lease of c1, which the calls are about.
    Lease,
    Record,
    Table,
    Index,
    Last,
    Lock,
    /// The place of the next lease.
    Draft,
    Verdicts,
    Owners,
    Ranges,
}

const KINDS: [Kind; 10] = [
    Kind::Lease,
    Kind::Record,
    Kind::Table,
    Kind::Index,
    Kind::Last,
    Kind::Lock,
    Kind::Draft,
    Kind::Verdicts,
    Kind::Owners,
    Kind::Ranges,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Missing,
    Empty,
    /// The first half.
    Torn,
    Binary,
    /// A sparse file of a gibibyte.
    Huge,
    /// A valid file of another store.
    Foreign,
    Directory,
    /// A FIFO: opening it waits for a writer.
    Pipe,
    /// A link to a file outside.
    Link,
}

const DAMAGES: [Damage; 9] = [
    Damage::Missing,
    Damage::Empty,
    Damage::Torn,
    Damage::Binary,
    Damage::Huge,
    Damage::Foreign,
    Damage::Directory,
    Damage::Pipe,
    Damage::Link,
];

const VERBS: [&str; 8] = ["ADD", "ADD again", "CHECK", "DEL", "GC", "STATUS", "list", "check"];

/// A store with a live owner, the owner that the calls are about, and a released address.
struct Case<'a> {
    ipam: &'a Ipam,
    outside: PathBuf,
}

impl Case<'_> {
    fn new(ipam: &Ipam) -> Case<'_> {
        let _ = fs::remove_dir_all(ipam.node.data_dir());
        let outside = ipam.node.folder().path().join("outside");
        let _ = fs::remove_file(&outside);
        let case = Case { ipam, outside };
        for id in ["live", "c1", "back"] {
            case.call("ADD", id).expect_ok();
        }
        case.call("DEL", "back").expect_ok();
        case
    }

    fn call(&self, verb: &str, id: &str) -> Outcome {
        let call = self.ipam.plugin().call(verb, &eth0(id));
        run_quickly(&mut call.bare_command(), call.input())
    }

    fn perform(&self, verb: &str) -> Outcome {
        match verb {
            "ADD" => self.call("ADD", "new"),
            "ADD again" => self.call("ADD", "c1"),
            "GC" => self.gc(&["live"]),
            "STATUS" => {
                let call = self.ipam.plugin().call_without_attachment("STATUS");
                run_quickly(&mut call.bare_command(), call.input())
            }
            "list" | "check" => {
                let mut command = Command::new(plugin("vlan-bridge-ipam"));
                command.arg(verb).arg("--data-dir").arg(self.ipam.node.data_dir());
                run_quickly(command.env_remove("CNI_COMMAND"), b"")
            }
            _ => self.call(verb, "c1"),
        }
    }

    fn gc(&self, keep: &[&str]) -> Outcome {
        let keep: Vec<_> = keep.iter().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect();
        let plugin = self.ipam.plugin().with("cni.dev/valid-attachments", keep.into());
        let call = plugin.call_without_attachment("GC");
        run_quickly(&mut call.bare_command(), call.input())
    }

    fn path(&self, kind: Kind) -> PathBuf {
        match kind {
            Kind::Lease => self.ipam.store().join("10.1.0.3"),
            Kind::Record => self.ipam.side().join("owners/c1:eth0"),
            Kind::Table => self.ipam.side().join(TABLE),
            Kind::Index => self.ipam.side().join("index"),
            Kind::Last => self.ipam.store().join("last_reserved_ip.0"),
            Kind::Lock => self.ipam.store().join("lock"),
            Kind::Draft => self.ipam.store().join(".claim"),
            Kind::Verdicts => self.ipam.side().join("verdicts"),
            Kind::Owners => self.ipam.side().join("owners"),
            Kind::Ranges => self.ipam.side().join("ranges"),
        }
    }

    fn damage(&self, kind: Kind, damage: Damage) {
        let path = self.path(kind);
        let sound = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else if matches!(damage, Damage::Missing | Damage::Directory | Damage::Pipe | Damage::Link) {
            // Other damage overwrites the file, so that the directory does not change.
            let _ = fs::remove_file(&path);
        }
        match damage {
            Damage::Missing => {}
            Damage::Empty => fs::write(&path, "").unwrap(),
            Damage::Torn => fs::write(&path, &sound[..sound.len() / 2]).unwrap(),
            Damage::Binary => fs::write(&path, [0xff, 0xfe, 0, 1].repeat(200)).unwrap(),
            Damage::Huge => File::create(&path).unwrap().set_len(1 << 30).unwrap(),
            Damage::Foreign => fs::write(&path, foreign(kind, &sound)).unwrap(),
            Damage::Directory => fs::create_dir(&path).unwrap(),
            Damage::Pipe => integration::run(Command::new("mkfifo").arg(&path)).expect_ok().stdout.clear(),
            Damage::Link => {
                fs::write(&self.outside, "c1\r\neth0").unwrap();
                symlink(&self.outside, &path).unwrap();
            }
        }
    }

    /// Removes a foreign file by hand, as the message says.
    fn remove_by_hand(&self, kind: Kind, damage: Damage) {
        let path = self.path(kind);
        match damage {
            Damage::Directory if path.is_dir() => fs::remove_dir_all(&path).unwrap(),
            Damage::Pipe | Damage::Link if is_special(&path) => fs::remove_file(&path).unwrap(),
            // A file in the place of a directory.
            _ if matches!(kind, Kind::Owners | Kind::Ranges) && path.is_file() => {
                fs::remove_file(&path).unwrap();
            }
            _ => {}
        }
    }

    /// Returns the holder of each address. No address may have two.
    fn holders(&self) -> BTreeMap<String, String> {
        let held = self.ipam.node.leases(NETWORK).into_iter();
        let read = |addr: &String| {
            let path = self.ipam.store().join(addr);
            if !fs::symlink_metadata(&path).unwrap().is_file() {
                return "not a file".to_owned();
            }
            let mut bytes = Vec::new();
            File::open(path).unwrap().take(100).read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        held.map(|addr| (addr.clone(), read(&addr))).collect()
    }
}

fn is_special(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// A valid file of that kind from another store.
fn foreign(kind: Kind, sound: &[u8]) -> Vec<u8> {
    match kind {
        Kind::Lease | Kind::Draft => b"other\r\neth0".to_vec(),
        Kind::Record => br#"{"addresses":["10.1.0.2","10.1.0.5"],"boot":"another","since":7}"#.to_vec(),
        // Every address is held or was passed by the search, and none is free.
        Kind::Table => {
            let mut table = sound[..32].to_vec();
            table[8..28].fill(0);
            table.extend([1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0].repeat(8));
            table
        }
        Kind::Index => {
            String::from_utf8_lossy(sound).replace("10.1.0.1-10.1.0.6", "10.9.0.1-10.9.0.6").into()
        }
        Kind::Last => b"192.0.2.7".to_vec(),
        Kind::Verdicts => br#"{"boot":"another","clear":{},"quarantined":{}}"#.to_vec(),
        Kind::Lock | Kind::Owners | Kind::Ranges => b"other".to_vec(),
    }
}

/// A call on a damaged store, and the checks that always hold.
fn judge(ipam: &Ipam, kind: Kind, damage: Damage, verb: &str) {
    let case = Case::new(ipam);
    let what = format!("{verb} with {kind:?} {damage:?}");
    case.damage(kind, damage);
    let outcome = case.perform(verb);
    if !outcome.ok() {
        assert!(outcome.status.code().is_some() && !outcome.stderr.is_empty(), "{what}: {outcome}");
        if verb != "list" && verb != "check" {
            assert!(outcome.error_code() < 999, "{what}: {outcome}");
        }
    }
    let held = case.holders();
    assert_eq!(held["10.1.0.2"], "live\r\neth0", "{what}: {outcome}");
    let c1_is_there = held.get("10.1.0.3").is_some_and(|lease| lease == "c1\r\neth0");
    let is_given_up = matches!(verb, "DEL" | "GC") || kind == Kind::Lease;
    assert!(c1_is_there || is_given_up, "{what}: {held:?}\n{outcome}");
    // If a record was lost without a trace, only GC notices.
    let is_lost = matches!(
        (kind, damage),
        (Kind::Record, Damage::Missing | Damage::Foreign) | (Kind::Owners, Damage::Directory)
    );
    if outcome.ok() && (verb == "GC" || verb == "DEL" && !is_lost) {
        assert!(!c1_is_there, "{what} released nothing");
    }
    if let Ok(text) = fs::read_to_string(&case.outside) {
        assert_eq!(text, "c1\r\neth0", "{what} wrote through the link");
    }

    // From here on the store is right. No held address is assigned, and every free address is.
    case.remove_by_hand(kind, damage);
    case.call("CHECK", "live").expect_ok();
    let mut held = case.holders();
    while held.len() < CAPACITY {
        let addr = case.call("ADD", &format!("all{}", held.len())).result().address();
        let before = held.insert(addr.clone(), "new".into());
        assert!(before.is_none_or(|lease| lease.is_empty()), "{what}: {addr} was given twice");
        assert!(case.holders().len() >= held.len(), "{what}");
    }
    assert_eq!(case.call("ADD", "more").error_code(), 11, "{what}");
    case.gc(&[]).expect_ok();
    let left = case.holders();
    assert!(left.values().all(|lease| !lease.contains("eth0")), "{what}: {left:?}");
}

#[test]
fn whatever_is_damaged_no_live_lease_is_lost_and_no_address_doubled() {
    let end = format!("10.1.0.{}", 1 + CAPACITY);
    let ipam = Ipam::new(json!({"subnet": "10.1.0.0/24", "rangeEnd": end, "statusOnExhaustion": true}));
    let mut wrong = Vec::new();
    for kind in KINDS {
        for damage in DAMAGES {
            for verb in VERBS {
                if catch_unwind(AssertUnwindSafe(|| judge(&ipam, kind, damage, verb))).is_err() {
                    wrong.push(format!("{verb} with {kind:?} {damage:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
