//! The text. `docs/operations.md` has the list of metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use vlan_bridge::calls::VerbCalls;

use super::node::NodeReading;
use crate::figures::Numbers;
use crate::report::Reason;

/// The beginning of all names.
const PREFIX: &str = "vlan_bridge";

/// All numbers of one answer.
#[derive(Debug)]
pub(super) struct Exposition {
    pub(super) calls: Vec<VerbCalls>,
    pub(super) numbers: Numbers,
    pub(super) node: NodeReading,
}

impl Exposition {
    /// All numbers, in OpenMetrics' text format.
    pub(super) fn text(self) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Arc::new(self)));
        let mut out = String::new();
        // A string takes everything.
        let _ = text::encode(&mut out, &registry);
        out
    }

    fn calls(&self, to: &mut Families<'_>) -> fmt::Result {
        let mut calls = to.family("calls", "Calls of the plugin that have ended", MetricType::Counter)?;
        for VerbCalls { verb, outcomes, .. } in &self.calls {
            for (outcome, count) in outcomes {
                calls.counter(&[("verb", verb), ("outcome", outcome)], *count)?;
            }
        }
        let help = "How long calls of the plugin took, from the start of main to the answer";
        let mut durations = to.family("call_duration_seconds", help, MetricType::Histogram)?;
        for VerbCalls { verb, classes, sum, .. } in &self.calls {
            let bound =
                |bound: Duration| if bound == Duration::MAX { f64::INFINITY } else { bound.as_secs_f64() };
            let classes: Vec<(f64, u64)> = classes.iter().map(|(upper, n)| (bound(*upper), *n)).collect();
            let count = classes.iter().map(|(_, count)| count).sum();
            let labels = [("verb", *verb)];
            let mut of_verb = durations.0.encode_family(&labels)?;
            of_verb.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &classes, None)?;
        }
        Ok(())
    }

    fn addresses(&self, to: &mut Families<'_>) -> fmt::Result {
        let help = "Addresses of a range: used, cooling, quarantined, or free";
        let mut addresses = to.gauge("addresses", help)?;
        let networks = &self.node.networks;
        for (network, usages) in networks {
            for usage in usages.iter().flatten() {
                let free = usage.total.saturating_sub(usage.used + usage.cooling + usage.quarantined);
                let states = [
                    ("used", usage.used),
                    ("cooling", usage.cooling),
                    ("quarantined", usage.quarantined),
                    ("free", free),
                ];
                for (state, count) in states {
                    let labels = [("network", network.as_str()), ("range", &usage.range), ("state", state)];
                    addresses.gauge(&labels, count as f64)?;
                }
            }
        }
        let mut readable = to.gauge("leases_readable", "Whether the leases of a network can be read")?;
        networks.iter().try_for_each(|(network, usages)| {
            readable.gauge(&[("network", network)], f64::from(u8::from(usages.is_some())))
        })
    }

    fn paths(&self, to: &mut Families<'_>) -> fmt::Result {
        let carrier = |has: bool| f64::from(u8::from(has));
        let mut members = to.gauge("bond_members", "Members of a bond with a carrier, or without one")?;
        for bond in &self.node.bonds {
            members.gauge(&[("bond", &bond.name), ("carrier", "up")], bond.members_up as f64)?;
            members.gauge(&[("bond", &bond.name), ("carrier", "down")], bond.members_down as f64)?;
        }
        let mut bonds = to.gauge("bond_carrier", "Whether a bond below an uplink has a carrier")?;
        for bond in &self.node.bonds {
            bonds.gauge(&[("bond", &bond.name)], carrier(bond.carrier))?;
        }
        let mut uplinks = to.gauge("uplink_carrier", "Whether the uplink of a bridge has a carrier")?;
        for (bridge, uplink, has) in &self.node.uplinks {
            uplinks.gauge(&[("bridge", bridge), ("uplink", uplink)], carrier(*has))?;
        }
        Ok(())
    }

    fn rules(&self, to: &mut Families<'_>) -> fmt::Result {
        let tables = &self.node.tables;
        let mut rules = to.gauge("nftables_rules", "Rules in a table of the plugin")?;
        for (table, size) in tables {
            rules.gauge(&[("family", table.family.name()), ("table", table.name)], size.rules as f64)?;
        }
        let mut elements =
            to.gauge("nftables_elements", "Elements of the sets and maps in a table of the plugin")?;
        for (table, size) in tables {
            elements
                .gauge(&[("family", table.family.name()), ("table", table.name)], size.elements as f64)?;
        }
        Ok(())
    }

    fn repairs(&self, to: &mut Families<'_>) -> fmt::Result {
        let numbers = &self.numbers;
        let help = "Differences that the agent has restored, by the kind of thing";
        let mut repairs = to.family("repairs", help, MetricType::Counter)?;
        for (kind, count) in &numbers.restored {
            repairs.counter(&[("kind", kind)], *count)?;
        }
        let help = "Differences that the last pass has left, or could not restore";
        let mut differences = to.gauge("differences", help)?;
        for (state, kinds) in [("left", &numbers.left), ("failed", &numbers.failed)] {
            for (kind, count) in kinds {
                differences.gauge(&[("kind", kind), ("state", state)], *count as f64)?;
            }
        }
        let help = "Addresses of pods that other machines use at the moment";
        to.gauge("conflicts", help)?.gauge(&[], numbers.conflicts as f64)?;
        let help = "Frames that announced an address of a pod to the switches";
        to.family("announcements", help, MetricType::Counter)?.counter(&[], numbers.announcements)?;
        let help = "Addresses that the agent has probed for, ahead of ADDs";
        to.family("probes", help, MetricType::Counter)?.counter(&[], numbers.probes)
    }

    /// Nothing on a node without pools.
    fn pools(&self, to: &mut Families<'_>) -> fmt::Result {
        let pools = &self.numbers.pools;
        if pools.is_empty() {
            return Ok(());
        }
        let mut addresses =
            to.gauge("pool_addresses", "Addresses that a pool grants to a network of the node")?;
        for pool in pools {
            let idle = pool.idle.map(|idle| ("idle", u64::from(idle)));
            for (state, count) in [("home", pool.home), ("leased", pool.leased)].into_iter().chain(idle) {
                let labels = [("network", &*pool.network), ("pool", &pool.pool), ("state", state)];
                addresses.gauge(&labels, count as f64)?;
            }
        }
        let mut used = to.gauge("pool_used", "Whether a network takes addresses from its pool")?;
        for pool in pools {
            let labels = [("network", &*pool.network), ("pool", &pool.pool)];
            used.gauge(&labels, f64::from(u8::from(pool.problem.is_none())))?;
        }
        let mut waiting = to.gauge("pool_waiting_adds", "ADDs that wait for an address of a pool")?;
        for pool in pools {
            waiting.gauge(&[("network", &*pool.network), ("pool", &pool.pool)], f64::from(pool.waiting))?;
        }
        let away = pools.iter().any(|pool| pool.away.is_some());
        to.gauge("pool_store_up", "Whether the store of pools answers")?
            .gauge(&[], f64::from(u8::from(!away)))?;
        let help = "Requests to the store of pools: answered, failed, or a write of which nobody knows";
        let mut requests = to.family("pool_store_requests", help, MetricType::Counter)?;
        for (outcome, count) in ["answered", "failed", "unknown"].into_iter().zip(self.numbers.store_requests)
        {
            requests.counter(&[("outcome", outcome)], count)?;
        }
        let help = "ADDs that found no address and asked the agent";
        to.family("pool_dry_adds", help, MetricType::Counter)?.counter(&[], self.numbers.dry_adds)
    }

    fn agent(&self, to: &mut Families<'_>) -> fmt::Result {
        let numbers = &self.numbers;
        let mut reports =
            to.family("agent_reports", "Reports of the agent, by reason", MetricType::Counter)?;
        let mut counts: BTreeMap<Reason, u64> = Reason::ALL.into_iter().map(|reason| (reason, 0)).collect();
        counts.extend(&numbers.reports);
        for (reason, count) in counts {
            reports.counter(&[("reason", reason.as_str())], count)?;
        }
        to.family("agent_passes", "Passes over the node", MetricType::Counter)?
            .counter(&[], numbers.passes)?;
        if let Some((at, took)) = numbers.last_pass {
            let help = "When the last pass over the node ended, since 1970";
            to.gauge("agent_last_pass_timestamp_seconds", help)?.gauge(&[], at.as_secs_f64())?;
            let help = "How long the last pass over the node took";
            to.gauge("agent_last_pass_duration_seconds", help)?.gauge(&[], took.as_secs_f64())?;
        }
        if let Some(bytes) = self.node.memory {
            let help = "The agent's resident memory";
            to.gauge("agent_resident_memory_bytes", help)?.gauge(&[], bytes as f64)?;
        }
        let mut version = to.family("agent", "The version of the agent", MetricType::Info)?;
        version.0.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families(encoder);
        self.calls(&mut to)?;
        self.addresses(&mut to)?;
        self.paths(&mut to)?;
        self.rules(&mut to)?;
        self.repairs(&mut to)?;
        self.pools(&mut to)?;
        self.agent(&mut to)
    }
}

/// Where metrics are written to.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn family<'a>(
        &'a mut self,
        name: &'a str,
        help: &str,
        of_type: MetricType,
    ) -> Result<Family<'a>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, of_type).map(Family)
    }

    fn gauge<'a>(&'a mut self, name: &'a str, help: &str) -> Result<Family<'a>, fmt::Error> {
        self.family(name, help, MetricType::Gauge)
    }
}

/// The samples of one metric.
struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    fn counter(&mut self, labels: &[(&str, &str)], value: u64) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, labels: &[(&str, &str)], value: f64) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }
}
