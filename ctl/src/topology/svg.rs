//! The picture as SVG. The colours follow the reader's preference for light or dark.

use std::fmt::Write;

use super::graph::Graph;
use super::layout::{LINE, Layout, PADDING};

const STYLE: &str = "\
svg { font: 12px ui-monospace, monospace; background: #fff; }
rect { fill: #f6f8fa; stroke: #57606a; } text { fill: #1f2328; } path { fill: none; stroke: #57606a; }
.name { font-weight: bold; } .wrong { stroke: #cf222e; } .cut { stroke: #cf222e; stroke-dasharray: 4; }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; } rect { fill: #161b22; stroke: #8b949e; } text { fill: #e6edf3; } path { stroke: #8b949e; }
.wrong, .cut { stroke: #ff7b72; }
}";

/// Draws it.
pub(super) fn draw(graph: &Graph) -> String {
    let Layout { places, width, height } = Layout::of(graph);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\" aria-label=\"The data path from the NICs to the pods\">\n\
         <style>\n{STYLE}\n</style>\n"
    );
    for edge in &graph.edges {
        let (from, to) = (places[edge.from], places[edge.to]);
        let (x1, y1, x2, y2) = (from.x + from.width, from.middle(), to.x, to.middle());
        let half = (x1 + x2) / 2.0;
        let class = if edge.carries { "" } else { " class=\"cut\"" };
        let _ = writeln!(
            text,
            "<path{class} d=\"M{x1:.0} {y1:.0}C{half:.0} {y1:.0} {half:.0} {y2:.0} {x2:.0} {y2:.0}\"/>"
        );
        if !edge.label.is_empty() {
            let label = escaped(&edge.label);
            // Where several ways meet, each is named at its other end.
            let meets = graph.into(edge.to).count() > 1;
            let (x, y, anchor) = if meets { (x1 + 8.0, y1, "start") } else { (x2 - 8.0, y2, "end") };
            // On the side of the line where the curve is not.
            let is_above = if meets { y1 <= y2 } else { y2 <= y1 };
            let y = if is_above { y - 5.0 } else { y + 14.0 };
            let _ = writeln!(text, "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{label}</text>");
        }
    }
    for (node, place) in graph.nodes.iter().zip(&places) {
        let class = if node.state == "up" { "" } else { " class=\"wrong\"" };
        let (x, y) = (place.x, place.y);
        let _ = writeln!(
            text,
            "<rect{class} x=\"{x:.0}\" y=\"{y:.0}\" width=\"{:.0}\" height=\"{:.0}\" rx=\"5\"/>",
            place.width, place.height
        );
        for (number, line) in node.lines().iter().enumerate() {
            let class = if number == 0 { " class=\"name\"" } else { "" };
            let (x, y) = (x + PADDING, y + LINE * (number + 1) as f64);
            let _ = writeln!(text, "<text{class} x=\"{x:.0}\" y=\"{y:.0}\">{}</text>", escaped(line));
        }
    }
    text + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::example;
    use super::*;

    #[test]
    fn names_cannot_become_elements() {
        let text = draw(&example());
        assert!(text.contains(">a&lt;b&gt;\"&amp;\\</text>"), "{text}");
        assert_eq!(text.matches("<rect").count(), 7);
        assert_eq!(text.matches("<path").count(), 6);
        assert_eq!(text.matches("class=\"cut\"").count(), 1, "{text}");
        assert_eq!(text.matches("<rect class=\"wrong\"").count(), 1, "{text}");
    }
}
