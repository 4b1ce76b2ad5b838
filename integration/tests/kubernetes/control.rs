//! The control plane: etcd, the API server, the controller manager and the scheduler, on a machine of their
//! own.

use crate::cluster::{PODS, SERVICES};
use crate::machine::install;
use integration::{Host, Node, poll};
use serde_json::json;
use std::time::Duration;

/// A running control plane.
pub struct Control {
    /// Its file system and processes.
    pub host: Host,
    certificate: String,
    _node: Node,
}

/// The users, by token: name and groups.
const USERS: [(&str, &str); 6] = [
    ("admin", "system:masters"),
    ("system:kube-controller-manager", ""),
    ("system:kube-scheduler", ""),
    ("system:kube-proxy", ""),
    ("system:node:n1", "system:nodes"),
    ("system:node:n2", "system:nodes"),
];

/// The prefix length of a node's slice: 64 addresses, so that one node can have 50 pods.
const SLICE: u8 = 26;

impl Control {
    /// The address of the API server.
    pub const ADDRESS: &str = "10.51.0.10";

    /// Starts everything and waits until the API server is ready.
    pub fn start(node: Node) -> Control {
        let host = Host::bare(&node);
        let programs = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];
        install(&host, &programs);
        let names = [Control::ADDRESS, "127.0.0.1", "10.96.0.1", "kubernetes.default.svc"].map(str::to_owned);
        let key = rcgen::generate_simple_self_signed(names).expect("a key can be made");
        let control = Control { host, certificate: key.cert.pem(), _node: node };
        control.host.write("/etc/kubernetes/server.crt", &control.certificate);
        control.host.write("/etc/kubernetes/server.key", &key.signing_key.serialize_pem());
        let tokens = USERS.map(|(name, groups)| format!("{},{name},{name},\"{groups}\"\n", token(name)));
        control.host.write("/etc/kubernetes/tokens.csv", &tokens.concat());
        for (file, user) in [
            ("admin", "admin"),
            ("controllers", "system:kube-controller-manager"),
            ("scheduler", "system:kube-scheduler"),
        ] {
            control.host.write(&format!("/etc/kubernetes/{file}.conf"), &control.kubeconfig(user));
        }
        control.launch();
        control
    }

    /// The kubeconfig of a user.
    pub fn kubeconfig(&self, user: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {
                "server": format!("https://{}:6443", Control::ADDRESS),
                "certificate-authority": "/etc/kubernetes/server.crt",
            }}],
            "users": [{"name": "me", "user": {"token": token(user)}}],
        })
        .to_string()
    }

    /// The API server's certificate, which all clients trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    fn launch(&self) {
        let start = |name: &str, line: String| self.host.start(name, &format!("/opt/kubernetes/{line}"));
        let etcd = "http://127.0.0.1:2379";
        start(
            "etcd",
            format!(
                "etcd --data-dir /var/lib/etcd --listen-client-urls {etcd} --advertise-client-urls {etcd} \
                 --listen-peer-urls http://127.0.0.1:2380"
            ),
        );
        let address = Control::ADDRESS;
        start(
            "apiserver",
            format!(
                "kube-apiserver --etcd-servers {etcd} --bind-address {address} --advertise-address {address} \
                 --service-cluster-ip-range {SERVICES} --authorization-mode Node,RBAC \
                 --enable-admission-plugins NodeRestriction --allow-privileged \
                 --kubelet-preferred-address-types InternalIP \
                 --token-auth-file /etc/kubernetes/tokens.csv --tls-cert-file /etc/kubernetes/server.crt \
                 --tls-private-key-file /etc/kubernetes/server.key \
                 --service-account-key-file /etc/kubernetes/server.crt \
                 --service-account-signing-key-file /etc/kubernetes/server.key \
                 --service-account-issuer https://kubernetes.default.svc"
            ),
        );
        poll(Duration::from_secs(180), "the API server", || self.kubectl("get --raw /readyz").ok());
        start(
            "controllers",
            format!(
                "kube-controller-manager --kubeconfig /etc/kubernetes/controllers.conf --leader-elect=false \
                 --use-service-account-credentials --root-ca-file /etc/kubernetes/server.crt \
                 --service-account-private-key-file /etc/kubernetes/server.key \
                 --allocate-node-cidrs --cluster-cidr {PODS} --node-cidr-mask-size {SLICE}"
            ),
        );
        start(
            "scheduler",
            "kube-scheduler --kubeconfig /etc/kubernetes/scheduler.conf --leader-elect=false".to_owned(),
        );
    }
}

/// A secret that only two programs know.
fn token(user: &str) -> String {
    format!("token-of-{}", user.replace(':', "-"))
}
