//! Named network namespaces.

use crate::process::{Outcome, run, run_line, run_with};
use crate::{icmpv6, names};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";

/// A network namespace with a name that `ip -n` knows. Dropping it deletes it. Its `lo` is up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a namespace whose name ends in `role`.
    pub fn new(role: &str) -> Namespace {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let name = names::unique(role);
        let path = Path::new(FOLDER).join(&name);
        File::create(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        // A thread can have its own namespace. The mount keeps the namespace after the thread ends.
        let made = std::thread::scope(|scope| {
            let bind = || {
                unshare(CloneFlags::CLONE_NEWNET)?;
                let own = "/proc/thread-self/ns/net";
                mount(Some(own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            };
            scope.spawn(bind).join().expect("the thread does not panic")
        });
        if let Err(error) = made {
            let _ = fs::remove_file(&path);
            panic!("cannot make the namespace {name}, which takes root: {error}");
        }
        let file = File::open(&path).expect("the namespace was just made");
        let namespace = Namespace { name, file };
        namespace.ip("link set lo up");
        namespace
    }

    /// Its name, for `ip -n`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, for `CNI_NETNS`.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// A program that will run in here and see this namespace's `/sys/class/net`, as under `ip netns exec`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = self.file.try_clone().expect("a file can be opened again");
        // SAFETY: between fork and exec only system calls are made: the paths are C strings already, so
        // nothing is allocated and no lock is taken.
        unsafe { command.pre_exec(move || Ok(move_into(&file)?)) };
        command
    }

    /// Runs a command line in here; the words are split at spaces.
    #[track_caller]
    pub fn run(&self, line: &str) -> Outcome {
        run_line(line, |program| self.command(program))
    }

    /// Runs lines of `ip` commands at once. Panics if one fails.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        self.batch("ip", lines);
    }

    /// Runs lines of `bridge` commands at once. Panics if one fails.
    #[track_caller]
    pub fn bridge(&self, lines: &str) {
        self.batch("bridge", lines);
    }

    /// Loads an nftables script. Panics on failure.
    #[track_caller]
    pub fn nft(&self, script: &str) {
        run_with(self.command("nft").args(["-f", "-"]), script.as_bytes()).expect_ok();
    }

    /// What `ip -json …` prints.
    #[track_caller]
    pub fn ip_json(&self, line: &str) -> serde_json::Value {
        let mut command = Command::new("ip");
        let outcome =
            run(command.args(["-n", &self.name, "-json"]).args(line.split_whitespace())).expect_ok();
        // Some versions of iproute2 print nothing for an empty answer.
        if outcome.stdout.trim().is_empty() { serde_json::json!([]) } else { outcome.json() }
    }

    /// The output of `ip -json OPTIONS` for each of these commands, run at once, because a program takes
    /// longer to start than to answer.
    #[track_caller]
    pub fn ip_json_each<const N: usize>(&self, options: &str, commands: [&str; N]) -> [serde_json::Value; N] {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-json"]).args(options.split_whitespace()).args(["-batch", "-"]);
        let outcome = run_with(&mut command, format!("{}\n", commands.join("\n")).as_bytes()).expect_ok();
        let answers: Result<Vec<_>, _> =
            serde_json::Deserializer::from_str(&outcome.stdout).into_iter().collect();
        let answers = answers.unwrap_or_else(|error| panic!("no JSON: {error}\n{outcome}"));
        answers.try_into().unwrap_or_else(|_| panic!("not one answer a command\n{outcome}"))
    }

    /// Whether there is an interface of that name.
    pub fn has_link(&self, name: &str) -> bool {
        run(Command::new("ip").args(["-n", &self.name, "link", "show", "dev", name])).ok()
    }

    /// Writes a sysctl, named as its path below `/proc/sys`: `net/ipv4/ip_forward`.
    #[track_caller]
    pub fn set_sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key);
        let written = self.enter(|| fs::write(&path, value));
        written.unwrap_or_else(|error| panic!("cannot write {value} to {key}: {error}"));
    }

    /// Reads a sysctl.
    #[track_caller]
    pub fn sysctl(&self, key: &str) -> String {
        let text = self.read(&format!("/proc/sys/{key}"));
        text.trim().to_owned()
    }

    /// Reads a file of `/proc` that belongs to the namespace, such as `/proc/thread-self/net/netstat`.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        let text = self.enter(|| fs::read_to_string(path));
        text.unwrap_or_else(|error| panic!("cannot read {path} in {}: {error}", self.name))
    }

    /// The number that no other namespace has in this boot (`SO_NETNS_COOKIE`).
    pub fn cookie(&self) -> u64 {
        const COOKIE: libc::c_int = 71;
        self.enter(|| {
            let any = UnixDatagram::unbound().expect("a socket can be had");
            let mut cookie = 0u64;
            let mut length = size_of::<u64>() as libc::socklen_t;
            let into = (&raw mut cookie).cast();
            // SAFETY: the kernel writes at most `length` bytes to a number of that size.
            let told =
                unsafe { libc::getsockopt(any.as_raw_fd(), libc::SOL_SOCKET, COOKIE, into, &raw mut length) };
            assert_eq!(told, 0, "this kernel has no cookies: Linux 5.14 or newer");
            cookie
        })
    }

    /// Calls `action` on a thread of its own inside the namespace, with the namespace's `/sys`. Its sockets
    /// and programs stay in the namespace. Namespaces that it makes are not visible outside.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = || {
                move_into(&self.file).expect("a namespace of ours can be entered");
                action()
            };
            match scope.spawn(inside).join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Sends an ICMPv6 message, whose checksum the kernel fills in, with the hop limit of the link's own
    /// protocols.
    #[track_caller]
    pub fn send_icmpv6(&self, interface: &str, to: &str, message: &[u8]) {
        let sent = self.enter(|| icmpv6::send(interface, to, message));
        sent.unwrap_or_else(|error| {
            panic!("cannot send ICMPv6 from {} of {}: {error}", interface, self.name)
        });
    }

    #[track_caller]
    fn batch(&self, program: &str, lines: &str) {
        let mut command = Command::new(program);
        command.args(["-n", &self.name, "-batch", "-"]);
        let outcome = run_with(&mut command, format!("{lines}\n").as_bytes());
        assert!(outcome.ok(), "{outcome}\n{lines}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.path());
    }
}

