//! Every configuration that the repository shows can be loaded as it stands.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

use std::path::{Path, PathBuf};

use outrigger::config::{Loaded, Severity, load_str, render, scenario_from};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` that `wanted` takes, in order.
fn files(folder: &Path, wanted: &impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            found.extend(files(&path, wanted));
        } else if path.is_file() && wanted(name) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn load(name: &str, text: &str) -> Loaded {
    load_str(name, text, &|_| None)
}

fn findings(loaded: &Loaded) -> String {
    render(&loaded.diagnostics, &loaded.source, false)
}

fn assert_loads(path: &Path) {
    let loaded = load(&path.display().to_string(), &std::fs::read_to_string(path).unwrap());
    assert!(loaded.config.is_some(), "{}", findings(&loaded));
}

#[test]
#[cfg_attr(
    not(all(feature = "kubernetes", feature = "xds")),
    ignore = "needs every provider: --features full"
)]
fn examples_load_with_their_defaults() {
    let mut examples = files(&root().join("config"), &|name| name.ends_with(".yaml"));
    examples.retain(|path| !is_scenario(path));
    assert!(examples.len() >= 10, "{examples:?}");
    examples.iter().for_each(|path| assert_loads(path));
}

/// The files of `outrigger simulate`; the policies that it compares are configurations.
fn is_scenario(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("config/scenarios"))
}

#[test]
fn scenarios_load() {
    let mut scenarios = files(&root().join("config/scenarios"), &|name| name.ends_with(".yaml"));
    scenarios.retain(|path| is_scenario(path));
    assert!(scenarios.len() >= 7, "{scenarios:?}");
    for path in scenarios {
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = scenario_from(&path.display().to_string(), &text, &|_| None);
        let findings = render(&loaded.diagnostics, &loaded.source, false);
        assert!(loaded.diagnostics.is_empty(), "{findings}");
    }
}

#[test]
#[cfg_attr(
    not(all(feature = "kubernetes", feature = "xds")),
    ignore = "needs every provider: --features full"
)]
fn the_file_with_every_key_has_no_finding() {
    let text = std::fs::read_to_string(root().join("config/full.yaml")).unwrap();
    let loaded = load("config/full.yaml", &text);
    assert!(loaded.diagnostics.is_empty(), "{}", findings(&loaded));
}

#[test]
fn nine_lines_are_nine_lines() {
    let text = std::fs::read_to_string(root().join("config/nine-lines.yaml")).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    assert_eq!(lines.count(), 9);
}

#[test]
fn deployments_load() {
    let deployed = files(&root().join("deploy"), &|name| {
        name.starts_with("outrigger") && name.ends_with(".yaml")
    });
    assert!(deployed.len() >= 3, "{deployed:?}");
    deployed.iter().for_each(|path| assert_loads(path));
}

/// The YAML blocks of a page, each with the number of its first line.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.trim()) {
            (None, "```yaml") => open = Some((number + 2, String::new())),
            (Some(_), "```") => found.extend(open.take()),
            (Some((_, text)), _) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// Moved to the right, as a part of something.
fn indented(text: &str, spaces: usize) -> String {
    let indent = " ".repeat(spaces);
    text.lines().map(|line| format!("{indent}{line}\n")).collect()
}

/// The files that a block may be a part of: itself, or it alone in a listener, a route, an upstream.
fn wholes(block: &str) -> Vec<String> {
    let rest = "upstreams: { articles: { endpoints: [127.0.0.1:1] }, articles-canary: { endpoints: [127.0.0.1:2] } }\n";
    let route = "      - to: articles\n";
    let listener = "listeners:\n  outbound:\n    bind: 127.0.0.1:0\n";
    vec![
        block.to_owned(),
        format!("{listener}    routes:\n{route}{rest}{block}"),
        format!("{block}{rest}"),
        format!("{listener}{}    routes:\n{route}{rest}", indented(block, 4)),
        format!("{listener}{}{rest}", indented(block, 4)),
        format!("{listener}    routes:\n{route}{}{rest}", indented(block, 8)),
        format!("{listener}    routes:\n{}{rest}", indented(block, 6)),
        format!(
            "{listener}    routes:\n{route}upstreams:\n  articles:\n    endpoints: [127.0.0.1:1]\n{}",
            indented(block, 4)
        ),
        format!("{listener}    routes:\n{route}upstreams:\n  articles:\n{}", indented(block, 4)),
    ]
}

#[test]
#[cfg_attr(
    not(all(feature = "kubernetes", feature = "xds")),
    ignore = "needs every provider: --features full"
)]
fn yaml_on_the_pages_loads_as_a_file_or_as_a_part_of_one() {
    let mut pages = files(&root().join("docs"), &|name| name.ends_with(".md"));
    pages.extend(files(&root().join("deploy"), &|name| name.ends_with(".md")));
    pages.extend(["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(|name| root().join(name)));
    let mut checked = 0;
    for page in pages.iter().filter(|page| page.exists()) {
        for (line, block) in blocks(&std::fs::read_to_string(page).unwrap()) {
            let name = format!("{}:{line}", page.display());
            // What is for Kubernetes or Compose is checked by their own tools.
            if block.contains("apiVersion:") || block.contains("services:") {
                continue;
            }
            if scenario_from(&name, &block, &|_| None).scenario.is_some() {
                checked += 1;
                continue;
            }
            let tried: Vec<Loaded> =
                wholes(&block).iter().map(|whole| load(&name, whole)).collect();
            let best = tried.iter().min_by_key(|loaded| {
                let errors = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error);
                (loaded.config.is_none(), errors.count())
            });
            let best = best.unwrap();
            assert!(best.config.is_some(), "{name}:\n{}", findings(best));
            checked += 1;
        }
    }
    assert!(checked >= 2, "{checked}");
}

#[test]
fn a_wrong_block_would_be_found() {
    for wrong in
        ["timeot: 2s\n", "limits: { retry_budgt: 20% }\n", "listeners: {}\n", "to: nobody\n"]
    {
        assert!(wholes(wrong).iter().all(|whole| load("wrong", whole).config.is_none()), "{wrong}");
    }
}
