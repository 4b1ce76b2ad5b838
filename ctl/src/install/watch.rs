//! `install --watch`: stays, and installs again when what the last install was made from has changed.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;

use crate::cli::{self, Install};
use crate::files;

/// How often the files are looked at. Where a ConfigMap is their source, the kubelet takes a minute to bring it.
const PERIOD: Duration = Duration::from_secs(5);

/// Does not return unless nobody hears us any more. An install that fails leaves the list that is there, and is tried again.
pub(super) fn stay(call: &Install, out: &mut dyn Write) -> Result<()> {
    let mut installed = None;
    let mut complaint = String::new();
    loop {
        let now = sources(call);
        if installed.as_ref() != Some(&now) {
            match super::once(call, out) {
                Ok(()) => (installed, complaint) = (Some(now), String::new()),
                Err(error) if error.is::<io::Error>() => return Err(error),
                Err(error) => {
                    // Said once, however often it is tried.
                    let text = format!("vlan-bridgectl: {error:#}");
                    if text != complaint {
                        cli::complain(&text);
                        complaint = text;
                    }
                }
            }
            out.flush()?;
        }
        std::thread::sleep(PERIOD);
    }
}

/// What the files have in them; nothing where one cannot be read, which the install says better.
fn sources(call: &Install) -> Vec<Option<Vec<u8>>> {
    call.network.iter().chain(&call.mapping).map(|path| files::read(path).ok().flatten()).collect()
}
