//! What an agent shows to other programs: `/run/vlan-bridge/agent/NODE/state.json`. The agent writes it after
//! each pass and after each report. `vlan-bridgectl agent --check`, `status` and `doctor` read it.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cni_conf::cni::error::{CniError, code};
use cni_skel::draft;
use serde_json::{Value, json};
use vlan_bridge::AgentLock;

use crate::conflicts::KnownConflict;
use crate::health::Health;
use crate::pool::PoolShown;
use crate::recent::Told;

/// What an agent shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentState {
    /// The version of the agent. Empty before it has written anything.
    pub version: String,
    /// Its last pass. None before the first one has ended.
    pub health: Option<Health>,
    /// The conflicts that last.
    pub conflicts: Vec<KnownConflict>,
    /// The pools that its networks take addresses from.
    pub pools: Vec<PoolShown>,
    /// Its last reports, the oldest first.
    pub recent: Vec<Told>,
}

impl AgentState {
    /// The document, as the file has it.
    pub fn to_json(&self) -> Value {
        json!({
            "version": self.version,
            "health": self.health.map(Health::to_json),
            "conflicts": self.conflicts.iter().map(KnownConflict::to_json).collect::<Vec<_>>(),
            "pools": self.pools.iter().map(PoolShown::to_json).collect::<Vec<_>>(),
            "recent": self.recent.iter().map(Told::to_json).collect::<Vec<_>>(),
        })
    }

    /// Reads such a document. None if another version wrote it.
    pub fn from_json(value: &Value) -> Option<AgentState> {
        let list = |key: &str| value[key].as_array();
        let health = match &value["health"] {
            Value::Null => None,
            health => Some(Health::from_json(health)?),
        };
        Some(AgentState {
            version: value["version"].as_str()?.to_owned(),
            health,
            conflicts: list("conflicts")?.iter().map(KnownConflict::from_json).collect::<Option<_>>()?,
            // Agents before pools wrote none.
            pools: list("pools").into_iter().flatten().map(PoolShown::from_json).collect::<Option<_>>()?,
            recent: list("recent")?.iter().map(Told::from_json).collect::<Option<_>>()?,
        })
    }

    /// Writes the file. A reader sees the whole old one or the whole new one.
    pub(crate) fn write(&self) -> Result<(), CniError> {
        let path = path()?;
        let make = |draft: &Path| {
            let mut file = draft::create(draft, OpenOptions::new().mode(0o600))?;
            file.write_all(format!("{}\n", self.to_json()).as_bytes())
        };
        draft::replace(&path, &path.with_file_name(".state.json"), make, std::convert::identity)
            .map_err(|e| failed("write", &path, &e))
    }

    /// Removes what an earlier agent wrote. The caller holds the lock.
    pub(crate) fn forget() -> Result<(), CniError> {
        let path = path()?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("remove", &path, &e)),
            _ => Ok(()),
        }
    }

    /// What this node's agent shows. None if no agent runs.
    ///
    /// # Errors
    /// The file cannot be read, or an agent of another version wrote it.
    pub fn of_this_node() -> Result<Option<AgentState>, CniError> {
        if !AgentLock::is_held()? {
            return Ok(None);
        }
        let path = path()?;
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(AgentState::default())),
            read => read.map_err(|e| failed("read", &path, &e))?,
        };
        let value = serde_json::from_str(&text).ok();
        let state = value.as_ref().and_then(AgentState::from_json).ok_or_else(|| {
            let path = path.display();
            CniError::new(
                code::TRY_AGAIN_LATER,
                format!("an agent of another version runs: {path} is not what this version writes"),
            )
        })?;
        Ok(Some(state))
    }
}

fn path() -> Result<PathBuf, CniError> {
    Ok(AgentLock::folder()?.join("state.json"))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> CniError {
    CniError::new(code::IO_FAILURE, format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let conflict = KnownConflict {
            address: [172, 20, 56, 17].into(),
            mac: "02:00:00:00:00:01".into(),
            pod: Some("shop/web-0".into()),
            other: "02:00:00:00:00:09".into(),
            uplink: "bond0.136".into(),
        };
        let told = Told {
            at: Duration::from_secs(1_790_000_000),
            severity: "error".into(),
            reason: "AddressConflict".into(),
            text: "conflict".into(),
        };
        let pool = PoolShown {
            network: "vlan136.1".into(),
            pool: "vlan136".into(),
            home: 14,
            leased: 3,
            idle: Some(2),
            waiting: 1,
            problem: None,
            away: Some((Duration::from_secs(1_790_000_000), "timeout".into())),
        };
        let unused =
            PoolShown { idle: None, problem: Some("no such pool".into()), away: None, ..pool.clone() };
        let state = AgentState {
            version: "1.2.3".into(),
            pools: vec![pool, unused],
            health: Some(Health::default()),
            conflicts: vec![KnownConflict { pod: None, ..conflict.clone() }, conflict],
            recent: vec![told],
        };
        assert_eq!(AgentState::from_json(&state.to_json()), Some(state));
        assert_eq!(AgentState::from_json(&AgentState::default().to_json()), Some(AgentState::default()));
        assert_eq!(AgentState::from_json(&json!({"uptimeMs": 1})), None);
    }
}
