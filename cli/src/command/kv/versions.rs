//! `kv delete`, `undelete`, `destroy`, `rollback`: what becomes of versions.

use clap::Args;
use serde_json::{Value, json};

use super::Name;
use super::place::Engine;
use super::value::written;
use crate::client::{Client, Method};
use crate::command::Session;
use crate::error::CliError;

/// What to delete.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    #[command(flatten)]
    name: Name,
    /// These versions instead of the current one, with commas
    #[arg(long, value_name = "VERSIONS", value_delimiter = ',')]
    versions: Vec<u64>,
}

/// Versions of one secret.
#[derive(Args, Debug)]
pub(crate) struct Several {
    #[command(flatten)]
    name: Name,
    /// The versions, with commas
    #[arg(long, value_name = "VERSIONS", value_delimiter = ',', required = true)]
    versions: Vec<u64>,
}

/// Where to go back to.
#[derive(Args, Debug)]
pub(crate) struct Rollback {
    #[command(flatten)]
    name: Name,
    /// The version whose value becomes the newest
    #[arg(long, value_name = "VERSION")]
    version: u64,
}

/// `kv delete`.
pub(super) fn delete(session: &mut Session, arguments: &Delete) -> Result<(), CliError> {
    let client = session.client()?;
    let place = arguments.name.locate(&client)?;
    if !arguments.versions.is_empty() {
        return post(session, &client, &arguments.name, &arguments.versions, "delete", "deleted");
    }
    client.send(Method::Delete, &place.value(), &[], None)?;
    let undo = match place.engine {
        Engine::V1 => "",
        Engine::V2 => " (`keyward kv undelete` brings it back)",
    };
    session.output.say(&format!("deleted {}, if it was there{undo}", place.name()))
}

/// `kv undelete`.
pub(super) fn undelete(session: &mut Session, arguments: &Several) -> Result<(), CliError> {
    let client = session.client()?;
    post(session, &client, &arguments.name, &arguments.versions, "undelete", "brought back")
}

/// `kv destroy`.
pub(super) fn destroy(session: &mut Session, arguments: &Several) -> Result<(), CliError> {
    let client = session.client()?;
    post(session, &client, &arguments.name, &arguments.versions, "destroy", "destroyed for good:")
}

fn post(
    session: &mut Session,
    client: &Client,
    name: &Name,
    versions: &[u64],
    prefix: &str,
    done: &str,
) -> Result<(), CliError> {
    let place = name.locate(client)?.versioned()?;
    let numbers: Vec<_> = versions.iter().map(u64::to_string).collect();
    let answer = client.put(&place.below(prefix), &json!({"versions": numbers}))?;
    session.output.warnings(&answer.body);
    session.output.say(&format!("{done} {} of {}, where there was one", listed(&numbers), place.name()))
}

/// `kv rollback`.
pub(super) fn rollback(session: &mut Session, arguments: &Rollback) -> Result<(), CliError> {
    let client = session.client()?;
    let place = arguments.name.locate(&client)?.versioned()?;
    let current = client.get(&place.value(), &[])?.map_or(Value::Null, |answer| answer.body);
    let Some(cas) = current["data"]["metadata"]["version"].as_u64() else { return Err(place.absent()) };
    let wanted = arguments.version.to_string();
    let old = client.get(&place.value(), &[("version", &wanted)])?.map_or(Value::Null, |answer| answer.body);
    let metadata = &old["data"]["metadata"];
    let gone = |why: &str, hint: Option<String>| {
        CliError::Absent(format!("version {wanted} of `{}` {why}: there is nothing to go back to", place.name()), hint)
    };
    if metadata.is_null() {
        return Err(gone("is not there", Some(format!("see what is: `keyward kv metadata get {}`", place.name()))));
    }
    if metadata["destroyed"].as_bool() == Some(true) {
        return Err(gone("was destroyed", None));
    }
    if metadata["deletion_time"].as_str().is_some_and(|time| !time.is_empty()) {
        let undo = format!("first: `keyward kv undelete -versions={wanted} {}`", place.name());
        return Err(gone("is deleted", Some(undo)));
    }
    let body = json!({"data": old["data"]["data"], "options": {"cas": cas}});
    let answer = client.put(&place.value(), &body)?;
    written(session, &place, &answer.body)
}

fn listed(numbers: &[String]) -> String {
    match numbers {
        [one] => format!("version {one}"),
        several => format!("versions {}", several.join(", ")),
    }
}
