//! `status --watch`: the node again and again. On a terminal as a screen, elsewhere as text or JSON whenever
//! something has changed.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use kernel::terminal::{OutputThread, ScreenEvent, ScreenEvents, Terminal, is_interactive};
use serde_json::Value;

use super::paint::{ScreenLine, Tone, frame, scrolled};
use super::{lines, screen};
use crate::args::{Colour, Output, Status};
use crate::facts::Facts;
use crate::node;
use crate::observe::{self, Places};
use crate::output::{OutputWriter, has_utf8, output_error};

/// How long a reader has to take what is printed until signals are looked at.
const TAKEN: Duration = Duration::from_millis(300);

/// Runs until q, a signal, or the end of the reader.
pub(super) fn run(args: &Status, places: &Places) -> Result<()> {
    let terminal = std::env::var("TERM").is_ok_and(|terminal| !terminal.is_empty() && terminal != "dumb");
    let watch = Watch { args, places, interval: Duration::from_secs(args.interval) };
    if args.inspect.output == Output::Text && terminal && is_interactive() {
        return watch.on_a_screen(has_colour(args.color));
    }
    watch.as_text()
}

/// Whether the screen has colours. <https://no-color.org>
fn has_colour(asked: Colour) -> bool {
    match asked {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

struct Watch<'a> {
    args: &'a Status,
    places: &'a Places,
    interval: Duration,
}

impl Watch<'_> {
    fn look(&self) -> Result<Facts> {
        observe::what_is_shown(self.places, &self.args.inspect.lists.network)
    }

    fn on_a_screen(&self, has_colour: bool) -> Result<()> {
        let events = ScreenEvents::open(true).context("cannot wait for keys and signals")?;
        let terminal = Terminal::open().context("cannot use the terminal")?;
        let (name, utf8, mut top) = (node::name(None)?, has_utf8(), 0);
        loop {
            let begun = Instant::now();
            let title = format!("{}   {} UTC, every {} s", name, clock(), self.args.interval);
            let lines = match self.look() {
                Ok(facts) => screen::lines(&facts, &title, utf8),
                Err(error) => {
                    let why = format!("cannot look at the node: {error:#}");
                    vec![ScreenLine::of(Tone::Heading, title), ScreenLine::of(Tone::Bad, why)]
                }
            };
            loop {
                let size = terminal.size();
                let Some(now) = scrolled(b"", top, lines.len(), size.1) else { return Ok(()) };
                top = now;
                terminal.show(frame(&lines, size, top, has_colour).as_bytes())?;
                match events.next(self.interval.saturating_sub(begun.elapsed()))? {
                    ScreenEvent::Time => break,
                    ScreenEvent::End => return Ok(()),
                    ScreenEvent::Resized => {}
                    ScreenEvent::Keys(keys) => match scrolled(&keys, top, lines.len(), size.1) {
                        Some(now) => top = now,
                        None => return Ok(()),
                    },
                }
            }
        }
    }

    fn as_text(&self) -> Result<()> {
        let events = ScreenEvents::open(false).context("cannot wait for signals")?;
        let output = OutputThread::start().context("cannot start a thread")?;
        let mut before = Value::Null;
        loop {
            let begun = Instant::now();
            let facts = self.look()?;
            let mut now = lines::to_json(&facts);
            now["agent"]["ageSeconds"].take();
            now["agent"]["health"].take();
            if now != before {
                let mut text = Vec::new();
                let out = &mut OutputWriter(&mut text);
                match self.args.inspect.output {
                    Output::Json => writeln!(out, "{}", lines::to_json(&facts))?,
                    Output::Text => {
                        writeln!(out, "---- {} UTC", clock())?;
                        lines::print(&facts, out)?;
                    }
                }
                output.append(&text).map_err(output_error)?;
                // A reader that takes nothing does not keep a signal from ending this.
                while !output.finish(TAKEN).map_err(output_error)? {
                    if events.next(Duration::ZERO)? == ScreenEvent::End {
                        output.finish(TAKEN).map_err(output_error)?;
                        return Ok(());
                    }
                }
                before = now;
            }
            while let event = events.next(self.interval.saturating_sub(begun.elapsed()))?
                && event != ScreenEvent::Time
            {
                if event == ScreenEvent::End {
                    return Ok(());
                }
            }
        }
    }
}

/// The time of the day.
fn clock() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
