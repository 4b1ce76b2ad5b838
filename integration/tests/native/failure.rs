//! A failed ADD removes everything that it made. Each step is made to fail in turn.

use crate::attached::{Clean, FakeIpam, add_through};
use integration::{Outcome, Pod, Site, Snapshot};
use serde_json::{Value, json};

/// Runs an ADD that must fail with `code` and leave node and pod unchanged.
#[track_caller]
fn fails(clean: &Clean, ipam: &FakeIpam, code: u64) -> Outcome {
    let pod = Pod::new();
    let before = Snapshot::of(&pod);
    let plugin = clean.plugin_with_ipam(json!({"type": "fake"}));
    let outcome = add_through(ipam, &plugin, &pod.eth0());
    assert_eq!(outcome.error_code(), code, "{outcome}");
    before.assert_unchanged(&pod);
    clean.assert_nothing_left(&pod);
    outcome
}

/// The same, and IPAM must have released its lease.
#[track_caller]
fn fails_and_gives_back(clean: &Clean, ipam: &FakeIpam, code: u64) -> Outcome {
    let outcome = fails(clean, ipam, code);
    assert_eq!(ipam.calls(), ["ADD", "DEL"], "{outcome}");
    outcome
}

/// A result with these addresses and routes.
fn result(addresses: &[&str], routes: Value) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"address": address})).collect();
    json!({"cniVersion": "1.1.0", "ips": ips, "routes": routes})
}

#[test]
fn what_ipam_refuses_comes_back_as_it_said_it() {
    let clean = Clean::new();
    let error = json!({"cniVersion": "1.1.0", "code": 123, "msg": "all gone", "details": "try elsewhere"});
    let ipam = FakeIpam::adding(&format!("echo 'to the log' >&2; echo '{error}'; exit 1"));
    let outcome = fails_and_gives_back(&clean, &ipam, 123);
    assert_eq!(outcome.json(), error);
    assert!(outcome.stderr.contains("to the log"), "its stderr is forwarded: {outcome}");
}

#[test]
fn an_ipam_that_crashes_or_talks_nonsense_is_an_error() {
    let clean = Clean::new();
    for script in [
        "kill -9 $$",
        "exit 3",
        "echo 'no json'; exit 1",
        "echo 'no json'",
        "true",
        "echo '{}'",
        "echo '{\"cniVersion\": \"1.1.0\", \"ips\": []}'",
    ] {
        fails_and_gives_back(&clean, &FakeIpam::adding(script), 103);
    }
}

#[test]
fn a_result_that_cannot_be_read_is_an_error_that_names_the_key() {
    let clean = Clean::new();
    for (result, named) in [
        (result(&["172.20.56.9"], json!([])), "172.20.56.9"),
        (result(&["172.20.56.9/33"], json!([])), "172.20.56.9/33"),
        (result(&["172.20.56.9/24"], json!([{"dst": "nowhere"}])), "nowhere"),
        (result(&["172.20.56.9/24"], json!([{"dst": "0.0.0.0/0", "gw": "gone"}])), "gone"),
        (json!({"cniVersion": "1.1.0", "ips": "none"}), "ips"),
        (json!({"cniVersion": "9.9.9", "ips": [{"address": "172.20.56.9/24"}]}), "9.9.9"),
        (json!([]), "list"),
    ] {
        let ipam = FakeIpam::giving(&result);
        let pod = Pod::new();
        let plugin = clean.plugin_with_ipam(json!({"type": "fake"}));
        let outcome = add_through(&ipam, &plugin, &pod.eth0());
        assert!(outcome.error_text().contains(named), "{named} is not in {outcome}");
        assert_eq!(ipam.calls(), ["ADD", "DEL"], "{outcome}");
        clean.assert_nothing_left(&pod);
    }
}

