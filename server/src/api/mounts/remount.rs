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
        let tables = context.worker.tables()?;
        let moved = Id::from_uuid(id).and_then(|id| tables.mounts.moved(id)).ok_or(Refusal::Absent)?;
        return Ok(Answer::data(&json!({
            "migration_id": id,
            "migration_info": { "source_mount": moved.from, "target_mount": moved.to, "status": "success" },
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
    context
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
                mount.move_to(&to, id);
                put(draft, &mount)
            },
            |()| Ok(moved(id)),
        )
        .await
}

fn moved(id: Id) -> Answer {
    let mut answer = Answer::injected(&json!({ "migration_id": id.to_uuid() }));
    answer.warn(
        "Mount move has been queued. Progress will be reported in OpenBao's server log, tagged with the returned migration_id"
            .into(),
    );
    answer
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::mounts::MOVES_MAX;
    use crate::testing::{ask, on_a_node};

    #[test]
    fn of_the_moves_of_a_mount_the_newest_are_known() {
        on_a_node(async |worker, _| {
            let mut ids = Vec::new();
            let places: Vec<String> = (0..=MOVES_MAX).map(|number| format!("place-{number}")).collect();
            let mut from = "secret".to_owned();
            for to in &places {
                let body = json!({ "from": from, "to": to }).to_string();
                let (status, told) = ask(worker, "root", "POST", "sys/remount", &body).await;
                assert_eq!(status, 200, "{told}");
                ids.push(told["data"]["migration_id"].as_str().unwrap().to_owned());
                from.clone_from(to);
            }
            let known = async |id: &str| ask(worker, "root", "GET", &format!("sys/remount/status/{id}"), "").await;
            assert_eq!(known(&ids[0]).await.0, 404);
            let (status, told) = known(&ids[1]).await;
            let moved = json!({ "source_mount": "place-0/", "target_mount": "place-1/", "status": "success" });
            assert_eq!((status, &told["data"]["migration_info"]), (200, &moved), "{told}");
            assert_eq!(known(&ids[MOVES_MAX]).await.0, 200);
            assert_eq!(known("no-id").await.0, 404);
        });
    }
}
