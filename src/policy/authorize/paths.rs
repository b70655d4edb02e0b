//! A path in the ways in which servers read it, and rules that hold for one or for all of them.
//!
//! The strict reading is what routes see: RFC 3986's normal form, in which `%2F` is no slash, `//` no `/`, `;` a character, and
//! case counts. It goes upstream as it is, and there servers differ: some decode `%2F`, some decode twice, some take `\` for `/`,
//! merge slashes, cut off `;parameters`, ignore case or dots and spaces at the end of a name. The loose reading does all of
//! that at once. A deny rule that fits either reading, in any case, holds; an allow rule holds only where the strict reading fits
//! in its very case and the loose one fits as well. So `//admin`, `/admin%2Fx`, `/admin;x`, `/ADMIN`, `/admin./x` and `/admin/` are all
//! caught by a `deny` of `/admin/*`, and none gets through an `allow` of something else.
//!
//! A path is *evasive* where loosening it yields what no honest client sends: a segment of dots, a control character, an
//! overlong form of UTF-8, parameters with an escaped slash in them. Which resource that is depends on the order in which a server does
//! things, so no reading is tried: every deny rule with a path holds, and no allow rule with one.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

/// Rounds of decoding that are told apart; what still has escapes after them is evasive.
const ROUNDS: usize = 4;

/// A path, read once per request.
#[derive(Debug)]
pub struct Readings<'a> {
    strict: &'a str,
    /// `None`: evasive.
    loose: Option<Cow<'a, str>>,
}

impl<'a> Readings<'a> {
    /// Of a path in its strict reading; anything that does not begin with a slash is no path.
    pub fn new(strict: &'a str) -> Self {
        let loose = if is_plain(strict) {
            Some(Cow::Borrowed(strict))
        } else {
            loosened(strict).map(Cow::Owned)
        };
        Self { strict, loose }
    }

    fn is_path(&self) -> bool {
        self.strict.starts_with('/')
    }
}

/// Which paths a rule takes.
#[derive(Debug)]
pub struct PathRule(Kind);

#[derive(Debug)]
enum Kind {
    Segments {
        strict: Vec<Option<Box<str>>>,
        /// The pattern's own loose reading, without empty segments; `None` where it is evasive itself.
        loose: Option<Vec<Option<Box<str>>>>,
        rest: bool,
    },
    Expression {
        exact: Regex,
        any_case: Regex,
    },
}

impl PathRule {
    /// Segments between the slashes, `None` for one non-empty segment of any text. `rest`: all below as well.
    pub fn segments(segments: &[Option<&str>], rest: bool) -> Self {
        let loose = segments.iter().try_fold(Vec::new(), |mut found, segment| {
            match segment {
                None => found.push(None),
                Some(text) => {
                    let text = loosened(&format!("/{text}"))?;
                    found.extend(
                        parts(&text).filter(|part| !part.is_empty()).map(|part| Some(part.into())),
                    );
                }
            }
            Some(found)
        });
        let strict = segments.iter().map(|segment| segment.map(Box::from)).collect();
        Self(Kind::Segments { strict, loose, rest })
    }

    /// An expression, searched in the path.
    ///
    /// # Errors
    /// Where it becomes too large when case does not count.
    pub fn expression(regex: &Regex) -> Result<Self, regex::Error> {
        let any_case = RegexBuilder::new(regex.as_str()).case_insensitive(true).build()?;
        Ok(Self(Kind::Expression { exact: regex.clone(), any_case }))
    }

    /// Whether some server may read a path that the rule takes.
    pub fn may_match(&self, path: &Readings<'_>) -> bool {
        if !path.is_path() {
            return false;
        }
        let Some(read) = &path.loose else { return true };
        match &self.0 {
            Kind::Segments { strict, loose, rest } => {
                let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
                fits(strict, *rest, parts(path.strict), same)
                    || loose.as_ref().is_some_and(|loose| {
                        fits(loose, *rest, parts(read).filter(|part| !part.is_empty()), same)
                    })
            }
            Kind::Expression { any_case, .. } => {
                let bare = read.strip_suffix('/').unwrap_or(read);
                [path.strict, read, bare].iter().any(|path| any_case.is_match(path))
            }
        }
    }

