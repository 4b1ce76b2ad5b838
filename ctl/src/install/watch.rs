//! `install --watch`: keeps running, and installs again when its sources change.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::slice::{NodeSlices, node_slices};
use crate::args::Install;
use crate::{files, output};

/// How often the files are read. A ConfigMap takes kubelet a minute to update.
const PERIOD: Duration = Duration::from_secs(5);

/// How often the API server is asked for the Node. All nodes ask, and the annotation rarely changes.
const NODE_PERIOD: Duration = Duration::from_secs(30);

/// Installs once.
type InstallOnce = fn(&Install, &mut dyn Write) -> Result<()>;

/// Returns only if stdout cannot be written. A failed install keeps the current list, and is tried again.
pub(super) fn watch(args: &Install, install: InstallOnce, out: &mut dyn Write) -> Result<()> {
    let mut installed = None;
    let mut reported = String::new();
    let mut node = NodeSource::default();
    loop {
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
        std::thread::sleep(PERIOD);
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

/// The contents of the files; none if one cannot be read, which the install reports.
fn sources(args: &Install) -> Vec<Option<Vec<u8>>> {
    args.network.iter().chain(&args.mapping).map(|path| files::read(path).ok().flatten()).collect()
}
