//! Certificates, users and permissions, and what an error says of them.

use integration::{Authority, Etcd, Namespace, Scratch};
use serde_json::json;
use std::fs;
use vlan_bridge_agent::registers::{Etcd as Store, StoreError};
use vlan_bridge_pool::block::Block;
use vlan_bridge_pool::document::PoolState;
use vlan_bridge_pool::network::Recall;
use vlan_bridge_pool::version::{Swap, Version};

use super::{config, document, done, make, name, register, store, there};

/// The errors of a read and of a write.
fn errors(etcd: &Etcd, store: &Store) -> [String; 2] {
    there(etcd, async {
        let read = store.register(&name("node-07")).await.unwrap_err().to_string();
        let write = store.swap_register(&name("node-07"), &Version::ABSENT, &register(1)).await;
        // A write that surely did not happen is an error, and nothing else is.
        [read, write.unwrap_err().to_string()]
    })
}

#[test]
fn a_server_of_another_authority_is_not_trusted() {
    let (etcd, folder) = (Etcd::start(), Scratch::new("foreign"));
    let foreign = Authority::new(&folder.path().join("tls"));
    let mut section = etcd.section("root");
    section["ca"] = json!(foreign.ca());
    let store = Store::new(&config(&section)).unwrap();
    let expected =
        "the certificate of https://10.79.0.1:2379 is not valid: none of our authorities has signed it";
    assert_eq!(errors(&etcd, &store), [expected, expected]);
}

#[test]
fn a_certificate_that_etcd_refuses_is_named() {
    let (etcd, folder) = (Etcd::start(), Scratch::new("foreign"));
    let foreign = Authority::new(&folder.path().join("tls"));
    for (cert, key) in [foreign.client("root"), etcd.authority().expired_client("expired")] {
        let mut section = etcd.section("root");
        (section["cert"], section["key"]) = (json!(cert), json!(key));
        let store = Store::new(&config(&section)).unwrap();
        let expected =
            format!("https://10.79.0.1:2379 refuses the certificate {}: TLS alert ", cert.display());
        for error in errors(&etcd, &store) {
            assert!(error.starts_with(&expected), "{error}");
        }
    }
    let mut section = etcd.section("root");
    (section["cert"], section["key"]) = (json!(null), json!(null));
    for error in errors(&etcd, &Store::new(&config(&section)).unwrap()) {
        assert!(
            error.starts_with("https://10.79.0.1:2379 refuses a client without a certificate"),
            "{error}"
        );
    }
}

#[test]
fn an_endpoint_that_nobody_serves_is_named() {
    let etcd = Etcd::start();
    let mut section = etcd.section("root");
    section["endpoints"] = json!(["https://10.79.0.1:9", "https://10.79.0.1:10"]);
    let store = Store::new(&config(&section)).unwrap();
    for error in errors(&etcd, &store) {
        assert!(error.starts_with("etcd cannot be reached: https://10.79.0.1:"), "{error}");
        assert!(error.contains("https://10.79.0.1:9: Connection refused (os error 111)"), "{error}");
        assert!(error.contains("https://10.79.0.1:10: Connection refused (os error 111)"), "{error}");
    }
    // Somewhere without a way there.
    let elsewhere = Namespace::new("elsewhere");
    let error = elsewhere.enter(|| {
        super::runtime()
            .block_on(self::store(&etcd, "root").register(&name("node-07")))
            .unwrap_err()
            .to_string()
    });
    assert_eq!(
        error,
        "etcd cannot be reached: https://10.79.0.1:2379: Network is unreachable (os error 101)"
    );
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (etcd, folder) = (Etcd::start(), Scratch::new("files"));
    let file = folder.path().join("file");
    let error = |key: &str, text: Option<&str>| {
        let _ = fs::remove_file(&file);
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let mut section = etcd.section("root");
        (section["user"], section[key]) = (json!("x"), json!(file));
        let error = Store::new(&config(&section)).unwrap_err();
        assert!(matches!(&error, StoreError::File { path, .. } if *path == file), "{error}");
        error.to_string().replace(&format!("{}: ", file.display()), "")
    };
    assert_eq!(error("ca", Some("")), "it has no certificate");
    assert_eq!(error("cert", Some("")), "it has no certificate");
    assert!(error("key", Some("")).starts_with("no key: "));
    for key in ["ca", "cert", "key", "passwordFile"] {
        assert_eq!(error(key, None), "No such file or directory (os error 2)");
    }
}

/// Switches etcd's authentication on. The node may use its own register only.
fn with_users(etcd: &Etcd) {
    for words in [
        "user add root --no-password",
        "user grant-role root root",
        "role add node",
        "role grant-permission node readwrite /vlan-bridge/v1/n/node-07",
        "user add node-07 --no-password",
        "user grant-role node-07 node",
        "user add known:secret --interactive=false",
        "user grant-role known node",
        "auth enable",
    ] {
        etcd.ctl(&words.split(' ').collect::<Vec<_>>()).expect_ok();
    }
}

