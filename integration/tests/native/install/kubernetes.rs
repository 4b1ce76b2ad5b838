//! `vlan-bridgectl install` within a pod: it gets this node's slice from the Kubernetes API.

use integration::{Background, Ctl, Node, Outcome, poll, run};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const HOST: &str = "127.0.0.1";
const TOKEN: &str = "the-pods-token";
const LIST: &str = "/etc/cni/net.d/10-vlan136.conflist";

/// An API server with a few Nodes, over TLS, on a node's loopback. It answers clients with the token.
struct ApiServer {
    port: u16,
    certificate: String,
    nodes: Arc<Mutex<Vec<Value>>>,
    may_list: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    fn start(node: &Node, nodes: &[Value]) -> ApiServer {
        let key = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private)
            .unwrap();
        let listener = node.enter(|| TcpListener::bind((HOST, 0)).unwrap());
        let mut server = ApiServer {
            port: listener.local_addr().unwrap().port(),
            certificate: key.cert.pem(),
            nodes: Arc::new(Mutex::new(nodes.to_vec())),
            may_list: Arc::new(AtomicBool::new(true)),
            stopped: Arc::default(),
            thread: None,
        };
        let (nodes, may_list) = (server.nodes.clone(), server.may_list.clone());
        let (stopped, config) = (server.stopped.clone(), Arc::new(config));
        listener.set_nonblocking(true).unwrap();
        server.thread = Some(std::thread::spawn(move || {
            poll(Duration::from_secs(600), "the end of the API server", || {
                while let Ok((stream, _)) = listener.accept() {
                    // A client that distrusts the certificate closes the connection.
                    let _ = answer(stream, &config, &nodes, may_list.load(Ordering::SeqCst));
                }
                stopped.load(Ordering::SeqCst)
            });
        }));
        server
    }

    /// The server's settings in a pod of the node: variables and the service account's files.
    fn install(&self, ctl: &Ctl, words: &str) -> Outcome {
        run(&mut self.command(ctl, words))
    }

    fn command(&self, ctl: &Ctl, words: &str) -> Command {
        let line =
            "install --name vlan136 --master bond0 --vlan 136 --subnet 172.20.56.0/24 --gateway 172.20.56.1";
        self.within(ctl, &format!("{line} {words}"))
    }

    fn within(&self, ctl: &Ctl, line: &str) -> Command {
        let account = "/run/secrets/kubernetes.io/serviceaccount";
        if !ctl.has(account) {
            ctl.write(&format!("{account}/token"), TOKEN);
            ctl.write(&format!("{account}/ca.crt"), &self.certificate);
        }
        let mut command = ctl.command(line);
        command.env("KUBERNETES_SERVICE_HOST", HOST).env("KUBERNETES_SERVICE_PORT", self.port.to_string());
        command.env("NODE_NAME", "n1").env("HTTPS_PROXY", "http://127.0.0.1:1");
        command
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    nodes: &Mutex<Vec<Value>>,
    may_list: bool,
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let connection = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    let nodes = nodes.lock().unwrap().clone();
    let (status, body) = respond(&request, path, &nodes, may_list);
    let body = body.to_string();
    let head = "Content-Type: application/json\r\nConnection: close";
    write!(stream, "HTTP/1.1 {status} Said\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()
}

/// Pages as an API server does, with one Node in each page, so that the client must follow them.
fn respond(request: &str, path: &str, nodes: &[Value], may_list: bool) -> (u16, Value) {
    let shown =
        request.lines().any(|line| line.eq_ignore_ascii_case(&format!("authorization: Bearer {TOKEN}")));
    if !shown {
        return (401, json!({"message": "Unauthorized"}));
    }
    if let Some(name) = path.strip_prefix("/api/v1/nodes/") {
        let node = nodes.iter().find(|node| node["metadata"]["name"] == name);
        return node.map_or((404, json!({"message": "not found"})), |node| (200, node.clone()));
    }
    let Some(query) = path.strip_prefix("/api/v1/nodes?").filter(|_| may_list) else {
        return (403, json!({"message": "nodes is forbidden"}));
    };
    let token = query.split("continue=").nth(1).unwrap_or_default().replace("%3D", "=");
    let at: usize = token.trim_end_matches('=').parse().unwrap_or(0);
    let more = if at + 1 < nodes.len() { format!("{}=", at + 1) } else { String::new() };
    (200, json!({"items": nodes.get(at..=at).unwrap_or_default(), "metadata": {"continue": more}}))
}

fn node(name: &str, annotation: Option<&str>, cidrs: &[&str]) -> Value {
    let mut node = json!({"metadata": {"name": name, "annotations": {}},
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
        "status": {"nodeInfo": {"containerRuntimeVersion": "containerd://2.1.9"}}});
    if let Some(slice) = annotation {
        node["metadata"]["annotations"]["cni.vlan-bridge/slice"] = slice.into();
    }
    node
}

fn slice(ctl: &Ctl) -> Value {
    let list: Value = serde_json::from_str(&ctl.read(LIST)).unwrap();
    list["plugins"][0]["ipam"]["slice"].clone()
}

#[test]
fn each_source_of_a_slice_goes_before_the_next() {
    let machine = Node::new("node");
    machine.ip("link add bond0 type veth peer name switch");
    let ctl = Ctl::new(&machine);
    let both = node("n1", Some("172.20.56.48/28"), &["172.20.56.16/28"]);
    let server = ApiServer::start(&machine, &[both, node("n2", None, &["172.20.56.32/28"])]);
    ctl.write("/etc/slices", "n1 172.20.56.64/28\n");
    let cases = [
        (None, "--slice 172.20.56.80/28", "172.20.56.80/28", "--slice"),
        (None, "", "172.20.56.48/28", "annotation of Node n1"),
        (Some(node("n1", None, &["172.20.56.16/28"])), "", "172.20.56.16/28", "spec.podCIDRs of Node n1"),
        (Some(node("n1", None, &[])), "", "172.20.56.64/28", "/etc/slices"),
    ];
    for (changed, words, expected, source) in cases {
        server.nodes.lock().unwrap()[0] = changed.unwrap_or_else(|| server.nodes.lock().unwrap()[0].clone());
        let told = server.install(&ctl, &format!("--mapping /etc/slices {words}")).expect_ok();
        assert!(told.stdout.contains(&format!("{expected} ({source})")), "{told}");
        assert_eq!(slice(&ctl), expected, "{told}");
        assert_eq!(
            told.stdout.contains("found     containerd 2.1.9, up to CNI 1.1.0"),
            words.is_empty(),
            "{told}"
        );
        assert!(told.stderr.is_empty(), "{told}");
    }
}

#[test]
fn what_the_node_says_otherwise_than_the_list_is_told() {
    let machine = Node::new("node");
    let ctl = Ctl::new(&machine);
    let server = ApiServer::start(&machine, &[node("n1", Some("172.20.56.32/28"), &[])]);
    server.install(&ctl, "").expect_ok();
    ctl.write("/etc/10-vlan136.conflist", &ctl.read(LIST));
    server.nodes.lock().unwrap()[0] = node("n1", Some("172.20.56.48/28"), &[]);
    let told = run(&mut server.within(&ctl, "install --network /etc/10-vlan136.conflist")).expect_ok();
    let word = "the list has ipam.slice 172.20.56.32/28, and annotation of Node n1 has 172.20.56.48/28: \
                using the list's";
    assert!(told.stderr.contains(word), "{told}");
    assert_eq!(slice(&ctl), "172.20.56.32/28");
}

#[test]
fn the_first_nodes_slice_holds_the_router_and_it_is_not_given_out() {
    let machine = Node::new("node");
    let ctl = Ctl::new(&machine);
    let server = ApiServer::start(&machine, &[node("n1", None, &["172.20.56.0/28"])]);
    server.install(&ctl, "--exclude 172.20.56.2").expect_ok();
    assert_eq!(slice(&ctl), "172.20.56.0/28");
}

#[test]
fn what_the_cluster_says_wrong_leaves_the_old_list() {
    let machine = Node::new("node");
    let ctl = Ctl::new(&machine);
    let server = ApiServer::start(&machine, &[node("n1", None, &[]), node("n2", None, &["172.20.56.32/28"])]);
    ctl.write(LIST, "as it was");
    let cases: [(Value, &[&str]); 5] = [
        (node("n1", None, &[]), &["no slice for node n1", "annotation cni.vlan-bridge/slice", "podCIDR"]),
        (
            node("n1", Some("172.20.56.32/29"), &[]),
            &["172.20.56.32/29 of node n1", "172.20.56.32/28 of node n2"],
        ),
        (node("n1", None, &["10.244.0.0/28"]), &["10.244.0.0/28", "spec.podCIDRs", "172.20.56.0/24"]),
        (node("n1", Some("x"), &[]), &["annotation cni.vlan-bridge/slice of Node n1", "\"x\""]),
        (node("n9", None, &[]), &["there is no Node n1", "NODE_NAME"]),
    ];
    for (changed, named) in cases {
        server.nodes.lock().unwrap()[0] = changed;
        let outcome = server.install(&ctl, "");
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
        for name in named {
            assert!(outcome.stderr.contains(name), "{name} is not in {outcome}");
        }
        assert!(ctl.read(LIST) == "as it was" && !ctl.has("/opt/cni/bin"), "{outcome}");
    }
    // An account that may only read its own Node, as recommended, does not learn other slices.
    server.nodes.lock().unwrap()[0] = node("n1", None, &["172.20.56.16/28"]);
    server.may_list.store(false, Ordering::SeqCst);
    let told = server.install(&ctl, "").expect_ok();
    assert!(told.stderr.contains("cannot check whether another node has the same slice"), "{told}");
    assert!(told.stderr.contains("nodes is forbidden"), "{told}");
}

#[test]
fn nobody_but_the_clusters_own_api_server_is_believed() {
    let machine = Node::new("node");
    let ctl = Ctl::new(&machine);
    let nodes = [node("n1", None, &["172.20.56.16/28"])];
    let (server, impostor) = (ApiServer::start(&machine, &nodes), ApiServer::start(&machine, &nodes));
    server.install(&ctl, "").expect_ok();
    let outcome = impostor.install(&ctl, "");
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    assert!(outcome.stderr.contains("certificate"), "{outcome}");
    ctl.write("/run/secrets/kubernetes.io/serviceaccount/token", "expired");
    let outcome = server.install(&ctl, "");
    assert!(!outcome.ok() && outcome.stderr.contains("401: Unauthorized"), "{outcome}");
}

#[test]
fn a_watch_installs_again_when_the_nodes_annotation_or_pod_cidr_changes() {
    const LIMIT: Duration = Duration::from_secs(120);
    let machine = Node::new("node");
    let ctl = Ctl::new(&machine);
    let server = ApiServer::start(&machine, &[node("n1", None, &["172.20.56.16/28"])]);
    let _watch = Background::start(&mut server.command(&ctl, "--watch"));
    let reaches =
        |wanted: &str| poll(LIMIT, &format!("slice {wanted}"), || ctl.has(LIST) && slice(&ctl) == wanted);
    reaches("172.20.56.16/28");
    let change = |to| server.nodes.lock().unwrap()[0] = to;
    change(node("n1", None, &["172.20.56.32/28"]));
    reaches("172.20.56.32/28");
    change(node("n1", Some("172.20.56.64/28"), &["172.20.56.32/28"]));
    reaches("172.20.56.64/28");
}

/// As in the DaemonSet on k3s: the container sees the node's folders, and kubelet's report of the runtime.
#[test]
fn what_kubelet_says_is_of_the_distribution_whose_folders_are_there() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let mut of_k3s = self::node("n1", Some("172.20.56.16/28"), &[]);
    of_k3s["status"]["nodeInfo"]["containerRuntimeVersion"] = json!("containerd://2.1.4-k3s1");
    let server = ApiServer::start(&node, &[of_k3s]);
    let (plugins, lists) = ("/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d");
    [plugins, lists].iter().for_each(|folder| std::fs::create_dir_all(ctl.path(folder)).unwrap());
    let told = server.install(&ctl, "").expect_ok();
    assert!(told.stdout.contains("found     k3s (containerd) 2.1.4-k3s1, up to CNI 1.1.0\n"), "{told}");
    assert!(ctl.has(&format!("{plugins}/vlan-bridge")) && ctl.has(&format!("{lists}/10-vlan136.conflist")));
    assert!(!ctl.has("/opt/cni/bin") && !ctl.has(LIST), "{told}");
}
