//! What a token may do on a path: `sys/capabilities`, `sys/capabilities-self`, `sys/capabilities-accessor`, and all of its
//! rules at once.

use std::sync::Arc;

use keyward_policy::Operation;
use serde_json::{Map, Value, json};

use super::{Context, token};
use crate::authn::token::Session;
use crate::http::answer::Answer;
use crate::http::fields::Field;
use crate::refusal::Refusal;

const PATH: Field = Field::texts("path");
const PATHS: Field = Field::texts("paths");

/// Answers to the three paths.
///
/// # Errors
/// Another verb, no path to judge, or no such token.
pub fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    if context.request.operation != Operation::Update {
        return Err(Refusal::UnsupportedOperation);
    }
    match context.rest() {
        "capabilities" => report(context, &[PATH, PATHS, token::TOKEN], |_| given(context)),
        "capabilities-self" => report(context, &[PATH, PATHS, token::TOKEN], |own| Ok(Arc::clone(own))),
        "capabilities-accessor" => report(context, &[token::ACCESSOR, PATH, PATHS], |_| behind(context)),
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

fn report(
    context: &Context<'_>,
    fields: &[Field],
    whose: impl FnOnce(&Arc<Session>) -> Result<Arc<Session>, Refusal>,
) -> Result<Answer, Refusal> {
    let session = whose(context.session()?)?;
    let paths = paths(context)?;
    let compiled = context.worker.acl(&session)?;
    let mut data: Map<String, Value> =
        paths.iter().map(|path| (path.clone(), json!(compiled.1.capabilities(path)))).collect();
    if let [only] = paths.as_slice() {
        data.insert("capabilities".into(), json!(compiled.1.capabilities(only)));
    }
    Ok(context.with_parameter_warnings(Answer::injected(&Value::Object(data)), fields))
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

/// The token in the parameters.
fn given(context: &Context<'_>) -> Result<Arc<Session>, Refusal> {
    let given = token::token_parameter(context)?.ok_or(Refusal::MalformedList("no token found".into()))?;
    context.worker.session(given.expose())?.ok_or(Refusal::MalformedList("invalid token".into()))
}

/// The token behind the accessor in the parameters.
fn behind(context: &Context<'_>) -> Result<Arc<Session>, Refusal> {
    if context.params.string("accessor")?.is_none_or(|accessor| accessor.is_empty()) {
        return Err(Refusal::malformed("missing accessor"));
    }
    token::by_accessor(context)?.ok_or(Refusal::MalformedList("invalid accessor".into()))
}
