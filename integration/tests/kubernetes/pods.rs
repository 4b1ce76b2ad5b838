//! What runs in the cluster.

use integration::IMAGE;
use serde_json::{Value, json};
use std::net::IpAddr;

/// The port on which pods serve the greeting, and their name at `/name`. Port 80 belongs to the sandbox,
/// which has the same image.
pub const PORT: u16 = 8080;

/// The spec of a pod with a server. The pod is ready if it serves `path`.
pub fn spec(path: &str) -> Value {
    let script = format!("/bin/busybox hostname >/www/name; exec /bin/busybox httpd -f -p {PORT} -h /www");
    json!({
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "server", "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["/bin/busybox", "sh", "-c", script],
            "ports": [{"containerPort": PORT}],
            "readinessProbe": {"httpGet": {"path": path, "port": PORT}, "periodSeconds": 1},
        }],
    })
}

/// A pod for one node, with a label of its own name.
pub fn pod(name: &str, node: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["nodeName"] = node.into();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

/// A number of pods, spread over the nodes.
pub fn deployment(name: &str, replicas: usize) -> Value {
    let labels = json!({"app": name});
    let mut spec = spec("/");
    spec["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
}

/// A service for the pods of that label.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": PORT}]},
    })
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// The address of a pod that has one.
pub fn address(pod: &Value) -> IpAddr {
    let text = pod["status"]["podIP"].as_str().unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("{} has the address {text:?}", pod["metadata"]["name"]))
}
