//! Probes for an address on the network before it is assigned (RFC 5227, with shorter times, because a pod's
//! start waits for it).
//!
//! A burst of ADDs waits only once. The ADD that holds the probing lock probes the next addresses along with
//! its own, and the ADDs that wait meanwhile use its verdicts. The store is not locked during the wait for
//! the network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::detection::Detection;
use cni_conf::ipam::IpamConfig;
use kernel::probe::{claim, ethertype, question};
use kernel::{PacketInterface, PacketSocket, has_carrier, node_addresses, random, wait};

use heard::HeardClaims;

use crate::store::{Owner, Store, Window};

mod heard;

/// The number of addresses that are probed in one window: a whole /28. In a burst, one of so many ADDs waits
/// for a window of its own.
pub(crate) const BATCH: usize = 16;
/// If all candidates were in use by other machines in so many windows, something is wrong with the network.
const MAX_WINDOWS: u32 = 4;
/// How long to wait for the lock or for verdicts, in addition to the windows of the lock's holder. Fifty
/// simultaneous ADDs keep a slow machine busy for that long.
const EXTRA_WAIT: Duration = Duration::from_secs(60);
/// The number of frames that are read from a socket before the clock is checked again.
const MAX_FRAMES: usize = 64;
/// Longer than any frame that claims an address. Other frames are truncated.
const FRAME: usize = 256;

/// The probing of one ADD.
#[derive(Debug)]
pub(crate) struct Detector<'a> {
    config: &'a IpamConfig,
    network: &'a str,
    settings: &'a Detection,
    interface: PacketInterface,
    /// The probing lock, held from the first address on that has not been probed.
    turn: Option<File>,
    /// The sockets with their EtherTypes. They stay open until the end, because the ADDs that wait for the
    /// lock should not wait for the slow close.
    sockets: Vec<(u16, PacketSocket)>,
    windows: u32,
    /// A conflict of the last window.
    last_conflict: Option<(IpAddr, MacAddr)>,
    /// Addresses that other machines have probed for during this ADD.
    contested: BTreeSet<IpAddr>,
    has_warned: bool,
}

