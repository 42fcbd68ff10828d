//! `alias`: names that point to one version of a secret.
//!
//! `current` is what readers get, `previous` follows it, `next` and others are set by people. A pointer moves only if it
//! still points where the mover believes: of two who move it at the same time, one is refused.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Session;
use super::kv::Name;
use crate::client::Client;
use crate::error::{CliError, Refusal};

/// What to do with aliases.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show which version an alias points to
    Get(Get),
    /// Point an alias to a version
    Set(Set),
    /// Show all aliases of a secret
    List(Name),
}

/// An alias of a secret.
#[derive(Args, Debug)]
pub(crate) struct Get {
    #[command(flatten)]
    name: Name,
    /// The alias
    alias: String,
}

/// Where an alias is to point.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  keyward alias set secret/app/db current 3 -from=2\n  keyward alias set secret/app/db canary 4 -from=none"
)]
pub(crate) struct Set {
    #[command(flatten)]
    name: Name,
    /// The alias
    alias: String,
    /// The version to point to
    version: u64,
    /// Refuse unless the alias points to this version now; `none` if it must not exist yet. Without this, what the alias
    /// points to is looked up first
    #[arg(long, value_name = "VERSION", value_parser = parse_from)]
    from: Option<From>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Nothing,
    Version(u64),
}

/// Runs one of them.
///
/// # Errors
/// Refused, absent, or moved by somebody else in between.
pub(crate) fn run(session: &mut Session, command: &Command) -> Result<(), CliError> {
    match command {
        Command::Get(arguments) => get(session, arguments),
        Command::Set(arguments) => set(session, arguments),
        Command::List(name) => list(session, name),
    }
}

fn get(session: &mut Session, arguments: &Get) -> Result<(), CliError> {
    let client = session.client()?;
    let (path, name) = paths(&client, &arguments.name)?;
    let body = fetch(&client, &path)?;
    let alias = arguments.alias.as_str();
    let Some(version) = aliases(&body)[alias].as_u64() else {
        return Err(CliError::Absent(
            format!("`{name}` has no alias `{alias}`"),
            Some(format!("those there are: `keyward alias list {name}`")),
        ));
    };
    session.output.rows(
        &json!({"alias": alias, "version": version}),
        &["Alias", "Version"],
        &[vec![alias.to_owned(), version.to_string()]],
    )
}

fn list(session: &mut Session, name: &Name) -> Result<(), CliError> {
    let client = session.client()?;
    let (path, _) = paths(&client, name)?;
    let body = fetch(&client, &path)?;
    let mut pairs: Vec<(&String, u64)> = aliases(&body)
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(alias, version)| Some((alias, version.as_u64()?)))
        .collect();
    // Those of the system first, in the order of their life.
    let rank = |alias: &str| ["next", "current", "previous"].iter().position(|known| *known == alias).unwrap_or(3);
    pairs.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then(a.cmp(b)));
    let rows: Vec<_> = pairs.iter().map(|(alias, version)| vec![(*alias).clone(), version.to_string()]).collect();
    session.output.rows(unwrapped(&body), &["Alias", "Version"], &rows)
}

fn set(session: &mut Session, arguments: &Set) -> Result<(), CliError> {
    let client = session.client()?;
    let (path, name) = paths(&client, &arguments.name)?;
    let alias = arguments.alias.as_str();
    let expected = match arguments.from {
        Some(From::Nothing) => None,
        Some(From::Version(version)) => Some(version),
        None => aliases(&fetch(&client, &path)?)[alias].as_u64(),
    };
    let body = json!({"alias": alias, "version": arguments.version, "expected_previous_version": expected});
    let answer = client.post(&path, &body).map_err(|error| explain_race(error, &name, alias, expected))?;
    session.output.warnings(&answer.body);
    let from = expected.map_or_else(|| "nothing".to_owned(), |version| format!("version {version}"));
    session.output.say(&format!("{alias} of {name}: {from} → version {}", arguments.version))
}

/// The path of the aliases, and the secret's name.
fn paths(client: &Client, name: &Name) -> Result<(String, String), CliError> {
    let place = name.locate(client)?.versioned()?;
    Ok((place.below("aliases"), place.name()))
}

fn fetch(client: &Client, path: &str) -> Result<Value, CliError> {
    match client.get(path, &[])? {
        Some(answer) if answer.status < 300 => Ok(answer.body),
        _ => Err(CliError::Absent(format!("no aliases found at `{path}`: is there such a secret?"), None)),
    }
}

/// The answer with or without Vault's envelope around it.
fn unwrapped(body: &Value) -> &Value {
    if body["data"].is_object() { &body["data"] } else { body }
}

fn aliases(body: &Value) -> &Value {
    &unwrapped(body)["aliases"]
}

fn explain_race(error: CliError, name: &str, alias: &str, expected: Option<u64>) -> CliError {
    let moved = |refusal: &Refusal| {
        refusal.status == 409
            || refusal.errors.iter().any(|error| error.contains("does not point to the expected version"))
    };
    match error {
        CliError::Refused(refusal) if moved(&refusal) => {
            let expected = expected.map_or_else(|| "that it does not exist".to_owned(), |v| format!("version {v}"));
            CliError::Absent(
                format!("`{alias}` of `{name}` does not point where you expect ({expected}); nothing was moved"),
                Some(format!("see where it points: `keyward alias list {name}`, then decide again")),
            )
        }
        other => other,
    }
}

fn parse_from(text: &str) -> Result<From, String> {
    match text {
        "none" | "null" => Ok(From::Nothing),
        number => number.parse().map(From::Version).map_err(|_| "give a version number, or `none`".into()),
    }
}
