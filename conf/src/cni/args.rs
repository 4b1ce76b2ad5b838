//! `CNI_ARGS`: `KEY=value` pairs separated by semicolons (CNI 1.1, section 2, "Parameters").

use std::fmt;
use std::net::IpAddr;

use super::error::{CniError, code};
use super::mac::MacAddr;
use crate::section::parse_ip;

/// What `CNI_ARGS` asks for. Keys are matched by exact case, as the reference plugins do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs {
    /// `IP`: requested addresses, separated by commas. A prefix length is ignored.
    pub ip: Vec<IpAddr>,
    /// `MAC`: the hardware address of the container's interface.
    pub mac: Option<MacAddr>,
    /// `IgnoreUnknown`: unknown keys are not an error.
    pub ignore_unknown: bool,
    /// `K8S_POD_NAME`
    pub k8s_pod_name: Option<String>,
    /// `K8S_POD_NAMESPACE`
    pub k8s_pod_namespace: Option<String>,
    /// `K8S_POD_INFRA_CONTAINER_ID`
    pub k8s_pod_infra_container_id: Option<String>,
    /// `K8S_POD_UID`
    pub k8s_pod_uid: Option<String>,
}

impl CniArgs {
    /// Reads the variable's value. Empty pairs (a trailing semicolon) are skipped.
    ///
    /// # Errors
    /// [`code::INVALID_ENVIRONMENT`]: a pair without `=`, or an invalid value. Unknown keys are an error too
    /// without `IgnoreUnknown=1`, and one message names all of them.
    pub fn parse(text: &str) -> Result<CniArgs, CniError> {
        let mut args = CniArgs::default();
        let mut unknown = Vec::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| invalid(format!("CNI_ARGS: {pair:?} is not a pair: KEY=value;KEY=value")))?;
            if !args.set(key, value)? {
                unknown.push(key);
            }
        }
        if !unknown.is_empty() && !args.ignore_unknown {
            let msg =
                format!("CNI_ARGS: unknown keys {}: remove them or add IgnoreUnknown=1", unknown.join(", "));
            return Err(invalid(msg));
        }
        Ok(args)
    }

    /// The pod, if both of its names are known.
    pub fn pod(&self) -> Option<PodName> {
        let (namespace, name) = self.k8s_pod_namespace.clone().zip(self.k8s_pod_name.clone())?;
        Some(PodName { namespace, name, uid: self.k8s_pod_uid.clone() })
    }

    /// Takes one pair. Returns `false` if the key is unknown.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, CniError> {
        let text = || Some(value.to_owned());
        match key {
            "IP" => {
                for part in value.split(',').filter(|part| !part.is_empty()) {
                    let ip = parse_ip(part).ok_or_else(|| {
                        invalid(format!("CNI_ARGS: IP={value}: {part:?} is not an IP address"))
                    })?;
                    self.ip.push(ip);
                }
            }
            "MAC" if value.is_empty() => self.mac = None,
            "MAC" => {
                let mac = MacAddr::parse_unicast(value);
                self.mac = Some(mac.map_err(|error| invalid(format!("CNI_ARGS: MAC={value}: {error}")))?);
            }
            "IgnoreUnknown" => {
                self.ignore_unknown = match value.to_ascii_lowercase().as_str() {
                    "1" | "true" => true,
                    "0" | "false" => false,
                    _ => {
                        return Err(invalid(format!(
                            "CNI_ARGS: IgnoreUnknown={value}: must be 1, true, 0 or false"
                        )));
                    }
                }
            }
            "K8S_POD_NAME" => self.k8s_pod_name = text(),
            "K8S_POD_NAMESPACE" => self.k8s_pod_namespace = text(),
            "K8S_POD_INFRA_CONTAINER_ID" => self.k8s_pod_infra_container_id = text(),
            "K8S_POD_UID" => self.k8s_pod_uid = text(),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// A pod of Kubernetes. Its text is `NAMESPACE/NAME`, without the UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// `K8S_POD_NAMESPACE`
    pub namespace: String,
    /// `K8S_POD_NAME`
    pub name: String,
    /// `K8S_POD_UID`, which older runtimes do not tell.
    pub uid: Option<String>,
}

impl PodName {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<PodName> {
        let (namespace, name) = text.split_once('/')?;
        Some(PodName { namespace: namespace.to_owned(), name: name.to_owned(), uid: None })
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn invalid(msg: String) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_kubelet_sends() {
        let args = CniArgs::parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u;X=y",
        )
        .unwrap();
        assert_eq!(args.pod().map(|pod| pod.to_string()).as_deref(), Some("shop/web-0"));
        assert_eq!(args.pod().and_then(|pod| pod.uid).as_deref(), Some("u"));
        assert_eq!(PodName::parse("shop/web-0").map(|pod| pod.to_string()).as_deref(), Some("shop/web-0"));
        assert_eq!(args.k8s_pod_infra_container_id.as_deref(), Some("abc"));
        assert_eq!(args.k8s_pod_uid.as_deref(), Some("u"));
        assert!(args.ignore_unknown);
    }

    #[test]
    fn reads_addresses() {
        let args = CniArgs::parse("IP=172.20.56.17/24,2001:db8::5;MAC=02:00:00:00:00:01;").unwrap();
        assert_eq!(args.ip, ["172.20.56.17".parse::<IpAddr>().unwrap(), "2001:db8::5".parse().unwrap()]);
        assert_eq!(args.mac, Some(MacAddr([2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn refuses() {
        let check = |text: &str, part: &str| {
            let error = CniArgs::parse(text).unwrap_err();
            assert_eq!(error.code, code::INVALID_ENVIRONMENT, "{text}");
            assert!(error.msg.contains(part), "{text}: {}", error.msg);
        };
        check("IP", "\"IP\" is not a pair");
        check("ip=10.0.0.1", "unknown keys ip");
        check("A=1;B=2", "unknown keys A, B");
        check("A=1;IgnoreUnknown=0", "unknown keys A");
        check("IgnoreUnknown=yes", "IgnoreUnknown=yes");
        check("IP=10.0.0.300", "\"10.0.0.300\" is not an IP address");
        check("IP=10.0.0.3/33", "\"10.0.0.3/33\"");
        check("MAC=01:00:5e:00:00:01", "multicast");
        check("MAC=zz;IgnoreUnknown=1", "MAC=zz");
    }
}
