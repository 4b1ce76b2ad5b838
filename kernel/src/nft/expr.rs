//! What rules are made of. Each expression's doc has `nft --debug=netlink`'s notation for it.

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
    /// As `nft` calls it.
    pub fn name(self) -> &'static str {
        match self {
            TableFamily::Inet => "inet",
            TableFamily::Ipv4 => "ip",
            TableFamily::Bridge => "bridge",
            TableFamily::Ipv6 => "ip6",
        }
    }
}

/// One of the sixteen registers of four bytes. Longer values fill the ones that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u32);

/// Where a packet's bytes are counted from (`enum nft_payload_bases`).
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

/// Facts about a packet that are not in it (`enum nft_meta_keys`).
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

/// Facts about a packet's connection (`enum nft_ct_keys`).
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

/// What becomes of a packet.
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
        /// What.
        key: Meta,
        /// Where to.
        to: Reg,
    },
    /// `[ meta set mark with reg ]`
    SetMark(Reg),
    /// `[ ct load KEY => reg ]`
    Ct {
        /// What.
        key: Ct,
        /// Where to.
        to: Reg,
    },
    /// `[ payload load LENb @ BASE header + OFFSET => reg ]`
    Payload {
        /// Which header.
        base: Base,
        /// Bytes from its beginning.
        offset: u32,
        /// How many bytes.
        length: u32,
        /// Where to.
        to: Reg,
    },
    /// `[ payload write reg => LENb @ BASE header + OFFSET csum_type 1 csum_off OFFSET csum_flags FLAGS ]`
    SetPayload {
        /// Which header.
        base: Base,
        /// Bytes from its beginning.
        offset: u32,
        /// How many bytes.
        length: u32,
        /// Where from.
        from: Reg,
        /// Where that header has its checksum, in bytes from its beginning.
        checksum: u32,
        /// The bytes are an address, which the checksum of TCP or UDP covers too.
        pseudo_header: bool,
    },
    /// `[ exthdr load LENb @ HEADER + OFFSET => reg ]`: an IPv6 extension header. The rule ends here where
    /// the packet has none of that number.
    Extension {
        /// Its number.
        header: u8,
        /// Bytes from its beginning.
        offset: u32,
        /// How many bytes.
        length: u32,
        /// Where to.
        to: Reg,
    },
    /// `[ fib saddr type => reg ]`: what the routing table calls the address (`RTN_LOCAL` and so on).
    AddressType {
        /// Which address.
        of: Field,
        /// Where to.
        to: Reg,
    },
    /// `[ bitwise reg = ( reg & mask ) ^ xor ]`
    Bitwise {
        /// Read and written.
        reg: Reg,
        /// As many bytes as are looked at.
        mask: Vec<u8>,
        /// As many.
        xor: Vec<u8>,
    },
    /// `[ cmp eq reg value ]`: the rule ends here where they differ.
    Equal {
        /// Compared.
        reg: Reg,
        /// With these bytes.
        value: Vec<u8>,
    },
    /// `[ cmp neq reg value ]`
    NotEqual {
        /// Compared.
        reg: Reg,
        /// With these bytes.
        value: Vec<u8>,
    },
    /// `[ lookup reg set NAME ]`: the rule ends here where the set lacks the key.
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
        /// Where the value goes.
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
        /// As many bytes as the register takes.
        value: Vec<u8>,
        /// Where to.
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
    /// `[ match name NAME rev REVISION ]`: a match of iptables', in the form that iptables-nft writes.
    Match(Match),
}

/// A match of iptables' (x_tables), as a rule has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its name, `mark` for one.
    pub name: String,
    /// The revision of its options.
    pub revision: u32,
    /// Its options: the C structure of linux/netfilter/xt_NAME.h.
    pub info: Vec<u8>,
}

impl Expr {
    /// The kernel module that brings it, where it is not nf_tables itself.
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
