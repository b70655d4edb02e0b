//! Which routes of a block may match, without asking each: one column per kind of condition.
//!
//! A column turns its part of the request into the set of rows that this part lets through, including
//! all rows that do not ask about it; the sets are intersected. What is left is a superset of the rows
//! that match, mostly one or two.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;
use http::{HeaderName, Method};

use super::{
    expressions::Expressions,
    matcher::{Matcher, STANDARD_METHODS, standard_index},
    pattern::{HostPattern, PathPattern, ValueMatch},
    query::{self, Scratch},
    request::RequestView,
    rows::{Row, RowSet, Rows},
    segments::Segments,
    values::ValueColumn,
};

/// Names of headers, and of query parameters, with a column of their own; all others share one.
const NAMED_COLUMNS: usize = 4;

/// Asking so few rows is cheaper than another column.
const FEW: usize = 3;

type Map<K, V> = HashMap<K, V, FixedState>;

/// Conditions that hold for all candidates if they are expressions, so that none of them is asked again: each by itself would
/// have to be fetched from memory.
#[derive(Debug, Default)]
pub(super) struct Told<'i> {
    /// The path.
    pub(super) path: bool,
    /// The first condition on each of these headers.
    headers: [Option<&'i HeaderName>; NAMED_COLUMNS],
}

impl Told<'_> {
    pub(super) fn header(&self, name: &HeaderName) -> bool {
        self.headers.iter().flatten().any(|told| *told == name)
    }
}

/// The columns of one block. A column that no row asks about is left out.
#[derive(Debug)]
pub(super) struct Index {
    all: RowSet,
    hosts: Option<HostColumn>,
    paths: Option<PathColumn>,
    methods: MethodColumn,
    headers: Vec<(HeaderName, ValueColumn)>,
    other_headers: Option<NameColumn>,
    query: Vec<(String, ValueColumn)>,
    other_query: Option<NameColumn>,
}

impl Index {
    /// Indexes a block, at most [`BLOCK`](super::rows::BLOCK) routes.
    pub(super) fn new(routes: &[Matcher]) -> Self {
        let len = routes.len();
        let rows = || (0..Row::MAX).zip(routes);
        let headers = conditions(rows().map(|(row, m)| (row, m.wants.headers.as_slice())), len);
        let query = conditions(rows().map(|(row, m)| (row, m.wants.query.as_slice())), len);
        Self {
            all: RowSet::full(len),
            hosts: HostColumn::new(rows(), len),
            paths: PathColumn::new(rows(), len),
            methods: MethodColumn::new(rows(), len),
            headers: headers.0,
            other_headers: headers.1,
            query: query.0,
            other_query: query.1,
        }
    }

    /// Every row that matches, and few others. No allocation but for an escaped query value beyond 256
    /// bytes.
    pub(super) fn candidates(&self, request: &RequestView<'_>) -> (RowSet, Told<'_>) {
        let mut left = self.all.clone();
        if let Some(hosts) = &self.hosts {
            hosts.filter(request.host, &mut left);
        }
        let mut told = Told::default();
        if let Some(paths) = &self.paths {
            told.path = paths.filter(request.path, &mut left);
        }
        if !left.at_most(FEW) {
            self.filter_others(request, &mut left, &mut told);
        }
        (left, told)
    }

    /// By all but host and path.
    fn filter_others<'i>(
        &'i self,
        request: &RequestView<'_>,
        left: &mut RowSet,
        told: &mut Told<'i>,
    ) {
        left.intersect(self.methods.rows(request.method));
        if !self.headers.is_empty() || self.other_headers.is_some() {
            self.filter_headers(request, left, told);
        }
        if !self.query.is_empty() || self.other_query.is_some() {
            self.filter_query(request.query.unwrap_or_default(), left);
        }
    }

    fn filter_headers<'i>(
        &'i self,
        request: &RequestView<'_>,
        left: &mut RowSet,
        told: &mut Told<'i>,
    ) {
        for ((name, column), told) in self.headers.iter().zip(&mut told.headers) {
            if left.at_most(FEW) {
                return;
            }
            let values = request.headers.get_all(name).iter();
            let mut held: Option<RowSet> = None;
            let mut exact = true;
            for value in values {
                let held = held.get_or_insert_with(|| column.present().clone());
                exact &= column.add_to(value.as_bytes(), held);
            }
            *told = exact.then_some(name);
            left.intersect(held.as_ref().unwrap_or_else(|| column.absent()));
        }
        let Some(column) = &self.other_headers else { return };
        if !left.at_most(FEW) {
            let mut held = column.silent.clone();
            for name in request.headers.keys() {
                column.add_to(name.as_str().as_bytes(), &mut held);
            }
            left.intersect(&held);
        }
    }

    fn filter_query(&self, raw: &str, left: &mut RowSet) {
        let mut scratch = Scratch::new();
        for (name, column) in &self.query {
            if left.at_most(FEW) {
                return;
            }
            let mut held: Option<RowSet> = None;
            for (_, value) in query::pairs(raw).filter(|(n, _)| query::is_name(n, name)) {
                let held = held.get_or_insert_with(|| column.present().clone());
                column.add_to(scratch.decode(value), held);
            }
            left.intersect(held.as_ref().unwrap_or_else(|| column.absent()));
        }
        let Some(column) = &self.other_query else { return };
        if !left.at_most(FEW) {
            let mut held = column.silent.clone();
            for (name, _) in query::pairs(raw) {
                column.add_to(scratch.decode(name), &mut held);
            }
            left.intersect(&held);
        }
    }
}

