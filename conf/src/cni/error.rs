//! The specification's errors: a number, a message in one line, and details (CNI 1.1, section 5, "Error").

use std::fmt;

use serde_json::{Map, Value};

/// The error numbers. The specification has those below 100, our own begin at 100.
pub mod code {
    /// The configuration's `cniVersion` is unknown, or the verb is not part of it.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A key of the configuration asks for something that is not possible here. The message names the key and
    /// the value.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown or gone. The runtime need not clean up.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A `CNI_*` variable is missing or invalid.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing a file failed.
    pub const IO_FAILURE: u32 = 5;
    /// The configuration, or the answer of a delegate, could not be decoded.
    pub const DECODING_FAILURE: u32 = 6;
    /// The configuration has an invalid value, or keys that exclude each other.
    pub const INVALID_CONFIG: u32 = 7;
    /// `CNI_NETNS` is the plugin's own network namespace.
    pub const INVALID_NETNS: u32 = 8;
    /// A temporary condition. The runtime should try again.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// STATUS: an ADD cannot work now.
    pub const PLUGIN_NOT_AVAILABLE: u32 = 50;
    /// STATUS: an ADD cannot work now, and attached containers may be cut off too.
    pub const LIMITED_CONNECTIVITY: u32 = 51;

    /// ADD: the container already has an interface of this name.
    pub const INTERFACE_EXISTS: u32 = 100;
    /// CHECK: something is not as ADD left it.
    pub const CHECK_FAILED: u32 = 101;
    /// The kernel refused a netlink request.
    pub const KERNEL_REFUSED: u32 = 102;
    /// The IPAM plugin was not found, could not be executed or gave no JSON.
    pub const DELEGATE_FAILED: u32 = 103;
    /// A host port is held by another attachment.
    pub const PORT_TAKEN: u32 = 104;
    /// Another machine or pod has the requested MAC.
    pub const MAC_TAKEN: u32 = 105;
    /// IPAM: the container already has an address for this interface.
    pub const ALREADY_ALLOCATED: u32 = 110;
    /// IPAM: a requested address is taken, outside the ranges, or the gateway. `hostAccess`: the node has it
    /// in another VLAN.
    pub const ADDRESS_UNAVAILABLE: u32 = 111;
    /// A defect of the plugin itself. libcni has the same number for its own.
    pub const INTERNAL: u32 = 999;
}

/// An error for the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// A number of [`code`], or a delegate's own number.
    pub code: u32,
    /// One line, lower case, with the key and the value, without a full stop.
    pub msg: String,
    /// Further lines. May be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> CniError {
        CniError { code, msg: msg.into(), details: String::new() }
    }

    /// An error of the configuration ([`code::INVALID_CONFIG`]).
    pub fn config(msg: impl Into<String>) -> CniError {
        CniError::new(code::INVALID_CONFIG, msg)
    }

    /// The same error with details.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> CniError {
        self.details = details.into();
        self
    }

    /// The same error with another number.
    #[must_use]
    pub fn with_code(mut self, code: u32) -> CniError {
        self.code = code;
        self
    }

    /// The document for stdout, in this `cniVersion`. `details` is left out when empty.
    pub fn to_json(&self, version: &str) -> Value {
        let mut map = Map::new();
        map.insert("cniVersion".into(), version.into());
        map.insert("code".into(), self.code.into());
        map.insert("msg".into(), self.msg.clone().into());
        if !self.details.is_empty() {
            map.insert("details".into(), self.details.clone().into());
        }
        Value::Object(map)
    }

    /// Reads the error document that a delegate printed, to pass it on unchanged. None if it is not an error
    /// document.
    pub fn from_json(value: &Value) -> Option<CniError> {
        let code = value.get("code")?.as_u64().and_then(|code| u32::try_from(code).ok())?;
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(CniError { code, msg: text("msg"), details: text("details") })
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, " ({})", self.details) }
    }
}

impl std::error::Error for CniError {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn writes_details_only_when_there_are_any() {
        let bare = CniError::new(code::TRY_AGAIN_LATER, "full");
        assert_eq!(bare.to_json("1.0.0"), json!({"cniVersion": "1.0.0", "code": 11, "msg": "full"}));
        let more = bare.details("16 of 16");
        assert_eq!(more.to_json("1.1.0")["details"], "16 of 16");
        assert_eq!(more.to_string(), "full (16 of 16)");
    }

    #[test]
    fn passes_a_delegates_error_on_verbatim() {
        let theirs = json!({"cniVersion": "0.4.0", "code": 117, "msg": "No. Way.", "details": "x"});
        let error = CniError::from_json(&theirs).unwrap();
        assert_eq!(error.to_json("0.4.0"), theirs);
    }

    #[test]
    fn is_not_fooled_by_a_result() {
        assert_eq!(CniError::from_json(&json!({"cniVersion": "1.1.0", "ips": []})), None);
        assert_eq!(CniError::from_json(&json!({"code": "7", "msg": "x"})), None);
        assert_eq!(CniError::from_json(&json!({"code": u64::MAX, "msg": "x"})), None);
        assert_eq!(CniError::from_json(&json!([1])), None);
    }
}
