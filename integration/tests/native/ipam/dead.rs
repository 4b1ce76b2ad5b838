//! Addresses of dead owners are released before an ADD is refused. Those of live owners never are.

use crate::ipam::{Ipam, here};
use integration::{Attachment, Pod, Scratch, eth0};
use std::os::unix::fs::symlink;

fn add(ipam: &Ipam, attachment: &Attachment) -> integration::Outcome {
    here(&ipam.plugin().call("ADD", attachment))
}

#[test]
fn an_exhausted_range_takes_from_those_whose_namespace_is_gone() {
    let ipam = Ipam::until(4);
    let (live, dead) = (Pod::new(), Pod::new());
    assert_eq!(add(&ipam, &live.eth0()).result().address(), "10.1.0.2");
    assert_eq!(add(&ipam, &dead.eth0()).result().address(), "10.1.0.3");
    // Its namespace cannot be seen, so it cannot be called gone.
    assert_eq!(add(&ipam, &eth0("unknown")).result().address(), "10.1.0.4");
    assert_eq!(add(&ipam, &eth0("more")).error_code(), 11);
    let gone = dead.eth0();
    drop(dead);
    let outcome = add(&ipam, &eth0("more")).expect_ok();
    assert!(outcome.stderr.contains("released 10.1.0.3") && outcome.stderr.contains("is gone"), "{outcome}");
    assert_eq!(outcome.result().address(), "10.1.0.3");
    // The late DEL releases no address of another pod.
    here(&ipam.plugin().call("DEL", &gone.without_netns())).expect_ok();
    assert_eq!(ipam.leases()["10.1.0.3"], "more\r\neth0");
    assert_eq!(add(&ipam, &eth0("one-more")).error_code(), 11);
}

#[test]
fn a_path_that_leads_to_another_namespace_by_now_is_as_good_as_gone() {
    let ipam = Ipam::until(2);
    let (scratch, old, new) = (Scratch::new("netns"), Pod::new(), Pod::new());
    let path = scratch.path().join("netns");
    symlink(old.path(), &path).unwrap();
    let attachment = Attachment { netns: Some(path.clone()), ..eth0("c1") };
    add(&ipam, &attachment).expect_ok();
    assert_eq!(add(&ipam, &eth0("c2")).error_code(), 11);
    std::fs::remove_file(&path).unwrap();
    symlink(new.path(), &path).unwrap();
    assert_eq!(add(&ipam, &eth0("c2")).result().address(), "10.1.0.2");
}

#[test]
fn what_another_mount_namespace_saw_is_kept() {
    let ipam = Ipam::until(2);
    let pod = Pod::new();
    // In a mount namespace of its own.
    ipam.plugin().add(&pod.eth0()).expect_ok();
    drop(pod);
    assert_eq!(add(&ipam, &eth0("c2")).error_code(), 11);
    assert_eq!(ipam.leases().len(), 1);
}
