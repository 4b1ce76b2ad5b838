//! `/metrics` for Prometheus, in OpenMetrics' text format. Off unless asked for.
//!
//! - `address` is where, and opens the socket.
//! - `server` answers, in a thread of its own: a client that is slow or silent holds up nobody else.
//! - `node` reads what the agent does not keep, in another thread, because it may wait for locks.
//! - `exposition` writes the text.

mod address;
mod exposition;
mod node;
mod server;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vlan_bridge::calls::Calls;

use crate::figures::Figures;
pub use address::MetricsAddress;
use exposition::Exposition;
use node::NodeReading;

/// How long a reading of the node serves. However many ask, ADDs do not wait more often for the lock on their
/// leases.
const FRESH: Duration = Duration::from_secs(5);

/// The service. What is left of it goes when the agent ends.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// The file of a unix socket.
    socket: Option<PathBuf>,
}

impl Metrics {
    /// Opens the socket and starts the service, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The address cannot be had, or a thread not be started.
    pub(crate) fn start(address: &MetricsAddress, calls: Calls, figures: Figures) -> io::Result<Metrics> {
        let socket = address.open()?;
        let source = Source { calls, figures, node: Mutex::default() };
        server::start(socket, move || source.text())?;
        Ok(Metrics { socket: address.file() })
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        if let Some(path) = &self.socket {
            // The next agent would replace it.
            let _ = fs::remove_file(path);
        }
    }
}

/// Where the numbers come from.
#[derive(Debug)]
struct Source {
    calls: Calls,
    figures: Figures,
    /// The last reading of the node.
    node: Mutex<Option<(Instant, NodeReading)>>,
}

impl Source {
    fn text(&self) -> String {
        let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        let known = node.take().filter(|(at, _)| at.elapsed() < FRESH);
        // Its age counts from its end: a reading may wait for locks for some seconds.
        let known = known.unwrap_or_else(|| {
            let reading = NodeReading::now();
            (Instant::now(), reading)
        });
        let (_, reading) = node.insert(known);
        Exposition { calls: self.calls.read(), numbers: self.figures.read(), node: reading.clone() }.text()
    }
}
