//! If `vlan-bridge-ipam` is another name of `vlan-bridge`, it runs within the same process. If it is a file
//! of its own, it is executed. There is no other difference.

use crate::attached::Clean;
use integration::{Call, Outcome, Pod, Scratch, peers, plugin};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The form of the IPAM plugin beside the other plugin.
#[derive(Clone, Copy, Debug)]
enum Ipam {
    Linked,
    Copied,
}

impl Ipam {
    const BOTH: [Ipam; 2] = [Ipam::Linked, Ipam::Copied];

    /// A folder with both plugins.
    fn folder(self) -> Scratch {
        let folder = Scratch::new("plugins");
        let [program, ipam] = ["vlan-bridge", "vlan-bridge-ipam"].map(|name| folder.path().join(name));
        copy(&plugin("vlan-bridge"), &program);
        match self {
            Ipam::Linked => fs::hard_link(program, ipam).unwrap(),
            Ipam::Copied => copy(&program, &ipam),
        }
        folder
    }

    fn processes(self) -> usize {
        match self {
            Ipam::Linked => 1,
            Ipam::Copied => 2,
        }
    }
}

/// Copies a program in another process. In this process, a child of another test could inherit the open file,
/// and the kernel does not execute a file that is open for writing.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success(), "{}", to.display());
}

/// A call of the `vlan-bridge` in a folder, which is also `CNI_PATH`.
fn of<'a>(folder: &Scratch, call: Call<'a>) -> Call<'a> {
    call.env("CNI_PATH", folder.path().as_os_str()).program(folder.path().join("vlan-bridge"))
}

/// Runs a call. Returns the number of executed programs too.
fn run_and_count(call: &Call<'_>) -> (Outcome, usize) {
    let scratch = Scratch::new("execve");
    let log = scratch.path().join("log");
    let words = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", log.to_str().unwrap()];
    let outcome = call.run_under(&words);
    let text = fs::read_to_string(&log).unwrap();
    (outcome, text.lines().filter(|line| line.contains("execve(") && line.ends_with("= 0")).count())
}

/// A result without the values that differ between pods and ADDs.
fn shape(result: &Value, pod: &Pod) -> String {
    let netns = pod.eth0().netns.expect("a pod is alive").display().to_string();
    let mut result = result.clone();
    for interface in result["interfaces"].as_array_mut().unwrap() {
        interface["mac"] = Value::Null;
    }
    result.to_string().replace(&netns, "NETNS")
}

#[test]
fn every_verb_takes_one_process_and_answers_the_same_as_with_two() {
    let mut answers = Vec::new();
    for ipam in Ipam::BOTH {
        let (clean, pod, folder) = (Clean::new(), Pod::new(), ipam.folder());
        let plugin = clean.plugin();
        let run = |call: Call<'_>, verb: &str| {
            let (outcome, processes) = run_and_count(&of(&folder, call));
            assert_eq!(processes, ipam.processes(), "{verb} with IPAM {ipam:?}: {outcome}");
            outcome.expect_ok()
        };
        // Its lease only contains the attachment, so that both rounds have the same lease.
        let eth0 = pod.eth0().args("IP=172.20.56.20");
        let added = run(plugin.call("ADD", &eth0), "ADD").json();
        run(plugin.clone().with("prevResult", added.clone()).call("CHECK", &eth0), "CHECK");
        run(plugin.call_without_attachment("STATUS"), "STATUS");
        let gc = plugin.clone().with("cni.dev/valid-attachments", json!([]));
        run(plugin.call("DEL", &eth0), "DEL");
        clean.assert_nothing_left(&pod);
        plugin.add(&eth0).expect_ok();
        run(gc.call_without_attachment("GC"), "GC");
        assert!(clean.site.node.leases("vlan136").is_empty(), "GC released nothing with IPAM {ipam:?}");
        answers.push(shape(&added, &pod).replace(&eth0.id, "ID"));
    }
    assert!(answers[0].contains("172.20.56.20/24"), "{}", answers[0]);
    let veth = |answer: &str| answer.split('"').find(|word| word.starts_with("veth")).map(str::to_owned);
    let [linked, copied] = [0, 1].map(|i: usize| {
        let name = veth(&answers[i]).unwrap();
        answers[i].replace(&name, "VETH")
    });
    assert_eq!(linked, copied);
}

#[test]
fn errors_of_ipam_are_the_same_and_leave_nothing() {
    let rows = [
        (json!({"subnet": "172.20.56.0/24", "slice": "172.20.57.0/28"}), "IP=172.20.56.20"),
        (json!({"subnet": "172.20.56.0/24", "slice": "172.20.56.16/28"}), "IP=172.20.56.200"),
        (json!({"subnet": "172.20.56.0/24", "resolvConf": "/nonexistent"}), "IP=172.20.56.20"),
    ];
    let clean = Clean::new();
    for (mut keys, args) in rows {
        keys["type"] = json!("vlan-bridge-ipam");
        let [linked, copied] = Ipam::BOTH.map(|ipam| {
            let (pod, folder) = (Pod::new(), ipam.folder());
            let call = clean.plugin_with_ipam(keys.clone()).call("ADD", &pod.eth0().args(args));
            let outcome = of(&folder, call).run();
            assert!(!outcome.ok(), "{outcome}");
            clean.assert_nothing_left(&pod);
            outcome.json()
        });
        assert_eq!(linked, copied);
    }
}

