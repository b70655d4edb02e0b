//! What is wrong in a file, where, and what would be right.

use std::cmp::Reverse;
use std::fmt::Display;

use super::source::Span;

/// Whether a file with this finding can take force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably not as meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding. All findings of a file are collected; none hides another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// A stable word for tools, such as `unknown-key`.
    pub code: &'static str,
    /// The node's place in the tree, such as `listeners.outbound.routes[0].timeout`; empty for the whole file.
    pub path: String,
    /// What is underlined.
    pub span: Span,
    /// What is wrong, in one line.
    pub message: String,
    /// What would be right; stands under the underlined text. May be empty.
    pub label: String,
    /// How to get there, where the label is not enough.
    pub help: Option<String>,
    /// Other places that matter, each with what it has to do with this.
    pub related: Vec<(Span, String)>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            path: String::new(),
            span,
            message: message.into(),
            label: String::new(),
            help: None,
            related: Vec::new(),
        }
    }

    /// A warning at `span`.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// With the node's place in the tree.
    #[must_use]
    pub fn at(mut self, path: impl Display) -> Self {
        self.path = format!("{path}");
        self
    }

    /// With what would be right.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With another place.
    #[must_use]
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }
}

/// The one of `words` that `found` most likely stands for, or nothing where none is near.
///
/// Damerau-Levenshtein with one edit per three characters: `timout` and `tiemout` are near `timeout`, `to` is near nothing.
pub(super) fn nearest<'a>(
    found: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = found.to_ascii_lowercase();
    // A long text is no slip of the finger, and the distance is quadratic.
    let budget = match lower.chars().count() {
        0 | 65.. => return None,
        length => (length.div_ceil(3)).min(3),
    };
    words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&lower, &word.to_ascii_lowercase()), word))
        .filter(|(distance, word)| *distance <= budget && *distance < word.chars().count())
        // Of two as near, the one that begins alike: `retries` is meant for `retry`, not for `rewrite`.
        .min_by_key(|(distance, word)| (*distance, Reverse(alike(&lower, word))))
        .map(|(_, word)| word)
}

/// How many characters two words have in common at their start.
fn alike(one: &str, other: &str) -> usize {
    one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count()
}

/// `words` as a reading list: "`a`, `b` or `c`".
pub(super) fn either(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word_and_strangers_do_not() {
        let words = ["timeout", "rewrite", "to", "retry"];
        for (found, wanted) in [
            ("timout", Some("timeout")),
            ("Retry", Some("retry")),
            ("tot", Some("to")),
            ("retries", Some("retry")),
        ] {
            assert_eq!(nearest(found, words), wanted, "{found}");
        }
        for stranger in ["x", "upstreams", "", &"a".repeat(5_000)] {
            assert_eq!(nearest(stranger, words), None, "{stranger}");
        }
    }

    #[test]
    fn words_are_listed_as_one_reads() {
        assert_eq!(either(&["a"]), "`a`");
        assert_eq!(either(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
