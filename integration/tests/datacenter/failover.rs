//! A bond loses a member while pods talk.

use crate::attach::attach;
use integration::{BondMode, DataCenter, Member, Pings, note, poll};
use std::time::Duration;

/// How long a bond may take to see what happened to it.
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
            // How much is lost tells of the machine that emulates; that it ends while the member is still
            // cut, of the node.
            attached.pod.wait_for("172.20.56.1");
            assert_eq!(node.active_members(), 1);
            node.restore(member);
            poll(NOTICED, "the bond has both members", || node.active_members() == 2);
        }
    }
}
