//! What this face tells: values, what is known about a secret, lists.

use keyward_model::{Id, Timestamp};
use keyward_policy::{Ask, Operation};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::route::{Pick, View};
use super::uri;
use crate::api::{Context, kv2};
use crate::engine::kv::{Resolution, SecretRecord, Selector, Status, Version};
use crate::http::answer::{Answer, Form};
use crate::http::json::{Raw, write_string};
use crate::mounts::Mount;
use crate::refusal::{Problem, Refusal};

/// The value of a version, or of one of its keys.
///
/// # Errors
/// No such secret, version or key; the version is deleted, disabled or destroyed.
pub(super) fn value(context: &Context<'_>, call: &Call, pick: &Pick, key: Option<&str>) -> Result<Answer, Refusal> {
    let keys = context.keys()?;
    let found = find(context, call)?;
    let record = &found.record;
    let version = resolve(context, record, pick)?;
    let stored = kv2::value_of(context, &keys, &found, version)?;
    let stored = std::str::from_utf8(stored.expose()).map_err(|_| Refusal::internal("a value is not UTF-8"))?;
    let (member, shown) = match key {
        None => ("data", stored),
        Some(key) => {
            let entry = Raw::trusted(stored).get(key).ok_or(Refusal::Problem(Problem::SECRET_KEY_NOT_FOUND))?;
            ("value", entry.text())
        }
    };
    let mut out = Vec::with_capacity(shown.len() + 256);
    out.extend_from_slice(b"{\"secretId\":\"");
    record.id.write_uuid(&mut out);
    out.extend_from_slice(b"\",\"uri\":");
    write_string(&mut out, &uri::of(&call.place.name, &call.place.path).unwrap_or_default());
    let (number, status, created) = (version.number, version.status.name(), moment(version.created));
    out.extend_from_slice(
        format!(",\"version\":{number},\"status\":\"{status}\",\"created\":\"{created}\",\"{member}\":").as_bytes(),
    );
    out.extend_from_slice(shown.as_bytes());
    out.extend_from_slice(b"}\n");
    Ok(Answer { status: 200, form: Form::Bare(out) })
}

/// A secret, its versions or its aliases, without any value.
///
/// # Errors
/// No such secret.
pub(super) fn show(context: &Context<'_>, call: &Call, view: View) -> Result<Answer, Refusal> {
    let record = find(context, call)?.record;
    let now = context.worker.app.barrier.judged_at();
    let id = record.id.to_uuid();
    let body = match view {
        View::Secret => json!({
            "secretId": id,
            "uri": uri::of(&call.place.name, &call.place.path),
            "ownerTeam": record.custom_metadata.get("owner_team"),
            "rotationStrategy": record.custom_metadata.get("rotation_strategy"),
            "classification": record.custom_metadata.get("classification").and_then(|level| level.parse::<u8>().ok()),
            "customMetadata": record.custom_metadata,
            "created": moment(record.created),
            "updated": moment(record.updated),
            "currentVersion": record.aliases.current.map(|pointer| pointer.version),
            "newestVersion": record.newest,
        }),
        View::Versions => {
            let versions: Vec<Value> = record.versions.iter().map(|version| described(version, now)).collect();
            json!({ "secretId": id, "versions": versions })
        }
        View::Aliases => {
            let aliases: Map<String, Value> = record
                .aliases
                .iter()
                .map(|(name, at)| (name.to_owned(), json!({ "version": at.version, "revision": at.revision })))
                .collect();
            json!({ "secretId": id, "aliases": aliases })
        }
    };
    Ok(Answer::bare(200, &body))
}