/// Moves the calling thread into a network namespace, as `ip netns exec` does. Makes system calls only.
fn move_into(file: &File) -> nix::Result<()> {
    setns(file, CloneFlags::CLONE_NEWNET)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Mounts from here on are only visible to this thread.
    mount(None::<&str>, c"/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)?;
    mount(Some(c"sysfs"), c"/sys", Some(c"sysfs"), MsFlags::empty(), None::<&str>)
}

fn remove(path: &Path) {
    // Best effort: a panic here during a panic would hide the test's own message.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

/// Makes later mounts in a folder visible to running programs in other mount namespaces, for example a DHCP
/// daemon. `ip netns` does the same to this folder, but it may never have run on this machine.
fn share(folder: &Path) -> nix::Result<()> {
    let mark =
        || mount(None::<&str>, folder, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    mark().or_else(|_| {
        // Only a mount point can be marked.
        mount(Some(folder), folder, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
        mark()
    })
}

/// Makes the folder, shares it, and removes what killed runs left in it.
fn sweep() {
    fs::create_dir_all(FOLDER).unwrap_or_else(|error| panic!("cannot make {FOLDER}: {error}"));
    share(Path::new(FOLDER)).unwrap_or_else(|error| panic!("cannot share {FOLDER}: {error}"));
    for entry in fs::read_dir(FOLDER).expect("the folder was just made").flatten() {
        if entry.file_name().to_str().is_some_and(names::is_stale) {
            remove(&entry.path());
        }
    }
}
