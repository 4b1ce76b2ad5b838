//! Fuzzes the files of a store, as a power cut, an operator or an intruder may leave them.

use cni_conf::ipam::IpamConfig;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use vlan_bridge_ipam::store::{ClaimOutcome, Holder, HolderRecord, Owner, Pool, Store, StoreError};

const NETWORK: &str = "n";
/// The addresses of the set: 10.0.0.2 to 10.0.0.6.
const CAPACITY: usize = 5;

/// Files of a store, by the first byte of the input.
const FILES: [&str; 7] = [
    "n/10.0.0.3",
    ".vlan-bridge/n/owners/c1:eth0",
    ".vlan-bridge/n/ranges/10.0.0.1-10.0.0.6",
    ".vlan-bridge/n/index",
    ".vlan-bridge/n/verdicts",
    "n/last_reserved_ip.0",
    "n/.claim",
];

/// The first byte chooses a file of a store, and the rest replaces its content. Then addresses are claimed
/// until none is left. No address may come twice, the live owner's address may not come, and all others must.
pub fn store(input: &[u8]) {
    let Some((file, content)) = input.split_first() else { return };
    let case = Case::new();
    case.build();
    let path = case.dir.join(FILES[usize::from(*file) % FILES.len()]);
    fs::write(&path, content).unwrap();
    // A failed call gives a reason, and the files stay.
    let _ = case.call(|store| case.take(store, "new"));
    assert!(case.is_held_by_live(), "{}", path.display());
    let _ = case.call(|store| store.release(&owner("c1")).map(|_| ()));
    assert!(case.is_held_by_live(), "{}", path.display());
    let keep = |holder: &Holder| *holder == Holder::Attachment(owner("live"));
    case.call(|store| store.retain(keep).map(|_| ())).unwrap();
    assert!(case.is_held_by_live(), "{}", path.display());
    for i in 0..=CAPACITY {
        case.call(|store| case.take(store, &format!("all{i}"))).unwrap();
    }
    assert_eq!(case.held().len(), CAPACITY, "{:?}", case.held());
    assert!(case.is_held_by_live());
}

struct Case {
    dir: PathBuf,
    config: IpamConfig,
}

impl Case {
    fn new() -> Case {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("fuzz-store-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let config = json!({"ipam": {"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.6"}});
        Case { dir, config: IpamConfig::parse(config.as_object().unwrap()).unwrap() }
    }

    /// A live owner, c1, and a released address.
    fn build(&self) {
        for id in ["live", "c1", "back"] {
            self.call(|store| self.take(store, id)).unwrap();
        }
        self.call(|store| store.release(&owner("back")).map(|_| ())).unwrap();
    }

    fn call(&self, work: impl FnOnce(&mut Store) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut store = Store::create(&self.dir, NETWORK)?;
        let outcome = work(&mut store);
        store.finish();
        outcome
    }

    /// The next address, if there is one.
    fn take(&self, store: &mut Store, id: &str) -> Result<(), StoreError> {
        let Some(pool) = Pool::all(&self.config).next() else { return Ok(()) };
        loop {
            let Some(addr) = store.next_free(&pool)? else {
                if store.repair(&pool)? {
                    continue;
                }
                return Ok(());
            };
            let before = self.held();
            match store.claim(addr, &owner(id), &mut HolderRecord::default())? {
                ClaimOutcome::Taken => {}
                ClaimOutcome::Won | ClaimOutcome::AlreadyMine => {
                    let was = before.contains(&addr) && fs::metadata(self.lease(addr)).unwrap().len() > 0;
                    assert!(!was || self.reads(addr, id), "{addr} was given twice");
                    return store.set_last_reserved(0, addr);
                }
            }
        }
    }

    fn lease(&self, addr: IpAddr) -> PathBuf {
        self.dir.join(NETWORK).join(addr.to_string())
    }

    fn reads(&self, addr: IpAddr, id: &str) -> bool {
        fs::read(self.lease(addr)).is_ok_and(|lease| lease == format!("{id}\r\neth0").as_bytes())
    }

    fn is_held_by_live(&self) -> bool {
        self.reads("10.0.0.2".parse().unwrap(), "live")
    }

    fn held(&self) -> BTreeSet<IpAddr> {
        let names = fs::read_dir(self.dir.join(NETWORK)).unwrap().flatten();
        names.filter_map(|entry| Path::new(&entry.file_name()).to_str()?.parse().ok()).collect()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn owner(id: &str) -> Owner {
    Owner { container_id: id.into(), ifname: "eth0".into() }
}
