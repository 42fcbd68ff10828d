//! `read`, `write`, `list`, `delete`, `unwrap`: any path of the API, for what has no command of its own.

use keyward_model::Secret;
use serde_json::{Map, Value};

use super::{Session, trim};
use crate::client::Method;
use crate::error::CliError;
use crate::input;

/// Which path to read.
#[derive(clap::Args, Debug)]
pub(crate) struct Read {
    /// The path below /v1/
    path: String,
    /// Query parameters, `name=value`
    parameters: Vec<String>,
}

/// What to write where.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  keyward write auth/userpass/users/ann password=- token_policies=app\n  keyward write -force sys/rotate"
)]
pub(crate) struct Write {
    /// Write without any data
    #[arg(long, short)]
    force: bool,
    /// The path below /v1/
    path: String,
    /// `name=value`, `name=@file`, `name=-` (standard input), `@file.json`, or `-`
    data: Vec<String>,
}

/// Which path to list.
#[derive(clap::Args, Debug)]
pub(crate) struct List {
    /// The path below /v1/
    path: String,
}

/// Which path to delete.
#[derive(clap::Args, Debug)]
pub(crate) struct Delete {
    /// The path below /v1/
    path: String,
    /// Query parameters, `name=value`
    parameters: Vec<String>,
}

/// Which wrapping token to open.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  keyward unwrap -              (the wrapping token on standard input)\n  KEYWARD_TOKEN=… keyward unwrap (the wrapping token as one's own)"
)]
pub(crate) struct Unwrap {
    /// The wrapping token, or `-` for standard input; without it, our own token is the wrapping token
    token: Option<String>,
}

/// `read`.
///
/// # Errors
/// Refused, or nothing there.
pub(crate) fn read(session: &mut Session, arguments: &Read) -> Result<(), CliError> {
    let path = trim(&arguments.path);
    let parameters = query(&arguments.parameters)?;
    let answer = session
        .client()?
        .get(path, &borrowed(&parameters))?
        .ok_or_else(|| CliError::Absent(format!("no value found at `{path}`"), None))?;
    show(session, &answer.body)
}

/// `write`.
///
/// # Errors
/// Refused, or no data and no `-force`.
pub(crate) fn write(session: &mut Session, arguments: &Write) -> Result<(), CliError> {
    if arguments.data.is_empty() && !arguments.force {
        return Err(CliError::Usage(
            "there is no data to write: give `name=value`, or -force to write without any".into(),
        ));
    }
    let path = trim(&arguments.path);
    let given = input::members(&arguments.data)?;
    let answer = session.client()?.put(path, &Value::Object(given.members))?;
    if answer.body.is_null() {
        return session.output.say(&format!("wrote to {path}"));
    }
    show(session, &answer.body)
}

/// `list`.
///
/// # Errors
/// Refused, or nothing there.
pub(crate) fn list(session: &mut Session, arguments: &List) -> Result<(), CliError> {
    let path = trim(&arguments.path);
    let client = session.client()?;
    keys(session, &client, path)
}

/// Lists `path` and writes the keys; for programs, as an array.
///
/// # Errors
/// Refused, or nothing there.
pub(crate) fn keys(session: &mut Session, client: &crate::client::Client, path: &str) -> Result<(), CliError> {
    let answer = client.send(Method::List, path, &[], None)?;
    let body = answer.map_or(Value::Null, |answer| answer.body);
    if body["wrap_info"].is_object() {
        return session.output.envelope(&body, &Value::Null);
    }
    session.output.warnings(&body);
    let Some(keys) = body["data"]["keys"].as_array().filter(|keys| !keys.is_empty()) else {
        return Err(CliError::Absent(format!("no value found at `{path}/`"), None));
    };
    let rows: Vec<_> = keys.iter().map(|key| vec![crate::output::cell(key)]).collect();
    session.output.rows(&body["data"]["keys"], &["Keys"], &rows)
}

/// `delete`.
///
/// # Errors
/// Refused.
pub(crate) fn delete(session: &mut Session, arguments: &Delete) -> Result<(), CliError> {
    let path = trim(&arguments.path);
    let parameters = query(&arguments.parameters)?;
    let answer = session.client()?.send(Method::Delete, path, &borrowed(&parameters), None)?;
    match answer {
        Some(answer) if !answer.body.is_null() => show(session, &answer.body),
        _ => session.output.say(&format!("deleted {path} (if it was there)")),
    }
}

/// `unwrap`.
///
/// # Errors
/// Refused: a wrapping token opens once.
pub(crate) fn unwrap(session: &mut Session, arguments: &Unwrap) -> Result<(), CliError> {
    let wrapping = match arguments.token.as_deref() {
        None => None,
        Some("-") => Some(Secret::new(input::secret("wrapping token")?.to_string())),
        Some(token) => Some(Secret::new(token.to_owned())),
    };
    let own = session.env.token();
    // Without a token of our own, the wrapping token is the caller.
    let (caller, body) = match (own, wrapping) {
        (Some(own), Some(wrapping)) => {
            (Some(own), Value::Object(Map::from_iter([("token".to_owned(), wrapping.expose().as_str().into())])))
        }
        (own, wrapping) => (wrapping.or(own), Value::Object(Map::new())),
    };
    let answer = session.client_with(caller)?.put("sys/wrapping/unwrap", &body)?;
    if answer.body.is_null() {
        return session.output.say("the wrapped answer was empty");
    }
    show(session, &answer.body)
}

/// Writes an answer: its data, token or wrapping token; bare answers (those of `sys/health`, say) as they are.
pub(crate) fn show(session: &mut Session, body: &Value) -> Result<(), CliError> {
    if body.get("request_id").is_some() {
        session.output.envelope(body, &body["data"])
    } else {
        session.output.document(body)
    }
}

fn query(parameters: &[String]) -> Result<Vec<(String, String)>, CliError> {
    let given = input::members(parameters)?;
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(given.members.into_iter().map(|(name, value)| (name, text(value))).collect())
}

fn borrowed(parameters: &[(String, String)]) -> Vec<(&str, &str)> {
    parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
