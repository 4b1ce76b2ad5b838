//! The doctor on files of systemd-networkd and NetworkManager that configure our interfaces.

use integration::{Ctl, Finding, Node, Site, run};
use std::fs;
use std::os::unix::fs::symlink;

const VENDOR: &str = "/usr/lib/systemd/network/80-all.network";

fn told(ctl: &Ctl<'_>) -> Vec<Finding> {
    let all = ctl.doctor("--no-probe");
    all.into_iter().filter(|finding| finding.check == "definitions").collect()
}

/// The findings about one interface.
fn about<'a>(findings: &'a [Finding], seen: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.seen.starts_with(seen))
}

#[test]
fn the_file_that_networkd_would_take_is_judged_wherever_it_is() {
    let site = Site::new();
    let (node, ctl) = (&site.node, Ctl::new(&site.node));
    ctl.run("install --name vlan136 --master nic0 --subnet 198.51.100.0/24 --slice 198.51.100.16/28")
        .expect_ok();
    let gives = "systemd-networkd gives br-vlan136 addresses";
    let bridge = ctl.read("/etc/cni/net.d/10-vlan136.conflist");
    let bridge: serde_json::Value = serde_json::from_str(&bridge).unwrap();
    let bridge = bridge["plugins"][0]["bridge"].as_str().unwrap().to_owned();
    let gives = gives.replace("br-vlan136", &bridge);
    for conditions in ["Name=*", "Type=bridge", "Kind=bridge", "Driver=bridge", "Name=!lo", "Type=!loopback"]
    {
        ctl.write(VENDOR, &format!("[Match]\n{conditions}\n[Network]\nDHCP=yes\n"));
        let findings = told(&ctl);
        let finding = about(&findings, &gives).unwrap_or_else(|| panic!("{conditions}: {findings:#?}"));
        assert_eq!(finding.verdict, "fail", "{conditions}: {findings:#?}");
        assert!(finding.seen.ends_with(VENDOR), "{findings:#?}");
    }
    for conditions in ["Name=eth*", "Type=ether", "Kind=!*", "Name=!br* cni* vlan*", "Driver=virtio_net"] {
        ctl.write(VENDOR, &format!("[Match]\n{conditions}\n[Network]\nDHCP=yes\n"));
        assert_eq!(about(&told(&ctl), &gives), None, "{conditions}");
    }
    // The names of pods' interfaces are known before the first pod.
    ctl.write(VENDOR, "[Match]\nKind=veth\n[Network]\nDHCP=yes\n");
    let pods = "systemd-networkd gives pods' interfaces on the node addresses";
    assert_eq!(about(&told(&ctl), pods).unwrap().verdict, "fail");
    // A file of the same name in a folder with precedence, and a file that sorts before it.
    ctl.write(VENDOR, "[Match]\nName=*\n[Network]\nDHCP=yes\n");
    let mask = "/etc/systemd/network/80-all.network";
    ctl.write(mask, "");
    assert_eq!(told(&ctl)[0].verdict, "ok", "an empty file masks it");
    fs::remove_file(ctl.path(mask)).unwrap();
    symlink("/dev/null", ctl.path(mask)).unwrap();
    assert_eq!(told(&ctl)[0].verdict, "ok", "so does a link to /dev/null");
    fs::remove_file(ctl.path(mask)).unwrap();
    ctl.write("/run/systemd/network/10-first.network", "[Match]\nName=*\n[Link]\nUnmanaged=yes\n");
    assert_eq!(told(&ctl)[0].verdict, "ok", "the first that fits counts");
    fs::remove_file(ctl.path("/run/systemd/network/10-first.network")).unwrap();
    // A drop-in of a vendor's file.
    ctl.write(VENDOR, "[Match]\nName=*\n[Network]\nKeepMaster=yes\n");
    let drop_in = "/etc/systemd/network/80-all.network.d/dhcp.conf";
    ctl.write(drop_in, "[Network]\nDHCP=ipv4\n");
    assert_eq!(about(&told(&ctl), &gives).unwrap().verdict, "fail");
    // After the doctor's commands, in order, no conflict is left.
    ctl.write(VENDOR, "[Match]\nName=*\n[Network]\nDHCP=yes\n");
    for finding in told(&ctl) {
        for line in &finding.fixes {
            let line = line.replace("&& networkctl reload", "");
            let script = format!("cd {}; {}", ctl.path("/").display(), line.replace(" /etc/", " etc/"));
            run(node.command("sh").args(["-c", &script])).expect_ok();
        }
    }
    assert_eq!(told(&ctl)[0].verdict, "ok", "{:#?}", told(&ctl));
}

