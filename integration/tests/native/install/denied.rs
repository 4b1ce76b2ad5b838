//! `vlan-bridgectl install` without write permission. The message names owner, mode, label and mount with the
//! right values, and nothing is touched.

use integration::{Ctl, Node, Outcome, not_tried, product, run};
use nix::errno::Errno;
use nix::libc;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

const INSTALL: &str = "install --name local --subnet 10.22.0.0/16";

/// Root without capabilities, as in the DaemonSet's containers.
fn install_bare(ctl: &Ctl<'_>) -> Outcome {
    let tool = product().join("vlan-bridgectl");
    let bare = "--bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs";
    run(&mut ctl.command_of(Path::new("setpriv"), &format!("{bare} {} {INSTALL}", tool.display())))
}

#[track_caller]
fn refused(ctl: &Ctl<'_>, outcome: &Outcome, named: &[&str]) {
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    for name in named {
        assert!(outcome.stderr.contains(name), "{name} is not in {outcome}");
    }
    for path in ["/opt/cni/bin/vlan-bridge", "/etc/cni/net.d/10-local.conflist", "/var/lib/vlan-bridge"] {
        assert!(!ctl.has(path), "{path} is there: {outcome}");
    }
}

#[test]
fn a_folder_of_somebody_else_is_named_with_its_owner_and_mode() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let folder = ctl.path("/opt/cni/bin");
    fs::create_dir_all(&folder).unwrap();
    chown(&folder, Some(1999), Some(1998)).unwrap();
    let facts = "/opt/cni/bin: cannot write into it: Permission denied (os error 13): \
                 /opt/cni/bin has owner 1999, group 1998, mode 0755";
    refused(
        &ctl,
        &install_bare(&ctl),
        &[facts, "root without CAP_DAC_OVERRIDE: chown 0 /opt/cni/bin", "foreign-owner"],
    );
    chown(&folder, Some(0), Some(0)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    refused(&ctl, &install_bare(&ctl), &["owner 0, group 0, mode 0555", "chmod u+rwx /opt/cni/bin"]);
    // Normal root may do all this.
    ctl.run(INSTALL).expect_ok();
    assert!(ctl.has("/opt/cni/bin/vlan-bridge"));
}

#[test]
fn the_folder_of_lists_is_looked_at_before_plugins_are_written() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let folder = ctl.path("/etc/cni");
    fs::create_dir_all(&folder).unwrap();
    chown(&folder, Some(1999), None).unwrap();
    refused(&ctl, &install_bare(&ctl), &["/etc/cni/net.d: cannot write into it", "/etc/cni has owner 1999"]);
}

#[test]
fn a_label_is_named_too() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let folder = ctl.path("/opt/cni/bin");
    fs::create_dir_all(&folder).unwrap();
    chown(&folder, Some(1999), None).unwrap();
    let (path, label) = (CString::new(folder.as_os_str().as_bytes()).unwrap(), b"system_u:object_r:usr_t:s0");
    // SAFETY: both strings end in NUL, and the length of the value is right.
    let set = unsafe {
        libc::setxattr(path.as_ptr(), c"security.selinux".as_ptr(), label.as_ptr().cast(), label.len(), 0)
    };
    if set != 0 {
        return not_tried(&format!("no label can be set here ({})", Errno::last()));
    }
    refused(&ctl, &install_bare(&ctl), &["mode 0755, label system_u:object_r:usr_t:s0"]);
}

#[test]
fn a_mount_that_is_read_only_or_lets_nothing_run_is_named() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    fs::create_dir_all(ctl.path("/opt/cni/bin")).unwrap();
    let mounted = |options: &str| {
        let tool = product().join("vlan-bridgectl");
        let script =
            format!("mount -t tmpfs -o {options} t /opt/cni/bin && exec {} {INSTALL}", tool.display());
        ctl.write("/etc/mounted.sh", &script);
        run(&mut ctl.command_of(Path::new("sh"), "/etc/mounted.sh"))
    };
    refused(
        &ctl,
        &mounted("ro"),
        &[
            "/opt/cni/bin is mounted read-only (mount /opt/cni/bin, options ro,",
            "mount -o remount,rw /opt/cni/bin",
        ],
    );
    let told = mounted("noexec").expect_ok();
    assert!(told.stderr.contains("warning: /opt/cni/bin is mounted noexec"), "{told}");
}
