//! A sniffer that keeps VLAN tags.

mod frame;
mod socket;

pub use frame::{Frame, frame_from};

use crate::{Namespace, mac_bytes, poll};
use socket::PacketSocket;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Everything that passes an interface, in both directions, from the moment this value exists.
///
/// A sniffer that does not work would prove any absence. So this one sends a marker frame through the
/// interface first and waits until it has captured it. It sends another one before frames are read. Frames
/// keep their order, so no frame before the second marker is missing.
#[derive(Debug)]
pub struct Capture {
    sender: PacketSocket,
    interface: String,
    frames: Arc<Mutex<Vec<Frame>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Starts to listen on an interface of a namespace. It must be up.
    #[track_caller]
    pub fn start(namespace: &Namespace, interface: &str) -> Capture {
        let open = || PacketSocket::open(interface);
        let (sender, receiver) = namespace
            .enter(|| Ok::<_, std::io::Error>((open()?, open()?)))
            .unwrap_or_else(|error| panic!("cannot listen on {interface} of {}: {error}", namespace.name()));
        let frames = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, stopped) = (Arc::clone(&frames), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // No frame within the socket's time-out: look whether to stop.
                if let Some(frame) = receiver.receive() {
                    kept.lock().expect("no panic while the lock is held").push(frame);
                }
            }
        });
        let capture = Capture { sender, interface: interface.to_owned(), frames, stop, thread: Some(thread) };
        capture.prove_alive();
        capture
    }

    /// All frames that have passed until now, without our markers.
    #[track_caller]
    pub fn frames(&self) -> Vec<Frame> {
        self.prove_alive();
        let frames = self.frames.lock().expect("no panic while the lock is held");
        frames.iter().filter(|frame| !frame.is_marker()).cloned().collect()
    }

    /// Waits for a frame that `condition` accepts, and returns the first.
    #[track_caller]
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Frame) -> bool) -> Frame {
        let mut found = None;
        poll(Duration::from_secs(10), &format!("{what} on {}", self.interface), || {
            let frames = self.frames.lock().expect("no panic while the lock is held");
            found = frames.iter().find(|frame| condition(frame)).cloned();
            found.is_some()
        });
        found.expect("polled for")
    }

    /// Sends a marker and waits until the sniffer has it.
    #[track_caller]
    fn prove_alive(&self) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = COUNT.fetch_add(1, Ordering::Relaxed);
        let marker = frame::marker(mark);
        self.sender
            .send(&marker)
            .unwrap_or_else(|error| panic!("cannot send a marker through {}: {error}", self.interface));
        self.wait_for("our own marker", |frame| {
            frame.is_marker() && frame.payload.starts_with(&mark.to_be_bytes())
        });
    }
}

/// The frame with which a machine announces an address: an ARP request for its own address (RFC 5227 section
/// 2.3).
pub fn arp_announcement(address: Ipv4Addr, mac: &str) -> Vec<u8> {
    let (mac, address) = (mac_bytes(mac), address.octets());
    let parts: [&[u8]; 7] =
        [&[0xff; 6], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &address, &[0; 6], &address];
    parts.concat()
}

impl Namespace {
    /// Sends a frame that a test has made through an interface. It begins with the destination address.
    #[track_caller]
    pub fn send_frame(&self, interface: &str, frame: &[u8]) {
        let sent = self.enter(|| PacketSocket::open(interface)?.send(frame));
        sent.unwrap_or_else(|error| {
            panic!("cannot send a frame through {interface} of {}: {error}", self.name())
        });
    }
}

impl Namespace {
    /// Sends frames again and again, with short pauses, until `is_over`.
    #[track_caller]
    pub fn send_frames_until(&self, interface: &str, frames: &[Vec<u8>], is_over: impl Fn() -> bool + Sync) {
        let sent = self.enter(|| {
            let (socket, mut outcome) = (PacketSocket::open(interface)?, Ok(()));
            poll(Duration::from_secs(60), "the end of the time to send frames", || {
                outcome = frames.iter().try_for_each(|frame| socket.send(frame));
                outcome.is_err() || is_over()
            });
            outcome
        });
        sent.unwrap_or_else(|error| {
            panic!("cannot send frames through {interface} of {}: {error}", self.name())
        });
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
