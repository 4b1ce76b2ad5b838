//! How interfaces show that vlan-bridge made them: by name and by alias (`ip link show` prints both). So
//! every verb finds them without a record.

use cni_conf::cni::mac::MacAddr;
use cni_conf::request::Request;
use kernel::link::{Kind, Link};

/// Alias of the bridges and sub-interfaces that we made. Those of an operator have another alias or none.
pub const NODE_ALIAS: &str = "vlan-bridge";

/// The longest alias in bytes. `IFALIASZ` is 256, and the kernel accepts only shorter ones, without the
/// closing NUL.
const LONGEST_ALIAS: usize = 254;

/// True if we made this bridge or sub-interface.
pub fn is_ours(link: &Link) -> bool {
    link.alias.as_deref() == Some(NODE_ALIAS)
}

/// One attachment: an interface of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment<'a> {
    /// Network name.
    pub network: &'a str,
    /// `CNI_CONTAINERID`.
    pub container_id: &'a str,
    /// `CNI_IFNAME`.
    pub ifname: &'a str,
    /// Hash of container id and interface name. Names and numbers on the node are made of it.
    hash: u64,
}

/// The state of an ADD, according to the alias of its veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// In progress, or killed.
    Adding,
    /// Done.
    Ready,
    /// The interface belongs to another vlan-bridge network, or to another program.
    Foreign,
}

impl<'a> Attachment<'a> {
    /// The attachment of a request.
    pub fn of(request: &'a Request) -> Attachment<'a> {
        Attachment::new(&request.name, &request.env.container_id, &request.env.ifname)
    }

    /// The interface `ifname` of a container on a network.
    pub fn new(network: &'a str, container_id: &'a str, ifname: &'a str) -> Attachment<'a> {
        Attachment { network, container_id, ifname, hash: hash(&[container_id, ifname]) }
    }

    /// The network of a veth that is this container's interface on another network.
    pub fn other_network<'b>(&self, link: &'b Link) -> Option<&'b str> {
        let network = attachment_of(link)?.network;
        let other = Attachment { network, ..self.clone() };
        (network != self.network && other.progress(link) != Progress::Foreign).then_some(network)
    }
}

impl Attachment<'_> {
    /// Name of the veth's node end. It is the same for every call for this attachment, so DEL finds it
    /// without the namespace and the earlier result. NetworkManager, udev and networkd ignore interfaces
    /// named `veth…`.
    pub fn host_interface(&self) -> String {
        format!("veth{:011x}", self.hash & 0xfff_ffff_ffff)
    }

    /// Metric of the node's routes to this pod: the last eight digits of [`Attachment::host_interface`].
    pub fn metric(&self) -> u32 {
        metric(self.hash as u32)
    }

    /// MAC of the veth's node end: locally administered and higher than others, because a bridge without a
    /// pinned MAC takes the lowest MAC of its ports.
    pub fn host_mac(&self) -> MacAddr {
        let hash = self.hash.to_be_bytes();
        MacAddr([0xfe, hash[0], hash[1], hash[2], hash[3], hash[4]])
    }

    /// Alias of the veth's node end while its ADD is in progress. It names the attachment.
    pub fn alias_while_adding(&self) -> String {
        self.alias(ADDING)
    }

    /// Alias of the veth's node end after ADD.
    pub fn alias_when_ready(&self) -> String {
        self.alias(READY)
    }

    fn alias(&self, state: &str) -> String {
        let mut alias =
            format!("{}{} {}", network_prefix(self.network, state), self.ifname, self.container_id);
        if alias.len() > LONGEST_ALIAS {
            // A hash distinguishes ids that are cut after the same beginning.
            let rest = format!("~{:016x}", hash(&[self.network, self.ifname, self.container_id]));
            alias.truncate(LONGEST_ALIAS - rest.len());
            alias += &rest;
        }
        alias
    }

    /// The progress of this attachment's ADD. A veth without an alias belongs to an ADD that was killed at
    /// its beginning.
    pub fn progress(&self, link: &Link) -> Progress {
        let Some(alias) = link.alias.as_deref().filter(|_| link.kind == Kind::Veth) else {
            return if link.kind == Kind::Veth { Progress::Adding } else { Progress::Foreign };
        };
        if alias == self.alias_when_ready() {
            Progress::Ready
        } else if alias == self.alias_while_adding() {
            Progress::Adding
        } else {
            Progress::Foreign
        }
    }
}

