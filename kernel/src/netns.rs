//! Network namespaces. A thread enters one only to open sockets or files, and then returns. These keep their
//! namespace, and no thread stays inside.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use cni_skel::lock::{self, LIMIT, LockError, Share};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::GetStruct;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::sys::statfs::{FsType, fstatfs};

use super::{Conn, NetError, Result};

/// `NSFS_MAGIC` of linux/magic.h: the file system of namespace files.
const NSFS: FsType = FsType(0x6e73_6673);
const OWN: &str = "/proc/thread-self/ns/net";

/// `SO_NETNS_COOKIE` of asm-generic/socket.h
const COOKIE: libc::c_int = 71;

#[derive(Clone, Copy)]
struct NetnsCookie;

nix::getsockopt_impl!(NetnsCookie, libc::SOL_SOCKET, COOKIE, u64, GetStruct<u64>);

/// A network namespace, held open by its file.
#[derive(Debug)]
pub struct Namespace {
    path: String,
    file: File,
}

impl Namespace {
    /// Opens the namespace at `path` (`CNI_NETNS`). None if nothing exists or can exist there, or if the file
    /// is no network namespace. An unmounted `/run/netns/NAME` leaves an empty plain file behind.
    pub fn open(path: &str) -> Result<Option<Namespace>> {
        // Opening a FIFO would wait for a writer. The flags have no effect on a namespace.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(e) if leads_nowhere(&e) => return Ok(None),
            Err(e) => return Err(NetError::io(format!("open namespace {path}"), &e)),
        };
        let file_system = fstatfs(&file).map_err(|e| NetError::new(format!("check namespace {path}"), e))?;
        if file_system.filesystem_type() != NSFS || !is_network_namespace(&file) {
            return Ok(None);
        }
        Ok(Some(Namespace { path: path.to_owned(), file }))
    }

    /// Locks the namespace against other ADDs into it while both the returned file and this value are open.
    /// An ADD that finds an incomplete attachment then knows that no other ADD is working on it. The lock is
    /// on the namespace's own file, so no other file is needed, and only a process with access to the
    /// namespace can hold it.
    pub fn lock(&self) -> std::result::Result<File, LockError> {
        let path = Path::new(&self.path);
        let file = self.file.try_clone().map_err(|source| LockError::Io { path: path.to_owned(), source })?;
        lock::take(path, file, Share::Exclusive, LIMIT)
    }

    /// The path that the namespace was opened by.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// True if the calling thread is in this namespace already.
    pub fn is_own(&self) -> Result<bool> {
        let failed =
            |e: std::io::Error| NetError::io(format!("compare namespace {} with our own", self.path), &e);
        let own = std::fs::metadata(OWN).map_err(failed)?;
        let this = self.file.metadata().map_err(failed)?;
        Ok((own.dev(), own.ino()) == (this.dev(), this.ino()))
    }

    /// Runs `open` with the calling thread inside the namespace, then returns the thread to its own
    /// namespace. `open` must not await and must leave nothing running: it opens sockets or files and returns
    /// them.
    pub fn enter<T>(&self, open: impl FnOnce() -> T) -> Result<T> {
        let home = File::open(OWN).map_err(|e| NetError::io("open our own network namespace", &e))?;
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|e| NetError::new(format!("enter namespace {}", self.path), e))?;
        let opened = open();
        setns(&home, CloneFlags::CLONE_NEWNET)
            .map_err(|e| NetError::new("return to our own network namespace", e))?;
        Ok(opened)
    }
}

/// Whether an open error means that there is no namespace at the path. The path leads nowhere, through a
/// plain file or in circles, cannot be a path, or leads to a socket or to a device without a driver.
fn leads_nowhere(error: &std::io::Error) -> bool {
    const NOWHERE: [Errno; 6] =
        [Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP, Errno::ENAMETOOLONG, Errno::ENXIO, Errno::ENODEV];
    error.raw_os_error().is_some_and(|errno| NOWHERE.contains(&Errno::from_raw(errno)))
}

