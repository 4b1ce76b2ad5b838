//! Rules of others that filter reverse paths: they drop what comes from an address to which the routing table
//! knows no way, or none by the device that it came in by. `fib saddr . iif oif missing drop`, and iptables'
//! `-m rpfilter --invert -j DROP`.

use super::encode::{attr, kind};
use super::{Hooked, Nft, Result};
use crate::netfilter::message::{Message, attribute, attributes, number, text};
use crate::nft::{HookPoint, TableFamily};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};

/// A chain that filters reverse paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReversePathFilter {
    /// The family of its table.
    pub family: TableFamily,
    /// The table's name.
    pub table: String,
    /// Its own.
    pub chain: String,
    /// The rule is about IPv4.
    pub ipv4: bool,
    /// The rule is about IPv6.
    pub ipv6: bool,
    /// The way back has to lead by the device that the packet came in by.
    pub strict: bool,
}

/// One rule, as far as it filters reverse paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filter {
    /// It is about this family alone (`meta nfproto`).
    ipv6: Option<bool>,
    strict: bool,
    /// What it names is the packets without a way back; else those with one.
    missing: bool,
    /// What becomes of these.
    verdict: i32,
}

/// `NF_DROP`, `NF_ACCEPT`, `NFT_JUMP`, `NFT_GOTO`
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;

impl Nft {
    /// Every chain that filters reverse paths of all that comes in, whoever made it. Rules for single devices
    /// are passed over, and chains that others lead to.
    pub fn reverse_path_filters(&self) -> Result<Vec<ReversePathFilter>> {
        let mut found = Vec::new();
        for Hooked { family, table, chain, drops } in self.hooked(HookPoint::Prerouting)? {
            let filters = self.filters(family, &table, &chain)?;
            // One that leads elsewhere drops there, after it has logged for one.
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
        let mut message = Message::new(kind::GET_RULE, NLM_F_REQUEST | NLM_F_DUMP, 1, family as u8, 0);
        message.text(attr::RULE_TABLE, table).text(attr::RULE_CHAIN, chain);
        let action = || format!("nft list chain {} {table} {chain}", family.name());
        let told = self.socket.request(message, action)?;
        let is_of =
            |rule: &[u8], kind: u16, name: &str| attribute(rule, kind).map(text).as_deref() == Some(name);
        // Old kernels list those of all chains.
        let of_chain =
            |rule: &&Vec<u8>| is_of(rule, attr::RULE_TABLE, table) && is_of(rule, attr::RULE_CHAIN, chain);
        let rules = told.iter().filter(of_chain);
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

/// What the expressions of a rule (`NFTA_EXPR_NAME`, `_DATA`) say of reverse paths.
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
            // Of a set of devices, nobody knows whether ours is in it.
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

/// `enum nft_meta_keys`: by index or by name.
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

/// Whether a look at the routing table is for a packet's source, and whether by its own device alone. None
/// for other looks.
fn is_strict(result: u32, flags: u32) -> Option<bool> {
    /// `NFT_FIB_RESULT_OIF` and `_OIFNAME`
    const DEVICES: [u32; 2] = [1, 2];
    const NFTA_FIB_F_SADDR: u32 = 1;
    const NFTA_FIB_F_IIF: u32 = 8;
    let is_way_back = DEVICES.contains(&result) && flags & NFTA_FIB_F_SADDR != 0;
    is_way_back.then_some(flags & NFTA_FIB_F_IIF != 0)
}

/// `struct xt_rpfilter_info`: whether it is strict, and whether it matches what has no way back.
fn rpfilter(flags: u8) -> (bool, bool) {
    const XT_RPFILTER_LOOSE: u8 = 1;
    const XT_RPFILTER_INVERT: u8 = 8;
    (flags & XT_RPFILTER_LOOSE == 0, flags & XT_RPFILTER_INVERT != 0)
}
