//! The document of a pool: which addresses it has, and when those of a lost node are taken from it. An
//! operator writes it, and every agent reads it.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde_json::{Value, json};

use crate::block::{BlockKey, SIZE, VERSION};
use crate::runs::{Runs, address, bits};
use crate::value::{self, Object, Unreadable, wrong};

/// The value of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Document {
    /// The pool's identity, drawn when it was made. Another pool of the same name has another one.
    pub id: String,
    /// The pool's addresses, all of one family. Each address of a prefix counts, so the network and broadcast
    /// addresses of a subnet have to be excluded.
    pub ranges: Runs,
    /// Those of them that no node may claim.
    pub exclude: Runs,
    /// When a node's leased addresses become suspect.
    pub reclaim: Reclaim,
    /// How long nobody has heard of a node before others may call it lost.
    pub lost_after: Duration,
    /// How long an ADD may take at most from its choice of an address to its end.
    pub margin: Duration,
    /// Whether nodes may claim.
    pub state: PoolState,
    /// How often a node found that the store went back to an older state.
    pub restored: u32,
}

/// The evidence that a node is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reclaim {
    /// The word of an operator. Nodes give leased addresses without end.
    Operator,
    /// Kubernetes has deleted the node.
    Deleted {
        /// How long a node gives leased addresses after its last confirmation.
        give_for: Duration,
    },
    /// Nobody has heard of the node for `lost_after`.
    Silent {
        /// How long a node gives leased addresses after its last confirmation.
        give_for: Duration,
    },
}

/// Whether nodes may claim addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolState {
    /// Yes.
    Open,
    /// No: the store went back to an older state, and nodes may hold what it does not know of.
    Recovering,
    /// No, by the word of an operator.
    Frozen,
}

/// The longest time from an ADD's choice of an address to its end: the kubelet gives up after four minutes.
pub const LONGEST_ADD: Duration = Duration::from_secs(240);
/// The least `margin` in seconds: an ADD that has just looked at the clock still has to end.
const LEAST_MARGIN: u64 = LONGEST_ADD.as_secs() + 60;

/// What a word makes of `giveFor`. None: it has no such time.
type OfGiveFor = Option<fn(Duration) -> Reclaim>;

const RECLAIM: [(&str, OfGiveFor); 3] = [
    ("operator", None),
    ("deleted", Some(|give_for| Reclaim::Deleted { give_for })),
    ("silent", Some(|give_for| Reclaim::Silent { give_for })),
];

const STATES: [(&str, PoolState); 3] =
    [("open", PoolState::Open), ("recovering", PoolState::Recovering), ("frozen", PoolState::Frozen)];

impl Document {
    /// Reads a value.
    ///
    /// # Errors
    /// Anything that [`Document::to_json`] does not write, apart from spaces and unknown keys; no range,
    /// ranges that overlap or are of both families; an exclusion outside them; `giveFor` with the word of an
    /// operator, or none without it.
    pub fn parse(bytes: &[u8]) -> Result<Document, Unreadable> {
        value::parse(bytes, Document::from_json)
    }

    /// Reads the value's JSON object.
    ///
    /// # Errors
    /// See [`Document::parse`].
    pub fn from_json(value: &Value) -> Result<Document, Unreadable> {
        let object = Object::of(value)?;
        let ranges = ranges(object)?;
        let mut exclude = Runs::default();
        for (first, last) in object.list("exclude", RANGE, range)? {
            exclude.insert_run(first, last);
        }
        if let Some(addr) = exclude.without(&ranges).first() {
            return Err(wrong("exclude", addr, "an address of ranges"));
        }
        Ok(Document {
            id: object.identity("id")?,
            ranges,
            exclude,
            reclaim: reclaim(object)?,
            lost_after: object.seconds("lostAfter", 1)?,
            margin: object.seconds("margin", LEAST_MARGIN)?,
            state: object.word("state", &STATES)?,
            restored: object.maybe_count("restored")?,
        })
    }

