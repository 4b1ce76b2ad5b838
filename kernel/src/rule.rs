//! `ip rule`.

use std::net::IpAddr;

use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Conn, Result};
use crate::link::SourceRule;

/// `ip rule show`: the rules that select a routing table by source address.
pub async fn by_source(conn: &Conn) -> Result<Vec<SourceRule>> {
    let mut rules = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RuleMessage::default();
        message.header.family = family;
        let action = || "list routing rules".into();
        rules.extend(conn.dump(RouteNetlinkMessage::GetRule(message), action, from_message).await?);
    }
    Ok(rules)
}

fn from_message(answer: RouteNetlinkMessage) -> Option<SourceRule> {
    let RouteNetlinkMessage::NewRule(message) = answer else { return None };
    let mut table = u32::from(message.header.table);
    let mut source: Option<IpAddr> = None;
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Source(ip) => source = Some(ip),
            RuleAttribute::Table(id) => table = id,
            _ => {}
        }
    }
    Some(SourceRule { from: source?, table })
}
