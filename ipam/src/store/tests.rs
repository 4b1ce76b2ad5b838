//! Tests of [`Store`], each in its own directory.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use cni_skel::lock::LIMIT;

use super::*;

const NETWORK: &str = "vlan136";

/// A data directory that is removed after the test.
struct DataDir(PathBuf);

impl DataDir {
    fn new() -> DataDir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ipam-store-{}-{next}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        DataDir(dir)
    }

    fn store(&self) -> Store {
        Store::create(&self.0, NETWORK).unwrap()
    }

    /// Runs one complete call.
    fn call<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let outcome = work(&mut store);
        store.finish();
        outcome
    }

    fn claim(&self, addr: &str, id: &str, ifname: &str) -> ClaimOutcome {
        let owner = owner(id, ifname);
        self.call(|store| {
            let mut record =
                HolderRecord { addresses: store.held_by(&owner).unwrap(), ..HolderRecord::default() };
            store.claim(ip(addr), &owner, &mut record).unwrap()
        })
    }

    fn release(&self, id: &str, ifname: &str) -> Vec<String> {
        let mut released = self.call(|store| store.release(&owner(id, ifname)).unwrap());
        released.sort();
        released.iter().map(IpAddr::to_string).collect()
    }

    /// The file names of the records, sorted.
    fn records(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(SIDE).join(NETWORK).join("owners")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Whether the next call has to read every lease.
    fn is_dirty(&self) -> bool {
        !Store::lock(&self.0, NETWORK, self.0.join(NETWORK), LIMIT).unwrap().known
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(NETWORK).join(name)
    }

    /// Every file except the lock, sorted.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(NETWORK)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != LOCK).collect();
        names.sort();
        names
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn owner(id: &str, ifname: &str) -> Owner {
    Owner { container_id: id.into(), ifname: ifname.into() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn one_address_has_one_holder() {
    let dir = DataDir::new();
    assert_eq!(dir.claim("10.0.0.2", "c1", "eth0"), ClaimOutcome::Won);
    assert_eq!(dir.claim("10.0.0.2", "c1", "eth0"), ClaimOutcome::AlreadyMine);
    assert_eq!(dir.claim("10.0.0.2", "c2", "eth0"), ClaimOutcome::Taken);
    assert_eq!(dir.claim("10.0.0.2", "c1", "net1"), ClaimOutcome::Taken);
    let path = dir.path("10.0.0.2");
    assert_eq!(fs::read(&path).unwrap(), b"c1\r\neth0");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(dir.files(), ["10.0.0.2"]);
}

#[test]
fn v6_names_are_host_locals() {
    let dir = DataDir::new();
    dir.claim("2001:DB8:0:0::2", "c1", "eth0");
    assert_eq!(dir.files(), ["2001:db8::2"]);
}

#[test]
fn an_empty_lease_is_free() {
    let dir = DataDir::new();
    dir.call(|store| {
        fs::write(dir.path("10.0.0.2"), b"").unwrap();
        let mut record = HolderRecord::default();
        assert_eq!(
            store.claim(ip("10.0.0.2"), &owner("c1", "eth0"), &mut record).unwrap(),
            ClaimOutcome::Won
        );
    });
    assert_eq!(fs::read(dir.path("10.0.0.2")).unwrap(), b"c1\r\neth0");
    fs::write(dir.path("10.0.0.3"), b"").unwrap();
    drop(dir.store());
    assert_eq!(dir.files(), ["10.0.0.2"]);
}

#[test]
fn what_a_killed_claim_left_does_no_harm() {
    let dir = DataDir::new();
    dir.claim("10.0.0.2", "c1", "eth0");
    // Killed between link and unlink: the draft is the lease under a second name.
    fs::hard_link(dir.path("10.0.0.2"), dir.path(CLAIM)).unwrap();
    dir.claim("10.0.0.3", "c2", "eth0");
    assert_eq!(fs::read(dir.path("10.0.0.2")).unwrap(), b"c1\r\neth0");
    assert_eq!(fs::read(dir.path("10.0.0.3")).unwrap(), b"c2\r\neth0");
    assert_eq!(dir.files(), ["10.0.0.2", "10.0.0.3"]);
}

#[test]
fn release_takes_the_attachments_leases_alone() {
    let dir = DataDir::new();
    for (addr, id, ifname) in [
        ("10.0.0.2", "c1", "eth0"),
        ("2001:db8::2", "c1", "eth0"),
        ("10.0.0.3", "c1", "net1"),
        ("10.0.0.4", "c2", "eth0"),
    ] {
        dir.claim(addr, id, ifname);
    }
    fs::write(dir.path("10.0.0.5"), b"c1").unwrap();
    assert_eq!(dir.release("c1", "eth0"), ["10.0.0.2", "2001:db8::2"]);
    assert_eq!(dir.files(), ["10.0.0.3", "10.0.0.4", "10.0.0.5"]);
    // No lease names the interface any more, so the lease that names only the container belongs to the
    // attachment.
    assert_eq!(dir.release("c1", "eth0"), ["10.0.0.5"]);
    assert!(dir.release("c1", "eth0").is_empty());
    assert_eq!(dir.records(), ["c1:net1", "c2:eth0"]);
}

#[test]
fn a_record_whose_lease_is_another_holders_frees_nothing() {
    let dir = DataDir::new();
    dir.claim("10.0.0.2", "c1", "eth0");
    // As if an ADD of c1 was killed before it wrote its lease, and c2 got the address.
    let records = dir.0.join(SIDE).join(NETWORK).join("owners");
    fs::rename(records.join("c1:eth0"), records.join("c0:eth0")).unwrap();
    assert!(dir.release("c0", "eth0").is_empty());
    assert_eq!((dir.files(), dir.records()), (vec!["10.0.0.2".to_owned()], vec![]));
}

#[test]
fn everything_is_known_unless_somebody_else_was_here() {
    let dir = DataDir::new();
    dir.claim("10.0.0.2", "c1", "eth0");
    assert!(!dir.is_dirty());
    fs::write(dir.path("10.0.0.3"), b"c2\r\neth0").unwrap();
    assert!(dir.is_dirty());
    drop(dir.store());
    assert!(dir.is_dirty(), "killed before the mark");
    dir.call(|_| ());
    assert_eq!(dir.records(), ["c1:eth0", "c2:eth0"]);
    assert!(!dir.is_dirty());
    fs::remove_file(dir.path("10.0.0.2")).unwrap();
    fs::write(dir.path("10.0.0.2"), b"c3\r\neth0").unwrap();
    dir.call(|_| ());
    assert_eq!(dir.records(), ["c2:eth0", "c3:eth0"]);
}

#[test]
fn what_is_known_can_be_lost() {
    let dir = DataDir::new();
    dir.claim("10.0.0.2", "c1", "eth0");
    fs::remove_dir_all(dir.0.join(SIDE)).unwrap();
    dir.call(|_| ());
    assert_eq!(dir.records(), ["c1:eth0"]);
    for (file, content) in
        [("index", &[0xff; 5000][..]), ("owners/c1:eth0", b"\xff\xfe"), ("owners/c1:eth0", b"")]
    {
        fs::write(dir.0.join(SIDE).join(NETWORK).join(file), content).unwrap();
        dir.call(|store| assert_eq!(store.held_by(&owner("c1", "eth0")).unwrap(), [ip("10.0.0.2")]));
    }
    // Truncated when it was created, before there was a lease.
    fs::write(dir.0.join(SIDE).join(NETWORK).join("owners/c2:eth0"), b"").unwrap();
    assert!(dir.release("c2", "eth0").is_empty());
    assert_eq!(dir.records(), ["c1:eth0"]);
    fs::write(dir.0.join(SIDE).join(NETWORK).join("owners/c1:eth0"), b"{}").unwrap();
    assert_eq!(dir.release("c1", "eth0"), ["10.0.0.2"]);
}

/// The state after a power cut: the file's name and times were on disk, but its content was not.
fn tear(path: &Path, content: &[u8]) {
    let written = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, content).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
}

#[test]
fn a_torn_lease_is_written_anew() {
    for torn in [&b""[..], b"c", b"c1\r\neth", b"\xff\xfe\xfd", &[0; 10_000]] {
        let dir = DataDir::new();
        dir.claim("10.0.0.2", "c1", "eth0");
        tear(&dir.path("10.0.0.2"), torn);
        fs::write(dir.path("10.0.0.9"), b"").unwrap();
        dir.call(|_| ());
        assert_eq!(fs::read(dir.path("10.0.0.2")).unwrap(), b"c1\r\neth0");
        assert_eq!(dir.files(), ["10.0.0.2"]);
        // The lease was torn without notice, but it is still the file that the record names.
        tear(&dir.path("10.0.0.2"), torn);
        assert_eq!(dir.release("c1", "eth0"), ["10.0.0.2"]);
    }
}

/// A lease of `net1` is no truncated lease of `net10` if it is another file.
#[test]
fn a_whole_lease_of_another_is_not_taken_for_a_torn_one() {
    let dir = DataDir::new();
    dir.claim("10.0.0.2", "c1", "net10");
    fs::remove_file(dir.path("10.0.0.2")).unwrap();
    fs::write(dir.path("10.0.0.2"), b"c1\r\nnet1").unwrap();
    dir.call(|store| assert_eq!(store.held_by(&owner("c1", "net1")).unwrap(), [ip("10.0.0.2")]));
    assert!(dir.release("c1", "net10").is_empty());
    assert_eq!(fs::read(dir.path("10.0.0.2")).unwrap(), b"c1\r\nnet1");
}

#[test]
fn what_nobody_can_read_is_kept_from_use() {
    let dir = DataDir::new();
    drop(dir.store());
    fs::write(dir.path("10.0.0.2"), [0xff; 5000]).unwrap();
    fs::write(dir.path("10.0.0.3"), b"../../etc/passwd\r\neth0").unwrap();
    dir.call(|_| ());
    assert_eq!(dir.records(), ["@10.0.0.2", "@10.0.0.3"]);
    assert_eq!(dir.claim("10.0.0.2", "c1", "eth0"), ClaimOutcome::Taken);
}

#[test]
fn another_boot_frees_what_was_held_in_the_last() {
    let dir = DataDir::new();
    for (addr, id) in [("10.0.0.2", "c1"), ("10.0.0.3", "c2"), ("10.0.0.4", "c3")] {
        dir.claim(addr, id, "eth0");
    }
    let side = dir.0.join(SIDE).join(NETWORK);
    for file in ["index", "owners/c1:eth0", "owners/c2:eth0"] {
        let text = fs::read_to_string(side.join(file)).unwrap();
        fs::write(side.join(file), text.replace(&BootTime::now().boot, "00000000-another-boot")).unwrap();
    }
    dir.call(|_| ());
    assert_eq!((dir.files(), dir.records()), (vec!["10.0.0.4".to_owned()], vec!["c3:eth0".to_owned()]));
}

#[test]
fn retain_skips_what_is_no_lease() {
    let dir = DataDir::new();
    dir.claim("10.0.0.2", "c1", "eth0");
    dir.call(|store| store.set_last_reserved(0, ip("10.0.0.2")).unwrap());
    fs::write(dir.path(".hidden"), b"c9\r\neth0").unwrap();
    fs::write(dir.path("notes"), b"c9\r\neth0").unwrap();
    fs::create_dir(dir.path("10.0.0.9")).unwrap();
    let (released, errors) = dir.call(|store| store.retain(|holder| *holder == Holder::Unreadable).unwrap());
    assert_eq!((released, errors.len()), (vec![ip("10.0.0.2")], 0));
    assert_eq!(dir.files(), [".hidden", "10.0.0.9", "last_reserved_ip.0", "notes"]);
}

#[test]
fn retain_goes_on_past_errors() {
    let dir = DataDir::new();
    dir.claim("10.0.0.2", "c1", "eth0");
    // Nobody can unlink a directory.
    fs::create_dir(dir.path("10.0.0.1")).unwrap();
    fs::create_dir(dir.path("10.0.0.3")).unwrap();
    let (released, errors) = dir.call(|store| store.retain(|_| false).unwrap());
    assert_eq!((released, errors.len()), (vec![ip("10.0.0.2")], 2));
    assert!(errors[0].to_string().starts_with("cannot remove "), "{}", errors[0]);
}

#[test]
fn what_is_no_file_is_taken() {
    let dir = DataDir::new();
    drop(dir.store());
    fs::create_dir(dir.path("10.0.0.2")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", dir.path("10.0.0.3")).unwrap();
    for addr in ["10.0.0.2", "10.0.0.3"] {
        assert_eq!(dir.claim(addr, "c1", "eth0"), ClaimOutcome::Taken);
    }
}

#[test]
fn remembers_the_last_address_of_each_set() {
    let dir = DataDir::new();
    let mut store = dir.store();
    assert_eq!(store.last_reserved(0), None);
    store.set_last_reserved(0, ip("10.0.0.2")).unwrap();
    store.set_last_reserved(0, ip("10.0.0.3")).unwrap();
    store.set_last_reserved(1, ip("2001:db8::2")).unwrap();
    assert_eq!(
        (store.last_reserved(0), store.last_reserved(1)),
        (Some(ip("10.0.0.3")), Some(ip("2001:db8::2")))
    );
    assert_eq!(fs::read(dir.path("last_reserved_ip.1")).unwrap(), b"2001:db8::2");
    assert_eq!(dir.files(), ["last_reserved_ip.0", "last_reserved_ip.1"]);
    fs::write(dir.path("last_reserved_ip.0"), b"nonsense").unwrap();
    assert_eq!(store.last_reserved(0), None);
}

#[test]
fn a_store_that_never_was_is_none_and_is_not_made() {
    let dir = DataDir::new();
    assert!(Store::open(&dir.0, NETWORK, LIMIT).unwrap().is_none());
    assert!(!dir.0.join(NETWORK).exists());
}

#[test]
fn a_name_cannot_leave_the_data_directory() {
    let dir = DataDir::new();
    for name in ["..", ".", "", "a/b", "../x", "/etc"] {
        assert!(matches!(Store::create(&dir.0, name), Err(StoreError::Network(_))), "{name}");
        assert!(Store::open(&dir.0, name, LIMIT).is_err() && Store::probe(&dir.0, name).is_err());
    }
}

#[test]
fn probe_leaves_nothing_and_names_what_is_in_the_way() {
    let dir = DataDir::new();
    Store::probe(&dir.0, NETWORK).unwrap();
    assert!(!dir.0.join(NETWORK).exists() || dir.files().is_empty());
    fs::write(dir.0.join("file"), b"").unwrap();
    let error = Store::probe(&dir.0.join("file"), NETWORK).unwrap_err().to_string();
    assert!(error.starts_with("cannot create ") && error.contains("/file/vlan136"), "{error}");
}

#[test]
fn a_directory_that_everybody_may_write_is_refused() {
    let dir = DataDir::new();
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o777)).unwrap();
    for error in [
        Store::create(&dir.0, NETWORK).unwrap_err(),
        Store::open(&dir.0, NETWORK, LIMIT).unwrap_err(),
        Store::probe(&dir.0, NETWORK).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::WorldWritable(_)), "{error}");
    }
}

#[test]
fn stores_exclude_each_other() {
    let dir = DataDir::new();
    let counter = dir.path("counter");
    drop(dir.store());
    fs::write(&counter, b"0").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let _store = dir.store();
                    let count: u32 = fs::read_to_string(&counter).unwrap().parse().unwrap();
                    fs::write(&counter, (count + 1).to_string()).unwrap();
                }
            });
        }
    });
    assert_eq!(fs::read_to_string(&counter).unwrap(), "160");
}
