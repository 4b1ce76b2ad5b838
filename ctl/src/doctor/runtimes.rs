//! The runtimes of the node, their directories, and the plugin `loopback`.

use super::finding::Finding;
use crate::facts::Facts;
use crate::runtimes::Runtime;

const CHECK: &str = "runtimes";

/// A finding for each runtime.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.runtimes.iter().map(|runtime| judge(facts, runtime)).collect();
    if let Some(why) = &facts.unclear_runtime {
        let fix = "fix that file: the runtime would not start with it either";
        return vec![Finding::fail(CHECK, why, "only the default directories were read").fix(fix)];
    }
    if facts.list_readers().next().is_none() {
        let seen = "no runtime that reads network lists; containerd would also need the plugin loopback";
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
        return Finding::ok(CHECK, format!("{shown} has CRI disabled: it reads no lists"));
    }
    let bin_dirs: Vec<String> = runtime.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let bin_dirs = bin_dirs.join(" or ");
    if facts.without_loopback.contains(&runtime.name) {
        let seen = format!("{shown} has no plugin loopback in {bin_dirs}");
        let why = "it calls loopback first for each pod: no new pod starts";
        let internal = match runtime.program {
            "containerd" => {
                "; containerd 2 does not need it with use_internal_loopback = true beside bin_dirs"
            }
            _ => "",
        };
        return Finding::fail(CHECK, seen, why).fix(format!(
            "install loopback there, from the package containernetworking-plugins or kubernetes-cni{internal}"
        ));
    }
    Finding::ok(CHECK, format!("{shown}: plugins in {bin_dirs}, lists in {}", runtime.conf_dir.display()))
}
