//! `secrets`: which engine is mounted where.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Session, trim};
use crate::client::Method;
use crate::error::CliError;
use crate::input;
use crate::output::cell;

/// Members of a JSON object.
type Members = Map<String, Value>;

/// What to do with mounts.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show all mounts
    List(List),
    /// Mount an engine
    Enable(Enable),
    /// Take a mount away, with everything in it
    Disable(Path),
    /// Mount the same data under another path
    Move(Move),
    /// Change a mount's settings
    Tune(Tune),
}

/// How much to show.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Show settings, too
    #[arg(long)]
    detailed: bool,
}

/// Which mount.
#[derive(Args, Debug)]
pub(crate) struct Path {
    /// The mount
    path: String,
}

/// From where to where.
#[derive(Args, Debug)]
pub(crate) struct Move {
    /// The mount as it is
    from: String,
    /// The mount as it shall be
    to: String,
}

/// Settings that a mount is given or that change.
#[derive(Args, Debug)]
pub(crate) struct Settings {
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// How long leases last if nobody says otherwise
    #[arg(long, value_name = "DURATION")]
    default_lease_ttl: Option<String>,
    /// How long leases last at most
    #[arg(long, value_name = "DURATION")]
    max_lease_ttl: Option<String>,
    /// `unauth` shows the mount to everyone, `hidden` to those who may use it
    #[arg(long, value_name = "WHO")]
    listing_visibility: Option<String>,
    /// An option of the engine, `name=value`; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// The version of the kv engine: 1 or 2
    #[arg(long, value_name = "NUMBER")]
    version: Option<u64>,
}

/// An engine and where to mount it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyward secrets enable -path=team -version=2 kv")]
pub(crate) struct Enable {
    #[command(flatten)]
    settings: Settings,
    /// Where; without it, at the engine's own name
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Keep it out of replication between clusters
    #[arg(long)]
    local: bool,
    /// The engine: `kv`, `kv-v2`, …
    engine: String,
}

/// A mount and its new settings.
#[derive(Args, Debug)]
pub(crate) struct Tune {
    #[command(flatten)]
    settings: Settings,
    /// The mount
    path: String,
}

/// Runs one of them.
///
/// # Errors
/// Refused.
pub(crate) fn run(session: &mut Session, command: Command) -> Result<(), CliError> {
    let client = session.client()?;
    match command {
        Command::List(arguments) => {
            let answer = client.get("sys/mounts", &[])?;
            let mounts = answer.map_or(Value::Null, |answer| answer.body["data"].clone());
            list(session, &mounts, &arguments)
        }
        Command::Enable(arguments) => {
            let path = trim(arguments.path.as_deref().unwrap_or(&arguments.engine));
            let (config, options) = arguments.settings.parts()?;
            let mut body = json!({"type": arguments.engine, "config": config, "options": options});
            if let Some(description) = &arguments.settings.description {
                body["description"] = description.as_str().into();
            }
            if arguments.local {
                body["local"] = true.into();
            }
            let answer = client.post(&format!("sys/mounts/{path}"), &body)?;
            session.output.warnings(&answer.body);
            session.output.say(&format!("enabled {} at {path}/", arguments.engine))
        }
        Command::Disable(Path { path }) => {
            let path = trim(&path);
            client.send(Method::Delete, &format!("sys/mounts/{path}"), &[], None)?;
            session.output.say(&format!("disabled {path}/ (if it was mounted)"))
        }
        Command::Move(Move { from, to }) => {
            let (from, to) = (trim(&from), trim(&to));
            client.post("sys/remount", &json!({"from": from, "to": to}))?;
            session.output.say(&format!("moved {from}/ to {to}/"))
        }
        Command::Tune(arguments) => {
            let path = trim(&arguments.path);
            let (mut body, options) = arguments.settings.parts()?;
            if let Some(description) = &arguments.settings.description {
                body.insert("description".into(), description.as_str().into());
            }
            if !options.is_empty() {
                body.insert("options".into(), Value::Object(options));
            }
            let answer = client.post(&format!("sys/mounts/{path}/tune"), &Value::Object(body))?;
            session.output.warnings(&answer.body);
            session.output.say(&format!("tuned {path}/"))
        }
    }
}

fn list(session: &mut Session, mounts: &Value, arguments: &List) -> Result<(), CliError> {
    let seconds = |config: &Value, name: &str| match config[name].as_u64() {
        None | Some(0) => "system".to_owned(),
        Some(seconds) => crate::output::duration(seconds),
    };
    let rows: Vec<_> = mounts
        .as_object()
        .into_iter()
        .flatten()
        .map(|(path, mount)| {
            let mut row = vec![path.clone(), cell(&mount["type"]), cell(&mount["accessor"])];
            if arguments.detailed {
                row.push(seconds(&mount["config"], "default_lease_ttl"));
                row.push(seconds(&mount["config"], "max_lease_ttl"));
                row.push(cell(&mount["options"]));
                row.push(cell(&mount["uuid"]));
            }
            row.push(cell(&mount["description"]));
            row
        })
        .collect();
    let headers: &[&str] = if arguments.detailed {
        &["Path", "Type", "Accessor", "Default TTL", "Max TTL", "Options", "UUID", "Description"]
    } else {
        &["Path", "Type", "Accessor", "Description"]
    };
    session.output.rows(mounts, headers, &rows)
}

impl Settings {
    /// The `config` and the `options` of a mount: only what was given.
    fn parts(&self) -> Result<(Members, Members), CliError> {
        let mut config = Map::new();
        for (name, value) in [
            ("default_lease_ttl", &self.default_lease_ttl),
            ("max_lease_ttl", &self.max_lease_ttl),
            ("listing_visibility", &self.listing_visibility),
        ] {
            if let Some(value) = value {
                config.insert(name.into(), value.as_str().into());
            }
        }
        let mut options = input::labels(&self.options)?;
        if let Some(version) = self.version {
            options.insert("version".into(), version.to_string().into());
        }
        Ok((config, options))
    }
}
