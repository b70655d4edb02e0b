//! The routes of one listener, in file order.

use super::{
    explain::{self, Verdict},
    index::Index,
    matcher::Matcher,
    pattern::RouteMatch,
    request::RequestView,
    rows::BLOCK,
};

/// The routes of one listener: the first whose match holds takes a request.
#[derive(Debug)]
pub struct RouteTable {
    matchers: Vec<Matcher>,
    /// One per block of routes, in order.
    indexes: Vec<Index>,
}

impl RouteTable {
    /// Compiles the routes, kept in the order given.
    pub fn new(routes: Vec<RouteMatch>) -> Self {
        let matchers: Vec<_> = routes.into_iter().map(Matcher::new).collect();
        let indexes = matchers.chunks(BLOCK).map(Index::new).collect();
        Self { matchers, indexes }
    }

    /// The index of the first route that matches.
    pub fn find(&self, request: &RequestView<'_>) -> Option<usize> {
        self.matchers.chunks(BLOCK).zip(&self.indexes).enumerate().find_map(
            |(block, (matchers, index))| {
                let (candidates, told) = index.candidates(request);
                let matches = |&row: &usize| matchers[row].holds(request, &told);
                let row = candidates.iter().find(matches)?;
                Some(block * BLOCK + row)
            },
        )
    }

    /// For every route in order, whether it takes the request and else why not.
    pub fn explain(&self, request: &RequestView<'_>) -> Vec<(usize, Verdict)> {
        let taken = self.find(request);
        let verdict = |(index, matcher): (usize, &Matcher)| {
            let verdict = match (matcher.failed(request), taken) {
                (Some(condition), _) => {
                    Verdict::Fails { condition, why: explain::why(matcher, condition, request) }
                }
                (None, Some(by)) if by != index => Verdict::Shadowed { by },
                (None, _) => Verdict::Takes,
            };
            (index, verdict)
        };
        self.matchers.iter().enumerate().map(verdict).collect()
    }

    /// What `/*` stands for in `path` under the route at `index`; see [`PathPattern::rest`].
    ///
    /// [`PathPattern::rest`]: super::PathPattern::rest
    pub fn rest<'p>(&self, index: usize, path: &'p str) -> Option<&'p str> {
        self.matchers.get(index)?.wants.path.as_ref()?.rest(path)
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.matchers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }
}

#[cfg(test)]
mod tests;
