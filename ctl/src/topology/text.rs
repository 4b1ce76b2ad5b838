//! The picture as lines: a tree from the bond or NIC to the pods, with the members of a bond above it.

use super::graph::{Edge, Graph, GraphNode, Layer};

/// What lines are made of.
struct Pen {
    first: &'static str,
    fork: &'static str,
    last: &'static str,
    past: &'static str,
}

const UTF8: Pen = Pen { first: "┌─ ", fork: "├─ ", last: "└─ ", past: "│  " };
const ASCII: Pen = Pen { first: ",- ", fork: "|- ", last: "`- ", past: "|  " };

/// Draws it.
pub(super) fn draw(graph: &Graph, utf8: bool) -> String {
    let mut drawing = Drawing {
        graph,
        pen: if utf8 { UTF8 } else { ASCII },
        text: String::new(),
        is_drawn: vec![false; graph.nodes.len()],
    };
    for root in graph.roots() {
        if !drawing.text.is_empty() {
            drawing.text.push('\n');
        }
        for (number, edge) in graph.into(root).enumerate() {
            let stroke = if number == 0 { drawing.pen.first } else { drawing.pen.fork };
            drawing.line(stroke, edge.from, Some(edge));
        }
        drawing.line("", root, None);
        drawing.below("", root);
    }
    drawing.text
}

struct Drawing<'a> {
    graph: &'a Graph,
    pen: Pen,
    text: String,
    is_drawn: Vec<bool>,
}

impl Drawing<'_> {
    fn below(&mut self, indent: &str, node: usize) {
        let edges: Vec<&Edge> = self.graph.out_of(node).collect();
        for (number, edge) in edges.iter().enumerate() {
            let is_last = number + 1 == edges.len();
            let stroke = if is_last { self.pen.last } else { self.pen.fork };
            let was_drawn = self.is_drawn[edge.to];
            self.line(&format!("{indent}{stroke}"), edge.to, Some(edge));
            if !was_drawn {
                let more = if is_last { "   " } else { self.pen.past };
                self.below(&format!("{indent}{more}"), edge.to);
            }
        }
    }

    fn line(&mut self, indent: &str, node: usize, edge: Option<&Edge>) {
        let shown = &self.graph.nodes[node];
        let mut parts: Vec<String> = edge.map(|edge| edge.label.clone()).into_iter().collect();
        match std::mem::replace(&mut self.is_drawn[node], true) {
            true => parts.push("see above".into()),
            false => parts.extend(details(shown)),
        }
        parts.retain(|part| !part.is_empty());
        self.text += &format!("{indent}{}  {}\n", shown.name, parts.join(", "));
    }
}

/// What a line says of an interface. Most pods' ports are up and have the MTU of their bridge.
fn details(node: &GraphNode) -> Vec<String> {
    let mut parts = node.notes.clone();
    if node.layer != Layer::Port || node.state != "up" {
        parts.push(node.state.to_owned());
    }
    parts.extend(node.mtu.filter(|_| node.layer != Layer::Port).map(|mtu| format!("MTU {mtu}")));
    parts
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::example;
    use super::*;

    #[test]
    fn the_tree_is_drawn() {
        let expected = "\
┌─ nic0  active, up, MTU 1500
├─ nic1  backup, up, MTU 1500
bond0  up, MTU 1500
└─ bond0.136  VLAN 136, up, MTU 1500
   └─ br136  up, MTU 1500
      ├─ veth1  172.20.56.16, a<b>\"&\\
      └─ veth2  down
";
        assert_eq!(draw(&example(), true), expected);
        assert!(draw(&example(), false).is_ascii());
    }
}
