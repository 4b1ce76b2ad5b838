//! Finds the MACs that answer for an address on a network: sends the probes of an ADD and collects every
//! answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cni_conf::cni::mac::MacAddr;

use crate::probe::{ARP, Claim, IPV6, Stance, claim, ethertype, question, tagged};
use crate::{PacketInterface, PacketSocket, wait};

/// The number of probes for each address. The time from one probe to the next follows.
const ROUNDS: u32 = 3;
const INTERVAL: Duration = Duration::from_millis(150);
/// Longer than any frame that claims an address.
const FRAME: usize = 256;

/// The MACs that claimed each address.
pub type Answers = BTreeMap<IpAddr, BTreeSet<MacAddr>>;

/// The interface, and the tag if there is one, by which the node reaches a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vantage {
    /// An interface on the network, or the master that reaches the network with a tag.
    pub interface: String,
    /// The VLAN tag of the probes. The kernel removes it from the answers.
    pub tag: Option<u16>,
}

/// Probes for every address without a sender address, and collects every answer for half a second. None if
/// the interface does not exist.
pub fn ask(from: &Vantage, addrs: &[IpAddr]) -> io::Result<Option<Answers>> {
    ask_until(from, addrs, |_| false)
}

/// Like [`ask`], but returns as soon as `is_enough` is true.
pub fn ask_until(
    from: &Vantage,
    addrs: &[IpAddr],
    is_enough: impl Fn(&Answers) -> bool,
) -> io::Result<Option<Answers>> {
    let Some(interface) = PacketInterface::find(&from.interface)? else { return Ok(None) };
    let sockets = open(interface)?;
    exchange(&sockets, from, interface.mac, addrs, is_enough).map(Some)
}

/// Like [`ask`], but returns as soon as every address has an answer. The probes come from a MAC other than
/// the interface's, as those of pods behind it do. The interface is promiscuous meanwhile, like the port of a
/// bridge.
pub fn ask_from_another_mac(from: &Vantage, addrs: &[IpAddr]) -> io::Result<Option<Answers>> {
    let Some(interface) = PacketInterface::find(&from.interface)? else { return Ok(None) };
    let sockets = open(interface)?;
    sockets.iter().try_for_each(|socket| socket.set_promiscuous(interface))?;
    let all_answer = |answers: &Answers| answers.len() == addrs.len();
    exchange(&sockets, from, another(interface.mac), addrs, all_answer).map(Some)
}

/// A locally administered MAC, derived from the interface's MAC. It is always the same, so a switch learns
/// only one more MAC.
fn another(mac: MacAddr) -> MacAddr {
    const LOCAL: u8 = 2;
    const DIFFERS: u8 = 4;
    let [first, rest @ ..] = mac.0;
    let [b, c, d, e, f] = rest;
    MacAddr([(first ^ DIFFERS) | LOCAL, b, c, d, e, f])
}

fn open(interface: PacketInterface) -> io::Result<[PacketSocket; 2]> {
    Ok([PacketSocket::open(interface, ARP)?, PacketSocket::open(interface, IPV6)?])
}

fn exchange(
    sockets: &[PacketSocket; 2],
    from: &Vantage,
    own: MacAddr,
    addrs: &[IpAddr],
    is_enough: impl Fn(&Answers) -> bool,
) -> io::Result<Answers> {
    let mut answers = Answers::new();
    for _ in 0..ROUNDS {
        for addr in addrs {
            let frame = tagged(question(*addr, own), from.tag);
            sockets[usize::from(ethertype(*addr) != ARP)].send(&frame)?;
        }
        let until = Instant::now() + INTERVAL;
        loop {
            let mut buffer = [0; FRAME];
            for socket in sockets {
                while let Some(frame) = socket.receive(&mut buffer)? {
                    let answer = claim(frame, own)
                        .filter(|claim| claim.stance == Stance::Uses && addrs.contains(&claim.addr));
                    if let Some(Claim { addr, mac, .. }) = answer {
                        answers.entry(addr).or_default().insert(mac);
                    }
                }
            }
            if is_enough(&answers) {
                return Ok(answers);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wait(sockets.iter(), left)?;
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mac_is_local_unicast_and_not_the_interfaces() {
        for (own, expected) in
            [([0x00, 1, 2, 3, 4, 5], 0x06), ([0x52, 1, 2, 3, 4, 5], 0x56), ([0x06, 1, 2, 3, 4, 5], 0x02)]
        {
            assert_eq!(another(MacAddr(own)), MacAddr([expected, 1, 2, 3, 4, 5]));
        }
    }
}
