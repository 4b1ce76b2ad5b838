//! The node's agent, and the conflicts that it knows.

use serde_json::{Value, json};
use vlan_bridge_agent::AgentState;

use super::super::{addresses, agent, pools};
use super::{complaints, list, macs, network, told};
use crate::facts::Facts;

/// What an agent shows that has just looked at the node, after a [merge](Value) of these keys.
fn shown(keys: &Value) -> impl FnOnce(&mut Facts) + use<> {
    let health = json!({"uptimeMs": u64::MAX, "tookMs": 7, "passes": 1, "restored": 0, "left": 0,
        "failed": 0});
    let mut document = json!({"version": env!("CARGO_PKG_VERSION"), "health": health, "conflicts": [], "pools": [],
            "recent": []});
    for (path, value) in keys.as_object().unwrap() {
        *document.pointer_mut(path).unwrap() = value.clone();
    }
    let state = AgentState::from_json(&document).unwrap();
    move |facts| facts.agent = Some(Ok(state))
}

fn conflict() -> Value {
    json!({"/conflicts": [{"address": "172.20.56.16", "mac": "02:00:00:00:00:16", "pod": "shop/web-0",
        "other": "02:00:00:00:00:09", "uplink": "bond0.136"}]})
}

#[test]
fn an_agent_that_works_is_ok_and_none_is_not_missed() {
    assert_eq!(complaints(agent::all, shown(&json!({}))), [""; 0]);
    assert_eq!(complaints(agent::all, |_| {}), [""; 0]);
}

#[test]
fn an_agent_that_does_not_work_is_told() {
    told(agent::all, |facts| facts.has_agent_unit = true, "warn", &["no agent runs", "enable --now"]);
    told(agent::all, |facts| facts.agent = Some(Err("unreadable".into())), "warn", &["unreadable"]);
    told(agent::all, shown(&json!({"/version": "0.0.9"})), "warn", &["the agent is version 0.0.9"]);
    told(agent::all, shown(&json!({"/health": null})), "warn", &["has not looked at the node yet"]);
    told(agent::all, shown(&json!({"/health/uptimeMs": 0})), "warn", &["the agent last looked at the node"]);
    let text = "the pods' guards: changed again (by nft, process 7)";
    let recent = json!([{"at": 1, "severity": "error", "reason": "LeftAlone", "text": text},
        {"at": 2, "severity": "notice", "reason": "ConflictOver", "text": "conflict over"}]);
    let left = shown(&json!({"/health/left": 1, "/recent": recent}));
    told(agent::all, left, "warn", &["the agent leaves 1 difference", text]);
}

#[test]
fn a_conflict_that_the_agent_knows_fails_with_the_way_to_the_machine() {
    let words = ["02:00:00:00:00:09 on bond0.136", "pod shop/web-0", "MAC table of VLAN 136", "ipam.exclude"];
    told(addresses::conflicts, shown(&conflict()), "fail", &words);
}

#[test]
fn a_conflict_that_a_probe_finds_too_is_told_once() {
    let both = |facts: &mut Facts| {
        shown(&conflict())(facts);
        let answers = facts.networks[0].probe.as_mut().unwrap().answers.as_mut().unwrap();
        let two = macs(&["02:00:00:00:00:16", "02:00:00:00:00:09"]);
        answers.insert("172.20.56.16".parse().unwrap(), two);
    };
    assert_eq!(complaints(addresses::conflicts, both), [""; 0]);
    assert_eq!(complaints(addresses::vlan, both).len(), 1);
}

#[test]
fn a_pool_without_an_agent_or_with_a_problem_is_told() {
    let with_pool = |facts: &mut Facts| {
        let mut list = list();
        list["plugins"][0]["ipam"]["pool"] = json!({"etcd": {"endpoints": ["https://10.0.0.1:2379"]}});
        facts.networks = vec![network(&list)];
    };
    let of = |pool: Value| {
        move |facts: &mut Facts| {
            with_pool(facts);
            shown(&json!({"/pools": [pool]}))(facts);
        }
    };
    let pool = json!({"network": "v", "pool": "vlan136", "home": 14, "leased": 3, "idle": 2, "waiting": 0,
        "problem": null, "storeAway": null});
    let changed = |key: &str, value: Value| {
        let mut pool = pool.clone();
        pool[key] = value;
        pool
    };
    assert_eq!(complaints(pools::all, |_| {}), [""; 0]);
    assert_eq!(complaints(pools::all, of(pool.clone())), [""; 0]);
    told(pools::all, with_pool, "fail", &["no agent takes addresses from the pool of v"]);
    told(pools::all, of(changed("problem", json!("there is no such pool"))), "fail", &["no such pool"]);
    let away = json!({"since": 1, "error": "etcd cannot be reached"});
    told(pools::all, of(changed("storeAway", away)), "fail", &["etcd cannot be reached", "pool vlan136"]);
    told(pools::all, of(changed("waiting", json!(7))), "fail", &["7 pods wait"]);
}
