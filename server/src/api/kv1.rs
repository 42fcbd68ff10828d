//! KV version 1: one value per path, no versions.

use keyward_model::event::EventKind;
use keyward_model::{Id, Table};
use keyward_policy::Operation;
use serde_json::json;

use super::Context;
use crate::app::Worker;
use crate::barrier::Columns;
use crate::engine::tree::Tree;
use crate::http::answer::{Answer, Form};
use crate::http::duration;
use crate::http::fields::Field;
use crate::http::json::{Kind, Raw};
use crate::record::Facts;
use crate::refusal::Refusal;

/// All that an entry's path declares: the path itself.
pub const FIELDS: [Field; 1] = [Field::captured("path")];

/// What the record says; the path is what the keyed reference is made of.
pub fn describe<'a>(operation: Operation, rest: &'a str, facts: &mut Facts) -> Option<&'a str> {
    let (kind, action) = match operation {
        Operation::Read => (EventKind::SecretPermit, "read"),
        Operation::List | Operation::Scan => (EventKind::Listed, "list"),
        Operation::Delete => (EventKind::SecretDeleted, "delete"),
        _ => (EventKind::VersionCreated, "write"),
    };
    facts.set(kind, action, "kv1");
    Some(rest)
}

/// Whether there is an entry at `path`.
///
/// # Errors
/// The row cannot be read.
pub fn exists(worker: &Worker, mount: Id, path: &str) -> Result<bool, Refusal> {
    let keys = worker.app.barrier.keyring()?;
    let key = entries(mount).key(&keys, path);
    Ok(worker.reader().row(Table::Entries, &key).map_err(crate::barrier::storage)?.is_some())
}

/// The names of the entries below a mount (or of one token's cubbyhole).
pub fn entries(mount: Id) -> Tree {
    Tree { mount, leaves: Table::Entries }
}

/// Answers for a KV v1 mount.
///
/// # Errors
/// No such verb, nothing there, or nothing to write.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    let mount = context.mount()?;
    mount.serving()?;
    let path = context.rest();
    match context.request.operation {
        Operation::Read => {
            let value = read(context, mount.id, path)?;
            let lease = lease_of(Raw::trusted(&value)).unwrap_or(mount.default_lease());
            let mut answer = Answer::json(value.into_bytes());
            if let Form::Envelope(envelope) = &mut answer.form {
                envelope.lease_duration = lease;
            }
            Ok(context.with_parameter_warnings(answer, &FIELDS))
        }
        Operation::List | Operation::Scan => list(context, mount.id, path),
        Operation::Create | Operation::Update => {
            if path.is_empty() {
                return Err(Refusal::malformed("missing path"));
            }
            let body = body(context).ok_or_else(|| Refusal::malformed("missing data fields"))?;
            write(context, mount.id, path, &body).await
        }
        Operation::Delete => delete(context, mount.id, path).await,
        _ => Err(Refusal::UnsupportedOperation),
    }
}

/// The stored text of an entry.
///
/// # Errors
/// [`Refusal::Absent`].
pub fn read(context: &Context<'_>, mount: Id, path: &str) -> Result<String, Refusal> {
    canonical(path)?;
    let keys = context.keys()?;
    let key = entries(mount).key(&keys, path);
    let opened = context.worker.app.barrier.read(context.reader(), Table::Entries, &key)?.ok_or(Refusal::Absent)?;
    std::str::from_utf8(opened.body.expose()).map(str::to_owned).map_err(|_| Refusal::internal("an entry is not UTF-8"))
}

/// Names below `folder`; of a scan all leaves. Nothing there: 404.
///
/// # Errors
/// [`Refusal::Absent`].
pub fn list(context: &Context<'_>, mount: Id, folder: &str) -> Result<Answer, Refusal> {
    let keys = context.keys()?;
    let tree = entries(mount);
    let folder = folder.strip_suffix('/').unwrap_or(folder);
    let scan = context.request.operation == Operation::Scan;
    let mut names =
        if scan { tree.scan(&keys, context.reader(), folder)? } else { tree.list(&keys, context.reader(), folder)? };
    if let Some(filter) = context.permit.keys_filter() {
        names = super::kv2::readable(context, filter, names)?;
    }
    if names.is_empty() && !scan {
        return Err(Refusal::Absent);
    }
    let data = if names.is_empty() { json!({}) } else { json!({ "keys": names }) };
    Ok(context.with_parameter_warnings(Answer::data(&data), &FIELDS))
}

/// The whole body, as an object; `None` if there is nothing in it.
pub fn body(context: &Context<'_>) -> Option<String> {
    match context.params.body() {
        Some(body) if !body.is_empty() => Some(body.raw().text().to_owned()),
        _ => form(context),
    }
}

/// Stores `body` at `path`.
///
/// # Errors
/// The path is not canonical.
pub async fn write(context: &Context<'_>, mount: Id, path: &str, body: &str) -> Result<Answer, Refusal> {
    canonical(path)?;
    let tree = entries(mount);
    context
        .write_answer(
            |draft| {
                let key = tree.key(draft.keyring(), path);
                if !draft.exists(Table::Entries, &key)? {
                    tree.add_folders(draft, path)?;
                }
                draft.put(Table::Entries, &key, Columns::default(), body.as_bytes())
            },
            |()| Ok(Answer::no_content()),
        )
        .await
}

/// A form body as an object of strings.
fn form(context: &Context<'_>) -> Option<String> {
    let names = context.params.names();
    if names.is_empty() {
        return None;
    }
    let map: serde_json::Map<String, serde_json::Value> = names
        .into_iter()
        .filter_map(|name| {
            let value = context.params.string(&name).ok().flatten()?.into_owned();
            Some((name.into_owned(), value.into()))
        })
        .collect();
    serde_json::to_string(&map).ok()
}

/// Removes the entry at `path`; nothing there is no error.
///
/// # Errors
/// A row cannot be read.
pub async fn delete(context: &Context<'_>, mount: Id, path: &str) -> Result<Answer, Refusal> {
    if path.is_empty() || canonical(path).is_err() {
        return Ok(Answer::no_content());
    }
    let tree = entries(mount);
    context
        .write_answer(
            |draft| {
                let key = tree.key(draft.keyring(), path);
                if draft.exists(Table::Entries, &key)? {
                    draft.remove(Table::Entries, &key)?;
                    tree.remove_empty_folders(draft, path)?;
                }
                Ok(())
            },
            |()| Ok(Answer::no_content()),
        )
        .await
}

/// One name, one key: no empty segment, no trailing slash.
///
/// # Errors
/// [`Refusal::Absent`]: nothing can be stored under such a name.
pub fn canonical(path: &str) -> Result<(), Refusal> {
    if path.is_empty() || path.split('/').any(str::is_empty) { Err(Refusal::Absent) } else { Ok(()) }
}

/// Seconds from the secret's own `ttl`, or `lease` where there is no `ttl`. `None` if neither is a duration.
fn lease_of(value: Raw<'_>) -> Option<i64> {
    let field = value.get("ttl").or_else(|| value.get("lease"))?;
    match field.kind() {
        Kind::Null => Some(0),
        Kind::String => Some(duration::parse(&field.string()?).ok()? / 1_000_000_000),
        // More seconds than a duration has are none.
        Kind::Number => field.text().parse().ok().filter(|seconds: &i64| seconds.checked_mul(1_000_000_000).is_some()),
        _ => None,
    }
}
