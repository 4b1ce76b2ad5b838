//! Real container runtimes, each on a node of its own.

mod containerd;
mod cri;
mod podman;

pub use containerd::{Containerd, Release};
pub use cri::{Cri, Port, Sandbox};
pub use podman::{Podman, User};

use crate::process::run_line;
use crate::{Namespace, Outcome, Scratch, names, poll, programs, run};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The image that every runtime is given: busybox, serving `GREETING` on port 80.
pub const IMAGE: &str = "localhost/pod:1";
/// The answer of a container of [`IMAGE`] to a request for `/`.
const GREETING: &str = "a pod\n";

/// The folders in which runtimes look for network lists and plugins. `ctr` cannot be configured otherwise.
const LISTS: &str = "/etc/cni/net.d";
const PLUGINS: &str = "/opt/cni/bin";

/// The time limit of a runtime's start and end, also in the emulator.
const LIMIT: Duration = Duration::from_secs(60);

/// The file system, process ids and control groups of a runtime in the network namespace of a node. Dropping
/// it ends all its processes and deletes its files, which are in memory.
#[derive(Debug)]
pub struct Host {
    /// Its first process, as seen from outside.
    first: u32,
    /// Removes what outlives processes. The end of its stdin ends the first process.
    keeper: Child,
    _folder: Scratch,
}

impl Host {
    /// A host without a running runtime, for other daemons.
    pub fn bare(namespace: &Namespace) -> Host {
        Host::new(namespace, "containerd")
    }

    /// A host with a runtime, the image and our plugins.
    fn new(namespace: &Namespace, packages: &str) -> Host {
        let host = Host::with_packages(namespace, &programs::runtimes().join(packages));
        fs::copy(programs::runtimes().join("pod.tar"), host.path("/pod.tar")).expect("the image is there");
        host.install();
        host
    }

    /// A host with `/etc` and `/usr` of the machine, below unpacked packages.
    pub(crate) fn with_packages(namespace: &Namespace, packages: &Path) -> Host {
        let folder = Scratch::new("host");
        let mut command = namespace.command("bash");
        command.args(["-c", include_str!("runtime/host.sh"), "host.sh"]).arg(folder.path());
        command.arg(packages).arg(names::unique("host"));
        let keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut host = Host { first: 0, keeper: keeper.expect("there is a bash"), _folder: folder };
        let mut line = String::new();
        let told = BufReader::new(host.keeper.stdout.take().expect("stdout is piped")).read_line(&mut line);
        let first = told.ok().and_then(|_| line.trim().parse().ok());
        host.first =
            first.unwrap_or_else(|| panic!("a host for {} cannot be made: see above", packages.display()));
        host
    }

    /// Copies our plugins to the runtimes' folder, with two of the reference that CRI and the tests need.
    fn install(&self) {
        fs::create_dir_all(self.path(PLUGINS)).expect("the host is writable");
        for name in ["vlan-bridge", "vlan-bridge-ipam", "loopback"] {
            fs::copy(programs::plugin(name), self.path(PLUGINS).join(name))
                .unwrap_or_else(|error| panic!("cannot install {name}: {error}"));
        }
    }

    /// Makes these the only network lists, in the order given.
    pub fn set_lists(&self, lists: &[Value]) {
        let folder = self.path(LISTS);
        // Not the folder itself: runtimes watch it.
        fs::create_dir_all(&folder).expect("the host is writable");
        for entry in fs::read_dir(&folder).expect("the folder was just made").flatten() {
            fs::remove_file(entry.path()).expect("a list can be removed");
        }
        for (index, list) in lists.iter().enumerate() {
            let name = list["name"].as_str().expect("a list has a name");
            fs::write(folder.join(format!("{index:02}-{name}.conflist")), list.to_string())
                .expect("the host is writable");
        }
    }

    /// Removes our plugins again, for tests of install.
    pub fn uninstall(&self) {
        for name in ["vlan-bridge", "vlan-bridge-ipam"] {
            fs::remove_file(self.path(PLUGINS).join(name)).expect("it was installed");
        }
    }

    /// Writes a file of the host.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the host is writable");
        fs::write(path, text).expect("the host is writable");
    }

    /// The path of a host's file outside the host.
    pub fn path(&self, absolute: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.first)).join(absolute.trim_start_matches('/'))
    }

    /// Puts `cnitool` into its path.
    pub fn install_cnitool(&self) {
        fs::copy(programs::cnitool(), self.path("/usr/bin/cnitool")).expect("the host is writable");
    }

    /// Puts `vlan-bridgectl` and the plugins into its path, but not into the runtimes' folder, as after an
    /// operator has unpacked a release.
    pub fn unpack_product(&self) {
        self.uninstall();
        for name in ["vlan-bridge", "vlan-bridge-ipam", "vlan-bridgectl"] {
            fs::copy(programs::product().join(name), self.path("/usr/bin").join(name))
                .expect("the host is writable");
        }
    }

    /// A program that will run in here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let root = self.path("");
        command.arg(format!("--target={}", self.first)).args(["--mount", "--net", "--pid", "--cgroup"]);
        command.arg(format!("--root={}", root.display())).arg(format!("--wd={}", root.display()));
        command.arg("/join").arg(program).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        command
    }

    /// Runs a command line in here; the words are split at spaces.
    #[track_caller]
    pub fn run(&self, line: &str) -> Outcome {
        run_line(line, |program| self.command(program))
    }

    /// Starts a program in the background, with a name for [`Host::stop`]. It writes to `/NAME.log`.
    #[track_caller]
    pub fn start(&self, name: &str, line: &str) {
        let script = format!("echo $$ >/{name}.pid; exec {line} >>/{name}.log 2>&1");
        // Programs in the background do not hold the caller's pipes. Not every machine has a setsid that
        // forks by itself.
        let detached = format!("setsid bash -c '{script}' </dev/null >/dev/null 2>&1 &");
        run(self.command("bash").args(["-c", &detached])).expect_ok();
    }

    /// Sends a signal to a program that was started, and waits for its end.
    #[track_caller]
    pub fn stop(&self, name: &str, signal: &str) {
        let pid = fs::read_to_string(self.path(&format!("/{name}.pid"))).expect("it was started");
        self.run(&format!("kill -s {signal} {}", pid.trim())).expect_ok();
        poll(LIMIT, &format!("the end of {name}"), || !self.path(&format!("/proc/{}", pid.trim())).exists());
    }

    /// The output of a started program.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("/{name}.log"))).unwrap_or_default()
    }

    /// The addresses with a lease in the default store of a network, sorted.
    pub fn leases(&self, network: &str) -> Vec<IpAddr> {
        let folder = self.path("/var/lib/cni/networks").join(network);
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut held: Vec<IpAddr> = names.filter_map(|name| name.parse().ok()).collect();
        held.sort();
        held
    }
}

/// Whether a container of [`IMAGE`] answers at an address.
pub fn greets(from: &Namespace, to: SocketAddr) -> bool {
    const PATIENCE: Duration = Duration::from_secs(2);
    let fetch = || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    from.enter(fetch).is_ok_and(|answer| answer.ends_with(GREETING))
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It is not killed, because it removes control groups after all processes have ended.
        let _ = self.keeper.wait();
    }
}
