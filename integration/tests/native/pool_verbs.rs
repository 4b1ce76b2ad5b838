//! `vlan-bridgectl pool`.

use integration::{Ctl, Etcd, Node, Outcome};
use serde_json::{Value, json};

/// A node that reaches etcd, and the options that name it.
struct There {
    etcd: Etcd,
    node: Node,
}

impl There {
    fn new() -> There {
        let (etcd, node) = (Etcd::start(), Node::new("node"));
        etcd.link(&node);
        There { etcd, node }
    }

    fn pool(&self, line: &str) -> Outcome {
        Ctl::new(&self.node).run(&format!("pool {line} {}", self.etcd.options("root")))
    }

    /// The message of a verb that fails.
    #[track_caller]
    fn refused(&self, line: &str) -> String {
        let outcome = self.pool(line);
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
        assert_eq!(outcome.stdout, "");
        outcome.stderr.trim_start_matches("vlan-bridgectl: ").trim().to_owned()
    }

    fn put(&self, key: &str, value: &Value) {
        self.etcd.ctl(&["put", &format!("/vlan-bridge/v1/{key}"), &value.to_string()]).expect_ok();
    }
}

#[test]
fn a_pool_is_made_once_and_shown() {
    let there = There::new();
    assert_eq!(there.pool("list").expect_ok().stdout, "the store has no pool\n");
    let made = there.pool("create vlan136 --range 172.20.56.0/24 --exclude 172.20.56.1").expect_ok();
    assert_eq!(
        made.stdout,
        "made pool vlan136: 253 addresses of 172.20.56.0/24, open\n\
         excluded, because no host has them: 172.20.56.0, 172.20.56.255\n"
    );
    there.pool("create six --range 2001:db8::/64").expect_ok();
    let list = there.pool("list").expect_ok().stdout;
    assert_eq!(
        list,
        "six: 18446744073709551615 addresses of 2001:db8::/64, open\n\
         vlan136: 253 addresses of 172.20.56.0/24, open\n"
    );
    let list = there.pool("list -o json").expect_ok().json();
    assert_eq!(list[1]["name"], "vlan136");
    assert_eq!(list[1]["exclude"], json!(["172.20.56.0/31", "172.20.56.255"]));
    let again = there.refused("create vlan136 --range 10.0.0.0/24");
    assert_eq!(again, "there is a pool vlan136 already: `vlan-bridgectl pool show vlan136` shows it");
}

#[test]
fn a_wrong_pool_is_refused_and_nothing_is_written() {
    let there = There::new();
    there.pool("create vlan136 --range 172.20.56.0/24").expect_ok();
    for (line, expected) in [
        (
            "a --range 172.20.57.1/24",
            "--range: 172.20.57.1/24 has host bits set: 172.20.57.0/24 would be right",
        ),
        ("a --range 10.0.0.0/33", "--range: 10.0.0.0/33 is not a CIDR such as 172.20.56.0/24"),
        (
            "a --range 10.0.0.0/24 --exclude 10.0.0.9/24",
            "--exclude: 10.0.0.9/24 has host bits set: 10.0.0.0/24 would be right",
        ),
        ("a --range 10.0.0.0/24 --exclude 10.0.1.1", "exclude: 10.0.1.1 is not an address of ranges"),
        ("a --range 10.0.0.0/24 --exclude 10.0.0.0/24", "all addresses of the ranges are excluded"),
        ("a --range 10.0.0.0/24,10.0.0.7", "ranges: 10.0.0.7 is not in one range only"),
        ("a --range 10.0.0.0/24,2001:db8::/64", "ranges: 2001:db8:: is not of the first range's family"),
        ("a --range 172.20.56.9", "pool vlan136 has 172.20.56.9 too: an address must be in one pool only"),
        ("a/b --range 10.0.0.0/24", "\"a/b\" is not a name of 1 to 253 letters, digits, -, _ and ."),
    ] {
        let said = there.refused(&format!("create {line}"));
        assert!(said.starts_with(expected), "{line}: {said}");
    }
    there.put("b/old/0a000000", &json!({"v": 1, "held": {}}));
    let said = there.refused("create old --range 10.0.0.0/24");
    assert_eq!(said, "the store has blocks of an earlier pool old, such as 10.0.0.0/26: choose another name");
    assert_eq!(there.pool("list").expect_ok().stdout.lines().count(), 1);
    let outcome = there.pool("create a");
    assert_eq!(outcome.status.code(), Some(2), "{outcome}");
}

