//! Building the integration crate's programs.

use crate::command::{cargo, shown};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;

/// Builds a program of the integration crate (`["--test", "native"]`, `["--bin", "demo"]`) and returns its
/// path.
pub(crate) fn build(selection: [&str; 2]) -> Result<PathBuf> {
    let verb: &[&str] = if selection[0] == "--test" { &["test", "--no-run"] } else { &["build"] };
    let mut command = cargo();
    command.args(verb).args([
        "--quiet",
        "--message-format=json-render-diagnostics",
        "--package",
        "integration",
    ]);
    command.args(selection).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run `{}`", shown(&command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(&command), output.status);
    }
    executable(&String::from_utf8_lossy(&output.stdout), selection[1])
        .ok_or_else(|| anyhow!("`{}` names no executable", shown(&command)))
}

/// The program named `name` among cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_of_the_right_target_is_found() {
        let messages = r#"{"target":{"name":"integration"},"executable":null}
{"target":{"name":"demo"},"executable":"/t/demo"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "demo"), Some(PathBuf::from("/t/demo")));
        assert_eq!(executable(messages, "native"), None);
    }
}
