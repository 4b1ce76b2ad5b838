//! Records are written, read back and removed.

use super::*;

fn record() -> Record {
    let keys = json!({"ports": [{"hostPort": 8080, "containerPort": 80, "hostIP": "192.0.2.7"}]});
    let section = Section::new(keys.as_object().unwrap(), "");
    Record {
        network: "local".into(),
        container_id: "0a1b".into(),
        ifname: "eth0".into(),
        netns: "/run/netns/p".into(),
        device: "cni0.7".into(),
        bridge: Some("cni0".into()),
        mac: "02:00:00:00:00:2a".parse().ok(),
        addresses: vec!["10.22.0.2/16".parse().unwrap(), "fd00:22::2/64".parse().unwrap()],
        masquerade: true,
        direct: true,
        gateway: true,
        ports: PortMapping::parse_list(&section, "ports").unwrap(),
        sources: vec!["10.51.0.11".parse().unwrap()],
        localhost: Some("10.51.0.11".parse().unwrap()),
        services: vec!["10.96.0.0/12".parse().unwrap()],
        followers: vec!["veth135e6cbfc22".into()],
        guard: Some(Limits {
            by_address: true,
            any_link_local: true,
            allowed: vec!["10.22.0.100".parse().unwrap()],
            trunk: Some(Some(136)),
        }),
    }
}

fn records(name: &str) -> Records {
    let folder = std::env::temp_dir().join(format!("vlbr-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    Records { folder }
}

#[test]
fn a_record_reads_back_and_goes() {
    let (records, record) = (records("back"), record());
    let name = record.attachment().host_interface();
    assert_eq!(records.read(&name), None);
    assert!(records.end());
    records.write(&record).unwrap();
    assert_eq!(records.read(&name).as_ref(), Some(&record));
    assert_eq!(records.all(), [(name.clone(), record)]);
    assert!(!records.end());
    records.remove(&name).unwrap();
    records.remove(&name).unwrap();
    assert!(records.all().is_empty() && records.end() && !records.folder.exists());
}

#[test]
fn what_is_no_record_is_passed_over() {
    let records = records("torn");
    records.write(&record()).unwrap();
    let name = record().attachment().host_interface();
    let text = fs::read_to_string(records.folder.join(&name)).unwrap();
    let other = name.replace('1', "2");
    for (name, text) in [(&name, &text[..text.len() / 2]), (&name, ""), (&name, "[]"), (&other, &text)] {
        fs::write(records.folder.join(name), text).unwrap();
        assert_eq!(records.read(name), None, "{text}");
    }
    // A later release's record has more keys.
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["later"] = json!({"since": 7});
    fs::write(records.folder.join(&name), value.to_string()).unwrap();
    assert_eq!(records.read(&name), Some(record()));
    fs::remove_dir_all(&records.folder).unwrap();
}
