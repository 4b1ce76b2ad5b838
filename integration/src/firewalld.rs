//! firewalld, as Debian packages it, in the network namespace of a node.

use crate::runtime::Host;
use crate::{Namespace, Outcome, poll, programs};
use std::fs;
use std::time::Duration;

/// The time limit of its start.
const LIMIT: Duration = Duration::from_secs(60);

/// A bus that only root uses. firewalld asks no authority whether root may call it.
const BUS: &str = r#"<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy user="root">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// A running firewalld with the configuration of its package. It ends when it is dropped, and its rules stay.
#[derive(Debug)]
pub struct Firewalld {
    host: Host,
}

impl Firewalld {
    /// Starts it and waits until its rules are loaded.
    pub fn start(namespace: &Namespace) -> Firewalld {
        let host = Host::with_packages(namespace, &programs::firewalld());
        host.write("/bus.conf", BUS);
        host.write("/etc/machine-id", "00000000000000000000000000000001\n");
        fs::create_dir_all(host.path("/run/dbus")).expect("the host is writable");
        host.start("dbus", "dbus-daemon --config-file=/bus.conf --nofork --nopidfile");
        let socket = host.path("/run/dbus/system_bus_socket");
        poll(LIMIT, "the bus of firewalld", || socket.exists());
        // Modules belong to the machine: a complete reload would remove them.
        host.start("firewalld", "setpriv --bounding-set=-sys_module firewalld --nofork --nopid");
        let firewalld = Firewalld { host };
        poll(LIMIT, "firewalld", || firewalld.host.run("firewall-cmd --state").ok());
        firewalld
    }

    /// Runs `firewall-cmd`.
    #[track_caller]
    pub fn cmd(&self, line: &str) -> Outcome {
        self.host.run(&format!("firewall-cmd {line}"))
    }
}
