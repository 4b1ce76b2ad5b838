//! `ipam.pool`: the shared pool from which a node takes addresses beyond its own slice. It is for the agent.
//! For the IPAM plugin it says only how long an ADD waits.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::cni::env::is_identifier;
use crate::cni::error::CniError;
use crate::section::Section;

const KEY: &str = "pool";
/// The longest name of a pool in bytes, as of a node in Kubernetes.
const MAX_NAME: usize = 253;
/// The default prefix of the keys in etcd.
const DEFAULT_PREFIX: &str = "/vlan-bridge/v1";
const DEFAULT_LOW: u32 = 4;
const DEFAULT_HIGH: u32 = 16;
const DEFAULT_MAX: u32 = 256;
/// What `low` and `high` may be.
const MARKS: RangeInclusive<u64> = 0..=4096;
/// Beyond the first 2^20 addresses of a range nothing is given unasked.
const MAXIMA: RangeInclusive<u64> = 1..=1 << 20;
/// The default `wait` in seconds.
const DEFAULT_WAIT: u64 = 5;
/// A runtime gives an attachment a minute or more.
const WAITS: RangeInclusive<u64> = 0..=30;

/// The checked section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// The pool of each range set (`name`, `names`).
    pub names: Vec<String>,
    /// Where the pools are stored.
    pub store: PoolStore,
    /// Whether idle home addresses are given to other nodes that ask (`home`).
    pub lends_home: bool,
    /// With as many idle addresses or fewer, more are claimed.
    pub low: u32,
    /// As many idle addresses are there after that.
    pub high: u32,
    /// The network never holds more than this.
    pub max: u32,
    /// How long an ADD waits for an address.
    pub wait: Duration,
}

/// A store of pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolStore {
    /// `etcd`
    Etcd(EtcdConfig),
}

/// How etcd is reached. Certificates and passwords are files, because others may read a network list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `http://HOST:PORT` or `https://HOST:PORT`, at least one.
    pub endpoints: Vec<String>,
    /// What all keys begin with. It ends without a slash.
    pub prefix: String,
    /// The certificate of the authority that signed etcd's. None for the machine's authorities.
    pub ca: Option<PathBuf>,
    /// The client's certificate.
    pub cert: Option<PathBuf>,
    /// The key of that certificate.
    pub key: Option<PathBuf>,
    /// The user of etcd.
    pub user: Option<String>,
    /// The file with that user's password.
    pub password_file: Option<PathBuf>,
}

