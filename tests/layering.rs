//! The layers of `src/`: which module may use which, and how long a file may be.
//!
//! Every file is parsed; every path that leads to `crate::<module>` is collected (single, grouped and nested `use`,
//! `super::` chains, paths inside bodies, types, attributes and macro arguments) and held against [`TABLE`]. Code under
//! `#[cfg(test)]` is exempt. The modules are found the way the compiler finds them, from `lib.rs` on, so a file that no
//! `mod` declares is reported too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Module, rank, and what it may use besides itself. A module uses only lower ranks; modules of one rank never see
/// each other. A new module gets its line here, with the smallest list that serves.
const TABLE: &[(&str, u8, &str)] = &[
    ("base", 0, ""),
    ("config", 1, "base"),
    ("metrics", 1, "base"),
    ("policy", 1, "base"),
    ("io", 1, "base"),
    ("balance", 2, "base metrics policy"),
    ("route", 2, "base metrics policy"),
    ("tls", 2, "base metrics policy"),
    ("net", 3, "base io metrics tls"),
    ("discovery", 4, "base io metrics tls net"),
    ("health", 4, "base io metrics policy tls net"),
    ("upstream", 4, "base io metrics policy balance tls net"),
    ("snapshot", 5, "base metrics policy route tls upstream"),
    // The request path sees neither YAML types nor providers: it meets them compiled, in the snapshot.
    ("proxy", 6, "base metrics policy io balance route tls net upstream snapshot"),
    (
        "control",
        6,
        "base config metrics policy io balance route tls net discovery health upstream snapshot",
    ),
    ("admin", 7, "base config metrics balance route health upstream snapshot control"),
    ("simulate", 7, "base config metrics policy balance upstream snapshot control"),
    (
        "app",
        8,
        "base config metrics policy io balance route tls net discovery health upstream snapshot proxy control admin simulate",
    ),
];

/// Lines of a file, without its `#[cfg(test)]` items.
const MAX_LINES: usize = 400;

/// Modules that decide and do nothing else: time, randomness and I/O are arguments there.
const PURE: &[&str] = &["policy", "balance", "route"];
/// What a pure module must not call, as the last two segments of a path.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "tokio::spawn",
    "task::spawn",
    "time::sleep",
    "thread::spawn",
];

#[test]
fn modules_use_only_what_their_layer_allows() {
    let mut found = Vec::new();
    for file in sources().files {
        let uses = Uses::of(&file.module, &file.syntax);
        found.extend(violations(&file.module, &uses).into_iter().map(|x| x.at(&file.path)));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn files_stay_short_before_their_tests() {
    let mut long = Vec::new();
    for file in sources().files {
        let lines = lines_without_tests(&file.text, &file.syntax);
        if lines > MAX_LINES {
            long.push(format!("{}: {lines} lines, at most {MAX_LINES}", file.path.display()));
        }
    }
    assert!(long.is_empty(), "\n{}\n", long.join("\n"));
}

#[test]
fn every_file_belongs_to_a_module() {
    let sources = sources();
    let mut orphans: Vec<_> = rust_files(&src()).into_iter().collect();
    orphans.retain(|path| !sources.seen.contains(path));
    assert!(orphans.is_empty(), "no `mod` declares {orphans:?}");
}

#[test]
fn deciding_modules_read_no_clock_and_start_no_task() {
    let mut found = Vec::new();
    for file in sources().files {
        if file.module.first().is_some_and(|top| PURE.contains(&top.as_str())) {
            let uses = Uses::of(&file.module, &file.syntax);
            for (call, line) in uses.impure {
                found.push(format!("{}:{line}: calls {call}", file.path.display()));
            }
        }
    }
    assert!(found.is_empty(), "take it as an argument:\n{}\n", found.join("\n"));
}

#[test]
fn the_table_itself_goes_only_downwards() {
    for (module, rank, allowed) in TABLE {
        for other in allowed.split(' ').filter(|x| !x.is_empty()) {
            let lower = rank_of(other).unwrap_or_else(|| panic!("{module} names unknown {other}"));
            assert!(lower < *rank, "{module} (rank {rank}) may not use {other} (rank {lower})");
        }
    }
}

/// One parsed file that is compiled outside tests.
struct File {
    path: PathBuf,
    /// `["proxy", "worker"]`; empty for `lib.rs` and `main.rs`.
    module: Vec<String>,
    text: String,
    syntax: syn::File,
}

#[derive(Default)]
struct Sources {
    files: Vec<File>,
    /// Every file that a `mod` declares, those of tests included.
    seen: BTreeSet<PathBuf>,
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Sources {
    let mut sources = Sources::default();
    for root in ["lib.rs", "main.rs"] {
        sources.add(&src().join(root), &src(), Vec::new());
    }
    assert!(sources.files.len() > 5, "too few files found: is the search broken?");
    sources
}

impl Sources {
    /// Reads `path` and the files of its `mod name;`, which lie in `dir`.
    fn add(&mut self, path: &Path, dir: &Path, module: Vec<String>) {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let syntax = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self.seen.insert(path.to_owned());
        for item in &syntax.items {
            let syn::Item::Mod(item) = item else { continue };
            if item.content.is_some() {
                continue;
            }
            let name = item.ident.to_string();
            let below = dir.join(&name);
            let file = [dir.join(format!("{name}.rs")), below.join("mod.rs")]
                .into_iter()
                .find(|file| file.exists())
                .unwrap_or_else(|| panic!("{}: no file for mod {name}", path.display()));
            if is_test(&item.attrs) {
                self.seen.insert(file);
                self.seen.extend(rust_files(&below));
            } else {
                let mut inner = module.clone();
                inner.push(name);
                self.add(&file, &below, inner);
            }
        }
        self.files.push(File { path: path.to_owned(), module, text, syntax });
    }
}

fn rust_files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|x| x == "rs") {
            found.insert(path);
        }
    }
    found
}

