//! No file outside of `dataDir` is read, written or removed, neither through links inside nor through names.

use crate::ipam::Ipam;
use integration::{Outcome, eth0, plugin, run_quickly};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const VERBS: [&str; 7] = ["ADD", "CHECK", "DEL", "GC", "STATUS", "list", "check"];

fn perform(ipam: &Ipam, verb: &str) -> Outcome {
    let attachment = eth0(if verb == "ADD" { "new" } else { "c1" });
    let plugin_of_all = ipam.plugin().with("cni.dev/valid-attachments", json!([]));
    let call = match verb {
        "list" | "check" => {
            let mut command = Command::new(plugin("vlan-bridge-ipam"));
            command.args([verb, "--network", crate::ipam::NETWORK, "--data-dir"]);
            return run_quickly(command.arg(ipam.node.data_dir()).env_remove("CNI_COMMAND"), b"");
        }
        "GC" | "STATUS" => plugin_of_all.call_without_attachment(verb),
        _ => ipam.plugin().call(verb, &attachment),
    };
    run_quickly(&mut call.bare_command(), call.input())
}

/// Every file below a folder: its mode and content.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let content = if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if kind.is_dir() {
            found.extend(tree(&path));
        }
        found.insert(path, (mode, content));
    }
    found
}

fn with_a_lease() -> Ipam {
    let ipam = Ipam::until(5);
    ipam.plugin().add(&eth0("c1")).expect_ok();
    ipam
}

/// The directories of a store, the outermost last.
fn directories(ipam: &Ipam) -> [PathBuf; 5] {
    let (data, side) = (ipam.node.data_dir(), ipam.side());
    [ipam.store(), side.join("owners"), side.join("ranges"), side, data.join(".vlan-bridge")]
}

#[test]
fn a_link_in_the_place_of_a_directory_is_refused() {
    let ipam = with_a_lease();
    let outside = ipam.node.folder().path().join("outside");
    for path in directories(&ipam) {
        // The link's target looks like the store itself.
        fs::rename(&path, &outside).unwrap();
        symlink(&outside, &path).unwrap();
        let before = tree(&outside);
        for verb in VERBS {
            let outcome = perform(&ipam, verb);
            let text = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(!outcome.ok() && text.contains("is a symbolic link"), "{}: {outcome}", path.display());
            assert!(text.contains(path.to_str().unwrap()), "{outcome}");
            assert_eq!(tree(&outside), before, "{verb} with {}", path.display());
        }
        // A dangling link is not followed to make its target.
        let away = outside.with_extension("away");
        fs::rename(&outside, &away).unwrap();
        for verb in VERBS {
            let outcome = perform(&ipam, verb);
            assert!(!outcome.ok() && !outside.exists(), "{verb} with {}: {outcome}", path.display());
        }
        fs::remove_file(&path).unwrap();
        fs::rename(&away, &path).unwrap();
    }
    perform(&ipam, "CHECK").expect_ok();
}

#[test]
fn everything_is_its_owners_alone_and_must_be() {
    let ipam = with_a_lease();
    for (path, (mode, _)) in tree(&ipam.node.data_dir()) {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        // The directory of leases is made with its parents, as host-local does.
        let expected = if path == ipam.store() { 0o755 } else { expected };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    }
    let data_dir = ipam.node.data_dir();
    for path in directories(&ipam).into_iter().chain([data_dir]) {
        let mode = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        for verb in VERBS {
            let outcome = perform(&ipam, verb);
            let text = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(!outcome.ok() && text.contains("is writable by everybody"), "{verb}: {outcome}");
            assert!(text.contains(path.to_str().unwrap()), "{verb}: {outcome}");
        }
        fs::set_permissions(&path, mode).unwrap();
    }
    perform(&ipam, "CHECK").expect_ok();
}

#[test]
fn no_name_leads_out_of_the_data_directory() {
    let ipam = with_a_lease();
    let folder = ipam.node.folder().path();
    fs::create_dir(folder.join("x")).unwrap();
    for name in ["x", "leases/x", "x/10.1.0.2", "x/eth0"] {
        let _ = fs::write(folder.join(name), "c1\r\neth0");
    }
    let before = tree(folder);
    let refused = |verb: &str, network: &str, id: &str, ifname: &str| {
        let plugin = ipam.plugin().with("name", json!(network));
        let call = plugin.call(verb, &eth0(id)).env("CNI_IFNAME", ifname);
        let outcome = run_quickly(&mut call.bare_command(), call.input());
        assert!([4, 7].contains(&outcome.error_code()), "{outcome}");
        assert_eq!(tree(folder), before, "{verb} {network:?} {id:?} {ifname:?}");
    };
    for verb in ["ADD", "CHECK", "DEL"] {
        for name in ["../x", "..", ".", "/etc", "a/b", "x/../../x", "", "a\0b", ".vlan-bridge", "a b"] {
            refused(verb, name, "c1", "eth0");
        }
        for name in ["../x", "..", "a/b", "/etc/passwd", "a\nb", "a:b", "", "a b"] {
            refused(verb, crate::ipam::NETWORK, name, "eth0");
        }
        for name in ["../x", "..", ".", "a/b", "/x", "a\nb", "a:b", "", "a b"] {
            refused(verb, crate::ipam::NETWORK, "c1", name);
        }
    }
}
