//! Containers: a network namespace and an ID.

use crate::{Namespace, poll};
use serde_json::{Value, json};
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

/// A container: a namespace with an id. Dereferences to its [`Namespace`].
#[derive(Debug)]
pub struct Pod {
    namespace: Namespace,
}

impl Pod {
    /// A container with nothing but `lo`.
    pub fn new() -> Pod {
        Pod { namespace: Namespace::new("pod") }
    }

    /// Its container id.
    pub fn id(&self) -> &str {
        self.namespace.name()
    }

    /// Its `eth0`, to be attached or detached.
    pub fn eth0(&self) -> Attachment {
        self.interface("eth0")
    }

    /// An interface of its, to be attached or detached.
    pub fn interface(&self, ifname: &str) -> Attachment {
        Attachment {
            id: self.id().to_owned(),
            netns: Some(self.namespace.path()),
            ifname: ifname.to_owned(),
            args: String::new(),
            capabilities: json!({}),
        }
    }

    /// Waits until `eth0` has announced its address for the last time. The kernel does that from a neighbour
    /// entry of the address, a second apart.
    #[track_caller]
    pub fn await_silence(&self, address: &str) {
        poll(Duration::from_secs(20), "the pod's last announcement", || {
            !self.run(&format!("ip neigh show {address} dev eth0")).stdout.contains("PROBE")
        });
    }
}

impl Default for Pod {
    fn default() -> Pod {
        Pod::new()
    }
}

impl Deref for Pod {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

/// `eth0` of a container without a namespace of its own, because IPAM does not need one.
pub fn eth0(id: &str) -> Attachment {
    Attachment {
        id: id.to_owned(),
        netns: Some("/run/netns/none".into()),
        ifname: "eth0".to_owned(),
        args: String::new(),
        capabilities: json!({}),
    }
}

/// The values that a runtime passes for one attachment. They outlive the pod, because DEL must work without
/// it.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub id: String,
    /// `CNI_NETNS`. None passes an empty one, as runtimes do for a pod that is gone.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// Capability arguments by name. A plugin that declares them gets them as `runtimeConfig`.
    pub capabilities: Value,
}

impl Attachment {
    /// The same with these `CNI_ARGS`.
    pub fn args(mut self, args: &str) -> Attachment {
        args.clone_into(&mut self.args);
        self
    }

    /// The same with these capability arguments.
    pub fn capabilities(mut self, capabilities: Value) -> Attachment {
        self.capabilities = capabilities;
        self
    }

    /// The same with an empty `CNI_NETNS`.
    pub fn without_netns(mut self) -> Attachment {
        self.netns = None;
        self
    }

    /// The entry for GC's list of valid attachments.
    pub fn valid(&self) -> Value {
        json!({"containerID": self.id, "ifname": self.ifname})
    }

    pub(crate) fn netns_text(&self) -> String {
        self.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}