/// FNV-1a, 64 bits, over strings without NUL. Written out because names that live in the kernel must not
/// change with a library.
pub fn hash(texts: &[&str]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = texts.join("\0");
    bytes.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

const ADDING: &str = "adding";
const READY: &str = "pod";

fn network_prefix(network: &str, state: &str) -> String {
    format!("{NODE_ALIAS} {state} {network} ")
}

/// True if the interface is the node end of an attachment, finished or not.
pub fn is_attachment(link: &Link) -> bool {
    let says = |alias: &str| {
        [ADDING, READY].iter().any(|state| alias.starts_with(&format!("{NODE_ALIAS} {state} ")))
    };
    // Without an alias, an ADD has only just made it.
    link.kind == Kind::Veth && link.alias.as_deref().map_or_else(|| has_our_form(&link.name), says)
}

/// The metric of the routes to the pod behind an attachment's veth. None if the name is not of an
/// attachment. The metric identifies the routes of a pod of which nothing else is left. It is never 0,
/// which means the kernel's default.
pub fn metric_of(host_interface: &str) -> Option<u32> {
    const DIGITS: usize = 8;
    let digits = has_our_form(host_interface).then(|| &host_interface[host_interface.len() - DIGITS..])?;
    u32::from_str_radix(digits, 16).ok().map(metric)
}

fn metric(hash: u32) -> u32 {
    hash.max(1)
}

/// `veth` and eleven hexadecimal digits: longer than the random names of the reference plugin.
pub fn has_our_form(name: &str) -> bool {
    let digits = name.strip_prefix("veth").unwrap_or_default();
    digits.len() == 11 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The attachment of a veth's node end, according to its alias. An id that did not fit in the alias is cut
/// off here too.
pub fn attachment_of(link: &Link) -> Option<Attachment<'_>> {
    let mut words = link.alias.as_deref()?.strip_prefix(NODE_ALIAS)?.strip_prefix(' ')?.splitn(4, ' ');
    let state = words.next()?;
    let (network, ifname, container_id) = (words.next()?, words.next()?, words.next()?);
    let attachment = Attachment::new(network, container_id, ifname);
    [ADDING, READY].contains(&state).then_some(attachment)
}

/// True if the interface is the node end of an attachment to this network.
pub fn belongs_to(link: &Link, network: &str) -> bool {
    [ADDING, READY].iter().any(|state| {
        link.alias.as_deref().is_some_and(|alias| alias.starts_with(&network_prefix(network, state)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::link;

    fn pod() -> Attachment<'static> {
        Attachment::new("vlan136", "0a1b", "eth0")
    }

    #[test]
    fn names_stay_what_they_were_in_earlier_releases() {
        // Attachments made before an upgrade are found by these names after it.
        assert_eq!(pod().host_interface(), "veth135e6cbfc22");
        assert_eq!(pod().metric(), 0xe6cb_fc22);
        assert_eq!(metric_of(&pod().host_interface()), Some(pod().metric()));
        assert_eq!(metric_of("eth0"), None);
    }

    #[test]
    fn another_interface_of_the_same_container_has_another_name() {
        let second = Attachment::new("vlan136", "0a1b", "net1");
        assert_ne!(pod().host_interface(), second.host_interface());
        assert_eq!(second.host_interface().len(), 15);
    }

    #[test]
    fn an_alias_fits_the_kernel_and_keeps_the_network() {
        let id = "f".repeat(200);
        let network = "n".repeat(180);
        let long = Attachment::new(&network, &id, "eth0");
        assert_eq!(long.alias_when_ready().len(), LONGEST_ALIAS);
        assert!(long.alias_when_ready().starts_with(&network_prefix(&network, READY)));
        let other = format!("{}e", "f".repeat(199));
        let other = Attachment::new(&network, &other, "eth0");
        assert_ne!(long.alias_when_ready(), other.alias_when_ready(), "they begin alike");
        assert_eq!(other.progress(&veth(Some(&long.alias_when_ready()))), Progress::Foreign);
    }

    #[test]
    fn the_name_of_a_network_that_was_renamed_is_told() {
        let renamed = Attachment::new("new", "0a1b", "eth0");
        for alias in [pod().alias_when_ready(), pod().alias_while_adding()] {
            assert_eq!(renamed.other_network(&veth(Some(&alias))), Some("vlan136"));
            assert_eq!(pod().other_network(&veth(Some(&alias))), None);
            let other = Attachment::new("new", "other", "eth0");
            assert_eq!(other.other_network(&veth(Some(&alias))), None);
        }
        let long = "f".repeat(240);
        let (old, new) = (Attachment::new("vlan136", &long, "eth0"), Attachment::new("new", &long, "eth0"));
        assert_eq!(new.other_network(&veth(Some(&old.alias_when_ready()))), Some("vlan136"));
        assert_eq!(renamed.other_network(&veth(None)), None);
        assert_eq!(renamed.other_network(&veth(Some("theirs pod n eth0 c"))), None);
    }

    fn veth(alias: Option<&str>) -> Link {
        Link { alias: alias.map(str::to_owned), ..link(7, &pod().host_interface(), Kind::Veth) }
    }

    #[test]
    fn an_attachment_knows_its_own_veth() {
        assert_eq!(pod().progress(&veth(None)), Progress::Adding);
        assert_eq!(pod().progress(&veth(Some(&pod().alias_while_adding()))), Progress::Adding);
        assert_eq!(pod().progress(&veth(Some(&pod().alias_when_ready()))), Progress::Ready);
        let id = "f".repeat(300);
        let long = Attachment::new("n", &id, "eth0");
        assert_eq!(long.progress(&veth(Some(&long.alias_when_ready()))), Progress::Ready);
    }

    #[test]
    fn an_alias_tells_whose_it_is() {
        for alias in [pod().alias_when_ready(), pod().alias_while_adding()] {
            assert_eq!(attachment_of(&veth(Some(&alias))), Some(pod()));
        }
        for other in [None, Some(NODE_ALIAS), Some("vlan-bridge pod n eth0"), Some("theirs pod n eth0 c")] {
            assert_eq!(attachment_of(&veth(other)), None, "{other:?}");
        }
    }

    #[test]
    fn an_attachment_leaves_what_others_have_under_its_name() {
        let second = Attachment::new("vlan136", "0a1b", "net1");
        assert_eq!(pod().progress(&veth(Some(&second.alias_when_ready()))), Progress::Foreign);
        let elsewhere = Attachment::new("other", "0a1b", "eth0");
        assert_eq!(pod().progress(&veth(Some(&elsewhere.alias_when_ready()))), Progress::Foreign);
        assert_eq!(pod().progress(&veth(Some("theirs eth0 0a1b"))), Progress::Foreign);
        let bridge = Link { kind: Kind::Other("dummy".into()), ..veth(None) };
        assert_eq!(pod().progress(&bridge), Progress::Foreign);
    }
}
