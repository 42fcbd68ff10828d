//! The recorded answers of OpenBao 2.6.2, repeated against a development server.
//!
//! An answer may differ from the recorded one only where `tests/compat/deviations.toml` says so, and there it must
//! differ as it says. `docs/reference/deviations.md` is that list for readers.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use keyward_tests::replay::{self, Outcome, Scenario, at};
use keyward_tests::server::{ROOT, Server};
use keyward_tests::suite;
use serde::Deserialize;
use serde_json::Value;

const RECORDINGS: &str = "compat/openbao-2.6.2";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviations {
    topic: Vec<Topic>,
}

/// One difference: what OpenBao does, what we do, why, and what shows it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    title: String,
    openbao: String,
    keyward: String,
    reason: String,
    /// Recorded steps that we answer otherwise.
    #[serde(default)]
    instead: Vec<Instead>,
    /// A scenario of our own in `tests/compat/keyward`.
    scenario: Option<String>,
    /// Tests that show it where it takes several nodes: a file of `tests/tests` and a function in it.
    #[serde(default)]
    tests: Vec<String>,
}

/// Our answer at a recorded step.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Instead {
    /// `kv/list-pages limit-max`: folder, file and step.
    step: String,
    status: u16,
    /// Places in the body, and what stands there.
    #[serde(default)]
    shows: BTreeMap<String, Value>,
}

fn topics() -> Vec<Topic> {
    let text = suite::read(suite::data("compat/deviations.toml"));
    toml::from_str::<Deviations>(&text).unwrap_or_else(|error| panic!("deviations.toml: {error}")).topic
}

/// Repeats a folder and compares each step with the recording or with the deviation. `KEYWARD_SCENARIO` picks one.
fn repeat(folder: &str, scenarios: &[Scenario]) {
    let topics = topics();
    let listed: BTreeMap<_, _> =
        topics.iter().flat_map(|topic| &topic.instead).map(|instead| (instead.step.as_str(), instead)).collect();
    let only = std::env::var("KEYWARD_SCENARIO").ok();
    let server = Server::dev();
    let (mut faults, mut steps, mut deviating) = (Vec::new(), 0, 0);
    for (number, scenario) in scenarios.iter().enumerate() {
        if only.as_ref().is_some_and(|only| *only != scenario.name) {
            continue;
        }
        for outcome in replay::run(scenario, &server.address, ROOT, &format!("r{number:010x}")) {
            steps += 1;
            let name = format!("{folder}/{} {}", scenario.name, outcome.step);
            let lines = match listed.get(name.as_str()) {
                Some(instead) => {
                    deviating += 1;
                    missing(instead, &outcome)
                }
                None => outcome.differences.clone(),
            };
            if !lines.is_empty() {
                faults.push(format!("{name}\n    {}", lines.join("\n    ")));
            }
        }
    }
    eprintln!("{folder}: {steps} steps, {deviating} of them listed deviations");
    assert!(faults.is_empty(), "{} steps differ:\n{}", faults.len(), faults.join("\n"));
}

/// What a listed deviation does not show.
fn missing(instead: &Instead, outcome: &Outcome) -> Vec<String> {
    let mut out = Vec::new();
    if outcome.differences.is_empty() {
        out.push("listed as a deviation, but the answer is the recorded one: take it off the list".to_owned());
    }
    if instead.status != outcome.status {
        out.push(format!("status: {} listed, {} came with {}", instead.status, outcome.status, outcome.body));
    }
    for (place, want) in &instead.shows {
        let got = at(&outcome.body, place);
        if got != want {
            out.push(format!("{place}: {want} listed, {got} came"));
        }
    }
    out
}

#[test]
fn key_values() {
    repeat("kv", &Scenario::read_all(&format!("{RECORDINGS}/kv")));
}

#[test]
fn system() {
    repeat("sys", &Scenario::read_all(&format!("{RECORDINGS}/sys")));
}

#[test]
fn tokens() {
    repeat("auth", &Scenario::read_all(&format!("{RECORDINGS}/auth")));
}

