//! The picture in the language of Graphviz.

use std::fmt::Write;

use super::graph::{Graph, GraphNode};

/// Writes it.
pub(super) fn draw(graph: &Graph) -> String {
    let mut text = String::from(
        "digraph \"vlan-bridge\" {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=monospace];\n  \
         edge [fontname=monospace, fontsize=10];\n",
    );
    for node in &graph.nodes {
        let style = if node.state == "up" { "" } else { ", color=red" };
        let _ = writeln!(text, "  {} [label={}{style}];", quoted(&node.name), label(node));
    }
    for edge in &graph.edges {
        let (from, to) = (quoted(&graph.nodes[edge.from].name), quoted(&graph.nodes[edge.to].name));
        let style = if edge.carries { "" } else { ", style=dashed" };
        let _ = writeln!(text, "  {from} -> {to} [label={}{style}];", quoted(&edge.label));
    }
    text + "}\n"
}

/// The lines of a box. In a label, `\n` ends a line.
fn label(node: &GraphNode) -> String {
    let lines: Vec<String> = node.lines().iter().map(|line| escaped(line)).collect();
    format!("\"{}\"", lines.join("\\n"))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::example;
    use super::*;

    #[test]
    fn names_cannot_end_a_string() {
        let text = draw(&example());
        assert!(
            text.contains(r#""veth1" [label="veth1\n172.20.56.16\na<b>\"&\\\nup, MTU 1500"];"#),
            "{text}"
        );
        assert!(text.contains(r#""nic1" -> "bond0" [label="backup"];"#), "{text}");
        assert!(text.contains(r#""br136" -> "veth2" [label="", style=dashed];"#), "{text}");
    }
}