    /// The value as JSON: `{"v": 1, "id": "…", "ranges": ["172.20.56.0/24"], "exclude": ["172.20.56.1"],
    /// "reclaim": "deleted", "giveFor": 1800, "lostAfter": 1800, "margin": 300, "state": "open"}`.
    pub fn to_json(&self) -> Value {
        let Document { id, ranges, exclude, reclaim, lost_after, margin, state, restored } = self;
        let word = match reclaim {
            Reclaim::Operator => "operator",
            Reclaim::Deleted { .. } => "deleted",
            Reclaim::Silent { .. } => "silent",
        };
        let state = match state {
            PoolState::Open => "open",
            PoolState::Recovering => "recovering",
            PoolState::Frozen => "frozen",
        };
        let [ranges, exclude] =
            [ranges, exclude].map(|runs| runs.iter_runs().map(written).collect::<Vec<_>>());
        let mut value = json!({
            "v": VERSION, "id": id, "ranges": ranges, "exclude": exclude, "reclaim": word,
            "lostAfter": lost_after.as_secs(), "margin": margin.as_secs(), "state": state,
        });
        if *restored > 0 {
            value["restored"] = (*restored).into();
        }
        if let Some(give_for) = self.give_for() {
            value["giveFor"] = give_for.as_secs().into();
        }
        value
    }

    /// The document after a node found that the store went back, for the time with this number. It is
    /// written by compare-and-swap. None if the document knows of it, whether or not the pool is open again.
    pub fn recovering(&self, restored: u32) -> Option<Document> {
        let state = PoolState::Recovering;
        (self.restored < restored).then(|| Document { state, restored, ..self.clone() })
    }

    /// How long a node gives leased addresses after its last confirmation. None: without end.
    pub fn give_for(&self) -> Option<Duration> {
        match self.reclaim {
            Reclaim::Operator => None,
            Reclaim::Deleted { give_for } | Reclaim::Silent { give_for } => Some(give_for),
        }
    }

    /// Whether another document is of the same addresses and policy, in whichever state the pool is.
    pub fn has_the_same_addresses(&self, other: &Document) -> bool {
        let Document { id, state, restored, .. } = self.clone();
        Document { id, state, restored, ..other.clone() } == *self
    }

    /// Whether nodes may claim an address.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.ranges.contains(addr) && !self.exclude.contains(addr)
    }

    /// The addresses that nodes may claim.
    pub fn addresses(&self) -> Runs {
        self.ranges.without(&self.exclude)
    }

    /// The addresses of one block that nodes may claim.
    pub fn addresses_of(&self, block: BlockKey) -> Runs {
        block.addresses().filter(|addr| self.contains(*addr)).collect()
    }

    /// The blocks in which the ranges have addresses, each once. All addresses of a block may be excluded.
    pub fn blocks(&self) -> impl Iterator<Item = BlockKey> + '_ {
        let mut last_before = None;
        self.ranges.iter_runs().flat_map(move |(first, last)| {
            let index = |addr| bits(addr) / u128::from(SIZE);
            // The block of two runs comes with the first of them.
            let from = index(first) + u128::from(last_before == Some(index(first)));
            last_before = Some(index(last));
            (from..=index(last)).map(move |index| BlockKey::of(address(index * u128::from(SIZE), first)))
        })
    }
}

const RANGE: &str = "an address, two of one family as FIRST-LAST, or a prefix without host bits";

/// The ranges, which share no address and are of one family.
fn ranges(object: Object<'_>) -> Result<Runs, Unreadable> {
    let mut ranges = Runs::default();
    for (first, last) in object.list("ranges", RANGE, range)? {
        let mut one = Runs::default();
        one.insert_run(first, last);
        if let Some(addr) = one.first_common(&ranges) {
            return Err(wrong("ranges", addr, "in one range only"));
        }
        if ranges.first().is_some_and(|other| other.is_ipv4() != first.is_ipv4()) {
            return Err(wrong("ranges", first, "of the first range's family"));
        }
        ranges.insert_run(first, last);
    }
    if ranges.is_empty() {
        return Err(wrong("ranges", "[]", "a list with a range"));
    }
    Ok(ranges)
}

