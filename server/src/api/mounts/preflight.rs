//! What clients ask before they use a mount: `sys/internal/ui/mounts[/<path>]`.

use keyward_policy::Operation;
use serde_json::{Map, Value, json};

use crate::api::{Context, capabilities};
use crate::http::answer::Answer;
use crate::http::fields::Field;
use crate::mounts::Mount;
use crate::refusal::Refusal;

const PATH: Field = Field::captured("path");

/// Answers below `sys/internal/`.
///
/// # Errors
/// No token where one is needed, nothing that the token may see, or no such path.
pub(super) fn act(context: &Context<'_>, below: &str) -> Result<Answer, Refusal> {
    let read = context.request.operation == Operation::Read;
    match below {
        "ui/mounts" if read => all(context),
        "ui/resultant-acl" if read => capabilities::resultant_acl(context),
        "ui/resultant-acl" => Err(Refusal::UnsupportedOperation),
        "ui/mounts" => Err(Refusal::UnsupportedOperationOpen),
        _ => match below.strip_prefix("ui/mounts/") {
            None => Err(Refusal::UnsupportedPath),
            Some("") => Err(Refusal::AbsentBecause("unsupported path".into())),
            Some(path) if read => one(context, path),
            Some(_) => Err(Refusal::UnsupportedOperationOpen),
        },
    }
}

/// The mount that a path belongs to. Never 404: clients would take that for KV v1.
fn one(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    let session = context.session()?;
    let path = if path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
    let refused = || {
        Refusal::Forbidden(
            format!(
                "preflight capability check returned 403, please ensure client's policies grant access to path \"{path}\""
            )
            .into(),
        )
    };
    let tables = context.worker.tables()?;
    let (mount, _) = tables.mounts.resolve(&path).ok_or_else(refused)?;
    if !context.worker.acl(session)?.1.has_access_under(&mount.path) {
        return Err(refused());
    }
    let mut info = mount.info();
    info["path"] = json!(mount.path.strip_prefix("auth/").unwrap_or(&mount.path));
    Ok(context.with_parameter_warnings(Answer::data(&info), &[PATH]))
}

/// All mounts that a token can reach, and those that are shown to everybody.
fn all(context: &Context<'_>) -> Result<Answer, Refusal> {
    if context.request.token().is_some() && context.permit.session().is_none() {
        return Err(Refusal::Unauthenticated);
    }
    let tables = context.worker.tables()?;
    let acl = context.permit.session().map(|session| context.worker.acl(session)).transpose()?;
    let (mut auth, mut secret) = (Map::new(), Map::new());
    for mount in tables.mounts.iter() {
        let open = mount.listing_visibility == "unauth";
        let info = match &acl {
            Some(acl) if open || acl.1.has_access_under(&mount.path) => mount.info(),
            None if open => brief(mount),
            _ => continue,
        };
        match mount.path.strip_prefix("auth/") {
            Some(path) => auth.insert(path.to_owned(), info),
            None => secret.insert(mount.path.clone(), info),
        };
    }
    Ok(context.with_parameter_warnings(Answer::data(&json!({ "auth": auth, "secret": secret })), &[]))
}

fn brief(mount: &Mount) -> Value {
    json!({ "type": mount.type_name(), "description": mount.description, "options": mount.options })
}
