//! Encodes expressions of rules as netlink attributes.

use crate::netfilter::message::{MessageBuilder, attribute, attributes, number, text};
use crate::nft::{Expr, Field, Match, Meta, Reg, Verdict};

const NAME: u16 = 1;
const DATA: u16 = 2;

/// The expression of nft_compat.
const MATCH: &str = "match";

/// `NFT_REG_VERDICT`, and the first of the registers of four bytes.
const VERDICT_REGISTER: u32 = 0;
const FIRST_REGISTER: u32 = 8;

fn number_of(reg: Reg) -> u32 {
    FIRST_REGISTER + reg.0
}

type Fill<'a> = Box<dyn FnOnce(&mut MessageBuilder) + 'a>;

/// Name and attributes of an expression (`NFTA_EXPR_*`).
pub(super) fn encode(item: &mut MessageBuilder, expr: &Expr) {
    let (name, fill): (&str, Fill<'_>) = match expr {
        Expr::Meta { key, to } => ("meta", Box::new(|m| load(m, *key as u32, *to))),
        Expr::Ct { key, to } => ("ct", Box::new(|m| load_ct(m, *key as u32, *to))),
        Expr::SetMark(from) => ("meta", Box::new(|m| set_mark(m, *from))),
        Expr::Payload { base, offset, length, to } => {
            ("payload", Box::new(|m| payload(m, *base as u32, *offset, *length, *to)))
        }
        Expr::SetPayload { base, offset, length, from, checksum, pseudo_header } => (
            "payload",
            Box::new(|m| set_payload(m, *base as u32, [*offset, *length], *from, *checksum, *pseudo_header)),
        ),
        Expr::Extension { header, offset, length, to } => {
            ("exthdr", Box::new(|m| extension(m, *header, *offset, *length, *to)))
        }
        Expr::AddressType { of, to } => ("fib", Box::new(|m| address_type(m, *of, *to))),
        Expr::Bitwise { reg, mask, xor } => ("bitwise", Box::new(|m| bitwise(m, *reg, mask, xor))),
        Expr::Equal { reg, value } => ("cmp", Box::new(|m| compare(m, *reg, false, value))),
        Expr::NotEqual { reg, value } => ("cmp", Box::new(|m| compare(m, *reg, true, value))),
        Expr::Lookup { key, set } => ("lookup", Box::new(|m| lookup(m, *key, set, None))),
        Expr::Map { key, map, to } => ("lookup", Box::new(|m| lookup(m, *key, map, Some(number_of(*to))))),
        Expr::VerdictMap { key, map } => {
            ("lookup", Box::new(|m| lookup(m, *key, map, Some(VERDICT_REGISTER))))
        }
        Expr::Load { value, to } => ("immediate", Box::new(|m| load_value(m, value, *to))),
        Expr::Verdict(what) => ("immediate", Box::new(|m| immediate(m, what))),
        Expr::Dnat { family, address, port } => {
            ("nat", Box::new(|m| dnat(m, u32::from(*family as u8), *address, *port)))
        }
        Expr::Snat { family, address } => ("nat", Box::new(|m| snat(m, u32::from(*family as u8), *address))),
        Expr::Masquerade => ("masq", Box::new(|_| ())),
        Expr::Counter => ("counter", Box::new(|_| ())),
        Expr::Match(what) => (MATCH, Box::new(|m| put_match(m, what))),
    };
    item.text(NAME, name).nested(DATA, fill);
}

/// `NFTA_META_DREG`, `_KEY`
fn load(m: &mut MessageBuilder, key: u32, to: Reg) {
    m.number(1, number_of(to)).number(2, key);
}

/// `NFTA_CT_DREG`, `_KEY`
fn load_ct(m: &mut MessageBuilder, key: u32, to: Reg) {
    m.number(1, number_of(to)).number(2, key);
}

/// `NFTA_META_KEY`, `_SREG`
fn set_mark(m: &mut MessageBuilder, from: Reg) {
    m.number(2, Meta::Mark as u32).number(3, number_of(from));
}

/// `NFTA_PAYLOAD_DREG`, `_BASE`, `_OFFSET`, `_LEN`
fn payload(m: &mut MessageBuilder, base: u32, offset: u32, length: u32, to: Reg) {
    m.number(1, number_of(to)).number(2, base).number(3, offset).number(4, length);
}

/// `NFTA_PAYLOAD_BASE`, `_OFFSET`, `_LEN`, `_SREG`, `_CSUM_TYPE`, `_CSUM_OFFSET`, `_CSUM_FLAGS`
fn set_payload(
    m: &mut MessageBuilder,
    base: u32,
    [offset, length]: [u32; 2],
    from: Reg,
    checksum: u32,
    pseudo_header: bool,
) {
    const NFT_PAYLOAD_CSUM_INET: u32 = 1;
    const NFT_PAYLOAD_L4CSUM_PSEUDOHDR: u32 = 1;
    m.number(2, base).number(3, offset).number(4, length).number(5, number_of(from));
    m.number(6, NFT_PAYLOAD_CSUM_INET).number(7, checksum);
    m.number(8, if pseudo_header { NFT_PAYLOAD_L4CSUM_PSEUDOHDR } else { 0 });
}

