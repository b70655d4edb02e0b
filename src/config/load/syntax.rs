//! What a YAML syntax error means to the person who wrote it.

use serde_yaml::granit_parser::ErrorKind;

use crate::config::diagnostic::Diagnostic;
use crate::config::source::{Source, Span};

/// The finding for an error that the parser met at byte `at`.
pub(super) fn explain(source: &Source, kind: &ErrorKind, at: usize) -> Diagnostic {
    let at = source.boundary(at);
    if let Some(value) = unquoted(source.text(), at) {
        let text = source.slice(value);
        let message = format!("`{text}` cannot stand here without quotes");
        return Diagnostic::error("syntax", value, message)
            .label(format!("quote it: {}", quote(text)))
            .help(
                "inside { } and [ ], values with { } [ ] , # or that begin with * & ! are quoted",
            );
    }
    let here = Span::new(at, character_end(source.text(), at));
    let diagnostic = |message: &str| Diagnostic::error("syntax", here, message);
    match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => {
            diagnostic("a tab stands where YAML takes only spaces").label("indent with spaces")
        }
        ErrorKind::UnclosedQuotedScalar => diagnostic("a quote is opened and never closed"),
        ErrorKind::InvalidQuotedScalarIndent => {
            diagnostic("a quote that is opened above is not closed before this line")
        }
        ErrorKind::UnclosedFlowCollection { open }
        | ErrorKind::MismatchedFlowCollectionEnd { open, .. } => {
            diagnostic(&format!("`{open}` is opened and not closed by its partner"))
        }
        ErrorKind::MisplacedFlowCollectionEnd => {
            diagnostic("this closes a bracket that was never opened")
        }
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::UnexpectedEofFlowMapping => {
            diagnostic("inside { }, a `,` or the closing `}` is missing before this")
        }
        ErrorKind::ExpectedFlowSequenceSeparator | ErrorKind::UnexpectedEofFlowSequence => {
            diagnostic("inside [ ], a `,` or the closing `]` is missing before this")
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            diagnostic("a second `: ` on the line")
                .help("a value that holds `: ` is quoted; a map below a key begins on its own line")
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::SimpleKeyExpected => diagnostic("this line does not fit the lines above it")
            .help("keys of one map begin in the same column, and each is followed by `: `"),
        ErrorKind::UnknownQuotedScalarEscape => diagnostic("unknown escape in double quotes")
            .help("in single quotes a backslash stands for itself: '^\\d+$'"),
        ErrorKind::RecursionLimitExceeded => {
            Diagnostic::error("too-large", here, "lists and maps are nested too deep")
        }
        other => diagnostic(&format!("this is no valid YAML: {other}")),
    }
}

/// The value that would be right in quotes, where the error at `at` looks like one that lacks them.
fn unquoted(text: &str, at: usize) -> Option<Span> {
    let line_start = text[..at].rfind('\n').map_or(0, |index| index + 1);
    let line_end = text[at..].find('\n').map_or(text.len(), |index| at + index);
    let line = &text[line_start..line_end];
    let mut flow = 0_i32;
    let mut quote = None;
    let mut start = 0;
    let mut previous = ' ';
    for (index, character) in line.char_indices() {
        let rest = &line[index + character.len_utf8()..];
        let next = rest.chars().next().unwrap_or(' ');
        let begins = index == start;
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if begins => quote = Some(character),
            (None, ' ') if begins => start = index + 1,
            (None, '-') if begins && next == ' ' => start = index + 1,
            (None, ':') if next == ' ' => start = index + 1,
            (None, '[') if begins && is_address(rest) => {
                return found(text, line_start, line, start, false);
            }
            (None, '{' | '[') if begins => {
                flow += 1;
                start = index + 1;
            }
            (None, '{' | '[') if flow > 0 => return found(text, line_start, line, start, true),
            (None, '}' | ']') => {
                flow -= 1;
                start = index + 1;
            }
            (None, ',') if flow > 0 => start = index + 1,
            (None, '#') if previous == ' ' => return None,
            (None, '*' | '&' | '!' | '@' | '`' | '%') if begins && line_start + index <= at => {
                return found(text, line_start, line, start, flow > 0);
            }
            _ => {}
        }
        previous = character;
    }
    None
}

/// The value that begins at `start` of the line: up to its end as its writer saw it.
fn found(text: &str, line_start: usize, line: &str, start: usize, in_flow: bool) -> Option<Span> {
    let rest = &line[start..];
    let comment = rest.find(" #").unwrap_or(rest.len());
    let mut end = rest[..comment].trim_end().len();
    if in_flow {
        // A comma or a bracket ends it, unless the bracket belongs to the value.
        let mut depth = 0_i32;
        for (index, character) in rest[..end].char_indices() {
            match character {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                _ => {}
            }
            if depth < 0 || (depth == 0 && character == ',') {
                end = index;
                break;
            }
        }
    }
    let span = Span::new(line_start + start, line_start + start + rest[..end].trim_end().len());
    (!text.get(span.range())?.is_empty()).then_some(span)
}

/// Whether what follows a `[` is the rest of `[::1]:80`.
fn is_address(rest: &str) -> bool {
    rest.split_once(']').is_some_and(|(inside, after)| {
        inside.contains(':')
            && inside.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
            && after.starts_with(':')
    })
}

/// `text` in quotes: single ones where it holds what double quotes would change.
fn quote(text: &str) -> String {
    if text.contains(['\\', '"']) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        format!("\"{text}\"")
    }
}

fn character_end(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(0, char::len_utf8)
}