fn rank_of(module: &str) -> Option<u8> {
    TABLE.iter().find(|(name, ..)| *name == module).map(|(_, rank, _)| *rank)
}

#[derive(Debug)]
struct Violation {
    line: usize,
    text: String,
}

impl Violation {
    fn at(&self, path: &Path) -> String {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path);
        format!("{}:{}: {}", path.display(), self.line, self.text)
    }
}

/// What of `uses` a file of `module` must not use. `lib.rs` and `main.rs` may use everything.
fn violations(module: &[String], uses: &Uses) -> Vec<Violation> {
    let Some(own) = module.first() else { return Vec::new() };
    let Some((_, rank, allowed)) = TABLE.iter().find(|(name, ..)| name == own) else {
        return vec![Violation { line: 1, text: format!("{own} has no line in TABLE") }];
    };
    let mut found = Vec::new();
    for (target, line) in &uses.targets {
        let text = match (target.as_str(), rank_of(target)) {
            (same, _) if same == own => continue,
            (_, Some(_)) if allowed.split(' ').any(|x| x == target) => continue,
            (_, Some(other)) if other > *rank => format!("{own} uses {target}, a layer above it"),
            (_, Some(other)) if other == *rank => format!("{own} uses {target}, beside it"),
            (_, Some(_)) => format!("{own} uses {target}, which its line in TABLE does not name"),
            (_, None) => format!("{own} uses crate::{target}: name the module it comes from"),
        };
        found.push(Violation { line: *line, text });
    }
    found
}

/// Every way in which a file leads to a module of the crate's root.
struct Uses {
    /// The module that is being read, inline modules included.
    module: Vec<String>,
    /// First segment after the crate's root, and the line.
    targets: Vec<(String, usize)>,
    impure: Vec<(String, usize)>,
}

impl Uses {
    fn of(module: &[String], syntax: &syn::File) -> Self {
        let mut uses = Self { module: module.to_vec(), targets: Vec::new(), impure: Vec::new() };
        uses.visit_file(syntax);
        uses
    }

    /// Resolves `crate`, `self` and `super`; a path of another crate or of the module itself is of no interest.
    fn path(&mut self, segments: &[String], line: usize) {
        if let [.., a, b] = segments {
            let call = format!("{a}::{b}");
            if IMPURE.contains(&call.as_str()) {
                self.impure.push((call, line));
            }
        }
        let mut rest = segments;
        let mut base = match rest.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => self.module.clone(),
            _ => return,
        };
        while let Some(first) = rest.first() {
            match first.as_str() {
                "crate" | "self" => {}
                "super" => {
                    base.pop();
                }
                _ => break,
            }
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        // A bare root (`use crate as x`, `use super::*` in a top module) hides what comes through it.
        let target = base.into_iter().next().unwrap_or_else(|| "*".to_owned());
        if !self.targets.contains(&(target.clone(), line)) {
            self.targets.push((target, line));
        }
    }