/// `NFTA_EXTHDR_DREG`, `_TYPE`, `_OFFSET`, `_LEN`
fn extension(m: &mut MessageBuilder, header: u8, offset: u32, length: u32, to: Reg) {
    m.number(1, number_of(to)).bytes(2, &[header]).number(3, offset).number(4, length);
}

/// `NFTA_FIB_DREG`, `_RESULT`, `_FLAGS`
fn address_type(m: &mut MessageBuilder, of: Field, to: Reg) {
    const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
    let flag = match of {
        Field::Source => 1,
        Field::Destination => 2,
    };
    m.number(1, number_of(to)).number(2, NFT_FIB_RESULT_ADDRTYPE).number(3, flag);
}

/// `NFTA_BITWISE_SREG`, `_DREG`, `_LEN`, `_MASK`, `_XOR`
fn bitwise(m: &mut MessageBuilder, reg: Reg, mask: &[u8], xor: &[u8]) {
    m.number(1, number_of(reg)).number(2, number_of(reg)).number(3, mask.len() as u32);
    m.nested(4, |data| value(data, mask)).nested(5, |data| value(data, xor));
}

/// `NFTA_CMP_SREG`, `_OP`, `_DATA`
fn compare(m: &mut MessageBuilder, reg: Reg, differs: bool, with: &[u8]) {
    m.number(1, number_of(reg)).number(2, u32::from(differs)).nested(3, |data| value(data, with));
}

/// `NFTA_LOOKUP_SET`, `_SREG`, `_DREG`
fn lookup(m: &mut MessageBuilder, key: Reg, set: &str, to: Option<u32>) {
    m.text(1, set).number(2, number_of(key));
    if let Some(to) = to {
        m.number(3, to);
    }
}

/// `NFTA_IMMEDIATE_DREG`, `_DATA`
fn immediate(m: &mut MessageBuilder, what: &Verdict) {
    m.number(1, VERDICT_REGISTER).nested(2, |data| verdict(data, what));
}

/// `NFTA_IMMEDIATE_DREG`, `_DATA`
fn load_value(m: &mut MessageBuilder, bytes: &[u8], to: Reg) {
    m.number(1, number_of(to)).nested(2, |data| value(data, bytes));
}

/// `NFTA_NAT_TYPE`, `_FAMILY`, `_REG_ADDR_MIN`, `_REG_PROTO_MIN`
fn dnat(m: &mut MessageBuilder, family: u32, address: Reg, port: Reg) {
    const NFT_NAT_DNAT: u32 = 1;
    m.number(1, NFT_NAT_DNAT).number(2, family).number(3, number_of(address)).number(5, number_of(port));
}

/// The same without a port.
fn snat(m: &mut MessageBuilder, family: u32, address: Reg) {
    const NFT_NAT_SNAT: u32 = 0;
    m.number(1, NFT_NAT_SNAT).number(2, family).number(3, number_of(address));
}

/// `NFTA_MATCH_NAME`, `_REV`, `_INFO`
fn put_match(m: &mut MessageBuilder, what: &Match) {
    m.text(1, &what.name).number(2, what.revision).bytes(3, &what.info);
}

/// The names of a rule's expressions, and the iptables matches among them.
pub(in crate::nft) fn decode(list: &[u8]) -> (Vec<String>, Vec<Match>) {
    let (mut names, mut matches) = (Vec::new(), Vec::new());
    for (_, item) in attributes(list) {
        let name = attribute(item, NAME).map(text).unwrap_or_default();
        let data = attribute(item, DATA).filter(|_| name == MATCH);
        matches.extend(data.and_then(|data| {
            let (revision, info) = (attribute(data, 2).and_then(number)?, attribute(data, 3)?.to_vec());
            Some(Match { name: attribute(data, 1).map(text)?, revision, info })
        }));
        names.push(name);
    }
    (names, matches)
}

/// `NFTA_DATA_VALUE`
fn value(data: &mut MessageBuilder, bytes: &[u8]) {
    data.bytes(super::attr::DATA_VALUE, bytes);
}

/// `NFTA_DATA_VERDICT` with `NFTA_VERDICT_CODE`, `_CHAIN`
pub(super) fn verdict(data: &mut MessageBuilder, what: &Verdict) {
    let (code, chain): (i32, Option<&str>) = match what {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    data.nested(super::attr::DATA_VERDICT, |nested| {
        nested.number(1, code as u32);
        if let Some(chain) = chain {
            nested.text(2, chain);
        }
    });
}
