//! `sys/remount`: a mount moves with all its data, in one command, since rows know its id and not its path.

use keyward_model::Id;
use keyward_policy::Operation;
use serde_json::json;

use super::{PROTECTED, check_place, check_reachable, current, put};
use crate::api::Context;
use crate::http::answer::Answer;
use crate::http::fields::Field;
use crate::http::gotext::{is_printable, quote};
use crate::http::path;
use crate::refusal::Refusal;

/// What `sys/remount` declares.
const FIELDS: [Field; 2] = [Field::text("from"), Field::text("to")];
/// What `sys/remount/status/<id>` declares.
const ID: Field = Field::captured("migration_id");
/// Tokens stay where they are, and nothing comes to stand beside them under a like name.
const TOKENS: &str = "auth/token";

/// Answers `sys/remount` and `sys/remount/status/<id>`.
///
/// # Errors
/// No such mount, verb or migration; a place that is taken or protected.
pub(super) async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    if let Some(id) = context.rest().strip_prefix("remount/status/").filter(|id| !id.is_empty()) {
        if context.request.operation != Operation::Read {
            return Err(Refusal::UnsupportedOperation);
        }
        let tables = context.worker.tables()?;
        let moved = Id::from_uuid(id).and_then(|id| tables.mounts.moved(id)).ok_or(Refusal::Absent)?;
        let answer = Answer::data(&json!({
            "migration_id": id,
            "migration_info": { "source_mount": moved.from, "target_mount": moved.to, "status": "success" },
        }));
        return Ok(context.with_parameter_warnings(answer, &[ID]));
    }
    // Exactly this path: it is the one that a policy must grant `sudo` on.
    if context.rest() != "remount" {
        return Err(Refusal::UnsupportedPath);
    }
    if context.request.operation != Operation::Update {
        return Err(Refusal::UnsupportedOperation);
    }
    context.params.check(&FIELDS)?;
    let (from, to) = places(context)?;
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
                check_reachable(&to, mount.kind)?;
                mount.move_to(&to, id);
                put(draft, &mount)
            },
            |()| Ok(context.with_parameter_warnings(moved(id), &FIELDS)),
        )
        .await
}

/// From where to where, each with a trailing slash.
fn places(context: &Context<'_>) -> Result<(String, String), Refusal> {
    let text = |name: &str| context.params.string(name).map(|text| text.unwrap_or_default().into_owned());
    let (from, to) = (text("from")?, text("to")?);
    if from.is_empty() || to.is_empty() {
        return Err(Refusal::malformed("both 'from' and 'to' path must be specified as a string"));
    }
    for (name, text) in [("from", &from), ("to", &to)] {
        if text.starts_with(' ') || text.ends_with(' ') {
            return Err(Refusal::malformed(format!("'{name}' path cannot contain trailing whitespace")));
        }
    }
    let place = |text: &str| {
        let ended = if text.ends_with('/') { text.to_owned() } else { format!("{text}/") };
        ended.strip_prefix('/').map_or(ended.clone(), str::to_owned)
    };
    let (from, to) = (place(&from), place(&to));
    refuse_unclean(&to)?;
    if from.starts_with("auth/") {
        if !to.starts_with("auth/") {
            return Err(Refusal::malformed(format!("cannot remount auth mount to non-auth mount {}", quote(&to))));
        }
        if from.starts_with(TOKENS) {
            return Err(Refusal::malformed(format!("cannot remount {}", quote(&from))));
        }
        if to.starts_with(TOKENS) {
            return Err(Refusal::malformed(format!("cannot remount to destination {}", quote(&to))));
        }
        return Ok((from, to));
    }
    for protected in PROTECTED {
        if from.starts_with(protected) {
            return Err(Refusal::malformed(format!("cannot remount {}", quote(&from))));
        }
        if to.starts_with(protected) {
            return Err(Refusal::malformed(format!("cannot remount to destination {to}")));
        }
    }
    Ok((from, to))
}

/// A place must be written the shortest way, and be readable.
fn refuse_unclean(to: &str) -> Result<(), Refusal> {
    if to.is_empty() {
        return Err(Refusal::malformed("invalid destination mount path \"/\""));
    }
    let clean = format!("{}/", path::clean(to));
    if clean != to {
        return Err(Refusal::malformed(format!(
            "invalid destination mount: path '{to}' does not match cleaned path '{clean}'"
        )));
    }
    if !to.chars().all(is_printable) {
        return Err(Refusal::malformed("invalid destination mount: path cannot contain non-printable characters"));
    }
    Ok(())
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
