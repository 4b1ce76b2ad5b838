//! Matches interfaces against the conditions of definitions.

/// The properties of an interface, which may not exist yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    /// The type that `networkctl` shows: `ether`, `bridge`, `bond`, `vlan`; none if unknown.
    pub(crate) type_: Option<&'static str>,
    /// The kernel's kind, which `ip -d link` shows; none for a NIC.
    pub(crate) kind: Option<String>,
    /// None if unknown.
    pub(crate) driver: Option<String>,
    pub(crate) mac: Option<String>,
    pub(crate) permanent_mac: Option<String>,
}

/// Whether a definition applies to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Applies {
    No,
    /// The known conditions hold, and the others cannot be evaluated here.
    Maybe,
    Yes,
}

impl From<bool> for Applies {
    fn from(yes: bool) -> Applies {
        if yes { Applies::Yes } else { Applies::No }
    }
}

/// The property that a condition tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property {
    Name,
    Type,
    Kind,
    Driver,
    Mac,
    PermanentMac,
    /// A property that is not evaluated, such as a path or the hostname.
    Unknown,
}

/// A condition of a definition. A pattern with a leading `!` excludes; with only such patterns, everything
/// else matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) property: Property,
    pub(super) patterns: Vec<String>,
}

impl Condition {
    pub(super) fn evaluate(&self, device: &Device) -> Applies {
        let known = |value: &Option<String>| value.as_deref().map(|value| self.admits(Some(value)).into());
        match self.property {
            Property::Name => self.admits(Some(&device.name)).into(),
            Property::Kind => self.admits(device.kind.as_deref()).into(),
            Property::Type => device.type_.map_or(Applies::Maybe, |of| self.admits(Some(of)).into()),
            Property::Driver => known(&device.driver).unwrap_or(Applies::Maybe),
            Property::Mac => known(&device.mac.as_deref().map(digits)).unwrap_or(Applies::Maybe),
            // Virtual interfaces have none.
            Property::PermanentMac => {
                self.admits(device.permanent_mac.as_deref().map(digits).as_deref()).into()
            }
            Property::Unknown => Applies::Maybe,
        }
    }

    fn admits(&self, value: Option<&str>) -> bool {
        let is_mac = matches!(self.property, Property::Mac | Property::PermanentMac);
        let fits = |pattern: &str| {
            let pattern = if is_mac { digits(pattern) } else { pattern.to_owned() };
            value.is_some_and(|value| matches(pattern.as_bytes(), value.as_bytes()))
        };
        let (negative, positive): (Vec<&str>, Vec<&str>) =
            self.patterns.iter().map(String::as_str).partition(|pattern| pattern.starts_with('!'));
        !negative.iter().any(|pattern| fits(&pattern[1..]))
            && (positive.is_empty() || positive.iter().any(|pattern| fits(pattern)))
    }
}

/// The digits of a MAC address, without separators.
fn digits(mac: &str) -> String {
    mac.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect::<String>().to_lowercase()
}

/// Matches `*`, `?` and `[a-z]`, as in file names.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, name) || name.split_first().is_some_and(|(_, name)| matches(pattern, name))
        }
        (Some((b'?', pattern)), Some((_, name))) => matches(pattern, name),
        (Some((b'[', rest)), Some((byte, name))) => match class(rest, *byte) {
            Some((is_in, pattern)) => is_in && matches(pattern, name),
            None => *byte == b'[' && matches(rest, name),
        },
        (Some((a, pattern)), Some((b, name))) if a == b => matches(pattern, name),
        _ => false,
    }
}

/// Whether a byte is in a character class, and the pattern after the class; none without a closing bracket.
fn class(text: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (text, negated) = match text.first() {
        Some(b'!' | b'^') => (&text[1..], true),
        _ => (text, false),
    };
    // A closing bracket in the first place is a literal.
    let end = 1 + text.get(1..)?.iter().position(|byte| *byte == b']')?;
    let (mut members, rest) = (&text[..end], &text[end + 1..]);
    let mut is_in = false;
    while let Some((first, after)) = members.split_first() {
        (is_in, members) = match after {
            [b'-', last, after @ ..] => (is_in || (*first..=*last).contains(&byte), after),
            _ => (is_in || *first == byte, after),
        };
    }
    Some((is_in != negated, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(property: Property, patterns: &str, device: &Device) -> Applies {
        Condition { property, patterns: patterns.split_whitespace().map(str::to_owned).collect() }
            .evaluate(device)
    }

    #[test]
    fn patterns_are_matched_whole() {
        for (pattern, name, expected) in [
            ("nic0", "nic0", true),
            ("nic0", "nic01", false),
            ("n*0", "nic0", true),
            ("*", "br136", true),
            ("ni?0", "nic0", true),
            ("nic[0-3]", "nic2", true),
            ("nic[!0-3]", "nic2", false),
            ("eth* nic*", "nic0", true),
            ("!nic*", "nic0", false),
            ("!nic*", "br136", true),
            ("!eth* !nic*", "nic0", false),
            ("nic* !nic0", "nic0", false),
            ("nic* !nic0", "nic1", true),
        ] {
            let device = Device { name: name.into(), ..Device::default() };
            assert_eq!(judge(Property::Name, pattern, &device), Applies::from(expected), "{pattern} {name}");
        }
    }

    #[test]
    fn kinds_drivers_and_macs_match_as_far_as_they_are_known() {
        let mut nic = Device { name: "nic0".into(), type_: Some("ether"), ..Device::default() };
        assert_eq!(judge(Property::Kind, "!*", &nic), Applies::Yes, "hardware has no kind");
        assert_eq!(judge(Property::Kind, "bridge", &nic), Applies::No);
        assert_eq!(judge(Property::Driver, "virtio_net", &nic), Applies::Maybe);
        assert_eq!(judge(Property::Unknown, "pci-*", &nic), Applies::Maybe);
        nic.mac = Some("02:00:00:00:00:0a".into());
        assert_eq!(judge(Property::Mac, "02-00-00-00-00-0A", &nic), Applies::Yes);
        assert_eq!(judge(Property::PermanentMac, "02:00:00:00:00:0a", &nic), Applies::No);
    }
}
