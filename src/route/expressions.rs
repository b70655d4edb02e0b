//! Which regular expressions match a text, in one pass over it, whatever their number.
//!
//! All expressions of a column run side by side in one automaton, whose states are made as texts ask for them (a lazy DFA): each
//! byte costs the same for one expression and for a thousand, and one automaton is in the processor's caches where a
//! thousand would not be. Where they do not fit into it, the texts that they need tell which to ask ([`Literals`]).
//!
//! A `RegexSet` would do the same, but allocates for each search, and goes on rebuilding an automaton that does not fit
//! its cache. Here that is noticed, and the automaton is given up.

use std::fmt::{self, Debug};

use regex::Regex;
use regex_automata::hybrid::dfa::{Cache, DFA, OverlappingState};
use regex_automata::nfa::thompson;
use regex_automata::util::pool::Pool;
use regex_automata::{Input, MatchKind};

use super::{
    literals::Literals,
    rows::{Row, RowSet},
};

/// Fewer expressions are asked in turn for less.
const FEWEST: usize = 4;

/// Bytes of an automaton's states, for each thread that searches, and of what they are made from.
const CACHE: usize = 2 << 20;
const COMPILED: usize = 2 << 20;

/// The cache may overflow so often; then each byte must have used its state so often, or it is given up.
const OVERFLOWS: usize = 2;
const USES: usize = 16;

/// The expressions of a column.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    automaton: Option<Automaton>,
    literals: Literals,
    /// Those that need no text.
    rest: Vec<Row>,
}

impl Expressions {
    /// Indexes `expressions`.
    pub(super) fn new(expressions: &[(Row, &Regex)], len: usize) -> Self {
        let (literals, rest) = Literals::new(expressions, len);
        Self { automaton: Automaton::new(expressions), literals, rest }
    }

    /// Adds every row whose expression matches `haystack`. `true`: and no other.
    pub(super) fn add_to(&self, haystack: &[u8], set: &mut RowSet) -> bool {
        if self.automaton.as_ref().is_some_and(|automaton| automaton.add_to(haystack, set)) {
            return true;
        }
        self.literals.add_to(haystack, set);
        self.rest.iter().for_each(|&row| set.insert(row));
        false
    }
}

/// Expressions side by side.
struct Automaton {
    dfa: DFA,
    /// By pattern.
    rows: Vec<Row>,
    /// States made so far, by thread; `None` where they did not fit.
    caches: Pool<Option<Cache>, NewCache>,
}

type NewCache = Box<dyn Fn() -> Option<Cache> + Send + Sync>;

impl Automaton {
    /// `None` where it would be of no use, or too large.
    fn new(expressions: &[(Row, &Regex)]) -> Option<Self> {
        if expressions.len() < FEWEST {
            return None;
        }
        let (rows, texts): (Vec<_>, Vec<_>) =
            expressions.iter().map(|&(row, regex)| (row, regex.as_str())).unzip();
        let config = DFA::config()
            .match_kind(MatchKind::All)
            // Where a text is not ASCII, such an automaton cannot tell: then everything may match.
            .unicode_word_boundary(true)
            .cache_capacity(CACHE)
            .minimum_cache_clear_count(Some(OVERFLOWS))
            .minimum_bytes_per_state(Some(USES));
        let dfa = DFA::builder()
            .configure(config)
            .thompson(thompson::Config::new().nfa_size_limit(Some(COMPILED)))
            .build_many(&texts)
            .ok()?;
        let cache = dfa.clone();
        Some(Self { dfa, rows, caches: Pool::new(Box::new(move || Some(cache.create_cache()))) })
    }

    /// Adds the rows that match. `false`: it could not tell.
    fn add_to(&self, haystack: &[u8], set: &mut RowSet) -> bool {
        let mut kept = self.caches.get();
        let Some(cache) = kept.as_mut() else { return false };
        let told = self.search(cache, haystack, set);
        if !told && cache.clear_count() >= OVERFLOWS {
            *kept = None;
        }
        told
    }

