//! The store is away: only growth stops.

use integration::{Agent, Pod, PoolSite, poll};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn without_the_store_a_node_gives_what_it_has() {
    let site = PoolSite::new(1);
    let list = site.list(0, &json!({"pool": {"low": 2, "high": 4, "wait": 2}}));
    let ctl = site.ctl(0, &list);
    site.create(&ctl, "172.20.56.16-172.20.56.63");
    let agent = site.agent(&ctl, 0);
    poll(SOON, "the slice", || site.granted(0, "home").len() == 16);
    let mut pods: Vec<(Pod, String)> = (0..15).map(|_| site.pod(0, &list)).collect();
    poll(SOON, "more than the slice", || !site.granted(0, "leased").is_empty());

    site.etcd.kill(0);
    // Stock is given although the store is away, and although the agent was restarted meanwhile.
    drop(agent);
    let agent = Agent::begin(&ctl, "--node node0");
    agent.await_report("the store of pools does not answer");
    let refused = loop {
        let (pod, outcome) = site.add(0, &list);
        if !outcome.ok() {
            break outcome;
        }
        pods.push((pod, outcome.result().address()));
    };
    assert!(pods.len() > 16, "{} pods", pods.len());
    assert_eq!(refused.error_code(), 11, "{refused}");
    let text = refused.error_text();
    assert!(text.contains("has not answered for"), "{text}");
    assert!(
        ctl.doctor("--no-probe").iter().any(|finding| finding.check == "pools" && finding.verdict == "fail")
    );

    // When it is back, the node grows again.
    site.etcd.restart(0);
    agent.await_report("the store of pools answers again");
    poll(SOON, "another address", || {
        let (pod, outcome) = site.add(0, &list);
        let got = outcome.ok();
        pods.extend(got.then(|| (pod, outcome.result().address())));
        got
    });
    let mut addresses: Vec<&str> = pods.iter().map(|(_, address)| &**address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), pods.len());
}
