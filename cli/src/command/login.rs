//! `login`: a token for the commands that follow, kept in `~/.keyward-token` for its owner alone.

use keyward_model::Secret;
use serde_json::{Map, Value, json};

use super::{Session, trim};
use crate::error::CliError;
use crate::input;
use crate::output::Format;

/// How to log in.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  keyward login                                    (asks for a token)\n  keyward login -method=userpass username=ann      (asks for the password)\n  keyward login -method=approle role_id=… secret_id=@file"
)]
pub(crate) struct Arguments {
    /// `token`, `userpass`, `approle`, or another method
    #[arg(long, value_name = "NAME", default_value = "token")]
    method: String,
    /// Where the method is mounted; without it, at its own name
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Do not keep the token
    #[arg(long)]
    no_store: bool,
    /// Do not show the token
    #[arg(long)]
    no_print: bool,
    /// Show the token and nothing else, and do not keep it
    #[arg(long)]
    token_only: bool,
    /// The token (or `-`), or what the method wants as `name=value`, `name=-`, `name=@file`
    words: Vec<String>,
}

/// Logs in.
///
/// # Errors
/// Refused, or the token cannot be kept.
pub(crate) fn run(session: &mut Session, arguments: &Arguments) -> Result<(), CliError> {
    let answer = match arguments.method.as_str() {
        "token" => by_token(session, &arguments.words)?,
        method => by_method(session, method, arguments)?,
    };
    if answer["wrap_info"].is_object() {
        return session.output.envelope(&answer, &Value::Null);
    }
    let Some(token) = answer["auth"]["client_token"].as_str().map(str::to_owned).map(Secret::new) else {
        return Err(CliError::Unexpected("the answer holds no token".into()));
    };
    if arguments.token_only {
        return session.output.text(&format!("{}\n", token.expose()));
    }
    if !arguments.no_store {
        let path = session.env.store_token(token.expose())?;
        session.output.hint(&format!("logged in; the token is kept in {}", path.display()));
        if let Some(found) = session.env.find("TOKEN") {
            session.output.hint(&format!("warning: {} is set and goes before the kept token; unset it", found.origin));
        }
    }
    if arguments.no_print {
        return Ok(());
    }
    session.output.envelope(&answer, &Value::Null)
}

/// Tries the token, and puts what the server knows about it into the shape of a login.
fn by_token(session: &mut Session, words: &[String]) -> Result<Value, CliError> {
    let token = match words {
        [] => input::secret("token")?.to_string(),
        [dash] if dash == "-" => input::secret("token")?.to_string(),
        [pair] if pair.starts_with("token=") => member(&input::members(words)?.members, "token")?,
        [token] if !token.contains('=') => {
            session.exposed(&["the token".to_owned()], "leave it out and it is asked for");
            token.trim().to_owned()
        }
        _ => return Err(CliError::Usage("give the token alone, or nothing and it is asked for".into())),
    };
    let client = session.client_with(Some(Secret::new(token.clone())))?;
    let body = client.get("auth/token/lookup-self", &[])?.map_or(Value::Null, |answer| answer.body);
    let data = &body["data"];
    if data["policies"].is_null() {
        return Err(CliError::Unexpected("the server knows nothing about the token".into()));
    }
    let mut answer = body.clone();
    answer["data"] = Value::Null;
    answer["auth"] = json!({
        "client_token": token, "accessor": data["accessor"], "policies": data["policies"],
        "token_policies": data["policies"], "metadata": data["meta"], "lease_duration": data["ttl"],
        "renewable": data["renewable"], "entity_id": data["entity_id"], "token_type": data["type"],
    });
    Ok(answer)
}

fn by_method(session: &mut Session, method: &str, arguments: &Arguments) -> Result<Value, CliError> {
    let mut members = input::members(&arguments.words)?.members;
    let mount = trim(arguments.path.as_deref().unwrap_or(method)).trim_start_matches("auth/").to_owned();
    let mut path = format!("auth/{mount}/login");
    if matches!(method, "userpass" | "ldap" | "radius") {
        let username = member(&members, "username")
            .map_err(|_| CliError::Usage(format!("-method={method} needs `username=…`")))?;
        members.remove("username");
        path = format!("{path}/{username}");
        if !members.contains_key("password") {
            members.insert("password".into(), input::secret("password")?.as_str().into());
        }
    }
    let client = session.client_with(None)?;
    let answer = client.put(&path, &Value::Object(members))?.body;
    if session.output.format() == Format::Table {
        session.output.warnings(&answer);
    }
    Ok(answer)
}

fn member(members: &Map<String, Value>, name: &str) -> Result<String, CliError> {
    members
        .get(name)
        .and_then(Value::as_str)
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .ok_or_else(|| CliError::Usage(format!("`{name}` is missing")))
}