    fn use_tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| {
            let mut path = before.to_vec();
            path.push(ident.to_string());
            path
        };
        let line = tree.span().start().line;
        match tree {
            syn::UseTree::Path(x) => self.use_tree(&x.tree, &with(&x.ident)),
            syn::UseTree::Name(x) => self.path(&with(&x.ident), line),
            syn::UseTree::Rename(x) => self.path(&with(&x.ident), line),
            syn::UseTree::Glob(_) => self.path(before, line),
            syn::UseTree::Group(x) => {
                for tree in &x.items {
                    self.use_tree(tree, before);
                }
            }
        }
    }

    /// Paths in the arguments of a macro, which the parser leaves as they are. `strings`: also those written as a
    /// string, as in `#[serde(default = "crate::base::zero")]`.
    fn tokens(&mut self, tokens: TokenStream, before: &[String], strings: bool) {
        let mut tokens = tokens.into_iter().peekable();
        let mut path: Vec<String> = before.to_vec();
        let mut line = 0;
        while let Some(token) = tokens.next() {
            line = token.span().start().line;
            let mut ended = true;
            match token {
                TokenTree::Ident(ident) => {
                    path.push(ident.to_string());
                    ended = !next_is_colon(&mut tokens);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    // `::` before a segment or a group continues the path.
                    let second = next_is_colon(&mut tokens);
                    if second {
                        tokens.next();
                    }
                    ended = !second;
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let before = std::mem::take(&mut path);
                    self.tokens(group.stream(), &before, strings);
                }
                TokenTree::Group(group) => {
                    self.flush(&mut path, before, line);
                    self.tokens(group.stream(), &[], strings);
                }
                TokenTree::Literal(literal) if strings => {
                    let text = literal.to_string();
                    if let Ok(inner) = syn::parse_str::<syn::Path>(text.trim_matches('"')) {
                        self.path(&segments(&inner), line);
                    }
                }
                _ => {}
            }
            if ended {
                self.flush(&mut path, before, line);
            }
        }
        self.flush(&mut path, before, line);
    }

    /// The end of a path among tokens. `self` and `crate` alone are a value and a visibility.
    fn flush(&mut self, path: &mut Vec<String>, before: &[String], line: usize) {
        if path.len() > before.len().max(1) {
            self.path(path, line);
        }
        *path = before.to_vec();
    }
}

fn next_is_colon(tokens: &mut std::iter::Peekable<proc_macro2::token_stream::IntoIter>) -> bool {
    matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':')
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|x| x.ident.to_string()).collect()
}

/// `#[cfg(test)]` and `#[cfg(all(test, …))]`: compiled only for tests.
fn is_test(attrs: &[syn::Attribute]) -> bool {
    fn only_test(meta: &syn::Meta) -> bool {
        match meta {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) if list.path.is_ident("all") => list
                .parse_args_with(
                    syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated,
                )
                .is_ok_and(|inner| inner.iter().any(only_test)),
            _ => false,
        }
    }
    attrs.iter().any(|attr| {
        attr.path().is_ident("cfg")
            && attr.parse_args::<syn::Meta>().is_ok_and(|meta| only_test(&meta))
    })
}

