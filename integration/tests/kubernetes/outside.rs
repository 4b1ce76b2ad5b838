//! The machine that runs the cluster. The cluster must not change it.

use crate::machine::SETTINGS;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The state that a run could change, one fact in each line.
pub fn outside() -> BTreeSet<String> {
    // The names of our own things contain the ID of this process.
    let own = format!("vlbr-{}-", std::process::id());
    let mut facts: BTreeSet<String> = BTreeSet::new();
    let groups = names(Path::new("/sys/fs/cgroup")).into_iter().map(|name| format!("/sys/fs/cgroup/{name}"));
    let folders = ["/run/netns", "/sys/fs/cgroup"].map(str::to_owned).into_iter().chain(groups);
    for folder in folders.chain([std::env::temp_dir().display().to_string()]) {
        let made = names(Path::new(&folder)).into_iter().filter(|name| name.starts_with(&own));
        facts.extend(made.map(|name| format!("{folder}/{name}")));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    facts.extend(mounts.lines().filter(|line| line.contains(&own)).map(str::to_owned));
    facts.extend(names(Path::new("/sys/class/net")).into_iter().map(|name| format!("interface {name}")));
    for key in SETTINGS.iter().map(|(key, _)| *key).chain(["net/ipv4/ip_forward"]) {
        let value = fs::read_to_string(Path::new("/proc/sys").join(key)).unwrap_or_default();
        facts.insert(format!("{key} {}", value.trim()));
    }
    facts
}

/// The entries of a folder. None if there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
