//! Rules of `authorize` that decide nothing.

use crate::base::address::Address;
use crate::config::diagnostic::Diagnostic;
use crate::config::node::{Node, Path, Value};
use crate::config::source::Span;
use crate::config::{Authorize, AuthorizeRule, ClientCert, Listener};

use super::shadow::{pattern_covers, values_cover};

/// Warns of rules that can never hold, and of those to which others leave nothing.
pub(super) fn rules(
    listener: &Listener,
    node: Option<&Node>,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let Some(authorize) = &listener.authorize else { return };
    let node = node.and_then(|node| node.get("authorize"));
    let path = path.key("authorize");
    if authorize.allow.is_empty() && authorize.enforce {
        let message = format!(
            "the listener `{}` denies every request: `authorize` allows nothing",
            listener.name
        );
        let span = node.map_or_else(Span::default, |node| node.span);
        let found = Diagnostic::warning("denies-everything", span, message).at(path);
        out.push(found.label("add rules to `allow`"));
    }
    for (word, rules) in [("deny", &authorize.deny), ("allow", &authorize.allow)] {
        let list = match node.map(|node| &node.value) {
            Some(Value::List(_)) => node.filter(|_| word == "allow"),
            _ => node.and_then(|node| node.get(word)),
        };
        let Some(Value::List(nodes)) = list.map(|list| &list.value) else { continue };
        for (index, (rule, node)) in rules.iter().zip(nodes).enumerate() {
            let Some((why, right)) = idle(listener, authorize, word, index, rule) else { continue };
            let message = format!("`{word}[{index}]` of `{}` {why}", listener.name);
            let span = node.entries().first().map_or(node.span, |entry| entry.key_span);
            let list = path.key(word);
            out.push(
                Diagnostic::warning("idle-rule", span, message).at(list.index(index)).label(right),
            );
        }
    }
}

/// Why a rule decides nothing, and what to do about it.
fn idle(
    listener: &Listener,
    authorize: &Authorize,
    word: &str,
    index: usize,
    rule: &AuthorizeRule,
) -> Option<(String, &'static str)> {
    if !rule.from.is_empty() && !identifies(listener) {
        let why =
            "never holds: nobody has an identity here, as no client certificates are asked for";
        return Some((
            why.to_owned(),
            "write `tls: { client_cert: required }`, or remove the rule",
        ));
    }
    if !rule.source.is_empty() && matches!(listener.bind, Address::Unix(_)) {
        return Some((
            "never holds: peers on a unix socket have no address".to_owned(),
            "remove it",
        ));
    }
    let earlier = |word: &str, rules: &[AuthorizeRule]| {
        let found = rules.iter().position(|other| covers(other, rule))?;
        Some(format!("decides nothing: `{word}[{found}]` takes all that it would"))
    };
    let by = match word {
        "deny" => earlier("deny", authorize.deny.get(..index)?),
        _ => earlier("deny", &authorize.deny)
            .or_else(|| earlier("allow", authorize.allow.get(..index)?)),
    };
    by.map(|why| (why, "remove it, or narrow the other"))
}

/// Whether callers of this listener can prove who they are.
fn identifies(listener: &Listener) -> bool {
    listener.tls.as_ref().is_some_and(|tls| tls.client_cert != ClientCert::None)
}

/// Whether `first` holds wherever `second` does. May say no where a proof would be hard, never yes where it is not so.
fn covers(first: &AuthorizeRule, second: &AuthorizeRule) -> bool {
    /// An empty list is no condition; else each of the narrow ones is within one of the wide.
    fn within<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
        let one = |narrow: &T| wide.iter().any(|wide| covers(wide, narrow));
        wide.is_empty() || !narrow.is_empty() && narrow.iter().all(one)
    }
    within(&first.from, &second.from, |wide, narrow| wide.covers(narrow))
        && within(&first.source, &second.source, |wide, narrow| wide.contains(narrow))
        && within(&first.method, &second.method, |wide, narrow| wide == narrow)
        && within(&first.path, &second.path, pattern_covers)
        && values_cover(&first.headers, &second.headers)
}
