//! A file as a tree of nodes, each with its place; and where a value in it comes from.

use super::source::Span;

/// A scalar, a list or a map, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    /// What is underlined: a scalar's text, a whole `{ }` or `[ ]`, or the first key or item of a block.
    pub(super) span: Span,
    /// True where the node was written under `defaults:` and merged to where it is now.
    pub(super) inherited: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A scalar's text after YAML's own escapes.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Written in quotes, as a block, or with `!!str`: text, whatever it looks like.
    pub(super) quoted: bool,
    /// It held a `${…}`, which no other tool retypes.
    pub(super) expanded: bool,
    /// Its `${…}` could not be expanded, which was told; nothing more is said about it.
    pub(super) broken: bool,
}

/// One `key: value` of a map; keys are unique.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn new(value: Value, span: Span) -> Self {
        Self { value, span, inherited: false }
    }

    /// The entries of a map; none of anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// What it is, for "found …".
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The number of nodes below and including this one.
    pub(super) fn size(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Scalar(_) => 0,
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.size()).sum(),
        }
    }

    /// The levels of lists and maps, this one included.
    pub(super) fn depth(&self) -> usize {
        let below = match &self.value {
            Value::Null | Value::Scalar(_) => return 0,
            Value::List(items) => items.iter().map(Self::depth).max(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.depth()).max(),
        };
        1 + below.unwrap_or_default()
    }

    /// Calls `visit` for every scalar below and including this one.
    pub(super) fn each_scalar(&mut self, visit: &mut impl FnMut(&mut Scalar, Span)) {
        match &mut self.value {
            Value::Null => {}
            Value::Scalar(scalar) => visit(scalar, self.span),
            Value::List(items) => items.iter_mut().for_each(|item| item.each_scalar(visit)),
            Value::Map(entries) => {
                entries.iter_mut().for_each(|entry| entry.node.each_scalar(visit));
            }
        }
    }
}

/// What YAML 1.1 tools (Helm, Kustomize, editors) take for a boolean.
pub(super) fn is_boolean_word(text: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// What another YAML tool would make of an unquoted scalar that is meant as text: nothing else, or a boolean, a
/// number, a date.
pub(super) fn retyped(text: &str) -> Option<&'static str> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    let radix = |text: &str| {
        ["0x", "0o", "0b"].iter().filter_map(|radix| text.strip_prefix(radix)).any(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'_')
        })
    };
    // `inf`, `nan` and `infinity` are numbers to Rust but text to YAML, which writes `.inf`.
    let float = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.replace('_', "").parse::<f64>().is_ok();
    let special = matches!(unsigned.to_ascii_lowercase().as_str(), ".inf" | ".nan");
    // Base 60, which 22:22 and 10:30:00 are in YAML 1.1.
    let sexagesimal = unsigned.contains(':')
        && unsigned
            .split(':')
            .enumerate()
            .all(|(index, part)| digits(part) && (index == 0 || (part.len() <= 2 && part < "60")));
    let date = text.len() == 10
        && text.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    match () {
        () if is_boolean_word(text) => Some("true or false"),
        () if digits(unsigned) || radix(unsigned) || float || special || sexagesimal => {
            Some("a number")
        }
        () if date => Some("a date"),
        () => None,
    }
}

/// A step from a node to one below it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// A node's place in the tree: a list of steps on the stack, written out only for a finding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Self>,
    step: Option<Step<'a>>,
}

impl<'a> Path<'a> {
    /// The file itself.
    pub(super) const ROOT: Self = Self { parent: None, step: None };

    pub(super) fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), step: Some(Step::Key(key)) }
    }

    pub(super) fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Some(Step::Index(index)) }
    }

    /// From the file down.
    pub(super) fn steps(&self) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        let mut path = Some(self);
        while let Some(here) = path {
            steps.extend(here.step);
            path = here.parent;
        }
        steps.reverse();
        steps
    }
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        let first = self.parent.is_none_or(|parent| parent.step.is_none());
        match self.step {
            None => Ok(()),
            Some(Step::Key(key)) if first => f.write_str(key),
            Some(Step::Key(key)) => write!(f, ".{key}"),
            Some(Step::Index(index)) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_other_tools_retype_is_known() {
        for text in ["yes", "NO", "on", "y", "1.10", "007", "0x1F", "1_000", "1e3", ".5", "-3"] {
            assert!(retyped(text).is_some(), "{text}");
        }
        for text in [".inf", "22:22", "2024-01-31"] {
            assert!(retyped(text).is_some(), "{text}");
        }
        for text in ["1.2.3", "v1", "10.0.0.1:80", "inf", "nan", "yess", "", "-", "a:1", "1:99"] {
            assert!(retyped(text).is_none(), "{text}");
        }
    }

    #[test]
    fn paths_read_as_people_write_them() {
        let root = Path::ROOT;
        let listeners = root.key("listeners");
        let outbound = listeners.key("outbound");
        let routes = outbound.key("routes");
        let first = routes.index(0);
        assert_eq!(first.key("timeout").to_string(), "listeners.outbound.routes[0].timeout");
        assert_eq!(Path::ROOT.to_string(), "");
        assert_eq!(first.steps().len(), 4);
    }
}
