//! What this face changes. Each change is one command: the record as it is at that moment, the rule, the record after.

use std::collections::BTreeMap;

use keyward_model::Id;
use keyward_policy::{Ask, Operation};
use serde_json::json;

use super::call::Call;
use super::input::invalid;
use super::read::moment;
use super::uri;
use crate::api::{Context, kv2};
use crate::barrier::Draft;
use crate::engine::kv::{
    CustomMetadata, Demote, Disable, Expected, KvError, LifecycleError, MetadataChange, NewVersion, Scope,
    SecretRecord, Status,
};
use crate::http::answer::Answer;
use crate::http::json::Kind;
use crate::mounts::Mount;
use crate::refusal::{Detail, Problem, Refusal};

/// A secret without versions.
///
/// # Errors
/// There is one already.
pub(super) async fn create(
    context: &Context<'_>,
    call: &Call,
    mount: &Mount,
    metadata: &BTreeMap<String, String>,
) -> Result<Answer, Refusal> {
    let (tree, config, path) = (kv2::secrets(mount), mount.kv.unwrap_or_default(), &call.place.path);
    let change = MetadataChange {
        custom_metadata: Some(CustomMetadata::Replace(metadata.clone())),
        metadata_cas: Some(0),
        ..MetadataChange::default()
    };
    let uri = uri::of(&call.place.name, path);
    context
        .write_answer(
            |draft| {
                if kv2::current(draft, tree, path)?.is_some() {
                    return Err(Refusal::explained(Problem::CAS_MISMATCH, "there is a secret at this path already"));
                }
                let record = SecretRecord::with_metadata(Id::random(draft.entropy()), &change, &config, draft.now())?;
                let key = kv2::place(draft, tree, path, &record)?;
                kv2::put_record(draft, &key, &record)?;
                Ok(record)
            },
            |record| {
                let body = json!({ "secretId": record.id.to_uuid(), "uri": uri, "created": moment(record.created) });
                Ok(Answer::bare(201, &body))
            },
        )
        .await
}

/// A version of the value in the body: a text is stored as `{"value": …}`, an object as the bytes that came.
///
/// # Errors
/// No such secret; `current` does not point where the caller expects.
pub(super) async fn version(
    context: &Context<'_>,
    call: &Call,
    mount: &Mount,
    status: Status,
    expected: Option<u64>,
) -> Result<Answer, Refusal> {
    let config = mount.kv.unwrap_or_default();
    let value = context.params.body().and_then(|body| body.get("value"));
    let value = value.ok_or_else(|| Refusal::internal("the value of a version was not checked"))?;
    let wrapped;
    let bytes = if value.kind() == Kind::Object {
        value.text().as_bytes()
    } else {
        wrapped = format!("{{\"value\":{}}}", value.text());
        wrapped.as_bytes()
    };
    let cas = expected.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    change(context, call, mount, |draft, record| {
        let blob = draft.reserve_blob();
        let now = draft.now();
        let new = NewVersion { status, blob, created_by: None };
        let written = record.write(&config, cas, new, now).map_err(|error| match error {
            KvError::CasRequired => invalid("`expected_version` must be a number: this secret or mount demands it"),
            _ => Refusal::Problem(Problem::CAS_MISMATCH),
        })?;
        draft.put_version(blob, record.id, written.number, bytes);
        context.note(|facts| facts.version = Some(written.number));
        for id in written.erase {
            draft.erase_version(id);
        }
        Ok(written.number)
    }, |record, number| {
    let created = record.version(number).map(|version| moment(version.created));
    Answer::bare(
        201,
        &json!({ "secretId": record.id.to_uuid(), "version": number, "status": status.name(), "created": created }),
    )
    })
    .await
}

