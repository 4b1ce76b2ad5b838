//! A node of the cluster: containerd, kubelet and kube-proxy.

use crate::cluster::PODS;
use crate::control::Control;
use crate::kubectl::LIMIT;
use integration::{Containerd, Host, Node, Release, kubernetes, poll};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;

/// A running node.
pub struct Machine {
    /// The Node's name.
    pub name: &'static str,
    /// Its address on the machines' network.
    pub address: &'static str,
    /// Its runtime, with its file system and processes.
    pub containerd: Containerd,
    /// Its network.
    pub node: Node,
}

/// The values that kubelet requires for these settings. They belong to the whole machine, so kubelet sees
/// files with these values instead.
pub const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

impl Machine {
    /// Starts everything that a node has before its network is installed.
    pub fn start(node: Node, name: &'static str, address: &'static str, control: &Control) -> Machine {
        // The last containerd that supports the CRI version of this Kubernetes.
        let containerd = Containerd::start(&node, Release::Stable);
        containerd.import_product();
        containerd.uninstall();
        let machine = Machine { name, address, containerd, node };
        machine.show_settings();
        install(&machine.containerd, &["kubelet", "kube-proxy"]);
        machine.containerd.write("/etc/kubernetes/server.crt", control.certificate());
        machine
            .containerd
            .write("/etc/kubernetes/kubelet.conf", &control.kubeconfig(&format!("system:node:{name}")));
        machine.containerd.write("/etc/kubernetes/proxy.conf", &control.kubeconfig("system:kube-proxy"));
        machine.containerd.write("/etc/kubernetes/kubelet.json", &kubelet());
        machine.launch();
        machine
    }

    fn show_settings(&self) {
        for (key, value) in SETTINGS {
            let file = format!("/etc/settings/{}", key.replace('/', "-"));
            self.containerd.write(&file, value);
            self.containerd.run(&format!("mount --bind {file} /proc/sys/{key}")).expect_ok();
        }
        // Kubelet reads here which processes the kernel has killed.
        self.containerd.run("mknod /dev/kmsg c 1 11").expect_ok();
    }

    /// Ends kubelet and containerd as a crash would, and starts them again.
    pub fn crash(&self) {
        self.containerd.stop("kubelet", "KILL");
        self.containerd.restart("KILL");
        self.start_kubelet();
    }

    fn launch(&self) {
        self.start_kubelet();
        let name = self.name;
        self.containerd.start(
            "proxy",
            &format!(
                "/opt/kubernetes/kube-proxy --hostname-override {name} --kubeconfig /etc/kubernetes/proxy.conf \
                 --proxy-mode iptables --cluster-cidr {PODS} --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0 \
                 --conntrack-tcp-timeout-close-wait 0"
            ),
        );
    }

    fn start_kubelet(&self) {
        let (name, address) = (self.name, self.address);
        self.containerd.start(
            "kubelet",
            &format!(
                // Without the variable, kubelet asks an address outside whether the machine belongs to a
                // cloud.
                "env AWS_EC2_METADATA_DISABLED=true /opt/kubernetes/kubelet --hostname-override {name} \
                 --node-ip {address} --kubeconfig /etc/kubernetes/kubelet.conf \
                 --config /etc/kubernetes/kubelet.json --container-runtime remote \
                 --container-runtime-endpoint unix:///run/containerd/containerd.sock"
            ),
        );
    }

    /// Waits until no trace of a pod is left.
    #[track_caller]
    pub fn await_empty(&self) {
        let is_empty = || self.attachments().is_empty();
        let there = self.attachments();
        poll(LIMIT, &format!("nothing is left on {}, where there was {there:?}", self.name), is_empty);
    }

    /// All traces of attachments: leases, ports, rules, routes, namespaces.
    pub fn attachments(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        all.extend(self.containerd.leases("vlan136").iter().map(|ip| format!("lease {ip}")));
        for folder in ["/run/netns", "/var/lib/cni/results"] {
            for entry in fs::read_dir(self.containerd.path(folder)).into_iter().flatten().flatten() {
                all.insert(format!("{folder}/{}", entry.file_name().display()));
            }
        }
        for kind in ["attachments", "guards", "ways"] {
            let folder = format!("/run/vlan-bridge/{kind}/{}", self.node.cookie());
            for entry in fs::read_dir(self.containerd.path(&folder)).into_iter().flatten().flatten() {
                all.insert(format!("record of {kind} {}", entry.file_name().display()));
            }
        }
        for link in self.node.ip_json("link show master br136").as_array().expect("a list") {
            let name = link["ifname"].as_str().expect("a link has a name");
            if name != "nic0" {
                all.insert(format!("port {name}"));
            }
        }
        for route in self.node.ip_json("route show proto 117").as_array().expect("a list") {
            all.insert(format!("route {}", route["dst"]));
        }
        let rules = self.node.run("nft list ruleset").expect_ok().stdout;
        // The guard's and the boundary's tables stay with the bridge, but name no pod.
        all.extend(rules.lines().filter(|line| line.contains("veth")).map(str::to_owned));
        all.extend(rules.contains("table inet vlan-bridge {").then(|| "table inet vlan-bridge".to_owned()));
        all
    }
}

/// Copies Kubernetes' programs to `/opt/kubernetes` of a host.
pub fn install(host: &Host, programs: &[&str]) {
    let folder = host.path("/opt/kubernetes");
    fs::create_dir_all(&folder).expect("the host is writable");
    for program in programs {
        fs::copy(kubernetes().join(program), folder.join(program))
            .unwrap_or_else(|error| panic!("cannot install {program}: {error}"));
    }
}

/// Kubelet's configuration. Every machine in the cluster's network may send it any request, because the
/// network has no other machines.
fn kubelet() -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs", "failSwapOn": false, "protectKernelDefaults": true, "oomScoreAdj": 0,
        "resolvConf": "", "kubeAPIQPS": 50, "kubeAPIBurst": 100, "registryPullQPS": 0,
        "evictionHard": {"memory.available": "50Mi"},
        // The interval at which it updates pods, for example after a changed ConfigMap.
        "syncFrequency": "5s",
    })
    .to_string()
}
