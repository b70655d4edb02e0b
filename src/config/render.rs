//! Findings as text for people and as JSON for tools.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::json;

use super::diagnostic::{Diagnostic, Severity};
use super::source::{Source, Span};

/// Beyond this many, the rest is only counted: a broken file must not fill a log.
const SHOWN: usize = 100;

/// The findings as a compiler shows them: place, source line, underlined value, what is right.
pub fn render(diagnostics: &[Diagnostic], source: &Source, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut text = String::new();
    for diagnostic in diagnostics.iter().take(SHOWN) {
        text.push_str(&renderer.render(&[group(diagnostic, source)]));
        text.push_str("\n\n");
    }
    if let Some(more) = diagnostics.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("… and {more} more\n\n"));
    }
    let of = |severity| diagnostics.iter().filter(|d| d.severity == severity).count();
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    if errors + warnings > 0 {
        let plural = |count, word| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        let counts = format!("{}, {}", plural(errors, "error"), plural(warnings, "warning"));
        text.push_str(&format!("{}: {counts}\n", source.name()));
    }
    text
}

fn group<'a>(diagnostic: &'a Diagnostic, source: &'a Source) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(&diagnostic.message).id(diagnostic.code);
    let mut group = match source.text() {
        // A file that could not be read has a name and nothing else.
        "" => title.element(Origin::path(source.name())),
        _ => title.element(snippet(diagnostic, source)),
    };
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help));
    }
    group
}

fn snippet<'a>(
    diagnostic: &'a Diagnostic,
    source: &'a Source,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    // Only the lines in question are handed over: the renderer splits all it gets, for each finding.
    let spans = diagnostic.related.iter().map(|(span, _)| *span).chain([diagnostic.span]);
    let whole = spans.fold(diagnostic.span, |whole, span| {
        Span::new(whole.start.min(span.start), whole.end.max(span.end))
    });
    let (lines, first) = source.lines_around(whole);
    let within = |span: Span| {
        let start = source.boundary(span.start).clamp(lines.start, lines.end);
        let end = source.boundary(span.end).clamp(start, lines.end);
        start - lines.start..end - lines.start
    };
    let label = |text: &'a str| (!text.is_empty()).then_some(text);
    let primary = AnnotationKind::Primary.span(within(diagnostic.span));
    let others = diagnostic
        .related
        .iter()
        .map(|(span, text)| AnnotationKind::Context.span(within(*span)).label(label(text)));
    Snippet::source(source.slice(lines))
        .line_start(first)
        .path(source.name())
        .annotation(primary.label(label(&diagnostic.label)))
        .annotations(others)
}

/// The findings as JSON, one object each, for editors and CI.
pub fn render_json(diagnostics: &[Diagnostic], source: &Source) -> Vec<serde_json::Value> {
    let place = |span: Span| {
        let (start, end) = (source.position(span.start), source.position(span.end));
        json!({
            "file": source.name(),
            "line": start.line, "column": start.column,
            "end_line": end.line, "end_column": end.column,
        })
    };
    diagnostics
        .iter()
        .map(|d| {
            let related: Vec<_> = d
                .related
                .iter()
                .map(|(span, label)| json!({ "place": place(*span), "label": label }))
                .collect();
            json!({
                "severity": d.severity.word(), "code": d.code, "path": d.path,
                "place": place(d.span), "message": d.message, "label": d.label,
                "help": d.help, "related": related,
            })
        })
        .collect()
}
