//! YAML text → tree of nodes. The only file that names the YAML library, and its events rather than its serde side:
//! events carry the place of every key and whether a scalar was quoted, and let all duplicate keys be told at once.

mod syntax;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_yaml::granit_parser::{Event, Options, Parser, ScalarStyle, Span as Range};
use serde_yaml::granit_parser::{StructureStyle, Tag};

use super::diagnostic::Diagnostic;
use super::node::{Entry, Node, Scalar, Value, is_boolean_word};
use super::source::{Source, Span};

/// Bytes of a file.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// Nodes of a file, those that an alias repeats included.
const MAX_NODES: usize = 50_000;
/// Nesting of lists and maps.
const MAX_DEPTH: usize = 32;

/// The tree of a file, or nothing where it is no YAML that we take. Findings go to `out`.
pub(super) fn tree(source: &Source, out: &mut Vec<Diagnostic>) -> Option<Node> {
    tree_of(source, MAX_NODES, out)
}

/// The same, of a file with at most `most` nodes.
pub(super) fn tree_of(source: &Source, most: usize, out: &mut Vec<Diagnostic>) -> Option<Node> {
    if source.text().len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than 4MiB", source.text().len());
        out.push(Diagnostic::error("too-large", Span::default(), message));
        return None;
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::new(most, out);
    for next in Parser::new_from_str_with_options(source.text(), options) {
        match next {
            Ok((event, range)) => builder.take(event, range).ok()?,
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or_default();
                builder.out.push(syntax::explain(source, error.kind(), at));
                return None;
            }
        }
    }
    if builder.root.as_ref().is_none_or(Node::is_null) {
        let empty = Diagnostic::error("empty-file", Span::default(), "the file holds nothing");
        let help = "the least that works is one listener: `listeners: { outbound: { bind: …, routes: […] } }`";
        builder.out.push(empty.help(help));
        return None;
    }
    builder.root
}

/// A finding after which reading on makes no sense; it has been reported.
struct Stop;

struct Builder<'a> {
    out: &'a mut Vec<Diagnostic>,
    open: Vec<Frame>,
    /// Complete anchored nodes; one that repeats itself is never found here.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    /// How many there may be.
    most: usize,
    documents: usize,
    root: Option<Node>,
}

/// A list or map whose end has not come yet.
struct Frame {
    start: Span,
    flow: bool,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(Open),
}

#[derive(Default)]
struct Open {
    entries: Vec<Entry>,
    places: HashMap<String, Span>,
    /// The key whose value comes next.
    key: Option<Key>,
    /// Values of `<<`.
    merged: Vec<Node>,
}

enum Key {
    Text(String, Span),
    Merge,
    /// It has been reported; its value is dropped.
    Bad,
}

impl<'a> Builder<'a> {
    fn new(most: usize, out: &'a mut Vec<Diagnostic>) -> Self {
        let (open, anchors) = (Vec::new(), HashMap::new());
        Self { out, open, anchors, nodes: 0, most, documents: 0, root: None }
    }

