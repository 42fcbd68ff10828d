//! `kv metadata`: what is known about a secret apart from its values.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Name;
use crate::client::Method;
use crate::command::Session;
use crate::error::CliError;
use crate::input;
use crate::output::Format;

/// What to do with it.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show settings and versions
    Get(Name),
    /// Replace settings; what is not named stays, the labels are replaced as a whole
    Put(Settings),
    /// Change settings and single labels
    Patch(Change),
    /// Remove the secret with all its versions, for good
    Delete(Name),
}

/// Settings of one secret.
#[derive(Args, Debug)]
pub(crate) struct Settings {
    #[command(flatten)]
    name: Name,
    /// Keep this many versions; 0 as the mount says
    #[arg(long, value_name = "NUMBER")]
    max_versions: Option<u64>,
    /// Refuse writes that do not say which version they replace
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cas_required: Option<bool>,
    /// Delete each version that long after it was written, as in `30m`; 0 for never
    #[arg(long, value_name = "DURATION")]
    delete_version_after: Option<String>,
    /// A label, `name=value`; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    custom_metadata: Vec<String>,
}

/// Settings to change.
#[derive(Args, Debug)]
pub(crate) struct Change {
    #[command(flatten)]
    settings: Settings,
    /// Remove this label; may be given more than once
    #[arg(long, value_name = "NAME")]
    remove_custom_metadata: Vec<String>,
}

/// Runs one of them.
pub(super) fn run(session: &mut Session, command: Command) -> Result<(), CliError> {
    match command {
        Command::Get(name) => get(session, &name),
        Command::Put(settings) => put(session, &settings),
        Command::Patch(change) => patch(session, &change),
        Command::Delete(name) => delete(session, &name),
    }
}

fn get(session: &mut Session, name: &Name) -> Result<(), CliError> {
    let client = session.client()?;
    let place = name.locate(&client)?.versioned()?;
    let path = place.below("metadata");
    let Some(answer) = client.get(&path, &[])? else {
        return Err(CliError::Absent(format!("no metadata found at `{path}`"), None));
    };
    let body = answer.body;
    let plain = session.output.format() == Format::Table && session.output.field().is_none();
    let (Some(data), true) = (body["data"].as_object(), plain) else {
        return session.output.envelope(&body, &body["data"]);
    };
    let settings: Map<_, _> = data
        .iter()
        .filter(|(name, _)| *name != "versions")
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    session.output.envelope(&body, &Value::Object(settings))?;
    session.output.say("")?;
    let mut versions: Vec<(u64, &Value)> = data["versions"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(number, of)| Some((number.parse().ok()?, of)))
        .collect();
    versions.sort_unstable_by_key(|(number, _)| *number);
    let rows: Vec<_> = versions
        .iter()
        .map(|(number, of)| {
            let text = |field: &str| of[field].as_str().filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
            let destroyed = if of["destroyed"] == json!(true) { "yes" } else { "-" };
            vec![number.to_string(), text("created_time"), text("deletion_time"), destroyed.to_owned()]
        })
        .collect();
    session.output.rows(&body, &["Version", "Created", "Deleted", "Destroyed"], &rows)
}

fn put(session: &mut Session, settings: &Settings) -> Result<(), CliError> {
    let body = settings.body()?;
    let client = session.client()?;
    let place = settings.name.locate(&client)?.versioned()?;
    let answer = client.put(&place.below("metadata"), &Value::Object(body))?;
    session.output.warnings(&answer.body);
    session.output.say(&format!("wrote the settings of {}", place.name()))
}

fn patch(session: &mut Session, change: &Change) -> Result<(), CliError> {
    let mut body = change.settings.body()?;
    if !change.remove_custom_metadata.is_empty() {
        let labels = body.entry("custom_metadata").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.extend(change.remove_custom_metadata.iter().map(|name| (name.clone(), Value::Null)));
        }
    }
    let client = session.client()?;
    let place = change.settings.name.locate(&client)?.versioned()?;
    let path = place.below("metadata");
    let Some(answer) = client.send(Method::Patch, &path, &[], Some(&Value::Object(body)))? else {
        let hint = "`keyward kv metadata put` makes them".to_owned();
        return Err(CliError::Absent(format!("no metadata found at `{path}`: there is nothing to change"), Some(hint)));
    };
    session.output.warnings(&answer.body);
    session.output.say(&format!("changed the settings of {}", place.name()))
}

fn delete(session: &mut Session, name: &Name) -> Result<(), CliError> {
    let client = session.client()?;
    let place = name.locate(&client)?.versioned()?;
    client.send(Method::Delete, &place.below("metadata"), &[], None)?;
    session.output.say(&format!("removed {} with all its versions, if it was there", place.name()))
}

impl Settings {
    /// Only what was given: what is absent stays as it is on the server.
    fn body(&self) -> Result<Map<String, Value>, CliError> {
        let mut body = Map::new();
        if let Some(number) = self.max_versions {
            body.insert("max_versions".into(), number.into());
        }
        if let Some(required) = self.cas_required {
            body.insert("cas_required".into(), required.into());
        }
        if let Some(duration) = &self.delete_version_after {
            body.insert("delete_version_after".into(), duration.as_str().into());
        }
        if !self.custom_metadata.is_empty() {
            body.insert("custom_metadata".into(), Value::Object(input::labels(&self.custom_metadata)?));
        }
        Ok(body)
    }
}
