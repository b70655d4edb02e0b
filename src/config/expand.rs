//! `${VAR}` and `${VAR:-default}` inside scalars; `$${` stands for `${` itself.

use super::diagnostic::Diagnostic;
use super::node::Node;
use super::source::Span;

/// Where values of variables come from.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands every scalar of the tree; keys are taken as they are.
pub(super) fn expand(root: &mut Node, env: Environment<'_>, out: &mut Vec<Diagnostic>) {
    root.each_scalar(&mut |scalar, span| {
        if !scalar.text.contains("${") {
            return;
        }
        match expanded(&scalar.text, env) {
            Ok((text, found)) => {
                scalar.text = text;
                scalar.expanded = found;
            }
            Err(mistake) => {
                scalar.broken = true;
                out.push(mistake.at(span));
            }
        }
    });
}

enum Mistake {
    Unset(String),
    Name(String),
    Open,
}

impl Mistake {
    fn at(self, span: Span) -> Diagnostic {
        match self {
            Self::Unset(name) => {
                let message = format!("the environment variable `{name}` is not set");
                Diagnostic::error("unset-variable", span, message)
                    .label(format!("set it, or give a default: `${{{name}:-…}}`"))
            }
            Self::Name(name) => {
                let message = format!("`{name}` is no name of an environment variable");
                Diagnostic::error("bad-variable", span, message)
                    .label("letters, digits and `_`; `$${` writes a `${` itself")
            }
            Self::Open => Diagnostic::error("bad-variable", span, "`${` without its closing `}`")
                .label("close it, or write `$${` for a `${` itself"),
        }
    }
}

/// The text with its variables replaced, and whether there were any.
fn expanded(text: &str, env: Environment<'_>) -> Result<(String, bool), Mistake> {
    let (mut result, mut rest, mut any) = (String::with_capacity(text.len()), text, false);
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        result.push_str(&rest[..at]);
        let (inside, after) = rest[at + 2..].split_once('}').ok_or(Mistake::Open)?;
        result.push_str(&value(inside, env)?);
        (rest, any) = (after, true);
    }
    result.push_str(rest);
    Ok((result, any))
}

/// As in a shell, `:-` also stands in for a variable that is set to nothing.
fn value(inside: &str, env: Environment<'_>) -> Result<String, Mistake> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !first || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(Mistake::Name(name.to_owned()));
    }
    match (env(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Mistake::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, bool)> {
        let env = |name: &str| match name {
            "PORT" => Some("80".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expanded(text, &env).ok()
    }

    #[test]
    fn variables_defaults_and_escapes() {
        for (text, wanted) in [
            ("a:${PORT}", "a:80"),
            ("${PORT:-81}${NONE:-82}", "8082"),
            ("${EMPTY:-x}${EMPTY}", "x"),
            ("${NONE:-}", ""),
            ("$${PORT}", "${PORT}"),
            ("^a$", "^a$"),
        ] {
            assert_eq!(read(text).unwrap().0, wanted, "{text}");
        }
        assert!(!read("$${PORT}").unwrap().1);
    }

    #[test]
    fn unset_unnamed_and_unclosed_are_mistakes() {
        for text in ["${NONE}", "${}", "${1A}", "${A B}", "${PORT", "x${"] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
