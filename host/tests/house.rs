//! The rules of the house that a compiler does not hold.

#![expect(clippy::unwrap_used, reason = "a test of the house ends where it can't read the house")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | "node_modules" | ".git") {
                files(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&root().join(folder), ".rs", &mut found);
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The code without its tests and comments: tests may look down, and prose may name anything.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The modules of the library in their order.
fn modules() -> Vec<String> {
    let lib = fs::read_to_string(root().join("host/src/lib.rs")).unwrap();
    lib.lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned))
        .collect()
}

/// The modules that a text names: `crate::x`, and each `x` of `use crate::{x::…, …}`.
fn named(text: &str, modules: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for part in text.split("crate::").skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let mut depth = 1;
            let mut word = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if c.is_alphanumeric() || c == '_' {
                    word.push(c);
                    continue;
                }
                if depth == 1 || depth == 0 || (depth == 2 && c == '{') {
                    names.insert(std::mem::take(&mut word));
                }
                word.clear();
                if depth == 0 {
                    break;
                }
            }
        } else {
            names.insert(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names.retain(|name| modules.contains(name));
    names
}

#[test]
fn no_module_imports_from_below_itself() {
    let modules = modules();
    assert!(modules.len() > 10, "the order of modules is read from lib.rs: {modules:?}");
    let mut wrong = Vec::new();
    for (path, text) in sources("host/src") {
        let inside = path.strip_prefix(root().join("host/src")).unwrap();
        let own = inside.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        let Some(place) = modules.iter().position(|module| *module == own) else { continue };
        for name in named(&code(&text), &modules) {
            if modules.iter().position(|module| *module == name).unwrap() > place {
                wrong.push(format!("{} uses crate::{name}, which stands below {own}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_import_against_the_order_is_seen() {
    let modules = ["id", "vault", "broker", "host"].map(str::to_owned);
    for text in
        ["use crate::broker::Broker;", "use crate::{id::UserId, broker::{Broker, X}};", "fn f(b: &crate::broker::B) {}"]
    {
        assert!(named(text, &modules).contains("broker"), "{text}");
    }
    assert!(!named("use crate::id::{host, UserId};", &modules).contains("host"));
}

#[test]
fn no_file_has_over_700_lines_without_its_tests() {
    let folders = ["host/src", "cli/src", "xtask/src", "tests/src", "tests/canary/src", "skills-examples"];
    let (mut long, mut checked) = (Vec::new(), BTreeSet::new());
    for folder in folders {
        for (path, text) in sources(folder) {
            // Only below the folder: what the tests are built on is checked like the rest.
            let inside = path.strip_prefix(root().join(folder)).unwrap();
            if inside.ends_with("tests.rs") || inside.components().any(|part| part.as_os_str() == "tests") {
                continue;
            }
            checked.insert(folder);
            let lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
            if lines > 700 {
                long.push(format!("{} has {lines} lines", path.display()));
            }
        }
    }
    assert_eq!(checked, BTreeSet::from(folders), "a folder of which no file is checked");
    assert!(long.is_empty(), "is there a second noun in it?\n{}", long.join("\n"));
}

#[test]
fn every_link_of_the_docs_leads_to_a_file() {
    let mut docs = Vec::new();
    files(&root(), ".md", &mut docs);
    let (mut links, mut dead) = (0, Vec::new());
    for doc in docs {
        let text = fs::read_to_string(&doc).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            links += 1;
            if !doc.with_file_name(file).exists() {
                dead.push(format!("{}: {link}", doc.display()));
            }
        }
    }
    assert!(links > 10, "links are looked for in the docs: {links}");
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            (cells.len() == 3 && cells[0].parse::<u32>().is_ok()).then(|| (cells[0].to_owned(), cells[2].to_owned()))
        })
        .collect();
    let numbers: Vec<u32> = rows.iter().map(|(number, _)| number.parse().unwrap()).collect();
    assert_eq!(
        numbers,
        (1..=16).collect::<Vec<u32>>(),
        "ten invariants of the whole and six of the console, one row each"
    );
    let all: String = ["host", "cli", "tests", "skills-examples"]
        .iter()
        .flat_map(|folder| sources(folder))
        .map(|(_, text)| text)
        .collect();
    for (number, tests) in rows {
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "invariant {number} names no test");
        for name in names {
            assert!(all.contains(&format!("fn {name}(")), "invariant {number} names {name}, which is not there");
        }
    }
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    let marks = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
    ];
    let mut found = Vec::new();
    for folder in ["host", "cli", "xtask", "tests", "skills-examples"] {
        for (path, text) in sources(folder) {
            // Examples in the docs that must not compile may stand in for a value.
            let text: String = text.lines().filter(|line| !line.trim_start().starts_with("///")).collect();
            for mark in marks.iter().filter(|mark| text.contains(**mark)) {
                found.push(format!("{}: {mark}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
