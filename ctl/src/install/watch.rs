//! `install --watch`: stays, and installs again when what the last install was made from has changed.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::slice::{Chosen, own};
use crate::args::Install;
use crate::{files, output};

/// How often the files are looked at. Where a ConfigMap is their source, the kubelet takes a minute to bring
/// it.
const PERIOD: Duration = Duration::from_secs(5);

/// How often the API server is asked for the Node. All nodes ask, and an annotation that changes is a rare
/// thing.
const NODE_PERIOD: Duration = Duration::from_secs(30);

/// One install.
type Run = fn(&Install, &mut dyn Write) -> Result<()>;

/// Does not return unless nobody hears us any more. An install that fails leaves the list that is there, and
/// is tried again.
pub(super) fn watch(call: &Install, install: Run, out: &mut dyn Write) -> Result<()> {
    let mut installed = None;
    let mut complaint = String::new();
    let mut node = Watched::default();
    loop {
        node.look(call);
        let now = (sources(call), node.chosen.clone());
        if installed.as_ref() != Some(&now) {
            match install(call, out) {
                Ok(()) => (installed, complaint) = (Some(now), String::new()),
                Err(error) if output::is_output_error(&error) => return Err(error),
                Err(error) => {
                    // Said once, however often it is tried.
                    let text = format!("vlan-bridgectl: {error:#}");
                    if text != complaint {
                        output::report(&text);
                        complaint = text;
                    }
                }
            }
            out.flush()?;
        }
        std::thread::sleep(PERIOD);
    }
}

/// What the Node says of its slice, as of the last answer.
#[derive(Default)]
struct Watched {
    asked: Option<Instant>,
    chosen: Option<Chosen>,
}

impl Watched {
    /// Asks again when it is time. Without an answer, or with one that cannot be understood, the last one
    /// holds: pods go on coming up while the API server is away.
    fn look(&mut self, call: &Install) {
        if self.asked.is_some_and(|asked| asked.elapsed() < NODE_PERIOD) {
            return;
        }
        if let Ok(chosen) = own(call) {
            self.chosen = chosen;
        }
        self.asked = Some(Instant::now());
    }
}

/// What the files have in them; nothing where one cannot be read, which the install says better.
fn sources(call: &Install) -> Vec<Option<Vec<u8>>> {
    call.network.iter().chain(&call.mapping).map(|path| files::read(path).ok().flatten()).collect()
}
