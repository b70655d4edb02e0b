//! The one normalisation of a request's path, before routing and authorisation alike; its result goes
//! upstream.
//!
//! Two spellings of one path must not pass two different rules, and what we judged must be what the
//! upstream reads. RFC 3986 §6.2.2 says what is equivalent, and only that is changed:
//!
//! - escapes of unreserved characters are decoded (`%41` → `A`), all others get upper-case digits;
//! - dot segments are resolved, also when escaped (`/a/%2e%2E/b` → `/b`); `..` above the root stays at
//!   the root (§5.2.4);
//! - characters that §3.3 does not allow in a path (a space, ``"<>^`{|}``, anything outside ASCII) have
//!   no meaning of their own and are escaped: `é` and `%C3%A9` are one path.
//!
//! What is *not* the same stays apart: `%2F` is no slash, `//` no `/`, `%3B` no `;`. Refused are what
//! some upstreams read otherwise than we do: controls (raw or escaped), malformed escapes, a raw
//! backslash (many servers and browsers take it for a slash; `%5C` is kept), `?` and `#` (a path ends
//! there). Servers that cut off `;parameters` before they resolve dot segments (`/a/..;/b`) read what no
//! proxy can know: deny such paths by a rule.

use std::borrow::Cow;

use super::query::hex;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Also where it is empty. `*` and the absolute form are the caller's to take apart.
    #[error("path does not begin with a slash")]
    NotAbsolute,
    /// U+0000–U+001F or U+007F, raw or escaped.
    #[error("path contains a control character")]
    Control,
    /// `%` without two hexadecimal digits.
    #[error("path contains a malformed escape")]
    MalformedEscape,
    /// A raw backslash, `?` or `#`.
    #[error("path contains a character that may not stand there unescaped")]
    Delimiter,
}

/// The normal form of `path`; borrowed exactly where nothing changes.
///
/// # Errors
///
/// Where the path cannot be read in one way only; see the module's text.
pub fn normalise_path(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_normal(path.as_bytes()) { Ok(Cow::Borrowed(path)) } else { rewrite(path).map(Cow::Owned) }
}

/// One pass over the bytes; most paths end here.
fn is_normal(path: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        match class(byte) {
            Class::Plain => {}
            Class::Slash if starts_with_dot_segment(path.get(at + 1..).unwrap_or_default()) => {
                return false;
            }
            Class::Slash => {}
            Class::Percent => match path.get(at + 1..at + 3) {
                Some(&[high, low]) if is_kept_escape(high, low) => at += 2,
                _ => return false,
            },
            Class::Escape | Class::Control | Class::Delimiter => return false,
        }
        at += 1;
    }
    true
}

fn starts_with_dot_segment(rest: &[u8]) -> bool {
    matches!(rest, [b'.'] | [b'.', b'.'] | [b'.', b'/', ..] | [b'.', b'.', b'/', ..])
}

/// Whether `%` and these digits are already what they would become.
fn is_kept_escape(high: u8, low: u8) -> bool {
    !high.is_ascii_lowercase()
        && !low.is_ascii_lowercase()
        && matches!(escaped(high, low), Some(byte) if !is_unreserved(byte) && !byte.is_ascii_control())
}

fn escaped(high: u8, low: u8) -> Option<u8> {
    Some(hex(high)? << 4 | hex(low)?)
}

/// Segment by segment: normalise, then resolve if it turned out to be dots.
fn rewrite(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len() + 16);
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        out.push('/');
        push_segment(&mut out, segment)?;
        let up = match out.get(start..) {
            Some("/.") => false,
            Some("/..") => true,
            _ => continue,
        };
        out.truncate(start);
        if up {
            out.truncate(out.rfind('/').unwrap_or(0));
        }
        if segments.peek().is_none() {
            out.push('/');
        }
    }
    Ok(out)
}

fn push_segment(out: &mut String, segment: &str) -> Result<(), PathError> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        match class(byte) {
            Class::Plain | Class::Slash => out.push(char::from(byte)),
            Class::Escape => push_escaped(out, byte),
            Class::Control => return Err(PathError::Control),
            Class::Delimiter => return Err(PathError::Delimiter),
            Class::Percent => {
                let digits = bytes.next().zip(bytes.next());
                let byte = digits
                    .and_then(|(high, low)| escaped(high, low))
                    .ok_or(PathError::MalformedEscape)?;
                match byte {
                    _ if is_unreserved(byte) => out.push(char::from(byte)),
                    _ if byte.is_ascii_control() => return Err(PathError::Control),
                    _ => push_escaped(out, byte),
                }
            }
        }
    }
    Ok(())
}

/// Appends `%XX`, upper case.
pub(super) fn push_escaped(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    for digit in [byte >> 4, byte & 0xF] {
        out.push(char::from(DIGITS[usize::from(digit)]));
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What to do with a byte of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// May stand as it is (`pchar` of RFC 3986 §3.3).
    Plain,
    Slash,
    Percent,
    /// May not stand unescaped, and means nothing.
    Escape,
    Control,
    Delimiter,
}

/// The class of `byte`, by table.
pub(super) fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Escape; 256];
    let mut byte = 0u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'\\' | b'?' | b'#' => Class::Delimiter,
            0..=0x1F | 0x7F => Class::Control,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => {
                Class::Plain
            }
            b':' | b'@' => Class::Plain,
            _ => Class::Escape,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests;