/// `match.host`: whole names, and suffixes looked up from every dot of the host.
#[derive(Debug)]
struct HostColumn {
    silent: RowSet,
    exact: Map<Box<str>, Rows>,
    suffix: Map<Box<str>, Rows>,
    longest_suffix: usize,
}

impl HostColumn {
    fn new<'a>(rows: impl Iterator<Item = (Row, &'a Matcher)>, len: usize) -> Option<Self> {
        let mut column = Self {
            silent: RowSet::empty(len),
            exact: Map::default(),
            suffix: Map::default(),
            longest_suffix: 0,
        };
        for (row, matcher) in rows {
            if matcher.wants.host.is_empty() {
                column.silent.insert(row);
            }
            for host in &matcher.wants.host {
                let rows = match host {
                    HostPattern::Exact(name) => column.exact.entry(name.as_str().into()),
                    HostPattern::Suffix(suffix) if suffix.starts_with('.') => {
                        column.longest_suffix = column.longest_suffix.max(suffix.len());
                        column.suffix.entry(suffix.as_str().into())
                    }
                    // Not of the form that is looked up.
                    HostPattern::Suffix(_) => {
                        column.silent.insert(row);
                        continue;
                    }
                };
                rows.or_default().insert(row, len);
            }
        }
        (!column.exact.is_empty() || !column.suffix.is_empty()).then_some(column)
    }

    fn filter(&self, host: &str, left: &mut RowSet) {
        let mut held = self.silent.clone();
        if let Some(rows) = self.exact.get(host) {
            rows.add_to(&mut held);
        }
        if !self.suffix.is_empty() {
            for (at, _) in host.match_indices('.').filter(|&(at, _)| at > 0) {
                let suffix = host.get(at..).filter(|suffix| suffix.len() <= self.longest_suffix);
                if let Some(rows) = suffix.and_then(|suffix| self.suffix.get(suffix)) {
                    rows.add_to(&mut held);
                }
            }
        }
        left.intersect(&held);
    }
}

/// `match.path` and `match.grpc`.
#[derive(Debug)]
struct PathColumn {
    /// Rows without a path, and those whose path no index can tell.
    silent: RowSet,
    exact: Map<Box<str>, Rows>,
    segments: Segments,
    expressions: Expressions,
}

impl PathColumn {
    fn new<'a>(rows: impl Iterator<Item = (Row, &'a Matcher)>, len: usize) -> Option<Self> {
        let mut silent = RowSet::empty(len);
        let mut exact: Map<Box<str>, Rows> = Map::default();
        let mut tree = Segments::new();
        let mut expressions = Vec::new();
        let mut asked = false;
        for (row, matcher) in rows {
            let mut add_exact = |path: &str| exact.entry(path.into()).or_default().insert(row, len);
            asked |= matcher.wants.path.is_some() || matcher.wants.grpc.is_some();
            match (&matcher.wants.path, &matcher.wants.grpc) {
                (Some(PathPattern::Exact(path)), _) => add_exact(path),
                (Some(PathPattern::Prefix(prefix)), _)
                    if prefix.is_empty() || prefix.starts_with('/') =>
                {
                    tree.insert(prefix.split('/').skip(1).map(Some), true, row, len);
                }
                (Some(PathPattern::Template { segments, rest }), _) => {
                    tree.insert(segments.iter().map(Option::as_deref), *rest, row, len);
                }
                (Some(PathPattern::Regex(regex)), _) => expressions.push((row, regex)),
                (None, Some(grpc)) => match &grpc.method {
                    Some(method) => add_exact(&format!("/{}/{method}", grpc.service)),
                    None => tree.insert([Some(grpc.service.as_str()), None], false, row, len),
                },
                (None, None) | (Some(PathPattern::Prefix(_)), _) => silent.insert(row),
            }
        }
        let expressions = Expressions::new(&expressions, len);
        asked.then_some(Self { silent, exact, segments: tree, expressions })
    }

    /// `true`: all expressions that are left hold.
    fn filter(&self, path: &str, left: &mut RowSet) -> bool {
        let mut held = self.silent.clone();
        if let Some(rows) = self.exact.get(path) {
            rows.add_to(&mut held);
        }
        self.segments.add_to(path, &mut held);
        let exact = self.expressions.add_to(path.as_bytes(), &mut held);
        left.intersect(&held);
        exact
    }
}

