//! When the base rule set of the guard is made again.

use kernel::nft::{Change, Expr, Verdict};

use super::ruleset::{ENTRIES, base_ruleset};

/// What is counted of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Its rules.
    Rules,
    /// Its rules, and the rules that jump to it.
    Uses,
}

/// The first chain that is missing or differs from the base rule set. `look` counts what the kernel has;
/// none without such a chain. Elements refer to entry chains, so for those only the rules are counted.
pub fn broken_chain<E>(look: impl Fn(&str, Count) -> Result<Option<usize>, E>) -> Result<Option<String>, E> {
    for (name, rules, uses) in uses() {
        let is_entry = ENTRIES.contains(&name.as_str());
        let (count, expected) = if is_entry { (Count::Rules, rules) } else { (Count::Uses, uses) };
        if look(&name, count)? != Some(expected) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Each chain, the number of its rules, and the kernel's use count without elements: own rules plus rules
/// that jump to it.
pub fn uses() -> Vec<(String, usize, usize)> {
    let changes = base_ruleset();
    let refers_to = |name: &str, expr: &Expr| matches!(expr, Expr::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) if to == name);
    let rules = || {
        changes.iter().filter_map(|change| match change {
            Change::AddRule { chain, exprs, .. } => Some((chain, exprs)),
            _ => None,
        })
    };
    let names = changes.iter().filter_map(|change| match change {
        Change::AddChain { name, .. } => Some(name),
        _ => None,
    });
    names
        .map(|name| {
            let own = rules().filter(|(chain, _)| *chain == name).count();
            let referring = rules().flat_map(|(_, exprs)| exprs).filter(|expr| refers_to(name, expr)).count();
            (name.clone(), own, own + referring)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::super::ruleset::TABLE;
    use super::*;
    use crate::plan::testing::Chains;

    fn broken(kernel: &Chains) -> Option<String> {
        let look = |name: &str, count| -> Result<Option<usize>, Infallible> {
            let chain = kernel.0.get(name);
            Ok(chain.map(|(rules, uses)| if count == Count::Rules { *rules } else { *uses }))
        };
        broken_chain(look).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn a_whole_rule_set_stays_whatever_elements_it_has() {
        let mut kernel = Chains::of(&base_ruleset());
        assert_eq!(broken(&kernel), None);
        for entry in ENTRIES {
            kernel.0.get_mut(entry).unwrap().1 += 250;
            assert_eq!(broken(&kernel), None, "pods lead to {entry}");
        }
    }

    #[test]
    fn one_rule_or_chain_less_or_more_is_damage() {
        let whole = base_ruleset();
        assert!(broken(&Chains::default()).is_some(), "no table");
        for (at, change) in whole.iter().enumerate() {
            let Change::AddRule { chain, .. } = change else { continue };
            let mut changes = whole.clone();
            changes.remove(at);
            assert!(broken(&Chains::of(&changes)).is_some(), "a rule of {chain} is gone");
        }
        for name in Chains::of(&whole).0.keys() {
            let mut kernel = Chains::of(&whole);
            kernel.0.remove(name);
            assert_eq!(broken(&kernel).as_ref(), Some(name), "it is gone");
            // Of another release, or by another program.
            let mut more = whole.clone();
            let (chain, exprs) = (name.clone(), vec![Expr::Verdict(Verdict::Accept)]);
            more.push(Change::AddRule { table: TABLE, chain, exprs, comment: String::new() });
            assert_eq!(broken(&Chains::of(&more)).as_ref(), Some(name), "it has another rule");
        }
    }
}
