//! Our single rule in iptables' FORWARD chain. It accepts packets that our chain has marked. The rule is at
//! the end of the chain, so that rules that drop or reject still apply and only the policy is overridden.
//!
//! Other programs often save and restore that chain (netfilter-persistent, kube-router, k3s), with any
//! version of iptables. So the rule uses iptables' own matches, which each version prints and reads back.
//! iptables up to 1.8.7 drops a native nf_tables mark match when it saves, and the restored rule accepts
//! everything. iptables also turns comments of `nft` into its own comments.

use kernel::nft::{Change, Expr, Match, Rule, Table, Verdict};

use super::ruleset::{FORWARDED, IPTABLES_FORWARD};

/// The comment that identifies the rule.
const COMMENT: &str = "vlan-bridge: pods";

/// The size of `struct xt_comment_info`.
const COMMENT_SIZE: usize = 256;

/// The state of our rule in a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The handles of all rules with our comment.
    pub handles: Vec<u64>,
    /// There is exactly one, as [`rule`] makes it.
    pub is_exact: bool,
    /// Marked packets are accepted.
    pub passes_marked: bool,
    /// One of the rules accepts everything because it has lost its mark match.
    pub passes_all: bool,
}

/// Looks for our rule among those of a chain.
pub fn find(rules: &[Rule]) -> Present {
    let ours: Vec<&Rule> = rules.iter().filter(|rule| rule.comment == COMMENT).collect();
    let is_exact = |rule: &Rule| rule.matches.contains(&mark());
    // The form that some versions of iptables restore, and that earlier releases made.
    let is_native = |rule: &Rule| rule.exprs.iter().any(|name| name == "meta");
    let passes_all = ours.iter().any(|rule| !is_exact(rule) && !is_native(rule));
    Present {
        handles: ours.iter().map(|rule| rule.handle).collect(),
        is_exact: matches!(ours.as_slice(), [one] if is_exact(one)),
        passes_marked: !ours.is_empty() && !passes_all,
        passes_all,
    }
}

/// `-A FORWARD -m mark --mark 0x1000/0x1000 -m comment --comment "vlan-bridge: pods" -j ACCEPT`
pub fn rule(table: Table) -> Change {
    let mut text = COMMENT.as_bytes().to_vec();
    text.resize(COMMENT_SIZE, 0);
    let comment = Match { name: "comment".into(), revision: 0, info: text };
    let exprs =
        vec![Expr::Match(mark()), Expr::Match(comment), Expr::Counter, Expr::Verdict(Verdict::Accept)];
    Change::AddRule { table, chain: IPTABLES_FORWARD.into(), exprs, comment: String::new() }
}

/// Deletes rules from an iptables chain.
pub fn removal(table: Table, handles: &[u64]) -> Vec<Change> {
    let delete = |handle: &u64| Change::DeleteRule { table, chain: IPTABLES_FORWARD.into(), handle: *handle };
    handles.iter().map(delete).collect()
}

/// `struct xt_mark_mtinfo1`: mark, mask, the invert flag, and padding.
fn mark() -> Match {
    let mut info = [FORWARDED.to_ne_bytes(), FORWARDED.to_ne_bytes()].concat();
    info.resize(16, 0);
    Match { name: "mark".into(), revision: 1, info }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(handle: u64, exprs: &[&str], matches: &[Match]) -> Rule {
        let exprs = exprs.iter().map(|name| (*name).to_owned()).collect();
        Rule { handle, comment: COMMENT.into(), exprs, matches: matches.to_vec() }
    }

    fn present(handles: &[u64], is_exact: bool, passes_marked: bool, passes_all: bool) -> Present {
        Present { handles: handles.to_vec(), is_exact, passes_marked, passes_all }
    }

    #[test]
    fn our_rule_is_known_in_each_form_that_a_round_trip_leaves() {
        let exact = ours(1, &["match", "match", "counter", "immediate"], &[mark()]);
        let native = ours(2, &["meta", "bitwise", "cmp", "match", "counter", "immediate"], &[]);
        let open = ours(3, &["match", "counter", "immediate"], &[]);
        let foreign = Rule { comment: "of another program".into(), ..open.clone() };
        assert_eq!(find(std::slice::from_ref(&foreign)), Present::default());
        assert_eq!(find(&[foreign.clone(), exact.clone()]), present(&[1], true, true, false));
        assert_eq!(find(std::slice::from_ref(&native)), present(&[2], false, true, false));
        assert_eq!(find(&[exact.clone(), native]), present(&[1, 2], false, true, false));
        assert_eq!(find(std::slice::from_ref(&open)), present(&[3], false, false, true));
        assert_eq!(find(&[exact, open]), present(&[1, 3], false, false, true));
    }

    #[test]
    fn a_mark_of_another_bit_is_not_ours() {
        let other = Match { info: vec![0; 16], ..mark() };
        assert!(find(&[ours(1, &["match", "match", "counter", "immediate"], &[other])]).passes_all);
    }
}
