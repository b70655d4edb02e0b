//! From a file to a configuration, with everything that is wrong on the way.

use std::io::Read;
use std::path::Path;

use super::Config;
use super::diagnostic::{Diagnostic, Severity};
use super::effective::Effective;
use super::expand::{Environment, expand};
use super::read::Reader;
use super::source::{Source, Span};
use super::{defaults, load, read, validate};

/// What became of a file.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; `Some` exactly where no finding is an error.
    pub config: Option<Config>,
    /// Errors and warnings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The file's text, for rendering.
    pub source: Source,
    /// Where each value in force comes from.
    pub effective: Effective,
}

impl Loaded {
    /// Every value in force with its origin, as YAML with comments; it can be loaded again. Empty where the file is
    /// not valid.
    pub fn effective_yaml(&self) -> String {
        self.config
            .as_ref()
            .map(|config| self.effective.yaml(config, &self.source))
            .unwrap_or_default()
    }

    /// Where the value of the last of `keys` stands, each below the one before (in a list: by its number, from 0); `None` where it is not written.
    pub fn span(&self, keys: &[&str]) -> Option<Span> {
        self.effective.span(keys)
    }

    /// Adds errors that the text alone does not show.
    pub fn refuse(&mut self, errors: Vec<Diagnostic>) {
        if errors.is_empty() {
            return;
        }
        self.config = None;
        self.diagnostics.extend(errors);
        self.diagnostics.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.severity));
    }

    fn broken(source: Source, diagnostic: Diagnostic) -> Self {
        let diagnostics = vec![diagnostic];
        Self { config: None, diagnostics, source, effective: Effective::default() }
    }
}

/// Loads a file; `${VAR}` reads the process's environment. A file that cannot be read is a finding as well.
pub fn load_file(path: &Path) -> Loaded {
    let name = path.display().to_string();
    match text_of(path) {
        Ok(text) => load_str(&name, &text, &|name| std::env::var(name).ok()),
        Err(diagnostic) => Loaded::broken(Source::new(name, ""), *diagnostic),
    }
}

/// The text of a file, or why there is none.
pub(super) fn text_of(path: &Path) -> Result<String, Box<Diagnostic>> {
    let broken = |code, message| Err(Box::new(Diagnostic::error(code, Span::default(), message)));
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is more.
    let limit = load::MAX_BYTES as u64 + 1;
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if let Err(error) = read {
        return broken("unreadable-file", format!("the file cannot be read: {error}"));
    }
    if bytes.len() > load::MAX_BYTES {
        return broken("too-large", "the file has more than 4MiB".to_owned());
    }
    String::from_utf8(bytes).or_else(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        broken("unreadable-file", format!("the file is no UTF-8 text: see line {line}"))
    })
}

/// Loads a text as the file `name`; `env` gives the values of `${VAR}`.
pub fn load_str(name: &str, text: &str, env: Environment<'_>) -> Loaded {
    let source = Source::new(name, text);
    let mut diagnostics = Vec::new();
    let Some(mut root) = load::tree(&source, &mut diagnostics) else {
        return Loaded { config: None, diagnostics, source, effective: Effective::default() };
    };
    expand(&mut root, env, &mut diagnostics);
    defaults::merge(&mut root, &mut diagnostics);
    let reader = Reader::new(&root);
    let config = read::config(&reader, &root);
    diagnostics.extend(reader.into_diagnostics());
    // Lints reckon with values; those of a file with errors are not what its writer meant.
    let valid = diagnostics.iter().all(|diagnostic| diagnostic.severity != Severity::Error);
    let config = config.filter(|_| valid);
    if let Some(config) = &config {
        diagnostics.extend(validate::warnings(config, &root));
    }
    diagnostics.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.severity));
    Loaded { config, diagnostics, source, effective: Effective::new(root) }
}
