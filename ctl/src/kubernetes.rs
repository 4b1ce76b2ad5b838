//! The Kubernetes API for a pod with a service account: its own Node, and all Nodes if the account may list
//! them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::files;

/// The service account's token and CA certificate in every pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The time limit of one request, from connecting to the last byte.
const LIMIT: Duration = Duration::from_secs(20);

/// The largest response. A Node has some ten kilobytes, its list of images included.
const LARGEST: u64 = 64 << 20;

/// How many Nodes one request lists.
const PAGE: u32 = 250;

/// An API server, and the service account's token.
pub(crate) struct Api {
    agent: Agent,
    url: String,
    token: String,
}

impl Api {
    /// The API server of this pod's cluster; none outside a cluster.
    ///
    /// # Errors
    /// A service account that cannot be read.
    pub(crate) fn find() -> Result<Option<Api>> {
        let (Ok(host), folder) = (std::env::var("KUBERNETES_SERVICE_HOST"), Path::new(ACCOUNT)) else {
            return Ok(None);
        };
        let Some(token) = files::read(&folder.join("token"))? else { return Ok(None) };
        let authority = folder.join("ca.crt");
        let pem =
            files::read(&authority)?.ok_or_else(|| anyhow!("{}: file not found", authority.display()))?;
        let roots = certificates(&pem).with_context(|| format!("cannot read {}", authority.display()))?;
        let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".into());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build())
            .https_only(true)
            // The token must go to the API server only.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(LIMIT));
        let token = String::from_utf8_lossy(&token).trim().to_owned();
        Ok(Some(Api { agent: config.build().into(), url: format!("https://{host}:{port}"), token }))
    }

    /// `GET /api/v1/nodes/NAME`.
    pub(crate) fn node(&self, name: &str) -> Result<Value> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.is_empty() || !name.chars().all(plain) {
            bail!("{name:?} is not a valid Node name: set --node or NODE_NAME to the name of this Node");
        }
        let path = format!("/api/v1/nodes/{name}");
        match self.get(&path)? {
            (200, node) => Ok(node),
            (404, _) => bail!("there is no Node {name}: set --node or NODE_NAME to the name of this Node"),
            (status, answer) => bail!("{}{path}: {}", self.url, refusal(status, &answer)),
        }
    }

    /// `GET /api/v1/nodes`. The inner `Err` says why the account may not list them.
    pub(crate) fn nodes(&self) -> Result<Result<Vec<Value>, String>> {
        let mut nodes = Vec::new();
        let mut next = String::new();
        loop {
            let path = format!("/api/v1/nodes?limit={PAGE}&continue={next}");
            let (status, mut page) = self.get(&path)?;
            match status {
                200 => {}
                401 | 403 => return Ok(Err(refusal(status, &page))),
                _ => bail!("{}{path}: {}", self.url, refusal(status, &page)),
            }
            if let Some(items) = page["items"].as_array_mut() {
                nodes.append(items);
            }
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = escaped(token),
                _ => return Ok(Ok(nodes)),
            }
        }
    }

    /// `POST` of an event to `/api/v1/namespaces/NAMESPACE/events`. The inner `Err` says why the API server
    /// will never take it: its namespace is gone, or the account may not create it.
    pub(crate) fn create_event(&self, namespace: &str, event: &Value) -> Result<Result<(), String>> {
        let path = format!("/api/v1/namespaces/{}/events", escaped(namespace));
        let url = format!("{}{path}", self.url);
        let failed = || format!("cannot post to {url}");
        let request = self.agent.post(&url).header("Content-Type", "application/json");
        let request = request.header("Authorization", format!("Bearer {}", self.token));
        let mut answer = request.send(event.to_string()).with_context(failed)?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(LARGEST).read_to_string().with_context(failed)?;
        let refusal =
            || format!("{url}: {}", refusal(status, &serde_json::from_str(&body).unwrap_or_default()));
        match status {
            200..300 => Ok(Ok(())),
            // kubelet replaces the token, and a busy server takes the event later.
            401 | 408 | 429 | 500.. => bail!("{}", refusal()),
            _ => Ok(Err(refusal())),
        }
    }

    fn get(&self, path: &str) -> Result<(u16, Value)> {
        let url = format!("{}{path}", self.url);
        let failed = || format!("cannot get {url}");
        let request = self.agent.get(&url).header("Accept", "application/json");
        let mut answer =
            request.header("Authorization", format!("Bearer {}", self.token)).call().with_context(failed)?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(LARGEST).read_to_string().with_context(failed)?;
        let value = match serde_json::from_str(&body) {
            Ok(value) => value,
            // An error may come from a proxy, and be HTML.
            Err(_) if status != 200 => Value::Null,
            Err(error) => return Err(error).with_context(|| format!("{url}: the answer is not JSON")),
        };
        Ok((status, value))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>> {
    let mut certificates = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        bail!("it has no certificate");
    }
    Ok(certificates)
}

fn refusal(status: u16, answer: &Value) -> String {
    let message = answer["message"].as_str().unwrap_or("without a message");
    format!("the API server answered {status}: {message}")
}

/// Percent-encodes a query value. Continue tokens are base64 with `+`, `/` and `=`, which are reserved
/// there.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}
