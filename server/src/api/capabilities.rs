//! What a token may do on a path: `sys/capabilities`, `sys/capabilities-self`, `sys/capabilities-accessor`, and all of its
//! rules at once.

use std::sync::Arc;

use keyward_model::Secret;
use keyward_policy::Operation;
use serde_json::{Map, Value, json};

use super::{Context, token};
use crate::authn::token::Session;
use crate::http::answer::Answer;
use crate::http::fields::{Field, Input};
use crate::http::json::Kind;
use crate::refusal::Refusal;

const PATH: Field = Field::texts("path");
const PATHS: Field = Field::texts("paths");

/// Answers to the three paths.
///
/// # Errors
/// Another verb, no path to judge, or no such token.
pub fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    match context.rest() {
        "capabilities" | "capabilities-self" | "capabilities-accessor"
            if context.request.operation != Operation::Update =>
        {
            Err(Refusal::UnsupportedOperation)
        }
        "capabilities" => report(context, &[PATH, PATHS, token::TOKEN], || given(context)),
        "capabilities-self" => report(context, &[PATH, PATHS, token::TOKEN], || own(context)),
        "capabilities-accessor" => report(context, &[token::ACCESSOR, PATH, PATHS], || behind(context)),
        _ => Err(Refusal::UnsupportedPath),
    }
}

/// The caller's merged rules, as `sys/internal/ui/resultant-acl` shows them.
///
/// # Errors
/// Another verb, or the policies cannot be read.
pub fn resultant_acl(context: &Context<'_>) -> Result<Answer, Refusal> {
    if context.request.operation != Operation::Read {
        return Err(Refusal::UnsupportedOperation);
    }
    let compiled = context.worker.acl(context.session()?)?;
    let answer = Answer::data(&Value::Object(compiled.1.resultant()));
    Ok(context.with_parameter_warnings(answer, &[]))
}

/// Whose rights are meant, looked for in the order in which the API refuses.
enum Whose {
    /// The bearer of this token. Whether there is one is asked when the first path is judged.
    Bearer(Secret<String>),
    /// A token that is known to live.
    Known(Arc<Session>),
    /// A token that has ended with this request, its last use.
    Ended,
}

fn report(
    context: &Context<'_>,
    fields: &[Field],
    whose: impl FnOnce() -> Result<Whose, Refusal>,
) -> Result<Answer, Refusal> {
    context.params.check(fields)?;
    let whose = whose()?;
    let paths = paths(context)?;
    if paths.first().is_some_and(String::is_empty) {
        return Err(missing_path());
    }
    let session = match whose {
        Whose::Known(session) => Some(session),
        Whose::Bearer(token) => context.worker.session(token.expose())?,
        Whose::Ended => None,
    };
    let session = session.ok_or(Refusal::MalformedList("invalid token".into()))?;
    if paths.iter().any(String::is_empty) {
        return Err(missing_path());
    }
    let compiled = context.worker.acl(&session)?;
    let mut data: Map<String, Value> =
        paths.iter().map(|path| (path.clone(), json!(compiled.1.capabilities(path)))).collect();
    if let [only] = paths.as_slice() {
        data.insert("capabilities".into(), json!(compiled.1.capabilities(only)));
    }
    Ok(context.with_parameter_warnings(Answer::injected(&Value::Object(data)), fields))
}

fn missing_path() -> Refusal {
    Refusal::MalformedList("missing path".into())
}

/// The paths to judge. `paths` wins over `path`.
fn paths(context: &Context<'_>) -> Result<Vec<String>, Refusal> {
    let (paths, path) = (context.params.strings("paths")?, context.params.strings("path")?);
    let given = paths.filter(|paths| !paths.is_empty()).or(path).unwrap_or_default();
    if given.is_empty() {
        return Err(Refusal::malformed("paths must be supplied"));
    }
    Ok(given)
}

/// The token in the parameters: a text, and nothing that could be read as one.
fn given(context: &Context<'_>) -> Result<Whose, Refusal> {
    let is_text = match context.params.get("token") {
        Some(Input::Json(raw)) => raw.kind() == Kind::String,
        Some(Input::Query(_)) => true,
        None => false,
    };
    let given = if is_text { token::token_parameter(context)? } else { None };
    given.map(Whose::Bearer).ok_or(Refusal::Unnamed("no token found"))
}

/// The caller's token, which may have ended by asking.
fn own(context: &Context<'_>) -> Result<Whose, Refusal> {
    let session = context.session()?;
    Ok(context.worker.session_by_key(&session.key)?.map_or(Whose::Ended, Whose::Known))
}

/// The token behind the accessor in the parameters.
fn behind(context: &Context<'_>) -> Result<Whose, Refusal> {
    if context.params.string("accessor")?.is_none_or(|accessor| accessor.is_empty()) {
        return Err(Refusal::malformed("missing accessor"));
    }
    token::by_accessor(context)?.map(Whose::Known).ok_or(Refusal::MalformedList("invalid accessor".into()))
}
