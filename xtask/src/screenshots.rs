//! `cargo xtask screenshots`: the pictures of the documents, as the tool draws them.

use crate::{guest, product, provision, suite, workspace};
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

/// A line with these words and a name begins a picture. Its last line ends it.
const BEGIN: &str = "picture ";
const END: &str = "</svg>";

/// Runs the verb.
pub(crate) fn main() -> Result<ExitCode> {
    provision::install_programs(true)?;
    let product = product::ready()?;
    let program = suite::build(["--bin", "screenshots"])?;
    let there = "/opt/screenshots".to_owned();
    let job = guest::Job {
        command: vec![there.clone()],
        environment: Vec::new(),
        programs: vec![(program, there)],
        deadline: Duration::from_secs(170),
    };
    let (mut pictures, mut open) = (Vec::new(), None);
    let code = guest::run(&job, &product, &mut |line| match (line.strip_prefix(BEGIN), &mut open) {
        (Some(name), _) => open = Some((name.to_owned(), String::new())),
        (None, Some((_, text))) => {
            *text += &format!("{line}\n");
            if line == END {
                pictures.extend(open.take());
            }
        }
        (None, None) => eprintln!("{line}"),
    })?;
    if code != 0 || pictures.is_empty() {
        bail!("no pictures: exit status {code}");
    }
    let folder = workspace::root().join("docs/images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, text) in pictures {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
