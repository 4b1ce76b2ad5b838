//! A machine that runs plugins.

use crate::modules::InUse;
use crate::{Client, Namespace, Plugin, Pod, Scratch, Snapshot, programs};
use serde_json::{Value, json};
use std::fs;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::PathBuf;

/// A namespace with its own folders for the address store and libcni's cache, because all nodes of a test
/// share one file system. Dereferences to its [`Namespace`].
#[derive(Debug)]
pub struct Node {
    namespace: Namespace,
    folder: Scratch,
    _modules: InUse,
}

impl Node {
    /// A node without a NIC.
    pub fn new(role: &str) -> Node {
        let _modules = InUse::new();
        Node { namespace: Namespace::new(role), folder: Scratch::new(role), _modules }
    }

    /// The node's namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The folder of the IPAM plugin's leases, for `ipam.dataDir`.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("leases")
    }

    /// libcni's cache.
    pub fn cache_dir(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// The folder of our plugin's records of this node's attachments. It exists while there are any.
    pub fn records(&self) -> PathBuf {
        PathBuf::from(format!("/run/vlan-bridge/attachments/{}", self.namespace.cookie()))
    }

    /// A folder for other files of a test.
    pub fn folder(&self) -> &Scratch {
        &self.folder
    }

    /// A network list `name` with these plugins for this node, in the newest version of the specification.
    /// Every IPAM section without `dataDir` gets this node's.
    pub fn list(&self, name: &str, plugins: &[Value]) -> Value {
        self.with_own_leases(json!({"cniVersion": "1.1.0", "name": name, "plugins": plugins}))
    }

    /// A list of `examples/`, unchanged except for this node's `dataDir`.
    #[track_caller]
    pub fn example(&self, text: &str) -> Value {
        self.with_own_leases(serde_json::from_str(text).expect("an example is JSON"))
    }

    fn with_own_leases(&self, mut list: Value) -> Value {
        for plugin in list["plugins"].as_array_mut().expect("a list has an array of plugins") {
            if let Some(ipam) = plugin["ipam"].as_object_mut()
                && !ipam.is_empty()
            {
                ipam.entry("dataDir").or_insert_with(|| json!(self.data_dir()));
            }
        }
        list
    }

    /// A client that attaches pods of this node to the network of `list`, through libcni.
    pub fn client(&self, list: &Value) -> Client<'_> {
        Client::new(self, list)
    }

    /// A plugin to be run on this node by hand, with the first plugin's configuration of `list` as its stdin.
    pub fn plugin(&self, list: &Value) -> Plugin<'_> {
        let mut conf = list["plugins"][0].clone();
        for key in ["cniVersion", "name"] {
            conf[key] = list[key].clone();
        }
        let program = programs::plugin(conf["type"].as_str().expect("a plugin has a type"));
        Plugin::new(self, program, conf)
    }

    /// Panics unless ADD refuses the first plugin of `list` as an invalid configuration. The message must
    /// contain `named`, and node, pod and leases must be unchanged.
    #[track_caller]
    pub fn assert_refuses(&self, list: &Value, named: &[&str]) {
        let pod = Pod::new();
        let before = (Snapshot::of(self), Snapshot::of(&pod));
        let network = list["name"].as_str().expect("a list has a name");
        let held = self.leases(network);
        let outcome = self.plugin(list).add(&pod.eth0());
        assert_eq!(outcome.error_code(), 7, "{outcome}");
        for name in named {
            assert!(outcome.error_text().contains(name), "{name} is not in {outcome}");
        }
        before.0.assert_unchanged(self);
        before.1.assert_unchanged(&pod);
        assert_eq!(self.leases(network), held, "{outcome}");
    }

    /// Writes so many leases to the store of a network in host-local's form, from `first` on.
    pub fn hold(&self, network: &str, first: Ipv4Addr, count: u32) {
        let store = self.data_dir().join(network);
        fs::create_dir_all(&store).expect("our own folder is writable");
        for i in 0..count {
            let address = Ipv4Addr::from(u32::from(first) + i);
            fs::write(store.join(address.to_string()), format!("crowd{i}\r\neth0"))
                .expect("our own folder is writable");
        }
    }

    /// The addresses with a lease in the store of a network, sorted.
    pub fn leases(&self, network: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.data_dir().join(network)) else { return Vec::new() };
        let mut held: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.parse::<std::net::IpAddr>().is_ok())
            .collect();
        held.sort();
        held
    }
}

impl Drop for Node {
    /// Pods that are still attached have records, in folders that all nodes share.
    fn drop(&mut self) {
        let node = self.namespace.cookie().to_string();
        for kind in fs::read_dir("/run/vlan-bridge").into_iter().flatten().flatten() {
            let _ = fs::remove_dir_all(kind.path().join(&node));
        }
    }
}

impl Deref for Node {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}