    /// Whether every server reads a path that the rule takes.
    pub fn surely_matches(&self, path: &Readings<'_>) -> bool {
        let Some(read) = path.loose.as_deref().filter(|_| path.is_path()) else { return false };
        match &self.0 {
            Kind::Segments { strict, loose, rest } => {
                let same = |a: &str, b: &str| a == b;
                fits(strict, *rest, parts(path.strict), same)
                    && loose.as_ref().is_some_and(|loose| {
                        fits(loose, *rest, parts(read).filter(|part| !part.is_empty()), same)
                    })
            }
            Kind::Expression { exact, .. } => exact.is_match(path.strict) && exact.is_match(read),
        }
    }
}

/// Between the slashes; none of what has no slash in front.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').into_iter().flat_map(|path| path.split('/'))
}

fn fits<'p>(
    wanted: &[Option<Box<str>>],
    rest: bool,
    mut path: impl Iterator<Item = &'p str>,
    same: impl Fn(&str, &str) -> bool,
) -> bool {
    let all = wanted.iter().all(|wanted| match (wanted, path.next()) {
        (Some(literal), Some(segment)) => same(literal, segment),
        (None, Some(segment)) => !segment.is_empty(),
        (_, None) => false,
    });
    all && (rest || path.next().is_none())
}

/// True where loosening changes nothing: most paths end here, after one pass.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    for &byte in path.as_bytes() {
        match byte {
            b'%' | b';' | b'\\' | b'?' | b'#' | b' ' => return false,
            b'/' if matches!(before, b'/' | b'.') => return false,
            _ => before = byte,
        }
    }
    before != b'.'
}

/// The loose reading, with the slash at its end if there is one; `None` where the path is evasive.
fn loosened(path: &str) -> Option<String> {
    let bytes = decoded(path.as_bytes())?;
    if bytes.iter().any(u8::is_ascii_control) || has_overlong_form(&bytes) {
        return None;
    }
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| matches!(byte, b'/' | b'\\')).count();
    if bytes.contains(&b';') && slashes(&bytes) != slashes(path.as_bytes()) {
        return None;
    }
    let end = bytes.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(bytes.len());
    let bytes = bytes.get(..end).unwrap_or_default();
    let mut read = Vec::with_capacity(bytes.len());
    let mut ends_in_slash = false;
    for segment in bytes.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        let kept = name.trim_ascii_start().len();
        let trailing = name.iter().rev().take_while(|byte| matches!(byte, b'.' | b' ')).count();
        let kept_name = name.get(..name.len() - trailing).unwrap_or_default();
        if kept_name.is_empty() && kept > 0 {
            return None;
        }
        ends_in_slash = kept_name.is_empty();
        if !kept_name.is_empty() {
            read.push(b'/');
            read.extend_from_slice(kept_name);
        }
    }
    if ends_in_slash {
        read.push(b'/');
    }
    // What is no text is read as text of its own kind: it meets no literal, and expressions see that something is there.
    Some(
        String::from_utf8(read)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

/// With every escape decoded, also those that decoding brings about; `None` where that takes too many rounds.
fn decoded(path: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = path.to_vec();
    for _ in 0..ROUNDS {
        let mut next = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match escape(bytes.get(at..).unwrap_or_default()) {
                Some(decoded) => {
                    next.push(decoded);
                    at += 3;
                }
                None => {
                    next.push(byte);
                    at += 1;
                }
            }
        }
        if next.len() == bytes.len() {
            return Some(bytes);
        }
        bytes = next;
    }
    let left = (0..bytes.len()).any(|at| escape(bytes.get(at..).unwrap_or_default()).is_some());
    (!left).then_some(bytes)
}

/// The byte that an escape at the beginning of `bytes` stands for.
fn escape(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

/// Whether a character stands in more bytes than it needs (RFC 3629 §3): decoders that let it pass read `%C0%AF` as a slash.
fn has_overlong_form(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| {
        matches!(
            pair,
            [0xC0 | 0xC1, 0x80..=0xBF]
                | [0xE0, 0x80..=0x9F]
                | [0xF0, 0x80..=0x8F]
                | [0xF8..=0xFF, 0x80..=0xBF]
        )
    })
}

#[cfg(test)]
mod tests;
