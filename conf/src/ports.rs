//! Host ports: the runtime's value of the capability `portMappings`, in the form of the reference `portmap`.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde_json::{Value, json};

use crate::cni::error::CniError;
use crate::section::Section;

const PORTS: RangeInclusive<u64> = 1..=65535;

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// Its number in an IP header (IANA, "Assigned Internet Protocol Numbers").
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// Its name, as the configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The protocol with this number.
    pub fn of_number(number: u8) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
    }

    fn parse(text: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| text.eq_ignore_ascii_case(protocol.name()))
    }
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// `hostPort`
    pub host_port: u16,
    /// `containerPort`
    pub container_port: u16,
    /// `protocol`: TCP where none is named.
    pub protocol: Protocol,
    /// `hostIP`: the only node address that has the port. None stands for all addresses, `0.0.0.0` and `::`
    /// for all of their family.
    pub host_ip: Option<IpAddr>,
}

impl PortMapping {
    /// Reads one mapping.
    ///
    /// # Errors
    /// A wrong value. The message names the key, the value and the right form.
    pub fn parse(section: &Section<'_>) -> Result<PortMapping, CniError> {
        let port = |key: &str| {
            let port = section.number(key, "a port", PORTS)?;
            section.require(key, port, "a port: 1 to 65535").map(|port| port as u16)
        };
        let protocol = match section.str("protocol")?.filter(|text| !text.is_empty()) {
            None => Protocol::Tcp,
            Some(text) => Protocol::parse(text)
                .ok_or_else(|| section.wrong("protocol", &text.into(), "one of tcp, udp, sctp"))?,
        };
        Ok(PortMapping {
            host_port: port("hostPort")?,
            container_port: port("containerPort")?,
            protocol,
            host_ip: section.ip("hostIP")?,
        })
    }

    /// Reads a list of mappings. Empty when absent.
    ///
    /// # Errors
    /// The errors of [`PortMapping::parse`], and a node port that occurs twice.
    pub fn parse_list(section: &Section<'_>, key: &str) -> Result<Vec<PortMapping>, CniError> {
        let mut all: Vec<PortMapping> = Vec::new();
        for (i, entry) in section.sections(key)?.iter().enumerate() {
            let mapping = PortMapping::parse(entry)?;
            if let Some(first) = all.iter().position(|other| other.collides_with(&mapping)) {
                let why = format!("host port {mapping} is already requested by {key}[{first}]");
                return Err(section.error(&format!("{key}[{i}]"), why));
            }
            all.push(mapping);
        }
        Ok(all)
    }

    /// Whether a packet could match both mappings, and neither is more specific.
    fn collides_with(&self, other: &PortMapping) -> bool {
        let same_address = match (self.host_ip, other.host_ip) {
            (Some(a), Some(b)) => a == b,
            (Some(ip), None) | (None, Some(ip)) => ip.is_unspecified(),
            (None, None) => true,
        };
        (self.protocol, self.host_port) == (other.protocol, other.host_port) && same_address
    }

    /// The mapping as the configuration has it.
    pub fn to_json(&self) -> Value {
        let mut mapping = json!({
            "hostPort": self.host_port,
            "containerPort": self.container_port,
            "protocol": self.protocol.name(),
        });
        if let Some(ip) = self.host_ip {
            mapping["hostIP"] = ip.to_string().into();
        }
        mapping
    }
}

/// The mapping's node port: `8080/tcp`, `192.0.2.7:8080/tcp`.
impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            None => {}
        }
        write!(f, "{}/{}", self.host_port, self.protocol.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &Value) -> Result<Vec<PortMapping>, String> {
        let config = json!({ "portMappings": list });
        let section = Section::new(config.as_object().unwrap(), "runtimeConfig");
        PortMapping::parse_list(&section, "portMappings").map_err(|error| error.msg)
    }

    #[test]
    fn reads_what_runtimes_send() {
        let list = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": ""},
            {"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "192.0.2.7"},
            {"hostPort": 8080, "containerPort": 81, "protocol": "Sctp", "hostIP": "2001:db8::7"},
            {"hostPort": 8080, "containerPort": 81, "protocol": "udp", "hostIP": "0.0.0.0"},
            {"hostPort": 9090, "containerPort": 81},
        ]);
        let mappings = parse(&list).unwrap();
        let shown: Vec<String> = mappings.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["8080/tcp", "192.0.2.7:8080/udp", "[2001:db8::7]:8080/sctp", "0.0.0.0:8080/udp", "9090/tcp"]
        );
        let again: Vec<Value> = mappings.iter().map(PortMapping::to_json).collect();
        assert_eq!(parse(&again.into()).unwrap(), mappings);
        assert_eq!(parse(&Value::Null), Ok(Vec::new()));
    }

    #[test]
    fn says_what_is_wrong() {
        let check = |list: Value, expected: &str| {
            let error = parse(&list).expect_err("was taken");
            assert_eq!(error, format!("runtimeConfig.portMappings{expected}"));
        };
        let port = |host: u32, container: u32| json!({"hostPort": host, "containerPort": container});
        check(json!([port(0, 80)]), "[0].hostPort: 0 is not a port: 1 to 65535");
        check(json!([port(80, 65536)]), "[0].containerPort: 65536 is not a port: 1 to 65535");
        check(json!([{"hostPort": 80}]), "[0].containerPort: missing: must be a port: 1 to 65535");
        let of = |key: &str, value: &str| {
            let mut mapping = port(80, 80);
            mapping[key] = value.into();
            mapping
        };
        check(json!([of("protocol", "icmp")]), "[0].protocol: \"icmp\" is not one of tcp, udp, sctp");
        check(json!([of("hostIP", "node")]), "[0].hostIP: \"node\" is not an IP address");
        let twice = "[1]: host port 80/tcp is already requested by portMappings[0]";
        check(json!([port(80, 80), port(80, 81)]), twice);
        check(json!([of("hostIP", "::"), port(80, 81)]), twice);
    }
}
