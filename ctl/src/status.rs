//! `status`: the node on one screen, once or again and again.

mod lines;
mod paint;
mod screen;
mod watch;

use std::io::Write;

use anyhow::Result;

use crate::args::{Output, Status};
use crate::observe::{self, Places};
use crate::output;

/// Runs the verb.
pub(crate) fn run(args: &Status, out: &mut dyn Write) -> Result<()> {
    let lists = &args.inspect.lists;
    let places = Places::find(lists.conf_dir.as_deref(), None);
    if let Some(why) = &places.unclear_runtime {
        output::report(&format!("warning: {why}: only the default directories are read"));
    }
    if args.watch {
        return watch::run(args, &places);
    }
    let facts = observe::what_is_shown(&places, &lists.network)?;
    if args.inspect.output == Output::Json {
        writeln!(out, "{:#}", lines::to_json(&facts))?;
        return Ok(());
    }
    lines::print(&facts, out)
}
