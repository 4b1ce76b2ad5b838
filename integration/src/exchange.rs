//! Real exchanges over TCP, UDP and SCTP. A ping does not prove a path with address translation, because it
//! accepts an answer from a wrong address.

mod sctp;

pub use sctp::has_sctp;

use crate::Namespace;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Parses an IP address.
#[track_caller]
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

/// Parses an IP address and adds a port.
#[track_caller]
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP. Not every kernel has it.
    Sctp,
}

impl Transport {
    /// The protocols that every kernel has.
    pub const ALL: [Transport; 2] = [Transport::Tcp, Transport::Udp];

    /// The value of `protocol` in a port mapping.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
        }
    }
}

/// A transport protocol, or a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One echo request. The kernel's answer does not contain the client's address.
    Ping,
    /// An exchange over TCP.
    Tcp,
    /// An exchange over UDP.
    Udp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Ping, Protocol::Tcp, Protocol::Udp];
}

impl Namespace {
    /// Asks a [`Server`] for the client's address, as [`ask`] does. A ping returns the address that was
    /// asked.
    #[track_caller]
    pub fn asks(&self, protocol: Protocol, to: SocketAddr) -> Option<IpAddr> {
        match protocol {
            Protocol::Ping => self.pings(&to.ip().to_string()).then(|| to.ip()),
            Protocol::Tcp => ask(self, Transport::Tcp, to),
            Protocol::Udp => ask(self, Transport::Udp, to),
        }
    }
}

/// A server that tells every client which address it came from, until it is dropped.
#[derive(Debug)]
pub struct Server {
    socket: Socket,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(Arc<TcpListener>),
    Udp(Arc<UdpSocket>),
    Sctp(Arc<TcpListener>),
}

impl Server {
    /// Listens in a namespace, on all its addresses of both families.
    #[track_caller]
    pub fn start(namespace: &Namespace, transport: Transport, port: u16) -> Server {
        Server::on(namespace, transport, (IpAddr::from([0u16; 8]), port).into())
    }

    /// Listens in a namespace, on one address. UDP answers come from that address, not from the one that the
    /// routes would choose.
    #[track_caller]
    pub fn on(namespace: &Namespace, transport: Transport, address: SocketAddr) -> Server {
        let bound = namespace.enter(|| match transport {
            Transport::Tcp => TcpListener::bind(address).map(|socket| Socket::Tcp(Arc::new(socket))),
            Transport::Udp => UdpSocket::bind(address).map(|socket| Socket::Udp(Arc::new(socket))),
            Transport::Sctp => sctp::bind(address).map(|socket| Socket::Sctp(Arc::new(socket))),
        });
        let socket = bound.unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
        let over = Arc::new(AtomicBool::new(false));
        let thread = match &socket {
            Socket::Tcp(socket) => serve_tcp(socket.clone(), over.clone()),
            Socket::Udp(socket) => serve_udp(socket.clone(), over.clone()),
            Socket::Sctp(socket) => serve_sctp(socket.clone(), over.clone()),
        };
        Server { socket, over, thread: Some(thread) }
    }

    fn fd(&self) -> RawFd {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_raw_fd(),
            Socket::Udp(socket) => socket.as_raw_fd(),
            Socket::Sctp(socket) => socket.as_raw_fd(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // SAFETY: a system call on a socket that is open; it wakes the thread that waits on it.
        unsafe { libc::shutdown(self.fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve_tcp(socket: Arc<TcpListener>, over: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            if let Ok((mut stream, peer)) = socket.accept() {
                // The client may have given up.
                let _ = stream.write_all(told(peer).as_bytes());
            }
        }
    })
}

fn serve_udp(socket: Arc<UdpSocket>, over: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut question = [0; 64];
        while !over.load(Ordering::Relaxed) {
            if let Ok((_, peer)) = socket.recv_from(&mut question)
                && !over.load(Ordering::Relaxed)
            {
                let _ = socket.send_to(told(peer).as_bytes(), peer);
            }
        }
    })
}

/// As over TCP, but it waits for a request.
fn serve_sctp(socket: Arc<TcpListener>, over: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            let Ok((mut stream, peer)) = socket.accept() else { continue };
            let mut question = [0; QUESTION.len()];
            let asked =
                stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.read_exact(&mut question));
            if asked.is_ok() && question == QUESTION {
                // The client may have given up.
                let _ = stream.write_all(told(peer).as_bytes());
            }
        }
    })
}

fn told(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}

/// The request, for protocols in which the client begins.
const QUESTION: [u8; 8] = *b"my addr?";

/// The time limit of an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks a server from within a namespace, and returns the address that it saw. None if no answer comes, or if
/// it comes from another address.
pub fn ask(from: &Namespace, transport: Transport, to: SocketAddr) -> Option<IpAddr> {
    let answer = from.enter(|| match transport {
        Transport::Tcp => ask_tcp(to),
        Transport::Udp => ask_udp(to),
        Transport::Sctp => ask_sctp(to),
    });
    match answer {
        Ok(text) => Some(text.parse().unwrap_or_else(|_| panic!("{to} answered {text:?}"))),
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::InvalidInput, "{error}");
            None
        }
    }
}

fn ask_tcp(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ask_sctp(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = sctp::connect(to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&QUESTION)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ask_udp(to: SocketAddr) -> std::io::Result<String> {
    let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0u16; 8]) };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // A connected socket accepts answers only from its peer.
    socket.connect(to)?;
    socket.send(&QUESTION)?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
