//! A reboot releases every lease. Here it is a bind mount over the boot ID, in the mount namespace of each
//! call.

use crate::ipam::Ipam;
use integration::{Attachment, Outcome, eth0};
use serde_json::json;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Calls of our plugin in another boot than the machine's own.
struct Boot<'a> {
    ipam: &'a Ipam,
    script: String,
}

impl<'a> Boot<'a> {
    fn new(ipam: &'a Ipam, number: u32) -> Boot<'a> {
        let file = ipam.node.folder().path().join(format!("boot{number}"));
        fs::write(&file, format!("00000000-0000-0000-0000-{number:012}\n")).unwrap();
        let script =
            format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$0\"", file.display());
        Boot { ipam, script }
    }

    #[track_caller]
    fn call(&self, verb: &str, attachment: &Attachment) -> Outcome {
        self.ipam.plugin().call(verb, attachment).run_under(&["sh", "-c", &self.script])
    }

    #[track_caller]
    fn add(&self, id: &str) -> Outcome {
        self.call("ADD", &eth0(id))
    }
}

/// Sets the time at which a lease was written.
fn written(ipam: &Ipam, addr: &str, at: SystemTime) {
    set_modified(&ipam.store().join(addr), at);
}

fn set_modified(path: &Path, at: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn addresses_of_the_last_boot_are_free_at_once() {
    let ipam = Ipam::until(5);
    let (one, two) = (Boot::new(&ipam, 1), Boot::new(&ipam, 2));
    for i in 0..4 {
        one.add(&format!("c{i}")).expect_ok();
    }
    assert_eq!(one.add("c1").error_code(), 110);
    assert_eq!(one.add("c4").error_code(), 11);
    // Also with the same ID, which podman uses again.
    for i in (0..4).rev() {
        two.add(&format!("c{i}")).expect_ok();
    }
    assert_eq!(two.add("c1").error_code(), 110);
    assert_eq!((ipam.leases().len(), ipam.records().len()), (4, 4));
}

#[test]
fn check_after_a_reboot_fails_and_a_late_del_frees_nothing_of_others() {
    let ipam = Ipam::until(2);
    let (one, two) = (Boot::new(&ipam, 1), Boot::new(&ipam, 2));
    one.add("c1").expect_ok();
    one.call("CHECK", &eth0("c1")).expect_ok();
    assert_eq!(two.call("CHECK", &eth0("c1")).error_code(), 101);
    two.add("c2").expect_ok();
    two.call("DEL", &eth0("c1")).expect_ok();
    assert_eq!(ipam.leases()["10.1.0.2"], "c2\r\neth0");
}

#[test]
fn what_host_local_wrote_is_stamped_when_it_is_seen_first() {
    let ipam = Ipam::until(5);
    let (one, two, three) = (Boot::new(&ipam, 1), Boot::new(&ipam, 2), Boot::new(&ipam, 3));
    // A clock that was set back or forward makes no difference.
    ipam.host_local().add(&eth0("seen")).expect_ok();
    written(&ipam, "10.1.0.2", SystemTime::now() + DAY);
    one.add("c1").expect_ok();
    ipam.host_local().add(&eth0("unseen")).expect_ok();
    written(&ipam, "10.1.0.4", SystemTime::UNIX_EPOCH + DAY);
    two.add("c2").expect_ok();
    let holders = |ipam: &Ipam| ipam.leases().into_values().collect::<Vec<_>>();
    assert_eq!(holders(&ipam), ["unseen\r\neth0", "c2\r\neth0"], "seen in boot 1 is free in boot 2");
    three.call("DEL", &eth0("nobody")).expect_ok();
    assert!(ipam.leases().is_empty(), "first seen in boot 2 is free in boot 3");
}

#[test]
fn a_container_that_host_local_started_again_is_another_one() {
    let ipam = Ipam::until(5);
    let (one, two, three) = (Boot::new(&ipam, 1), Boot::new(&ipam, 2), Boot::new(&ipam, 3));
    one.add("c1").expect_ok();
    ipam.host_local().del(&eth0("c1")).expect_ok();
    ipam.host_local().add(&eth0("c1").args("IP=10.1.0.2")).expect_ok();
    two.add("c2").expect_ok();
    assert_eq!(ipam.leases()["10.1.0.2"], "c1\r\neth0", "what was known of it was of the one before");
    three.add("c3").expect_ok();
    assert_eq!(ipam.leases().into_values().collect::<Vec<_>>(), ["c3\r\neth0"], "it was seen in boot 2");
}

#[test]
fn what_host_local_left_over_does_not_block_an_add_for_the_same_container() {
    let ipam = Ipam::new(json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}));
    ipam.host_local().add(&eth0("c0")).expect_ok();
    ipam.host_local().add(&eth0("c1")).expect_ok();
    assert_eq!(ipam.plugin().add(&eth0("c1")).error_code(), 110, "written since the machine was booted");
    for addr in ["10.1.0.3", "10.2.0.3"] {
        written(&ipam, addr, SystemTime::UNIX_EPOCH + DAY);
    }
    // No other pod may get them, because the clock may be wrong.
    let result = ipam.plugin().add(&eth0("c1")).result();
    assert_eq!(
        result.ips.iter().map(|ip| ip.address.to_string()).collect::<Vec<_>>(),
        ["10.1.0.3/24", "10.2.0.3/24"]
    );
    assert_eq!(ipam.plugin().add(&eth0("c1")).error_code(), 110, "now it is known to be of this boot");
    ipam.plugin().del(&eth0("c1")).expect_ok();
    assert_eq!(ipam.leases().len(), 2);
}

