//! etcd in a network namespace of its own, with one member or several, and nodes that are linked to it.

mod authority;

use crate::process::{Background, Outcome, run};
use crate::{Namespace, Scratch, poll, programs};
pub use authority::Authority;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The time limit of a start, and of the choice of a leader.
const LIMIT: Duration = Duration::from_secs(60);

/// etcd's first member has the first address. The nodes' come behind the members'.
const SUBNET: &str = "10.79.0";

/// A running etcd. Its members trust the clients whose certificates its [`Authority`] signed. They end with
/// the value.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    authority: Authority,
    folder: Scratch,
    namespace: Namespace,
    linked: AtomicU8,
}

/// A member's process. None while it is dead.
type Member = Mutex<Option<Background>>;

impl Etcd {
    /// Starts a single member.
    pub fn start() -> Etcd {
        Etcd::with_members(1)
    }

    /// Starts that many members, at most nine, and waits until they have a leader.
    pub fn with_members(count: usize) -> Etcd {
        let namespace = Namespace::new("etcd");
        namespace.ip("link add store type bridge\nlink set store up");
        let hosts: Vec<String> = (0..count).map(|i| host(i, 0)).collect();
        for host in &hosts {
            namespace.ip(&format!("addr add {host}/24 dev store"));
        }
        let folder = Scratch::new("etcd");
        let authority = Authority::new(&folder.path().join("tls"));
        authority.server("server", &hosts);
        let members = hosts.iter().map(|_| Member::default()).collect();
        let etcd = Etcd { members, authority, folder, namespace, linked: AtomicU8::new(0) };
        for i in 0..count {
            etcd.spawn(i);
        }
        etcd.await_health();
        etcd
    }

    /// Its namespace, in which its endpoints can be reached as well.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The authority that signs its certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Links a node to it, by an interface `store` in the node.
    pub fn link(&self, node: &Namespace) {
        let number = self.linked.fetch_add(1, Ordering::Relaxed) + 1;
        self.namespace.ip(&format!(
            "link add to{number} type veth peer name store netns {}\n\
             link set to{number} master store up",
            node.name()
        ));
        node.ip(&format!("link set store up\naddr add {SUBNET}.{}/24 dev store", 9 + number));
    }

    /// Cuts a node off, or lets it reach etcd again.
    pub fn set_reachable(&self, node: &Namespace, reachable: bool) {
        node.ip(if reachable { "link set store up" } else { "link set store down" });
    }

    /// The members' URLs.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(endpoint).collect()
    }

    /// `ipam.pool.etcd` for a client with a certificate of this name.
    pub fn section(&self, client: &str) -> Value {
        let (cert, key) = self.authority.client(client);
        json!({"endpoints": self.endpoints(), "ca": self.authority.ca(), "cert": cert, "key": key})
    }

    /// The same as options of `vlan-bridgectl pool`.
    pub fn options(&self, client: &str) -> String {
        let (cert, key) = self.authority.client(client);
        format!(
            "--endpoints {} --ca {} --cert {} --key {}",
            self.endpoints().join(","),
            self.authority.ca().display(),
            cert.display(),
            key.display()
        )
    }

    /// Runs etcdctl as the client `root`.
    #[track_caller]
    pub fn ctl(&self, words: &[&str]) -> Outcome {
        run(&mut self.ctl_command(&self.endpoints().join(","), words))
    }

    /// Kills a member with SIGKILL.
    pub fn kill(&self, i: usize) {
        *self.member(i) = None;
    }

    /// Starts a killed member again, with the data that it had.
    pub fn restart(&self, i: usize) {
        assert!(!self.runs(i), "member {i} runs");
        self.spawn(i);
        self.await_health();
    }

    /// Stops a member with SIGSTOP, or lets it go on. Its connections stay open meanwhile.
    pub fn set_stopped(&self, i: usize, stopped: bool) {
        let pid = self.member(i).as_ref().expect("the member runs").pid();
        let pid = Pid::from_raw(pid.try_into().expect("a process id fits"));
        kill(pid, if stopped { Signal::SIGSTOP } else { Signal::SIGCONT }).expect("a child of ours");
    }

    /// The member that leads. None while none does.
    pub fn leader(&self) -> Option<usize> {
        (0..self.members.len()).filter(|i| self.runs(*i)).find(|i| {
            let outcome = run(&mut self.ctl_command(&endpoint(*i), &["endpoint", "status", "-w", "json"]));
            outcome.ok() && {
                let status = &outcome.json()[0]["Status"];
                status["leader"] == status["header"]["member_id"] && status["leader"].as_u64() > Some(0)
            }
        })
    }

    /// Waits until every member that runs can read and write.
    #[track_caller]
    pub fn await_health(&self) {
        let running = (0..self.members.len()).filter(|i| self.runs(*i));
        let endpoints = running.map(endpoint).collect::<Vec<_>>().join(",");
        poll(LIMIT, "a healthy etcd", || {
            run(&mut self.ctl_command(&endpoints, &["endpoint", "health"])).ok()
        });
    }

    fn member(&self, i: usize) -> MutexGuard<'_, Option<Background>> {
        self.members[i].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self, i: usize) -> bool {
        self.member(i).is_some()
    }

    fn ctl_command(&self, endpoints: &str, words: &[&str]) -> Command {
        let (cert, key) = self.authority.client("root");
        let mut command = self.namespace.command(programs::etcd().join("etcdctl"));
        command.env_clear().arg(format!("--endpoints={endpoints}"));
        command.arg("--cacert").arg(self.authority.ca()).arg("--cert").arg(cert).arg("--key").arg(key);
        command.args(words);
        command
    }

    fn spawn(&self, i: usize) {
        let tls = |option: &str, path: PathBuf| format!("--{option}={}", path.display());
        let peers = (0..self.members.len()).map(|i| format!("m{i}=http://{}", host(i, 2380)));
        let (cert, key) = self.authority.pair("server");
        let peer = format!("http://{}", host(i, 2380));
        let log = File::options().create(true).append(true).open(self.folder.path().join(format!("{i}.log")));
        let mut command = self.namespace.command(programs::etcd().join("etcd"));
        command.env_clear().args([
            format!("--name=m{i}"),
            format!("--data-dir={}", self.folder.path().join(format!("data{i}")).display()),
            format!("--listen-client-urls={}", endpoint(i)),
            format!("--advertise-client-urls={}", endpoint(i)),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", peers.collect::<Vec<_>>().join(",")),
            tls("trusted-ca-file", self.authority.ca()),
            tls("cert-file", cert),
            tls("key-file", key),
            "--client-cert-auth".to_owned(),
            // It would need a client's certificate.
            "--enable-grpc-gateway=false".to_owned(),
            // Members are killed, and the machine is not.
            "--unsafe-no-fsync".to_owned(),
        ]);
        command.stderr(log.expect("a folder of ours can be filled"));
        *self.member(i) = Some(Background::start(&mut command));
    }
}

/// The host of a member, with a port unless that is 0.
fn host(i: usize, port: u16) -> String {
    let host = format!("{SUBNET}.{}", i + 1);
    if port == 0 { host } else { format!("{host}:{port}") }
}

fn endpoint(i: usize) -> String {
    format!("https://{}", host(i, 2379))
}
