//! The shape of the house: who may know whom, how long a file is, and that every crate says what it is.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use keyward_tests::suite;

/// What a crate may know of the others. A new arrow is a decision: it comes with a record in docs/adr.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("crypto", &["model"]),
    ("storage", &["model"]),
    ("raft", &["model", "storage"]),
    ("policy", &["model", "crypto"]),
    ("audit", &["model", "crypto"]),
    ("server", &["model", "crypto", "storage", "raft", "policy", "audit"]),
    ("cli", &["server", "audit", "model", "crypto"]),
    ("tests", &["model", "crypto", "storage", "raft", "policy", "audit", "server"]),
];
/// Lines at which a file surely holds a second noun.
const LINES_MAX: usize = 900;

#[test]
fn arrows_point_upward_only() {
    let members = members();
    let known: BTreeSet<_> = ARROWS.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(members, known, "the members of the workspace and the rows of the table");
    for (room, may_know) in ARROWS {
        let manifest = manifest(&suite::root().join(room));
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let dependencies = manifest.get(section).and_then(toml::Value::as_table);
            for name in dependencies.into_iter().flat_map(toml::Table::keys) {
                let Some(other) = name.strip_prefix("keyward-") else { continue };
                assert!(may_know.contains(&other), "{room} may not know {other} ({section})");
            }
        }
        assert!(manifest.get("target").is_none(), "{room}: dependencies by target would go past this test");
    }
}

#[test]
fn every_crate_says_what_it_is_and_takes_the_lints() {
    for room in members() {
        let folder = suite::root().join(&room);
        let entry = ["src/lib.rs", "src/main.rs"].map(|path| folder.join(path)).into_iter().find(|path| path.exists());
        let entry = entry.unwrap_or_else(|| panic!("{room} has neither src/lib.rs nor src/main.rs"));
        assert!(suite::read(&entry).starts_with("//! "), "{}: no crate docs at its top", entry.display());
        let lints = manifest(&folder).get("lints").and_then(|lints| lints.get("workspace")).cloned();
        assert_eq!(lints, Some(toml::Value::Boolean(true)), "{room} does not take the workspace's lints");
    }
}

#[test]
fn no_file_holds_two_nouns() {
    let mut files = Vec::new();
    for room in members() {
        collect(&suite::root().join(room), &mut files);
    }
    assert!(files.len() > 50, "found {} files only", files.len());
    let long: Vec<_> = files
        .iter()
        .map(|path| (suite::read(path).lines().count(), path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines; what is the second noun? {long:?}");
}

fn members() -> BTreeSet<String> {
    let manifest = manifest(suite::root());
    let members = manifest["workspace"]["members"].as_array().unwrap();
    members.iter().map(|member| member.as_str().unwrap().to_owned()).collect()
}

fn manifest(folder: &Path) -> toml::Table {
    let path = folder.join("Cargo.toml");
    suite::read(&path).parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}
