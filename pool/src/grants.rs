//! The grants of one network: which addresses its pods may get. The agent writes them, the IPAM plugin reads
//! them at every ADD.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::block::{BlockKey, SIZE, VERSION};
use crate::name::Name;
use crate::rules::{Rule, Rules};
use crate::runs::Runs;
use crate::value::{self, Object, Unreadable, wrong};

/// Beyond the first 2^20 addresses of a range nothing is given unasked. These lie in so many blocks.
const MOST_BLOCKS: usize = (1 << 20) / SIZE as usize;

/// What the pool granted to one network of this node. The file is synced to the disk before anything in the
/// store depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grants {
    /// The pool.
    pub pool: Name,
    /// The pool's identity, which another pool made later under the same name does not have.
    pub pool_id: String,
    /// The node's name in the pool.
    pub node: Name,
    /// The network.
    pub network: Name,
    /// The epoch of the node's register under which the grants are held.
    pub epoch: u32,
    /// The last [`Document::restored`] after which the grants and the store were made to agree.
    ///
    /// [`Document::restored`]: crate::document::Document::restored
    pub restored: u32,
    /// Goes up with each write of this file.
    pub generation: u64,
    /// Home addresses, which pods get whether or not the grants are confirmed.
    pub home: Runs,
    /// Addresses that pods get only while the grants are confirmed.
    pub leased: Runs,
    /// Those of `leased` that pods get only after a silent probe.
    pub unproven: Runs,
    /// The blocks in which the store may name this holder. A claim is sent only after its block stands here,
    /// so an agent that was killed finds what it claimed.
    pub blocks: BTreeSet<BlockKey>,
}

/// The store's word that the grants hold. It names its boot, so no boot begins with one that holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Confirmation {
    /// The epoch that the register had.
    pub epoch: u32,
    /// The boot in which the question was sent.
    pub boot: String,
    /// When the question was sent, since the boot began.
    pub sent_at: Duration,
    /// When the question was sent, since 1970.
    pub sent_at_clock: Duration,
    /// How long leased addresses are given to new pods without another confirmation. None: without end.
    pub give_for: Option<Duration>,
}

/// The key of the checksum.
const CHECK: &str = "check";

/// The checksum of a file: CRC-32 of all its other keys, in the order of their names.
fn check(object: &Map<String, Value>) -> String {
    let rest: BTreeMap<_, _> = object.iter().filter(|(key, _)| *key != CHECK).collect();
    let mut crc = crc32fast::Hasher::new();
    rest.into_iter().for_each(|(key, value)| crc.update(format!("{key}:{value}\n").as_bytes()));
    format!("{:08x}", crc.finalize())
}

/// A moment on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Moment {
    /// The boot's identity.
    pub boot: String,
    /// Time since the boot began, including sleep (`CLOCK_BOOTTIME`).
    pub uptime: Duration,
    /// Time since 1970 by the machine's clock.
    pub clock: Duration,
}

/// Whether a pod may get an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Give,
    /// After a probe that nobody answered, whatever `conflictDetection` says.
    GiveIfSilent,
    /// No: it is not granted.
    NotGranted,
    /// No: the store has not confirmed the grants, or too long ago.
    Unconfirmed,
}

impl Grants {
    /// Reads the file.
    ///
    /// # Errors
    /// Anything that [`Grants::to_json`] does not write, apart from spaces and unknown keys, which the
    /// checksum covers too.
    pub fn parse(bytes: &[u8]) -> Result<Grants, Unreadable> {
        value::parse(bytes, |value| {
            let grants = Grants::from_object(Object::of(value)?)?;
            let right = value.as_object().map(check).unwrap_or_default();
            let found = value.get(CHECK);
            if found.and_then(Value::as_str) != Some(&right) {
                let found = found.map_or("nothing".into(), value::shown);
                return Err(Unreadable::Check { found, right });
            }
            Ok(grants)
        })
    }

    fn from_object(object: Object<'_>) -> Result<Grants, Unreadable> {
        let first_of_block = |first: &str| BlockKey::starting_at(first.parse().ok()?);
        let grants = Grants {
            pool: object.name("pool")?,
            pool_id: object.identity("id")?,
            node: object.name("node")?,
            network: object.name("network")?,
            epoch: object.epoch(0)?,
            restored: object.maybe_count("restored")?,
            generation: object.count("generation")?,
            home: object.runs("home")?,
            leased: object.runs("leased")?,
            unproven: object.runs("unproven")?,
            blocks: object
                .list("blocks", "the first address of a block of 64", first_of_block)?
                .into_iter()
                .collect(),
        };
        if let Some(addr) = grants.leased.first_common(&grants.home) {
            return Err(wrong("leased", addr, "an address outside home"));
        }
        if let Some(addr) = grants.unproven.without(&grants.leased).first() {
            return Err(wrong("unproven", addr, "an address of leased"));
        }
        Ok(grants)
    }