#[test]
fn addresses_and_routes_that_the_kernel_refuses_are_taken_back() {
    let clean = Clean::new();
    let good = "172.20.56.9/24";
    for (addresses, routes) in [
        // The same address twice, and an address that no interface may have.
        (vec![good, good], json!([])),
        (vec![good, "ff02::5/64"], json!([])),
        (vec![good, "::1/128"], json!([])),
        // The same route twice, a route through a router of the other family, and a scope that is wider than
        // its router's scope.
        (
            vec![good],
            json!([{"dst": "10.0.0.0/8", "gw": "172.20.56.1"}, {"dst": "10.0.0.0/8", "gw": "172.20.56.1"}]),
        ),
        (vec![good, "2001:db8::9/64"], json!([{"dst": "10.0.0.0/8", "gw": "2001:db8::1"}])),
        (vec![good], json!([{"dst": "10.0.0.0/8", "gw": "172.20.56.1", "scope": 255}])),
    ] {
        let ipam = FakeIpam::giving(&result(&addresses, routes));
        fails_and_gives_back(&clean, &ipam, 102);
    }
}

#[test]
fn an_ipam_that_is_not_there_is_not_called() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let outcome = clean.plugin_with_ipam(json!({"type": "absent"})).add(&pod.eth0());
    assert_eq!(outcome.error_code(), 103, "{outcome}");
    assert!(outcome.error_text().contains("absent"), "{outcome}");
    clean.assert_nothing_left(&pod);
}

#[test]
fn the_first_error_is_told_when_giving_back_fails_as_well() {
    let clean = Clean::new();
    let script = "echo '{\"cniVersion\": \"1.1.0\", \"code\": 123, \"msg\": \"'$CNI_COMMAND'\"}'; exit 1";
    let outcome = fails_and_gives_back(&clean, &FakeIpam::new("fake", script), 123);
    assert!(outcome.error_text().starts_with("ADD"), "{outcome}");
    assert!(outcome.stderr.contains("DEL"), "the second is in the log: {outcome}");
}

#[test]
fn a_name_that_is_taken_in_the_pod_is_refused_before_ipam_is_asked() {
    let (clean, pod) = (Clean::new(), Pod::new());
    pod.ip("link add eth0 type bridge\nlink set eth0 up");
    let before = (Snapshot::of(&clean.site.node), Snapshot::of(&pod));
    let ipam = FakeIpam::giving(&result(&["172.20.56.9/24"], json!([])));
    let outcome = add_through(&ipam, &clean.plugin_with_ipam(json!({"type": "fake"})), &pod.eth0());
    assert_eq!(outcome.error_code(), 100, "{outcome}");
    assert!(outcome.error_text().contains("eth0"), "{outcome}");
    assert!(ipam.calls().is_empty());
    before.0.assert_unchanged(&clean.site.node);
    before.1.assert_unchanged(&pod);
}

#[test]
fn a_name_that_is_taken_on_the_node_is_refused_and_its_holder_left_alone() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let name = clean.plugin().add(&pod.eth0()).result().host_interface().to_owned();
    clean.plugin().del(&pod.eth0()).expect_ok();
    for holder in ["type bridge", "type veth peer name other"] {
        clean.site.node.ip(&format!("link add {name} {holder}\nlink set {name} alias theirs up"));
        let before = Snapshot::of(&clean.site.node);
        let outcome = clean.plugin().add(&pod.eth0());
        assert!(outcome.error_text().contains(&name), "{outcome}");
        before.assert_unchanged(&clean.site.node);
        clean.plugin().del(&pod.eth0()).expect_ok();
        before.assert_unchanged(&clean.site.node);
        clean.site.node.ip(&format!("link del {name}"));
        clean.assert_nothing_left(&pod);
    }
}

#[test]
fn a_namespace_that_is_not_there_is_an_error_that_names_it() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let ipam = FakeIpam::giving(&result(&["172.20.56.9/24"], json!([])));
    let plugin = clean.plugin_with_ipam(json!({"type": "fake"}));
    let mut eth0 = pod.eth0();
    for path in ["/run/netns/nobody", "/dev/null", "/proc/version"] {
        eth0.netns = Some(path.into());
        let outcome = add_through(&ipam, &plugin, &eth0);
        assert_eq!(outcome.error_code(), 4, "{outcome}");
        assert!(outcome.error_text().contains(path), "{outcome}");
    }
    assert!(ipam.calls().is_empty());
    clean.assert_nothing_left(&pod);
}

