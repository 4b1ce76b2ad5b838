//! A cursor over one JSON object of the configuration. It knows its key path and which keys were read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::cni::error::CniError;

/// One JSON object and its path in the configuration.
///
/// Keys are looked up exactly, then without regard to ASCII case. Go's encoding/json does the same, and
/// configurations for the reference plugins rely on it. JSON `null` is an absent key. All errors carry
/// [`crate::cni::error::code::INVALID_CONFIG`] and read `path: value is not …`.
#[derive(Debug)]
pub struct Section<'a> {
    map: &'a Map<String, Value>,
    path: String,
    /// Existing keys that were read, in their spelling in the configuration.
    asked: RefCell<BTreeSet<&'a str>>,
    /// Every key that was read.
    known: RefCell<BTreeSet<String>>,
}

/// A key that no code reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// The key's path in the configuration.
    pub path: String,
    /// The key that was probably meant.
    similar: Option<String>,
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: unknown key, ignored", self.path)?;
        match &self.similar {
            Some(similar) => write!(f, "; did you mean {similar}?"),
            None => Ok(()),
        }
    }
}

impl<'a> Section<'a> {
    /// A section at a path such as `ipam.ranges[0][1]`; the configuration itself has the empty path.
    pub fn new(map: &'a Map<String, Value>, path: impl Into<String>) -> Section<'a> {
        Section { map, path: path.into(), asked: RefCell::default(), known: RefCell::default() }
    }

    /// The path of one of this section's keys.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An error about one key: `path: why`.
    pub fn error(&self, key: &str, why: impl Display) -> CniError {
        CniError::config(format!("{}: {why}", self.path(key)))
    }

    /// An error about one key's value: `path: value is not right`.
    pub fn wrong(&self, key: &str, value: &Value, right: &str) -> CniError {
        self.error(key, format_args!("{} is not {right}", excerpt(value)))
    }

    /// The value of a key, unchecked.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.known.borrow_mut().insert(key.to_owned());
        let (found, value) = self
            .map
            .get_key_value(key)
            .or_else(|| self.map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)))?;
        self.asked.borrow_mut().insert(found);
        (!value.is_null()).then_some(value)
    }

    /// A key that must be there; `right` says what it should hold.
    ///
    /// # Errors
    /// When `value` is `None`.
    pub fn require<T>(&self, key: &str, value: Option<T>, right: &str) -> Result<T, CniError> {
        value.ok_or_else(|| self.error(key, format_args!("missing: must be {right}")))
    }

    /// A string. An empty one is returned as it is.
    ///
    /// # Errors
    /// Anything but a JSON string.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, CniError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, value, "a string"))
    }

    /// A flag, `None` when absent.
    ///
    /// # Errors
    /// Anything but true and false.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, CniError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    /// A flag, false when absent.
    ///
    /// # Errors
    /// Anything but true and false.
    pub fn bool(&self, key: &str) -> Result<bool, CniError> {
        Ok(self.opt_bool(key)?.unwrap_or(false))
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// Any other value, such as a string or a fraction.
    pub fn uint(&self, key: &str, bounds: RangeInclusive<u64>) -> Result<Option<u64>, CniError> {
        let right = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.bounded(key, bounds, &right)
    }

    /// A whole number that messages call `what`: `uplink.vlan: 4095 is not a VLAN id: 1 to 4094`.
    ///
    /// # Errors
    /// As [`Section::uint`].
    pub fn number(
        &self,
        key: &str,
        what: &str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, CniError> {
        let right = format!("{what}: {} to {}", bounds.start(), bounds.end());
        self.bounded(key, bounds, &right)
    }

    /// Like [`Section::number`], but 0 counts as absent, as in Go. `zero` says what that means: `vlan: 4095
    /// is not a VLAN id: 1 to 4094, or 0 for none`.
    ///
    /// # Errors
    /// As [`Section::uint`].
    pub fn uint_zero_as_none(
        &self,
        key: &str,
        what: &str,
        bounds: RangeInclusive<u64>,
        zero: &str,
    ) -> Result<Option<u64>, CniError> {
        if self.value(key).and_then(Value::as_u64) == Some(0) {
            return Ok(None);
        }
        let right = format!("{what}: {} to {}, or 0 for {zero}", bounds.start(), bounds.end());
        self.bounded(key, bounds, &right)
    }

    fn bounded(&self, key: &str, bounds: RangeInclusive<u64>, right: &str) -> Result<Option<u64>, CniError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if bounds.contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(key, value, right)),
        }
    }

    /// An IP address without a prefix length. The empty string counts as absent, as in Go.
    ///
    /// # Errors
    /// Anything else.
    pub fn ip(&self, key: &str) -> Result<Option<IpAddr>, CniError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_str() {
            Some("") => Ok(None),
            Some(text) if !text.contains('/') => {
                parse_ip(text).map(Some).ok_or_else(|| self.wrong(key, value, "an IP address"))
            }
            _ => Err(self.wrong(key, value, "an IP address")),
        }
    }

    /// An address with a prefix length. Host bits are kept.
    ///
    /// # Errors
    /// Anything else.
    pub fn cidr(&self, key: &str) -> Result<Option<IpNet>, CniError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let right = "an address with a prefix length such as 172.20.56.0/24";
        let net = value.as_str().and_then(parse_cidr);
        net.map(Some).ok_or_else(|| self.wrong(key, value, right))
    }

    /// An absolute path. The empty string counts as absent.
    ///
    /// # Errors
    /// Anything else.
    pub fn absolute(&self, key: &str) -> Result<Option<PathBuf>, CniError> {
        let Some(text) = self.str(key)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        // A JSON string may contain NUL, a path may not.
        if !Path::new(text).is_absolute() || text.contains('\0') {
            return Err(self.wrong(key, &text.into(), "an absolute path"));
        }
        Ok(Some(text.into()))
    }

    /// An object.
    ///
    /// # Errors
    /// Anything else.
    pub fn section(&self, key: &str) -> Result<Option<Section<'a>>, CniError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.wrong(key, value, "an object"))?;
        Ok(Some(Section::new(map, self.path(key))))
    }

    /// A list of objects; empty when absent.
    ///
    /// # Errors
    /// Anything else.
    pub fn sections(&self, key: &str) -> Result<Vec<Section<'a>>, CniError> {
        self.value(key).map_or(Ok(Vec::new()), |value| self.objects(key, value))
    }

    /// A list of lists of objects, as `ranges` of host-local is; empty when absent.
    ///
    /// # Errors
    /// Anything else.
    pub fn section_lists(&self, key: &str) -> Result<Vec<Vec<Section<'a>>>, CniError> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let lists = value.as_array().ok_or_else(|| self.wrong(key, value, "a list of lists"))?;
        lists.iter().enumerate().map(|(i, list)| self.objects(&format!("{key}[{i}]"), list)).collect()
    }

    fn objects(&self, key: &str, value: &'a Value) -> Result<Vec<Section<'a>>, CniError> {
        let list = value.as_array().ok_or_else(|| self.wrong(key, value, "a list of objects"))?;
        let object = |(i, item): (usize, &'a Value)| {
            let key = format!("{key}[{i}]");
            let map = item.as_object().ok_or_else(|| self.wrong(&key, item, "an object"))?;
            Ok(Section::new(map, self.path(&key)))
        };
        list.iter().enumerate().map(object).collect()
    }

    /// A list of strings; empty when absent.
    ///
    /// # Errors
    /// Anything else.
    pub fn strings(&self, key: &str) -> Result<Vec<String>, CniError> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| self.wrong(key, value, "a list of strings"))?;
        let text = |(i, item): (usize, &Value)| {
            item.as_str()
                .map(str::to_owned)
                .ok_or_else(|| self.wrong(&format!("{key}[{i}]"), item, "a string"))
        };
        list.iter().enumerate().map(text).collect()
    }

    /// The keys that no code has read. Call it after everything was read.
    pub fn unknown(&self) -> Vec<UnknownKey> {
        self.unknown_except(|_| false)
    }

    /// The unknown keys as warnings.
    pub fn unknown_in_words(&self) -> impl Iterator<Item = String> {
        self.unknown().into_iter().map(|key| key.to_string())
    }

    /// The unknown keys without those that `is_known` accepts.
    pub fn unknown_except(&self, is_known: impl Fn(&str) -> bool) -> Vec<UnknownKey> {
        let asked = self.asked.borrow();
        let unasked = self.map.keys().filter(|key| !asked.contains(key.as_str()) && !is_known(key));
        unasked.map(|key| UnknownKey { path: self.path(key), similar: self.similar(key) }).collect()
    }

    /// The known key nearest to an unknown one: at most two letters differ, and fewer than half.
    fn similar(&self, key: &str) -> Option<String> {
        const FARTHEST: usize = 2;
        let distance = |known: &String| strsim::osa_distance(&known.to_lowercase(), &key.to_lowercase());
        let known = self.known.borrow();
        let (nearest, by) = known.iter().map(|known| (known, distance(known))).min_by_key(|(_, by)| *by)?;
        (by <= FARTHEST && by * 2 < nearest.len()).then(|| nearest.clone())
    }
}

/// An address. A prefix length is ignored. An IPv4-mapped IPv6 address becomes IPv4, as in Go.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    let net =
        if text.contains('/') { parse_cidr(text) } else { text.parse::<IpAddr>().ok().map(IpNet::from) };
    net.map(|net| net.addr().to_canonical())
}

/// An address with a prefix length; host bits are kept.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    let net: IpNet = text.parse().ok()?;
    match (net.addr().to_canonical(), net.prefix_len()) {
        (addr @ IpAddr::V4(_), prefix) if matches!(net, IpNet::V6(_)) => {
            IpNet::new(addr, prefix.checked_sub(96)?).ok()
        }
        _ => Some(net),
    }
}

/// A value for a message: its JSON, cut if it is long.
fn excerpt(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
