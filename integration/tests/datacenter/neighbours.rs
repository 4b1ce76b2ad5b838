//! The doctor on the kernel's neighbour tables, which only the machine's first network namespace shows.

use integration::{Namespace, Scratch, product, run};
use serde_json::Value;
use std::process::Command;

/// The doctor's findings about the tables, in the namespace of the tests themselves.
fn told() -> Value {
    let empty = Scratch::new("empty");
    let folder = empty.path().to_str().unwrap();
    let mut doctor = Command::new(product().join("vlan-bridgectl"));
    doctor.args(["doctor", "--no-probe", "-o", "json", "--conf-dir", folder, "--bin-dir", folder]);
    let findings = run(&mut doctor).json();
    let of_tables = findings.as_array().unwrap().iter().find(|finding| finding["check"] == "neighbours");
    of_tables.unwrap_or_else(|| panic!("no neighbours in {findings:#}")).clone()
}

#[test]
fn a_neighbour_table_that_is_nearly_full_is_named_with_its_cure() {
    let healthy = told();
    assert_eq!(healthy["verdict"], "ok", "{healthy:#}");
    let limit = std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").unwrap();
    let limit: u32 = limit.trim().parse().unwrap();
    assert!(healthy["seen"].as_str().unwrap().contains(&format!("gc_thresh3 {limit}")), "{healthy:#}");
    // A pod that talks to this number of machines. The table has room for the other tests' entries too.
    let pod = Namespace::new("pod");
    let neighbour = |index: u32| {
        let (high, low) = (index / 250, index % 250 + 1);
        format!("neigh add 10.9.{high}.{low} lladdr 02:00:00:00:{high:02x}:{low:02x} dev many nud stale\n")
    };
    let lines: String = (0..limit * 17 / 20).map(neighbour).collect();
    pod.ip(&format!("link add many type dummy\nlink set many up\naddr add 10.9.0.254/16 dev many\n{lines}"));
    let crowded = told();
    assert_eq!(crowded["verdict"], "warn", "{crowded:#}");
    assert!(crowded["seen"].as_str().unwrap().starts_with("IPv4: "), "{crowded:#}");
    let cure = crowded["fix"][0].as_str().unwrap();
    assert!(cure.contains("net.ipv4.neigh.default.gc_thresh3 = 4096"), "{crowded:#}");
    pod.ip("link del many");
    assert_eq!(told()["verdict"], "ok");
}
