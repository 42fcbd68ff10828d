//! `kv put`, `kv get`, `kv patch`: the values.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::Name;
use super::place::{Engine, Place};
use crate::client::{Client, Method};
use crate::command::{Session, trim};
use crate::error::{CliError, Refusal};
use crate::input;
use crate::output::Format;

/// A new version.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  keyward kv put secret/app/db password=-            (typed without echo, or piped)\n  keyward kv put secret/app/tls key=@server.key\n  keyward kv put secret/app/db @values.json\n  keyward kv put -cas=0 secret/app/db password=-     (only if there is nothing yet)"
)]
pub(crate) struct Put {
    #[command(flatten)]
    name: Name,
    /// Write only if this is the current version; 0 if there is none
    #[arg(long, value_name = "VERSION")]
    cas: Option<u64>,
    /// `name=-` (standard input), `name=@file`, `name=value`, `@file.json`, or `-` (JSON)
    #[arg(required = true)]
    data: Vec<String>,
}

/// A version to read.
#[derive(Args, Debug)]
pub(crate) struct Get {
    #[command(flatten)]
    name: Name,
    /// Read this version
    #[arg(long, value_name = "VERSION")]
    version: Option<u64>,
    /// Read the version that this alias points to
    #[arg(long, value_name = "ALIAS", conflicts_with = "version")]
    alias: Option<String>,
}

/// Members to change.
#[derive(Args, Debug)]
pub(crate) struct Patch {
    #[command(flatten)]
    name: Name,
    /// Write only if this is the current version
    #[arg(long, value_name = "VERSION")]
    cas: Option<u64>,
    /// `patch` lets the server merge, `rw` reads, merges here and writes; without it, the first, else the second
    #[arg(long, value_enum)]
    method: Option<How>,
    /// Remove this member; may be given more than once
    #[arg(long, value_name = "MEMBER")]
    remove_data: Vec<String>,
    /// As for `put`
    #[arg(required_unless_present = "remove_data")]
    data: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    Patch,
    Rw,
}

/// `kv put`.
pub(super) fn put(session: &mut Session, arguments: &Put) -> Result<(), CliError> {
    let given = input::members(&arguments.data)?;
    session.exposed(&given.exposed, "`name=-` and `name=@file` keep it out of them");
    let client = session.client()?;
    let mut place = arguments.name.locate(&client)?;
    if arguments.cas.is_some() {
        place = place.versioned()?;
    }
    let data = Value::Object(given.members);
    let answer = match place.engine {
        Engine::V1 => client.put(&place.plain(), &data)?,
        Engine::V2 => client.put(&place.value(), &json!({"data": data, "options": options(arguments.cas)}))?,
    };
    written(session, &place, &answer.body)
}

/// `kv get`.
pub(super) fn get(session: &mut Session, arguments: &Get) -> Result<(), CliError> {
    let client = session.client()?;
    let mut place = arguments.name.locate(&client)?;
    if arguments.version.is_some() || arguments.alias.is_some() {
        place = place.versioned()?;
    }
    let version = arguments.version.map(|version| version.to_string());
    let query: Vec<_> = [("version", version.as_deref()), ("alias", arguments.alias.as_deref())]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let Some(answer) = client.get(&place.value(), &query)? else { return Err(place.absent()) };
    let body = answer.body;
    if place.engine == Engine::V1 || body["wrap_info"].is_object() {
        return session.output.envelope(&body, &body["data"]);
    }
    session.output.envelope(&body, &body["data"]["data"])?;
    if session.output.format() == Format::Table && session.output.field().is_none() {
        describe(session, &place, &body["data"]["metadata"])?;
    }
    Ok(())
}

/// `kv patch`.
pub(super) fn patch(session: &mut Session, arguments: &Patch) -> Result<(), CliError> {
    let given = input::members(&arguments.data)?;
    session.exposed(&given.exposed, "`name=-` and `name=@file` keep it out of them");
    let client = session.client()?;
    let place = arguments.name.locate(&client)?.versioned()?;
    let mut changes = given.members;
    changes.extend(arguments.remove_data.iter().map(|member| (member.clone(), Value::Null)));
    let body = match arguments.method {
        Some(How::Rw) => read_then_write(&client, &place, changes, arguments.cas)?,
        method => match merge_there(&client, &place, &changes, arguments.cas) {
            Err(CliError::Refused(Refusal { status: 403 | 405, .. })) if method.is_none() => {
                read_then_write(&client, &place, changes, arguments.cas)?
            }
            other => other?,
        },
    };
    written(session, &place, &body)
}

fn merge_there(
    client: &Client,
    place: &Place,
    changes: &Map<String, Value>,
    cas: Option<u64>,
) -> Result<Value, CliError> {
    let body = json!({"data": changes, "options": options(cas)});
    match client.send(Method::Patch, &place.value(), &[], Some(&body))? {
        Some(answer) if answer.status < 300 => Ok(answer.body),
        _ => Err(nothing_to_patch(place)),
    }
}

fn read_then_write(
    client: &Client,
    place: &Place,
    changes: Map<String, Value>,
    cas: Option<u64>,
) -> Result<Value, CliError> {
    let current = client.get(&place.value(), &[])?.filter(|answer| answer.status < 300);
    let current = current.map_or(Value::Null, |answer| answer.body);
    let (Some(data), Some(version)) =
        (current["data"]["data"].as_object(), current["data"]["metadata"]["version"].as_u64())
    else {
        return Err(nothing_to_patch(place));
    };
    let mut data = data.clone();
    for (name, value) in changes {
        if value.is_null() {
            data.remove(&name);
        } else {
            data.insert(name, value);
        }
    }
    // What was read is what is replaced, or nothing is.
    let body = json!({"data": data, "options": options(Some(cas.unwrap_or(version)))});
    Ok(client.put(&place.value(), &body)?.body)
}

fn nothing_to_patch(place: &Place) -> CliError {
    CliError::Absent(
        format!("no current version at `{}`: there is nothing to patch", place.value()),
        Some("`keyward kv put` writes a first version, `keyward kv undelete` brings a deleted one back".into()),
    )
}

fn options(cas: Option<u64>) -> Value {
    cas.map_or_else(|| json!({}), |cas| json!({"cas": cas}))
}

/// Writes what a write came to: the new version.
pub(super) fn written(session: &mut Session, place: &Place, body: &Value) -> Result<(), CliError> {
    if body.is_null() {
        return session.output.say(&format!("wrote {}", place.name()));
    }
    session.output.envelope(body, &body["data"])
}

/// The line below a value: which version it is, since when, and what became of it.
fn describe(session: &mut Session, place: &Place, metadata: &Value) -> Result<(), CliError> {
    let version = metadata["version"].as_u64().unwrap_or_default();
    let created = metadata["created_time"].as_str().unwrap_or("an unknown time");
    let deleted = metadata["deletion_time"].as_str().unwrap_or_default();
    let name = trim(&place.name()).to_owned();
    if metadata["destroyed"].as_bool() == Some(true) {
        return session.output.say(&format!("version {version} of {name} was destroyed; its value is gone"));
    }
    let gone = if deleted.is_empty() { String::new() } else { format!(", deleted as of {deleted}") };
    session.output.say(&format!("\nversion {version} of {name}, written {created}{gone}"))?;
    if let Some(labels) = metadata["custom_metadata"].as_object().filter(|labels| !labels.is_empty()) {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}={}", crate::output::cell(value))).collect();
        session.output.say(&labels.join(" "))?;
    }
    if !gone.is_empty() {
        session.output.hint(&format!("bring it back: keyward kv undelete -versions={version} {name}"));
    }
    Ok(())
}
