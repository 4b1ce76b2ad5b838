//! What a pass over the node finds different from what ADD installed, and what it restores of it.
//!
//! Each feature's `repair` asks [`Repairs::permits`] before it changes something, and notes what it did. So
//! a caller decides what is restored: `vlan-bridgectl repair` restores everything, the agent leaves a thing
//! that another program keeps changing, and a dry run restores nothing.

use std::fmt;

use cni_conf::cni::error::CniError;

/// A thing that is restored as a whole: the unit of decisions, and of reports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The guards of all pods.
    Guards,
    /// The rules that keep the node from routing for its uplinks' networks.
    Boundary,
    /// A bridge and its uplink.
    Bridge(String),
    /// The MTU of a bridge and its pods.
    Mtu(String),
    /// The pods' ports, where no single one is meant.
    Ports,
    /// A pod's port, by the name of its veth.
    Port(String),
    /// The host routes of all devices.
    AllHostRoutes,
    /// The host routes of a device.
    HostRoutes(String),
    /// The routes inside the pods of a device to their node.
    RoutesToNode(String),
    /// The rules of pods with NAT, host ports or services.
    Nat,
    /// Records of pods that are gone.
    Records,
    /// The node's network as a whole, where no single thing is meant.
    Node,
}

impl Subject {
    /// All kinds.
    pub const KINDS: [&'static str; 10] = [
        "guard",
        "boundary",
        "bridge",
        "mtu",
        "port",
        "host-routes",
        "routes-to-node",
        "nat",
        "records",
        "node",
    ];

    /// The kind of thing, one word for counters.
    pub fn kind(&self) -> &'static str {
        let [guard, boundary, bridge, mtu, port, routes, to_node, nat, records, node] = Subject::KINDS;
        match self {
            Subject::Guards => guard,
            Subject::Boundary => boundary,
            Subject::Bridge(_) => bridge,
            Subject::Mtu(_) => mtu,
            Subject::Ports | Subject::Port(_) => port,
            Subject::AllHostRoutes | Subject::HostRoutes(_) => routes,
            Subject::RoutesToNode(_) => to_node,
            Subject::Nat => nat,
            Subject::Records => records,
            Subject::Node => node,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Guards => f.write_str("the pods' guards"),
            Subject::Boundary => f.write_str("the rules that keep the node from routing for its uplinks"),
            Subject::Bridge(name) => write!(f, "bridge {name}"),
            Subject::Mtu(bridge) => write!(f, "the MTU of {bridge} and its pods"),
            Subject::Ports => f.write_str("the pods' ports"),
            Subject::Port(veth) => write!(f, "port {veth}"),
            Subject::AllHostRoutes => f.write_str("the host routes"),
            Subject::HostRoutes(device) => write!(f, "the host routes of {device}"),
            Subject::RoutesToNode(device) => write!(f, "the routes of the pods of {device} to their node"),
            Subject::Nat => f.write_str("the rules of pods with NAT, host ports or services"),
            Subject::Records => f.write_str("records of pods that are gone"),
            Subject::Node => f.write_str("the node's network"),
        }
    }
}

/// One pass. What is restored is also logged as a warning.
pub struct Repairs<'a> {
    permit: Box<dyn FnMut(&Subject) -> bool + 'a>,
    /// What was restored: each thing with a description of what was different.
    pub restored: Vec<(Subject, String)>,
    /// What is different and was left.
    pub left: Vec<(Subject, String)>,
    /// What could not be restored, and why.
    pub failed: Vec<(Subject, CniError)>,
}

impl<'a> Repairs<'a> {
    /// A pass that restores everything.
    pub fn of_everything() -> Repairs<'static> {
        Repairs::if_permitted(|_| true)
    }

    /// A pass that restores what `permit` says.
    pub fn if_permitted(permit: impl FnMut(&Subject) -> bool + 'a) -> Repairs<'a> {
        Repairs { permit: Box::new(permit), restored: Vec::new(), left: Vec::new(), failed: Vec::new() }
    }

    /// Whether a thing that differs may be restored. What may not is noted as left.
    pub fn permits(&mut self, subject: &Subject, differences: &[String]) -> bool {
        let permitted = (self.permit)(subject);
        if !permitted {
            self.left.extend(differences.iter().map(|what| (subject.clone(), what.clone())));
        }
        permitted
    }

    /// Notes what was restored.
    pub fn restored(&mut self, subject: &Subject, differences: Vec<String>) {
        for what in differences {
            log::warn!("restored {subject}: {what}");
            self.restored.push((subject.clone(), what));
        }
    }

    /// Notes what came of the same change for several pods: true where it was made. `what` describes it for a
    /// number of pods. Of several errors, the first is noted.
    pub fn note_pods(
        &mut self,
        subject: &Subject,
        outcomes: Vec<Result<bool, CniError>>,
        what: impl Fn(usize) -> String,
    ) {
        let changed = outcomes.iter().filter(|outcome| matches!(outcome, Ok(true))).count();
        if changed > 0 {
            self.restored(subject, vec![what(changed)]);
        }
        let errors: Vec<CniError> = outcomes.into_iter().filter_map(Result::err).collect();
        let left = errors.len();
        if let Some(first) = errors.into_iter().next() {
            let msg = format!("{}: {}", what(left), first.msg);
            self.note(subject.clone(), Err(CniError { msg, ..first }));
        }
    }

    /// Notes the error of a thing that could not be restored.
    pub fn note(&mut self, subject: Subject, outcome: Result<(), CniError>) {
        if let Err(error) = outcome {
            self.failed.push((subject, error));
        }
    }

    /// The same outcome for callers that only log.
    pub fn log_failures(&self) {
        for (subject, error) in &self.failed {
            log::error!("{subject}: not restored: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_permitted_is_left() {
        let mut repairs = Repairs::if_permitted(|subject| *subject != Subject::Nat);
        let differences = ["chain dnat is gone".to_owned()];
        assert!(!repairs.permits(&Subject::Nat, &differences));
        assert!(repairs.permits(&Subject::Guards, &differences));
        assert_eq!(repairs.left, [(Subject::Nat, differences[0].clone())]);
        assert!(repairs.restored.is_empty());
    }
}