/// A pool of which three nodes have addresses.
fn used() -> There {
    let there = There::new();
    there.pool("create vlan136 --range 172.20.56.0/24 --exclude 172.20.56.1").expect_ok();
    there.put(
        "b/vlan136/ac143800",
        &json!({"v": 1, "held": {
            "16": "h node-07/vlan136#3", "17": "h node-07/vlan136#3", "18": "g node-02/vlan136#1",
            "19": "u node-02/vlan136#1 node-05/vlan136#2", "20": "s node-05/vlan136#2", "21": "w shop.db-0",
            "22": "h node-09",
        }}),
    );
    there.put("b/vlan136/ac143880", &json!({"v": 2}));
    there
}

#[test]
fn a_pool_is_drawn_and_counted() {
    let there = used();
    let row = |rest: &str| rest.to_owned() + &".".repeat(64 - rest.len());
    let first = row("--..............AAbb?=C");
    let expected = format!(
        "vlan136: 253 addresses of 172.20.56.0/24, open\n\n\
         172.20.56.0     {first}\n\
         172.20.56.64    {}\n\
         172.20.56.128   {}\n\
         172.20.56.192   {}-\n\
         . free, ? suspect, = kept for a workload, - excluded, ! unreadable\n\
         a letter is a node, and a capital its home address\n\
         a node-07\nb node-02\nc node-09\n\n\
         246 free, 3 at home, 2 leased, 1 suspect, 1 reserved\n  \
           node-02: 0 at home, 2 leased\n  \
           node-05: 0 at home, 0 leased, 1 suspect\n  \
           node-07: 2 at home, 0 leased\n  \
           node-09: 1 at home, 0 leased\n\
         unreadable: /vlan-bridge/v1/b/vlan136/ac143880: v: 2 is not 1, the version that this release reads\n",
        row(""),
        "!".repeat(64),
        ".".repeat(63),
    );
    assert_eq!(there.pool("show vlan136").expect_ok().stdout, expected);
    let value = there.pool("show vlan136 -o json").expect_ok().json();
    let numbers =
        ["size", "free", "home", "leased", "suspect", "reserved"].map(|key| value[key].as_u64().unwrap());
    assert_eq!(numbers, [253, 246, 3, 2, 1, 1]);
    assert_eq!(value["nodes"][0], json!({"node": "node-02", "home": 0, "leased": 2, "suspect": 0}));
    assert_eq!(
        there.refused("show other"),
        "there is no pool other: `vlan-bridgectl pool list` shows those of the store"
    );
}

