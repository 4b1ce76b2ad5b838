//! SIGKILL of the agent at system calls of its first pass, while it restores much. Then an ADD, a CHECK and a
//! DEL succeed, another agent restores the rest, and nothing is left over.

use super::disturbed::changes;
use crate::repair::{Attached, Scene, with_attached_pods};
use integration::{AddResult, Agent, Dice, Node, Plugin, Pod, Site, Snapshot, note, poll};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// How long kills are tried, each at another place.
const LASTS: Duration = Duration::from_secs(30);
/// The least number of kills for a test on a busy machine.
const LEAST: usize = 5;

/// The system calls with which a pass changes files and sysctls.
const CHANGING: [&str; 8] =
    ["mkdir", "mkdirat", "rename", "renameat", "renameat2", "rmdir", "unlink", "unlinkat"];

/// The `nth` call of `name` of a thread.
#[derive(Clone, Debug)]
struct Place {
    name: String,
    nth: usize,
}

/// For each state in which a kill can leave the node, the calls of the thread that makes the passes: those
/// that follow one change, up to the next. No other thread makes as many calls of that name, so that the kill
/// does not come there.
fn places(trace: &str) -> Vec<Vec<Place>> {
    let lines = trace.lines().filter_map(|line| line.split_once(' '));
    let calls: Vec<(&str, &str, &str)> = lines
        .filter_map(|(thread, call)| {
            let call = call.trim_start();
            let (name, _) = call.split_once('(')?;
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                .then_some((thread, name, call))
        })
        .collect();
    let changes_something = |name: &str, call: &str| {
        CHANGING.contains(&name)
            || name == "write" && !call.starts_with("write(2,")
            || name == "sendto" && !changes(call).is_empty()
    };
    let is_netlink = |(_, name, call): &&(&str, &str, &str)| *name == "sendto" && !changes(call).is_empty();
    let keeper = calls.iter().find(is_netlink).expect("a pass that changes something").0;
    let mut made: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut gaps = vec![Vec::new()];
    for (thread, name, call) in &calls {
        let nth = made.entry((thread, name)).or_default();
        *nth += 1;
        if *thread == keeper {
            gaps.last_mut().unwrap().push(Place { name: (*name).to_owned(), nth: *nth });
            if changes_something(name, call) {
                gaps.push(Vec::new());
            }
        }
    }
    let of_others = |name: &str| {
        let others = made.iter().filter(|((thread, of), _)| *thread != keeper && *of == name);
        others.map(|(_, count)| *count).max().unwrap_or_default()
    };
    for gap in &mut gaps {
        gap.retain(|place| place.nth > of_others(&place.name));
    }
    gaps.retain(|gap| !gap.is_empty());
    gaps
}

/// The files that the plugins and `repair` keep of a node, without the agent's own.
fn files(node: &Node) -> Vec<PathBuf> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            found.push(entry.path());
            collect(&entry.path(), found);
        }
    }
    let mut found = Vec::new();
    for kind in fs::read_dir("/run/vlan-bridge").unwrap().flatten().filter(|kind| kind.file_name() != "agent")
    {
        collect(&kind.path().join(node.cookie().to_string()), &mut found);
    }
    found.sort();
    found
}

/// A network of a node, its gateway, and what is done after a kill.
struct Rig<'a> {
    attached: &'a Attached<'a>,
    plugin: Plugin<'a>,
    gateway: &'a str,
}

