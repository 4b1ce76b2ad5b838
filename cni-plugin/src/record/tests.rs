//! Records are written, read back and removed.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use cni_conf::ports::PortMapping;
use cni_conf::section::Section;
use serde_json::{Value, json};

use super::*;
use crate::plan::guard::Limits;

fn pod() -> PodInterface {
    PodInterface {
        network: "local".into(),
        container_id: "0a1b".into(),
        ifname: "eth0".into(),
        netns: "/run/netns/p".into(),
        device: "cni0.7".into(),
        bridge: Some("cni0".into()),
        mac: "02:00:00:00:00:2a".parse().ok(),
        addresses: vec!["10.22.0.2/16".parse().unwrap(), "fd00:22::2/64".parse().unwrap()],
    }
}

fn nat() -> NatRecord {
    let keys = json!({"ports": [{"hostPort": 8080, "containerPort": 80, "hostIP": "192.0.2.7"}]});
    let section = Section::new(keys.as_object().unwrap(), "");
    NatRecord {
        pod: pod(),
        masquerade: true,
        direct: true,
        gateway: true,
        ports: PortMapping::parse_list(&section, "ports").unwrap(),
        sources: vec!["10.51.0.11".parse().unwrap()],
        localhost: Some("10.51.0.11".parse().unwrap()),
        services: vec!["10.96.0.0/12".parse().unwrap()],
        followers: vec!["veth135e6cbfc22".into()],
    }
}

fn guard() -> GuardRecord {
    let limits = Limits {
        by_address: true,
        any_link_local: true,
        allowed: vec!["10.22.0.100".parse().unwrap()],
        trunk: Some(Some(136)),
    };
    GuardRecord { pod: pod(), limits }
}

fn host_routes() -> HostRoutesRecord {
    let address = || vec!["10.51.0.11".parse().unwrap()];
    HostRoutesRecord { pod: pod(), sources: address(), node_addresses: Some(address()) }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("vlbr-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn reads_back_and_goes<R: Record + PartialEq + std::fmt::Debug>(record: &R) {
    let folder = folder(R::FOLDER);
    let records = Records::at(folder.clone());
    let name = record.attachment().host_interface();
    assert_eq!(records.read(&name), None);
    assert!(records.end());
    records.write(record).unwrap();
    assert_eq!(records.read(&name).as_deref(), Some(record));
    assert_eq!(
        records.all().iter().map(|(name, record)| (name, &**record)).collect::<Vec<_>>(),
        [(&name, record)]
    );
    assert!(!records.end());
    records.remove(&name).unwrap();
    records.remove(&name).unwrap();
    assert!(records.all().is_empty() && records.end() && !folder.exists());
}

#[test]
fn a_record_reads_back_and_goes() {
    reads_back_and_goes(&nat());
    reads_back_and_goes(&guard());
    reads_back_and_goes(&host_routes());
}

#[test]
fn what_is_no_record_is_passed_over() {
    let folder = folder("torn");
    let records = Records::at(folder.clone());
    records.write(&nat()).unwrap();
    let name = pod().attachment().host_interface();
    let text = fs::read_to_string(folder.join(&name)).unwrap();
    let other = name.replace('1', "2");
    for (name, text) in [(&name, &text[..text.len() / 2]), (&name, ""), (&name, "[]"), (&other, &text)] {
        fs::write(folder.join(name), text).unwrap();
        assert_eq!(records.read(name), None, "{text}");
    }
    // A later release's record has more keys.
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["later"] = json!({"since": 7});
    fs::write(folder.join(&name), value.to_string()).unwrap();
    assert_eq!(records.read(&name).as_deref(), Some(&nat()));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_record_is_read_again_only_if_it_was_replaced() {
    let records = Records::at(folder("kept"));
    let name = pod().attachment().host_interface();
    records.write(&nat()).unwrap();
    let first = records.read(&name).unwrap();
    assert!(Arc::ptr_eq(&first, &records.read(&name).unwrap()));
    // Of the same length, and at once.
    let other = NatRecord { sources: vec!["10.51.0.12".parse().unwrap()], ..nat() };
    records.write(&other).unwrap();
    let second = records.read(&name).unwrap();
    assert_eq!((&*first, &*second), (&nat(), &other));
    let is_kept = |record: &Arc<NatRecord>| Arc::strong_count(record) > 1;
    assert!(!is_kept(&first) && is_kept(&second));
    records.remove(&name).unwrap();
    assert_eq!(records.read(&name), None);
    forget_unused();
    assert!(is_kept(&second), "it was used");
    forget_unused();
    assert!(!is_kept(&second));
    assert!(records.end());
}

/// Release 0.1.0 wrote the same keys into the files of these three kinds.
fn of_release_0_1_0() -> Value {
    json!({
        "network": "local", "containerID": "0a1b", "ifname": "eth0", "netns": "/run/netns/p",
        "device": "cni0.7", "bridge": "cni0", "mac": "02:00:00:00:00:2a",
        "addresses": ["10.22.0.2/16", "fd00:22::2/64"],
        "masquerade": true, "direct": true, "gateway": true,
        "ports": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.7"}],
        "sources": ["10.51.0.11"], "localhost": "10.51.0.11", "services": ["10.96.0.0/12"],
        "followers": ["veth135e6cbfc22"],
        "guard": {"byAddress": true, "allowed": ["10.22.0.100"], "anyLinkLocal": true, "trunk": true, "vlan": 136},
    })
}

/// Release 0.1.0 needs the keys of the pod's interface and reads the others if they are there.
#[test]
fn records_pass_between_this_release_and_0_1_0() {
    let old = of_release_0_1_0();
    let keys = Section::new(old.as_object().unwrap(), "");
    assert_eq!(NatRecord::from_section(&keys), Ok(nat()));
    assert_eq!(GuardRecord::from_section(&keys), Ok(guard()));
    let old_routes = HostRoutesRecord { node_addresses: None, ..host_routes() };
    assert_eq!(HostRoutesRecord::from_section(&keys), Ok(old_routes.clone()));
    for new in [nat().to_json(), guard().to_json(), old_routes.to_json()] {
        for (key, value) in new.as_object().unwrap() {
            assert_eq!(Some(value), old.get(key), "{key}");
        }
        for key in ["network", "containerID", "ifname", "netns", "device", "bridge", "mac", "addresses"] {
            assert!(new.get(key).is_some(), "{key}");
        }
    }
}
