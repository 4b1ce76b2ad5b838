//! `topology`: the data path of the node as a picture. `graph` is what there is to draw, the other files draw
//! it.

mod dot;
mod graph;
mod layout;
mod svg;
mod text;

use std::io::Write;

use anyhow::Result;

use crate::args::{Picture, Topology};
use crate::observe;
use crate::output::{self, has_utf8};
use graph::Graph;

/// Runs the verb.
pub(crate) fn run(args: &Topology, out: &mut dyn Write) -> Result<()> {
    let facts = observe::data_path(&args.lists)?;
    if let Some(why) = &facts.unclear_runtime {
        output::report(&format!("warning: {why}: only the default directories are read"));
    }
    let graph = Graph::of(&facts);
    match args.output {
        Picture::Text if graph.nodes.is_empty() => writeln!(out, "no bridge of a network, and no pods")?,
        Picture::Text => write!(out, "{}", text::draw(&graph, !args.ascii && has_utf8()))?,
        Picture::Json => writeln!(out, "{:#}", graph.to_json())?,
        Picture::Svg => write!(out, "{}", svg::draw(&graph))?,
        Picture::Dot => write!(out, "{}", dot::draw(&graph))?,
    }
    Ok(())
}
