//! A `dataDir` that two machines share, or that was copied. The leases of another machine stay, and their
//! addresses are never assigned. A machine is a bind mount over `/etc/machine-id` and the boot ID, in the
//! mount namespace of each call.

use crate::ipam::{Ipam, NETWORK};
use integration::{Attachment, Outcome, Plugin, Pod, eth0, plugin, run};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::process::Command;
use std::time::SystemTime;

/// One machine in one boot.
struct Machine<'a> {
    ipam: &'a Ipam,
    script: String,
}

impl<'a> Machine<'a> {
    /// With this content of `/etc/machine-id`.
    fn new(ipam: &'a Ipam, id: &str, boot: u32) -> Machine<'a> {
        let folder = ipam.node.folder().path();
        let (machine, booted) =
            (folder.join(format!("id-{}", id.trim())), folder.join(format!("boot{boot}")));
        fs::write(&machine, id).unwrap();
        fs::write(&booted, format!("00000000-0000-0000-0000-{boot:012}\n")).unwrap();
        let script = format!(
            "mount --bind {} /etc/machine-id && mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"",
            machine.display(),
            booted.display()
        );
        Machine { ipam, script }
    }

    fn run_of(&self, plugin: &Plugin<'_>, verb: &str, attachment: &Attachment) -> Outcome {
        plugin.call(verb, attachment).run_under(&["sh", "-c", &self.script])
    }

    fn call(&self, verb: &str, id: &str) -> Outcome {
        self.run_of(&self.ipam.plugin(), verb, &eth0(id))
    }

    fn add(&self, id: &str) -> String {
        self.call("ADD", id).result().address()
    }

    fn gc(&self) -> Outcome {
        let plugin = self.ipam.plugin().with("cni.dev/valid-attachments", json!([]));
        plugin.call_without_attachment("GC").run_under(&["sh", "-c", &self.script])
    }

    fn ask(&self, line: &str) -> Outcome {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &self.script]);
        command.arg(plugin("vlan-bridge-ipam")).args(line.split_whitespace());
        run(command.arg("--data-dir").arg(self.ipam.node.data_dir()).env_remove("CNI_COMMAND"))
    }
}

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n";

#[test]
fn what_another_machine_holds_is_left_alone_and_never_given() {
    // With their own boots, and with a common one, as with containers that play nodes.
    for boot in [2, 1] {
        let ipam = Ipam::until(3);
        let (a, b) = (Machine::new(&ipam, A, 1), Machine::new(&ipam, B, boot));
        // From this machine, the namespace looks gone.
        let gone = Pod::new();
        let held = a.run_of(&ipam.plugin(), "ADD", &gone.eth0()).result().address();
        let id = gone.eth0().id;
        drop(gone);
        let before = ipam.leases()[&held].clone();
        assert_ne!(b.add("c2"), held);
        let full = b.call("ADD", "c3");
        assert_eq!(full.error_code(), 11, "{full}");
        assert!(full.error_text().contains(A.trim()), "{full}");
        b.call("DEL", &id).expect_ok();
        b.gc().expect_ok();
        b.ask("check").expect_ok();
        assert_eq!(ipam.leases(), [(held.clone(), before)].into(), "boot {boot}");
        let again = b.call("ADD", &id);
        assert_eq!(again.error_code(), 110, "{again}");
        assert!(again.error_text().contains(A.trim()), "{again}");
        a.call("CHECK", &id).expect_ok();
        assert_eq!(b.call("CHECK", &id).error_code(), 101);
        // Its own machine releases it as usual.
        a.call("DEL", &id).expect_ok();
        assert!(ipam.leases().is_empty());
    }
}

#[test]
fn a_machine_that_was_booted_has_its_own_back_and_not_anothers() {
    let ipam = Ipam::until(4);
    let (a, b) = (Machine::new(&ipam, A, 1), Machine::new(&ipam, B, 2));
    let of_a = a.add("c1");
    let of_b = b.add("c2");
    Machine::new(&ipam, A, 3).add("c3");
    let leases = ipam.leases();
    assert!(!leases.values().any(|lease| lease == "c1\r\neth0"), "{of_a}: {leases:?}");
    assert_eq!(leases[&of_b], "c2\r\neth0");
}

#[test]
fn the_log_and_the_tool_name_the_other_machine_and_the_cure() {
    let ipam = Ipam::until(5);
    let (a, b) = (Machine::new(&ipam, A, 1), Machine::new(&ipam, B, 2));
    let held = a.add("c1");
    let outcome = b.call("ADD", "c2").expect_ok();
    let cure = format!("vlan-bridge-ipam release --machine {}", A.trim());
    assert!(outcome.stderr.contains(&cure) && outcome.stderr.contains("WARN"), "{outcome}");
    let check = b.ask("check").expect_ok();
    assert!(check.stdout.contains(&cure), "{check}");
    let shown = b.ask(&format!("show {held}")).expect_ok();
    assert!(shown.stdout.contains(A.trim()), "{shown}");
    assert!(b.ask("list").expect_ok().stdout.contains("elsewhere"));
    assert!(!b.ask(&format!("release {held} --yes")).ok());
    assert!(!b.ask("release --machine unknown --yes").ok());
    assert_eq!(ipam.leases().len(), 2);
    b.ask(&format!("release --machine {} --yes", A.trim())).expect_ok();
    assert_eq!(ipam.leases().into_values().collect::<Vec<_>>(), ["c2\r\neth0"]);
    assert_eq!(ipam.records(), ["c2:eth0"]);
}

#[test]
fn records_of_before_machines_were_noted_are_ours() {
    let ipam = Ipam::until(3);
    let (a, later) = (Machine::new(&ipam, A, 1), Machine::new(&ipam, A, 2));
    a.add("c1");
    let path = ipam.side().join("owners").join("c1:eth0");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(record.as_object_mut().unwrap().remove("machine"), Some(A.trim().into()));
    fs::write(&path, record.to_string()).unwrap();
    a.call("CHECK", "c1").expect_ok();
    later.call("DEL", "c2").expect_ok();
    assert!(ipam.leases().is_empty());
}

#[test]
fn a_machine_without_an_identity_works_as_before_and_leaves_others_alone() {
    for none in ["", "uninitialized\n"] {
        let ipam = Ipam::until(3);
        let a = Machine::new(&ipam, A, 1);
        let (nobody, booted) = (Machine::new(&ipam, none, 2), Machine::new(&ipam, none, 3));
        let held = a.add("c1");
        nobody.add("c2");
        nobody.call("CHECK", "c2").expect_ok();
        booted.add("c3");
        let leases = ipam.leases();
        assert_eq!((leases.len(), leases[&held].as_str()), (2, "c1\r\neth0"), "{leases:?}");
    }
}

#[test]
fn a_backup_that_brought_the_time_of_the_mark_back_is_found_out() {
    let ipam = Ipam::until(5);
    ipam.plugin().add(&eth0("c1")).expect_ok();
    let dir = ipam.store();
    let mark = fs::metadata(&dir).unwrap().modified().unwrap();
    // A restore in place: files come and go, and the directory's time is set back.
    fs::write(dir.join("10.1.0.3"), "restored\r\neth0").unwrap();
    let handle = File::open(&dir).unwrap();
    handle.set_modified(mark).unwrap();
    assert!(mark < SystemTime::now());
    assert_eq!(ipam.plugin().add(&eth0("c2")).result().address(), "10.1.0.4");
    assert_eq!(ipam.records(), ["c1:eth0", "c2:eth0", "restored:eth0"]);
    assert!(ipam.node.data_dir().join(NETWORK).is_dir());
}