impl Rig<'_> {
    /// What strace prints of the first pass of an agent, and what comes right after it.
    fn trace(&self) -> String {
        let trace = self.attached.ctl.path("trace");
        let agent = Agent::spawn_traced(self.attached.ctl, &format!("-o {} -s 64", trace.display()));
        agent.await_first_look();
        agent.end();
        fs::read_to_string(&trace).unwrap()
    }

    /// Kills an agent at a place, or after its first pass if it does not come there. False in that case.
    fn is_killed_at(&self, Place { name, nth }: &Place) -> bool {
        let options = format!("-o /dev/null -e trace={name} -e inject={name}:signal=KILL:when={nth}");
        let mut agent = Agent::spawn_traced(self.attached.ctl, &options);
        poll(SOON, "the end of the agent or of its pass", || {
            agent.has_looked() || !agent.process().is_alive()
        });
        !agent.has_looked()
    }

    /// What must succeed after a kill.
    fn goes_on(&self, place: &str) {
        let Attached { ctl, complaint, works, .. } = self.attached;
        let pod = Pod::new();
        let added = self.plugin.add(&pod.eth0());
        assert!(added.ok(), "{place}: {added}");
        let result: AddResult = added.result();
        assert!(pod.pings(self.gateway), "{place}");
        let checked = self.plugin.check(&pod.eth0(), &result);
        assert!(checked.ok(), "{place}: {checked}");
        let deleted = self.plugin.del(&pod.eth0());
        assert!(deleted.ok() && !pod.has_link("eth0"), "{place}: {deleted}");
        let agent = Agent::start(ctl, "");
        assert_eq!(complaint(), None, "{place}: {}", agent.reports());
        poll(SOON, &format!("traffic after {place}"), works);
        agent.end();
    }
}

/// Kills the agent at chosen places, each time after `harm`.
fn assert_a_kill_is_no_matter(network: &str, gateway: &str, harm: fn(&Scene<'_>)) {
    with_attached_pods(|attached| {
        let Attached { ctl, scene, .. } = attached;
        let node = &scene.site.node;
        let list = ctl.read(&format!("/etc/cni/net.d/10-{network}.conflist"));
        let list = serde_json::from_str(&list).unwrap();
        let rig = Rig { attached, plugin: node.plugin(&list), gateway };
        harm(scene);
        let mut gaps = places(&rig.trace());
        rig.goes_on("without a kill");
        let (all, before, records) = (gaps.len(), Snapshot::of(node), files(node));
        let calls: usize = gaps.iter().map(Vec::len).sum();
        let mut dice = Dice::of(Dice::seed("killed agent"));
        let (begun, mut kills) = (Instant::now(), 0);
        while begun.elapsed() < LASTS && !gaps.is_empty() {
            let gap = gaps.swap_remove(dice.roll(gaps.len().try_into().unwrap()) as usize);
            let place = dice.choose(&gap).unwrap();
            harm(scene);
            kills += usize::from(rig.is_killed_at(place));
            let place = format!("killed at {place:?}");
            rig.goes_on(&place);
            let difference = before.difference(&Snapshot::of(node));
            assert!(difference.is_empty(), "{place}: {difference:#?}");
            assert_eq!(files(node), records, "{place}");
        }
        let tried = all - gaps.len();
        note(&format!("{network}: killed {kills} times, in {tried} of {all} states, at {calls} calls"));
        assert!(kills >= LEAST, "{kills} kills");
        assert_eq!(ctl.run("repair").expect_ok().stdout, "nothing to repair\n");
    });
}

#[test]
fn what_an_agent_killed_while_it_restores_rules_routes_and_a_gateway_leaves() {
    assert_a_kill_is_no_matter(Site::NETWORK, Site::GATEWAY, |scene| {
        scene.site.node.nft("flush ruleset");
        scene.site.node.run("ip route flush proto 117");
        scene.site.node.set_sysctl("net/ipv4/conf/br136/arp_ignore", "0");
        scene.site.node.ip(&format!("link set {} nomaster\nlink del cni0", scene.ports[0]));
    });
}

#[test]
fn what_an_agent_killed_while_it_restores_an_uplink_leaves() {
    assert_a_kill_is_no_matter("local", "10.22.0.1", |scene| {
        scene.site.node.nft("flush ruleset");
        scene.site.node.ip("link del br136");
    });
}
