//! The drop-ins for units of other packages, and our own units. systemd only logs a warning about unknown
//! keys, and ignores them. A test of the native suite lets systemd check our units.

use super::Finding;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

const FOLDER: &str = "deploy/systemd";
/// The keys of systemd.service(5) and systemd.unit(5) that our drop-ins may have.
const KNOWN: [(&str, &[&str]); 2] =
    [("Unit", &["After", "Before", "Wants"]), ("Service", &["ExecReload", "ExecStartPost"])];

/// Checks every drop-in: `UNIT.service.d/NAME.conf`. A unit of our own is a file `UNIT.service`.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for unit in names(root, FOLDER)? {
        let folder = format!("{FOLDER}/{unit}");
        if unit.ends_with(".service") && root.join(&folder).is_file() {
            continue;
        }
        if !unit.ends_with(".service.d") {
            findings.push(Finding {
                path: folder.clone(),
                line: 1,
                message: "no drop-ins of a service".into(),
            });
        }
        for name in names(root, &folder)? {
            let path = format!("{folder}/{name}");
            let text = fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
            if !name.ends_with(".conf") {
                let message = "systemd reads files called .conf alone".into();
                findings.push(Finding { path: path.clone(), line: 1, message });
            }
            findings.extend(complaints(&path, &text));
        }
    }
    Ok(findings)
}

fn names(root: &Path, folder: &str) -> Result<Vec<String>> {
    let entries = fs::read_dir(root.join(folder)).with_context(|| format!("cannot read {folder}"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn complaints(path: &str, text: &str) -> Vec<Finding> {
    let (mut findings, mut keys) = (Vec::new(), None);
    for (index, line) in text.lines().enumerate() {
        let complaint = match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(section) => {
                keys = KNOWN.iter().find(|(known, _)| *known == section).map(|(_, keys)| *keys);
                keys.is_none().then(|| format!("[{section}]: no such section"))
            }
            None if line.is_empty() || line.starts_with('#') => None,
            None => wrong(keys.unwrap_or_default(), line),
        };
        let line = index + 1;
        findings.extend(complaint.map(|message| Finding { path: path.to_owned(), line, message }));
    }
    findings
}

/// What is wrong with a setting of a section that knows these keys.
fn wrong(keys: &[&str], line: &str) -> Option<String> {
    let Some((key, value)) = line.split_once('=') else { return Some("neither section nor setting".into()) };
    if !keys.contains(&key) {
        return Some(format!("{key}: no such key"));
    }
    // Without a command, the key removes the unit's own commands.
    let is_command =
        !key.starts_with("Exec") || value.is_empty() || value.trim_start_matches('-').starts_with('/');
    (!is_command).then(|| format!("{key}: {value}: a command begins with its full path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_would_pass_over_is_found() {
        let check = |text: &str, expected: &[(usize, &str)]| {
            let said = complaints("a.conf", text);
            let said: Vec<(usize, &str)> = said.iter().map(|one| (one.line, one.message.as_str())).collect();
            assert_eq!(said, expected, "{text}");
        };
        check("# why\n[Service]\nExecReload=\nExecReload=-/bin/true a=b\n\n[Unit]\nAfter=a.service\n", &[]);
        check(
            "[Servce]\nExecReload=/bin/true\n",
            &[(1, "[Servce]: no such section"), (2, "ExecReload: no such key")],
        );
        check("[Service]\nExecStartPst=/bin/true\n", &[(2, "ExecStartPst: no such key")]);
        check("[Service]\nAfter=a.service\n", &[(2, "After: no such key")]);
        check("ExecReload=/bin/true\n", &[(1, "ExecReload: no such key")]);
        check("[Service]\nvlan-bridgectl repair\n", &[(2, "neither section nor setting")]);
        check(
            "[Service]\nExecReload=-vlan-bridgectl repair\n",
            &[(2, "ExecReload: -vlan-bridgectl repair: a command begins with its full path")],
        );
    }
}
