//! Runs the steps with the real binaries, and compares the store with the model.

use super::calls::quickly;
use super::expected::{Known, Lease, Model};
use super::owners::{ADDRESSES, V4, address, lease, names, number, record, sets};
use super::{By, Step, Verb};
use crate::ipam::{Ipam, NETWORK};
use integration::{Background, Outcome, run_killed_at, run_quickly};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

pub(super) struct Rig {
    pub(super) ipam: Ipam,
}

impl Rig {
    pub(super) fn new() -> Rig {
        let range = |subnet: &str, end: usize| json!([{"subnet": subnet, "rangeEnd": address(end)}]);
        let ranges = json!([range("10.1.0.0/24", V4 - 1), range("2001:db8::/64", ADDRESSES - 1)]);
        Rig { ipam: Ipam::new(json!({"ranges": ranges, "statusOnExhaustion": true})) }
    }

    fn boot_file(&self) -> PathBuf {
        self.ipam.node.folder().path().join("boot")
    }

    /// A file in place of the boot ID, so that writing it is a reboot.
    pub(super) fn on_a_machine_of_its_own<T: Send>(&self, work: impl FnOnce(&Rig) -> T + Send) -> T {
        fs::write(self.boot_file(), "0").unwrap();
        self.ipam.node.enter(|| {
            let boot_id = "/proc/sys/kernel/random/boot_id";
            mount(Some(&self.boot_file()), boot_id, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            work(self)
        })
    }

    /// With an empty store.
    pub(super) fn begin(&self) -> Run<'_> {
        let _ = fs::remove_dir_all(self.ipam.node.data_dir());
        let run = Run { rig: self, model: Model::default(), processes: BTreeMap::new() };
        run.write_boot();
        run
    }
}

pub(super) struct Run<'a> {
    pub(super) rig: &'a Rig,
    pub(super) model: Model,
    pub(super) processes: BTreeMap<u8, Background>,
}

/// The context of a failed step.
type Judged = Result<(), String>;

impl<'a> Run<'a> {
    pub(super) fn take(&mut self, step: Step) -> Judged {
        let outcome = match step {
            Step::Add { owner, by: By::Us, ask } => self.add(owner, ask.map(address)),
            Step::Add { owner, by: By::HostLocal, ask } => self.add_by_host_local(owner, ask.map(address)),
            Step::Del { owner, by } => self.del(owner, by),
            Step::Check { owner } => self.check(owner),
            Step::Gc { keep } => self.gc(keep),
            Step::Status => self.status(),
            Step::List => self.list(),
            Step::Reclaim => self.reclaim(),
            Step::Kill { verb, owner, ask, at } => self.kill(verb, owner, ask.map(address), at),
            Step::Restart { owner, ask } => {
                self.del(owner, By::HostLocal).and_then(|()| self.add_by_host_local(owner, ask.map(address)))
            }
            Step::Die { owner } => {
                self.processes.remove(&owner);
                self.model.alive.remove(&owner);
                Ok(())
            }
            Step::Remove { addr } => {
                let _ = fs::remove_file(self.rig.ipam.store().join(address(addr).to_string()));
                self.model.leases.remove(&address(addr));
                Ok(())
            }
            Step::Reboot => {
                self.processes.clear();
                self.model.alive.clear();
                self.model.boot += 1;
                self.write_boot();
                Ok(())
            }
        };
        outcome.and_then(|()| self.compare()).map_err(|why| format!("{why}\nat {step:?}\n{:?}", self.model))
    }

    /// Assigns every free address, then releases all.
    pub(super) fn end(&mut self) -> Judged {
        self.model.look();
        self.model.reclaim();
        let left = self.model.capacity(&sets());
        let mut given = BTreeSet::new();
        for i in 0..=left {
            let call = self.call("ADD", &self.attachment(format!("last{i}"), "eth0", "/none".into(), None));
            let outcome = quickly(&call);
            if i == left {
                expect_code(&outcome, 11)?;
                break;
            }
            for addr in addresses(&outcome)? {
                expect(given.insert(addr) && !self.model.leases.contains_key(&addr), || {
                    format!("{addr} was given twice\n{outcome}")
                })?;
            }
        }
        expect_ok(&quickly(&self.gc_call(0)))?;
        let (leases, records) = (self.rig.ipam.leases(), self.rig.ipam.records());
        expect(leases.is_empty() && records.is_empty(), || format!("GC left {leases:?} {records:?}"))
    }

