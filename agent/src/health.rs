//! Whether the agent works: passes over the node end, and the last one is recent.

use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

use cni_conf::cni::error::{CniError, code};
use serde_json::{Value, json};

use crate::agent_state::AgentState;
use crate::keeper::Looked;

/// How old the last pass may be. There is a pass each minute, and one may wait for the locks of several ADDs.
const FRESH: Duration = Duration::from_secs(180);

/// What is known of an agent's last pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// When it ended, since boot.
    at: Duration,
    /// How long it took.
    took: Duration,
    /// How many passes there were.
    passes: u64,
    /// How many differences were restored by all passes.
    restored: u64,
    /// How many were left by the last pass.
    left: u64,
    /// How many could not be restored by it.
    failed: u64,
}

impl Health {
    /// Takes the result of a pass in.
    pub(crate) fn note(&mut self, looked: &Looked) -> io::Result<()> {
        let count = |list: usize| u64::try_from(list).unwrap_or(u64::MAX);
        self.at = uptime()?;
        self.took = looked.took;
        self.passes += 1;
        self.restored += count(looked.restored.len());
        self.left = count(looked.left.len());
        self.failed = count(looked.failed.len());
        Ok(())
    }

    /// Whether the last pass is recent.
    ///
    /// # Errors
    /// `/proc/uptime` cannot be read.
    pub fn is_fresh(&self) -> io::Result<bool> {
        Ok(self.age()? < FRESH)
    }

    /// How long ago the last pass ended.
    ///
    /// # Errors
    /// `/proc/uptime` cannot be read.
    pub fn age(&self) -> io::Result<Duration> {
        Ok(uptime()?.saturating_sub(self.at))
    }

    /// How many differences the last pass left or could not restore.
    pub fn remaining(&self) -> u64 {
        self.left + self.failed
    }

    pub(crate) fn to_json(self) -> Value {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        json!({"uptimeMs": millis(self.at), "tookMs": millis(self.took), "passes": self.passes,
            "restored": self.restored, "left": self.left, "failed": self.failed})
    }

    pub(crate) fn from_json(value: &Value) -> Option<Health> {
        let number = |key: &str| value[key].as_u64();
        Some(Health {
            at: Duration::from_millis(number("uptimeMs")?),
            took: Duration::from_millis(number("tookMs")?),
            passes: number("passes")?,
            restored: number("restored")?,
            left: number("left")?,
            failed: number("failed")?,
        })
    }

    /// The health of this node's agent.
    ///
    /// # Errors
    /// No agent runs, or it has not looked at the node for too long.
    pub fn of_this_node() -> Result<Health, CniError> {
        let unhealthy = |text: String| CniError::new(code::TRY_AGAIN_LATER, text);
        let state =
            AgentState::of_this_node()?.ok_or_else(|| unhealthy("no agent runs on this node".into()))?;
        let health =
            state.health.ok_or_else(|| unhealthy("the agent has not looked at the node yet".into()))?;
        let age = health.age().map_err(|e| CniError::new(code::IO_FAILURE, e.to_string()))?;
        if age >= FRESH {
            let seconds = age.as_secs();
            return Err(unhealthy(format!("the agent last looked at the node {seconds} s ago")));
        }
        Ok(health)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Health { took, passes, restored, left, failed, .. } = self;
        let took = took.as_millis();
        write!(f, "looked at the node {passes} times, the last time in {took} ms: ")?;
        write!(f, "{restored} restored since the start, {left} left, {failed} not restorable")
    }
}

/// The time since boot (proc_uptime(5)).
fn uptime() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
    let uptime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    uptime.ok_or_else(|| io::Error::other(format!("/proc/uptime: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_noted() {
        let looked = Looked { took: Duration::from_millis(7), ..Looked::default() };
        let mut health = Health { restored: 3, ..Health::default() };
        health.note(&looked).unwrap();
        assert!(health.is_fresh().unwrap());
        assert_eq!(Health::from_json(&health.to_json()), Some(health));
        assert_eq!(Health::from_json(&json!({"uptimeMs": 1})), None);
        let text = "looked at the node 1 times, the last time in 7 ms: 3 restored since the start, ";
        assert_eq!(health.to_string(), format!("{text}0 left, 0 not restorable"));
    }
}
