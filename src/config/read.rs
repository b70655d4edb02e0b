//! Nodes → the types of the configuration, field by field. Every mistake is reported and reading goes on with the
//! default, so that one run shows them all; a configuration is only handed out where there was none.

mod action;
mod authorize;
mod balance;
mod discover;
mod endpoints;
mod gate;
mod headers;
mod health;
mod jwt;
mod listener;
mod matches;
mod outliers;
mod retry;
mod scalar;
mod scenario;
mod shaping;
mod tls;
mod top;
mod upstream;

use std::cell::RefCell;
use std::collections::HashSet;

use crate::base::certificates::CertificateFiles;
use crate::base::endpoint::EndpointSpec;

use super::diagnostic::{Diagnostic, either, nearest};
use super::keys::{self, Section};
use super::node::{Entry, Node, Path, Step, Value};
use super::source::Span;

pub(super) use retry::GRPC;
pub(super) use scenario::scenario;
pub(super) use top::config;

/// The endpoints of a file that holds nothing else.
pub(super) fn endpoints_file(reader: &Reader<'_>, root: &Node) -> Option<Vec<EndpointSpec>> {
    endpoints::listed(&At::root(reader, root))
}

/// What reading collects, and what every reader may need to know.
pub(super) struct Reader<'a> {
    out: RefCell<Vec<Diagnostic>>,
    /// A mistake in `defaults` would else be told again for each item it is merged into.
    told: RefCell<HashSet<(&'static str, Span, String)>>,
    /// The keys of `upstreams`, whether or not what they hold is right.
    upstreams: Vec<&'a str>,
    known: HashSet<&'a str>,
    /// What `identity` says, read before all that may want it.
    identity: RefCell<CertificateFiles>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(root: &'a Node) -> Self {
        let entries = root.get("upstreams").map_or(&[][..], Node::entries);
        let upstreams: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let known = upstreams.iter().copied().collect();
        let (out, told, identity) = Default::default();
        Self { out, told, upstreams, known, identity }
    }

    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.out.into_inner()
    }

    pub(super) fn push(&self, diagnostic: Diagnostic) {
        let key = (diagnostic.code, diagnostic.span, diagnostic.message.clone());
        if self.told.borrow_mut().insert(key) {
            self.out.borrow_mut().push(diagnostic);
        }
    }
}

/// A node with its place in the tree.
#[derive(Clone, Copy)]
struct At<'a> {
    reader: &'a Reader<'a>,
    node: &'a Node,
    path: Path<'a>,
    /// The key before it, where there is one: underlined when something is missing below.
    place: Span,
}

impl<'a> At<'a> {
    fn root(reader: &'a Reader<'a>, node: &'a Node) -> Self {
        Self { reader, node, path: Path::ROOT, place: Span::new(0, 0) }
    }

    /// How messages call it: its key in backquotes.
    fn subject(&self) -> String {
        let steps = self.path.steps();
        let key = steps.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(*key),
            Step::Index(_) => None,
        });
        match (steps.last(), key) {
            (Some(Step::Index(_)), Some(key)) => format!("an item of `{key}`"),
            (_, Some(key)) => format!("`{key}`"),
            (Some(Step::Index(_)), None) => "an item of the list".to_owned(),
            _ => "the file".to_owned(),
        }
    }

    fn error(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.node.span, message).at(self.path)
    }

    fn push(&self, diagnostic: Diagnostic) {
        if !matches!(&self.node.value, Value::Scalar(scalar) if scalar.broken) {
            self.reader.push(diagnostic);
        }
    }

    /// Says that something else is wanted here, such as "a list of routes".
    fn wrong_type(&self, wanted: &str) {
        let message = match self.node.value {
            Value::Null => format!("{} has no value", self.subject()),
            _ => format!("{} takes {wanted}, not {}", self.subject(), self.node.kind()),
        };
        // Nothing has no text to underline.
        let span = if self.node.is_null() { self.place } else { self.node.span };
        let error = Diagnostic::error("wrong-type", span, message).at(self.path);
        self.push(error.label(format!("write {wanted}")));
    }

    /// The fields of a map; an empty value counts as an empty map. Unknown keys are reported here.
    fn fields(&'a self, section: &'static Section) -> Option<Fields<'a>> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            Value::Scalar(_) | Value::List(_) => {
                let wanted = match section.keys {
                    [only] => format!("a map with the key `{only}`"),
                    keys => {
                        format!("a map with keys such as {}", either(&keys[..keys.len().min(3)]))
                    }
                };
                self.wrong_type(&wanted);
                return None;
            }
        };
        let fields = Fields { at: self, entries, section };
        fields.report_unknown();
        Some(fields)
    }

    /// The items of a list, which must be one.
    fn list(&'a self, wanted: &str) -> Option<Vec<Self>> {
        let Value::List(items) = &self.node.value else {
            self.wrong_type(wanted);
            return None;
        };
        Some(items.iter().enumerate().map(|(index, node)| self.item(index, node)).collect())
    }

    /// The items of a list, or the one value that stands in place of a list.
    fn one_or_more(&'a self) -> Vec<Self> {
        match &self.node.value {
            Value::List(items) => {
                items.iter().enumerate().map(|(index, node)| self.item(index, node)).collect()
            }
            _ => vec![*self],
        }
    }

    fn item(&'a self, index: usize, node: &'a Node) -> Self {
        Self { reader: self.reader, node, path: self.path.index(index), place: node.span }
    }

    /// The entries of a map whose keys are the user's own; an empty value counts as an empty map.
    fn pairs(&'a self, wanted: &str) -> Option<Vec<(&'a Entry, Self)>> {
        match &self.node.value {
            Value::Null => Some(Vec::new()),
            Value::Map(entries) => Some(entries.iter().map(|e| (e, self.below(e))).collect()),
            Value::Scalar(_) | Value::List(_) => {
                self.wrong_type(wanted);
                None
            }
        }
    }

    fn below(&'a self, entry: &'a Entry) -> Self {
        let path = self.path.key(&entry.key);
        Self { reader: self.reader, node: &entry.node, path, place: entry.key_span }
    }
}

