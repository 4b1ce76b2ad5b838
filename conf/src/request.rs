//! One call of the runtime: its environment and configuration, with the checks that every plugin needs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::cni::env::{Command, Environment, is_identifier};
use crate::cni::error::{CniError, code};
use crate::cni::mac::MacAddr;
use crate::cni::result::AddResult;
use crate::cni::version::Version;
use crate::section::{Section, parse_ip};

/// The longest network name. IPAM makes it a directory, and file names have at most 255 bytes.
pub const MAX_NAME: usize = 180;

/// Keys of the protocol, and keys that all of our plugins share. No plugin warns about them, or about keys
/// that begin with [`RESERVED_PREFIX`].
pub const COMMON_KEYS: &[&str] = &[
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "runtimeConfig",
    "prevResult",
    "capabilities",
    "dns",
    "ipam",
    "logFile",
    "logLevel",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
];

/// The prefix of keys that the specification keeps for itself (CNI 1.1, section 1).
pub const RESERVED_PREFIX: &str = "cni.dev/";

/// Whether a top-level key is one of [`COMMON_KEYS`] or reserved.
pub fn is_common_key(key: &str) -> bool {
    key.starts_with(RESERVED_PREFIX) || COMMON_KEYS.iter().any(|common| common.eq_ignore_ascii_case(key))
}

/// The log level. The same five levels as in the log crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    #[default]
    Warn,
    Info,
    Debug,
    Trace,
}

/// Where and how much to log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// `logFile`: an absolute path. None for stderr.
    pub file: Option<PathBuf>,
    /// `logLevel`
    pub level: LogLevel,
}

/// One call of the runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The environment variables.
    pub env: Environment,
    /// `cniVersion`: the version to answer in.
    pub version: Version,
    /// `name`: the network's name, which is a safe file name. Empty for VERSION.
    pub name: String,
    /// The whole configuration.
    pub config: Map<String, Value>,
    /// The configuration's unchanged bytes, for a delegate.
    pub stdin: Vec<u8>,
}

impl Request {
    /// Reads the configuration. It checks only the keys `cniVersion` and `name`, so that no other key can
    /// fail DEL and GC.
    ///
    /// # Errors
    /// [`code::DECODING_FAILURE`] when stdin is not a JSON object, [`code::INCOMPATIBLE_VERSION`] for an
    /// unknown version or a verb that the version does not have, [`code::INVALID_CONFIG`] for a missing or
    /// invalid `name`.
    pub fn parse(env: Environment, stdin: Vec<u8>) -> Result<Request, CniError> {
        let config = if env.command == Command::Version { lenient(&stdin) } else { decode(&stdin)? };
        let version = version_of(&config)?;
        if !version.supports(env.command) {
            let (verb, since) = match env.command {
                Command::Check => ("CHECK", "0.4.0"),
                other => (other.as_str(), "1.1.0"),
            };
            let version = version.as_str();
            let msg = format!("cniVersion: {version} does not have {verb}: {since} or later is needed");
            return Err(CniError::new(code::INCOMPATIBLE_VERSION, msg));
        }
        let name = if env.command == Command::Version { String::new() } else { name_of(&config)? };
        Ok(Request { env, version, name, config, stdin })
    }

