//! Where the boxes of a drawing are: a column for each kind of interface, and each box beside the middle of
//! what it leads to.

use std::collections::BTreeSet;

use super::graph::{Graph, Layer};

/// The sizes of letters and distances, in pixels.
pub(super) const LETTER: f64 = 7.3;
pub(super) const LINE: f64 = 17.0;
pub(super) const PADDING: f64 = 10.0;
const GAP: f64 = 14.0;
const MARGIN: f64 = 16.0;

/// A box: its left upper corner and its size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Place {
    /// The height of its middle.
    pub(super) fn middle(&self) -> f64 {
        self.y + self.height / 2.0
    }
}

/// The places of a graph's nodes, and the size of the whole drawing.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) places: Vec<Place>,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Layout {
    /// Places all boxes.
    pub(super) fn of(graph: &Graph) -> Layout {
        let size = |node: &super::graph::GraphNode| {
            let lines = node.lines();
            let letters = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
            let (width, height) = (letters as f64 * LETTER, lines.len() as f64 * LINE);
            Place { width: width + 2.0 * PADDING, height: height + PADDING, ..Place::default() }
        };
        let mut placing = Placing {
            graph,
            places: graph.nodes.iter().map(size).collect(),
            next: MARGIN,
            order: Vec::new(),
        };
        for root in graph.roots() {
            placing.below(root);
            placing.members(root);
        }
        let mut places = placing.columns();
        // Members may stick out above the first box.
        let top = places.iter().map(|place| place.y).fold(MARGIN, f64::min);
        places.iter_mut().for_each(|place| place.y += MARGIN - top);
        let right = places.iter().map(|place| place.x + place.width).fold(0.0, f64::max);
        let bottom = places.iter().map(|place| place.y + place.height).fold(0.0, f64::max);
        Layout { places, width: right + MARGIN, height: bottom + MARGIN }
    }
}

struct Placing<'a> {
    graph: &'a Graph,
    places: Vec<Place>,
    /// The top of the next box that leads nowhere.
    next: f64,
    /// The nodes that have a place, in the order of their heights in each column.
    order: Vec<usize>,
}

impl Placing<'_> {
    fn below(&mut self, node: usize) {
        let next: Vec<usize> = self.graph.out_of(node).map(|edge| edge.to).collect();
        for child in &next {
            if !self.order.contains(child) {
                self.below(*child);
            }
        }
        let middles: Vec<f64> = next.iter().map(|child| self.places[*child].middle()).collect();
        let place = &mut self.places[node];
        if middles.is_empty() {
            place.y = self.next;
            self.next += place.height + GAP;
        } else {
            place.y = middles.iter().sum::<f64>() / middles.len() as f64 - place.height / 2.0;
            self.next = self.next.max(place.y + place.height + GAP);
        }
        self.order.push(node);
    }

    /// The members of a bond, around its middle.
    fn members(&mut self, bond: usize) {
        let members: Vec<usize> = self.graph.into(bond).map(|edge| edge.from).collect();
        let heights: f64 = members.iter().map(|member| self.places[*member].height + GAP).sum();
        let mut top = self.places[bond].middle() - (heights - GAP) / 2.0;
        for member in members {
            self.places[member].y = top;
            top += self.places[member].height + GAP;
            self.order.push(member);
        }
        self.next = self.next.max(top);
    }

    /// Gives each column its place from left to right, and moves boxes down that would cover another one.
    fn columns(mut self) -> Vec<Place> {
        let layers: BTreeSet<Layer> = self.graph.nodes.iter().map(|node| node.layer).collect();
        let mut left = MARGIN;
        for layer in layers {
            let column: Vec<usize> =
                self.order.iter().copied().filter(|node| self.graph.nodes[*node].layer == layer).collect();
            let mut free = f64::MIN;
            for node in &column {
                let place = &mut self.places[*node];
                place.x = left;
                place.y = place.y.max(free);
                free = place.y + place.height + GAP;
            }
            let widest = column.iter().map(|node| self.places[*node].width).fold(0.0, f64::max);
            left += widest + self.way(&column);
        }
        self.places
    }

    /// The distance to the next column: room for the longest text beside a line that begins in this one.
    fn way(&self, column: &[usize]) -> f64 {
        let edges = column.iter().flat_map(|node| self.graph.out_of(*node));
        let letters = edges.map(|edge| edge.label.chars().count()).max().unwrap_or(0);
        letters as f64 * LETTER + 40.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::example;
    use super::*;

    #[test]
    fn no_box_covers_another_and_all_are_inside() {
        let graph = example();
        let Layout { places, width, height } = Layout::of(&graph);
        for (number, one) in places.iter().enumerate() {
            assert!(one.x > 0.0 && one.y > 0.0, "{one:?}");
            assert!(one.x + one.width < width && one.y + one.height < height, "{one:?}");
            for other in &places[number + 1..] {
                let beside = one.x + one.width <= other.x || other.x + other.width <= one.x;
                let below = one.y + one.height <= other.y || other.y + other.height <= one.y;
                assert!(beside || below, "{one:?} {other:?}");
            }
        }
        assert!(graph.edges.iter().all(|edge| places[edge.from].x < places[edge.to].x), "{places:?}");
    }
}