impl PoolConfig {
    /// Reads `pool` of an `ipam` section with this many range sets. None if there is no such key.
    ///
    /// # Errors
    /// A wrong value, and names for another number of sets.
    pub(crate) fn parse(
        root: &Section<'_>,
        ipam: &Section<'_>,
        sets: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Option<PoolConfig>, CniError> {
        let Some(pool) = ipam.section(KEY)? else { return Ok(None) };
        let names = names(root, &pool, sets)?;
        let etcd = pool.require("etcd", pool.section("etcd")?, "an object with endpoints")?;
        let store = PoolStore::Etcd(EtcdConfig::parse(&etcd, warnings)?);
        let lends_home = match pool.str("home")? {
            None | Some("kept") => false,
            Some("lent") => true,
            Some(other) => return Err(pool.wrong("home", &other.into(), "\"kept\" or \"lent\"")),
        };
        let number = |key, bounds, default| {
            let given = pool.uint(key, bounds)?.and_then(|number| u32::try_from(number).ok());
            Ok::<u32, CniError>(given.unwrap_or(default))
        };
        let (low, high) = (number("low", MARKS, DEFAULT_LOW)?, number("high", MARKS, DEFAULT_HIGH)?);
        if low > high {
            return Err(pool.error("low", format_args!("{low} is more than high, which is {high}")));
        }
        let max = number("max", MAXIMA, DEFAULT_MAX)?;
        let wait = Duration::from_secs(pool.uint("wait", WAITS)?.unwrap_or(DEFAULT_WAIT));
        warnings.extend(pool.unknown_in_words());
        Ok(Some(PoolConfig { names, store, lends_home, low, high, max, wait }))
    }
}

/// The pool of each set: `names`, or `name` and then `NAME.1` and so on. `name` is the network's by default.
fn names(root: &Section<'_>, pool: &Section<'_>, sets: usize) -> Result<Vec<String>, CniError> {
    let right = "the name of a pool: a letter or digit, then letters, digits, '_', '.' and '-'";
    let is_right = |name: &str| is_identifier(name) && name.len() <= MAX_NAME;
    let checked = |key: &str, name: &str| match is_right(name) {
        true => Ok(()),
        false => Err(pool.wrong(key, &name.into(), right)),
    };
    let (name, names) = (pool.str("name")?, pool.strings("names")?);
    if names.is_empty() {
        let name = pool.require("name", name.or(root.str("name")?), right)?;
        let names: Vec<String> =
            std::iter::once(name.to_owned()).chain((1..sets).map(|set| format!("{name}.{set}"))).collect();
        names.iter().try_for_each(|name| checked("name", name))?;
        return Ok(names);
    }
    if let Some(name) = name {
        return Err(pool.error("name", format_args!("{name:?} excludes names: remove one of them")));
    }
    if names.len() != sets {
        let why = format!("{} names for {sets} range sets: each set needs one", names.len());
        return Err(pool.error("names", why));
    }
    for (i, name) in names.iter().enumerate() {
        checked(&format!("names[{i}]"), name)?;
        if names.iter().take(i).any(|other| other == name) {
            return Err(pool.error("names", format_args!("{name:?} is there twice: each set needs its own")));
        }
    }
    Ok(names)
}

impl EtcdConfig {
    /// Reads the keys of `etcd` from an object of their own.
    ///
    /// # Errors
    /// A wrong value.
    pub fn from_object(etcd: &Map<String, Value>) -> Result<EtcdConfig, CniError> {
        EtcdConfig::parse(&Section::new(etcd, ""), &mut Vec::new())
    }

    fn parse(etcd: &Section<'_>, warnings: &mut Vec<String>) -> Result<EtcdConfig, CniError> {
        let endpoints = etcd.strings("endpoints")?;
        if endpoints.is_empty() {
            return Err(
                etcd.error("endpoints", "missing: must be a list such as [\"https://10.0.0.1:2379\"]")
            );
        }
        if let Some((i, endpoint)) = endpoints.iter().enumerate().find(|(_, endpoint)| !is_endpoint(endpoint))
        {
            let right = "http://HOST:PORT or https://HOST:PORT";
            return Err(etcd.wrong(&format!("endpoints[{i}]"), &endpoint.as_str().into(), right));
        }
        let prefix = etcd.str("prefix")?.unwrap_or(DEFAULT_PREFIX);
        if !is_prefix(prefix) {
            return Err(etcd.wrong("prefix", &prefix.into(), "a path such as /vlan-bridge/v1"));
        }
        let (ca, cert, key) = (etcd.absolute("ca")?, etcd.absolute("cert")?, etcd.absolute("key")?);
        let user = etcd.str("user")?.filter(|user| !user.is_empty()).map(str::to_owned);
        let password_file = etcd.absolute("passwordFile")?;
        for (one, has_one, other, has_other) in [
            ("cert", cert.is_some(), "key", key.is_some()),
            ("user", user.is_some(), "passwordFile", password_file.is_some()),
        ] {
            if has_one != has_other {
                let (missing, found) = if has_one { (other, one) } else { (one, other) };
                return Err(etcd.error(missing, format_args!("missing: {found} has no effect without it")));
            }
        }
        if endpoints.iter().all(|endpoint| endpoint.starts_with("http:")) {
            let given = [("ca", ca.is_some()), ("cert", cert.is_some())].into_iter().filter(|(_, is)| *is);
            warnings.extend(given.map(|(name, _)| format!("{}: no effect without https", etcd.path(name))));
        }
        warnings.extend(etcd.unknown_in_words());
        let prefix = prefix.to_owned();
        Ok(EtcdConfig { endpoints, prefix, ca, cert, key, user, password_file })
    }
}

/// Whether a string is a scheme, a host and a port, and nothing else.
fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some((host, port)) = rest.and_then(|rest| rest.rsplit_once(':')) else { return false };
    let bare = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => is_identifier(host),
    };
    bare && port.parse::<u16>().is_ok_and(|port| port > 0) && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether keys may begin with it: parts with a slash before each.