#[test]
fn devices_that_network_manager_leaves_alone_are_not_complained_of() {
    let site = Site::new();
    let ctl = Ctl::new(&site.node);
    ctl.run("install --name vlan136 --master nic0 --subnet 198.51.100.0/24 --slice 198.51.100.16/28")
        .expect_ok();
    let profile = "/etc/NetworkManager/system-connections/wired.nmconnection";
    ctl.write(profile, "[connection]\nid=Wired\ntype=ethernet\n[match]\ninterface-name=nic*;\n");
    let findings = told(&ctl);
    let finding =
        about(&findings, "NetworkManager gives nic0 addresses").unwrap_or_else(|| panic!("{findings:#?}"));
    assert!(
        finding.fixes.iter().any(|line| line.contains("nmcli connection modify 'Wired'")),
        "{findings:#?}"
    );
    ctl.write("/etc/NetworkManager/conf.d/a.conf", "[keyfile]\nunmanaged-devices=interface-name:nic*\n");
    assert_eq!(told(&ctl)[0].verdict, "ok", "{:#?}", told(&ctl));
}

#[test]
fn networkd_that_runs_and_removes_what_others_configured_is_named() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.run("install --name vlan136 --master nic0 --subnet 198.51.100.0/24 --slice 198.51.100.16/28")
        .expect_ok();
    assert_eq!(told(&ctl)[0].verdict, "ok");
    ctl.program("systemd-networkd", "257");
    let _runs = ctl.running("systemd-networkd", "257", "");
    let told = || self::told(&ctl).into_iter().find(|finding| finding.seen.contains("ManageForeignRoutes"));
    let finding = told().expect("the trap is named");
    assert!(finding.fixes[0].contains("ManageForeignRoutes=no"), "{finding:#?}");
    let settings = "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n";
    ctl.write("/etc/systemd/networkd.conf.d/a.conf", settings);
    assert_eq!(told(), None);
}

/// An address that `ip` adds is lost when the program that manages the interface restarts. So doctor also
/// prints the setting for that program.
#[test]
fn the_cure_of_an_address_without_a_way_back_is_in_the_form_of_the_program_that_has_it() {
    let site = Site::new();
    site.give_node_its_own_network();
    let (node, ctl) = (&site.node, Ctl::new(&site.node));
    node.ip("link add nic2 type veth peer name far2\nlink set nic2 up\nlink set far2 up\naddr add 198.51.100.9/24 dev nic2");
    let trap = || {
        let all = ctl.doctor("--no-probe").into_iter();
        let of_nic2 = |finding: &Finding| {
            finding.check == "rp_filter" && finding.seen.starts_with("198.51.100.9 on nic2")
        };
        all.filter(of_nic2).map(|finding| finding.fixes).next().expect("the trap is named")
    };
    let table = 1000 + &node.ip_json("link show dev nic2")[0]["ifindex"].as_u64().unwrap();
    let by_ip = trap();
    assert_eq!(by_ip.len(), 2, "nobody else has it: {by_ip:#?}");
    ctl.write(
        "/etc/systemd/network/50-nic2.network",
        "[Match]\nName=nic2\n[Network]\nAddress=198.51.100.9/24\n",
    );
    let by_networkd = trap();
    assert_eq!(by_networkd[..2], by_ip[..], "{by_networkd:#?}");
    let line = by_networkd[2].strip_suffix(" && networkctl reload").unwrap();
    let script = line.replace(" /etc/", " etc/");
    run(node.command("sh").args(["-c", &format!("cd {} && {script}", ctl.path("/").display())])).expect_ok();
    assert_eq!(
        ctl.read("/etc/systemd/network/50-nic2.network.d/vlan-bridge.conf"),
        format!(
            "[Route]\nGateway=198.51.100.1\nTable={table}\n\n[RoutingPolicyRule]\nFrom=198.51.100.9\nTable={table}\n"
        )
    );
    fs::remove_file(ctl.path("/etc/systemd/network/50-nic2.network")).unwrap();
    let profile = "[connection]\nid=Storage net\ninterface-name=nic2\n[ipv4]\nmethod=manual\naddress1=198.51.100.9/24\n";
    ctl.write("/etc/NetworkManager/system-connections/storage.nmconnection", profile);
    assert_eq!(
        trap()[2],
        format!(
            "nmcli connection modify 'Storage net' +ipv4.routes '0.0.0.0/0 198.51.100.1 table={table}' \
             +ipv4.routing-rules 'priority 100 from 198.51.100.9 table {table}' && nmcli connection up 'Storage net'"
        )
    );
}
