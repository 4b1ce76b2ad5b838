//! Sysctls of a network namespace.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cni_conf::family::Family;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::{Conn, NetError, Result, link, netconf, route};

/// Where sysctls of the network are written, if not in `/proc/sys/net`.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Lets this process write the sysctls of the network in another folder from now on: the node's
/// `/proc/sys/net`, mounted into a container, whose own is read-only. It is of the namespace of whoever
/// mounted it. So this is for a process that stays in that namespace.
pub fn write_in(folder: PathBuf) {
    // A process decides this once.
    let _ = FOLDER.set(folder);
}

fn folder() -> &'static Path {
    FOLDER.get().map_or(Path::new("/proc/sys/net"), PathBuf::as_path)
}

/// `/proc/sys/net/FAMILY/conf` of the namespace that it was opened in. Files opened through it belong to that
/// namespace, even after the thread has left it.
///
/// The kernel keeps these folders of all namespaces in one list of names. With more pods, opening them on the
/// node takes longer: 0.1 ms with 250. Where netlink has the same fact, the code asks netlink first.
#[derive(Debug)]
pub struct InterfaceSysctls {
    folder: Option<File>,
    family: &'static str,
    /// The interface folder that was opened last. The kernel looks a name up among the interfaces of all
    /// namespaces, and every pod has an `eth0`.
    last: RefCell<Option<(String, File)>>,
}

impl InterfaceSysctls {
    /// [`InterfaceSysctls::of`] IPv4.
    pub fn ipv4() -> InterfaceSysctls {
        InterfaceSysctls::of(Family::V4)
    }

    /// [`InterfaceSysctls::of`] IPv6.
    pub fn ipv6() -> InterfaceSysctls {
        InterfaceSysctls::of(Family::V6)
    }

    /// Opens the folder of a family in the namespace of the calling thread. A kernel without IPv6 has no such
    /// folder.
    pub fn of(family: Family) -> InterfaceSysctls {
        let family = family.sysctl_folder();
        let folder = File::open(folder().join(family).join("conf")).ok();
        InterfaceSysctls { folder, family, last: RefCell::default() }
    }

    /// `sysctl -w net.FAMILY.conf.INTERFACE.KEY=VALUE`. False if the kernel has no such setting.
    pub fn write(&self, interface: &str, key: &str, value: &str) -> Result<bool> {
        let failed =
            |e: Errno| NetError::new(format!("set net.{}.conf.{interface}.{key} to {value}", self.family), e);
        match self.open(interface, key) {
            Ok(Some(mut file)) => {
                file.write_all(value.as_bytes())
                    .map_err(|e| failed(Errno::from_raw(e.raw_os_error().unwrap_or(nix::libc::EIO))))?;
                Ok(true)
            }
            Ok(None) | Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(failed(e)),
        }
    }

    fn open(&self, interface: &str, key: &str) -> nix::Result<Option<File>> {
        let Some(all) = &self.folder else { return Ok(None) };
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(name, _)| name != interface) {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let own = openat(all.as_fd(), interface, flags, Mode::empty())?;
            *last = Some((interface.to_owned(), own.into()));
        }
        let Some((_, own)) = &*last else { return Ok(None) };
        let file = openat(own.as_fd(), key, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Some(file.into()))
    }
}

/// Whether the node forwards packets of a family.
pub fn forwards(family: Family) -> Result<bool> {
    if let Ok(forwards) = netconf::forwards(family) {
        return Ok(forwards);
    }
    let path = forwarding_file(family);
    let failed = |e| NetError::io(format!("read {}", path.display()), &e);
    let value = std::fs::read_to_string(&path).map_err(failed)?;
    Ok(value.trim() == "1")
}

fn forwarding_file(family: Family) -> PathBuf {
    folder().join(match family {
        Family::V4 => "ipv4/ip_forward",
        Family::V6 => "ipv6/conf/all/forwarding",
    })
}

/// Switches forwarding of a family on in the namespace of `conn` and of the calling thread, if it is off.
/// Like the reference plugin for a gateway: `net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`.
pub async fn enable_forwarding(conn: &Conn, family: Family) -> Result<()> {
    if forwards(family)? {
        return Ok(());
    }
    if family == Family::V6 {
        keep_advertisements(conn).await?;
    }
    let path = forwarding_file(family);
    let failed = |e| NetError::io(format!("switch forwarding on in {}", path.display()), &e);
    std::fs::write(&path, "1").map_err(failed)
}

/// A node that forwards ignores router advertisements unless `accept_ra` is 2 (kernel documentation,
/// networking/ip-sysctl). It would then lose the addresses and the default route that it may depend on. So
/// `accept_ra` changes from 1 to 2 on interfaces that receive router advertisements, and nowhere else: behind
/// a bridge of pods, any pod could then act as the router.
async fn keep_advertisements(conn: &Conn) -> Result<()> {
    for index in route::advertised(conn).await? {
        let Some(interface) = link::by_index(conn, index).await? else { continue };
        if interface.accept_ra == Some(1) {
            InterfaceSysctls::ipv6().write(&interface.name, "accept_ra", "2")?;
        }
    }
    Ok(())
}