#[test]
fn a_certificate_names_the_user() {
    let etcd = Etcd::start();
    with_users(&etcd);
    let store = store(&etcd, "node-07");
    let (cert, _) = etcd.authority().client("node-07");
    there(&etcd, async {
        let own = store.swap_register(&name("node-07"), &Version::ABSENT, &register(1)).await;
        assert!(matches!(own, Ok(Swap::Done(_))), "{own:?}");
        let read = store.register(&name("node-08")).await.unwrap_err().to_string();
        let expected = format!(
            "https://10.79.0.1:2379 does not permit the certificate {} to use /vlan-bridge/v1/n/node-08: \
             permission denied",
            cert.display()
        );
        assert_eq!(read, expected);
        let write = store.swap_register(&name("node-08"), &Version::ABSENT, &register(1)).await;
        assert_eq!(write.unwrap_err().to_string(), expected);
        let mut recalls = store.recalls(&name("node-08")).await;
        let watch = recalls.next().await.unwrap_err().to_string();
        assert!(watch.contains("does not permit the certificate"), "{watch}");
    });
}

#[test]
fn a_password_names_the_user_and_its_token_is_renewed() {
    let (etcd, folder) = (Etcd::start(), Scratch::new("password"));
    with_users(&etcd);
    let file = folder.path().join("password");
    fs::write(&file, "secret\n").unwrap();
    let mut section = etcd.section("nobody");
    (section["user"], section["passwordFile"]) = (json!("known"), json!(file));
    let store = Store::new(&config(&section)).unwrap();
    let first = there(&etcd, async {
        let swap = store.swap_register(&name("node-07"), &Version::ABSENT, &register(1)).await;
        let Ok(Swap::Done(first)) = swap else { panic!("{swap:?}") };
        first
    });
    // A token is etcd's memory of a user. The change of a role makes it old, and the end of etcd loses it.
    etcd.kill(0);
    etcd.restart(0);
    there(&etcd, async {
        let swap = loop {
            match store.swap_register(&name("node-07"), &first, &register(2)).await {
                // The broken connection is found out by the first request.
                Ok(Swap::Unknown) => {}
                other => break other,
            }
        };
        assert!(matches!(swap, Ok(Swap::Done(_))), "{swap:?}");
    });
    fs::write(&file, "wrong").unwrap();
    let store = Store::new(&config(&section)).unwrap();
    for error in errors(&etcd, &store) {
        let expected = "https://10.79.0.1:2379 does not permit user known to use its own password: \
                        authentication failed, invalid user ID or password";
        assert_eq!(error, expected);
    }
}

/// What the documentation tells operators to run.
fn with_documented_users(etcd: &Etcd) {
    let lines = include_str!("../../../../docs/pools.md").lines();
    let commands = lines.filter_map(|line| line.strip_prefix("    etcdctl "));
    let before = ["user add root --no-password", "user grant-role root root"].into_iter();
    let mut count = 0;
    for line in before.chain(commands).chain(["auth enable"]) {
        etcd.ctl(&line.split_whitespace().collect::<Vec<_>>()).expect_ok();
        count += 1;
    }
    assert!(count > 12, "the documentation has other lines now");
}

#[test]
fn the_documented_permissions_are_enough_and_not_too_much() {
    let etcd = Etcd::start();
    with_documented_users(&etcd);
    let (node, operator) = (store(&etcd, "node-07"), store(&etcd, "operator"));
    let (pool, own, other) = (name("vlan136"), name("node-07"), name("node-08"));
    there(&etcd, async {
        let range = document(&["172.20.56.0/24"]);
        make(&operator, &pool, &range).await;
        let (version, mut read) = node.document(&pool).await.unwrap().unwrap();
        let swap = node.swap_register(&own, &Version::ABSENT, &register(1)).await;
        assert!(matches!(swap, Ok(Swap::Done(_))), "{swap:?}");
        let swap = node.swap_register(&other, &Version::ABSENT, &register(1)).await;
        assert!(matches!(swap, Err(StoreError::NotPermitted { .. })), "{swap:?}");
        assert_eq!(node.register(&other).await, Ok((Version::ABSENT, None)));
        let block = node.free_blocks(&pool).await.unwrap()[0];
        done(node.swap_block(&pool, block, &Version::ABSENT, &Block::default(), &version).await);
        let mut recalls = node.recalls(&own).await;
        let recall = Recall { count: 1, floor: 1, address: None };
        node.ask(&pool, &other, &recall).await.unwrap();
        node.ask(&pool, &own, &recall).await.unwrap();
        assert_eq!(recalls.next().await, Ok((pool.clone(), recall)));
        // An agent that sees that the store went back.
        read.state = PoolState::Recovering;
        done(node.change(&pool, &version, &read).await);
        assert_eq!(operator.blocks(&pool).next().await.unwrap().unwrap().len(), 1);
    });
}