fn item_attrs(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(x) => &x.attrs,
        syn::Item::Enum(x) => &x.attrs,
        syn::Item::Fn(x) => &x.attrs,
        syn::Item::Impl(x) => &x.attrs,
        syn::Item::Macro(x) => &x.attrs,
        syn::Item::Mod(x) => &x.attrs,
        syn::Item::Static(x) => &x.attrs,
        syn::Item::Struct(x) => &x.attrs,
        syn::Item::Trait(x) => &x.attrs,
        syn::Item::Type(x) => &x.attrs,
        syn::Item::Use(x) => &x.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(item_attrs(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &[]);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.path(&segments(path), path.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.visit_path(&mac.path);
        self.tokens(mac.tokens.clone(), &[], false);
    }

    fn visit_attribute(&mut self, attr: &'ast syn::Attribute) {
        if !attr.path().is_ident("doc")
            && let syn::Meta::List(list) = &attr.meta
        {
            self.tokens(list.tokens.clone(), &[], true);
        }
    }
}

fn lines_without_tests(text: &str, syntax: &syn::File) -> usize {
    let tests: usize = syntax
        .items
        .iter()
        .filter(|item| is_test(item_attrs(item)))
        .map(|item| item.span().end().line + 1 - item.span().start().line)
        .sum();
    text.lines().count() - tests
}

/// What the check says of `source`, were it `src/<module>.rs`.
fn found_in(module: &str, source: &str) -> Vec<String> {
    let module: Vec<String> = module.split('/').map(str::to_owned).collect();
    let syntax = syn::parse_file(source).unwrap();
    let uses = Uses::of(&module, &syntax);
    violations(&module, &uses).into_iter().map(|x| x.text).collect()
}

#[test]
fn every_way_of_reaching_a_forbidden_module_is_caught() {
    for (module, source) in [
        ("base", "use crate::proxy::Worker;"),
        ("base", "use crate::{base::rng::Rng, proxy::{self, Worker}};"),
        ("base", "use super::proxy;"),
        ("policy/retry", "use super::super::config::Config;"),
        ("policy/retry", "mod inner { use super::super::super::config::Config; }"),
        ("policy/retry", "use self::super::super::config::Config;"),
        ("policy", "fn f() { let x = crate::config::Config::default(); }"),
        ("policy", "fn f(x: &Vec<crate::config::Config>) {}"),
        ("policy", "impl From<crate::config::Retry> for Retry {}"),
        ("policy", "struct S { x: Option<crate::config::Retry> }"),
        ("policy", "fn f() { println!(\"{}\", crate::config::NAME); }"),
        ("policy", "fn f() { select! { _ = x => { use crate::{base, config::{self}}; } } }"),
        ("policy", "macro_rules! m { () => { $crate::config::NAME } }"),
        ("policy", "fn f() { m!([(super::config::NAME)]); }"),
        ("policy", "#[serde(default = \"crate::config::zero\")] struct S;"),
        ("policy", "#[cfg(not(test))] use crate::config::Config;"),
        ("policy", "#[cfg(any(test, unix))] use crate::config::Config;"),
        ("policy", "pub use crate::config as settings;"),
        ("metrics", "use crate::policy::Retry;"),
        ("proxy/worker", "use crate::control::apply;"),
        ("proxy", "use crate::discovery::Discovery;"),
        ("proxy", "use crate::config::Config;"),
        ("snapshot", "use crate::config::Config;"),
        ("discovery", "use crate::upstream::Upstream;"),
        ("route", "use crate::config::Route;"),
        ("base", "use crate::*;"),
        ("base", "use super::*;"),
        ("base", "use crate::Reexported;"),
        ("unknown", "use crate::base;"),
    ] {
        assert_eq!(found_in(module, source).len(), 1, "{module}: {source}");
    }
}

#[test]
fn what_is_allowed_and_what_is_a_test_pass() {
    for (module, source) in [
        ("proxy", "use crate::{base::error::ProxyError, snapshot::Snapshot};"),
        ("proxy/worker", "use super::request; use crate::proxy::listener; use self::inner::X;"),
        ("proxy", "pub(crate) fn f() {} pub(super) fn g(&self) { self.x.y() }"),
        ("proxy", "use std::config::x; use http::control; fn f() { other::config::x() }"),
        ("proxy", "fn f() { m!(self.x, config::y, a::control); }"),
        ("policy", "#[cfg(test)] mod tests { use crate::config::Config; }"),
        ("policy", "#[cfg(all(test, unix))] use crate::config::Config;"),
        ("policy", "impl S { #[cfg(test)] fn f() { crate::config::x() } }"),
        ("policy", "/// See `crate::config::Config`.\nstruct S;"),
        ("control", "use crate::{config::Config, discovery::Discovery, snapshot::Snapshot};"),
    ] {
        assert_eq!(found_in(module, source), [""; 0], "{module}: {source}");
    }
}

#[test]
fn messages_say_in_which_direction_it_went_wrong() {
    assert_eq!(found_in("base", "use crate::io::x;"), ["base uses io, a layer above it"]);
    assert_eq!(found_in("io", "use crate::metrics::x;"), ["io uses metrics, beside it"]);
    assert_eq!(
        found_in("proxy", "use crate::config::x;"),
        ["proxy uses config, which its line in TABLE does not name"]
    );
}

#[test]
fn a_clock_read_by_a_policy_is_caught() {
    let caught = |source: &str| {
        let syntax = syn::parse_file(source).unwrap();
        Uses::of(&["policy".to_owned()], &syntax).impure.len()
    };
    assert_eq!(caught("fn f() { let t = tokio::time::Instant::now(); }"), 1);
    assert_eq!(caught("fn f() { vec![Instant::now()]; }"), 1);
    assert_eq!(caught("fn f(now: Instant) -> Instant { now }"), 0);
    assert_eq!(caught("#[cfg(test)] mod tests { fn f() { Instant::now(); } }"), 0);
}

#[test]
fn test_modules_do_not_count_towards_the_length() {
    let text = "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
    let syntax = syn::parse_file(text).unwrap();
    assert_eq!(lines_without_tests(text, &syntax), 2);
}
