//! Explains why a directory is not writable. Root without its capabilities, as in a container, is subject
//! to file permissions.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kernel::access;

/// errno(3): not permitted even for the owner, for example on an immutable file.
const EPERM: i32 = 1;

/// CAP_DAC_OVERRIDE of linux/capability.h: bypasses file permissions.
const DAC_OVERRIDE: u64 = 1 << 1;

/// The user and capabilities of this process, from `/proc/self/status`.
#[derive(Debug, PartialEq, Eq)]
struct Credentials {
    user: u32,
    overrides: bool,
}

/// The permissions of a directory.
#[derive(Debug)]
struct Folder {
    shown: String,
    owner: u32,
    group: u32,
    mode: u32,
    label: Option<String>,
}

/// The mount that a directory is on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its mount point.
    pub(crate) point: String,
    options: Vec<String>,
}

/// Checks that files can be created in a directory, or the directory itself, without creating any.
///
/// # Errors
/// If they cannot.
pub(crate) fn may_write(folder: &Path) -> io::Result<()> {
    let existing = nearest_existing(folder);
    if existing.is_dir() { access::may_write(existing) } else { Err(ErrorKind::NotADirectory.into()) }
}

/// The explanation to append to an error of a path: the cause, and the fix.
pub(crate) fn explain(place: &Path, error: &io::Error) -> Option<String> {
    let folder = nearest_existing(place);
    let shown = folder.display().to_string();
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem => Some(read_only(&shown, mount_of(folder)?)),
        ErrorKind::PermissionDenied => {
            let metadata = fs::metadata(folder).ok()?;
            let folder = Folder {
                shown,
                owner: metadata.uid(),
                group: metadata.gid(),
                mode: metadata.permissions().mode() & 0o7777,
                label: access::label(folder),
            };
            let own = credentials(&fs::read_to_string("/proc/self/status").ok()?)?;
            Some(denied(&folder, &own, selinux().as_deref(), error.raw_os_error() == Some(EPERM)))
        }
        _ => None,
    }
}

/// The directory itself, or its nearest ancestor that exists.
fn nearest_existing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder)
}

fn read_only(folder: &str, mount: Mount) -> String {
    let Mount { point, options } = mount;
    let options = options.join(",");
    format!(
        "{folder} is mounted read-only (mount {point}, options {options}): mount -o remount,rw {point}, or configure the runtime with another directory and pass it with --bin-dir or --conf-dir"
    )
}

/// `context` is the SELinux context of this process, if SELinux is enforcing.
fn denied(folder: &Folder, own: &Credentials, context: Option<&str>, is_immutable: bool) -> String {
    let Folder { shown, owner, group, mode, label } = folder;
    let label = label.as_ref().map_or(String::new(), |label| format!(", label {label}"));
    let facts = format!("{shown} has owner {owner}, group {group}, mode {mode:04o}{label}");
    if own.user != 0 {
        return format!("{facts}, and vlan-bridgectl runs as user {}, not root", own.user);
    }
    if is_immutable {
        return format!(
            "{facts}: the directory or a file in it may be immutable: lsattr -d {shown} {shown}/* then shows an i, and chattr -i removes it"
        );
    }
    let is_open = *owner == 0 && mode & 0o300 == 0o300;
    if !is_open && !own.overrides {
        return format!(
            "{facts}, and vlan-bridgectl runs as root without CAP_DAC_OVERRIDE: chown 0 {shown} && chmod u+rwx {shown}, \
             or give a DaemonSet that capability (deploy/components/foreign-owner)"
        );
    }
    match context {
        Some(context) => format!(
            "{facts}; SELinux is enforcing, and may deny {context} this access: see ausearch -m AVC -ts recent; a DaemonSet needs seLinuxOptions with type spc_t (deploy/components/selinux)"
        ),
        None => format!("{facts}: a security module or the file system itself denies access"),
    }
}

/// The SELinux context of this process, if SELinux is enforcing. In a container only the process's own
/// context shows that SELinux is on.
fn selinux() -> Option<String> {
    let enforces = fs::read_to_string("/sys/fs/selinux/enforce").ok();
    if enforces.is_some_and(|enforces| enforces.trim() == "0") {
        return None;
    }
    let context = fs::read_to_string("/proc/self/attr/current").ok()?;
    let context = context.trim_end_matches(['\0', '\n']);
    // SELinux contexts are user:role:type:level. Other security modules use other formats.
    (context.matches(':').count() >= 2).then(|| context.to_owned())
}