/// `match.method`, as whole sets: there are few methods.
#[derive(Debug)]
struct MethodColumn {
    standard: [RowSet; STANDARD_METHODS],
    custom: Map<Method, RowSet>,
    /// Rows without a list.
    silent: RowSet,
}

impl MethodColumn {
    fn new<'a>(rows: impl Iterator<Item = (Row, &'a Matcher)>, len: usize) -> Self {
        let mut silent = RowSet::empty(len);
        let mut listed: Map<Method, RowSet> = Map::default();
        for (row, matcher) in rows {
            if matcher.wants.method.is_empty() {
                silent.insert(row);
            }
            for method in &matcher.wants.method {
                listed.entry(method.clone()).or_insert_with(|| RowSet::empty(len)).insert(row);
            }
        }
        // Without a list, every method but CONNECT holds.
        let mut standard = std::array::from_fn(|_| silent.clone());
        if let Some(index) = standard_index(&Method::CONNECT) {
            standard[index] = RowSet::empty(len);
        }
        let mut custom = Map::default();
        for (method, mut rows) in listed {
            match standard_index(&method) {
                Some(index) => standard[index].unite(&rows),
                None => {
                    rows.unite(&silent);
                    custom.insert(method, rows);
                }
            }
        }
        Self { standard, custom, silent }
    }

    fn rows(&self, method: &Method) -> &RowSet {
        match standard_index(method) {
            Some(index) => &self.standard[index],
            None => self.custom.get(method).unwrap_or(&self.silent),
        }
    }
}

/// Names that few rows ask about: a row holds if the request has the one name that it stands under.
#[derive(Debug)]
struct NameColumn {
    silent: RowSet,
    rows: Map<Box<[u8]>, Rows>,
}

impl NameColumn {
    fn add_to(&self, name: &[u8], set: &mut RowSet) {
        if let Some(rows) = self.rows.get(name) {
            rows.add_to(set);
        }
    }
}

/// A name and the conditions on it, at most one per row.
type Asked<'a, N> = (&'a N, Vec<(Row, &'a ValueMatch)>);

/// Columns for the names that most rows ask about, and one for all others.
fn conditions<'a, N>(
    rows: impl Iterator<Item = (Row, &'a [(N, ValueMatch)])>,
    len: usize,
) -> (Vec<(N, ValueColumn)>, Option<NameColumn>)
where
    N: AsRef<str> + Clone + Eq + 'a,
{
    let rows: Vec<_> = rows.collect();
    let mut by_name: HashMap<&str, Asked<'_, N>> = HashMap::new();
    for &(row, conditions) in &rows {
        for (name, wanted) in conditions {
            let (_, asked) = by_name.entry(name.as_ref()).or_insert_with(|| (name, Vec::new()));
            // Of several conditions on one name the first is enough to leave no match out.
            if asked.last().is_none_or(|&(last, _)| last != row) {
                asked.push((row, wanted));
            }
        }
    }
    let mut named: Vec<_> = by_name.into_iter().collect();
    named.sort_by(|(a, (_, x)), (b, (_, y))| y.len().cmp(&x.len()).then(a.cmp(b)));
    named.truncate(NAMED_COLUMNS);
    let own: HashSet<&str> = named.iter().map(|(name, _)| *name).collect();

    let mut silent = RowSet::empty(len);
    let mut others: Map<Box<[u8]>, Rows> = Map::default();
    for &(row, conditions) in &rows {
        let other = conditions
            .iter()
            .find(|(name, wanted)| !wanted.is_absence() && !own.contains(name.as_ref()));
        match other {
            Some((name, _)) => {
                others.entry(name.as_ref().as_bytes().into()).or_default().insert(row, len);
            }
            None => silent.insert(row),
        }
    }
    let columns = named
        .into_iter()
        .map(|(_, (name, asked))| (name.clone(), ValueColumn::new(&asked, len)))
        .collect();
    (columns, (!others.is_empty()).then_some(NameColumn { silent, rows: others }))
}

#[cfg(test)]
mod tests;
