//! The routes of one listener, in file order.

use super::{
    explain::{self, Verdict},
    matcher::Matcher,
    pattern::RouteMatch,
    request::RequestView,
};

/// The routes of one listener: the first whose match holds takes a request.
#[derive(Debug)]
pub struct RouteTable {
    matchers: Vec<Matcher>,
}

impl RouteTable {
    /// Compiles the routes, kept in the order given.
    pub fn new(routes: Vec<RouteMatch>) -> Self {
        Self { matchers: routes.into_iter().map(Matcher::new).collect() }
    }

    /// The index of the first route that matches.
    pub fn find(&self, request: &RequestView<'_>) -> Option<usize> {
        self.matchers.iter().position(|matcher| matcher.matches(request))
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
