//! Calls the plugin as a runtime does.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use vlan_bridge::ownership::Attachment;

/// Calls a verb without a result, for an attachment whose namespace is unknown, or without an attachment.
///
/// # Errors
/// The plugin's error message.
pub(crate) fn call(
    plugin: &Path,
    verb: &str,
    entry: &Value,
    attachment: Option<&Attachment<'_>>,
) -> Result<()> {
    let failed = || format!("cannot run {}", plugin.display());
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", attachment.map_or("", |attachment| attachment.container_id))
        .env("CNI_IFNAME", attachment.map_or("", |attachment| attachment.ifname))
        .env("CNI_NETNS", "")
        .env("CNI_PATH", plugin.parent().unwrap_or(Path::new("/")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that exits without reading stdin reports its own error.
        let _ = stdin.write_all(entry.to_string().as_bytes());
    }
    let output = child.wait_with_output().with_context(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match answer["msg"].as_str() {
        Some(msg) => bail!("{msg} (code {})", answer["code"]),
        None => bail!("{}: {}", plugin.display(), output.status),
    }
}
