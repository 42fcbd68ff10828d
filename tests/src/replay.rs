//! Recorded scenarios: read, repeated against a server, compared.
//!
//! A scenario is a list of requests with the answers that another server of this family gave. Later requests may use
//! what earlier answers held (`capture`, `${NAME}`). What differs from run to run is replaced on both sides by what kind
//! of thing it is (`<uuid>`, `<time>`, `<token>`, …); what remains must be equal. `tests/compat/README.md` has the
//! format.

mod compare;

mod places;

mod scenario;

mod volatile;

pub use places::{at, dig};
pub use scenario::{Answer, Scenario, Step};

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::client::Client;
use crate::suite;
use volatile::Run;

/// What a path keeps as it is; everything else is percent-encoded.
const IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// What a query value keeps.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// How one step went.
#[derive(Debug)]
pub struct Outcome {
    /// The step's name.
    pub step: String,
    /// Where the answer differs from the recorded one; empty where it does not.
    pub differences: Vec<String>,
    /// The status that came.
    pub status: u16,
    /// The whole body that came, volatile values replaced.
    pub body: Value,
    /// What was recorded.
    pub recorded: Vec<Answer>,
}

/// Repeats a scenario with the root token `root`. `word` stands for `${RUN}`; no two runs on one server may share it.
pub fn run(scenario: &Scenario, address: &str, root: &str, word: &str) -> Vec<Outcome> {
    let mut variables = BTreeMap::from([("ROOT".to_owned(), Value::from(root)), ("RUN".to_owned(), Value::from(word))]);
    let run = Run(word);
    scenario.steps.iter().map(|step| repeat(scenario, step, address, &run, &mut variables)).collect()
}

fn repeat(
    scenario: &Scenario,
    recorded: &Step,
    address: &str,
    run: &Run<'_>,
    variables: &mut BTreeMap<String, Value>,
) -> Outcome {
    if let Some(pause) = recorded.sleep_ms {
        // A lifetime must be over before the next step means anything.
        suite::rest(Duration::from_millis(pause));
    }
    let step = recorded.filled_in(variables);
    let (status, body, header) = send(&step, address, &variables["ROOT"]);
    for (name, place) in &step.capture {
        let found = dig(&body, place).cloned().unwrap_or_else(|| Value::from(format!("<uncaptured {name}>")));
        variables.insert(name.clone(), found);
    }

    let shown = |places: &[String]| places.iter().map(|place| place.replace("${RUN}", "<run>")).collect::<Vec<_>>();
    let ignored = [&["request_id".to_owned()][..], &shown(&scenario.ignore)[..], &shown(&recorded.ignore)[..]].concat();
    let unordered = shown(&recorded.unordered);
    let trim = |mut body: Value| {
        ignored.iter().for_each(|place| places::drop(&mut body, place));
        unordered.iter().for_each(|place| places::sort(&mut body, place));
        body
    };
    let normal = trim(run.normalise(&body, None));
    let (seen, keeps) = match &recorded.keep {
        Some(kept) => (places::keep(&normal, &shown(kept)), true),
        None => (normal.clone(), false),
    };

    let mut nearest: Option<Vec<String>> = None;
    for want in &recorded.expect {
        let mut differences = Vec::new();
        if want.status == status {
            let wanted = if keeps { want.body.clone() } else { trim(want.body.clone()) };
            compare::differences(&wanted, &seen, "body", &mut differences);
            for (name, value) in &want.headers {
                let got = run.normalise(&Value::from(header(name)), None);
                compare::differences(value, &got, &format!("header {name}"), &mut differences);
            }
        } else {
            differences.push(format!("status: {} recorded, {status} came with {}", want.status, brief(&seen)));
        }
        if nearest.as_ref().is_none_or(|known| differences.len() < known.len()) {
            nearest = Some(differences);
        }
    }
    Outcome {
        step: recorded.id.clone(),
        differences: nearest.unwrap_or_default(),
        status,
        body: run.normalise(&body, None),
        recorded: recorded.expect.clone(),
    }
}

/// Status, body (`null` where there is none) and a look-up for headers.
fn send(step: &Step, address: &str, root: &Value) -> (u16, Value, impl Fn(&str) -> String + use<>) {
    let path = match step.raw_path {
        true => step.path.clone(),
        false => utf8_percent_encode(&step.path, IN_PATH).to_string(),
    };
    let mut target = if path.starts_with('/') { path } else { format!("/v1/{path}") };
    if !step.query.is_empty() {
        target.push('?');
        target += &query(&step.query);
    }
    let body = match (&step.raw_body, &step.body) {
        (Some(raw), _) => Some(raw.clone().into_bytes()),
        (None, Some(json)) => Some(json.to_string().into_bytes()),
        (None, None) => None,
    };
    let token = step.token.clone().unwrap_or_else(|| text(root));
    let mut headers = vec![("X-Vault-Request".to_owned(), "true".to_owned())];
    if !token.is_empty() {
        headers.push(("X-Vault-Token".to_owned(), token));
    }
    if body.is_some() {
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    }
    for (name, value) in &step.headers {
        headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        if !value.is_null() {
            headers.push((name.clone(), text(value)));
        }
    }
    if body.is_none() && ["POST", "PUT", "PATCH"].contains(&step.method.as_str()) {
        headers.push(("Content-Length".to_owned(), "0".to_owned()));
    }
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let response = Client::new(address, "")
        .send(&step.method, &target, &headers, body.as_deref())
        .unwrap_or_else(|error| panic!("{} {target}: {error}", step.method));
    let parsed = if response.body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&response.body).unwrap_or_else(|_| {
            let text: String = response.text().chars().take(200).collect();
            Value::from(Map::from_iter([("<not-json>".to_owned(), Value::from(text))]))
        })
    };
    (response.status, parsed, move |name: &str| response.header(name).unwrap_or_default().to_owned())
}

fn query(pairs: &BTreeMap<String, Value>) -> String {
    let encode = |text: &str| utf8_percent_encode(text, IN_QUERY).to_string().replace(' ', "+");
    let mut out = Vec::new();
    for (name, value) in pairs {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        out.extend(values.iter().map(|value| format!("{}={}", encode(name), encode(&text(value)))));
    }
    out.join("&")
}

/// A string as it is, anything else as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(160).collect()
}