/// A map whose keys are fixed.
struct Fields<'a> {
    at: &'a At<'a>,
    entries: &'a [Entry],
    section: &'static Section,
}

impl<'a> Fields<'a> {
    /// The value of a key, where it is written.
    fn get(&'a self, key: &str) -> Option<At<'a>> {
        debug_assert!(self.section.keys.contains(&key), "{key} is in the table of keys");
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.at.below(entry))
    }

    /// What `read` makes of the value of a key; nothing where it is not written or wrong.
    fn read<T>(&'a self, key: &str, read: impl FnOnce(At<'a>) -> Option<T>) -> Option<T> {
        read(self.get(key)?)
    }

    /// The value of a key that must be written.
    fn required(&'a self, key: &str) -> Option<At<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.missing(&format!("`{key}`"));
        }
        found
    }

    fn missing(&self, what: &str) {
        let message = format!("{} needs {what}", self.section.name);
        let span = if self.at.path.steps().is_empty() { Span::default() } else { self.at.place };
        self.at.push(Diagnostic::error("missing-key", span, message).at(self.at.path));
    }

    /// The one of several keys that is written; more than one is an error that shows both.
    fn at_most_one(&'a self, keys: &[&str]) -> Option<At<'a>> {
        let mut written = self.entries.iter().filter(|entry| keys.contains(&entry.key.as_str()));
        let first = written.next()?;
        for other in written {
            let message = format!("`{}` and `{}` exclude each other", first.key, other.key);
            let error = Diagnostic::error("exclusive-keys", other.key_span, message)
                .at(self.at.path)
                .label("keep one of the two")
                .related(first.key_span, "the other one");
            self.at.push(error);
        }
        Some(self.at.below(first))
    }

    /// As `at_most_one`, with an error where none is written.
    fn exactly_one(&'a self, keys: &[&str]) -> Option<At<'a>> {
        let found = self.at_most_one(keys);
        if found.is_none() {
            self.missing(&format!("one of {}", either(keys)));
        }
        found
    }

    fn report_unknown(&self) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if !self.section.keys.contains(&key) {
                let path = self.at.path.key(key);
                self.at.push(self.unknown(entry).at(path));
            }
        }
    }

    fn unknown(&self, entry: &Entry) -> Diagnostic {
        let (key, section) = (entry.key.as_str(), self.section);
        if section.later.contains(&key) {
            let message = format!("`{key}` is not supported by this version yet");
            return Diagnostic::error("unsupported-key", entry.key_span, message)
                .label("remove it");
        }
        let message = format!("`{key}` is not a key of {}", section.name);
        let error = Diagnostic::error("unknown-key", entry.key_span, message);
        let known = section.keys.iter().chain(section.later).copied();
        let mut translated = keys::OTHER_WORDS.iter().filter(|(word, _)| *word == key);
        let translated = translated.find(|(_, ours)| section.keys.contains(ours));
        if let Some(meant) = translated.map(|(_, ours)| *ours).or_else(|| nearest(key, known)) {
            return error.label(format!("did you mean `{meant}`?"));
        }
        // `{ path: /a,b }` reads as two keys.
        if entry.node.is_null() && entry.node.span.start <= entry.key_span.end + 1 {
            return error.help(format!(
                "inside {{ }} a value with a comma is quoted; else give `{key}` a value or remove it"
            ));
        }
        // Most slips go to the wrong one of the large maps.
        let large = [&keys::ROUTE, &keys::UPSTREAM, &keys::LISTENER, &keys::MATCH, &keys::RETRY];
        let elsewhere = if keys::SCENARIOS.iter().any(|other| other.name == section.name) {
            keys::SCENARIOS.iter().find(|other| other.keys.contains(&key))
        } else {
            large.iter().chain(keys::ALL).find(|other| other.keys.contains(&key))
        };
        let known = format!("the keys of {} are {}", section.name, section.keys.join(", "));
        match elsewhere {
            Some(other) => error.label(format!("it is a key of {}", other.name)).help(known),
            None => error.help(known),
        }
    }
}
