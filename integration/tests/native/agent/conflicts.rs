//! Machines that use, or may use, an address of a live pod, or one that a pod would get next.

use crate::agent::listening::{OTHER, VERDICT, uptime, verdicts};
use integration::{Agent, Ctl, Pod, Site, arp_announcement, mac_bytes, poll};
use std::net::Ipv4Addr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

/// An ARP probe (RFC 5227 section 2.1.1): its sender has no address yet.
fn arp_probe(address: Ipv4Addr, mac: &str) -> Vec<u8> {
    let mut frame = arp_announcement(address, mac);
    frame[28..32].fill(0);
    frame
}

/// An answer to a probe that was sent from `to`.
fn arp_answer(address: Ipv4Addr, mac: &str, to: &str) -> Vec<u8> {
    let mut frame = arp_announcement(address, mac);
    frame[..6].copy_from_slice(&mac_bytes(to));
    frame[21] = 2;
    frame[32..38].copy_from_slice(&mac_bytes(to));
    frame[38..42].fill(0);
    frame
}

/// A node with an agent, and a pod on it that is silent.
fn with_listened_pod(test: impl FnOnce(&Site, &Agent, Ipv4Addr)) {
    let (site, pod) = (Site::new(), Pod::new());
    let ctl = Ctl::new(&site.node);
    let result = site.node.plugin(&site.list()).add(&pod.eth0()).result();
    let agent = Agent::start(&ctl, "");
    pod.await_silence(&result.address());
    test(&site, &agent, result.address().parse().unwrap());
}

/// The pod itself answers the probe. The machine then takes another address.
#[test]
fn a_machine_that_only_probes_for_a_pods_address_is_no_conflict() {
    with_listened_pod(|site, agent, address| {
        for _ in 0..3 {
            site.router.send_frame("port", &arp_probe(address, OTHER));
        }
        assert!(!agent.reports().contains("conflict"), "{}", agent.reports());
        // A frame after the probes was heard, and so were they.
        site.router.send_frame("port", &arp_announcement(address, OTHER));
        agent.await_report("conflict: ");
        assert_eq!(agent.reports().matches("conflict: ").count(), 1, "{}", agent.reports());
    });
}

#[test]
fn an_answer_that_comes_long_after_the_probe_ends_the_verdict() {
    with_listened_pod(|site, _, address| {
        let next = Ipv4Addr::from(u32::from(address) + 1);
        let begun = uptime();
        poll(PATIENCE, "a verdict that the agent has extended", || {
            verdicts(site).get(&next.to_string()).is_some_and(|at| at.as_u64().unwrap() > begun + VERDICT)
        });
        site.router.send_frame("port", &arp_answer(next, OTHER, &site.node.mac("nic0")));
        poll(PATIENCE, "no verdict", || !verdicts(site).contains_key(&next.to_string()));
    });
}

/// A machine of the VLAN can send each frame from another MAC.
#[test]
fn a_thousand_machines_at_once_fill_neither_the_log_nor_the_memory() {
    with_listened_pod(|site, agent, address| {
        site.router.send_frame("port", &arp_announcement(address, OTHER));
        agent.await_report("conflict: ");
        let (before, lines) = (agent.resident_kib(), agent.reports().lines().count());
        for number in 0..1000_u16 {
            let [high, low] = number.to_be_bytes();
            let mac = format!("02:00:00:01:{high:02x}:{low:02x}");
            site.router.send_frame("port", &arp_announcement(address, &mac));
            // Addresses of nobody, which a pod may get.
            let other = Ipv4Addr::from(u32::from(address) + 1 + u32::from(number % 8));
            site.router.send_frame("port", &arp_announcement(other, &mac));
        }
        // The agent is asked after all of them: it has heard them, or the kernel has dropped them.
        let last = "02:00:00:02:00:00";
        poll(PATIENCE, "a report of the machine that goes on", || {
            site.router.send_frame("port", &arp_announcement(address, last));
            agent.reports().contains(last)
        });
        let told = agent.reports().lines().count() - lines;
        assert!(told < 10, "{told} lines: {}", agent.reports());
        let grown = agent.resident_kib().saturating_sub(before);
        assert!(grown < 2048, "the agent has grown by {grown} KiB");
    });
}