/// The secrets and folders in a folder, by name. What has no URI is left out; ids are shown to those who may read the
/// metadata.
///
/// # Errors
/// A row cannot be read.
pub(super) fn list(
    context: &Context<'_>,
    call: &Call,
    mount: &Mount,
    after: &str,
    limit: usize,
) -> Result<Answer, Refusal> {
    let keys = context.keys()?;
    let folder = &call.place.path;
    let compiled = context.worker.acl(context.session()?)?;
    let acl = &compiled.1;
    let mut names = kv2::secrets(mount).list(&keys, context.reader(), folder)?;
    if let Some(filter) = context.permit.keys_filter() {
        names.retain(|name| acl.shows(filter, &call.asked.path, name));
    }
    names.retain(|name| name.as_str() > after);
    let cap = context.permit.pagination_limit().and_then(|cap| usize::try_from(cap).ok()).filter(|cap| *cap > 0);
    let limit = cap.map_or(limit, |cap| cap.min(limit));
    let next = names.get(limit.saturating_sub(1)).filter(|_| names.len() > limit).cloned();
    names.truncate(limit);
    let (mut secrets, mut prefixes) = (Vec::new(), Vec::new());
    for name in names {
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let Some(uri) = uri::of(&call.place.name, &path) else { continue };
        if path.ends_with('/') {
            prefixes.push(uri);
            continue;
        }
        let metadata = format!("{}/metadata/{path}", call.place.name);
        let ask = Ask { operation: Operation::Read, path: &metadata, parameters: None, wrap_ttl: None };
        let known = if acl.decide(&ask).allowed { kv2::find(context, &keys, &path)? } else { None };
        secrets.push(match known {
            Some(found) => json!({ "uri": uri, "secretId": found.record.id.to_uuid() }),
            None => json!({ "uri": uri }),
        });
    }
    Ok(Answer::bare(200, &json!({ "secrets": secrets, "prefixes": prefixes, "next": next })))
}

/// A moment on this face: UTC with milliseconds.
pub(super) fn moment(at: Timestamp) -> String {
    let millis = at.0.rem_euclid(1_000_000_000) / 1_000_000;
    let second = Timestamp(at.seconds().saturating_mul(1_000_000_000)).rfc3339();
    format!("{}.{millis:03}Z", second.trim_end_matches('Z'))
}

/// The record of the call's secret.
fn find(context: &Context<'_>, call: &Call) -> Result<kv2::Found, Refusal> {
    let keys = context.keys()?;
    let found = kv2::find(context, &keys, &call.place.path)?;
    let expected = |id: Id| call.place.secret.is_none_or(|wanted| wanted == id);
    found.filter(|found| expected(found.record.id)).ok_or(Refusal::Problem(Problem::SECRET_NOT_FOUND))
}

/// The version that is meant, if its value may be read. A pinned read never falls forward or back.
fn resolve<'a>(context: &Context<'_>, record: &'a SecretRecord, pick: &Pick) -> Result<&'a Version, Refusal> {
    let selector = match pick {
        Pick::Current => Selector::Current,
        Pick::Version(number) => Selector::Version(*number),
        Pick::Alias(name) => Selector::Alias(name),
    };
    let now = context.worker.app.barrier.judged_at();
    let note = |version: &Version| {
        context.note(|facts| {
            facts.version = Some(version.number);
            facts.version_status = Some(version.status_at(now).name());
        });
    };
    let problem = match record.resolve(selector, now) {
        Resolution::Live(version) => {
            note(version);
            let named = match pick {
                Pick::Current => false,
                Pick::Version(_) => true,
                Pick::Alias(name) => !matches!(name.as_str(), "current" | "previous"),
            };
            if named || version.status != Status::Pending {
                return Ok(version);
            }
            Problem::SECRET_VERSION_NOT_FOUND
        }
        Resolution::Deleted(version) => {
            note(version);
            Problem::SECRET_VERSION_DELETED
        }
        Resolution::Destroyed(version) => {
            note(version);
            Problem::SECRET_VERSION_DESTROYED
        }
        Resolution::Disabled => Problem::SECRET_VERSION_DISABLED,
        Resolution::Absent => Problem::SECRET_VERSION_NOT_FOUND,
    };
    Err(Refusal::Problem(problem))
}

fn described(version: &Version, now: Timestamp) -> Value {
    let mut out = json!({
        "version": version.number,
        "status": version.status_at(now).name(),
        "created": moment(version.created),
    });
    let mut add = |name: &str, at: Option<Timestamp>| {
        if let Some(at) = at {
            out[name] = json!(moment(at));
        }
    };
    add(if version.is_deleted(now) { "deletedAt" } else { "deleteAfter" }, version.deletion.time());
    add("disableAfter", version.disable_after);
    add("disabledAt", version.disabled_at);
    out
}