/// An alias points to a version.
///
/// # Errors
/// It points elsewhere than expected; no such version; the version's status does not allow it.
pub(super) async fn point(
    context: &Context<'_>,
    call: &Call,
    mount: &Mount,
    name: &str,
    number: u64,
    expected: Expected,
    demote: Demote,
) -> Result<Answer, Refusal> {
    change(
        context,
        call,
        mount,
        |draft, record| {
            let now = draft.now();
            let moved = match name {
                "current" => record.promote(number, expected, demote, now),
                _ => record.set_alias(name, number, expected, now),
            };
            moved.map_err(|error| refused(context, call, &error))
        },
        |record, ()| {
            let revision = record.aliases.get(name).map(|pointer| pointer.revision);
            Answer::bare(
                200,
                &json!({ "secretId": record.id.to_uuid(), "alias": name, "version": number, "revision": revision }),
            )
        },
    )
    .await
}

/// An alias is taken away.
///
/// # Errors
/// It is the system's, or does not point where the caller expects.
pub(super) async fn unpoint(
    context: &Context<'_>,
    call: &Call,
    mount: &Mount,
    name: &str,
    expected: Expected,
) -> Result<Answer, Refusal> {
    change(
        context,
        call,
        mount,
        |_, record| record.remove_alias(name, expected).map_err(|error| refused(context, call, &error)),
        |_, ()| Answer::no_content(),
    )
    .await
}

/// A version is never returned from now on.
///
/// # Errors
/// No such version; its status does not allow it.
pub(super) async fn disable(
    context: &Context<'_>,
    call: &Call,
    mount: &Mount,
    number: u64,
    how: Disable,
) -> Result<Answer, Refusal> {
    change(
        context,
        call,
        mount,
        |draft, record| {
            let now = draft.now();
            record.disable(number, how, now).map_err(|error| refused(context, call, &error))
        },
        |record, ()| status_of(&record, number),
    )
    .await
}

/// A disabled version is returned again.
///
/// # Errors
/// No such version, or it is not disabled.
pub(super) async fn enable(context: &Context<'_>, call: &Call, mount: &Mount, number: u64) -> Result<Answer, Refusal> {
    change(
        context,
        call,
        mount,
        |draft, record| {
            let now = draft.now();
            record.enable(number, now).map_err(|error| refused(context, call, &error))?;
            context.note(|facts| facts.version_status = record.version(number).map(|version| version.status.name()));
            Ok(())
        },
        |record, ()| status_of(&record, number),
    )
    .await
}

/// A version's value is gone for good.
///
/// # Errors
/// No such version; its status does not allow it; it must be kept a while yet.
pub(super) async fn destroy(context: &Context<'_>, call: &Call, mount: &Mount, number: u64) -> Result<Answer, Refusal> {
    let retention = i64::from(context.worker.app.config.lifecycle.retention_min_s);
    change(
        context,
        call,
        mount,
        |draft, record| {
            let now = draft.now();
            let blob =
                record.destroy_version(number, retention, now).map_err(|error| refused(context, call, &error))?;
            if let Some(blob) = blob {
                draft.erase_version(blob);
            }
            Ok(())
        },
        |record, ()| status_of(&record, number),
    )
    .await
}

/// Soft deletion of a version or of the whole secret.
///
/// # Errors
/// No such version; its status does not allow it.
pub(super) async fn delete(context: &Context<'_>, call: &Call, mount: &Mount, scope: Scope) -> Result<Answer, Refusal> {
    change(
        context,
        call,
        mount,
        |draft, record| {
            let now = draft.now();
            record.soft_delete(scope, now).map_err(|error| refused(context, call, &error))
        },
        |_, ()| Answer::no_content(),
    )
    .await
}

/// Takes back a soft deletion.
///
/// # Errors
/// No such version, or it is destroyed.
pub(super) async fn undelete(
    context: &Context<'_>,
    call: &Call,
    mount: &Mount,
    scope: Scope,
) -> Result<Answer, Refusal> {
    let config = mount.kv.unwrap_or_default();
    change(
        context,
        call,
        mount,
        |draft, record| {
            let now = draft.now();
            record.soft_undelete(scope, &config, now).map_err(|error| refused(context, call, &error))
        },
        |_, ()| Answer::no_content(),
    )
    .await
}

