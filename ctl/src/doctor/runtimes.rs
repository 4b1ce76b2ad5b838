//! The runtimes of the node: which were found, where they look, and what they need besides our plugins.

use super::finding::Finding;
use crate::facts::Facts;
use crate::runtimes::Runtime;

const CHECK: &str = "runtimes";

/// Each runtime that was found.
pub(super) fn found(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.runtimes.iter().map(|runtime| judge(facts, runtime)).collect();
    if let Some(why) = &facts.unclear_runtime {
        let cure = "correct that file: the runtime would not start with it either";
        return vec![Finding::fail(CHECK, why, "only the usual folders were looked into").fix(cure)];
    }
    if facts.list_readers().next().is_none() {
        let seen = "none found that reads network lists; containerd would call the plugin loopback as well";
        findings.push(Finding::ok(CHECK, seen));
    }
    findings
}

fn judge(facts: &Facts, runtime: &Runtime) -> Finding {
    let shown = runtime.shown();
    if runtime.has_netavark() {
        let seen = format!("{shown} uses netavark");
        return Finding::warn(CHECK, seen, "its containers do not use CNI network lists").fix(
            "for podman 4: network_backend = \"cni\" in /etc/containers/containers.conf; podman 5 has no CNI",
        );
    }
    if !runtime.reads_lists() {
        return Finding::ok(CHECK, format!("{shown} is told to do without CRI: it reads no lists"));
    }
    let bin_dirs: Vec<String> = runtime.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let bin_dirs = bin_dirs.join(" or ");
    if facts.without_loopback.contains(&runtime.name) {
        let seen = format!("{shown} has no plugin loopback in {bin_dirs}");
        let why = "it calls that first for each pod, and no new pod starts";
        let internal = match runtime.program {
            "containerd" => {
                "; containerd 2 can do without, with use_internal_loopback = true beside bin_dirs"
            }
            _ => "",
        };
        return Finding::fail(CHECK, seen, why).fix(format!(
            "put loopback there, of the package containernetworking-plugins or kubernetes-cni{internal}"
        ));
    }
    Finding::ok(CHECK, format!("{shown}: plugins in {bin_dirs}, lists in {}", runtime.conf_dir.display()))
}
