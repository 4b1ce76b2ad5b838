//! `install --watch`: keeps running, and installs again when its sources change.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use kernel::folders::FolderWatch;

use super::slice::{NodeSlices, node_slices};
use crate::args::Install;
use crate::{files, output};

/// How often the API server is asked for the Node. All nodes ask, and the annotation rarely changes.
const NODE_PERIOD: Duration = Duration::from_secs(30);

/// How often the files are read if their folders cannot be watched, and how long a failed install waits.
const RETRY: Duration = Duration::from_secs(5);

/// The pause after a change: a program makes several at once.
const SETTLE: Duration = Duration::from_millis(100);

/// Installs once.
type InstallOnce = fn(&Install, &mut dyn Write) -> Result<()>;

/// Returns only if stdout cannot be written. A failed install keeps the current list, and is tried again.
pub(super) fn watch(args: &Install, install: InstallOnce, out: &mut dyn Write) -> Result<()> {
    let mut installed = None;
    let mut reported = String::new();
    let mut node = NodeSource::default();
    loop {
        // Before the files are read, so that no later change is missed.
        let changes = FolderWatch::of(folders(args));
        node.refresh(args);
        let now = (sources(args), node.chosen.clone());
        if installed.as_ref() != Some(&now) {
            match install(args, out) {
                Ok(()) => (installed, reported) = (Some(now), String::new()),
                Err(error) if output::is_output_error(&error) => return Err(error),
                Err(error) => {
                    // Report each error once.
                    let text = format!("vlan-bridgectl: {error:#}");
                    if text != reported {
                        output::report(&text);
                        reported = text;
                    }
                }
            }
            out.flush()?;
        }
        let limit = if reported.is_empty() { NODE_PERIOD } else { RETRY };
        let waited = changes.and_then(|changes| changes.wait(limit));
        std::thread::sleep(if waited.is_ok() { SETTLE } else { RETRY });
    }
}

/// The slices of the Node, as of the last answer.
#[derive(Default)]
struct NodeSource {
    asked: Option<Instant>,
    chosen: Option<NodeSlices>,
}

impl NodeSource {
    /// Asks again after [`NODE_PERIOD`]. Without an answer, or with a wrong one, the last slices stay: new
    /// pods start while the API server is away.
    fn refresh(&mut self, args: &Install) {
        if self.asked.is_some_and(|asked| asked.elapsed() < NODE_PERIOD) {
            return;
        }
        if let Ok(chosen) = node_slices(args) {
            self.chosen = chosen;
        }
        self.asked = Some(Instant::now());
    }
}

fn files_of(args: &Install) -> impl Iterator<Item = &Path> {
    args.network.iter().chain(&args.mapping).map(PathBuf::as_path)
}

/// The folders of the files. kubelet replaces a ConfigMap's files by a link in their folder.
fn folders(args: &Install) -> BTreeSet<&Path> {
    let folders = files_of(args).filter_map(Path::parent);
    folders.map(|folder| if folder == Path::new("") { Path::new(".") } else { folder }).collect()
}

/// The contents of the files; none if one cannot be read, which the install reports.
fn sources(args: &Install) -> Vec<Option<Vec<u8>>> {
    files_of(args).map(|path| files::read(path).ok().flatten()).collect()
}
