//! What is heard on a segment: the two ends of a veth pair.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cni_conf::cni::mac::MacAddr;
use tokio::time::timeout;
use vlan_bridge_kernel::announce::FrameAnnouncer;
use vlan_bridge_kernel::listen::{Frame, Heard, Listener, Message};
use vlan_bridge_kernel::probe::{announcement, question, tagged};
use vlan_bridge_kernel::{PacketInterface, PacketSocket};

use crate::{in_namespace, index, ip, run};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

/// What a test says first, again and again.
const HELLO: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A listener at one end, and a socket at the other.
async fn segment() -> (Listener, PacketSocket) {
    // Without IPv6 addresses nobody speaks but the test.
    ip("link add name a type veth peer name b\nlink set dev a addrgenmode none up\n\
        link set dev b addrgenmode none up");
    let (mut listener, there) = (Listener::open(index("a")).unwrap(), socket("b"));
    settle(&mut listener, &socket("a"), true).await;
    settle(&mut listener, &there, false).await;
    (listener, there)
}

/// The kernel drops frames until it has noticed that a link is up.
async fn settle(listener: &mut Listener, from: &PacketSocket, own: bool) {
    const PATIENCE: Duration = Duration::from_millis(10);
    loop {
        let _ = from.send(&announcement(HELLO, MAC));
        while let Ok(heard) = timeout(PATIENCE, listener.next()).await {
            if matches!(heard.unwrap(), Heard::Frame(frame) if frame.own == own) {
                return;
            }
        }
    }
}

fn socket(name: &str) -> PacketSocket {
    PacketSocket::open(PacketInterface::find(name).unwrap().unwrap(), 0).unwrap()
}

async fn heard(listener: &mut Listener) -> Frame {
    loop {
        match listener.next().await.unwrap() {
            Heard::Frame(frame) if frame.message == announced(HELLO) => {}
            Heard::Frame(frame) => return frame,
            Heard::Down => panic!("the link is up"),
        }
    }
}

fn frame(message: Message, own: bool, vlan: Option<u16>) -> Frame {
    Frame { own, vlan, from: MAC, message }
}

fn announced(address: IpAddr) -> Message {
    match address {
        IpAddr::V4(address) => {
            Message::Arp { request: true, mac: MAC, sender: address, target: address, probe: false }
        }
        IpAddr::V6(address) => Message::Advertisement { mac: MAC, address },
    }
}

#[test]
fn announcements_of_any_mac_are_heard_with_their_vlan() {
    in_namespace(|| async {
        let (mut listener, _) = segment().await;
        let [there, here] =
            ["b", "a"].map(|end| FrameAnnouncer::open(PacketInterface::find(end).unwrap().unwrap()).unwrap());
        for address in ["10.0.0.5", "2001:db8::5"] {
            let address = address.parse().unwrap();
            for tag in [None, Some(100)] {
                there.announce(MAC, address, tag).unwrap();
                assert_eq!(heard(&mut listener).await, frame(announced(address), false, tag));
                here.announce(MAC, address, tag).unwrap();
                assert_eq!(heard(&mut listener).await, frame(announced(address), true, tag));
            }
        }
    });
}

#[test]
fn other_and_malformed_frames_are_not_heard() {
    in_namespace(|| async {
        let (mut listener, there) = segment().await;
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.5".parse().unwrap(), "2001:db8::5".parse().unwrap());
        let mut echo = announcement(v6, MAC);
        echo[54] = 128;
        there.send(&echo).unwrap();
        there.send(&question(v4, MAC)[..30]).unwrap();
        there.send(&tagged(announcement(v6, MAC)[..60].to_vec(), Some(100))).unwrap();
        there.send(&question(v6, MAC)).unwrap();
        let IpAddr::V6(target) = v6 else { panic!("{v6}") };
        let expected = Message::Solicitation { mac: MAC, sender: None, target };
        assert_eq!(heard(&mut listener).await, frame(expected, false, None));
        assert_eq!(listener.dropped().unwrap(), 0);
    });
}

#[test]
fn what_overflows_is_counted() {
    in_namespace(|| async {
        let (mut listener, there) = segment().await;
        let noise = announcement("10.0.0.5".parse().unwrap(), MAC);
        let mut sent = 0;
        while listener.dropped().unwrap() < 10 {
            there.send(&noise).unwrap();
            sent += 1;
        }
        let before = listener.dropped().unwrap();
        assert!(sent > 50 && before >= 10, "{sent} {before}");
        heard(&mut listener).await;
        assert_eq!(listener.dropped().unwrap(), before, "the sum stays");
    });
}

#[test]
fn a_link_that_goes_down_is_a_gap() {
    in_namespace(|| async {
        let (mut listener, there) = segment().await;
        run("ip link set dev a down");
        assert_eq!(listener.next().await.unwrap(), Heard::Down);
        run("ip link set dev a up");
        settle(&mut listener, &there, false).await;
        let address = "10.0.0.5".parse().unwrap();
        there.send(&announcement(address, MAC)).unwrap();
        assert_eq!(heard(&mut listener).await, frame(announced(address), false, None));
        run("ip link del dev a");
        assert_eq!(listener.next().await.unwrap(), Heard::Down);
    });
}

#[test]
fn there_is_no_listener_on_every_interface_or_on_none() {
    in_namespace(|| async {
        assert_eq!(Listener::open(0).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert_eq!(Listener::open(4711).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    });
}
