//! Which regular expressions may match a text, by the texts that they need.
//!
//! Most expressions contain text without which they cannot match (`^/v[0-9]+/orders/` needs `/orders/`).
//! All such texts are searched at once by Aho–Corasick, as RE2's `FilteredRE2` does.

use std::collections::HashMap;

use aho_corasick::AhoCorasick;
use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};

use super::rows::{Row, RowSet, Rows};

/// Shorter texts occur nearly everywhere.
const SHORTEST: usize = 2;

/// Alternatives of which one must occur; an expression with more is not filtered.
const MOST_ALTERNATIVES: usize = 16;

/// The expressions of a column that need some text.
#[derive(Debug, Default)]
pub(super) struct Literals {
    /// `None` where there is nothing to search.
    automaton: Option<AhoCorasick>,
    /// By pattern of the automaton.
    rows: Vec<Rows>,
}

impl Literals {
    /// Indexes `expressions`, and returns the rows of those that need no text: they may match anything.
    pub(super) fn new(expressions: &[(Row, &Regex)], len: usize) -> (Self, Vec<Row>) {
        let clauses: Vec<_> = expressions
            .iter()
            .map(|&(row, regex)| {
                let parsed = regex_syntax::parse(regex.as_str());
                (row, parsed.map(|hir| required(&hir)).unwrap_or_default())
            })
            .collect();
        let mut uses: HashMap<&[u8], usize> = HashMap::new();
        for text in clauses.iter().flat_map(|(_, clauses)| clauses.iter().flatten()) {
            *uses.entry(text).or_default() += 1;
        }
        let mut by_text: HashMap<&[u8], Rows> = HashMap::new();
        let mut always = Vec::new();
        for (row, clauses) in &clauses {
            // The text that fewest expressions share says most; then the longer one.
            let rank = |clause: &&Clause| {
                let shared: usize = clause.iter().map(|text| uses[text.as_slice()]).sum();
                (shared, std::cmp::Reverse(shortest(clause)))
            };
            match clauses.iter().min_by_key(rank) {
                Some(clause) => clause
                    .iter()
                    .for_each(|text| by_text.entry(text).or_default().insert(*row, len)),
                None => always.push(*row),
            }
        }
        let (texts, rows): (Vec<_>, Vec<_>) = by_text.into_iter().unzip();
        if texts.is_empty() {
            return (Self::default(), always);
        }
        match AhoCorasick::new(&texts) {
            Ok(automaton) => (Self { automaton: Some(automaton), rows }, always),
            // Too large for an automaton: unfiltered, and still right.
            Err(_) => (Self::default(), expressions.iter().map(|&(row, _)| row).collect()),
        }
    }

    /// Adds the rows whose text occurs in `haystack`.
    pub(super) fn add_to(&self, haystack: &[u8], set: &mut RowSet) {
        let Some(automaton) = &self.automaton else { return };
        for found in automaton.find_overlapping_iter(haystack) {
            self.rows[found.pattern().as_usize()].add_to(set);
        }
    }
}

/// Texts of which at least one occurs in whatever matches.
type Clause = Vec<Vec<u8>>;

fn shortest(clause: &Clause) -> usize {
    clause.iter().map(Vec::len).min().unwrap_or(0)
}

/// Clauses that all hold for whatever matches. Never claims too much: an unknown part adds none.
fn required(hir: &Hir) -> Vec<Clause> {
    match hir.kind() {
        HirKind::Literal(text) if text.0.len() >= SHORTEST => vec![vec![text.0.to_vec()]],
        HirKind::Concat(parts) => parts.iter().flat_map(required).collect(),
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub),
        HirKind::Alternation(branches) => {
            let best = |branch| required(branch).into_iter().max_by_key(shortest);
            let clauses: Option<Vec<Clause>> = branches.iter().map(best).collect();
            let clause: Clause = clauses.unwrap_or_default().into_iter().flatten().collect();
            let usable = (1..=MOST_ALTERNATIVES).contains(&clause.len());
            usable.then_some(clause).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(expression: &str) -> Vec<Vec<String>> {
        let text = |text: Vec<u8>| String::from_utf8(text).unwrap();
        required(&regex_syntax::parse(expression).unwrap())
            .into_iter()
            .map(|clause| clause.into_iter().map(text).collect())
            .collect()
    }

    #[test]
    fn required_texts_are_those_no_match_lacks() {
        for (expression, want) in [
            ("^/v[0-9]+/orders/", vec![vec!["/v"], vec!["/orders/"]]),
            ("^/a", vec![vec!["/a"]]),
            ("^/$", vec![]),
            ("(?i)orders", vec![]),
            ("(orders)?x", vec![]),
            ("(?:orders)+x", vec![vec!["orders"]]),
            ("(?:orders)*", vec![]),
            ("^/(users|accounts)/", vec![vec!["users", "accounts"]]),
            ("^/(users|[a-z]+)/", vec![]),
            ("^/a/.*|^/b/.*", vec![vec!["/a/", "/b/"]]),
            ("a\\.b{2}", vec![vec!["a."]]),
            (".*", vec![]),
        ] {
            assert_eq!(texts(expression), want, "{expression}");
        }
    }

    #[test]
    fn the_text_that_fewest_share_is_the_filter() {
        let regexes = ["^/common/v[0-9]/a1$", "^/common/v[0-9]/b2$", "[0-9]"];
        let regexes: Vec<_> = regexes.iter().map(|text| Regex::new(text).unwrap()).collect();
        let rows: Vec<_> = (0..).zip(&regexes).collect();
        let (literals, always) = Literals::new(&rows, 3);
        assert_eq!(always, [2]);
        for (path, want) in
            [("/common/v1/b2", vec![1]), ("/common/v1/", vec![]), ("/a1/b2", vec![0, 1])]
        {
            let mut set = RowSet::empty(3);
            literals.add_to(path.as_bytes(), &mut set);
            assert_eq!(set.iter().collect::<Vec<_>>(), want, "{path}");
        }
    }
}