#[test]
fn one_log_has_what_both_say() {
    let clean = Clean::new();
    for ipam in Ipam::BOTH {
        let (pod, folder) = (Pod::new(), ipam.folder());
        let log = folder.path().join("log");
        let plugin = clean.plugin().with("logFile", json!(log)).with("logLevel", json!("debug"));
        let mut plugin = plugin.with("surprise", json!(1));
        plugin.conf["ipam"]["surprise"] = json!(1);
        of(&folder, plugin.call("ADD", &pod.eth0())).run().expect_ok();
        let text = fs::read_to_string(&log).unwrap();
        for key in ["surprise", "ipam.surprise"] {
            let about = format!(" {key}: ");
            assert!(text.lines().any(|line| line.contains(&about)), "{key} with IPAM {ipam:?}: {text}");
        }
        clean.plugin().del(&pod.eth0()).expect_ok();
    }
}

#[test]
fn any_other_ipam_plugin_is_executed() {
    let (clean, pod, folder) = (Clean::new(), Pod::new(), Ipam::Linked.folder());
    copy(&peers().join("static"), &folder.path().join("static"));
    let ipam = json!({"type": "static", "addresses": [{"address": "172.20.56.77/24"}]});
    let (outcome, processes) =
        run_and_count(&of(&folder, clean.plugin_with_ipam(ipam).call("ADD", &pod.eth0())));
    assert_eq!(processes, 2, "{outcome}");
    outcome.expect_ok();
    clean.plugin().del(&pod.eth0()).expect_ok();
    clean.assert_nothing_left(&pod);
}

#[test]
fn the_program_is_ipam_under_any_name_that_ipam_type_says() {
    for name in ["site-ipam", "vlan-bridge-ipam.old"] {
        let (clean, pod, folder) = (Clean::new(), Pod::new(), Ipam::Linked.folder());
        copy(&folder.path().join("vlan-bridge"), &folder.path().join(name));
        let ipam = json!({"type": name, "subnet": "172.20.56.0/24", "slice": "172.20.56.16/28"});
        let plugin = clean.plugin_with_ipam(ipam);
        let (added, processes) = run_and_count(&of(&folder, plugin.call("ADD", &pod.eth0())));
        assert_eq!(processes, 2, "{name}: {added}");
        assert_eq!(clean.site.node.leases("vlan136").len(), 1, "{}", added.expect_ok());
        let (deleted, processes) = run_and_count(&of(&folder, plugin.call("DEL", &pod.eth0())));
        assert_eq!(processes, 2, "{name}: {deleted}");
        deleted.expect_ok();
        clean.assert_nothing_left(&pod);
    }
}

#[test]
fn the_program_is_ipam_behind_a_script_and_for_another_main_plugin() {
    let (clean, pod, folder) = (Clean::new(), Pod::new(), Ipam::Linked.folder());
    // The program behind the script may have any name.
    copy(&folder.path().join("vlan-bridge"), &folder.path().join("real"));
    fs::remove_file(folder.path().join("vlan-bridge-ipam")).unwrap();
    let script = format!("#!/bin/sh\nexec {}/real\n", folder.path().display());
    fs::write(folder.path().join("vlan-bridge-ipam"), script).unwrap();
    fs::set_permissions(folder.path().join("vlan-bridge-ipam"), Permissions::from_mode(0o755)).unwrap();
    let plugin = clean.plugin();
    for verb in ["STATUS", "ADD", "DEL"] {
        let call = if verb == "STATUS" {
            plugin.call_without_attachment(verb)
        } else {
            plugin.call(verb, &pod.eth0())
        };
        let (outcome, processes) = run_and_count(&of(&folder, call));
        assert_eq!(processes, 3, "{verb}: {outcome}");
        outcome.expect_ok();
    }
    clean.assert_nothing_left(&pod);

    copy(&folder.path().join("vlan-bridge"), &folder.path().join("site-ipam"));
    let list = clean.site.node.list(
        "other",
        &[json!({"type": "bridge", "bridge": "cni0", "ipam":
        {"type": "site-ipam", "subnet": "10.22.0.0/24"}})],
    );
    let bridge = clean.site.node.plugin(&list);
    for verb in ["ADD", "DEL"] {
        let call = bridge.call(verb, &pod.eth0()).env("CNI_PATH", folder.path().as_os_str());
        let (outcome, _) = run_and_count(&call);
        let told = outcome.expect_ok();
        assert!(verb == "DEL" || told.json()["ips"][0]["address"] == "10.22.0.2/24", "{told}");
    }
}

#[test]
fn the_plugin_is_not_its_own_ipam_plugin() {
    let (clean, pod, folder) = (Clean::new(), Pod::new(), Ipam::Linked.folder());
    let ipam = json!({"type": "vlan-bridge", "subnet": "172.20.56.0/24"});
    let plugin = clean.plugin_with_ipam(ipam);
    let (refused, processes) = run_and_count(&of(&folder, plugin.call("ADD", &pod.eth0())));
    assert!(!refused.ok() && refused.error_code() == 7, "{refused}");
    assert_eq!(processes, 1, "{refused}");
    let (deleted, processes) = run_and_count(&of(&folder, plugin.call("DEL", &pod.eth0())));
    deleted.expect_ok();
    assert_eq!(processes, 1);
    clean.assert_nothing_left(&pod);
}