/// `ip netns list-id`: the id of a namespace for links in `conn`'s namespace (`IFLA_LINK_NETNSID`). None if
/// no link refers to the namespace.
pub async fn id_of(conn: &Conn, namespace: &Namespace) -> Result<Option<i32>> {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd() as u32));
    let action = || format!("look up the id of namespace {}", namespace.path);
    let answer = conn.get(RouteNetlinkMessage::GetNsId(message), action).await?;
    let RouteNetlinkMessage::NewNsId(message) = answer else { return Ok(None) };
    let id = message.attributes.into_iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) => Some(id),
        _ => None,
    });
    Ok(id.filter(|id| *id >= 0))
}

/// A name for the namespace of the calling thread that is unique in this boot: its cookie (`SO_NETNS_COOKIE`,
/// Linux 5.14). On older kernels it is the inode number of its file, which a later namespace may reuse.
pub fn identity() -> Result<String> {
    let failed = |e| NetError::new("look up our own network namespace", e);
    let any =
        socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    if let Ok(cookie) = getsockopt(&any, NetnsCookie) {
        return Ok(cookie.to_string());
    }
    let own = std::fs::metadata(OWN).map_err(|e| NetError::io("look up our own network namespace", &e))?;
    Ok(format!("file-{}", own.ino()))
}

/// The identities, as [`identity`] returns them, of all network namespaces that a process is in, or that are
/// mounted where a process sees them (`ip netns`). None if the list cannot be complete: in another PID
/// namespace than the machine's first, or if this process may not inspect some other process. The list lacks
/// a namespace that only an open file keeps alive.
pub fn in_use() -> Result<Option<BTreeSet<String>>> {
    /// `PROC_PID_INIT_INO` of linux/proc_ns.h
    const FIRST: u64 = 0xefff_fffc;
    if std::fs::metadata("/proc/self/ns/pid").map(|file| file.ino()).ok() != Some(FIRST) {
        return Ok(None);
    }
    // Mounted with hidepid (proc(5)), /proc lacks the processes that we may not inspect.
    if !Path::new("/proc/1").exists() {
        return Ok(None);
    }
    let (mut seen, mut mounts_seen) = (BTreeSet::new(), BTreeSet::new());
    let mut living = BTreeSet::from([identity()?]);
    for process in processes()? {
        let mut paths = vec![format!("{process}/ns/net")];
        // Both are missing if the process has ended meanwhile.
        let mounts = std::fs::metadata(format!("{process}/ns/mnt"));
        if mounts.is_ok_and(|mounts| mounts_seen.insert(mounts.ino())) {
            paths.extend(mounted(&process));
        }
        for path in paths {
            let namespace = match Namespace::open(&path) {
                Err(_) if !Path::new(&process).exists() => continue,
                Err(e) if e.denied() => return Ok(None),
                opened => opened?,
            };
            let Some(namespace) = namespace else { continue };
            let file = namespace.file.metadata();
            let file = file.map_err(|e| NetError::io(format!("check namespace {path}"), &e))?;
            if seen.insert(file.ino()) && !namespace.is_own()? {
                living.insert(namespace.enter(identity)??);
            }
        }
    }
    Ok(Some(living))
}

/// The /proc folders of all processes.
fn processes() -> Result<Vec<String>> {
    let failed = |e: std::io::Error| NetError::io("list /proc", &e);
    let names =
        std::fs::read_dir("/proc").map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.file_name()));
    let names = names.collect::<Result<Vec<_>>>()?;
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse::<u32>().ok());
    Ok(numbers.map(|pid| format!("/proc/{pid}")).collect())
}

/// The mount points of namespaces of any kind that a process sees (proc_pid_mountinfo(5)), as paths for this
/// process.
fn mounted(process: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{process}/mountinfo")).unwrap_or_default();
    let is_namespace = |line: &&str| line.contains(" - nsfs ");
    let place = |line: &str| Some(format!("{process}/root{}", line.split(' ').nth(4)?.replace("\\040", " ")));
    text.lines().filter(is_namespace).filter_map(place).collect()
}

/// Whether this process runs in another user namespace than the node's, for example under rootless podman.
/// The network namespace is then not the node's either. The first user namespace maps every id to itself
/// (user_namespaces(7)).
pub fn is_rootless() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

/// All kinds of namespaces share one file system. `NS_GET_NSTYPE` (ioctl_nsfs(2)) returns the kind.
fn is_network_namespace(file: &File) -> bool {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this request takes no argument and only returns a number.
    unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) == libc::CLONE_NEWNET }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
