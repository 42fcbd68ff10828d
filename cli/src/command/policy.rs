//! `policy`: the texts that say what a token may do.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Session;
use crate::client::Method;
use crate::error::CliError;
use crate::input;

/// What to do with policies.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Names of all policies
    List,
    /// Show a policy's text
    Read(Name),
    /// Write a policy from a file, or from standard input
    Write(Write),
    /// Delete a policy
    Delete(Name),
}

/// A policy.
#[derive(Args, Debug)]
pub(crate) struct Name {
    /// Its name
    name: String,
}

/// A policy and its text.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  echo 'path \"secret/data/app/*\" { capabilities = [\"read\"] }' | keyward policy write app -"
)]
pub(crate) struct Write {
    /// Its name
    name: String,
    /// The file with its text, or `-`
    file: String,
}

/// Runs one of them.
///
/// # Errors
/// Refused, absent, or a file that cannot be read.
pub(crate) fn run(session: &mut Session, command: &Command) -> Result<(), CliError> {
    let client = session.client()?;
    let path = |name: &str| format!("sys/policies/acl/{}", name.trim());
    match command {
        Command::List => {
            let answer = client.send(Method::List, "sys/policies/acl", &[], None)?;
            let body = answer.map_or(Value::Null, |answer| answer.body);
            let keys = body["data"]["keys"].as_array().cloned().unwrap_or_default();
            if session.output.format() == crate::output::Format::Table {
                let names: String = keys.iter().map(|name| crate::output::cell(name) + "\n").collect();
                return session.output.text(&names);
            }
            session.output.document(&Value::Array(keys))
        }
        Command::Read(Name { name }) => {
            let Some(answer) = client.get(&path(name), &[])? else {
                return Err(CliError::Absent(
                    format!("there is no policy `{name}`"),
                    Some("those there are: `keyward policy list`".into()),
                ));
            };
            let policy = &answer.body["data"]["policy"];
            if session.output.format() == crate::output::Format::Table && session.output.field().is_none() {
                let text = policy.as_str().unwrap_or_default();
                let end = if text.ends_with('\n') { "" } else { "\n" };
                return session.output.text(&format!("{text}{end}"));
            }
            session.output.document(&json!({"policy": policy}))
        }
        Command::Write(Write { name, file }) => {
            let text = input::document(file)?;
            let answer = client.put(&path(name), &json!({"policy": text.trim()}))?;
            session.output.warnings(&answer.body);
            session.output.say(&format!("wrote policy {name}"))
        }
        Command::Delete(Name { name }) => {
            client.send(Method::Delete, &path(name), &[], None)?;
            session.output.say(&format!("deleted policy {name} (if it was there)"))
        }
    }
}
