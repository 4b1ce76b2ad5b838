//! Real container runtimes on one node: their requirements for a plugin, and the removal of everything at the
//! end.

use integration::{Background, Containerd, Host, IMAGE, Podman, Port, Release, Site, Snapshot, greets, poll};
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;
use std::slice;
use std::time::Duration;

/// The time limit for a runtime to notice a change.
const LIMIT: Duration = Duration::from_secs(30);

/// The site's network with leases in the default folder, in the newest version that all runtimes support.
pub fn list(site: &Site) -> Value {
    json!({"cniVersion": "1.0.0", "name": Site::NETWORK, "plugins": [site.conf()]})
}

/// The container answers the router, which stands for any machine of the network.
#[track_caller]
fn answers(site: &Site, ip: IpAddr) {
    poll(LIMIT, &format!("an answer from {ip}"), || greets(&site.router, (ip, 80).into()));
}

/// No address is held, no container runs, and the node is unchanged.
#[track_caller]
pub fn nothing_left(site: &Site, host: &Host, before: &Snapshot) {
    assert!(host.leases(Site::NETWORK).is_empty(), "{:?}", host.leases(Site::NETWORK));
    for folder in ["/run/netns", "/var/lib/cni/results", "/run/vlan-bridge/attachments"] {
        let left: Vec<_> = fs::read_dir(host.path(folder)).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    before.assert_unchanged(&site.node);
}

/// A containerd after its first sandbox, so that the bridge exists, and a snapshot of the node.
fn settled(site: &Site, release: Release, list: &Value) -> (Containerd, Snapshot) {
    let containerd = Containerd::start(&site.node, release);
    containerd.set_lists(slice::from_ref(list));
    let cri = containerd.cri();
    poll(LIMIT, "the network is ready", || cri.network_ready().expect("Status").0);
    let first = cri.run("first", &[]).expect("RunPodSandbox");
    containerd.remove(&first);
    let before = Snapshot::of(&site.node);
    (containerd, before)
}

/// The same with podman.
fn settled_podman(site: &Site, list: &Value) -> (Podman, Snapshot) {
    let podman = Podman::new(&site.node);
    podman.set_lists(slice::from_ref(list));
    podman.run_container("first", Site::NETWORK, "").expect_ok();
    podman.podman("rm --force --time 0 first").expect_ok();
    let before = Snapshot::of(&site.node);
    (podman, before)
}

#[test]
fn sandboxes_of_containerd_come_and_go_and_outlive_its_restarts() {
    for release in Release::ALL {
        let site = Site::new();
        let (containerd, before) = settled(&site, release, &list(&site));
        let sandboxes =
            ["one", "two", "three"].map(|name| containerd.cri().run(name, &[]).expect("RunPodSandbox"));
        for (signal, ended) in [("TERM", 0), ("KILL", 1)] {
            containerd.restart(signal);
            sandboxes.iter().skip(ended).for_each(|sandbox| answers(&site, sandbox.ip));
            containerd.remove(&sandboxes[ended]);
        }
        containerd
            .ctr(&format!("--namespace k8s.io task kill --signal KILL {}", sandboxes[2].id))
            .expect_ok();
        // While its shim ends, containerd may fail. kubelet repeats the stop until it succeeds.
        poll(LIMIT, "the end of a killed sandbox", || containerd.cri().stop(&sandboxes[2]).is_ok());
        containerd.remove(&sandboxes[2]);
        nothing_left(&site, &containerd, &before);
    }
}

#[test]
fn containers_of_ctr_reach_the_router_and_leave_nothing() {
    for release in Release::ALL {
        let site = Site::new();
        let (containerd, before) = settled(&site, release, &list(&site));
        let mut running = ["one", "two"].map(|id| (id, containerd.run_container(id)));
        poll(LIMIT, "two leases", || containerd.leases(Site::NETWORK).len() == 2);
        containerd.leases(Site::NETWORK).into_iter().for_each(|ip| answers(&site, ip));
        for (id, process) in &mut running {
            containerd.ctr(&format!("task kill --signal KILL {id}")).expect_ok();
            // containerd removes the network with an empty CNI_NETNS before it ends.
            poll(LIMIT, "the end of ctr", || !process.is_alive());
        }
        nothing_left(&site, &containerd, &before);
    }
}

#[test]
fn containerd_1_refuses_a_list_of_1_1_and_leaves_nothing() {
    let site = Site::new();
    let (containerd, before) = settled(&site, Release::Stable, &list(&site));
    let mut newer = list(&site);
    newer["cniVersion"] = json!("1.1.0");
    containerd.set_lists(&[newer]);
    let mut said = String::new();
    poll(LIMIT, "a refusal", || match containerd.cri().run("one", &[]) {
        Ok(sandbox) => {
            containerd.remove(&sandbox);
            false
        }
        Err(error) => {
            said = error;
            true
        }
    });
    assert!(said.contains("1.1.0"), "{said}");
    nothing_left(&site, &containerd, &before);
}

#[test]
fn containerd_2_calls_a_node_without_its_uplink_not_ready() {
    let site = Site::new();
    let containerd = Containerd::start(&site.node, Release::Sid);
    let mut newer = list(&site);
    newer["cniVersion"] = json!("1.1.0");
    containerd.set_lists(&[newer]);
    let state = || containerd.cri().network_ready().expect("Status");
    poll(LIMIT, "the network is ready", || state().0);
    site.node.ip("link set nic0 down");
    let (ready, message) = state();
    assert!(!ready && message.contains("nic0 is down"), "{message}");
    site.node.ip("link set nic0 up");
    poll(LIMIT, "the network is ready again", || state().0);
}

#[test]
fn containers_of_podman_come_and_go() {
    let site = Site::new();
    let (podman, before) = settled_podman(&site, &list(&site));
    for name in ["one", "two", "three"] {
        podman.run_container(name, Site::NETWORK, "--cap-add NET_RAW").expect_ok();
    }
    assert_eq!(podman.leases(Site::NETWORK).len(), 3);
    podman.podman("restart --time 0 one").expect_ok();
    assert_eq!(podman.leases(Site::NETWORK).len(), 3);
    podman.leases(Site::NETWORK).into_iter().for_each(|ip| answers(&site, ip));
    podman.podman("exec one /bin/busybox ping -c 1 -W 2 172.20.56.1").expect_ok();
    podman.podman("kill two").expect_ok();
    podman.podman("rm --force --time 0 one two three").expect_ok();
    nothing_left(&site, &podman, &before);
}

#[test]
fn a_user_other_than_root_is_told_that_podman_cannot_reach_the_uplink() {
    let site = Site::new();
    let podman = Podman::new(&site.node);
    let user = podman.user("tenant");
    user.set_list(&list(&site));
    let outcome = user.podman(&format!("run --rm --network {} {IMAGE}", Site::NETWORK));
    assert!(
        !outcome.ok() && outcome.stderr.contains("nic0 cannot be reached by a rootless runtime"),
        "{outcome}"
    );
}

/// The node's address for host ports.
const NODE: &str = "192.0.2.1";

/// A site whose node has a network in NAT mode.
pub fn nat_site() -> (Site, Value) {
    let site = Site::new();
    site.node.ip(&format!("addr add {NODE}/24 dev nic0"));
    site.router.ip("addr add 192.0.2.9/24 dev port");
    let local = json!({
        "type": "vlan-bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
        "capabilities": {"portMappings": true},
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"},
    });
    let list = json!({"cniVersion": "1.0.0", "name": Site::NETWORK, "plugins": [local]});
    (site, list)
}

/// The host port leads to a container, for another machine.
#[track_caller]
pub fn published(site: &Site, port: u16) {
    let to = format!("{NODE}:{port}").parse().unwrap();
    poll(LIMIT, &format!("an answer from {to}"), || greets(&site.router, to));
}

#[test]
fn host_ports_of_sandboxes_lead_to_them_until_they_go() {
    for release in Release::ALL {
        let (site, list) = nat_site();
        let (containerd, before) = settled(&site, release, &list);
        let on = |host| [Port { host, container: 80 }];
        let run = |name, host| containerd.cri().run(name, &on(host));
        let sandboxes = [run("one", 8081), run("two", 8082)].map(|it| it.expect("RunPodSandbox"));
        [8081, 8082].into_iter().for_each(|port| published(&site, port));
        let refused = run("three", 8082).expect_err("a port that is taken");
        assert!(refused.contains("8082"), "{refused}");
        containerd.restart("KILL");
        sandboxes.iter().for_each(|sandbox| containerd.remove(sandbox));
        nothing_left(&site, &containerd, &before);
    }
}

#[test]
fn host_ports_of_podman_lead_to_its_containers_until_they_go() {
    let (site, list) = nat_site();
    let (podman, before) = settled_podman(&site, &list);
    podman.run_container("one", Site::NETWORK, "--publish 8081:80").expect_ok();
    podman.run_container("two", Site::NETWORK, "--publish 8082:80/tcp").expect_ok();
    [8081, 8082].into_iter().for_each(|port| published(&site, port));
    podman.podman("restart --time 0 one").expect_ok();
    published(&site, 8081);
    podman.podman("rm --force --time 0 one two").expect_ok();
    nothing_left(&site, &podman, &before);
}

/// The DaemonSet's containers: the arguments after `vlan-bridgectl`, and the mounted folders of the node.
fn daemonset(name: &str) -> (String, Vec<String>) {
    let text = include_str!("../../../deploy/base/daemonset.yaml");
    let daemonset: Value = serde_yaml_ng::from_str(text).unwrap();
    let spec = &daemonset["spec"]["template"]["spec"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let all = [list(&spec["initContainers"]), list(&spec["containers"])].concat();
    let container = all.iter().find(|container| container["name"] == name).expect("a container of that name");
    let words: Vec<String> =
        list(&container["args"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let mounts = list(&container["volumeMounts"]).into_iter().map(|mount| {
        let volumes = list(&spec["volumes"]);
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("its volume");
        let there = mount["mountPath"].as_str().expect("a place");
        // The ConfigMap is a folder of the host here.
        let here = volume["hostPath"]["path"].as_str().unwrap_or(there);
        let rights = if mount["readOnly"] == true { "ro" } else { "rw" };
        format!("--mount=type=bind,src={here},dst={there},options=rbind:{rights}")
    });
    (words.join(" "), mounts.collect())
}

#[test]
fn the_image_installs_as_the_daemonset_says_and_again_when_the_network_changes() {
    const LIST: &str = "/etc/vlan-bridge/10-vlan136.conflist";
    const INSTALLED: &str = "/etc/cni/net.d/10-vlan136.conflist";
    let site = Site::new();
    let containerd = Containerd::start(&site.node, Release::Sid);
    let image = containerd.import_product();
    let run = "run --rm --cpu-shares 0 --cap-drop CAP_SYS_ADMIN --read-only";
    let help = containerd.ctr(&format!("{run} {image} help /opt/vlan-bridge/vlan-bridgectl --help"));
    assert!(help.ok() && help.stdout.contains("install"), "{help}");

    containerd.uninstall();
    for folder in ["/etc/vlan-bridge", "/etc/cni/net.d", "/var/lib/vlan-bridge"] {
        fs::create_dir_all(containerd.path(folder)).unwrap();
    }
    let mut template = list(&site);
    template["plugins"][0]["ipam"].as_object_mut().unwrap().remove("slice");
    fs::write(containerd.path(LIST), template.to_string()).unwrap();
    let command = |container: &str| {
        let (words, mounts) = daemonset(container);
        let mounts = mounts.join(" ");
        format!(
            "{run} --net-host {mounts} {image} {container} /opt/vlan-bridge/vlan-bridgectl {words} --slice 172.20.56.16/28"
        )
    };
    containerd.ctr(&command("install")).expect_ok();
    let cri = containerd.cri();
    poll(LIMIT, "the network is ready", || cri.network_ready().expect("Status").0);
    let sandbox = cri.run("one", &[]).expect("RunPodSandbox");
    answers(&site, sandbox.ip);
    containerd.remove(&sandbox);

    let said = containerd.path("/watch.log");
    let log = fs::File::create(&said).unwrap();
    let _watch = Background::start(containerd.ctr_command(&command("vlan-bridge")).stdout(log));
    let unchanged = || fs::read_to_string(&said).unwrap_or_default().contains("unchanged /etc/cni");
    poll(LIMIT, "the first install of the watch", unchanged);
    template["plugins"][0]["mtu"] = json!(1400);
    fs::write(containerd.path(LIST), template.to_string()).unwrap();
    let installed = || fs::read_to_string(containerd.path(INSTALLED)).unwrap_or_default();
    poll(LIMIT, "the list changes", || installed().contains("1400"));
}

/// As k3s starts its own containerd, which does not read `/etc/containerd/config.toml`.
#[test]
fn a_containerd_with_its_configuration_elsewhere_gets_everything_where_it_looks() {
    for release in Release::ALL {
        let site = Site::new();
        let containerd = Containerd::start(&site.node, release);
        containerd.stop("containerd", "TERM");
        let text = fs::read_to_string(containerd.path("/etc/containerd/config.toml")).unwrap();
        let text = text.replace("/opt/cni/bin", "/srv/bin").replace("/etc/cni/net.d", "/srv/net.d");
        containerd.write("/srv/own.toml", &text);
        containerd.unpack_product();
        fs::create_dir_all(containerd.path("/srv/bin")).unwrap();
        fs::rename(containerd.path("/opt/cni/bin/loopback"), containerd.path("/srv/bin/loopback")).unwrap();
        containerd.start("containerd", "containerd --config=/srv/own.toml");
        containerd.write("/etc/template.conflist", &list(&site).to_string());
        poll(LIMIT, "a containerd", || containerd.ctr("version").ok());

        let told = containerd.run("vlan-bridgectl install --network /etc/template.conflist").expect_ok();
        assert!(containerd.path("/srv/bin/vlan-bridge").exists(), "{told}");
        assert!(!containerd.path("/etc/cni/net.d/template.conflist").exists(), "{told}");
        let cri = containerd.cri();
        poll(LIMIT, "the network is ready", || cri.network_ready().expect("Status").0);
        let sandbox = cri.run("one", &[]).expect("RunPodSandbox");
        answers(&site, sandbox.ip);
        let doctor = containerd.run("vlan-bridgectl doctor --no-probe");
        for line in
            ["lists in /srv/net.d\n", "ok    lists         /srv/net.d/template.conflist\n", "ok    plugins "]
        {
            assert!(doctor.stdout.contains(line), "{release:?}: {doctor}");
        }
        let status = containerd.run("vlan-bridgectl status").expect_ok();
        assert!(status.stdout.contains(&format!("\n{} ", sandbox.ip)), "{status}");
        containerd.remove(&sandbox);
        containerd.run("vlan-bridgectl uninstall").expect_ok();
        assert!(
            !containerd.path("/srv/bin/vlan-bridge").exists()
                && !containerd.path("/srv/net.d/template.conflist").exists()
        );
    }
}