/// Replaces a file's content as a power cut may do: its name and times stay.
fn tear(path: &Path, content: &[u8]) {
    let written = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, content).unwrap();
    set_modified(path, written);
}

#[test]
fn a_power_cut_leaves_anything() {
    let garbage: [&[u8]; 5] = [b"", b"c", b"\xff\xfe\x00\x01", &[0; 100_000], b"{\"addresses\":"];
    for (number, content) in garbage.iter().enumerate() {
        let ipam = Ipam::until(5);
        let (one, two) = (Boot::new(&ipam, 1), Boot::new(&ipam, 2));
        for i in 0..3 {
            one.add(&format!("c{i}")).expect_ok();
        }
        let torn = [
            ipam.store().join("10.1.0.2"),
            ipam.store().join("last_reserved_ip.0"),
            ipam.side().join("index"),
            ipam.side().join("owners/c1:eth0"),
            ipam.side().join("ranges/10.1.0.1-10.1.0.5"),
        ];
        for path in &torn {
            tear(path, content);
        }
        // c0's lease is repaired, or gone with its boot. c1's lease has lost its record and is kept. c2's
        // lease is released.
        let outcome = two.add("c0").expect_ok();
        assert!(outcome.stderr.contains("owners/c1:eth0: not a record"), "{number}: {outcome}");
        assert_eq!(ipam.leases()["10.1.0.3"], "c1\r\neth0", "{number}");
        assert_eq!(two.add("c5").result().address().len(), 8);
        two.call("DEL", &eth0("c1")).expect_ok();
        for i in 6..8 {
            two.add(&format!("c{i}")).expect_ok();
        }
        assert_eq!(two.add("c8").error_code(), 11, "{number}");
    }
}

#[test]
fn torn_files_of_this_boot_are_repaired() {
    let garbage: [&[u8]; 4] = [b"", b"c", b"\xff\xfe\x00\x01", &[0; 100_000]];
    for content in garbage {
        for file in ["10.1.0.2", "index", "owners/c0:eth0", "ranges/10.1.0.1-10.1.0.5"] {
            let ipam = Ipam::until(5);
            ipam.plugin().add(&eth0("c0")).expect_ok();
            let path = if file.starts_with("10.") { ipam.store() } else { ipam.side() }.join(file);
            tear(&path, content);
            for i in 1..4 {
                ipam.plugin().add(&eth0(&format!("c{i}"))).expect_ok();
            }
            assert_eq!(ipam.plugin().add(&eth0("more")).error_code(), 11, "{file}");
            for i in 0..4 {
                ipam.plugin().del(&eth0(&format!("c{i}"))).expect_ok();
            }
            assert!(ipam.leases().is_empty(), "{file}: {content:?}");
        }
    }
}