    /// The same request for a network with another name. Delegates get that name too.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Request {
        let mut renamed = Request { name: name.to_owned(), ..self.clone() };
        renamed.config.insert("name".into(), name.into());
        renamed.stdin = Value::Object(renamed.config.clone()).to_string().into_bytes();
        renamed
    }

    /// The configuration as a section.
    pub fn root(&self) -> Section<'_> {
        Section::new(&self.config, "")
    }

    /// The version for an error of [`Request::parse`]: the configuration's if it could be read, otherwise the
    /// newest.
    pub fn version_for_errors(stdin: &[u8]) -> Version {
        decode(stdin).and_then(|config| version_of(&config)).unwrap_or(Version::NEWEST)
    }

    /// The requested `cniVersion`, supported or not, which VERSION echoes. None if the configuration has
    /// none.
    pub fn version_asked(stdin: &[u8]) -> Option<String> {
        let config = lenient(stdin);
        let asked = Section::new(&config, "").str("cniVersion").ok()??;
        (!asked.is_empty()).then(|| asked.to_owned())
    }

    /// `prevResult`: the result of the chain so far. For CHECK and DEL, the result of ADD.
    ///
    /// # Errors
    /// An invalid key. The message names its path.
    pub fn prev_result(&self) -> Result<Option<AddResult>, CniError> {
        let Some(value) = self.root().value("prevResult") else { return Ok(None) };
        AddResult::from_json_at(value, self.version, "prevResult").map(Some)
    }

    /// `cni.dev/valid-attachments`, or its alias `cni.dev/attachments`: container id and interface name of
    /// every attachment that is still wanted (CNI 1.1, section 2, "GC"). An absent list is not an empty one:
    /// with an empty list or null, GC releases every attachment.
    ///
    /// # Errors
    /// Any invalid entry. If it was skipped, GC would release a valid attachment.
    pub fn valid_attachments(&self) -> Result<Option<Vec<(String, String)>>, CniError> {
        const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let root = self.root();
        let Some(key) = KEYS.into_iter().find(|key| root.value(key).is_some()) else {
            // libcni writes an empty list as null.
            let is_null =
                KEYS.iter().any(|key| self.config.keys().any(|there| there.eq_ignore_ascii_case(key)));
            return Ok(is_null.then(Vec::new));
        };
        let text = |section: &Section<'_>, key: &str| {
            let value = section.str(key)?.filter(|text| !text.is_empty());
            section.require(key, value, "a string").map(str::to_owned)
        };
        let pair = |section: &Section<'_>| Ok((text(section, "containerID")?, text(section, "ifname")?));
        root.sections(key)?.iter().map(pair).collect::<Result<_, CniError>>().map(Some)
    }

    /// `logFile` and `logLevel`.
    ///
    /// # Errors
    /// A relative path or an unknown level.
    pub fn log_settings(&self) -> Result<LogSettings, CniError> {
        let root = self.root();
        let file = root.str("logFile")?.filter(|text| !text.is_empty());
        // JSON strings may contain NUL, paths may not.
        if let Some(file) = file.filter(|file| !Path::new(file).is_absolute() || file.contains('\0')) {
            return Err(root.wrong("logFile", &file.into(), "an absolute path"));
        }
        let level = match root.str("logLevel")?.map(str::to_ascii_lowercase).as_deref() {
            None | Some("") => LogLevel::default(),
            Some("error") => LogLevel::Error,
            Some("warn" | "warning") => LogLevel::Warn,
            Some("info") => LogLevel::Info,
            Some("debug") => LogLevel::Debug,
            Some("trace") => LogLevel::Trace,
            Some(other) => {
                return Err(root.wrong("logLevel", &other.into(), "one of error, warn, info, debug, trace"));
            }
        };
        Ok(LogSettings { file: file.map(PathBuf::from), level })
    }

    /// The requested hardware address: `runtimeConfig.mac`, else `args.cni.mac`, else `MAC` of `CNI_ARGS`.
    ///
    /// # Errors
    /// An address that no interface can have.
    pub fn requested_mac(&self) -> Result<Option<MacAddr>, CniError> {
        Ok(self.requested_mac_and_key()?.map(|(mac, _)| mac))
    }

    /// The requested hardware address, and the key that requested it.
    ///
    /// # Errors
    /// An address that no interface can have.
    pub fn requested_mac_and_key(&self) -> Result<Option<(MacAddr, String)>, CniError> {
        for section in [self.runtime_config()?, self.cni_args()?].into_iter().flatten() {
            if let Some(text) = section.str("mac")?.filter(|text| !text.is_empty()) {
                let mac = MacAddr::parse_unicast(text).map_err(|error| section.error("mac", error))?;
                return Ok(Some((mac, section.path("mac"))));
            }
        }
        Ok(self.env.args.mac.map(|mac| (mac, "CNI_ARGS: MAC".into())))
    }

    /// The requested addresses: `IP` of `CNI_ARGS`, then `args.cni.ips`, then `runtimeConfig.ips`; prefix
    /// lengths are ignored, and an address that is requested twice counts once.
    ///
    /// # Errors
    /// An entry that is not an address. The message names its path.
    pub fn requested_ips(&self) -> Result<Vec<IpAddr>, CniError> {
        let mut ips = self.env.args.ip.clone();
        for section in [self.cni_args()?, self.runtime_config()?].into_iter().flatten() {
            for (i, text) in section.strings("ips")?.iter().enumerate() {
                let wrong = || section.wrong(&format!("ips[{i}]"), &text.as_str().into(), "an IP address");
                ips.push(parse_ip(text).ok_or_else(wrong)?);
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        ips.retain(|ip| seen.insert(*ip));
        Ok(ips)
    }

    /// `runtimeConfig`: the values of the declared capabilities, from the runtime.
    ///
    /// # Errors
    /// When it is not an object.
    pub fn runtime_config(&self) -> Result<Option<Section<'_>>, CniError> {
        self.root().section("runtimeConfig")
    }

    /// `args.cni`: the conventional place for arguments in the configuration.
    ///
    /// # Errors
    /// When `args` or `args.cni` is not an object.
    pub fn cni_args(&self) -> Result<Option<Section<'_>>, CniError> {
        self.root().section("args")?.map_or(Ok(None), |args| args.section("cni"))
    }
}

/// The JSON object on stdin.
fn decode(stdin: &[u8]) -> Result<Map<String, Value>, CniError> {
    let fail = |msg: String| CniError::new(code::DECODING_FAILURE, msg);
    if stdin.iter().all(u8::is_ascii_whitespace) {
        return Err(fail("stdin: the network configuration is missing: must be a JSON object".into()));
    }
    match serde_json::from_slice(stdin) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(fail("stdin: the network configuration is not a JSON object".into())),
        Err(error) => Err(fail(format!("stdin: the network configuration is not JSON: {error}"))),
    }
}

/// Reads `cniVersion` for VERSION, which may come with an empty or invalid stdin.
fn lenient(stdin: &[u8]) -> Map<String, Value> {
    decode(stdin).unwrap_or_default()
}

fn version_of(config: &Map<String, Value>) -> Result<Version, CniError> {
    let text = Section::new(config, "").str("cniVersion");
    let text = text.map_err(|error| error.with_code(code::INCOMPATIBLE_VERSION))?;
    Version::parse(text.unwrap_or_default())
}

fn name_of(config: &Map<String, Value>) -> Result<String, CniError> {
    let root = Section::new(config, "");
    let name =
        root.require("name", root.str("name")?.filter(|name| !name.is_empty()), "the network's name")?;
    if name.len() > MAX_NAME {
        let why = format!("the network's name has {} bytes: at most {MAX_NAME} are allowed", name.len());
        return Err(root.error("name", why));
    }
    if !is_identifier(name) {
        let right = "a network name: a letter or digit, then letters, digits, '_', '.' and '-'";
        return Err(root.wrong("name", &name.into(), right));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