    fn search(&self, cache: &mut Cache, haystack: &[u8], set: &mut RowSet) -> bool {
        let (input, mut state) = (Input::new(haystack), OverlappingState::start());
        // An expression matches once for each place where it may end. So many matches are no filter.
        for _ in 0..=self.rows.len() {
            if self.dfa.try_search_overlapping_fwd(cache, &input, &mut state).is_err() {
                return false;
            }
            match state.get_match() {
                Some(found) => set.insert(self.rows[found.pattern().as_usize()]),
                None => return true,
            }
        }
        false
    }
}

impl Debug for Automaton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Automaton").field("rows", &self.rows).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn index(texts: &[&str]) -> (Vec<Regex>, Expressions) {
        let regexes: Vec<_> = texts.iter().map(|text| Regex::new(text).unwrap()).collect();
        let rows: Vec<_> = (0..).zip(&regexes).collect();
        let expressions = Expressions::new(&rows, regexes.len());
        (regexes, expressions)
    }

    fn found(expressions: &Expressions, len: usize, text: &str) -> (Vec<usize>, bool) {
        let mut set = RowSet::empty(len);
        let exact = expressions.add_to(text.as_bytes(), &mut set);
        (set.iter().collect(), exact)
    }

    #[test]
    fn many_are_told_exactly() {
        let texts: Vec<_> = (0..9).map(|i| format!("^/[{i}x][0-9]+$")).collect();
        let (_, expressions) = index(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        for (text, want) in
            [("/77", vec![7]), ("/x1", (0..9).collect()), ("/7", vec![]), ("/77/", vec![])]
        {
            assert_eq!(found(&expressions, texts.len(), text), (want, true), "{text}");
        }
    }

    #[test]
    fn few_are_told_by_their_texts() {
        let (_, expressions) = index(&["[0-9]", "ab[0-9]", "x|[0-9]"]);
        assert_eq!(found(&expressions, 3, "/ab"), (vec![0, 1, 2], false));
        assert_eq!(found(&expressions, 3, "/a1"), (vec![0, 2], false));
    }

    #[test]
    fn what_an_automaton_cannot_tell_is_told_by_texts() {
        let (_, expressions) = index(&[r"\babc\b", r"\bx\b", "[0-9]abc", "[a-z]abc", "é"]);
        assert_eq!(found(&expressions, 5, "abc"), (vec![0], true));
        assert_eq!(found(&expressions, 5, "é abc"), (vec![0, 1, 2, 3, 4], false));
    }

    /// Whatever the texts do to the cache, and after it was given up.
    #[test]
    fn nothing_that_matches_is_left_out_and_memory_is_bounded() {
        let mut rng = Rng::from_seed(3);
        let mut letter = || char::from(b'a' + u8::try_from(rng.below(4)).unwrap());
        let texts: Vec<_> = (0..300)
            .map(|_| format!("[{}{}].{{0,9}}[{}z].?[{}]+", letter(), letter(), letter(), letter()))
            .collect();
        let (regexes, expressions) = index(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let automaton = expressions.automaton.as_ref().unwrap();
        let mut given_up = false;
        for turn in 0..600 {
            let word: String = (0..turn % 60).map(|_| letter()).collect();
            let (found, _) = found(&expressions, texts.len(), &word);
            // Each seventh word is asked: all lengths come to it, before and after.
            for (row, regex) in regexes.iter().enumerate().filter(|_| turn % 7 == 0) {
                assert!(!regex.is_match(&word) || found.contains(&row), "{regex} {word}");
            }
            match &*automaton.caches.get() {
                Some(cache) => assert!(cache.memory_usage() <= CACHE, "{}", cache.memory_usage()),
                None => given_up = true,
            }
        }
        assert!(given_up, "the words were meant to overflow the cache");
    }
}
