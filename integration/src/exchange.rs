//! Real exchanges over TCP and UDP. A ping proves little of a path: it counts a reply from the wrong address.

use crate::Namespace;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a client waits for an answer; a lost datagram or connection request is sent once more within it.
const PATIENCE: Duration = Duration::from_millis(2500);
const ATTEMPTS: u32 = 2;
/// How often a server looks whether it is to end.
const BREATH: Duration = Duration::from_millis(50);

/// How two machines talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One echo request: no more than that something answers.
    Ping,
    /// A connection: the client is told whom the server sees.
    Tcp,
    /// A datagram and its answer, from the address that was asked.
    Udp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Ping, Protocol::Tcp, Protocol::Udp];
}

/// A server on one address and port of a namespace, for TCP and UDP, that tells every client whom it sees. It ends when
/// dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts one.
    #[track_caller]
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Server {
        let open = || Ok::<_, std::io::Error>((TcpListener::bind(address)?, UdpSocket::bind(address)?));
        let (listener, socket) = namespace
            .enter(open)
            .unwrap_or_else(|error| panic!("cannot listen on {address} in {}: {error}", namespace.name()));
        socket.set_read_timeout(Some(BREATH)).expect("a time-out can be set");
        // The time-out of a listener is that of its accept(2), but the standard library sets only a stream's.
        let same = TcpStream::from(OwnedFd::from(listener.try_clone().expect("a socket can be cloned")));
        same.set_read_timeout(Some(BREATH)).expect("a time-out can be set");
        let stop = Arc::new(AtomicBool::new(false));
        let (tcp_stop, udp_stop) = (Arc::clone(&stop), Arc::clone(&stop));
        let tcp = std::thread::spawn(move || {
            while !tcp_stop.load(Ordering::Relaxed) {
                if let Ok((mut stream, peer)) = listener.accept() {
                    // The client may be gone already.
                    let _ = stream.write_all(peer.ip().to_string().as_bytes());
                }
            }
        });
        let udp = std::thread::spawn(move || {
            let mut question = [0; 64];
            while !udp_stop.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = socket.recv_from(&mut question) {
                    let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
                }
            }
        });
        Server { stop, threads: vec![tcp, udp] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Namespace {
    /// Asks a [`Server`] whom it sees; none if no answer came from the address that was asked. A ping is answered by the
    /// kernel, which sees nobody: then it is the address that was asked.
    pub fn asks(&self, protocol: Protocol, to: SocketAddr) -> Option<IpAddr> {
        match protocol {
            Protocol::Ping => self.pings(&to.ip().to_string()).then(|| to.ip()),
            Protocol::Tcp => self.enter(|| ask_tcp(to)),
            Protocol::Udp => self.enter(|| ask_udp(to)),
        }
    }
}

fn ask_tcp(to: SocketAddr) -> Option<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.parse().ok()
}

fn ask_udp(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    socket.set_read_timeout(Some(PATIENCE / ATTEMPTS)).ok()?;
    let mut answer = [0; 64];
    for _ in 0..ATTEMPTS {
        socket.send(b"who am I?").ok()?;
        if let Ok(length) = socket.recv(&mut answer) {
            return std::str::from_utf8(&answer[..length]).ok()?.parse().ok();
        }
    }
    None
}
