//! `token`: who a token is, what it may do, and for how long.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::{Session, trim};
use crate::error::CliError;
use crate::input;
use crate::output::Format;

/// What to do with tokens.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a token
    Create(Box<Create>),
    /// Show what is known about a token; without one, about our own
    Lookup(Which),
    /// Make a token last longer
    Renew(Renew),
    /// End a token, and those made with it
    Revoke(Revoke),
    /// Show what a token may do at a path
    Capabilities(Capabilities),
}

/// What the new token is to be.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyward token create -policy=app -ttl=1h -field=token")]
pub(crate) struct Create {
    /// A policy; may be given more than once. Without any, those of our own token
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// How long it lasts
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// How long it lasts at most, however often it is renewed
    #[arg(long, value_name = "DURATION")]
    explicit_max_ttl: Option<String>,
    /// Renewable for ever, each time for this long
    #[arg(long, value_name = "DURATION")]
    period: Option<String>,
    /// May it be renewed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    renewable: Option<bool>,
    /// Do not end it together with our own token
    #[arg(long)]
    orphan: bool,
    /// Without the policy `default`
    #[arg(long)]
    no_default_policy: bool,
    /// A name for the audit log
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// It ends after that many requests
    #[arg(long, value_name = "NUMBER")]
    use_limit: Option<u64>,
    /// A label, `name=value`; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    metadata: Vec<String>,
    /// `service` or `batch`
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// Make it by this token role
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// A token of one's own choice; the server's own are better
    #[arg(long, value_name = "TOKEN")]
    id: Option<String>,
}

/// A token, by itself or by its accessor.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// The token, or `-` for standard input; without it, our own
    token: Option<String>,
    /// The word is an accessor, not a token
    #[arg(long, requires = "token")]
    accessor: bool,
}

/// A token and for how long.
#[derive(Args, Debug)]
pub(crate) struct Renew {
    #[command(flatten)]
    which: Which,
    /// For how long from now
    #[arg(long, short, value_name = "DURATION")]
    increment: Option<String>,
}

/// A token to end.
#[derive(Args, Debug)]
pub(crate) struct Revoke {
    /// The token, or `-` for standard input
    #[arg(required_unless_present = "self_")]
    token: Option<String>,
    /// The word is an accessor, not a token
    #[arg(long, requires = "token")]
    accessor: bool,
    /// Our own token
    #[arg(long = "self", id = "self_", conflicts_with_all = ["token", "accessor"])]
    own: bool,
    /// `orphan` leaves the tokens made with it alive
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<Mode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Orphan,
}

/// A path, perhaps seen with another token.
#[derive(Args, Debug)]
pub(crate) struct Capabilities {
    /// `[TOKEN] PATH`; without a token (or `-` for standard input), our own
    #[arg(required = true, num_args = 1..=2, value_names = ["TOKEN", "PATH"])]
    words: Vec<String>,
}

/// Runs one of them.
///
/// # Errors
/// Refused, or arguments that cannot be used.
pub(crate) fn run(session: &mut Session, command: Command) -> Result<(), CliError> {
    match command {
        Command::Create(arguments) => create(session, &arguments),
        Command::Lookup(which) => lookup(session, &which),
        Command::Renew(arguments) => renew(session, &arguments),
        Command::Revoke(arguments) => revoke(session, &arguments),
        Command::Capabilities(arguments) => capabilities(session, &arguments),
    }
}

fn create(session: &mut Session, arguments: &Create) -> Result<(), CliError> {
    let body = Value::Object(arguments.body()?);
    let path = match (&arguments.role, arguments.orphan) {
        (Some(role), _) => format!("auth/token/create/{role}"),
        (None, true) => "auth/token/create-orphan".to_owned(),
        (None, false) => "auth/token/create".to_owned(),
    };
    let answer = session.client()?.post(&path, &body)?;
    session.output.envelope(&answer.body, &Value::Null)
}

fn lookup(session: &mut Session, which: &Which) -> Result<(), CliError> {
    let client = session.client()?;
    let body = match which.name()? {
        None => client.get("auth/token/lookup-self", &[])?.map_or(Value::Null, |answer| answer.body),
        Some(name) => client.post(&format!("auth/token/lookup{}", which.suffix()), &name)?.body,
    };
    session.output.envelope(&body, &body["data"])
}

