//! The scene that pools are for: one node is full while others idle.

use integration::{PoolSite, poll};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Idle addresses rest for a minute before they go to another node.
const RETURNED: Duration = Duration::from_secs(150);

#[test]
fn a_full_node_gets_the_idle_addresses_of_others_and_they_get_them_back() {
    let site = PoolSite::new(3);
    let lists: Vec<_> =
        (0..3).map(|node| site.list(node, &json!({"pool": {"home": "lent", "wait": 20}}))).collect();
    let ctls: Vec<_> = (0..3).map(|node| site.ctl(node, &lists[node])).collect();
    site.create(&ctls[0], "172.20.56.16-172.20.56.63");
    let _agents: Vec<_> = (0..3).map(|node| site.agent(&ctls[node], node)).collect();
    for node in 0..3 {
        poll(Duration::from_secs(30), "each node's own slice", || site.granted(node, "home").len() == 16);
    }

    // All addresses of the pool, on one node.
    let pods: Vec<_> = (0..48).map(|_| site.pod(0, &lists[0])).collect();
    let addresses: BTreeSet<&str> = pods.iter().map(|(_, address)| &**address).collect();
    assert_eq!(addresses.len(), 48, "{addresses:?}");
    // The router hears each of them: they are addresses of the data centre, wherever they were at home.
    for (pod, _) in pods.iter().step_by(7) {
        pod.wait_for("172.20.56.1");
    }
    let (_pod, refused) = site.add(1, &site.list(1, &json!({"pool": {"home": "lent", "wait": 1}})));
    assert_eq!(refused.error_code(), 11, "{refused}");
    let text = refused.error_text();
    assert!(text.contains("pool vlan136") && text.contains("48 of 48"), "{text}");

    // When the pods are gone, the others get what they need.
    for (pod, _) in &pods {
        site.del(0, &lists[0], pod);
    }
    let mut others = Vec::new();
    for node in [1, 2] {
        poll(RETURNED, "an address that came back", || {
            let (pod, outcome) = site.add(node, &lists[node]);
            let got = outcome.ok();
            others.extend(got.then(|| (pod, outcome.result().address())));
            got
        });
    }
    assert_ne!(others[0].1, others[1].1);
}
