//! When the base rule set counts as damaged.

use std::convert::Infallible;

use super::*;
use crate::plan::testing::Chains;

fn broken(kernel: &Chains) -> Option<String> {
    let look = |name: &str| -> Result<Option<u32>, Infallible> {
        Ok(kernel.0.get(name).map(|(_, uses)| *uses as u32))
    };
    broken_chain(look).unwrap_or_else(|never| match never {})
}

#[test]
fn rules_that_come_on_top_are_no_damage() {
    let mut changes = base_ruleset();
    assert_eq!(broken(&Chains::of(&changes)), None);
    changes.push(service_rule(&"10.96.0.0/12".parse().unwrap()));
    changes.extend(forward());
    let mut kernel = Chains::of(&changes);
    // Chains of subnets lead there.
    kernel.0.get_mut(MASQUERADED).unwrap().1 += 2;
    assert_eq!(broken(&kernel), None);
}

#[test]
fn one_rule_or_chain_less_is_damage() {
    let whole = base_ruleset();
    assert!(broken(&Chains::default()).is_some(), "no table");
    for (at, change) in whole.iter().enumerate() {
        let Change::AddRule { chain, .. } = change else { continue };
        let mut changes = whole.clone();
        changes.remove(at);
        assert!(broken(&Chains::of(&changes)).is_some(), "a rule of {chain} is gone");
    }
    for name in Chains::of(&whole).0.keys() {
        // As a release without this chain would leave it.
        let mut kernel = Chains::of(&whole);
        kernel.0.remove(name);
        assert_eq!(broken(&kernel).as_ref(), Some(name), "it is gone");
    }
}
