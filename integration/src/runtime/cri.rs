//! The part of Kubernetes' Container Runtime Interface (cri-api `runtime/v1/api.proto`) that sandboxes need.
//! It is gRPC over a Unix socket, with one connection for each call. The messages have only the fields that
//! are used here.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// The time limit of a call, also in the emulator.
const LIMIT: Duration = Duration::from_secs(60);

/// A CRI socket.
#[derive(Debug)]
pub struct Cri {
    socket: PathBuf,
}

/// A host port of a sandbox.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    /// The port of the node.
    pub host: u16,
    /// The port in the sandbox, TCP.
    pub container: u16,
}

/// A sandbox that runs.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Its container id.
    pub id: String,
    /// Its address.
    pub ip: IpAddr,
}

impl Cri {
    pub(super) fn new(socket: PathBuf) -> Cri {
        Cri { socket }
    }

    /// RunPodSandbox, and the address from PodSandboxStatus.
    ///
    /// # Errors
    /// The error of the runtime.
    pub fn run(&self, name: &str, ports: &[Port]) -> Result<Sandbox, String> {
        let ports = ports
            .iter()
            .map(|port| PortMapping { container_port: port.container.into(), host_port: port.host.into() });
        let config = PodSandboxConfig {
            metadata: Some(Metadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
            }),
            hostname: name.into(),
            log_directory: "/var/log/pods".into(),
            port_mappings: ports.collect(),
            linux: Some(Linux {}),
        };
        let answer: IdAnswer = self.call("RunPodSandbox", &RunRequest { config: Some(config) })?;
        let ip = self.ip(&answer.id)?;
        let ip = ip.parse().map_err(|_| format!("the address of {name} is {ip:?}"))?;
        Ok(Sandbox { id: answer.id, ip })
    }

    /// StopPodSandbox.
    ///
    /// # Errors
    /// The error of the runtime.
    pub fn stop(&self, sandbox: &Sandbox) -> Result<(), String> {
        self.call("StopPodSandbox", &IdRequest { id: sandbox.id.clone() }).map(|Empty {}| ())
    }

    /// RemovePodSandbox.
    ///
    /// # Errors
    /// The error of the runtime.
    pub fn remove(&self, sandbox: &Sandbox) -> Result<(), String> {
        self.call("RemovePodSandbox", &IdRequest { id: sandbox.id.clone() }).map(|Empty {}| ())
    }

    /// Whether the runtime reports its network as ready, and its message.
    ///
    /// # Errors
    /// The error of the runtime.
    pub fn network_ready(&self) -> Result<(bool, String), String> {
        let answer: StatusAnswer = self.call("Status", &Empty {})?;
        let conditions = answer.status.unwrap_or_default().conditions;
        let network = conditions.into_iter().find(|condition| condition.kind == "NetworkReady");
        network.map(|it| (it.status, it.message)).ok_or_else(|| "no word on the network".into())
    }

    fn ip(&self, id: &str) -> Result<String, String> {
        let answer: PodAnswer = self.call("PodSandboxStatus", &IdRequest { id: id.into() })?;
        Ok(answer.status.unwrap_or_default().network.unwrap_or_default().ip)
    }

    /// A unary call (gRPC over HTTP/2: "Requests", "Responses").
    fn call<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let told = |error: String| format!("{method}: {error}");
        let bytes = runtime.block_on(async {
            let exchange = exchange(&self.socket, method, frame(request));
            tokio::time::timeout(LIMIT, exchange)
                .await
                .map_err(|_| told(format!("no answer in {LIMIT:?}")))?
        });
        let bytes = bytes.map_err(told)?;
        // The prefix of the message: a byte for compression, which is off, and the length.
        A::decode(bytes.get(5..).unwrap_or_default()).map_err(|error| told(error.to_string()))
    }
}

/// A message with its prefix: not compressed, length.
fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("requests are small"));
    message.encode(&mut frame).expect("the buffer grows");
    frame.freeze()
}

/// Sends a request and returns the body of the answer. A gRPC status other than 0 is an error.
async fn exchange(socket: &PathBuf, method: &str, request: Bytes) -> Result<Vec<u8>, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    // The connection runs in the background until this call's async runtime is dropped.
    tokio::spawn(connection);
    let (bytes, end) = answer(client, method, request).await.map_err(|error| error.to_string())?;
    let field =
        |name: &str| end.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match field("grpc-status").as_deref() {
        Some("0") => Ok(bytes),
        code => Err(format!("{} (status {code:?})", field("grpc-message").unwrap_or_default())),
    }
}

/// Sends a request, and returns the body of the answer and the fields after it.
async fn answer(
    client: h2::client::SendRequest<Bytes>,
    method: &str,
    request: Bytes,
) -> Result<(Vec<u8>, http::HeaderMap), h2::Error> {
    let mut client = client.ready().await?;
    let head = http::Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("the head is well formed");
    let (answer, mut stream) = client.send_request(head, false)?;
    stream.send_data(request, true)?;
    let (head, mut body) = answer.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    // An answer without a body has its status in the head.
    Ok((bytes, body.trailers().await?.unwrap_or(head.headers)))
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct IdRequest {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct IdAnswer {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct RunRequest {
    #[prost(message, tag = "1")]
    config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxConfig {
    #[prost(message, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, repeated, tag = "5")]
    port_mappings: Vec<PortMapping>,
    #[prost(message, tag = "8")]
    linux: Option<Linux>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct PortMapping {
    #[prost(int32, tag = "2")]
    container_port: i32,
    #[prost(int32, tag = "3")]
    host_port: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Linux {}

#[derive(Clone, PartialEq, Message)]
struct PodAnswer {
    #[prost(message, tag = "1")]
    status: Option<PodStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodStatus {
    #[prost(message, tag = "5")]
    network: Option<PodNetwork>,
}

#[derive(Clone, PartialEq, Message)]
struct PodNetwork {
    #[prost(string, tag = "1")]
    ip: String,
}

#[derive(Clone, PartialEq, Message)]
struct StatusAnswer {
    #[prost(message, tag = "1")]
    status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, Message)]
struct Condition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "4")]
    message: String,
}
