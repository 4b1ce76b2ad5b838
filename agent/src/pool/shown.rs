//! What the agent shows of its pools to `status` and `doctor`.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// A network's range set that takes addresses from a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolShown {
    /// The network, with the set's number if it is not the first.
    pub network: String,
    /// The pool.
    pub pool: String,
    /// Granted addresses: the node's own, and others.
    pub home: u64,
    /// See `home`.
    pub leased: u64,
    /// How many of both no pod has. None before the leases were read.
    pub idle: Option<u32>,
    /// ADDs that wait for an address.
    pub waiting: u32,
    /// Why the pool is not used.
    pub problem: Option<String>,
    /// Since when its store does not answer, since 1970, and the error.
    pub away: Option<(Duration, String)>,
}

impl PoolShown {
    pub(crate) fn to_json(&self) -> Value {
        let PoolShown { network, pool, home, leased, idle, waiting, problem, away } = self;
        let away = away.as_ref().map(|(since, error)| json!({"since": since.as_secs(), "error": error}));
        json!({"network": network, "pool": pool, "home": home, "leased": leased, "idle": idle,
            "waiting": waiting, "problem": problem, "storeAway": away})
    }

    pub(crate) fn from_json(value: &Value) -> Option<PoolShown> {
        let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
        let count = |key: &str| value[key].as_u64();
        let small = |key: &str| count(key).and_then(|count| u32::try_from(count).ok());
        let away = match &value["storeAway"] {
            Value::Null => None,
            away => Some((Duration::from_secs(away["since"].as_u64()?), text(away, "error")?)),
        };
        Some(PoolShown {
            network: text(value, "network")?,
            pool: text(value, "pool")?,
            home: count("home")?,
            leased: count("leased")?,
            idle: small("idle"),
            waiting: small("waiting")?,
            problem: text(value, "problem"),
            away,
        })
    }
}

/// `network vlan136: pool vlan136: 14 home, 3 leased, 2 idle`, and what is wrong.
impl fmt::Display for PoolShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PoolShown { network, pool, home, leased, idle, waiting, problem, away } = self;
        if let Some(problem) = problem {
            return write!(f, "network {network}: {problem}");
        }
        write!(f, "network {network}: pool {pool}: {home} home, {leased} leased")?;
        if let Some(idle) = idle {
            write!(f, ", {idle} idle")?;
        }
        if *waiting > 0 {
            write!(f, ", {waiting} pods wait")?;
        }
        away.as_ref().map_or(Ok(()), |(_, error)| write!(f, "; its store does not answer: {error}"))
    }
}
