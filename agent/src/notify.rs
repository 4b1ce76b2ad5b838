//! Tells the service manager that the agent works (sd_notify(3), `Type=notify` and `WatchdogSec=` of
//! systemd.service(5)). Without a service manager, nothing is sent.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service manager's socket, and how often it wants to hear from the agent.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// Half of the time after which the manager kills the agent.
    interval: Option<Duration>,
    /// When the next sign of life is due: none before the first pass.
    due: Option<Instant>,
    is_ready: bool,
}

impl Notifier {
    /// The notifier of this process.
    pub(crate) fn from_environment() -> io::Result<Notifier> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Notifier::default());
        };
        let manager = Some((UnixDatagram::unbound()?, address(&name)?));
        let interval = interval(std::env::var_os("WATCHDOG_USEC"), std::env::var_os("WATCHDOG_PID"));
        Ok(Notifier { manager, interval, due: None, is_ready: false })
    }

    /// A pass over the node has ended.
    pub(crate) fn looked(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_ready, true) {
            return Ok(());
        }
        self.due = self.interval.map(|interval| Instant::now() + interval);
        self.send("READY=1")
    }

    /// The agent ends.
    pub(crate) fn ends(&self) -> io::Result<()> {
        self.send("STOPPING=1")
    }

    /// Waits until a sign of life is due.
    pub(crate) async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Whether a sign of life is due.
    pub(crate) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Begins the time to the next sign of life, and sends one if `works`.
    pub(crate) fn keep_alive(&mut self, works: bool) -> io::Result<()> {
        self.due = self.interval.map(|interval| Instant::now() + interval);
        if works { self.send("WATCHDOG=1") } else { Ok(()) }
    }

    fn send(&self, text: &str) -> io::Result<()> {
        let Some((socket, manager)) = &self.manager else { return Ok(()) };
        socket.send_to_addr(text.as_bytes(), manager).map(drop)
    }
}

/// The address of a socket: a path, or a name of the abstract namespace after `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// Half of the watchdog's time, if it is meant for this process.
fn interval(time: Option<OsString>, process: Option<OsString>) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    if process.is_some_and(|process| number(process) != Some(std::process::id().into())) {
        return None;
    }
    time.and_then(number).filter(|time| *time > 0).map(|time| Duration::from_micros(time) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_by_either_kind_of_socket() {
        let process = std::process::id();
        let path = std::env::temp_dir().join(format!("agent-notify-{process}"));
        let _ = std::fs::remove_file(&path);
        for name in [path.clone().into_os_string(), format!("@agent-notify-{process}").into()] {
            let address = address(&name).unwrap();
            let manager = UnixDatagram::bind_addr(&address).unwrap();
            manager.set_nonblocking(true).unwrap();
            let read = || {
                let mut text = [0; 64];
                manager.recv(&mut text).map(|length| String::from_utf8_lossy(&text[..length]).into_owned())
            };
            let socket = UnixDatagram::unbound().unwrap();
            let interval = Some(Duration::ZERO);
            let mut notifier = Notifier { manager: Some((socket, address)), interval, ..Notifier::default() };
            assert!(!notifier.is_due());
            notifier.looked().unwrap();
            notifier.looked().unwrap();
            assert!(notifier.is_due());
            notifier.keep_alive(false).unwrap();
            notifier.keep_alive(true).unwrap();
            notifier.ends().unwrap();
            assert_eq!([(); 3].map(|()| read().unwrap()), ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
            read().unwrap_err();
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_watchdog_of_another_process_is_ignored() {
        let text = |text: &str| Some(OsString::from(text));
        let own = std::process::id().to_string();
        assert_eq!(interval(text("3000000"), None), Some(Duration::from_millis(1500)));
        assert_eq!(interval(text("3000000"), text(&own)), Some(Duration::from_millis(1500)));
        for (time, process) in
            [(text("3000000"), text("1")), (text("0"), None), (text("x"), None), (None, None)]
        {
            assert_eq!(interval(time, process), None);
        }
    }
}
