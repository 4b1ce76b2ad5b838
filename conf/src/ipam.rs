//! The `ipam` section of vlan-bridge-ipam: host-local's keys with host-local's meaning, plus `slice`,
//! `exclude`, `cooldown`, `conflictDetection`, `statusOnExhaustion` and `pool`.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::cni::error::CniError;
use crate::cni::result::{Route, convertible};
use crate::cni::version::Version;
use crate::detection::Detection;
use crate::family::Family;
use crate::pool::PoolConfig;
use crate::range::{Range, RangeSet, excluded};
use crate::section::Section;

/// The default `dataDir`, host-local's.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// So many addresses of a subnet are given from a pool, from its first on. The store of leases lists no more.
const POOLED: u128 = 1 << 20;

/// The longest `cooldown`: a day, in seconds.
const MAX_COOLDOWN: u64 = 86_400;

/// The default `cooldown` in seconds.
pub const DEFAULT_COOLDOWN: u32 = 30;

/// The checked `ipam` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpamConfig {
    /// A container gets one address of each set. The capability `ipRanges` comes first, then the shorthand
    /// (`subnet` and its companions directly in the section), then `ranges`. With `pool`, each range is all
    /// of its subnet.
    pub ranges: Vec<RangeSet>,
    /// `routes`, for the result.
    pub routes: Vec<Route>,
    /// `resolvConf`: a resolv.conf(5) whose content becomes the result's `dns`.
    pub resolv_conf: Option<PathBuf>,
    /// `dataDir`: the directory that holds a directory of leases for each network.
    pub data_dir: PathBuf,
    /// `cooldown`: how long a released address is not assigned while there are others, in seconds.
    pub cooldown: u32,
    /// `conflictDetection`: how the network is probed for an address before it is assigned. None if it is not
    /// probed.
    pub detection: Option<Detection>,
    /// `statusOnExhaustion`: whether STATUS fails if no address is free.
    pub status_on_exhaustion: bool,
    /// `pool`: where addresses beyond the node's own slice come from. None if there are none.
    pub pool: Option<PoolConfig>,
    /// Warnings for the operator: unknown keys, values without effect. No verb fails because of them.
    pub warnings: Vec<String>,
}

impl IpamConfig {
    /// Reads the section `ipam` and `runtimeConfig.ipRanges` of a configuration.
    ///
    /// # Errors
    /// [`crate::cni::error::code::INVALID_CONFIG`], with the key, the value and the right form.
    pub fn parse(config: &Map<String, Value>) -> Result<IpamConfig, CniError> {
        let root = Section::new(config, "");
        let ipam = root.require("ipam", root.section("ipam")?, "an object with a subnet")?;
        ipam.value("type");
        let mut warnings = Vec::new();
        let mut ranges = Vec::new();
        if let Some(runtime) = root.section("runtimeConfig")? {
            range_sets(&runtime, "ipRanges", &mut ranges, &mut warnings)?;
        }
        shorthand(&ipam, &mut ranges, &mut warnings)?;
        range_sets(&ipam, "ranges", &mut ranges, &mut warnings)?;
        exclude_everywhere(&ipam, &mut ranges)?;
        if ranges.is_empty() {
            return Err(ipam.error("subnet", "subnet and ranges are missing: add one of them"));
        }
        let pool = PoolConfig::parse(&root, &ipam, ranges.len(), &mut warnings)?;
        if pool.is_some() {
            widen(&root, &ipam, &mut ranges)?;
        }
        for (i, set) in ranges.iter().enumerate() {
            if let Some(other) = ranges[..i].iter().find(|other| sets_overlap(other, set)) {
                return Err(ipam.error("ranges", format_args!("the sets {other} and {set} overlap")));
            }
        }
        let cooldown = ipam.uint("cooldown", 0..=MAX_COOLDOWN)?;
        let cooldown = cooldown.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_COOLDOWN);
        let detection = Detection::parse(&root, &ipam, &mut warnings)?;
        let status_on_exhaustion = ipam.bool("statusOnExhaustion")?;
        let routes = routes(&ipam, &mut warnings)?;
        let resolv_conf = ipam.absolute("resolvConf")?;
        let data_dir = ipam.absolute("dataDir")?.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        warnings.extend(ipam.unknown_in_words());
        Ok(IpamConfig {
            ranges,
            routes,
            resolv_conf,
            data_dir,
            cooldown,
            detection,
            status_on_exhaustion,
            pool,
            warnings,
        })
    }

    /// Checks, before an address is leased, that `version` can express a result with this section's
    /// addresses.
    ///
    /// # Errors
    /// [`crate::cni::error::code::UNSUPPORTED_FIELD`]: more than one address of a family in 0.1.0 or 0.2.0.
    pub fn check_version(&self, version: Version) -> Result<(), CniError> {
        let v4 = self.ranges.iter().filter(|set| set.family() == Family::V4).count();
        convertible(version, v4, self.ranges.len() - v4)
    }

    /// The ranges that are this node's alone, each with its set. With a pool these are the homes.
    pub fn own_ranges(&self) -> impl Iterator<Item = (&RangeSet, Range)> {
        let is_pooled = self.pool.is_some();
        let own = move |range: &Range| match range.home {
            Some((first, last)) => Some(Range { first, last, ..range.clone() }),
            None => (!is_pooled).then(|| range.clone()),
        };
        self.ranges.iter().flat_map(move |set| set.0.iter().filter_map(move |range| Some((set, own(range)?))))
    }

    /// Only `dataDir`, for the verbs that release. Nothing else in the section may make them fail. An
    /// unusable path counts as the default, because no ADD can have succeeded with it.
    pub fn data_dir(config: &Map<String, Value>) -> PathBuf {
        let root = Section::new(config, "");
        let ipam = root.section("ipam").ok().flatten();
        let dir = ipam.and_then(|ipam| ipam.absolute("dataDir").ok().flatten());
        dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into())
    }
}