    fn add(&mut self, owner: u8, ask: Option<IpAddr>) -> Judged {
        let call = self.call_about("ADD", owner, ask);
        let refused = self.model.refuses(owner, ask, &sets());
        let outcome = quickly(&call);
        match refused {
            Some(code) => expect_code(&outcome, code)?,
            None => {
                let given = addresses(&outcome)?;
                expect(given.len() == 2 && ask.is_none_or(|ask| given.contains(&ask)), || {
                    format!("asked for {ask:?}: {outcome}")
                })?;
                self.insert(owner, &given)?;
                let process = self.model.alive.get(&owner).copied();
                let papers = given.iter().map(|addr| self.model.leases[addr].paper).collect();
                self.model.known.insert(owner, Known { boot: self.model.boot, process, papers });
            }
        }
        self.compare_records()
    }

    /// host-local ignores other boots and dead owners. If its ADD fails, it releases all addresses of the
    /// owner.
    fn add_by_host_local(&mut self, owner: u8, ask: Option<IpAddr>) -> Judged {
        let plugin = self.rig.ipam.host_local();
        let (id, ifname) = names(owner);
        let call = plugin.call("ADD", &self.attachment(id, ifname, "/none".into(), ask));
        let before = self.model.held_by(owner);
        let can = before.is_empty()
            && ask.is_none_or(|addr| !self.model.leases.contains_key(&addr))
            && self.model.capacity(&sets()) > 0;
        let outcome = quickly(&call);
        expect(outcome.ok() || !can, || format!("refused\n{outcome}"))?;
        if outcome.ok() {
            return self.insert(owner, &addresses(&outcome)?);
        }
        let left = self.leases()?;
        self.model.leases.retain(|addr, lease| lease.owner != owner || left.contains_key(addr));
        Ok(())
    }

    fn del(&mut self, owner: u8, by: By) -> Judged {
        if by == By::HostLocal {
            let plugin = self.rig.ipam.host_local();
            self.model.leases.retain(|_, lease| lease.owner != owner);
            return expect_ok(&quickly(&plugin.call("DEL", &self.attachment_of("DEL", owner, None))));
        }
        self.model.look();
        self.model.release(owner);
        expect_ok(&quickly(&self.call_about("DEL", owner, None)))?;
        self.compare_records()
    }

    fn check(&mut self, owner: u8) -> Judged {
        self.model.look();
        let outcome = quickly(&self.call_about("CHECK", owner, None));
        if self.model.held_by(owner).is_empty() {
            expect_code(&outcome, 101)?;
        } else {
            expect_ok(&outcome)?;
        }
        self.compare_records()
    }

    fn gc(&mut self, keep: u8) -> Judged {
        self.model.look();
        for owner in (0..super::OWNERS).filter(|owner| keep & 1 << owner == 0) {
            self.model.release(owner);
        }
        expect_ok(&quickly(&self.gc_call(keep)))?;
        self.compare_records()
    }

    fn status(&mut self) -> Judged {
        self.model.look();
        if self.model.capacity(&sets()) == 0 {
            self.model.reclaim();
        }
        let outcome = quickly(&self.rig.ipam.plugin().call_without_attachment("STATUS"));
        if self.model.capacity(&sets()) == 0 {
            expect_code(&outcome, 50)?
        } else {
            expect_ok(&outcome)?
        }
        self.compare_records()
    }

    fn reclaim(&mut self) -> Judged {
        if !self.rig.ipam.store().exists() {
            return Ok(());
        }
        self.model.look();
        self.model.reclaim();
        expect_ok(&run_quickly(&mut self.by_hand(&["check"]), b""))?;
        self.compare_records()
    }

    fn list(&mut self) -> Judged {
        if !self.rig.ipam.store().exists() {
            return Ok(());
        }
        self.model.look();
        let outcome = run_quickly(&mut self.by_hand(&["list", "-o", "json"]), b"");
        expect_ok(&outcome)?;
        let list = outcome.json();
        let held = list.as_array().unwrap().iter().filter(|item| item["state"] == "held");
        let told: BTreeSet<String> = held.map(line).collect();
        let expected = self.model.leases.iter().map(|(addr, lease)| {
            let (id, ifname) = names(lease.owner);
            let namespace = match self.model.known[&lease.owner].process {
                None => "unknown",
                Some(_) if self.model.is_dead(lease.owner) => "gone",
                Some(_) => "alive",
            };
            line(&json!({"address": addr, "container": id, "interface": ifname, "namespace": namespace}))
        });
        let expected: BTreeSet<String> = expected.collect();
        expect(told == expected, || format!("told {told:?}\ninstead of {expected:?}"))
    }