fn renew(session: &mut Session, arguments: &Renew) -> Result<(), CliError> {
    let which = &arguments.which;
    let name = which.name()?;
    let suffix = if name.is_none() { "-self" } else { which.suffix() };
    let mut body = name.unwrap_or_else(|| json!({}));
    if let Some(increment) = &arguments.increment {
        body["increment"] = increment.as_str().into();
    }
    let answer = session.client()?.put(&format!("auth/token/renew{suffix}"), &body)?;
    session.output.envelope(&answer.body, &Value::Null)
}

fn revoke(session: &mut Session, arguments: &Revoke) -> Result<(), CliError> {
    let client = session.client()?;
    let which = Which { token: arguments.token.clone(), accessor: arguments.accessor };
    let (path, body) = match (which.name()?, arguments.mode) {
        (None, None) => ("revoke-self", json!({})),
        (Some(name), None) => (if which.accessor { "revoke-accessor" } else { "revoke" }, name),
        (Some(name), Some(Mode::Orphan)) if !which.accessor => ("revoke-orphan", name),
        _ => return Err(CliError::Usage("-mode=orphan needs a token itself, not -self or -accessor".into())),
    };
    let answer = client.put(&format!("auth/token/{path}"), &body)?;
    session.output.warnings(&answer.body);
    session.output.say("revoked the token (if it was there)")
}

fn capabilities(session: &mut Session, arguments: &Capabilities) -> Result<(), CliError> {
    let client = session.client()?;
    let (endpoint, mut body, path) = match arguments.words.as_slice() {
        [path] => ("sys/capabilities-self", json!({}), path),
        [token, path] => {
            let which = Which { token: Some(token.clone()), accessor: false };
            ("sys/capabilities", which.name()?.unwrap_or_else(|| json!({})), path)
        }
        _ => return Err(CliError::Usage("give a path, or a token and a path".into())),
    };
    let path = trim(path);
    body["paths"] = json!([path]);
    let answer = client.post(endpoint, &body)?.body;
    let found = [&answer["data"][path], &answer["data"]["capabilities"], &answer[path]];
    let capabilities = found.into_iter().find(|value| value.is_array()).cloned().unwrap_or_else(|| json!([]));
    if session.output.format() != Format::Table {
        return session.output.document(&capabilities);
    }
    let mut words: Vec<_> = capabilities.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    words.sort_unstable();
    session.output.text(&format!("{}\n", words.join(", ")))
}

impl Create {
    /// Only what was given.
    fn body(&self) -> Result<Map<String, Value>, CliError> {
        let mut body = Map::new();
        for (name, value) in [
            ("ttl", &self.ttl),
            ("explicit_max_ttl", &self.explicit_max_ttl),
            ("period", &self.period),
            ("display_name", &self.display_name),
            ("type", &self.r#type),
            ("id", &self.id),
        ] {
            if let Some(value) = value {
                body.insert(name.into(), value.as_str().into());
            }
        }
        if !self.policy.is_empty() {
            body.insert("policies".into(), json!(self.policy));
        }
        if !self.metadata.is_empty() {
            body.insert("meta".into(), Value::Object(input::labels(&self.metadata)?));
        }
        if let Some(renewable) = self.renewable {
            body.insert("renewable".into(), renewable.into());
        }
        if let Some(uses) = self.use_limit {
            body.insert("num_uses".into(), uses.into());
        }
        if self.no_default_policy {
            body.insert("no_default_policy".into(), true.into());
        }
        Ok(body)
    }
}

impl Which {
    /// The body that names it; `None` for our own token.
    fn name(&self) -> Result<Option<Value>, CliError> {
        let Some(word) = &self.token else { return Ok(None) };
        let word = if word == "-" { input::secret("token")?.to_string() } else { word.clone() };
        Ok(Some(if self.accessor { json!({"accessor": word}) } else { json!({"token": word}) }))
    }

    fn suffix(&self) -> &'static str {
        if self.accessor { "-accessor" } else { "" }
    }
}
