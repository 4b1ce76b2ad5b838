//! cnitool, with which users try a plugin without a runtime.

use crate::runtimes::{list, nat_site, nothing_left, published};
use integration::{Host, Outcome, Site, Snapshot, run};
use serde_json::{Value, json};

/// A host with the tool and one network of version 1.1.0.
fn host(site: &Site, list: &Value) -> Host {
    let host = Host::bare(&site.node);
    host.install_cnitool();
    let mut newest = list.clone();
    newest["cniVersion"] = json!("1.1.0");
    host.set_lists(&[newest]);
    host
}

/// Runs a verb for a network namespace of the host, with host ports or none.
#[track_caller]
fn cnitool(host: &Host, verb: &str, netns: &str, ports: &Value) -> Outcome {
    let mut command = host.command("cnitool");
    command.args([verb, Site::NETWORK, &format!("/run/netns/{netns}")]);
    command.env("CNI_PATH", "/opt/cni/bin").env("CAP_ARGS", json!({"portMappings": ports}).to_string());
    run(&mut command)
}

#[test]
fn pods_of_cnitool_reach_the_router_and_leave_nothing() {
    let site = Site::new();
    let host = host(&site, &list(&site));
    let call = |verb: &str, netns: &str| cnitool(&host, verb, netns, &json!([]));
    call("status", "none").expect_ok();
    let names = ["one", "two", "three"];
    let before = {
        // The bridge stays.
        host.run("ip netns add first").expect_ok();
        call("add", "first").expect_ok();
        call("del", "first").expect_ok();
        host.run("ip netns del first").expect_ok();
        Snapshot::of(&site.node)
    };
    for name in names {
        host.run(&format!("ip netns add {name}")).expect_ok();
        let result = call("add", name).expect_ok().json();
        assert_eq!(result["cniVersion"], "1.1.0");
        call("check", name).expect_ok();
        host.run(&format!("ip netns exec {name} ping -c 1 -W 5 {}", Site::GATEWAY)).expect_ok();
    }
    assert_eq!(host.leases(Site::NETWORK).len(), names.len());
    // As on a node after the pod's namespace is gone.
    host.run("ip netns del three").expect_ok();
    for name in names {
        call("del", name).expect_ok();
        call("del", name).expect_ok();
    }
    names[..2].iter().for_each(|name| drop(host.run(&format!("ip netns del {name}")).expect_ok()));
    nothing_left(&site, &host, &before);
}

#[test]
fn host_ports_by_cnitool_lead_to_the_pod_until_it_goes() {
    let (site, list) = nat_site();
    let host = host(&site, &list);
    let ports = json!([{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}]);
    let (add, del) =
        (|name: &str| cnitool(&host, "add", name, &ports), |name: &str| cnitool(&host, "del", name, &ports));
    host.run("ip netns add one").expect_ok();
    add("one").expect_ok();
    del("one").expect_ok();
    let before = Snapshot::of(&site.node);
    add("one").expect_ok();
    host.write("/www/index.html", "a pod\n");
    host.start("httpd", "ip netns exec one busybox httpd -f -p 80 -h /www");
    published(&site, 8081);
    host.run("ip netns add two").expect_ok();
    let refused = add("two");
    assert!(refused.stdout.contains("8081") || refused.stderr.contains("8081"), "{refused}");
    host.stop("httpd", "TERM");
    ["one", "two"].iter().for_each(|name| {
        del(name).expect_ok();
        host.run(&format!("ip netns del {name}")).expect_ok();
    });
    nothing_left(&site, &host, &before);
}
