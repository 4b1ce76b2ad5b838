//! `cargo xtask tidy`: the house rules that a program can check. `docs/architecture.md` gives their reasons.

mod circles;
mod documents;
mod manifests;
mod names;
mod prose;
mod source;
mod units;

use crate::command::output;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

/// A breach of a rule. Lines count from 1.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

/// Runs the verb.
pub(crate) fn main() -> Result<ExitCode> {
    check(&workspace::root()).map(|()| ExitCode::SUCCESS)
}

/// Checks every file that git tracks or would track.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let (mut findings, mut types) = (Vec::new(), names::Types::default());
    let prose = prose::Prose::new()?;
    let own_root = root.display().to_string();
    let listed = output(&mut git)?;
    let paths: Vec<&str> = listed.lines().filter(|path| root.join(path).is_file()).collect();
    for path in &paths {
        let file = root.join(path);
        let bytes = fs::read(&file).with_context(|| format!("cannot read {path}"))?;
        // A binary has no lines.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        findings.extend(source::check(path, &text));
        findings.extend(documents::check(root, path, &text, &own_root));
        findings.extend(prose.check(path, &text));
        types.add(path, &text);
        if let Some(warning) = documents::length(path, &text) {
            eprintln!("{path}: warning: {warning}");
        }
    }
    findings.extend(types.check());
    findings.extend(manifests::check(root)?);
    findings.extend(units::check(root)?);
    findings.extend(circles::check(root, &paths)?);
    for Finding { path, line, message } in &findings {
        eprintln!("{path}:{line}: {message}");
    }
    if !findings.is_empty() {
        bail!("{} breaches of the house rules", findings.len());
    }
    Ok(())
}