/// The effective user of this process.
pub(crate) fn effective_user() -> Option<u32> {
    Some(credentials(&fs::read_to_string("/proc/self/status").ok()?)?.user)
}

fn credentials(status: &str) -> Option<Credentials> {
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    // Real, effective, saved and file system UID.
    let user = line("Uid:")?.split_whitespace().nth(1)?.parse().ok()?;
    let capabilities = u64::from_str_radix(line("CapEff:")?.trim(), 16).ok()?;
    Some(Credentials { user, overrides: capabilities & DAC_OVERRIDE != 0 })
}

/// The mount of a directory, as far as `/proc` shows it.
pub(crate) fn mount_of(folder: &Path) -> Option<Mount> {
    let folder = nearest_existing(folder).canonicalize().ok()?;
    mount_in(&fs::read_to_string("/proc/self/mountinfo").ok()?, &folder)
}

/// Lines of mountinfo: `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw`. Of two mounts at
/// one point the later one is visible.
fn mount_in(mounts: &str, folder: &Path) -> Option<Mount> {
    let of = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let end = words.iter().position(|word| *word == "-")?;
        // Of the mount, and of the superblock.
        let options = words.get(5)?.split(',').chain(words.get(end + 3)?.split(','));
        let mut options: Vec<String> = options.map(str::to_owned).collect();
        options.dedup();
        Some(Mount { point: (*words.get(4)?).to_owned(), options })
    };
    let holding = mounts.lines().filter_map(of).filter(|mount| folder.starts_with(&mount.point));
    holding.max_by_key(|mount| mount.point.len())
}

impl Mount {
    /// Whether programs on it cannot be executed.
    pub(crate) fn forbids_programs(&self) -> bool {
        self.options.iter().any(|option| option == "noexec")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(owner: u32, mode: u32, label: Option<&str>) -> Folder {
        Folder { shown: "/d".into(), owner, group: 7, mode, label: label.map(str::to_owned) }
    }

    #[test]
    fn the_cause_is_named_with_its_fix() {
        const ROOT: Credentials = Credentials { user: 0, overrides: true };
        const BARE: Credentials = Credentials { user: 0, overrides: false };
        let cases = [
            (
                folder(0, 0o755, None),
                Credentials { user: 9, overrides: false },
                None,
                false,
                "user 9, not root",
            ),
            (
                folder(1999, 0o755, None),
                BARE,
                None,
                false,
                "/d has owner 1999, group 7, mode 0755, and vlan-bridgectl runs as root without",
            ),
            (
                folder(0, 0o555, None),
                BARE,
                None,
                false,
                "mode 0555, and vlan-bridgectl runs as root without CAP_DAC_OVERRIDE: chown 0 /d && chmod u+rwx /d",
            ),
            (
                folder(0, 0o755, Some("u:r:usr_t:s0")),
                BARE,
                Some("u:r:container_t:s0"),
                false,
                "label u:r:usr_t:s0; SELinux is enforcing",
            ),
            (folder(1999, 0o755, None), ROOT, Some("u:r:container_t:s0"), false, "components/selinux"),
            (folder(0, 0o755, None), ROOT, None, true, "chattr -i"),
            (folder(0, 0o755, None), ROOT, None, false, "a security module"),
        ];
        for (folder, own, context, is_immutable, words) in cases {
            let text = denied(&folder, &own, context, is_immutable);
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn credentials_and_mounts_are_read_from_proc() {
        let status = "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n";
        assert_eq!(credentials(status), Some(Credentials { user: 0, overrides: true }));
        assert_eq!(
            credentials("Uid:\t1\t9\t1\t1\nCapEff:\t0\n"),
            Some(Credentials { user: 9, overrides: false })
        );
        let mounts = "1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
                      2 1 8:2 / /opt ro,noexec shared:1 master:2 - ext4 /dev/sdb1 ro\n\
                      3 1 8:3 / /optional rw - tmpfs t rw\n";
        let mount = mount_in(mounts, Path::new("/opt/cni/bin")).unwrap();
        assert_eq!((mount.point.as_str(), mount.forbids_programs()), ("/opt", true));
        assert_eq!(mount_in(mounts, Path::new("/etc")).unwrap().point, "/");
    }
}