#[test]
fn what_differs_beyond_the_recordings() {
    repeat("keyward", &Scenario::read_all("compat/keyward"));
}

#[test]
fn every_recording_is_repeated_or_listed_as_not_served() {
    let list = suite::read(suite::data("compat/not-served.txt"));
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, reason) = line.split_once(' ').unwrap_or_else(|| panic!("{line}: no reason"));
        assert!(!reason.trim().is_empty(), "{line}: no reason");
        assert!(
            !suite::data(&format!("{RECORDINGS}/{name}.json")).exists(),
            "{name} is repeated: take it off the list"
        );
    }
}

#[test]
fn every_deviation_is_shown_by_something() {
    let (mut steps, mut ours) = (BTreeSet::new(), BTreeSet::new());
    for folder in ["kv", "sys", "auth"] {
        for scenario in Scenario::read_all(&format!("{RECORDINGS}/{folder}")) {
            steps.extend(scenario.steps.iter().map(|step| format!("{folder}/{} {}", scenario.name, step.id)));
        }
    }
    ours.extend(Scenario::read_all("compat/keyward").into_iter().map(|scenario| scenario.name));
    for topic in topics() {
        let nothing = topic.instead.is_empty() && topic.scenario.is_none() && topic.tests.is_empty();
        assert!(!nothing, "{}: nothing shows it", topic.title);
        for test in &topic.tests {
            let (file, name) = test.split_once(' ').unwrap_or_else(|| panic!("{test}: no function"));
            let text = suite::read(suite::root().join(format!("tests/tests/{file}.rs")));
            assert!(text.contains(&format!("#[test]\nfn {name}()")), "{test}: there is no such test");
        }
        for instead in topic.instead {
            assert!(steps.contains(&instead.step), "{}: there is no such step", instead.step);
        }
        if let Some(name) = topic.scenario {
            assert!(ours.remove(&name), "{name}: there is no such scenario, or two topics have it");
        }
    }
    assert!(ours.is_empty(), "no topic has these scenarios: {ours:?}");
}

#[test]
fn the_page_of_deviations_is_the_list() {
    let path = suite::root().join("docs/reference/deviations.md");
    let page = page();
    if std::env::var_os("KEYWARD_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    assert_eq!(suite::read(&path), page, "run this test with KEYWARD_BLESS=1 to write the page anew");
}

/// `docs/reference/deviations.md`.
fn page() -> String {
    let mut out = String::from(
        "# Where Keyward differs from OpenBao\n\n\
         For those who move a client of OpenBao or Vault to Keyward: after this page you know every answer that is meant to differ.\n\n\
         This page is made from `tests/compat/deviations.toml`, and a test holds it to be true.\n\
         The test repeats recorded exchanges with OpenBao 2.6.2, and fails where an answer differs and is not on this page, or is on this page and does not differ.\n\
         What takes several nodes has no recording: the test that is named shows it.\n",
    );
    for topic in topics() {
        write!(
            out,
            "\n## {}\n\n- OpenBao: {}\n- Keyward: {}\n- Why: {}\n",
            topic.title, topic.openbao, topic.keyward, topic.reason
        )
        .unwrap();
        let mut shown: Vec<_> =
            topic.instead.iter().map(|instead| format!("`{}` ({})", instead.step, instead.status)).collect();
        shown.extend(topic.scenario.map(|name| format!("`keyward/{name}`")));
        shown.extend(topic.tests.iter().map(|test| format!("test `{}`", test.replace(' ', "::"))));
        writeln!(out, "- Shown by: {}", shown.join(", ")).unwrap();
    }
    out += "\n## Not served yet\n\nRecordings that cannot be repeated, and what they need:\n\n| recording | needs |\n|---|---|\n";
    let list = suite::read(suite::data("compat/not-served.txt"));
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, needs) = line.split_once(' ').unwrap();
        writeln!(out, "| {name} | {} |", needs.trim()).unwrap();
    }
    out += "\nNext: [errors](errors.md).\n";
    out
}
