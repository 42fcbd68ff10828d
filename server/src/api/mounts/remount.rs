//! `sys/remount`: a mount moves with all its data, in one command, since rows know its id and not its path.

use keyward_model::Id;
use keyward_policy::Operation;
use serde_json::json;

use super::{check_place, current, put};
use crate::api::Context;
use crate::http::answer::Answer;
use crate::refusal::Refusal;

/// Answers `sys/remount` and `sys/remount/status/<id>`.
///
/// # Errors
/// No such mount, verb or migration; a place that is taken or protected.
pub(super) async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    if let Some(id) = context.rest().strip_prefix("remount/status/") {
        if context.request.operation != Operation::Read {
            return Err(Refusal::UnsupportedOperation);
        }
        let moved = Id::from_uuid(id).and_then(|id| context.worker.app.moves.get(id)).ok_or(Refusal::Absent)?;
        return Ok(Answer::data(&json!({
            "migration_id": id,
            "migration_info": { "source_mount": moved.0, "target_mount": moved.1, "status": "success" },
        })));
    }
    // Exactly this path: it is the one that a policy must grant `sudo` on.
    if context.rest() != "remount" {
        return Err(Refusal::UnsupportedPath);
    }
    if context.request.operation != Operation::Update {
        return Err(Refusal::UnsupportedOperation);
    }
    let text = |name: &str| -> Result<String, Refusal> {
        let text = context.params.string(name)?.unwrap_or_default();
        let text = text.trim_matches('/');
        if text.is_empty() {
            return Err(Refusal::malformed("both 'from' and 'to' path must be specified as a string"));
        }
        Ok(format!("{text}/"))
    };
    let (from, to) = (text("from")?, text("to")?);
    for protected in ["sys/", "cubbyhole/", "identity/", "auth/token/"] {
        if from == protected {
            return Err(Refusal::malformed(format!("cannot remount \"{from}\"")));
        }
    }
    if ["sys/", "cubbyhole/", "identity/"].iter().any(|p| to.starts_with(p))
        || from.starts_with("auth/") != to.starts_with("auth/")
    {
        return Err(Refusal::malformed(format!("cannot remount to destination {to}")));
    }
    let id = Id::random(context.worker.app.barrier.entropy());
    let answer = context
        .write_answer(
            |draft| {
                let mounts = current(draft)?;
                let mut mount = mounts
                    .iter()
                    .find(|mount| mount.path == from)
                    .cloned()
                    .ok_or_else(|| Refusal::malformed(format!("no matching mount at \"{from}\"")))?;
                mount.serving()?;
                let taken = mounts.iter().find(|m| m.path.starts_with(&to) || to.starts_with(&m.path));
                if let Some(taken) = taken {
                    return Err(Refusal::malformed(format!("path already in use at \"{}\"", taken.path)));
                }
                check_place(to.starts_with("auth/"), &to, mount.type_name())?;
                mount.path.clone_from(&to);
                put(draft, &mount)
            },
            |()| Ok(moved(id)),
        )
        .await?;
    context.worker.app.moves.note(id, from, to);
    Ok(answer)
}

fn moved(id: Id) -> Answer {
    let mut answer = Answer::injected(&json!({ "migration_id": id.to_uuid() }));
    answer.warn(
        "Mount move has been queued. Progress will be reported in OpenBao's server log, tagged with the returned migration_id"
            .into(),
    );
    answer
}
