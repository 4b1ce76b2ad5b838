//! A site without attachments. Tests of failures start with it and compare with it at the end.

use integration::{Attachment, Call, Outcome, Plugin, Pod, Scratch, Site, Snapshot, peers, product};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A site with a complete bridge and uplink but without attachments, and a snapshot of that state.
pub struct Clean {
    pub site: Site,
    before: Snapshot,
}

impl Clean {
    /// Attaches a pod and detaches it again, on a node with an address for pods. What remains belongs to the
    /// node.
    pub fn new() -> Clean {
        let site = Site::new();
        site.give_node_its_own_network();
        let (pod, plugin) = (Pod::new(), site.node.plugin(&site.list()));
        plugin.add(&pod.eth0()).expect_ok();
        plugin.del(&pod.eth0()).expect_ok();
        let before = Snapshot::of(&site.node);
        Clean { site, before }
    }

    /// Our plugin with the site's own configuration.
    pub fn plugin(&self) -> Plugin<'_> {
        self.site.node.plugin(&self.site.list())
    }

    /// Our plugin on the site with another IPAM section.
    pub fn plugin_with_ipam(&self, ipam: Value) -> Plugin<'_> {
        let mut conf = self.site.conf();
        conf["ipam"] = ipam;
        self.site.node.plugin(&self.site.node.list(Site::NETWORK, &[conf]))
    }

    /// Deletes the bridge, so that the next ADD is the node's first.
    pub fn make_bare(&self) {
        self.site.node.ip("link del br136");
    }

    /// Panics if node or pod has a link, address, route, rule or lease other than those of bridge and uplink.
    #[track_caller]
    pub fn assert_nothing_left(&self, pod: &Pod) {
        self.before.assert_unchanged(&self.site.node);
        assert!(!pod.has_link("eth0"), "the pod still has eth0");
        let leases = self.site.node.leases(Site::NETWORK);
        assert!(leases.is_empty(), "leases are left: {leases:?}");
    }
}

/// An IPAM plugin of a few shell lines. The runtime's path finds it before all others.
///
/// The script has `$folder`, a folder of its own, and `$real`, the real plugin of that name, if there is one.
pub struct FakeIpam {
    folder: Scratch,
}

impl FakeIpam {
    /// A plugin called `name`.
    pub fn new(name: &str, script: &str) -> FakeIpam {
        let folder = Scratch::new("ipam");
        let path = folder.path().join(name);
        let real = integration::plugin(name);
        let text = format!(
            "#!/bin/sh\nfolder={}\nreal={}\necho \"$CNI_COMMAND\" >> \"$folder/calls\"\n{script}\n",
            folder.path().display(),
            real.display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        FakeIpam { folder }
    }

    /// A plugin called `fake` that answers ADD with these lines of shell and DEL with success.
    pub fn adding(script: &str) -> FakeIpam {
        FakeIpam::new("fake", &format!("[ \"$CNI_COMMAND\" = ADD ] || exit 0\n{script}"))
    }

    /// A plugin called `fake` that answers ADD with this result.
    pub fn giving(result: &Value) -> FakeIpam {
        FakeIpam::adding(&format!("cat <<'END'\n{result}\nEND"))
    }

    /// Makes a call find this plugin.
    pub fn before<'a>(&self, call: Call<'a>) -> Call<'a> {
        let path = [self.folder.path(), &product(), &peers()].map(|folder| folder.display().to_string());
        call.env("CNI_PATH", path.join(":"))
    }

    /// The verbs that it was called with.
    pub fn calls(&self) -> Vec<String> {
        self.read("calls").lines().map(str::to_owned).collect()
    }

    /// The content of a file in the script's folder. Empty if there is none.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }

    /// Whether the script has made a file in its folder.
    pub fn exists(&self, file: &str) -> bool {
        self.folder.path().join(file).exists()
    }

    /// Makes a file in its folder, for a script that waits for it.
    pub fn write(&self, file: &str) {
        fs::write(self.folder.path().join(file), "").unwrap();
    }
}

/// An ADD through a [`FakeIpam`].
#[track_caller]
pub fn add_through(ipam: &FakeIpam, plugin: &Plugin<'_>, eth0: &Attachment) -> Outcome {
    ipam.before(plugin.call("ADD", eth0)).run()
}