/// Changes the record of the call's secret in one command, and answers with what `render` makes of it; a change that changes nothing writes nothing.
async fn change<T>(
    context: &Context<'_>,
    call: &Call,
    mount: &Mount,
    mut rule: impl FnMut(&mut Draft<'_>, &mut SecretRecord) -> Result<T, Refusal>,
    render: impl Fn(SecretRecord, T) -> Answer,
) -> Result<Answer, Refusal> {
    let tree = kv2::secrets(mount);
    context
        .write_answer(
            |draft| {
                let found = kv2::current(draft, tree, &call.place.path)?;
                let found = found.filter(|(_, record)| call.place.secret.is_none_or(|id| id == record.id));
                let (key, mut record) = found.ok_or(Refusal::Problem(Problem::SECRET_NOT_FOUND))?;
                let before = record.clone();
                let result = rule(draft, &mut record)?;
                if record != before {
                    kv2::put_record(draft, &key, &record)?;
                }
                Ok((record, result))
            },
            |(record, result)| Ok(render(record, result)),
        )
        .await
}

fn status_of(record: &SecretRecord, number: u64) -> Answer {
    let status = record.version(number).map(|version| version.status.name());
    Answer::bare(200, &json!({ "secretId": record.id.to_uuid(), "version": number, "status": status }))
}

/// Why the life cycle does not allow it. Where an alias points is told to those who may read the metadata.
fn refused(context: &Context<'_>, call: &Call, error: &LifecycleError) -> Refusal {
    let conflict = |text| Refusal::explained(Problem::VERSION_STATE_CONFLICT, text);
    match error {
        LifecycleError::VersionNotFound(_) => Refusal::Problem(Problem::SECRET_VERSION_NOT_FOUND),
        LifecycleError::StateConflict(Status::Disabled) => conflict("the version is disabled: enable it first"),
        LifecycleError::StateConflict(Status::Destroyed) => conflict("the version is destroyed"),
        LifecycleError::StateConflict(Status::Current) => {
            conflict("`current` points to the version: promote another first")
        }
        LifecycleError::StateConflict(Status::Previous) => conflict("the version is still readable: disable it first"),
        LifecycleError::StateConflict(Status::Pending) => conflict("the version is pending: promote it first"),
        LifecycleError::Deleted => conflict("the version is deleted: undelete it first"),
        LifecycleError::Referenced => conflict("an alias points to the version: move it first"),
        LifecycleError::Retained { .. } => {
            conflict("the version must be kept a while yet: `lifecycle.retention_min_s` says how long")
        }
        LifecycleError::AliasMismatch { actual } if may_read_metadata(context, call) => {
            Refusal::Explained(Problem::ALIAS_CAS_MISMATCH, Detail::Actual(*actual))
        }
        LifecycleError::AliasMismatch { .. } | LifecycleError::AliasNotFound => {
            Refusal::Problem(Problem::ALIAS_CAS_MISMATCH)
        }
        LifecycleError::AliasReserved => Refusal::Problem(Problem::ALIAS_RESERVED),
        LifecycleError::AliasInvalid => Refusal::Problem(Problem::INVALID_ALIAS),
        LifecycleError::TooManyAliases => invalid("a secret has at most 8 custom aliases: remove one first"),
    }
}

fn may_read_metadata(context: &Context<'_>, call: &Call) -> bool {
    let path = format!("{}/metadata/{}", call.place.name, call.place.path);
    let ask = Ask { operation: Operation::Read, path: &path, parameters: None, wrap_ttl: None };
    context.session().and_then(|session| context.worker.acl(session)).is_ok_and(|acl| acl.1.decide(&ask).allowed)
}