/// The range whose keys are directly in the section, if any.
fn shorthand(
    ipam: &Section<'_>,
    sets: &mut Vec<RangeSet>,
    warnings: &mut Vec<String>,
) -> Result<(), CniError> {
    if ipam.value("subnet").is_some() {
        let range = Range::from_section(ipam, warnings)?;
        sets.push(RangeSet::new(&ipam.path("subnet"), vec![range])?);
        return Ok(());
    }
    if let Some(slice) = ipam.value("slice") {
        return Err(ipam.error("slice", format_args!("{slice} without a subnet: add ipam.subnet")));
    }
    for key in ["rangeStart", "rangeEnd", "gateway"] {
        if ipam.value(key).is_some() {
            warnings.push(format!("{}: no effect without a subnet beside it", ipam.path(key)));
        }
    }
    Ok(())
}

/// Applies an `exclude` beside `ranges` to all of them.
fn exclude_everywhere(ipam: &Section<'_>, sets: &mut [RangeSet]) -> Result<(), CniError> {
    for net in excluded(ipam, None)? {
        for range in sets.iter_mut().flat_map(|set| &mut set.0) {
            if (range.subnet.contains(&net) || net.contains(&range.subnet)) && !range.exclude.contains(&net) {
                range.exclude.push(net);
            }
        }
    }
    match sets.iter().find(|set| set.capacity() == 0) {
        Some(set) => Err(ipam.error("exclude", format_args!("it leaves no address of {set}"))),
        None => Ok(()),
    }
}

/// Makes each range all of its subnet: a pool may grant any of its addresses.
fn widen(root: &Section<'_>, ipam: &Section<'_>, sets: &mut [RangeSet]) -> Result<(), CniError> {
    if let Some(runtime) = root.section("runtimeConfig")?.filter(|it| it.value("ipRanges").is_some()) {
        let why =
            format!("excludes {}, which is of one pod only: remove one of them", runtime.path("ipRanges"));
        return Err(ipam.error("pool", why));
    }
    sets.iter_mut().flat_map(|set| &mut set.0).for_each(Range::widen);
    let ranges = sets.iter().flat_map(|set| &set.0);
    let is_far = |(_, range, last): &(IpAddr, &Range, IpAddr)| {
        range.offset_of(*last).is_none_or(|offset| offset >= POOLED)
    };
    let homes = ranges.filter_map(|range| range.home.map(|(first, last)| (first, range, last)));
    if let Some((first, range, last)) = homes.into_iter().find(is_far) {
        let why = format!(
            "{first}-{last} is not within the first {POOLED} addresses of {}: a pool gives no others",
            range.subnet
        );
        return Err(ipam.error("pool", why));
    }
    for set in sets.iter() {
        for (i, range) in set.0.iter().enumerate() {
            if let Some(other) = set.0.iter().take(i).find(|other| other.overlaps(range)) {
                let why = format!("it gives from whole subnets, and {other} and {range} overlap");
                return Err(ipam.error("pool", why));
            }
        }
    }
    Ok(())
}

