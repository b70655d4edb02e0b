//! The index of paths by whole segments: a tree of literals, with one more branch for "any segment".

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{
    pattern::first_segment,
    rows::{Row, RowSet, Rows},
};

/// Prefixes and templates, by segment.
///
/// A lookup visits at most the nodes that match: one per segment of the path for prefixes, at most all
/// nodes of the tree (never more, whatever the path) where templates branch at every level.
#[derive(Debug)]
pub(super) struct Segments {
    /// The first is the root.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literal: HashMap<Box<str>, usize, FixedState>,
    any: Option<usize>,
    /// Patterns that end here.
    end: Rows,
    /// Patterns that end here in `/*`.
    rest: Rows,
}

impl Segments {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::default()] }
    }

    /// Adds a pattern of a block of `len` rows; `None` is any non-empty segment.
    pub(super) fn insert<'a>(
        &mut self,
        segments: impl IntoIterator<Item = Option<&'a str>>,
        rest: bool,
        row: Row,
        len: usize,
    ) {
        let mut at = 0;
        for segment in segments {
            let fresh = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match segment {
                Some(text) => *node.literal.entry(text.into()).or_insert(fresh),
                None => *node.any.get_or_insert(fresh),
            };
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        let node = &mut self.nodes[at];
        let rows = if rest { &mut node.rest } else { &mut node.end };
        rows.insert(row, len);
    }

    /// Adds the rows whose pattern matches `path`.
    pub(super) fn add_to(&self, path: &str, set: &mut RowSet) {
        // `*` and the like are under no pattern, not even `/*`.
        if path.is_empty() || path.starts_with('/') {
            self.walk(0, path, set);
        }
    }

    /// From the node `at`, where `left` is empty or begins with a slash.
    fn walk(&self, mut at: usize, mut left: &str, set: &mut RowSet) {
        loop {
            let node = &self.nodes[at];
            node.rest.add_to(set);
            let Some((segment, after)) = first_segment(left) else {
                return node.end.add_to(set);
            };
            if let Some(any) = node.any.filter(|_| !segment.is_empty()) {
                self.walk(any, after, set);
            }
            let Some(&next) = node.literal.get(segment) else { return };
            (at, left) = (next, after);
        }
    }
}
