//! The text of a configuration file, and places in it.

use std::ops::Range;

/// A byte range of a [`Source`]; line and column are computed only where one is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte; never below `start`.
    pub end: usize,
}

impl Span {
    /// The bytes from `start` up to `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }

    /// As a range of indices.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// From the start of this one to the end of `other`.
    pub fn to(self, other: Self) -> Self {
        Self::new(self.start, other.end)
    }
}

/// A line and a column, both counted from 1; columns are characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// A file's name and text.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    text: String,
    /// The byte at which each line starts; the first is 0.
    lines: Vec<usize>,
}

impl Source {
    /// The text of the file `name`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text, lines }
    }

    /// What the file is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of `span`; empty where the span does not fit the text.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or_default()
    }

    /// The line and column of a byte.
    pub fn position(&self, offset: usize) -> Position {
        let offset = self.boundary(offset);
        let line = self.line_index(offset);
        let start = self.lines[line];
        Position { line: line + 1, column: self.text[start..offset].chars().count() + 1 }
    }

    /// The bytes of the lines that `span` touches, without the last line break, and the number of the first line.
    pub fn lines_around(&self, span: Span) -> (Span, usize) {
        let first = self.line_index(self.boundary(span.start));
        let last = self.line_index(self.boundary(span.end.max(span.start + 1) - 1));
        let end = self.lines.get(last + 1).map_or(self.text.len(), |next| next - 1);
        (Span::new(self.lines[first], end), first + 1)
    }

    /// The nearest byte at or below `offset` at which a character starts.
    pub fn boundary(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }

    fn line_index(&self, offset: usize) -> usize {
        // `lines` starts with 0, so that at least one start is at or below any offset.
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let source = Source::new("f", "a: é b\nc: d\n");
        let at = source.text().find('b').unwrap();
        assert_eq!(source.position(at), Position { line: 1, column: 6 });
        assert_eq!(source.position(usize::MAX), Position { line: 3, column: 1 });
        // A byte inside `é`.
        assert_eq!(source.position(4), Position { line: 1, column: 4 });
    }

    #[test]
    fn lines_around_a_span_are_whole() {
        let source = Source::new("f", "one\ntwo\nthree");
        let (lines, first) = source.lines_around(Span::new(5, 9));
        assert_eq!((source.slice(lines), first), ("two\nthree", 2));
        assert_eq!(source.lines_around(Span::new(99, 99)).1, 3);
    }
}
