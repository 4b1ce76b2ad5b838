//! What a block says of one address.

use std::fmt;

use crate::name::{Name, NotAName};

/// The holder of an address: one network of a node, under one of the node's epochs. Two networks of a node on
/// one VLAN are two holders.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// The node.
    pub node: Name,
    /// Its network.
    pub network: Name,
    /// The epoch of the node's register.
    pub epoch: u32,
}

/// A hardware address.
pub type Mac = [u8; 6];

/// What a block says of an address that is not free. A free address has no entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// `g NODE/NETWORK#EPOCH`: granted.
    Granted(Holder),
    /// `s NODE/NETWORK#EPOCH [MAC]`: the holder's epoch was lost, and a pod of it may still use the address.
    Suspect {
        /// The holder that was lost.
        of: Holder,
        /// The MAC that answered a probe since.
        answered: Option<Mac>,
    },
    /// `u NODE/NETWORK#EPOCH NODE/NETWORK#EPOCH`: granted to the first, but unproven: it was taken from the
    /// second, which was suspect. It is given only after a silent probe. The second stands here because an
    /// unproven address that is not needed becomes the second's suspect again.
    Unproven {
        /// The holder.
        by: Holder,
        /// The holder that was lost.
        of: Holder,
    },
    /// `w WORKLOAD`: kept for a workload that runs nowhere.
    Reserved(Name),
    /// `h NODE/NETWORK#EPOCH`: a home address, which lies in the holder's own slice. No lost epoch makes it
    /// suspect.
    Home(Holder),
    /// `h NODE`: a home address of a node that has no agent.
    Slice(Name),
}

/// A string that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEntry {
    /// An entry of another kind or another form.
    #[error(
        "{0:?} is none of: g HOLDER, s HOLDER [MAC], u HOLDER HOLDER, w WORKLOAD, h HOLDER, h NODE; \
         a HOLDER is NODE/NETWORK#EPOCH"
    )]
    Form(String),
    /// A wrong name.
    #[error(transparent)]
    Name(#[from] NotAName),
}

/// The longest text of an entry in bytes that is read.
const LONGEST: usize = 2048;

impl Entry {
    /// Reads the text of an entry.
    ///
    /// # Errors
    /// Any text that [`Entry`]'s `Display` does not write.
    pub fn parse(text: &str) -> Result<Entry, NotAnEntry> {
        let wrong = || NotAnEntry::Form(text.chars().take(LONGEST).collect());
        if text.len() > LONGEST {
            return Err(wrong());
        }
        let words: Vec<&str> = text.split(' ').collect();
        let holder = |text: &str| holder(text).unwrap_or_else(|| Err(wrong()));
        match words[..] {
            ["g", by] => Ok(Entry::Granted(holder(by)?)),
            ["s", of] => Ok(Entry::Suspect { of: holder(of)?, answered: None }),
            ["s", of, mac] => {
                let answered = Some(parse_mac(mac).ok_or_else(wrong)?);
                Ok(Entry::Suspect { of: holder(of)?, answered })
            }
            ["u", by, of] => Ok(Entry::Unproven { by: holder(by)?, of: holder(of)? }),
            ["w", workload] => Ok(Entry::Reserved(Name::new(workload)?)),
            ["h", by] if by.contains('/') => Ok(Entry::Home(holder(by)?)),
            ["h", node] => Ok(Entry::Slice(Name::new(node)?)),
            _ => Err(wrong()),
        }
    }

    /// The holder that may give the address to pods. None if nobody may.
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Entry::Granted(by) | Entry::Home(by) | Entry::Unproven { by, .. } => Some(by),
            Entry::Suspect { .. } | Entry::Reserved(_) | Entry::Slice(_) => None,
        }
    }
}

/// `NODE/NETWORK#EPOCH`. None if the form is another.
fn holder(text: &str) -> Option<Result<Holder, NotAnEntry>> {
    let (names, epoch) = text.split_once('#')?;
    let (node, network) = names.split_once('/')?;
    let whole = !epoch.starts_with(['0', '+']) || epoch == "0";
    let epoch = epoch.parse().ok().filter(|_| whole)?;
    let parsed = || Ok(Holder { node: Name::new(node)?, network: Name::new(network)?, epoch });
    Some(parsed())
}

/// Six pairs of lower-case hexadecimal digits between colons.
fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut pairs = text.split(':');
    for byte in &mut mac {
        let pair = pairs.next()?;
        let digits = pair.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        *byte = u8::from_str_radix(pair, 16).ok().filter(|_| digits && pair.len() == 2)?;
    }
    pairs.next().is_none().then_some(mac)
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.node, self.network, self.epoch)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Granted(by) => write!(f, "g {by}"),
            Entry::Suspect { of, answered: None } => write!(f, "s {of}"),
            Entry::Suspect { of, answered: Some([a, b, c, d, e, g]) } => {
                write!(f, "s {of} {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Entry::Unproven { by, of } => write!(f, "u {by} {of}"),
            Entry::Reserved(workload) => write!(f, "w {workload}"),
            Entry::Home(by) => write!(f, "h {by}"),
            Entry::Slice(node) => write!(f, "h {node}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_written() {
        for text in [
            "g node-07/vlan136#3",
            "s node-07/vlan136#0",
            "s node-07/vlan136#3 02:00:00:00:0a:ff",
            "u node-07/vlan136#3 node-02/vlan136#1",
            "w shop.db-0",
            "h node-07/vlan136#3",
            "h node-07",
        ] {
            assert_eq!(Entry::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn another_spelling_is_no_entry() {
        for text in [
            "",
            "g",
            "g ",
            "g a/b",
            "g a#1",
            "g a/b#",
            "g a/b#01",
            "g a/b#+1",
            "g a/b#4294967296",
            "g a/b/c#1",
            "g  a/b#1",
            "g a/b#1 ",
            "g a/b#1 c",
            "u a/b#1",
            "s a/b#1 02:00:00:00:0A:ff",
            "s a/b#1 02:00:00:00:0a",
            "s a/b#1 +2:00:00:00:0a:ff",
            "s a/b#1 02:00:00:00:0a:ff:",
            "w",
            "h a/b",
            "x a/b#1",
        ] {
            assert!(Entry::parse(text).is_err(), "{text:?}");
        }
    }
}