fn reclaim(object: Object<'_>) -> Result<Reclaim, Unreadable> {
    match (object.word("reclaim", &RECLAIM)?, object.maybe_seconds("giveFor", 1)?) {
        (None, None) => Ok(Reclaim::Operator),
        (None, Some(give_for)) => {
            Err(wrong("giveFor", give_for.as_secs(), "absent, as it must be with reclaim operator"))
        }
        (Some(of), _) => object.seconds("giveFor", 1).map(of),
    }
}

/// `ADDRESS`, `FIRST-LAST` or `ADDRESS/LENGTH`.
fn range(range: &str) -> Option<(IpAddr, IpAddr)> {
    if !range.contains('/') {
        return value::run(range);
    }
    let net: IpNet = range.parse().ok()?;
    (net.trunc() == net).then(|| (net.network(), net.broadcast()))
}

/// A run, as a prefix if it is one.
fn written((first, last): (IpAddr, IpAddr)) -> String {
    let prefix: Option<IpNet> = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).next().map(IpNet::from),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).next().map(IpNet::from),
        _ => None,
    };
    match prefix.filter(|prefix| prefix.broadcast() == last) {
        _ if first == last => first.to_string(),
        Some(prefix) => prefix.to_string(),
        None => format!("{first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = concat!(
        r#"{"exclude":["172.20.56.0","172.20.56.255"],"giveFor":1800,"#,
        r#""id":"00112233445566778899aabbccddeeff","lostAfter":1800,"margin":300,"#,
        r#""ranges":["172.20.56.0/24"],"reclaim":"deleted","state":"open","v":1}"#,
    );

    fn changed(from: &str, to: &str) -> Result<Document, Unreadable> {
        assert!(DOCUMENT.contains(from));
        Document::parse(DOCUMENT.replace(from, to).as_bytes())
    }

    fn of_ranges(ranges: &str) -> Document {
        let exclude = changed(r#""exclude":["172.20.56.0","172.20.56.255"]"#, r#""exclude":[]"#).unwrap();
        let mut value = exclude.to_json();
        value["ranges"] = serde_json::from_str(ranges).unwrap();
        Document::from_json(&value).unwrap()
    }

    fn ip(addr: &str) -> IpAddr {
        addr.parse().unwrap()
    }

    fn blocks(ranges: &str) -> Vec<String> {
        of_ranges(ranges).blocks().map(|block| block.to_string()).collect()
    }

    #[test]
    fn a_document_is_read_as_it_is_written() {
        let operator = DOCUMENT.replace("deleted", "operator").replace(r#""giveFor":1800,"#, "");
        for state in ["open", "recovering", "frozen"] {
            for document in [DOCUMENT, &DOCUMENT.replace("deleted", "silent"), &operator] {
                let document = document.replace("open", state);
                assert_eq!(Document::parse(document.as_bytes()).unwrap().to_json().to_string(), document);
            }
        }
        assert_eq!(Document::parse(operator.as_bytes()).unwrap().give_for(), None);
        assert_eq!(changed("deleted", "silent").unwrap().give_for(), Some(Duration::from_secs(1800)));
        let texts = |ranges| of_ranges(ranges).to_json()["ranges"].to_string();
        assert_eq!(texts(r#"["10.0.0.0/25","10.0.0.128/25"]"#), r#"["10.0.0.0/24"]"#);
        assert_eq!(texts(r#"["10.0.0.0-10.0.0.2","10.0.0.9"]"#), r#"["10.0.0.0-10.0.0.2","10.0.0.9"]"#);
        assert_eq!(texts(r#"["0.0.0.0/0"]"#), r#"["0.0.0.0/0"]"#);
        assert_eq!(texts(r#"["::/0"]"#), r#"["::/0"]"#);
    }

    #[test]
    fn a_document_hears_once_that_its_store_went_back() {
        let open = changed("open", "frozen").unwrap();
        let recovering = open.recovering(1).unwrap();
        assert_eq!((recovering.state, recovering.restored), (PoolState::Recovering, 1));
        assert_eq!(Document::from_json(&recovering.to_json()).unwrap(), recovering);
        let thawed = Document { state: PoolState::Open, ..recovering };
        assert_eq!((thawed.recovering(1), thawed.recovering(2).map(|again| again.restored)), (None, Some(2)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |from: &str, to: &str| changed(from, to).unwrap_err().to_string();
        let ranges = |to: &str| error(r#""172.20.56.0/24""#, to);
        assert_eq!(ranges(""), "ranges: [] is not a list with a range");
        let form = "is not an address, two of one family as FIRST-LAST, or a prefix without host bits";
        assert_eq!(ranges(r#""172.20.56.1/24""#), format!(r#"ranges: "172.20.56.1/24" {form}"#));
        assert_eq!(ranges(r#""10.0.0.2-10.0.0.1""#), format!(r#"ranges: "10.0.0.2-10.0.0.1" {form}"#));
        assert_eq!(
            ranges(r#""172.20.56.0/24","172.20.56.255-172.20.57.3""#),
            "ranges: 172.20.56.255 is not in one range only"
        );
        assert_eq!(ranges(r#""172.20.56.0/24","::/64""#), "ranges: :: is not of the first range's family");
        assert_eq!(ranges(r#""::/64","10.0.0.1""#), "ranges: 10.0.0.1 is not of the first range's family");
        assert_eq!(
            error(r#""172.20.56.255""#, r#""172.20.57.0""#),
            "exclude: 172.20.57.0 is not an address of ranges"
        );
        assert_eq!(error(r#""giveFor":1800"#, r#""giveFor":0"#), format!("giveFor: 0 {SECONDS}"));
        assert_eq!(
            error(r#""giveFor":1800,"#, ""),
            format!("giveFor {}", SECONDS.replace("is not", "is missing: must be"))
        );
        assert_eq!(
            error("deleted", "operator"),
            "giveFor: 1800 is not absent, as it must be with reclaim operator"
        );
        assert_eq!(error(":300", ":299"), "margin: 299 is not a number of seconds from 300 to 31536000");
        assert_eq!(error("deleted", "never"), r#"reclaim: "never" is not one of operator, deleted, silent"#);
        assert_eq!(error(r#""v":1"#, r#""v":3"#), "v: 3 is not 1, the version that this release reads");
    }

    const SECONDS: &str = "is not a number of seconds from 1 to 31536000";

    #[test]
    fn what_is_excluded_is_not_for_claims() {
        let document = changed("172.20.56.255", "172.20.56.100-172.20.56.255").unwrap();
        let addr = |last: u8| IpAddr::from([172, 20, 56, last]);
        assert_eq!(
            [0, 1, 99, 100, 255].map(|last| document.contains(addr(last))),
            [false, true, true, false, false]
        );
        let of = |last: u8| document.addresses_of(BlockKey::of(addr(last))).texts().collect::<Vec<_>>();
        assert_eq!(of(0), ["172.20.56.1-172.20.56.63"]);
        assert_eq!(of(64), ["172.20.56.64-172.20.56.99"]);
        assert!(of(128).is_empty() && document.addresses_of(BlockKey::of(ip("::"))).is_empty());
        assert_eq!(document.addresses().len(), 99);
    }

    #[test]
    fn each_block_comes_once() {
        assert_eq!(blocks(r#"["10.0.0.70-10.0.0.80"]"#), ["10.0.0.64/26"]);
        assert_eq!(
            blocks(r#"["10.0.0.1","10.0.0.5","10.0.0.9-10.0.0.64","10.0.0.66"]"#),
            ["10.0.0.0/26", "10.0.0.64/26"]
        );
        assert_eq!(blocks(r#"["255.255.255.0/24"]"#).last().unwrap(), "255.255.255.192/26");
        // An exclusion takes addresses, not blocks.
        let document = changed("172.20.56.255", "172.20.56.64-172.20.56.255").unwrap();
        assert_eq!(document.blocks().count(), 4);
    }

    #[test]
    fn blocks_are_not_listed_before_they_are_asked_for() {
        let all = of_ranges(r#"["::/0"]"#);
        assert_eq!(all.blocks().nth(1), Some(BlockKey::of(ip("::40"))));
        assert_eq!(all.addresses_of(BlockKey::of(ip("2001:db8::1"))).len(), 64);
        let million = of_ranges(r#"["2001:db8::/108"]"#);
        assert_eq!(million.blocks().count(), 1 << 14);
        assert_eq!(million.blocks().last(), Some(BlockKey::of(ip("2001:db8::f:ffff"))));
    }
}
