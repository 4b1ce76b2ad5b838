//! Our one rule in iptables' FORWARD, while other programs save and restore that chain with their own
//! iptables.

use crate::nat::{Nat, with_ports};
use integration::{Ctl, Outcome, Pod, old_iptables, run_with};

/// The iptables of a program on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Iptables {
    /// 1.8.7, which Debian 11 has, and k3s and kube-router had for a long time.
    Old,
    /// The machine's own.
    New,
}

const EACH: [Iptables; 2] = [Iptables::Old, Iptables::New];

/// Runs one of the programs of an iptables on the node.
fn run(nat: &Nat, version: Iptables, program: &str, words: &[&str], input: &str) -> Outcome {
    let mut command = match version {
        Iptables::New => nat.node.command(program),
        Iptables::Old => {
            let folder = old_iptables();
            let libraries = folder.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
            let mut command = nat.node.command(folder.join("usr/sbin/xtables-nft-multi"));
            command.env("LD_LIBRARY_PATH", &libraries).env("XTABLES_LIBDIR", libraries.join("xtables"));
            command.arg(program);
            command
        }
    };

    run_with(command.args(words), input.as_bytes())
}

/// Saves and restores all rules, as a reload does, with one iptables or with two.
fn round_trip(nat: &Nat, save: Iptables, restore: Iptables) {
    for program in ["iptables", "ip6tables"] {
        let saved = run(nat, save, &format!("{program}-save"), &["-t", "filter"], "").expect_ok().stdout;
        run(nat, restore, &format!("{program}-restore"), &[], &saved).expect_ok();
    }
}

/// The chain as iptables prints it, of both families.
fn chain(nat: &Nat) -> Vec<String> {
    let lines = |program: &str| {
        let told = run(nat, Iptables::New, program, &["-S", "FORWARD"], "").expect_ok().stdout;
        told.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    ["iptables", "ip6tables"].into_iter().flat_map(lines).collect()
}

fn ours(nat: &Nat) -> Vec<String> {
    chain(nat).into_iter().filter(|line| line.contains("vlan-bridge")).collect()
}

fn theirs(nat: &Nat) -> Vec<String> {
    chain(nat).into_iter().filter(|line| !line.contains("vlan-bridge")).collect()
}

/// One rule for each family, which accepts only marked packets.
const RIGHT: &str =
    "-A FORWARD -m mark --mark 0x1000/0x1000 -m comment --comment \"vlan-bridge: pods\" -j ACCEPT";

fn with_policy_of_drop() -> Nat {
    let nat = Nat::new();
    for program in ["iptables", "ip6tables"] {
        run(&nat, Iptables::New, program, &["-P", "FORWARD", "DROP"], "").expect_ok();
        run(&nat, Iptables::New, program, &["-A", "FORWARD", "-i", "docker0", "-j", "ACCEPT"], "")
            .expect_ok();
    }
    nat
}

#[test]
fn our_rule_survives_every_iptables_that_saves_and_restores_it() {
    let (nat, one) = (with_policy_of_drop(), Pod::new());
    let before = theirs(&nat);
    let eth0 = with_ports(&one, &[(8080, "tcp", 80, "")]);
    let result = nat.local().add(&eth0).result();
    let pods: Vec<Pod> = (0..4).map(|_| Pod::new()).collect();
    for ((save, restore), pod) in EACH.iter().flat_map(|save| EACH.map(|restore| (*save, restore))).zip(&pods)
    {
        // Each is also tried after a restore by the machine's own iptables, which writes the mark as an
        // nf_tables expression.
        for first in [None, Some(Iptables::New)] {
            first.into_iter().for_each(|version| round_trip(&nat, version, version));
            nat.local().check(&eth0, &result).expect_ok();
            if first.is_none() {
                round_trip(&nat, save, restore);
                assert_eq!(ours(&nat), [RIGHT, RIGHT], "{save:?} {restore:?}");
                nat.local().check(&eth0, &result).expect_ok();
            }
            nat.local().add(&pod.eth0()).expect_ok();
            assert_eq!(ours(&nat), [RIGHT, RIGHT], "{save:?} {restore:?}: {}", nat.rules());
            nat.local().del(&pod.eth0()).expect_ok();
        }
    }
    round_trip(&nat, Iptables::Old, Iptables::Old);
    nat.local().del(&eth0).expect_ok();
    assert!(ours(&nat).is_empty(), "{}", nat.rules());
    assert!(!nat.rules().contains("vlan-bridge"), "{}", nat.rules());
    assert_eq!(theirs(&nat), before);
}

/// The rule of earlier releases. A save by 1.8.7 loses the mark.
const FORMER: &str = "add rule ip filter FORWARD meta mark and 0x1000 == 0x1000 counter accept comment \"vlan-bridge: pods\"\n\
                      add rule ip6 filter FORWARD meta mark and 0x1000 == 0x1000 counter accept comment \"vlan-bridge: pods\"";

#[test]
fn what_earlier_releases_left_is_made_anew_or_removed() {
    const OPEN: &str = "-A FORWARD -m comment --comment \"vlan-bridge: pods\" -j ACCEPT";
    let (nat, one, two) = (with_policy_of_drop(), Pod::new(), Pod::new());
    let ctl = Ctl::new(&nat.node);
    ctl.run("install --name local --subnet 10.22.0.0/24").expect_ok();
    // With a pod on the node, its next call repairs the rule, or several of them.
    let eth0 = with_ports(&one, &[(8080, "tcp", 80, "")]);
    let result = nat.local().add(&eth0).result();
    for by_add in [true, false] {
        nat.node.nft(&format!("{FORMER}\n{FORMER}"));
        round_trip(&nat, Iptables::Old, Iptables::New);
        assert!(ours(&nat).contains(&OPEN.to_owned()), "{:?}", ours(&nat));
        let told = nat.local().check(&eth0, &result);
        assert!(told.error_text().contains("accepts everything"), "{told}");
        let findings = ctl.doctor("--no-probe");
        let seen = "a rule of vlan-bridge in chain FORWARD of table ip filter accepts everything";
        assert!(
            findings.iter().any(|found| found.verdict == "fail" && found.seen.contains(seen)),
            "{findings:?}"
        );
        if by_add { nat.local().add(&two.eth0()) } else { nat.local().del(&two.eth0()) }.expect_ok();
        assert_eq!(ours(&nat), [RIGHT, RIGHT], "{by_add}: {}", nat.rules());
        nat.local().check(&eth0, &result).expect_ok();
    }
    nat.local().del(&eth0).expect_ok();
    // Without pods, uninstall removes it. Rules of other programs stay.
    nat.node.nft(FORMER);
    round_trip(&nat, Iptables::Old, Iptables::Old);
    assert_eq!(ours(&nat), [OPEN, OPEN]);
    ctl.run("uninstall").expect_ok();
    assert!(ours(&nat).is_empty(), "{}", nat.rules());
    assert_eq!(theirs(&nat), ["-P FORWARD DROP", "-A FORWARD -i docker0 -j ACCEPT"].repeat(2));
}