fn is_prefix(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_identifier))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cni::error::code;
    use crate::ipam::IpamConfig;

    fn parse(pool: Value) -> Result<IpamConfig, CniError> {
        let config = json!({"name": "vlan136", "ipam": {"pool": pool, "ranges": [
            [{"subnet": "172.20.56.0/24", "slice": "172.20.56.16/28"}], [{"subnet": "2001:db8::/112"}]]}});
        IpamConfig::parse(config.as_object().unwrap())
    }

    fn etcd() -> Value {
        json!({"endpoints": ["http://127.0.0.1:2379"]})
    }

    #[test]
    fn reads_every_key_and_its_default() {
        let pool = parse(json!({"etcd": etcd()})).unwrap().pool.unwrap();
        let PoolStore::Etcd(store) = &pool.store;
        assert_eq!(pool.names, ["vlan136", "vlan136.1"]);
        assert_eq!((pool.lends_home, pool.low, pool.high, pool.max), (false, 4, 16, 256));
        assert_eq!((pool.wait, store.prefix.as_str()), (Duration::from_secs(5), "/vlan-bridge/v1"));
        assert_eq!((&store.ca, &store.cert, &store.key, &store.user), (&None, &None, &None, &None));
        let config = parse(json!({"names": ["a", "b"], "home": "lent", "low": 0, "high": 1, "max": 8, "wait": 0,
            "etcd": {"endpoints": ["https://etcd.example:2379", "https://[2001:db8::1]:2379"], "prefix": "/x",
                "ca": "/c/ca", "cert": "/c/crt", "key": "/c/key", "user": "node", "passwordFile": "/c/password"}}))
        .unwrap();
        assert_eq!(config.warnings, [""; 0]);
        let pool = config.pool.unwrap();
        let PoolStore::Etcd(store) = &pool.store;
        assert_eq!(pool.names, ["a", "b"]);
        assert_eq!((pool.lends_home, pool.low, pool.high, pool.max), (true, 0, 1, 8));
        assert_eq!((pool.wait, store.prefix.as_str()), (Duration::ZERO, "/x"));
        assert_eq!(store.password_file, Some("/c/password".into()));
        assert_eq!((&store.cert, &store.key), (&Some("/c/crt".into()), &Some("/c/key".into())));
        assert_eq!(parse(json!({"name": "x", "etcd": etcd()})).unwrap().pool.unwrap().names, ["x", "x.1"]);
    }

    #[test]
    fn refuses() {
        let check = |key: &str, value: Value, expected: &str| {
            let mut pool = json!({"etcd": etcd()});
            match key.strip_prefix("etcd.") {
                Some(key) => pool["etcd"][key] = value,
                None => pool[key] = value,
            }
            let error = parse(pool).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.msg.starts_with(&format!("ipam.pool.{expected}")), "{}", error.msg);
        };
        check("name", json!("a b"), "name: \"a b\" is not the name of a pool");
        check("name", json!("x".repeat(252)), "name: ");
        check("names", json!(["a"]), "names: 1 names for 2 range sets: each set needs one");
        check("names", json!(["a", "a"]), "names: \"a\" is there twice");
        check("names", json!(["a", ""]), "names[1]: \"\" is not the name of a pool");
        check("etcd", json!(null), "etcd: missing: must be an object with endpoints");
        check("etcd", json!([]), "etcd: [] is not an object");
        check("home", json!("given"), "home: \"given\" is not \"kept\" or \"lent\"");
        check("low", json!(17), "low: 17 is more than high, which is 16");
        check("high", json!(4097), "high: 4097 is not a whole number from 0 to 4096");
        check("max", json!(0), "max: 0 is not a whole number from 1 to 1048576");
        check("wait", json!(31), "wait: 31 is not a whole number from 0 to 30");
        check("etcd.endpoints", json!([]), "etcd.endpoints: missing: must be a list such as");
        for wrong in [
            "127.0.0.1:2379",
            "https://a",
            "https://a:0",
            "https://a:+1",
            "https://a:1/x",
            "http://2001::1:1",
        ] {
            check("etcd.endpoints", json!(["http://a:1", wrong]), "etcd.endpoints[1]: ");
        }
        for wrong in ["", "/", "x", "/x/", "//x", "/x y"] {
            check("etcd.prefix", json!(wrong), "etcd.prefix: ");
        }
        check("etcd.ca", json!("ca.crt"), "etcd.ca: \"ca.crt\" is not an absolute path");
        check("etcd.cert", json!("/c"), "etcd.key: missing: cert has no effect without it");
        check("etcd.key", json!("/c"), "etcd.cert: missing: key has no effect without it");
        check("etcd.user", json!("u"), "etcd.passwordFile: missing: user has no effect without it");
        check("etcd.passwordFile", json!("/p"), "etcd.user: missing: passwordFile has no effect without it");
    }

    #[test]
    fn warns_of_what_has_no_effect() {
        let config =
            parse(json!({"x": 1, "etcd": {"endpoints": ["http://a:1"], "ca": "/c", "y": 2}})).unwrap();
        let expected = [
            "ipam.pool.etcd.ca: no effect without https",
            "ipam.pool.etcd.y: unknown key, ignored",
            "ipam.pool.x: unknown key, ignored",
        ];
        assert_eq!(config.warnings, expected);
    }

    #[test]
    fn ranges_are_the_whole_subnet_and_the_slice_is_home() {
        let config = parse(json!({"etcd": etcd()})).unwrap();
        let [v4, v6] = &config.ranges[..] else { panic!("{:?}", config.ranges) };
        let ip = |last: u8| std::net::IpAddr::from([172, 20, 56, last]);
        assert_eq!((v4.0[0].first, v4.0[0].last), (ip(1), ip(254)));
        assert_eq!(v4.0[0].home, Some((ip(16), ip(31))));
        assert_eq!((v4.to_string().as_str(), v4.capacity()), ("172.20.56.0/24", 253));
        assert_eq!(v6.0[0].home, None);
        let own: Vec<_> = config.own_ranges().map(|(_, range)| (range.first, range.last)).collect();
        assert_eq!(own, [(ip(16), ip(31))]);
    }

    #[test]
    fn home_is_where_a_pool_gives_addresses() {
        let of = |slice: &str| {
            let ipam = json!({"subnet": "2001:db8::/64", "slice": slice, "pool": {"etcd": etcd()}});
            IpamConfig::parse(json!({"name": "n", "ipam": ipam}).as_object().unwrap())
        };
        assert!(of("2001:db8::f:0/112").is_ok());
        let error = of("2001:db8::10:0/112").unwrap_err().msg;
        assert!(error.starts_with("ipam.pool: 2001:db8::10:0-2001:db8::10:ffff is not within"), "{error}");
    }

    #[test]
    fn two_slices_of_a_subnet_are_one_range_for_a_pool() {
        let ranges = |second: &str| {
            let set = json!([{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.5"}, {"subnet": second, "slice": second}]);
            let config = json!({"name": "n", "ipam": {"ranges": [set], "pool": {"etcd": etcd()}}});
            IpamConfig::parse(config.as_object().unwrap())
        };
        assert_eq!(ranges("10.0.1.0/24").unwrap().ranges[0].0.len(), 2);
        let error = ranges("10.0.0.0/30").unwrap_err();
        let expected = "ipam.pool: it gives from whole subnets, and 10.0.0.0/24 and 10.0.0.0/30 overlap";
        assert_eq!(error.msg, expected);
    }

    #[test]
    fn what_the_runtime_fills_in_is_of_no_pool() {
        let config = json!({"name": "n", "runtimeConfig": {"ipRanges": [[{"subnet": "10.3.0.0/24"}]]},
            "ipam": {"subnet": "10.1.0.0/24", "pool": {"etcd": etcd()}}});
        let error = IpamConfig::parse(config.as_object().unwrap()).unwrap_err();
        assert!(error.msg.starts_with("ipam.pool: excludes runtimeConfig.ipRanges"), "{}", error.msg);
    }
}
