//! A part of a Kubernetes API server: Nodes to read, and events to post.

use integration::{Ctl, Node, poll};
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
/// A namespace that has been deleted.
pub const GONE: &str = "gone";

/// An API server with a few Nodes, over TLS, on a node's loopback. It answers clients with the token.
pub struct ApiServer {
    port: u16,
    certificate: String,
    pub nodes: Arc<Mutex<Vec<Value>>>,
    pub may_list: Arc<AtomicBool>,
    /// What was posted: the path, and the document.
    pub posted: Arc<Mutex<Vec<(String, Value)>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    pub fn start(node: &Node, nodes: &[Value]) -> ApiServer {
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
            posted: Arc::default(),
            stopped: Arc::default(),
            thread: None,
        };
        let (nodes, may_list, posted) =
            (server.nodes.clone(), server.may_list.clone(), server.posted.clone());
        let (stopped, config) = (server.stopped.clone(), Arc::new(config));
        listener.set_nonblocking(true).unwrap();
        server.thread = Some(std::thread::spawn(move || {
            poll(Duration::from_secs(600), "the end of the API server", || {
                while let Ok((stream, _)) = listener.accept() {
                    // A client that distrusts the certificate closes the connection.
                    let _ = answer(stream, &config, &nodes, may_list.load(Ordering::SeqCst), &posted);
                }
                stopped.load(Ordering::SeqCst)
            });
        }));
        server
    }

    /// A command of vlan-bridgectl in a pod of the node: with the variables and the service account's files.
    pub fn within(&self, ctl: &Ctl, line: &str) -> Command {
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
    posted: &Mutex<Vec<(String, Value)>>,
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
    let (status, body) = if request.starts_with("POST ") && has_token(&request) {
        let length = request
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        if path == format!("/api/v1/namespaces/{GONE}/events") {
            (404, json!({"message": format!("namespaces {GONE:?} not found")}))
        } else {
            posted.lock().unwrap().push((path.to_owned(), serde_json::from_slice(&body)?));
            (201, json!({}))
        }
    } else {
        respond(&request, path, &nodes, may_list)
    };
    let body = body.to_string();
    let head = "Content-Type: application/json\r\nConnection: close";
    write!(stream, "HTTP/1.1 {status} Said\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()
}

fn has_token(request: &str) -> bool {
    request.lines().any(|line| line.eq_ignore_ascii_case(&format!("authorization: Bearer {TOKEN}")))
}

/// Pages as an API server does, with one Node in each page, so that the client must follow them.
fn respond(request: &str, path: &str, nodes: &[Value], may_list: bool) -> (u16, Value) {
    if !has_token(request) {
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
