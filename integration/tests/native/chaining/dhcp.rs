//! The reference dhcp plugin as IPAM. It uses the pod's interface, which must be up in time.

use integration::{Background, Pod, Site, peer, poll};
use serde_json::json;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

/// A DHCP server at the router, and the plugin's daemon on the node.
struct Dhcp {
    // Dropped before the site.
    _running: [Background; 2],
    site: Site,
}

impl Dhcp {
    fn new() -> Dhcp {
        let site = Site::new();
        let at = |name: &str| site.node.folder().path().join(name);
        let conf = format!(
            "start 172.20.56.40\nend 172.20.56.49\ninterface port\nopt subnet 255.255.255.0\nopt router {}\n\
             opt lease 600\nlease_file {}\npidfile {}\n",
            Site::GATEWAY,
            at("leases.udhcpd").display(),
            at("pid").display()
        );
        fs::write(at("leases.udhcpd"), "").unwrap();
        fs::write(at("udhcpd.conf"), conf).unwrap();
        let mut server = site.router.command("busybox");
        server.args(["udhcpd", "-f"]).arg(at("udhcpd.conf"));
        let mut daemon = site.node.command(peer("dhcp"));
        daemon.args(["daemon", "-socketpath"]).arg(at("dhcp.sock"));
        let running = [&mut server, &mut daemon].map(|command| {
            Background::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
        });
        let (socket, pid) = (at("dhcp.sock"), at("pid"));
        poll(Duration::from_secs(10), "server and daemon", || socket.exists() && pid.exists());
        Dhcp { _running: running, site }
    }
}

#[test]
fn addresses_come_from_a_dhcp_server() {
    let dhcp = Dhcp::new();
    let mut conf = dhcp.site.conf();
    conf["ipam"] =
        json!({"type": "dhcp", "daemonSocketPath": dhcp.site.node.folder().path().join("dhcp.sock")});
    let client = dhcp.site.node.client(&dhcp.site.node.list("dhcp", &[conf]));
    for pod in [Pod::new(), Pod::new()] {
        let result = client.add(&pod.eth0()).result();
        let address = result.cidr();
        assert!(address.starts_with("172.20.56.4") && address.ends_with("/24"), "{address}");
        assert_eq!(result.ips[0].gateway, Site::GATEWAY.parse().ok());
        client.check(&pod.eth0()).expect_ok();
        pod.wait_for(Site::GATEWAY);
        client.del(&pod.eth0()).expect_ok();
        assert!(!pod.has_link("eth0"));
    }
}
