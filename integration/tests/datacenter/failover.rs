//! A bond loses a member while pods talk.

use crate::attach::attach;
use integration::{BondMode, DataCenter, Member, Pings, note, poll};
use std::time::Duration;

/// The time limit for a bond to notice the loss.
const NOTICED: Duration = Duration::from_secs(20);

#[test]
fn pods_keep_talking_when_a_bond_loses_either_member() {
    let datacenter = DataCenter::new();
    for node in datacenter.nodes(BondMode::ALL) {
        let attached = attach(&node, &node.list136());
        attached.pod.wait_for("172.20.56.1");
        for member in [Member::First, Member::Second] {
            let pings = Pings::start(&attached.pod, "172.20.56.1", 150, Duration::from_millis(20));
            node.cut(member);
            poll(NOTICED, "the bond has one member", || node.active_members() == 1);
            let (sent, received) = pings.finish();
            let lost = sent - received;
            note(&format!(
                "{}: {member:?} member cut, {lost} of {sent} pings at 20 ms lost",
                node.mode().name()
            ));
            // The number of lost packets depends on the emulator. The test requires that the loss ends while
            // the member is still down.
            attached.pod.wait_for("172.20.56.1");
            assert_eq!(node.active_members(), 1);
            node.restore(member);
            poll(NOTICED, "the bond has both members", || node.active_members() == 2);
        }
    }
}
