//! Pings: a single one, and a series that measures loss.

use crate::process::{Background, run};
use crate::{Namespace, poll};
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

impl Namespace {
    /// Whether `address` answers one echo request within a second.
    pub fn pings(&self, address: &str) -> bool {
        run(self.command("ping").args(["-n", "-q", "-c", "1", "-W", "1", address])).ok()
    }

    /// Waits until `address` answers.
    #[track_caller]
    pub fn wait_for(&self, address: &str) {
        poll(Duration::from_secs(20), &format!("{address} answers {}", self.name()), || self.pings(address));
    }
}

/// Echo requests at a steady rate in the background, to measure loss while something else happens.
#[derive(Debug)]
pub struct Pings {
    process: Background,
    output: std::process::ChildStdout,
}

impl Pings {
    /// Starts sending `count` requests, `interval` apart, from a namespace.
    #[track_caller]
    pub fn start(from: &Namespace, to: &str, count: u32, interval: Duration) -> Pings {
        let mut command = from.command("ping");
        let pace = format!("{:.3}", interval.as_secs_f64());
        command.args(["-n", "-q", "-W", "1", "-c", &count.to_string(), "-i", &pace, to]);
        let mut process = Background::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let output = process.take_stdout();
        Pings { process, output }
    }

    /// Waits for the end. Returns how many were sent and how many were answered.
    #[track_caller]
    pub fn finish(mut self) -> (u32, u32) {
        poll(Duration::from_secs(120), "the end of the pings", || !self.process.is_alive());
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("ping's output can be read");
        parse(&text).unwrap_or_else(|| panic!("ping said:\n{text}"))
    }
}

/// `200 packets transmitted, 198 received, …`
fn parse(text: &str) -> Option<(u32, u32)> {
    let line = text.lines().find(|line| line.contains("packets transmitted"))?;
    let mut counts = line.split(", ").map(|part| part.split(' ').next().and_then(|word| word.parse().ok()));
    Some((counts.next()??, counts.next()??))
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_are_read() {
        let text =
            "\n--- a ping statistics ---\n200 packets transmitted, 198 received, 1% packet loss, time 1ms\n";
        assert_eq!(super::parse(text), Some((200, 198)));
    }
}
