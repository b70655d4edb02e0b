//! The index of the values of one header or one query parameter.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{
    expressions::Expressions,
    pattern::ValueMatch,
    rows::{Row, RowSet, Rows},
};

/// Which rows a name's values leave, of those that ask about the name, and all rows that do not.
#[derive(Debug)]
pub(super) struct ValueColumn {
    /// What holds where the name is absent.
    absent: RowSet,
    /// What holds where the name is present, or may hold and cannot be told by a literal.
    present: RowSet,
    exact: HashMap<Box<[u8]>, Rows, FixedState>,
    prefixes: Prefixes,
    expressions: Expressions,
}

impl ValueColumn {
    /// The column of the conditions in `asked`, at most one per row. All other rows of the block hold.
    pub(super) fn new(asked: &[(Row, &ValueMatch)], len: usize) -> Self {
        let mut silent = RowSet::full(len);
        let mut asking = RowSet::empty(len);
        asked.iter().for_each(|&(row, _)| asking.insert(row));
        silent.subtract(&asking);
        let (mut absent, mut present) = (silent.clone(), silent);
        let mut exact: HashMap<Box<[u8]>, Rows, FixedState> = HashMap::default();
        let mut prefixes: HashMap<&[u8], Rows> = HashMap::new();
        let mut expressions = Vec::new();
        for &(row, wanted) in asked {
            match wanted {
                ValueMatch::Exact(text) => {
                    exact.entry(text.as_bytes().into()).or_default().insert(row, len);
                }
                ValueMatch::Prefix(text) => {
                    prefixes.entry(text.as_bytes()).or_default().insert(row, len);
                }
                ValueMatch::Regex(regex) => expressions.push((row, regex)),
                ValueMatch::Present(true) => present.insert(row),
                ValueMatch::Present(false) => absent.insert(row),
            }
        }
        let expressions = Expressions::new(&expressions, len);
        Self { absent, present, exact, prefixes: Prefixes::new(prefixes), expressions }
    }

    /// What holds before any value is seen.
    pub(super) fn absent(&self) -> &RowSet {
        &self.absent
    }

    /// What holds for any value.
    pub(super) fn present(&self) -> &RowSet {
        &self.present
    }

    /// Adds to `set` what this one `value` lets hold. `true`: all expressions that are added do hold.
    pub(super) fn add_to(&self, value: &[u8], set: &mut RowSet) -> bool {
        if let Some(rows) = self.exact.get(value) {
            rows.add_to(set);
        }
        self.prefixes.add_to(value, set);
        // An expression never holds for what is not UTF-8.
        self.expressions.add_to(value, set) && str::from_utf8(value).is_ok()
    }
}

/// Prefixes in order, each with the longest other one that it begins with: one binary search, then up.
#[derive(Debug)]
struct Prefixes(Vec<Prefix>);

#[derive(Debug)]
struct Prefix {
    text: Box<[u8]>,
    parent: Option<usize>,
    rows: Rows,
}

impl Prefixes {
    fn new(by_text: HashMap<&[u8], Rows>) -> Self {
        let mut sorted: Vec<_> = by_text.into_iter().collect();
        sorted.sort_unstable_by_key(|&(text, _)| text);
        let mut list: Vec<Prefix> = Vec::with_capacity(sorted.len());
        for (text, rows) in sorted {
            // Whatever `text` begins with is the one before it or one of that one's parents.
            let mut parent = list.len().checked_sub(1);
            while let Some(prefix) = parent.and_then(|index| list.get(index)) {
                if text.starts_with(&prefix.text) {
                    break;
                }
                parent = prefix.parent;
            }
            list.push(Prefix { text: text.into(), parent, rows });
        }
        Self(list)
    }

    fn add_to(&self, value: &[u8], set: &mut RowSet) {
        let mut at = self.0.partition_point(|prefix| &*prefix.text <= value).checked_sub(1);
        while let Some(prefix) = at.and_then(|index| self.0.get(index)) {
            if value.starts_with(&prefix.text) {
                prefix.rows.add_to(set);
            }
            at = prefix.parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(column: &ValueColumn, value: &str) -> Vec<usize> {
        let mut set = column.present().clone();
        column.add_to(value.as_bytes(), &mut set);
        set.iter().collect()
    }

    #[test]
    fn nested_prefixes_are_all_found() {
        let prefixes = ["a", "abc", "abd", "b", "", "abcde", "ac"];
        let wanted: Vec<_> = prefixes.map(|text| ValueMatch::Prefix(text.to_owned())).into();
        let asked: Vec<_> = (0..).zip(&wanted).collect();
        let column = ValueColumn::new(&asked, prefixes.len());
        for value in ["", "a", "ab", "abc", "abcd", "abcdef", "abce", "abd", "az", "b", "c", "acz"]
        {
            let want: Vec<_> =
                (0..prefixes.len()).filter(|&i| value.starts_with(prefixes[i])).collect();
            assert_eq!(rows(&column, value), want, "{value}");
        }
    }

    #[test]
    fn rows_that_do_not_ask_hold_in_any_case() {
        let wanted =
            [ValueMatch::Exact("x".into()), ValueMatch::Present(false), ValueMatch::Present(true)];
        let asked: Vec<_> = (1..).zip(&wanted).collect();
        let column = ValueColumn::new(&asked, 5);
        assert_eq!(column.absent().iter().collect::<Vec<_>>(), [0, 2, 4]);
        assert_eq!(rows(&column, "x"), [0, 1, 3, 4]);
        assert_eq!(rows(&column, "y"), [0, 3, 4]);
    }
}