/// A script that waits for a file before it goes on.
fn slow(answer: &Value) -> FakeIpam {
    FakeIpam::adding(&format!(
        "touch \"$folder/asked\"\nwhile [ ! -e \"$folder/go\" ]; do sleep 0.01; done\ncat <<'END'\n{answer}\nEND"
    ))
}

/// An ADD during which `meanwhile` runs while IPAM works.
fn add_while(clean: &Clean, ipam: &FakeIpam, pod: &Pod, meanwhile: impl FnOnce()) -> Outcome {
    let plugin = clean.plugin_with_ipam(json!({"type": "fake"}));
    let eth0 = pod.eth0();
    std::thread::scope(|scope| {
        let add = scope.spawn(|| add_through(ipam, &plugin, &eth0));
        let asked = || ipam.exists("asked") || add.is_finished();
        integration::poll(std::time::Duration::from_secs(10), "IPAM is asked", asked);
        meanwhile();
        ipam.write("go");
        add.join().unwrap()
    })
}

#[test]
fn a_bridge_that_goes_meanwhile_fails_the_add() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let before = Snapshot::of(&pod);
    let ipam = slow(&result(&["172.20.56.9/24"], json!([])));
    let outcome = add_while(&clean, &ipam, &pod, || clean.make_bare());
    outcome.error_code();
    assert_eq!(ipam.calls(), ["ADD", "DEL"]);
    before.assert_unchanged(&pod);
    assert_eq!(
        clean.site.node.ip_json("link show type veth").as_array().unwrap().len(),
        2,
        "nic0 and nic1 alone are left"
    );
}

#[test]
fn an_interface_that_goes_meanwhile_fails_the_add() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let ipam = slow(&result(&["172.20.56.9/24"], json!([{"dst": "0.0.0.0/0", "gw": "172.20.56.1"}])));
    let outcome = add_while(&clean, &ipam, &pod, || pod.ip("link del eth0"));
    assert_eq!(outcome.error_code(), 102, "{outcome}");
    assert_eq!(ipam.calls(), ["ADD", "DEL"]);
    clean.assert_nothing_left(&pod);
}

/// The namespace exists while the plugin holds it open. The runtime that removed it sends a DEL.
#[test]
fn a_namespace_that_goes_meanwhile_leaves_nothing_once_it_is_detached() {
    let clean = Clean::new();
    let mut pod = Some(Pod::new());
    let eth0 = pod.as_ref().unwrap().eth0();
    let ipam = slow(&result(&["172.20.56.9/24"], json!([{"dst": "0.0.0.0/0", "gw": "172.20.56.1"}])));
    let plugin = clean.plugin_with_ipam(json!({"type": "fake"}));
    let outcome = std::thread::scope(|scope| {
        let add = scope.spawn(|| add_through(&ipam, &plugin, &eth0));
        let asked = || ipam.exists("asked") || add.is_finished();
        integration::poll(std::time::Duration::from_secs(10), "IPAM is asked", asked);
        drop(pod.take());
        ipam.write("go");
        add.join().unwrap()
    });
    if outcome.ok() {
        ipam.before(plugin.call("DEL", &eth0)).run().expect_ok();
    }
    assert_eq!(ipam.calls(), ["ADD", "DEL"], "{outcome}");
    clean.assert_nothing_left(&Pod::new());
}

#[test]
fn a_bare_node_keeps_a_complete_bridge_after_a_failed_add() {
    let (site, pod) = (Site::new(), Pod::new());
    let ipam = FakeIpam::adding("exit 1");
    let mut conf = site.conf();
    conf["ipam"] = json!({"type": "fake"});
    let plugin = site.node.plugin(&site.node.list(Site::NETWORK, &[conf]));
    assert_eq!(add_through(&ipam, &plugin, &pod.eth0()).error_code(), 103);
    let after_failure = Snapshot::of(&site.node);
    let plugin = site.node.plugin(&site.list());
    plugin.add(&pod.eth0()).expect_ok();
    plugin.del(&pod.eth0()).expect_ok();
    after_failure.assert_unchanged(&site.node);
}
