//! The expressions of rules. The doc comment of each has the notation of `nft --debug=netlink`.

/// The packets that a table sees (`NFPROTO_*` of linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ipv4 = 2,
    /// Frames on bridges.
    Bridge = 7,
    /// IPv6.
    Ipv6 = 10,
}

impl TableFamily {
    /// Its name in `nft`.
    pub fn name(self) -> &'static str {
        match self {
            TableFamily::Inet => "inet",
            TableFamily::Ipv4 => "ip",
            TableFamily::Bridge => "bridge",
            TableFamily::Ipv6 => "ip6",
        }
    }
}

/// One of the sixteen registers of four bytes. A longer value continues in the next registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u32);

/// The header that a payload offset counts from (`enum nft_payload_bases`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Base {
    /// The Ethernet header.
    Link = 0,
    /// The IP header.
    Network = 1,
    /// The TCP, UDP or SCTP header.
    Transport = 2,
}

/// Metadata of a packet (`enum nft_meta_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Meta {
    /// `meta mark`
    Mark = 3,
    /// `iifname`
    InputInterface = 6,
    /// `oifname`
    OutputInterface = 7,
    /// `meta nfproto`
    TableFamily = 15,
    /// `meta l4proto`
    Protocol = 16,
}

/// Connection tracking data of a packet (`enum nft_ct_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Ct {
    /// `ct state`
    State = 0,
    /// `ct direction`
    Direction = 1,
    /// `ct status`
    Status = 2,
}

/// An address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `ip saddr`, `ip6 saddr`
    Source,
    /// `ip daddr`, `ip6 daddr`
    Destination,
}

/// The verdict on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// One expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// `[ meta load KEY => reg ]`
    Meta {
        /// The metadata.
        key: Meta,
        /// Destination register.
        to: Reg,
    },
    /// `[ meta set mark with reg ]`
    SetMark(Reg),
    /// `[ ct load KEY => reg ]`
    Ct {
        /// The data.
        key: Ct,
        /// Destination register.
        to: Reg,
    },
    /// `[ payload load LENb @ BASE header + OFFSET => reg ]`
    Payload {
        /// The header.
        base: Base,
        /// Offset in bytes.
        offset: u32,
        /// Number of bytes.
        length: u32,
        /// Destination register.
        to: Reg,
    },
    /// `[ payload write reg => LENb @ BASE header + OFFSET csum_type 1 csum_off OFFSET csum_flags FLAGS ]`
    SetPayload {
        /// The header.
        base: Base,
        /// Offset in bytes.
        offset: u32,
        /// Number of bytes.
        length: u32,
        /// Source register.
        from: Reg,
        /// Offset of the header's checksum in bytes.
        checksum: u32,
        /// The bytes are an address, so the checksum of TCP or UDP covers them too.
        pseudo_header: bool,
    },
    /// `[ exthdr load LENb @ HEADER + OFFSET => reg ]`: an IPv6 extension header. The rule does not match if
    /// the packet has no such header.
    Extension {
        /// The header's number.
        header: u8,
        /// Offset in bytes.
        offset: u32,
        /// Number of bytes.
        length: u32,
        /// Destination register.
        to: Reg,
    },
    /// `[ fib saddr type => reg ]`: the type of the address in the routing table (`RTN_LOCAL` and so on).
    AddressType {
        /// The address.
        of: Field,
        /// Destination register.
        to: Reg,
    },
    /// `[ bitwise reg = ( reg & mask ) ^ xor ]`
    Bitwise {
        /// Source and destination register.
        reg: Reg,
        /// The mask, as long as the value.
        mask: Vec<u8>,
        /// As long as the mask.
        xor: Vec<u8>,
    },
    /// `[ cmp eq reg value ]`: the rule does not match if they differ.
    Equal {
        /// The register.
        reg: Reg,
        /// The bytes to compare it with.
        value: Vec<u8>,
    },
    /// `[ cmp neq reg value ]`
    NotEqual {
        /// The register.
        reg: Reg,
        /// The bytes to compare it with.
        value: Vec<u8>,
    },
    /// `[ lookup reg set NAME ]`: the rule does not match if the set lacks the key.
    Lookup {
        /// The key.
        key: Reg,
        /// Set.
        set: &'static str,
    },
    /// `[ lookup reg set NAME dreg reg ]`
    Map {
        /// The key.
        key: Reg,
        /// Map.
        map: &'static str,
        /// Destination register.
        to: Reg,
    },
    /// `[ lookup reg set NAME dreg 0 ]`
    VerdictMap {
        /// The key.
        key: Reg,
        /// Map.
        map: &'static str,
    },
    /// `[ immediate reg VALUE ]`
    Load {
        /// As many bytes as the register holds.
        value: Vec<u8>,
        /// Destination register.
        to: Reg,
    },
    /// `[ immediate reg 0 VERDICT ]`
    Verdict(Verdict),
    /// `[ nat dnat FAMILY addr_min reg proto_min reg ]`
    Dnat {
        /// `Ipv4` or `Ipv6`.
        family: TableFamily,
        /// The new destination.
        address: Reg,
        /// Its port.
        port: Reg,
    },
    /// `[ nat snat FAMILY addr_min reg ]`
    Snat {
        /// `Ipv4` or `Ipv6`.
        family: TableFamily,
        /// The new source.
        address: Reg,
    },
    /// `[ masq ]`
    Masquerade,
    /// `[ counter pkts 0 bytes 0 ]`
    Counter,
    /// `[ match name NAME rev REVISION ]`: an iptables match, in the form that iptables-nft writes.
    Match(Match),
}

/// An iptables match (x_tables) in a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its name, for example `mark`.
    pub name: String,
    /// The revision of its options.
    pub revision: u32,
    /// Its options: the C structure of linux/netfilter/xt_NAME.h.
    pub info: Vec<u8>,
}

impl Expr {
    /// The kernel module that implements the expression. None if it is part of nf_tables.
    pub fn module(&self) -> Option<&'static str> {
        match self {
            Expr::Ct { .. } => Some("nft_ct"),
            Expr::AddressType { .. } => Some("nft_fib_inet"),
            Expr::Dnat { .. } | Expr::Snat { .. } => Some("nft_nat"),
            Expr::Masquerade => Some("nft_masq"),
            Expr::Match(Match { name, .. }) => match name.as_str() {
                "mark" => Some("xt_mark"),
                "comment" => Some("xt_comment"),
                _ => Some("nft_compat"),
            },
            _ => None,
        }
    }
}