    fn take(&mut self, event: Event<'_>, range: Range) -> Result<(), Stop> {
        let span = bytes(range);
        match event {
            Event::DocumentStart(..) => self.document(span),
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                if !as_text {
                    self.refuse_tag(tag.as_deref(), range);
                }
                self.count(1, 0, span)?;
                let plain = style == ScalarStyle::Plain && !as_text;
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    _ => {
                        let text = text.into_owned();
                        Value::Scalar(Scalar {
                            text,
                            quoted: !plain,
                            expanded: false,
                            broken: false,
                        })
                    }
                };
                self.complete(Node::new(value, span), anchor);
                Ok(())
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), range);
                self.open(Content::List(Vec::new()), style, anchor, span)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), range);
                self.open(Content::Map(Open::default()), style, anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.close(span);
                Ok(())
            }
            Event::Alias(anchor) => self.repeat(anchor, span),
            _ => Ok(()),
        }
    }

    fn document(&mut self, span: Span) -> Result<(), Stop> {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        let message = "a second document begins here; a file holds one";
        self.out.push(Diagnostic::error("syntax", span, message).label("remove the `---` above"));
        Err(Stop)
    }

    /// Accounts for `nodes` more nodes, `below` levels deep.
    fn count(&mut self, nodes: usize, below: usize, span: Span) -> Result<(), Stop> {
        self.nodes += nodes;
        let limit = match () {
            () if self.nodes > self.most => format!("the file has more than {} values", self.most),
            () if self.open.len() + below > MAX_DEPTH => {
                format!("lists and maps are nested more than {MAX_DEPTH} deep")
            }
            () => return Ok(()),
        };
        self.out.push(Diagnostic::error("too-large", span, limit));
        Err(Stop)
    }

    fn open(
        &mut self,
        content: Content,
        style: StructureStyle,
        anchor: usize,
        start: Span,
    ) -> Result<(), Stop> {
        self.count(1, 1, start)?;
        self.open.push(Frame { start, flow: style == StructureStyle::Flow, anchor, content });
        Ok(())
    }

    fn close(&mut self, end: Span) {
        let Some(frame) = self.open.pop() else { return };
        let (value, first) = match frame.content {
            Content::List(items) => {
                let first = items.first().map(|item| item.span);
                (Value::List(items), first)
            }
            Content::Map(open) => {
                let first = open.entries.first().map(|entry| entry.key_span);
                (Value::Map(self.merge(open.entries, open.merged)), first)
            }
        };
        let whole = if frame.flow { frame.start.to(end) } else { first.unwrap_or(frame.start) };
        self.complete(Node::new(value, whole), frame.anchor);
    }

    /// `<<`: what the merged maps have and the map itself does not.
    fn merge(&mut self, mut entries: Vec<Entry>, merged: Vec<Node>) -> Vec<Entry> {
        let mut waiting: Vec<Node> = merged;
        waiting.reverse();
        while let Some(node) = waiting.pop() {
            match node.value {
                Value::Map(others) => {
                    for other in others {
                        if !entries.iter().any(|entry| entry.key == other.key) {
                            entries.push(other);
                        }
                    }
                }
                Value::List(items) => waiting.extend(items.into_iter().rev()),
                Value::Null | Value::Scalar(_) => {
                    let message = "`<<` takes a map or a list of maps";
                    self.out.push(Diagnostic::error("wrong-type", node.span, message));
                }
            }
        }
        entries
    }

    /// Hands a finished node to the list or map that it stands in.
    fn complete(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|frame| &mut frame.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map(open)) => match open.key.take() {
                None => open.key = Some(key(node, self.out)),
                Some(Key::Bad) => {}
                Some(Key::Merge) => open.merged.push(node),
                Some(Key::Text(key, key_span)) => match open.places.get(&key) {
                    Some(first) => {
                        let message = format!("`{key}` is written twice");
                        let duplicate = Diagnostic::error("duplicate-key", key_span, message)
                            .label("remove one of the two")
                            .related(*first, "first written here");
                        self.out.push(duplicate);
                    }
                    None => {
                        open.places.insert(key.clone(), key_span);
                        open.entries.push(Entry { key, key_span, node });
                    }
                },
            },
        }
    }

    /// An alias: the anchored node again, at its own place, since that is where a mistake is mended.
    fn repeat(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor) else {
            let message = "an anchor cannot hold itself";
            self.out.push(Diagnostic::error("syntax", span, message));
            return Err(Stop);
        };
        let (size, depth) = (node.size(), node.depth());
        self.count(size, depth, span)?;
        if let Some(node) = self.anchors.get(&anchor).cloned() {
            self.complete(node, 0);
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, range: Range) {
        if tag.is_some() {
            let span = range.tag_span().map_or_else(|| bytes(range), bytes);
            let message = "tags such as `!name` have no meaning in this file";
            let help = "a value that begins with `!` is quoted: \"!name\"";
            self.out.push(Diagnostic::error("syntax", span, message).label("remove it").help(help));
        }
    }
}

fn bytes(range: Range) -> Span {
    range.byte_range().map_or_else(Span::default, |range| Span::new(range.start, range.end))
}

/// A node that stands where a key belongs.
fn key(node: Node, out: &mut Vec<Diagnostic>) -> Key {
    let scalar = match node.value {
        Value::Scalar(scalar) => scalar,
        Value::Null => {
            let missing = Diagnostic::error("syntax", node.span, "the key before `:` is missing");
            out.push(missing);
            return Key::Bad;
        }
        Value::List(_) | Value::Map(_) => {
            let message = format!("a key is text; this is {}", node.kind());
            let help = "a value that begins with `{` or `[` and is meant as text is quoted";
            out.push(Diagnostic::error("syntax", node.span, message).help(help));
            return Key::Bad;
        }
    };
    match scalar.text.as_str() {
        "<<" if !scalar.quoted => Key::Merge,
        text if !scalar.quoted && is_boolean_word(text) => {
            let message = format!("other YAML tools read the key `{text}` as true or false");
            let quoted = format!("quote it: \"{text}\"");
            out.push(Diagnostic::error("needs-quotes", node.span, message).label(quoted));
            Key::Text(scalar.text, node.span)
        }
        _ => Key::Text(scalar.text, node.span),
    }
}
