//! `listeners.<name>.authorize`.

use crate::config;
use crate::control::ApplyError;
use crate::metrics::Metrics;
use crate::policy::authorize::{Authorization, HeaderRule, PathRule, Rule};
use crate::route::PathPattern;
use crate::snapshot::Authorize;

use super::route::compile_path;

/// The rules of a listener, where it has some.
pub(super) fn authorize(
    listener: &config::Listener,
    metrics: &Metrics,
) -> Result<Option<Authorize>, ApplyError> {
    let Some(written) = &listener.authorize else { return Ok(None) };
    let rules = |word: &str, rules: &[config::AuthorizeRule]| {
        let compiled = rules.iter().enumerate().map(|(index, rule)| {
            compile(rule).map_err(|error| {
                ApplyError::Invalid(format!(
                    "{word}[{index}] of listener {}: {error}",
                    listener.name
                ))
            })
        });
        compiled.collect::<Result<Vec<Rule>, _>>()
    };
    Ok(Some(Authorize {
        enforce: written.enforce,
        rules: Authorization {
            deny: rules("deny", &written.deny)?,
            allow: rules("allow", &written.allow)?,
        },
        denied: metrics.access.denied(&listener.name, written.enforce),
    }))
}

fn compile(rule: &config::AuthorizeRule) -> Result<Rule, String> {
    let headers = rule.headers.iter().map(|(name, value)| {
        let value = match value {
            config::ValueMatch::Exact(text) => HeaderRule::Exact(text.clone()),
            config::ValueMatch::Prefix(text) => HeaderRule::Prefix(text.clone()),
            config::ValueMatch::Regex(regex) => HeaderRule::Regex(regex.clone()),
            config::ValueMatch::Present(present) => HeaderRule::Present(*present),
        };
        (name.clone(), value)
    });
    Ok(Rule {
        from: rule.from.clone(),
        source: rule.source.clone(),
        method: rule.method.clone(),
        path: rule.path.iter().map(path).collect::<Result<_, _>>()?,
        headers: headers.collect(),
    })
}

fn path(pattern: &config::PathPattern) -> Result<PathRule, String> {
    let whole = |path: &str, rest| {
        // The root of `/*` has no segment; `/` has an empty one.
        let segments: Vec<_> = path.split('/').skip(1).map(Some).collect();
        PathRule::segments(&segments, rest)
    };
    Ok(match compile_path(pattern).map_err(|error| error.to_string())? {
        PathPattern::Exact(path) => whole(&path, false),
        PathPattern::Prefix(path) => whole(&path, true),
        PathPattern::Template { segments, rest } => {
            let segments: Vec<_> = segments.iter().map(Option::as_deref).collect();
            PathRule::segments(&segments, rest)
        }
        PathPattern::Regex(regex) => {
            PathRule::expression(&regex).map_err(|error| error.to_string())?
        }
    })
}