impl Detector<'_> {
    /// `None` if the configuration switches detection off, or if no machine could answer.
    ///
    /// # Errors
    /// The interface in the configuration does not exist.
    pub(crate) fn prepare<'a>(
        config: &'a IpamConfig,
        network: &'a str,
    ) -> Result<Option<Detector<'a>>, CniError> {
        let Some(settings) = &config.detection else { return Ok(None) };
        let failed = |error: io::Error| failure(settings, &error);
        if let Some(uplink) = &settings.uplink
            && has_carrier(uplink).map_err(failed)? != Some(true)
        {
            log::warn!(
                "{uplink} has no carrier, so no machine could answer a probe: addresses are assigned without probes"
            );
            return Ok(None);
        }
        let Some(interface) = PacketInterface::find(&settings.interface).map_err(failed)? else {
            let msg = format!("there is no interface {} to probe from", settings.interface);
            if settings.asked_for {
                return Err(CniError::config(format!("ipam.conflictDetection: {msg}")));
            }
            log::warn!("{msg}: addresses are assigned without probes");
            return Ok(None);
        };
        let sockets = Vec::new();
        Ok(Some(Detector {
            config,
            network,
            settings,
            interface,
            turn: None,
            sockets,
            windows: 0,
            last_conflict: None,
            contested: BTreeSet::new(),
            has_warned: false,
        }))
    }

    /// Waits for the lock or for another ADD's verdicts. With the lock, probes and records the verdicts. In
    /// both cases the caller must check the store again.
    ///
    /// # Errors
    /// A failure of the sockets, the lock or the store, and too many conflicts.
    pub(crate) fn probe_or_wait(&mut self, owner: &Owner, batch: &[IpAddr]) -> Result<(), CniError> {
        if self.turn.is_none() {
            let longest = EXTRA_WAIT + self.settings.interval * self.settings.count * MAX_WINDOWS;
            self.turn = Store::lock_probing(&self.config.data_dir, self.network, longest)?;
            return Ok(());
        }
        self.probe_window(owner, batch)
    }

    /// Lets another ADD probe, before a wait for something else.
    pub(crate) fn give_way(&mut self) {
        self.turn = None;
    }

    /// Probes if no other process does. Returns whether it has probed.
    ///
    /// # Errors
    /// A failure of the sockets, the lock or the store.
    pub(crate) fn probe_if_free(&mut self, owner: &Owner, batch: &[IpAddr]) -> Result<bool, CniError> {
        self.turn = Store::try_lock_probing(&self.config.data_dir, self.network)?;
        let is_free = self.turn.is_some();
        if is_free {
            self.probe_window(owner, batch)?;
        }
        Ok(is_free)
    }

    fn probe_window(&mut self, owner: &Owner, batch: &[IpAddr]) -> Result<(), CniError> {
        if self.windows == MAX_WINDOWS {
            return Err(self.gave_up_error());
        }
        let heard = self.probe(batch).map_err(|error| failure(self.settings, &error))?;
        let contested = self.contested_by(&heard);
        let probed: Vec<IpAddr> = batch.iter().copied().filter(|addr| !contested.contains(addr)).collect();
        let window =
            Window { probed: &probed, conflicts: heard.uses(), quarantine: self.settings.quarantine };
        let mut store = Store::create(&self.config.data_dir, self.network)?;
        let noted = store.note_window(owner, &window);
        store.finish();
        noted?;
        self.windows += 1;
        self.last_conflict = heard.uses().iter().next().map(|(addr, mac)| (*addr, *mac));
        self.contested.extend(contested);
        Ok(())
    }

    /// The addresses that other machines probe for. After the first window with such probes, only MACs that
    /// probe for few addresses count, see [`heard`].
    fn contested_by(&mut self, heard: &HeardClaims) -> BTreeSet<IpAddr> {
        let serious_only = !self.contested.is_empty();
        if let Some(mac) = heard.ignored_prober().filter(|_| serious_only && !self.has_warned) {
            self.has_warned = true;
            log::warn!(
                "{mac} probes for many addresses on {}: its probes do not count",
                self.settings.interface
            );
        }
        heard.contested(serious_only)
    }

    /// Whether another machine has probed for the address during this ADD.
    pub(crate) fn is_contested(&self, addr: IpAddr) -> bool {
        self.contested.contains(&addr)
    }

    /// Whether other machines probe at the same time. Then each ADD probes for a single address.
    pub(crate) fn has_rivals(&self) -> bool {
        !self.contested.is_empty()
    }

    /// A random one of these addresses, so that two machines with the same candidates pick different ones.
    /// None if there are none, or if the kernel has no random bytes.
    pub(crate) fn random_of(addrs: &[IpAddr]) -> Option<IpAddr> {
        let index = u64::from_ne_bytes(random().ok()?).checked_rem(addrs.len() as u64)?;
        addrs.get(usize::try_from(index).ok()?).copied()
    }

    fn gave_up_error(&self) -> CniError {
        let on = &self.settings.interface;
        let msg = match self.last_conflict {
            Some((addr, mac)) => format!(
                "other machines use every address that was probed on {on}, for example {mac} uses {addr}: \
                 does a router there answer for all addresses (proxy ARP)?"
            ),
            None if self.has_rivals() => {
                format!("other machines keep probing for the same addresses on {on}")
            }
            None => format!("other pods took every address that was probed on {on}"),
        };
        CniError::new(code::TRY_AGAIN_LATER, msg)
    }

    /// Whether this ADD has probed the network itself.
    pub(crate) fn has_probed(&self) -> bool {
        self.windows > 0
    }

    /// One window: sends all probes of all addresses and collects the claims to them.
    fn probe(&mut self, batch: &[IpAddr]) -> io::Result<HeardClaims> {
        let (own, interval) = (self.interface.mac, self.settings.interval);
        for addr in batch {
            let wanted = ethertype(*addr);
            if !self.sockets.iter().any(|(known, _)| *known == wanted) {
                self.sockets.push((wanted, PacketSocket::open(self.interface, wanted)?));
            }
        }
        // The node does not receive its own probes.
        let of_the_node = node_addresses()?;
        let used: BTreeMap<IpAddr, MacAddr> =
            batch.iter().filter(|addr| of_the_node.contains(addr)).map(|addr| (*addr, own)).collect();
        let mut heard = HeardClaims::of_uses(used);
        let start = Instant::now();
        for round in 0..self.settings.count {
            let begin = start + interval * round;
            self.listen(begin + jitter(interval / 2)?, batch, &mut heard)?;
            for addr in batch {
                let heard_by = self.sockets.iter().filter(|(known, _)| *known == ethertype(*addr));
                for (_, socket) in heard_by {
                    socket.send(&question(*addr, own))?;
                }
            }
        }
        self.listen(start + interval * self.settings.count, batch, &mut heard)?;
        Ok(heard)
    }

    /// Collects claims until `until`.
    fn listen(&self, until: Instant, batch: &[IpAddr], heard: &mut HeardClaims) -> io::Result<()> {
        let mut buffer = [0; FRAME];
        loop {
            for (_, socket) in &self.sockets {
                // Limited, because frames may arrive faster than they are read.
                for _ in 0..MAX_FRAMES {
                    let Some(frame) = socket.receive(&mut buffer)? else { break };
                    if let Some(claim) = claim(frame, self.interface.mac) {
                        heard.note(claim, batch);
                    }
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            wait(self.sockets.iter().map(|(_, socket)| socket), left)?;
        }
    }
}

fn failure(settings: &Detection, error: &io::Error) -> CniError {
    let msg = format!(
        "cannot probe for addresses on {}: {error}; \"conflictDetection\": \"off\" disables the probes",
        settings.interface
    );
    CniError::new(code::IO_FAILURE, msg)
}

/// A random part of a duration, so that machines that start at the same moment do not probe at the same
/// moment.
fn jitter(most: Duration) -> io::Result<Duration> {
    Ok(most.mul_f64(u64::from_ne_bytes(random()?) as f64 / u64::MAX as f64))
}