fn range_sets(
    section: &Section<'_>,
    key: &str,
    sets: &mut Vec<RangeSet>,
    warnings: &mut Vec<String>,
) -> Result<(), CniError> {
    for (i, list) in section.section_lists(key)?.iter().enumerate() {
        let mut ranges = Vec::new();
        for keys in list {
            ranges.push(Range::from_section(keys, warnings)?);
            warnings.extend(keys.unknown_in_words());
        }
        sets.push(RangeSet::new(&section.path(&format!("{key}[{i}]")), ranges)?);
    }
    Ok(())
}

/// The routes. The kernel refuses an IPv4 destination with host bits, so they are cleared.
fn routes(ipam: &Section<'_>, warnings: &mut Vec<String>) -> Result<Vec<Route>, CniError> {
    let mut routes = Vec::new();
    for section in ipam.sections("routes")? {
        let mut route = Route::from_section(&section)?;
        if route.dst != route.dst.trunc() {
            let path = section.path("dst");
            warnings.push(format!("{path}: {} has host bits set: {} is used", route.dst, route.dst.trunc()));
            route.dst = route.dst.trunc();
        }
        warnings.extend(section.unknown_in_words());
        routes.push(route);
    }
    Ok(routes)
}

fn sets_overlap(a: &RangeSet, b: &RangeSet) -> bool {
    a.0.iter().any(|range| b.0.iter().any(|other| range.overlaps(other)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::cni::error::code;

    fn parse(ipam: Value) -> Result<IpamConfig, CniError> {
        IpamConfig::parse(json!({ "ipam": ipam }).as_object().unwrap())
    }

    #[test]
    fn reads_the_issues_example() {
        let config = parse(json!({"type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24",
            "slice": "172.20.56.16/28", "gateway": "172.20.56.1", "routes": [{"dst": "0.0.0.0/0"}]}))
        .unwrap();
        assert_eq!(config.ranges.len(), 1);
        assert_eq!(config.ranges[0].capacity(), 16);
        assert_eq!(config.routes[0].dst.to_string(), "0.0.0.0/0");
        assert_eq!(config.data_dir, Path::new(DEFAULT_DATA_DIR));
        assert_eq!(config.warnings, [""; 0]);
    }

    #[test]
    fn sets_stand_in_host_locals_order() {
        let config = json!({
            "runtimeConfig": {"ipRanges": [[{"subnet": "10.3.0.0/24"}]]},
            "ipam": {"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.2.0.0/24"}, {"subnet": "10.4.0.0/24"}]]}});
        let config = IpamConfig::parse(config.as_object().unwrap()).unwrap();
        let sets: Vec<String> = config.ranges.iter().map(RangeSet::to_string).collect();
        assert_eq!(sets, ["10.3.0.0/24", "10.1.0.0/24", "10.2.0.0/24, 10.4.0.0/24"]);
        assert!(config.check_version(Version::V0_2_0).is_err());
        assert!(config.check_version(Version::V0_3_0).is_ok());
    }

    #[test]
    fn refuses() {
        let check = |ipam: Value, part: &str| {
            let error = parse(ipam).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.msg.starts_with(part), "{}", error.msg);
        };
        check(json!({}), "ipam.subnet: subnet and ranges are missing");
        check(json!(7), "ipam: 7 is not an object");
        check(json!({"slice": "10.0.0.0/28"}), "ipam.slice: \"10.0.0.0/28\" without a subnet");
        check(json!({"ranges": [[]]}), "ipam.ranges[0]: an empty list");
        check(json!({"ranges": [{}]}), "ipam.ranges[0]: {} is not a list of objects");
        check(
            json!({"ranges": [[{"subnet": "10.0.0.0/24", "gateway": "x"}]]}),
            "ipam.ranges[0][0].gateway: \"x\"",
        );
        check(
            json!({"subnet": "10.0.0.0/24", "ranges": [[{"subnet": "10.0.0.0/16"}]]}),
            "ipam.ranges: the sets",
        );
        check(
            json!({"subnet": "10.0.0.0/24", "dataDir": "x"}),
            "ipam.dataDir: \"x\" is not an absolute path",
        );
        check(json!({"subnet": "10.0.0.0/24", "dataDir": "/a\u{0}b"}), "ipam.dataDir");
        check(json!({"subnet": "10.0.0.0/24", "resolvConf": 7}), "ipam.resolvConf: 7 is not a string");
        check(json!({"subnet": "10.0.0.0/24", "routes": [{}]}), "ipam.routes[0].dst: missing");
        for (key, value) in [
            ("exclude", json!(["x"])),
            ("exclude", json!("10.0.0.5")),
            ("cooldown", json!("30s")),
            ("cooldown", json!(86_401)),
            ("statusOnExhaustion", json!(1)),
        ] {
            check(json!({"subnet": "10.0.0.0/24", key: value}), &format!("ipam.{key}"));
        }
        check(
            json!({"subnet": "10.0.0.0/24", "exclude": ["10.0.0.5/24"]}),
            "ipam.exclude[0]: 10.0.0.5/24 has host bits",
        );
        check(
            json!({"subnet": "10.0.0.0/24", "exclude": ["10.0.1.5"]}),
            "ipam.exclude[0]: 10.0.1.5/32 is not within",
        );
        check(
            json!({"subnet": "10.0.0.0/24", "exclude": ["10.0.0.0/24"]}),
            "ipam.subnet: 10.0.0.0/24: every address is excluded",
        );
        assert!(IpamConfig::parse(&Map::new()).unwrap_err().msg.starts_with("ipam: missing"));
    }

    #[test]
    fn exclusions_next_to_ranges_are_of_all_of_them() {
        let config = parse(json!({"exclude": ["10.1.0.5", "10.2.0.128/25"], "cooldown": 0, "ranges":
            [[{"subnet": "10.1.0.0/24", "exclude": ["10.1.0.5", "10.1.0.8/29"]}, {"subnet": "10.2.0.0/24"}],
             [{"subnet": "2001:db8::/64"}]]}))
        .unwrap();
        assert_eq!(config.warnings, [""; 0]);
        assert_eq!((config.cooldown, config.status_on_exhaustion), (0, false));
        let [set, v6] = &config.ranges[..] else { panic!("{:?}", config.ranges) };
        assert_eq!(set.0.iter().map(|range| set.capacity_of(range)).collect::<Vec<_>>(), [253 - 9, 126]);
        assert_eq!(v6.capacity(), (1 << 64) - 2);
        let refused: Result<IpamConfig, CniError> =
            parse(json!({"exclude": ["10.1.0.0/16"], "ranges": [[{"subnet": "10.1.0.0/24"}]]}));
        assert!(refused.unwrap_err().msg.starts_with("ipam.exclude: it leaves no address of 10.1.0.0/24"));
    }

    #[test]
    fn warns_of_what_has_no_effect() {
        let config =
            parse(json!({"gateway": "10.0.0.1", "future": 1, "routes": [{"dst": "10.1.2.3/8", "x": 1}],
            "ranges": [[{"subnet": "10.0.0.0/24", "y": 1}]]}))
            .unwrap();
        assert_eq!(
            config.warnings,
            [
                "ipam.gateway: no effect without a subnet beside it",
                "ipam.ranges[0][0].y: unknown key, ignored",
                "ipam.routes[0].dst: 10.1.2.3/8 has host bits set: 10.0.0.0/8 is used",
                "ipam.routes[0].x: unknown key, ignored",
                "ipam.future: unknown key, ignored",
            ]
        );
        assert_eq!(config.routes[0].dst.to_string(), "10.0.0.0/8");
    }

    #[test]
    fn the_data_directory_survives_a_broken_section() {
        let check = |config: Value, expected: &str| {
            assert_eq!(IpamConfig::data_dir(config.as_object().unwrap()), Path::new(expected));
        };
        check(json!({"ipam": {"subnet": 5, "dataDir": "/x"}}), "/x");
        check(json!({"ipam": {"dataDir": ""}}), DEFAULT_DATA_DIR);
        check(json!({"ipam": {"dataDir": 7}}), DEFAULT_DATA_DIR);
        check(json!({"ipam": "x"}), DEFAULT_DATA_DIR);
        check(json!({}), DEFAULT_DATA_DIR);
    }
}