    /// The file as JSON: `{"v": 1, "generation": 41, "pool": "vlan136", "id": "…", "node": "node-07",
    /// "network": "vlan136", "epoch": 3, "home": ["172.20.56.16-172.20.56.31"], "leased": ["172.20.56.200"],
    /// "unproven": [], "blocks": ["172.20.56.0", "172.20.56.192"], "check": "…"}`.
    pub fn to_json(&self) -> Value {
        let Grants { pool, pool_id, node, network, epoch, restored, generation, .. } = self;
        let Grants { home, leased, unproven, blocks, .. } = self;
        let [home, leased, unproven] = [home, leased, unproven].map(|runs| runs.texts().collect::<Vec<_>>());
        let blocks: Vec<String> = blocks.iter().map(|block| block.first().to_string()).collect();
        let mut value = json!({
            "v": VERSION, "generation": generation, "pool": pool.as_str(), "id": pool_id,
            "node": node.as_str(), "network": network.as_str(), "epoch": epoch,
            "home": home, "leased": leased, "unproven": unproven, "blocks": blocks,
        });
        if *restored > 0 {
            value["restored"] = (*restored).into();
        }
        if let Some(object) = value.as_object_mut() {
            let check = check(object);
            object.insert(CHECK.into(), check.into());
        }
        value
    }

    /// Whether a pod may get the address now. The plugin asks under the network's lock, when it claims the
    /// address, and not only when it chooses one.
    pub fn may_give(&self, addr: IpAddr, confirmation: Option<&Confirmation>, now: &Moment) -> Verdict {
        self.may_give_under(Rules::default(), addr, confirmation, now)
    }

    pub(crate) fn may_give_under(
        &self,
        rules: Rules,
        addr: IpAddr,
        confirmation: Option<&Confirmation>,
        now: &Moment,
    ) -> Verdict {
        if self.home.contains(addr) {
            return Verdict::Give;
        }
        if !self.leased.contains(addr) && rules.hold(Rule::LookAtGrants) {
            return Verdict::NotGranted;
        }
        if !confirmation.is_some_and(|confirmation| confirmation.holds(self.epoch, now)) {
            return Verdict::Unconfirmed;
        }
        if self.unproven.contains(addr) && rules.hold(Rule::Probe) {
            Verdict::GiveIfSilent
        } else {
            Verdict::Give
        }
    }

    /// Whether an address is granted, confirmed or not.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.home.contains(addr) || self.leased.contains(addr)
    }

    /// The granted addresses of one block.
    pub fn of_block(&self, block: BlockKey) -> impl Iterator<Item = IpAddr> + '_ {
        block.addresses().filter(|addr| self.contains(*addr))
    }

    /// The blocks in which something is granted, and those in which the store may name this holder. A file
    /// that this crate wrote names all of them. The number is bounded for files by others.
    pub(crate) fn all_blocks(&self) -> BTreeSet<BlockKey> {
        let of_run = |(first, last): (IpAddr, IpAddr)| {
            let next = move |block: &BlockKey| {
                Some(*block).filter(|block| block.addresses().all(|addr| addr < last))?.next()
            };
            std::iter::successors(Some(BlockKey::of(first)), next).take(MOST_BLOCKS)
        };
        let granted = self.home.iter_runs().chain(self.leased.iter_runs()).flat_map(of_run);
        self.blocks.iter().copied().chain(granted).collect()
    }

    /// Takes an address out.
    pub(crate) fn remove(&mut self, addr: IpAddr) {
        for runs in [&mut self.home, &mut self.leased, &mut self.unproven] {
            runs.remove(addr);
        }
    }

    /// Whether two files grant the same. The generation tells files apart, not what they grant.
    pub(crate) fn grant_the_same(&self, other: &Grants) -> bool {
        self.generation_set(0) == other.generation_set(0)
    }

    pub(crate) fn generation_set(&self, generation: u64) -> Grants {
        Grants { generation, ..self.clone() }
    }
}

impl Confirmation {
    /// Reads the file.
    ///
    /// # Errors
    /// Anything that [`Confirmation::to_json`] does not write, apart from spaces and unknown keys.
    pub fn parse(bytes: &[u8]) -> Result<Confirmation, Unreadable> {
        value::parse(bytes, |value| {
            let object = Object::of(value)?;
            Ok(Confirmation {
                epoch: object.epoch(1)?,
                boot: object.boot()?,
                sent_at: object.milliseconds("sentAt")?,
                sent_at_clock: object.milliseconds("sentAtClock")?,
                give_for: object.maybe_seconds("giveFor", 1)?,
            })
        })
    }

    /// The file as JSON: `{"v": 1, "epoch": 3, "boot": "…", "sentAt": 100000, "sentAtClock": 1796000000000,
    /// "giveFor": 1800}`. Parts of a millisecond are dropped: it then ends earlier, never later.
    pub fn to_json(&self) -> Value {
        let Confirmation { epoch, boot, sent_at, sent_at_clock, give_for } = self;
        let milliseconds = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut value = json!({
            "v": VERSION, "epoch": epoch, "boot": boot,
            "sentAt": milliseconds(sent_at), "sentAtClock": milliseconds(sent_at_clock),
        });
        if let Some(give_for) = give_for {
            value["giveFor"] = give_for.as_secs().into();
        }
        value
    }

    /// Whether the grants of this epoch are confirmed now. The time that passed is the longer by either
    /// clock: a machine that was suspended or restored may have the one or the other wrong.
    pub fn holds(&self, epoch: u32, now: &Moment) -> bool {
        let passed = now.uptime.checked_sub(self.sent_at);
        let by_clock = now.clock.saturating_sub(self.sent_at_clock);
        let in_time = |passed: Duration| self.give_for.is_none_or(|most| passed.max(by_clock) < most);
        self.epoch == epoch && self.boot == now.boot && passed.is_some_and(in_time)
    }
}

#[cfg(test)]
mod tests;
