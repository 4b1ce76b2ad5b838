//! Real container runtimes on one node: what they ask of a plugin, and that nothing is left when they have finished.

use integration::{Containerd, Release, Site};

#[test]
fn probe() {
    let site = Site::new();
    for release in Release::ALL {
    let runtime = Containerd::start(&site.node, release);
    let mut conf = site.conf();
    conf["logLevel"] = "debug".into();
    conf["logFile"] = "/plugin.log".into();
    let version = if release == Release::Sid { "1.1.0" } else { "1.0.0" };
    runtime.set_lists(&[serde_json::json!({"cniVersion": version, "name": "vlan136", "plugins": [conf]})]);
    let cri = runtime.cri();
    integration::poll(std::time::Duration::from_secs(20), "ready", || { let s = cri.network_ready(); eprintln!("{s:?}"); s.unwrap().0});
    let s = cri.run("one", &[]);
    eprintln!("{s:?} {:?}", runtime.leases("vlan136"));
    if let Ok(s) = s {
    eprintln!("{}", site.router.run(&format!("busybox wget -T 2 -q -O - http://{}/", s.ip)));
    runtime.restart("KILL");
    eprintln!("{:?} {:?}", cri.stop(&s), cri.remove(&s));
    }
    let s = cri.run("two", &[]);
    runtime.restart("TERM");
    eprintln!("{s:?} {:?}", runtime.leases("vlan136"));
    eprintln!("{}", std::fs::read_to_string(runtime.path("/plugin.log")).unwrap_or_default());
    eprintln!("{}", runtime.log("containerd"));
    eprintln!("{:?}", site.node.run("ip -br a"));
    }
    panic!()
}