    fn kill(&mut self, verb: Verb, owner: u8, ask: Option<IpAddr>, at: usize) -> Judged {
        let call = match verb {
            Verb::Add => self.call_about("ADD", owner, ask),
            Verb::Del => self.call_about("DEL", owner, None),
            Verb::Check => self.call_about("CHECK", owner, None),
            Verb::Gc(keep) => self.gc_call(keep),
        };
        run_killed_at(&mut call.bare_command(), call.input(), at);
        let (before, after) = (self.model.clone(), self.leases()?);
        let mut looked = before.clone();
        looked.look();
        // Whether an owner may have lost an address.
        let may_lose = |addr: &IpAddr, holder: u8| match verb {
            _ if !looked.leases.contains_key(addr) => true,
            Verb::Add => holder == owner && !before.leases.contains_key(addr) || looked.is_dead(holder),
            Verb::Del => holder == owner,
            Verb::Check => false,
            Verb::Gc(keep) => keep & 1 << holder == 0,
        };
        for (addr, lease) in &before.leases {
            let lost = after.get(addr).is_none_or(|now| now.paper != lease.paper);
            expect(!lost || may_lose(addr, lease.owner), || format!("{addr} is lost"))?;
        }
        for (addr, now) in &after {
            let is_new = before.leases.get(addr).is_none_or(|lease| lease.paper != now.paper);
            expect(!is_new || verb == Verb::Add && now.owner == owner, || format!("{addr}: {now:?}"))?;
        }
        self.model.leases = after;
        self.known_by_the_records();
        Ok(())
    }

    /// After a kill, only the records show how far the call came.
    fn known_by_the_records(&mut self) {
        self.model.known.clear();
        for owner in 0..super::OWNERS {
            let Ok(bytes) = fs::read(self.rig.ipam.side().join("owners").join(record(owner))) else {
                continue;
            };
            let Ok(record) = serde_json::from_slice::<Value>(&bytes) else { continue };
            let papers = record["leases"].as_object().unwrap().values().map(|lease| {
                let number = |key: &str| lease[key].as_i64().unwrap();
                (lease["inode"].as_u64().unwrap(), number("seconds"), number("nanoseconds"))
            });
            let boot = record["boot"].as_str().unwrap().parse().unwrap();
            let path = record["netns"]["path"].as_str();
            let process = path.map(|path| path.split('/').nth(2).unwrap().parse().unwrap());
            self.model.known.insert(owner, Known { boot, process, papers: papers.collect() });
        }
    }

    /// Whether the leases match the model.
    fn compare(&self) -> Judged {
        let leases = self.leases()?;
        expect(leases == self.model.leases, || {
            format!("there is {leases:?}\ninstead of {:?}", self.model.leases)
        })
    }

    /// Whether the records match the model, as they must after a completed call of our plugin.
    fn compare_records(&self) -> Judged {
        self.compare()?;
        let expected: Vec<String> = self.model.known.keys().map(|owner| record(*owner)).collect();
        let records = self.rig.ipam.records();
        expect(records == expected, || format!("records {records:?} instead of {expected:?}"))
    }

    /// The content of the directory.
    fn leases(&self) -> Result<BTreeMap<IpAddr, Lease>, String> {
        let mut leases = BTreeMap::new();
        for name in self.rig.ipam.node.leases(NETWORK) {
            let path = self.rig.ipam.store().join(&name);
            let (content, found) = (fs::read_to_string(&path).unwrap(), fs::metadata(&path).unwrap());
            let owner = number(&content, lease).ok_or_else(|| format!("{name} holds {content:?}"))?;
            let paper = (found.ino(), found.mtime(), found.mtime_nsec());
            leases.insert(name.parse().unwrap(), Lease { owner, paper });
        }
        Ok(leases)
    }

    /// Records the addresses in an ADD's result.
    fn insert(&mut self, owner: u8, given: &[IpAddr]) -> Judged {
        let leases = self.leases()?;
        for addr in given {
            let Some(lease) = leases.get(addr) else {
                return Err(format!("{addr} was given, without a lease"));
            };
            expect(!self.model.leases.contains_key(addr), || format!("{addr} was given twice"))?;
            expect(lease.owner == owner && sets().iter().any(|set| set.contains(addr)), || {
                format!("{addr}: {lease:?}")
            })?;
            self.model.leases.insert(*addr, lease.clone());
        }
        Ok(())
    }

    fn write_boot(&self) {
        fs::write(self.rig.boot_file(), self.model.boot.to_string()).unwrap();
    }
}

fn line(item: &Value) -> String {
    let text = |key: &str| item[key].as_str().unwrap_or("-");
    format!("{} {} {} {}", text("address"), text("container"), text("interface"), text("namespace"))
}

fn addresses(outcome: &Outcome) -> Result<Vec<IpAddr>, String> {
    expect_ok(outcome)?;
    Ok(outcome.result().ips.iter().map(|ip| ip.address.addr()).collect())
}

fn expect(is_so: bool, why: impl FnOnce() -> String) -> Judged {
    if is_so { Ok(()) } else { Err(why()) }
}

fn expect_ok(outcome: &Outcome) -> Judged {
    expect(outcome.ok(), || outcome.to_string())
}

fn expect_code(outcome: &Outcome, code: u64) -> Judged {
    expect(!outcome.ok() && outcome.json()["code"] == code, || format!("not {code}: {outcome}"))
}
