//! `<mount>/aliases/<path>`: where a secret's aliases point, beside the KV v2 families. Ours; Vault has no such path.

use keyward_policy::Operation;
use serde_json::{Map, Value, json};

use super::{current, find, put_record, secrets};
use crate::api::Context;
use crate::engine::kv::{Expected, LifecycleError};
use crate::http::answer::Answer;
use crate::http::fields::Input;
use crate::http::json::Kind;
use crate::refusal::Refusal;

/// Reads the aliases of a secret, or points one to a version.
///
/// # Errors
/// No such secret, version or verb; the alias points elsewhere than expected.
pub(super) async fn act(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    match context.request.operation {
        Operation::Read => show(context, path),
        Operation::Create | Operation::Update => set(context, path).await,
        _ => Err(Refusal::UnsupportedOperation),
    }
}

fn show(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    let keys = context.keys()?;
    let found = find(context, &keys, path)?.ok_or(Refusal::Absent)?;
    let aliases: Map<String, Value> =
        found.record.aliases.iter().map(|(name, pointer)| (name.to_owned(), json!(pointer.version))).collect();
    Ok(Answer::data(&json!({ "aliases": aliases, "secret_id": found.record.id.to_uuid() })))
}

async fn set(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    let params = context.params;
    let name = params.string("alias")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Refusal::malformed("`alias` must name the alias to move"))?;
    let number = params.int("version")?.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
    let number = number.ok_or_else(|| Refusal::malformed("`version` must be the number of a version"))?;
    let expected = match params.get("expected_previous_version") {
        None => {
            return Err(Refusal::malformed(
                "`expected_previous_version` must be given: the version the alias points to now, or null if it does not exist",
            ));
        }
        Some(Input::Json(raw)) if raw.kind() == Kind::Null => None,
        Some(_) => params.int("expected_previous_version")?.and_then(|number| u64::try_from(number).ok()),
    };
    context.note(|facts| {
        facts.alias = Some(name.to_string());
        facts.version = Some(number);
    });
    let tree = secrets(context.mount()?);
    context
        .write_answer(
            |draft| {
                let (key, mut record) = current(draft, tree, path)?.ok_or(Refusal::Absent)?;
                let now = draft.now();
                let before = record.clone();
                record.set_alias(&name, number, Expected { version: expected, revision: None }, now)?;
                if record == before { Ok(()) } else { put_record(draft, &key, &record) }
            },
            |()| Ok(Answer::no_content()),
        )
        .await
}

impl From<LifecycleError> for Refusal {
    fn from(error: LifecycleError) -> Self {
        match error {
            LifecycleError::VersionNotFound(_) => Self::AbsentBecause(error.to_string().into()),
            other => Self::malformed(other.to_string()),
        }
    }
}
