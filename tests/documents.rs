//! The documents against the tree: what they name is there, and what is there they name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `directory` whose name ends in `.extension`.
fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

#[test]
fn the_map_of_the_house_has_every_file() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, map) = map.split_once("## Every file").expect("the map's title");
    let mut sources = Vec::new();
    files(&root().join("src"), "rs", &mut sources);
    let mut missing = Vec::new();
    for source in sources {
        let path = source.strip_prefix(root().join("src")).unwrap().with_extension("");
        let path = path.to_str().unwrap().trim_end_matches("/mod");
        let Some((room, file)) = path.split_once('/') else { continue };
        if file.split('/').any(|part| part == "tests") {
            continue;
        }
        let named = map.split("\n**").find(|part| part.starts_with(&format!("{room}/**")));
        if !named.is_some_and(|named| named.contains(&format!("`{file}`"))) {
            missing.push(format!("{room}/: `{file}`"));
        }
    }
    assert!(
        missing.is_empty(),
        "add to \"Every file\" of ARCHITECTURE.md:\n{}",
        missing.join("\n")
    );
}

#[test]
fn paths_that_the_documents_name_exist() {
    let mut documents = Vec::new();
    files(&root().join("docs"), "md", &mut documents);
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    documents.extend(top.iter().map(|name| root().join(name)));
    let mut wrong = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        // The target of each `[…](…)` that is no address of the web, and each `src/….rs`.
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let links = links.map(|(target, _)| target.split('#').next().unwrap_or_default());
        let links = links.filter(|target| !target.is_empty() && !target.contains("://"));
        let links = links.map(|target| document.parent().unwrap().join(target));
        let sources = text.split('`').skip(1).step_by(2);
        let sources =
            sources.filter(|quoted| quoted.starts_with("src/") && quoted.ends_with(".rs"));
        let sources = sources.filter(|path| !path.contains(['<', '{', '*']));
        for path in links.chain(sources.map(|path| root().join(path))) {
            if !path.exists() {
                wrong.push(format!("{}: {}", document.display(), path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not there:\n{}", wrong.join("\n"));
}
