//! Looks for an address on the network before it is given (RFC 5227, in the time that the start of a pod
//! has).
//!
//! The wait is paid once for a burst: who has the turn probes the addresses that come next along with its
//! own, and those who wait meanwhile find the verdict. The store is not locked while the network is waited
//! for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::detection::Detection;
use cni_conf::ipam::IpamConfig;
use kernel::probe::{claim, ethertype, question};
use kernel::{Interface, PacketSocket, has_carrier, node_addresses, wait};

use heard::Heard;

use crate::store::{Owner, Store, Window};

mod heard;

/// So many addresses are probed in one window: a whole /28. Of a burst, one ADD in so many waits for a window
/// of its own.
pub(crate) const BATCH: usize = 16;
/// After so many windows in which every address that could be given was somebody else's, something is wrong
/// with the network.
const MOST_WINDOWS: u32 = 4;
/// How long to wait for the turn without hearing of a verdict, beyond what its holder's windows may take:
/// fifty ADDs at once keep a slow machine busy for that long.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many frames of a socket are read before the clock is looked at again.
const AT_ONCE: usize = 64;
/// Longer than any frame that says something about an address; of others the beginning is enough.
const FRAME: usize = 256;

/// One ADD's probing.
#[derive(Debug)]
pub(crate) struct Detector<'a> {
    config: &'a IpamConfig,
    network: &'a str,
    settings: &'a Detection,
    interface: Interface,
    /// Whose turn it is to probe: held from the first address on that nobody has looked for.
    turn: Option<File>,
    /// By their EtherTypes. Open until the end: closing them takes longer than anybody should have to wait
    /// who waits for the turn.
    sockets: Vec<(u16, PacketSocket)>,
    windows: u32,
    /// One of the last window's.
    last_conflict: Option<(IpAddr, MacAddr)>,
    /// Addresses that others have asked for while this ADD did.
    contested: BTreeSet<IpAddr>,
    has_named: bool,
}

impl Detector<'_> {
    /// `None` where the configuration switches it off, and where nobody could answer.
    ///
    /// # Errors
    /// The interface that the configuration asks to probe from is not there.
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
                "{uplink} has no carrier, so nobody could say that an address is in use: given unprobed"
            );
            return Ok(None);
        }
        let Some(interface) = Interface::find(&settings.interface).map_err(failed)? else {
            let msg = format!("there is no interface {} to probe from", settings.interface);
            if settings.asked_for {
                return Err(CniError::config(format!("ipam.conflictDetection: {msg}")));
            }
            log::warn!("{msg}: addresses are given unprobed");
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
            has_named: false,
        }))
    }

    /// Waits for the turn or for somebody's verdicts, or, with the turn, probes and notes the verdicts.
    /// Either way the store is to be looked at again.
    ///
    /// # Errors
    /// No sockets, no lock, no store; and too many conflicts.
    pub(crate) fn look(&mut self, owner: &Owner, batch: &[IpAddr]) -> Result<(), CniError> {
        if self.turn.is_none() {
            let longest = PATIENCE + self.settings.interval * self.settings.count * MOST_WINDOWS;
            self.turn = Store::turn_to_probe(&self.config.data_dir, self.network, longest)?;
            return Ok(());
        }
        if self.windows == MOST_WINDOWS {
            return Err(self.gave_up());
        }
        let heard = self.probe(batch).map_err(|error| failure(self.settings, &error))?;
        let contested = self.judge_probes(&heard);
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

    /// The addresses that others ask for. From the second window on that meets any, only those who ask for
    /// few count: see [`heard`].
    fn judge_probes(&mut self, heard: &Heard) -> BTreeSet<IpAddr> {
        let in_earnest = !self.contested.is_empty();
        if let Some(mac) = heard.idle_prober().filter(|_| in_earnest && !self.has_named) {
            self.has_named = true;
            log::warn!(
                "{mac} probes for many addresses on {}: its probes do not count",
                self.settings.interface
            );
        }
        heard.contested(in_earnest)
    }

    /// Whether somebody else has asked for an address while this ADD did.
    pub(crate) fn is_contested(&self, addr: IpAddr) -> bool {
        self.contested.contains(&addr)
    }

    /// Whether others ask for addresses at the same time. Then each looks for one alone.
    pub(crate) fn has_rivals(&self) -> bool {
        !self.contested.is_empty()
    }

    /// One of these by chance: whoever asks for the same ones at the same moment shall take another.
    pub(crate) fn any_of(addrs: &[IpAddr]) -> Option<IpAddr> {
        let index = random().checked_rem(addrs.len() as u64)?;
        addrs.get(usize::try_from(index).ok()?).copied()
    }

    fn gave_up(&self) -> CniError {
        let on = &self.settings.interface;
        let msg = match self.last_conflict {
            Some((addr, mac)) => format!(
                "other machines use every address that was probed on {on}, {addr} is {mac}'s: does a router there answer for others (proxy ARP)?"
            ),
            None if self.has_rivals() => {
                format!("other machines probe for the same addresses on {on} all the time")
            }
            None => format!("every address that was probed on {on} was taken meanwhile"),
        };
        CniError::new(code::TRY_AGAIN_LATER, msg)
    }

    /// Whether this ADD has looked at the network itself.
    pub(crate) fn has_probed(&self) -> bool {
        self.windows > 0
    }

    /// One window: sends every probe of every address, and hears who uses one.
    fn probe(&mut self, batch: &[IpAddr]) -> io::Result<Heard> {
        let (own, interval) = (self.interface.mac, self.settings.interval);
        for addr in batch {
            let wanted = ethertype(*addr);
            if !self.sockets.iter().any(|(known, _)| *known == wanted) {
                self.sockets.push((wanted, PacketSocket::open(self.interface, wanted)?));
            }
        }
        // The node does not hear its own questions.
        let of_the_node = node_addresses()?;
        let used: BTreeMap<IpAddr, MacAddr> =
            batch.iter().filter(|addr| of_the_node.contains(addr)).map(|addr| (*addr, own)).collect();
        let mut heard = Heard::of_uses(used);
        let start = Instant::now();
        for round in 0..self.settings.count {
            let begin = start + interval * round;
            self.listen(begin + jitter(interval / 2), batch, &mut heard)?;
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

    /// Hears what is said until then.
    fn listen(&self, until: Instant, batch: &[IpAddr], heard: &mut Heard) -> io::Result<()> {
        let mut buffer = [0; FRAME];
        loop {
            for (_, socket) in &self.sockets {
                // Not for ever, though frames may come faster than they are read.
                for _ in 0..AT_ONCE {
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
        "cannot probe for addresses on {}: {error}; \"conflictDetection\": \"off\" does without",
        settings.interface
    );
    CniError::new(code::IO_FAILURE, msg)
}

/// A random part of a time: machines that begin at the same moment shall not probe at the same moment.
fn jitter(most: Duration) -> Duration {
    most.mul_f64(random() as f64 / u64::MAX as f64)
}

/// The standard library seeds each process's hash keys from the kernel and changes them with every state.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
