//! Imports point down, tasks start in one place, nothing is unsafe.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Top-level modules by layer, highest first; siblings do not import each other.
const LAYERS: [&[&str]; 9] = [
    &["main"],
    &["cli"],
    &["probe", "telemetry", "server"],
    &["stack"],
    &["downstream", "upstream", "acme"],
    &["http2", "interim", "registry"],
    &["admission", "net", "relay", "drain"],
    &["config"],
    &["protocol"],
];

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&module)).unwrap_or_else(|| panic!("`{module}` has no layer"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|ending| ending.to_str()) {
            _ if path.is_dir() => sources(&path, found),
            Some("rs") => found.push(path),
            _ => {}
        }
    }
}

/// Module name and text without unit tests, for every source file but `lib.rs`.
fn modules() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let is_test = |path: &PathBuf| path.iter().any(|part| part == "tests" || part == "tests.rs");
    paths.retain(|path| !path.ends_with("lib.rs") && !is_test(path));
    let module = |path: PathBuf| {
        let inside = path.strip_prefix(&root).unwrap().to_owned();
        let name = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
        (name, inside, text)
    };
    paths.into_iter().map(module).collect()
}

/// First segments of what a file takes from `crate::`, in `use` trees and in paths.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned()),
            Some(tree) => {
                let (mut depth, mut word) = (0, String::new());
                for c in tree.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => found.push(std::mem::take(&mut word)),
                        _ if depth == 0 => word.push(c),
                        _ => {}
                    }
                }
                found.push(word);
            }
        }
    }
    let first = |word: String| word.trim().split("::").next().unwrap().trim().to_owned();
    found.into_iter().map(first).filter(|word| !word.is_empty()).collect()
}

#[test]
fn imports_point_down() {
    for (module, path, text) in modules() {
        for import in imports(&text) {
            let down = import == module || layer(&module) < layer(&import);
            assert!(down, "{} imports `{import}`, which is not below `{module}`", path.display());
            let plain = ["relay", "config", "protocol"].contains(&import.as_str());
            assert!(module != "relay" || plain, "relay knows `{import}`");
            assert!(module != "drain", "drain knows `{import}`");
        }
    }
}

#[test]
fn no_layer_of_the_stack_imports_another() {
    let shared = ["facts", "error", "check", "shown", "pace"];
    for (module, path, text) in modules() {
        if module != "stack" || path.ends_with("mod.rs") {
            continue;
        }
        for other in text.split("super::{").nth(1).unwrap_or_default().split("};").next().unwrap_or_default().lines() {
            let other = other.trim().split("::").next().unwrap().trim_end_matches(',');
            let lower = other.starts_with(|c: char| c.is_lowercase());
            // `observe` reads the mark that `respond` leaves on a response.
            let known = shared.contains(&other) || other == "respond";
            assert!(!lower || known, "{} imports the layer `{other}`", path.display());
        }
    }
}

#[test]
fn tasks_start_where_they_are_counted() {
    for (_, path, text) in modules() {
        let spawns = text.contains("tokio::spawn(") || text.contains("task::spawn(");
        assert!(!spawns, "{} spawns a task nobody waits for", path.display());
    }
}

#[test]
fn nothing_is_unsafe() {
    for (_, path, text) in modules() {
        assert!(!text.contains("unsafe {") && !text.contains("unsafe fn"), "{}", path.display());
    }
}

/// Every `file.rs::test` in a text.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|code| code.split_once(".rs::")).collect()
}

/// Whether a file has a test function of this name.
fn has_test(text: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    text.match_indices(&head).any(|(at, _)| {
        // The attribute stands right before the function.
        text[..at].trim_end_matches("async ").trim_end().lines().next_back().is_some_and(|line| {
            let line = line.trim();
            line.starts_with("#[test]") || line.starts_with("#[tokio::test")
        })
    })
}

#[test]
fn every_promise_of_the_threat_model_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let promises = model.split("## Promises").nth(1).unwrap().split("\n## Out of scope").next().unwrap();
    let rows = promises.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise "));
    let mut count = 0;
    for row in rows {
        let tests = named_tests(row);
        assert!(!tests.is_empty(), "no test holds: {row}");
        for (file, name) in tests {
            let text = fs::read_to_string(root.join(format!("{file}.rs"))).unwrap_or_default();
            assert!(has_test(&text, name), "{file}.rs has no test `{name}`: {row}");
            count += 1;
        }
    }
    assert!(count > 50, "only {count} tests are named");
}
