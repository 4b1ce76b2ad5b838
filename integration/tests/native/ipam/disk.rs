//! A store on a disk that is full, out of inodes or read-only: a small tmpfs in a mount namespace of its own.

use crate::ipam::{Ipam, here};
use integration::{Outcome, eth0, note};
use nix::mount::{MsFlags, mount};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const CAPACITY: usize = 6;
/// More pages or inodes than a first ADD needs.
const PLENTY: u32 = 14;

struct Disk<'a> {
    ipam: &'a Ipam,
}

impl Disk<'_> {
    fn call(&self, verb: &str, id: &str) -> Outcome {
        here(&self.ipam.plugin().call(verb, &eth0(id)))
    }

    fn status(&self) -> Outcome {
        here(&self.ipam.plugin().call_without_attachment("STATUS"))
    }

    fn gc(&self) -> Outcome {
        let plugin = self.ipam.plugin().with("cni.dev/valid-attachments", json!([]));
        here(&plugin.call_without_attachment("GC"))
    }

    fn remount(&self, flags: MsFlags) {
        let path = self.ipam.node.data_dir();
        mount(None::<&str>, &path, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.ipam.node.data_dir().join("ballast")
    }

    /// Fills the disk except for so many pages.
    fn fill(&self, pages: u32) {
        let mut file = File::create(self.ballast()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        let len = file.metadata().unwrap().len().next_multiple_of(4096);
        file.set_len(len - u64::from(pages) * 4096).unwrap();
    }

    /// Uses the inodes except for so many.
    fn use_up(&self, inodes: u32) {
        fs::create_dir(self.ballast()).unwrap();
        let mut made = Vec::new();
        while File::create(self.ballast().join(made.len().to_string())).is_ok() {
            made.push(self.ballast().join(made.len().to_string()));
        }
        for path in made.iter().take(inodes as usize) {
            fs::remove_file(path).unwrap();
        }
    }

    /// Every address can be assigned once, and released.
    fn is_right(&self) {
        let mut held: BTreeSet<String> = self.ipam.leases().into_keys().collect();
        for i in held.len()..CAPACITY {
            let addr = self.call("ADD", &format!("all{i}")).result().address();
            assert!(held.insert(addr.clone()), "{addr} was given twice");
        }
        assert_eq!(self.call("ADD", "more").error_code(), 11);
        self.status().expect_ok();
        self.gc().expect_ok();
        assert!(self.ipam.leases().is_empty() && self.ipam.records().is_empty());
    }
}

/// A store on a disk with these limits.
fn on_a_disk(options: &str, work: impl FnOnce(&Disk<'_>) + Send) {
    let end = json!(format!("10.1.0.{}", 1 + CAPACITY));
    let ipam = Ipam::new(json!({"subnet": "10.1.0.0/24", "rangeEnd": end}));
    let path = ipam.node.data_dir();
    fs::create_dir_all(&path).unwrap();
    ipam.node.enter(|| {
        let options = format!("mode=0755,{options}");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        work(&Disk { ipam: &ipam });
    });
}

/// With any little space, an ADD works, or fails with a reason and claims nothing.
fn however_little_is_left(options: &str, scarce: &str, leave: fn(&Disk<'_>, u32)) {
    let failures = AtomicU32::new(0);
    for left in 0..=PLENTY {
        for has_store in [false, true] {
            on_a_disk(options, |disk| {
                if has_store {
                    for id in ["c1", "c2", "gone"] {
                        disk.call("ADD", id).expect_ok();
                    }
                    disk.call("DEL", "gone").expect_ok();
                }
                leave(disk, left);
                let before = (disk.ipam.leases(), disk.ipam.records());
                let status = disk.status();
                let outcome = disk.call("ADD", "c3");
                if outcome.ok() {
                    assert!(disk.ipam.leases().values().any(|lease| lease == "c3\r\neth0"));
                } else {
                    failures.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(outcome.error_code(), 5, "{outcome}");
                    assert!(outcome.error_text().contains(scarce), "{outcome}");
                    assert_eq!((disk.ipam.leases(), disk.ipam.records()), before, "{left} left\n{outcome}");
                }
                if left == 0 {
                    assert_eq!(status.error_code(), 50, "{status}");
                    assert!(status.error_text().contains(scarce), "{status}");
                }
                if has_store {
                    disk.call("CHECK", "c1").expect_ok();
                    disk.call("DEL", "c1").expect_ok();
                    assert!(!disk.ipam.leases().values().any(|lease| lease == "c1\r\neth0"));
                    disk.call("DEL", "c3").expect_ok();
                }
                if fs::remove_file(disk.ballast()).is_err() {
                    fs::remove_dir_all(disk.ballast()).unwrap();
                }
                disk.is_right();
            });
        }
    }
    let failures = failures.into_inner();
    note(&format!("{failures} of {} ADDs failed", 2 * (PLENTY + 1)));
    assert!((5..2 * PLENTY).contains(&failures), "{failures} ADDs failed");
}

#[test]
fn a_full_disk() {
    however_little_is_left("size=256k", "No space left on device", |disk, pages| disk.fill(pages));
}

#[test]
fn a_disk_without_inodes() {
    however_little_is_left("nr_inodes=64", "No space left on device", |disk, inodes| disk.use_up(inodes));
}

#[test]
fn a_read_only_disk() {
    on_a_disk("size=256k", |disk| {
        for id in ["c1", "c2"] {
            disk.call("ADD", id).expect_ok();
        }
        disk.remount(MsFlags::MS_RDONLY);
        let before = (disk.ipam.leases(), disk.ipam.records());
        for (outcome, code) in
            [(disk.call("ADD", "c3"), 5), (disk.call("DEL", "c1"), 5), (disk.gc(), 5), (disk.status(), 50)]
        {
            assert_eq!(outcome.error_code(), code, "{outcome}");
            assert!(outcome.error_text().contains("Read-only file system"), "{outcome}");
        }
        assert_eq!((disk.ipam.leases(), disk.ipam.records()), before);
        disk.remount(MsFlags::empty());
        disk.call("CHECK", "c1").expect_ok();
        disk.call("DEL", "c1").expect_ok();
        disk.is_right();
    });
}
