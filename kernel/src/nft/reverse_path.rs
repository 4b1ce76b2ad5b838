//! Finds reverse path filters in the rules of other programs. Such a rule drops packets from an address to
//! which no route leads, or no route by the interface that the packet arrived at. Examples are `fib saddr .
//! iif oif missing drop` and iptables' `-m rpfilter --invert -j DROP`.

use super::encode::{attr, kind};
use super::{BaseChain, Nft, Result};
use crate::netfilter::message::{MessageBuilder, attribute, attributes, number, text};
use crate::nft::{HookPoint, TableFamily};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};

/// A chain that filters reverse paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReversePathFilter {
    /// The family of its table.
    pub family: TableFamily,
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub chain: String,
    /// The rule applies to IPv4.
    pub ipv4: bool,
    /// The rule applies to IPv6.
    pub ipv6: bool,
    /// The reverse path must lead by the interface that the packet arrived at.
    pub strict: bool,
}

/// The reverse path filter of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filter {
    /// The only family that the rule applies to (`meta nfproto`).
    ipv6: Option<bool>,
    strict: bool,
    /// The rule matches packets without a reverse path. Otherwise it matches packets with one.
    missing: bool,
    /// The verdict on the packets that match.
    verdict: i32,
}

/// `NF_DROP`, `NF_ACCEPT`, `NFT_JUMP`, `NFT_GOTO`
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;

impl Nft {
    /// Every chain that filters the reverse paths of all incoming packets, from any program. Rules for single
    /// interfaces are ignored, and chains that other chains jump to.
    pub fn reverse_path_filters(&self) -> Result<Vec<ReversePathFilter>> {
        let mut found = Vec::new();
        for BaseChain { family, table, chain, drops } in self.hooked(HookPoint::Prerouting)? {
            let filters = self.filters(family, &table, &chain)?;
            // A jump or goto counts as a drop: the other chain drops the packet, for example after it has
            // logged it.
            let drops_missing =
                |filter: &&Filter| filter.missing && [DROP, JUMP, GOTO].contains(&filter.verdict);
            let spares_present = |filter: &&Filter| drops && !filter.missing && filter.verdict == ACCEPT;
            let drops_some = |filter: &&Filter| drops_missing(filter) || spares_present(filter);
            found.extend(filters.iter().filter(drops_some).map(|filter| ReversePathFilter {
                family,
                table: table.clone(),
                chain: chain.clone(),
                ipv4: family != TableFamily::Ipv6 && filter.ipv6 != Some(true),
                ipv6: family != TableFamily::Ipv4 && filter.ipv6 != Some(false),
                strict: filter.strict,
            }));
        }
        Ok(found)
    }

    fn filters(&self, family: TableFamily, table: &str, chain: &str) -> Result<Vec<Filter>> {
        let mut message = MessageBuilder::new(kind::GET_RULE, NLM_F_REQUEST | NLM_F_DUMP, 1, family as u8, 0);
        message.text(attr::RULE_TABLE, table).text(attr::RULE_CHAIN, chain);
        let action = || format!("nft list chain {} {table} {chain}", family.name());
        let answers = self.socket.request(message, action)?;
        let is_of =
            |rule: &[u8], kind: u16, name: &str| attribute(rule, kind).map(text).as_deref() == Some(name);
        // Old kernels list the rules of all chains.
        let of_chain =
            |rule: &&Vec<u8>| is_of(rule, attr::RULE_TABLE, table) && is_of(rule, attr::RULE_CHAIN, chain);
        let rules = answers.iter().filter(of_chain);
        Ok(rules.filter_map(|rule| filter(attribute(rule, attr::RULE_EXPRESSIONS)?)).collect())
    }
}

/// What the last expression has loaded for a comparison.
enum Loaded {
    Nothing,
    TableFamily,
    InputDevice,
    WayBack,
}

/// The reverse path filter in the expressions of a rule (`NFTA_EXPR_NAME`, `_DATA`).
fn filter(expressions: &[u8]) -> Option<Filter> {
    let (mut loaded, mut ipv6, mut strict, mut missing, mut verdict) =
        (Loaded::Nothing, None, false, None, None);
    for (_, item) in attributes(expressions) {
        let data = attribute(item, 2).unwrap_or_default();
        let value = |kind: u16| attribute(data, kind).and_then(number);
        match attribute(item, 1).map(text)?.as_str() {
            "meta" => loaded = of_meta(value(2)?),
            "ct" | "payload" | "exthdr" | "rt" => loaded = Loaded::Nothing,
            "fib" => {
                strict = is_strict(value(2)?, value(3)?)?;
                loaded = Loaded::WayBack;
            }
            "cmp" => {
                let differs = value(2)? != 0;
                let with = attribute(data, 3).and_then(|data| attribute(data, attr::DATA_VALUE))?;
                let is_zero = with.iter().all(|byte| *byte == 0);
                match loaded {
                    Loaded::TableFamily if !differs => {
                        ipv6 = Some(with.first() == Some(&(TableFamily::Ipv6 as u8)))
                    }
                    Loaded::InputDevice if !differs => return None,
                    Loaded::WayBack => missing = Some(is_zero != differs),
                    _ => {}
                }
            }
            // It is unknown whether the set has the plugin's interfaces.
            "lookup" if matches!(loaded, Loaded::InputDevice) => return None,
            "match" if attribute(data, 1).map(text).as_deref() == Some("rpfilter") => {
                let of_match = rpfilter(*attribute(data, 3)?.first()?);
                (strict, missing) = (of_match.0, Some(of_match.1));
            }
            "immediate" => {
                let data = attribute(data, 2)?;
                let of_verdict = attribute(data, attr::DATA_VERDICT).and_then(|data| attribute(data, 1));
                verdict = of_verdict.and_then(number).map(|code| code as i32);
            }
            _ => {}
        }
    }
    Some(Filter { ipv6, strict, missing: missing?, verdict: verdict? })
}

/// `enum nft_meta_keys`: the interface by index or by name.
fn of_meta(key: u32) -> Loaded {
    const IIF: u32 = 4;
    const IIFNAME: u32 = 6;
    const NFPROTO: u32 = 15;
    match key {
        IIF | IIFNAME => Loaded::InputDevice,
        NFPROTO => Loaded::TableFamily,
        _ => Loaded::Nothing,
    }
}

/// Whether a `fib` lookup of a packet's source is limited to the incoming interface. None for other lookups.
fn is_strict(result: u32, flags: u32) -> Option<bool> {
    /// `NFT_FIB_RESULT_OIF` and `_OIFNAME`
    const DEVICES: [u32; 2] = [1, 2];
    const NFTA_FIB_F_SADDR: u32 = 1;
    const NFTA_FIB_F_IIF: u32 = 8;
    let is_way_back = DEVICES.contains(&result) && flags & NFTA_FIB_F_SADDR != 0;
    is_way_back.then_some(flags & NFTA_FIB_F_IIF != 0)
}

/// `struct xt_rpfilter_info`: whether the match is strict, and whether it matches packets without a reverse
/// path.
fn rpfilter(flags: u8) -> (bool, bool) {
    const XT_RPFILTER_LOOSE: u8 = 1;
    const XT_RPFILTER_INVERT: u8 = 8;
    (flags & XT_RPFILTER_LOOSE == 0, flags & XT_RPFILTER_INVERT != 0)
}