#[test]
fn a_large_pool_is_drawn_by_its_blocks() {
    let there = There::new();
    there.pool("create wide --range 10.0.0.0/16").expect_ok();
    let held = |count: u8| -> Value {
        (0..count)
            .map(|offset| (offset.to_string(), json!("g node-07/wide#1")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    for (key, count) in [("0a000040", 64), ("0a000080", 32), ("0a00ffc0", 1)] {
        there.put(&format!("b/wide/{key}"), &json!({"v": 1, "held": held(count)}));
    }
    let shown = there.pool("show wide").expect_ok().stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[2], format!("10.0.0.0        .#5{}", ".".repeat(61)));
    assert_eq!(lines[17], format!("10.0.240.0      {}0", ".".repeat(63)));
    assert!(lines[18].starts_with("each character is a block of 64 addresses"), "{shown}");
    assert!(shown.contains("\n65437 free, 0 at home, 97 leased, 0 suspect, 0 reserved\n"), "{shown}");
}

#[test]
fn an_address_and_a_node_are_shown() {
    let there = used();
    for (addr, expected) in [
        ("172.20.56.16", "home address of node node-07, network vlan136, epoch 3"),
        ("172.20.56.18", "leased by node node-02, network vlan136, epoch 1"),
        (
            "172.20.56.19",
            "leased by node node-02, network vlan136, epoch 1, and not probed yet: it was taken from \
             node node-05, network vlan136, epoch 2",
        ),
        (
            "172.20.56.20",
            "suspect: it was held by node node-05, network vlan136, epoch 2, and a pod may still use it",
        ),
        ("172.20.56.21", "kept for workload shop.db-0"),
        ("172.20.56.22", "home address of node node-09, which has had no agent yet"),
        ("172.20.56.23", "free"),
        ("172.20.56.70", "free"),
        ("172.20.56.255", "excluded"),
    ] {
        let said = there.pool(&format!("show vlan136 --address {addr}")).expect_ok().stdout;
        assert_eq!(said, format!("{addr}: {expected}\n"));
    }
    let value = there.pool("show vlan136 --address 172.20.56.18 -o json").expect_ok().json();
    assert_eq!((&value["entry"], &value["block"]), (&json!("g node-02/vlan136#1"), &json!("172.20.56.0/26")));
    let said = there.refused("show vlan136 --address 172.20.57.1");
    assert!(said.starts_with("172.20.57.1 is not in pool vlan136"), "{said}");
    let said = there.refused("show vlan136 --address 172.20.56.130");
    assert!(said.starts_with("the block of 172.20.56.130 cannot be read"), "{said}");

    there.put(
        "n/node-07",
        &json!({"v": 1, "instance": "00112233445566778899aabbccddeeff", "epoch": 3, "seq": 9, "state": "live",
            "boot": "00112233-4455-6677-8899-aabbccddeeff"}),
    );
    let said = there.pool("show vlan136 --node node-07").expect_ok().stdout;
    assert_eq!(
        said,
        "node-07: live, epoch 3\n  home: 172.20.56.16-172.20.56.17\n  leased: none\n  suspect: none\n"
    );
    let value = there.pool("show vlan136 --node node-02 -o json").expect_ok().json();
    assert_eq!((&value["leased"], &value["register"]), (&json!(["172.20.56.18-172.20.56.19"]), &Value::Null));
}

#[test]
fn a_pool_is_frozen_and_thawed() {
    let there = There::new();
    there.pool("create vlan136 --range 172.20.56.0/24").expect_ok();
    let said = |verb: &str| there.pool(&format!("{verb} vlan136")).expect_ok().stdout;
    assert_eq!(said("thaw"), "pool vlan136 was open already\n");
    assert_eq!(
        said("freeze"),
        "pool vlan136 is frozen: no node claims from it; pods get what their nodes hold\n"
    );
    assert_eq!(said("freeze"), "pool vlan136 was frozen already\n");
    assert!(said("show").contains("172.20.56.0/24, frozen\n"));
    assert_eq!(said("thaw"), "pool vlan136 is open: nodes claim from it\n");
    let read = there.etcd.ctl(&["get", "--print-value-only", "/vlan-bridge/v1/p/vlan136"]).stdout;
    let mut document: Value = serde_json::from_str(&read).unwrap();
    document["state"] = json!("recovering");
    there.put("p/vlan136", &document);
    for verb in ["freeze", "thaw"] {
        let said = there.refused(&format!("{verb} vlan136"));
        assert!(said.starts_with("pool vlan136 is recovering"), "{said}");
    }
    let open = there.pool("thaw vlan136 --after-restore").expect_ok().stdout;
    assert_eq!(open, "pool vlan136 is open: nodes claim from it\n");
    assert!(said("show").contains("172.20.56.0/24, open\n"));
}

/// A list whose pool is in this store.
fn list(node: &Node, name: &str, etcd: &Value) -> String {
    let plugin = json!({"type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "nic0"}, "ipam": {
        "type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24", "pool": {"etcd": etcd}}});
    node.list(name, &[plugin]).to_string()
}

#[test]
fn the_store_is_that_of_the_installed_lists() {
    let there = There::new();
    there.pool("create vlan136 --range 172.20.56.0/24").expect_ok();
    let ctl = Ctl::new(&there.node);
    let run = |line: &str| ctl.run(&format!("pool list {line}"));
    let none = run("");
    let expected = "vlan-bridgectl: no installed network list has ipam.pool: name the store by --endpoints or --network\n";
    assert_eq!((none.status.code(), none.stderr.as_str()), (Some(1), expected));
    let own = there.etcd.section("root");
    ctl.write("/etc/cni/net.d/10-vlan136.conflist", &list(&there.node, "vlan136", &own));
    ctl.write(
        "/etc/cni/net.d/20-other.conflist",
        r#"{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"y"}]}"#,
    );
    assert!(run("").expect_ok().stdout.starts_with("vlan136: "));
    ctl.write("/etc/cni/net.d/11-same.conflist", &list(&there.node, "same", &own));
    run("").expect_ok();
    let mut other = own.clone();
    other["endpoints"] = json!(["https://10.79.0.1:9"]);
    ctl.write("/etc/cni/net.d/12-other.conflist", &list(&there.node, "other", &other));
    let several = run("");
    assert!(
        several.stderr.contains("name different stores: choose one by --network: /etc/cni/net.d/10"),
        "{several}"
    );
    assert!(run("--network vlan136").expect_ok().stdout.starts_with("vlan136: "));
    run("--network /etc/cni/net.d/11-same.conflist").expect_ok();
    let unreachable = run("--network other");
    assert!(
        unreachable.stderr.contains("etcd cannot be reached: https://10.79.0.1:9: Connection refused"),
        "{unreachable}"
    );
    let unknown = run("--network nowhere");
    assert!(unknown.stderr.contains("no installed list is that of network nowhere"), "{unknown}");
    let wrong = run("--endpoints 10.79.0.1:2379");
    assert!(
        wrong
            .stderr
            .contains("--endpoints[0]: \"10.79.0.1:2379\" is not http://HOST:PORT or https://HOST:PORT"),
        "{wrong}"
    );
}
