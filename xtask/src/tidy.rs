//! `cargo xtask tidy`
use anyhow::Result;
use std::path::Path;
use std::process::ExitCode;
pub(crate) fn main(_args: &[String]) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
pub(crate) fn check(_root: &Path) -> Result<()> {
    Ok(())
}
